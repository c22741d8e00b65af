"""Attribute agreement against counting in Python, and what it is counted of."""

import math

import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from manifests.attributes import ATTRIBUTES
from manifests.errors import InputError
from pipeline.retrieval.attribute_agreement import agreement_by, attribute_agreement, known_attributes
from pipeline.retrieval.described_faces import DescribedFaces
from pipeline.retrieval.face_set import FACE_SET_SCHEMA


def faces(labels, probabilities):
    """Described faces of which only the attributes matter; labels are {attribute: [yes, no or None of each face]}."""
    count = len(probabilities)
    columns = {name: [f"{name}{at}" for at in range(count)] for name in FACE_SET_SCHEMA.names[:5]}
    columns |= {name: labels.get(name, [None] * count) for name in ATTRIBUTES}
    table = pa.table(columns, schema=FACE_SET_SCHEMA)
    return DescribedFaces(table, torch.zeros(count, 2), torch.tensor(probabilities).reshape(count, -1))


@st.composite
def pairs(draw):
    rows, attributes = draw(st.integers(0, 5)), draw(st.integers(0, 6))
    side = st.lists(
        st.lists(st.sampled_from([-1, 0, 1]), min_size=attributes, max_size=attributes), min_size=rows, max_size=rows
    )
    return rows, attributes, draw(side), draw(side)


@given(pairs())
def test_by_counting(of):
    rows, attributes, first, second = of
    sides = [torch.tensor(side, dtype=torch.int8).reshape(rows, attributes) for side in (first, second)]
    expected = []
    for one, other in zip(first, second, strict=True):
        both = [(a, b) for a, b in zip(one, other, strict=True) if a >= 0 and b >= 0]
        expected.append(sum(a == b for a, b in both) / len(both) if both else math.nan)
    found = attribute_agreement(*sides)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx(expected, nan_ok=True, abs=1e-15)
    assert attribute_agreement(*sides[::-1]).tolist() == pytest.approx(expected, nan_ok=True, abs=1e-15)


def test_the_worked_example():
    assert attribute_agreement(torch.tensor([[1, 0, -1, 1]]), torch.tensor([[1, 1, 0, -1]])).tolist() == [0.5]


LABELLED = faces({"Male": [True, None], "Bald": [None, None]}, [[0.9, 0.5, 0.1], [0.4, 0.6, 0.51]])
OTHERS = faces({"Bald": [False, True]}, [[0.9, 0.5, 0.1], [0.4, 0.6, 0.51]])
BARE = faces({"Male": [False]}, [[]])
NOTHING = faces({}, [[]])


def test_predictions_where_there_are_any_and_labels_where_both_have_them():
    assert agreement_by("auto", LABELLED, LABELLED) == "predictions"
    assert agreement_by("labels", LABELLED, LABELLED) == "labels"
    assert agreement_by("auto", LABELLED, faces({}, [[0.0] * 3])) == "predictions"
    assert agreement_by("auto", BARE, LABELLED) == "labels"
    assert agreement_by("auto", BARE, BARE) == "labels"
    # Labels, but not of the same attributes: no pair could be compared.
    assert agreement_by("auto", BARE, faces({"Bald": [True]}, [[]])) is None
    assert agreement_by("auto", NOTHING, NOTHING) is None


def test_what_is_not_there_cannot_be_compared():
    with pytest.raises(InputError, match="no attribute labels in common"):
        agreement_by("labels", LABELLED, OTHERS)
    with pytest.raises(InputError, match="predicts no attributes"):
        agreement_by("predictions", BARE, BARE)


def test_what_is_compared():
    labels = known_attributes(LABELLED, "labels")
    assert (labels.dtype, tuple(labels.shape)) == (torch.int8, (2, 40))
    assert labels[:, ATTRIBUTES.index("Male")].tolist() == [1, -1]
    assert (labels == -1).sum() == 79
    predicted = known_attributes(LABELLED, "predictions")
    assert predicted.dtype == torch.int8
    assert torch.equal(predicted.bool(), LABELLED.bits)
