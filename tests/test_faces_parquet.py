"""Faces of a Hugging Face style Parquet copy."""

import io
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from manifests.attributes import ATTRIBUTES
from manifests.errors import InputError
from manifests.faces import read_faces

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def encoded(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 3), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def images(names: list[str | None]) -> pa.Array:
    return pa.array([{"bytes": encoded(at), "path": name} for at, name in enumerate(names)], IMAGE)


def write(path: Path, names: list[str | None], attributes: pa.DataType | None = None, **columns: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table: dict[str, Any] = {"image": images(names), **columns}
    if attributes is not None:
        low = -1 if attributes == pa.int8() else 0
        for number, name in enumerate(ATTRIBUTES):
            values = [1 if (row + number) % 3 == 0 else low for row in range(len(names))]
            table[name] = pa.array(values).cast(attributes)
    pq.write_table(pa.table(table), path, row_group_size=2)


@pytest.mark.parametrize("kind", [pa.bool_(), pa.int64(), pa.int32(), pa.int8()])
def test_a_sharded_copy(tmp_path: Path, kind: pa.DataType) -> None:
    names: list[str | None] = [f"{number:06d}.jpg" for number in range(1, 6)]
    write(tmp_path / "data/train-00000-of-00002.parquet", names[:3], kind, celeb_id=[5, 6, None])
    write(tmp_path / "data/valid-00000-of-00001.parquet", names[3:4], kind, celeb_id=pa.array([7], pa.int32()))
    write(tmp_path / "data/test-00000-of-00001.parquet", names[4:], kind, celeb_id=[8])
    faces = read_faces(tmp_path, strict=True)
    assert faces.layout == "parquet"
    assert faces.notes == ()
    assert faces.table["image_id"].to_pylist() == names
    assert faces.table["split"].to_pylist() == ["train"] * 3 + ["valid", "test"]
    assert faces.table["identity"].to_pylist() == [5, 6, None, 7, 8]
    assert faces.table["Arched_Eyebrows"].to_pylist() == [False, False, True, False, False]
    assert faces.table["size"].to_pylist() == [-1] * 5
    assert faces.table["locator"].to_pylist()[2] == "data/train-00000-of-00002.parquet#1#0"
    assert [faces.source.read(locator) for locator in faces.table["locator"].to_pylist()] == [
        encoded(value) for value in (0, 1, 2, 0, 0)
    ]
    assert read_faces(tmp_path / "data").table["image_id"].to_pylist() == names


def test_one_file_with_a_split_column(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    splits = ["test", "validation", "train", "val"]
    write(path, ["x/a.jpg", "x\\b.jpg", None, ""], pa.bool_(), split=pa.array(splits).dictionary_encode())
    faces = read_faces(path)
    got = dict(zip(faces.table["image_id"].to_pylist(), faces.table["split"].to_pylist(), strict=True))
    assert got == {
        "train.parquet:0000002": "train",
        "b.jpg": "valid",
        "train.parquet:0000003": "valid",
        "a.jpg": "test",
    }
    assert "celeb_id" in faces.notes[0]
    row = faces.table["image_id"].to_pylist().index("b.jpg")
    assert faces.source.read(faces.table["locator"][row].as_py()) == encoded(1)


def test_binary_images_and_an_id_column_and_no_labels(tmp_path: Path) -> None:
    table = {"image": pa.array([b"one", b"two"]), "image_id": [7, 3]}
    pq.write_table(pa.table(table), tmp_path / "faces.parquet")
    faces = read_faces(tmp_path / "faces.parquet", strict=True)
    assert faces.table["image_id"].to_pylist() == ["3", "7"]
    assert [faces.source.read(locator) for locator in faces.table["locator"].to_pylist()] == [b"two", b"one"]
    assert faces.table["Male"].null_count == 2
    assert len(faces.notes) == 3, "attributes, identity and split are each said to be absent"


def test_splits_from_folder_names_and_prefixes(tmp_path: Path) -> None:
    write(tmp_path / "default/validation/0000.parquet", ["a.jpg"])
    write(tmp_path / "default/partial-test/0000.parquet", ["b.jpg"])
    write(tmp_path / "celeba_train_0.parquet", ["c.jpg"])
    write(tmp_path / "contest.parquet", ["d.jpg"])
    table = read_faces(tmp_path).table
    got = dict(zip(table["image_id"].to_pylist(), table["split"].to_pylist(), strict=True))
    assert got == {"a.jpg": "valid", "b.jpg": "test", "c.jpg": "train", "d.jpg": "train"}


def test_repeated_ids_keep_the_first(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", ["x.jpg", "y.jpg", "x.jpg"])
    write(tmp_path / "b.parquet", ["y.jpg"])
    faces = read_faces(tmp_path)
    assert faces.table["locator"].to_pylist() == ["a.parquet#0#0", "a.parquet#0#1"]
    assert "2 rows in" in faces.problems[0]
    assert "(first: x.jpg, y.jpg)" in faces.problems[0]
    with pytest.raises(InputError, match="2 rows in"):
        read_faces(tmp_path, strict=True)


def test_a_cache_of_links_into_blobs_can_be_read(tmp_path: Path) -> None:
    write(tmp_path / "blobs/0a1b.parquet", ["a.jpg"])
    (tmp_path / "blobs/0a1b.parquet").rename(tmp_path / "blobs/0a1b")
    (tmp_path / "snapshots/x/data").mkdir(parents=True)
    (tmp_path / "snapshots/x/data/test-00000-of-00001.parquet").symlink_to("../../../blobs/0a1b")
    for path in (tmp_path / "snapshots/x", tmp_path / "snapshots/x/data/test-00000-of-00001.parquet"):
        faces = read_faces(path)
        assert faces.table["split"].to_pylist() == ["test"]
        assert faces.source.read(faces.table["locator"][0].as_py()) == encoded(0)


def test_the_digest_follows_the_content_of_the_files(tmp_path: Path) -> None:
    write(tmp_path / "one/a.parquet", ["a.jpg"], pa.bool_())
    write(tmp_path / "two/a.parquet", ["a.jpg"], pa.bool_())
    assert read_faces(tmp_path / "one").digest == read_faces(tmp_path / "two").digest
    pq.write_table(
        pa.table({"image": pa.array([{"bytes": b"x" * 999, "path": "a.jpg"}], IMAGE)}), tmp_path / "a.parquet"
    )
    os.replace(tmp_path / "a.parquet", tmp_path / "two/a.parquet")
    assert read_faces(tmp_path / "one").digest != read_faces(tmp_path / "two").digest


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"split": ["train", "everything"]}, "the split 'everything' in row 1"),
        ({"split": ["train", None]}, "the split None in row 1"),
        ({"celeb_id": ["1", "Ann"]}, "column celeb_id"),
        ({"Male": [1, 5]}, "the value 5 for Male in row 1"),
        ({"Male": ["yes", "no"]}, "attribute Male as string"),
        ({"image_id": [1.5, 2.5]}, "column image_id as double"),
    ],
)
def test_impossible_values_are_named(tmp_path: Path, columns: dict[str, Any], reason: str) -> None:
    write(tmp_path / "a.parquet", ["a.jpg", "b.jpg"], None, **columns)
    with pytest.raises(InputError) as caught:
        read_faces(tmp_path)
    assert reason in str(caught.value)
    assert "a.parquet" in str(caught.value)


@pytest.mark.parametrize("kind", ["no image", "text image", "not parquet", "empty", "cut", "no rows", "dead link"])
def test_a_wrong_parquet_copy_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.parquet"
    write(path, ["a.jpg"])
    if kind == "no image":
        pq.write_table(pa.table({"celeb_id": [1]}), path)
    elif kind == "text image":
        pq.write_table(pa.table({"image": ["a.jpg"]}), path)
    elif kind == "no rows":
        write(path, [])
    elif kind == "dead link":
        path.unlink()
        path.symlink_to("gone.parquet")
    else:
        path.write_bytes({"not parquet": b"text " * 9, "empty": b"", "cut": path.read_bytes()[:-20]}[kind])
    with pytest.raises(InputError, match=r"a\.parquet|no rows"):
        read_faces(tmp_path)
