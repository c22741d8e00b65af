"""Attribute filters: the definition, names as people write them, and what is refused."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from manifests.attributes import ATTRIBUTES
from manifests.errors import InputError
from pipeline.retrieval.attribute_filter import allowed_items

NAMES = ("Smiling", "Male", "Wavy_Hair")
BITS = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 1], [1, 0, 1]], dtype=torch.bool)


@given(
    st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=8),
    st.lists(st.sampled_from("abcd"), max_size=3),
    st.lists(st.sampled_from("abcd"), max_size=3),
)
def test_the_definition(rows, with_, without):
    names = tuple("abcd")
    expected = [
        all(row[names.index(name)] for name in with_) and not any(row[names.index(name)] for name in without)
        for row in rows
    ]
    bits = torch.tensor(rows)
    if {*with_} & {*without}:
        with pytest.raises(InputError, match="both"):
            allowed_items(bits, names, with_, without)
    elif not any(expected):
        with pytest.raises(InputError, match="none"):
            allowed_items(bits, names, with_, without)
    else:
        found = allowed_items(bits, names, with_, without)
        assert found.dtype == torch.bool
        assert found.tolist() == expected


def test_names_in_any_case_with_spaces_or_hyphens():
    assert allowed_items(BITS, NAMES, ["smiling"], ["MALE"]).tolist() == [True, False, False, True]
    for name in ("wavy_hair", "Wavy Hair", " wavy-hair "):
        assert allowed_items(BITS, NAMES, [name]).tolist() == [False, False, True, True]
    assert allowed_items(BITS, NAMES, ["Smiling", "smiling"]).tolist() == [True, True, False, True]
    assert allowed_items(BITS, NAMES).tolist() == [True] * 4


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("Smilling", "did you mean Smiling?"),
        ("glasses", "did you mean Eyeglasses"),
        ("beard", "No_Beard"),
        ("hat", "Wearing_Hat"),
        ("blonde hair", "did you mean Blond_Hair"),
        ("xyzzy", "the attributes are 5_o_Clock_Shadow, Arched_Eyebrows, .*Young"),
        ("", "the attributes are"),
    ],
)
def test_the_nearest_names_are_suggested(name, suggested):
    bits = torch.ones(2, 40, dtype=torch.bool)
    with pytest.raises(InputError, match=f'there is no attribute "{name}"; .*{suggested}'):
        allowed_items(bits, ATTRIBUTES, [name])
    with pytest.raises(InputError, match="there is no attribute"):
        allowed_items(bits, ATTRIBUTES, (), [name])


def test_what_cannot_be_filtered_by():
    with pytest.raises(InputError, match="Smiling is both asked for and ruled out"):
        allowed_items(BITS, NAMES, ["Smiling"], ["smiling"])
    with pytest.raises(InputError, match="the model has not learned Male"):
        allowed_items(BITS, NAMES, ["male"], untrained=("Male",))
    with pytest.raises(InputError, match=r'there are no attributes to choose "Male" from.*--attributes'):
        allowed_items(torch.zeros(4, 0, dtype=torch.bool), (), ["Male"])


def test_how_many_faces_each_part_leaves_is_said():
    with pytest.raises(
        InputError, match=r"of 4 faces none is Male \(2\), Wavy_Hair \(2\) and not Smiling \(1\) at once"
    ):
        allowed_items(
            torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 1], [0, 0, 0]], dtype=torch.bool),
            NAMES,
            ["Male", "Wavy_Hair"],
            ["Smiling"],
        )


def test_without_attributes_and_without_a_filter_everything_is_allowed():
    assert allowed_items(torch.zeros(3, 0, dtype=torch.bool), ()).tolist() == [True] * 3
