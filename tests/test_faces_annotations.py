"""Celeb-A's annotation files: every spelling that people have, and a sentence for every line that is wrong."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.attributes import ATTRIBUTES
from manifests.celeba_annotations import read_attributes, read_identities, read_partition
from manifests.errors import InputError

ALL_FALSE = " ".join(["-1"] * 40)


def write(folder: Path, text: str | bytes, name: str = "list_attr_celeba.txt") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def attribute_text(*rows: str, header: str = " ".join(ATTRIBUTES)) -> str:
    return "\n".join([header, *rows]) + "\n"


def test_there_are_the_forty_official_names() -> None:
    assert len(ATTRIBUTES) == len(set(ATTRIBUTES)) == 40
    assert ATTRIBUTES[0] == "5_o_Clock_Shadow"
    assert ATTRIBUTES[20] == "Male"
    assert ATTRIBUTES[39] == "Young"


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_attributes_read_alike_in_every_spelling(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    order = data.draw(st.permutations(ATTRIBUTES))
    rows = data.draw(st.lists(st.lists(st.booleans(), min_size=40, max_size=40), min_size=1, max_size=4))
    newline = data.draw(st.sampled_from(["\n", "\r\n"]))
    space = st.sampled_from([" ", "  ", "   ", "\t", " \t "])
    trailing = st.sampled_from(["", " ", "  "])
    lines = [str(len(rows)) + data.draw(trailing)] if data.draw(st.booleans()) else []
    lines.append(" ".join(order) + data.draw(trailing))
    for number, row in enumerate(rows):
        value = dict(zip(ATTRIBUTES, row, strict=True))
        fields = [f"{number:06d}.jpg", *("1" if value[name] else "-1" for name in order)]
        lines.append(data.draw(space).join(fields) + data.draw(trailing))
    lines += data.draw(st.lists(st.just(""), max_size=2))
    text = data.draw(st.sampled_from(["", "\ufeff"])) + newline.join(lines)
    read = read_attributes(write(tmp_path_factory.mktemp("a"), text))
    assert read.problems == ()
    assert read.table.column_names == ["image_id", *ATTRIBUTES]
    expected = [
        {"image_id": f"{number:06d}.jpg", **dict(zip(ATTRIBUTES, row, strict=True))} for number, row in enumerate(rows)
    ]
    assert read.table.to_pylist() == expected


@pytest.mark.parametrize("false", ["-1", "0"])
def test_kaggle_attributes_are_csv(tmp_path: Path, false: str) -> None:
    row = ",".join(["1", *[false] * 39])
    path = write(tmp_path, f"image_id,{','.join(ATTRIBUTES)}\r\n000001.jpg,{row}\r\n", "list_attr_celeba.csv")
    table = read_attributes(path).table
    assert table["5_o_Clock_Shadow"].to_pylist() == [True]
    assert table["Young"].to_pylist() == [False]


def test_a_count_that_is_not_the_number_of_rows_is_told(tmp_path: Path) -> None:
    read = read_attributes(write(tmp_path, "202599\n" + attribute_text(f"000001.jpg {ALL_FALSE}")))
    (problem,) = read.problems
    assert "announces 202,599 rows" in problem
    assert "holds 1" in problem


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("000002.jpg " + " ".join(["-1"] * 39), "39 attribute values instead of 40"),
        (f"000002.jpg {ALL_FALSE} 1", "41 attribute values"),
        (f"000002.jpg 7 {ALL_FALSE[3:]}", "'7' for 5_o_Clock_Shadow"),
        (f"000002.jpg yes {ALL_FALSE[3:]}", "'yes'"),
        (f"000002.jpg 300 {ALL_FALSE[3:]}", "'300'"),
        (f"000002.jpg {ALL_FALSE[:-2]}0", "'0' for Young"),
        (f"000002.jpg nan {ALL_FALSE[3:]}", "'nan'"),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_malformed_attribute_row_is_named_by_line_and_text(
    tmp_path: Path, bad: str, reason: str, newline: str
) -> None:
    text = attribute_text(f"000001.jpg {ALL_FALSE}", "", bad, f"000003.jpg {ALL_FALSE}")
    with pytest.raises(InputError, match=r"line 5 has ") as caught:
        read_attributes(write(tmp_path, ("3\n" + text).replace("\n", newline)))
    assert "list_attr_celeba.txt" in str(caught.value)
    assert reason in str(caught.value)
    assert "000002.jpg" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no header"),
        ("3\n", "no header"),
        (f"000001.jpg {ALL_FALSE}\n", "no header"),
        (" ".join(ATTRIBUTES) + "\n", "no rows"),
        (attribute_text(header=" ".join([*ATTRIBUTES[:-1], "Beautiful"])), "unknown attributes (Beautiful)"),
        (attribute_text(header=" ".join(ATTRIBUTES[:-1])), "lacks the attributes Young"),
        (attribute_text(header=" ".join([*ATTRIBUTES, "Young"])), "Young twice"),
        (b"\x00\xff\xfe\x00\x80", "no header"),
    ],
)
def test_a_wrong_attribute_file_is_refused(tmp_path: Path, text: str | bytes, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        read_attributes(write(tmp_path, text))
    assert reason in str(caught.value)


def test_names_that_are_not_utf8_are_refused_with_a_sentence(tmp_path: Path) -> None:
    text = attribute_text().encode() + b"\xff\xfe.jpg " + ALL_FALSE.encode() + b"\n"
    with pytest.raises(InputError, match="malformed"):
        read_attributes(write(tmp_path, text))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("count", ["", "2\n"])
def test_identities_and_partition(tmp_path: Path, newline: str, count: str) -> None:
    identities = (count + "000001.jpg  2880 \n000002.jpg 11\n").replace("\n", newline)
    partition = (count + "000001.jpg 0\n000002.jpg   2\n").replace("\n", newline)
    read = read_identities(write(tmp_path, identities, "identity_CelebA.txt"))
    assert read.table.to_pydict() == {"image_id": ["000001.jpg", "000002.jpg"], "identity": [2880, 11]}
    read = read_partition(write(tmp_path, partition, "list_eval_partition.txt"))
    assert read.table.to_pydict() == {"image_id": ["000001.jpg", "000002.jpg"], "split": ["train", "test"]}


@pytest.mark.parametrize("bad", ["000002.jpg Anna", "000002.jpg 1.5", "000002.jpg", "000002.jpg 1 2", f"x.jpg {2**63}"])
def test_a_bad_identity_is_named(tmp_path: Path, bad: str) -> None:
    with pytest.raises(InputError, match=r"identity_CelebA.txt, line 2 has .*: '.*'; correct") as caught:
        read_identities(write(tmp_path, f"000001.jpg 5\n{bad}\n000003.jpg 5\n", "identity_CelebA.txt"))
    assert bad in str(caught.value)


@pytest.mark.parametrize("bad", ["3", "-1", "train", ""])
def test_a_bad_partition_is_named(tmp_path: Path, bad: str) -> None:
    text = f"image_id,partition\n000001.jpg,0\n000002.jpg,{bad}\n"
    with pytest.raises(InputError, match=r"list_eval_partition.csv, line 3 has the partition"):
        read_partition(write(tmp_path, text, "list_eval_partition.csv"))


def test_a_row_without_an_image_name_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 3 has no image name"):
        read_partition(write(tmp_path, "image_id,partition\na.jpg,0\n,1\n", "list_eval_partition.csv"))
