"""Faces of a plain folder, and inputs that are no faces at all."""

import os
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from manifests.attributes import ATTRIBUTES
from manifests.catalogue_digest import catalogue_digest
from manifests.errors import InputError
from manifests.faces import read_faces


def draw(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (3, 3), (1, 2, 3)).save(path)


def test_every_image_below_the_folder_is_a_face_without_labels(tmp_path: Path) -> None:
    good = ["a.jpg", "b.JPEG", "c.Png", "people/ann/d.webp", "people/ann/e.bmp", "people/f.tif", "g.TIFF", "ü h.jpg"]
    for name in [*good, ".hidden.jpg", ".cache/x.jpg", "__MACOSX/y.jpg"]:
        draw(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    faces = read_faces(tmp_path, strict=True)
    assert faces.layout == "folder"
    assert faces.table["image_id"].to_pylist() == sorted(good, key=str.encode)
    assert faces.table["locator"].to_pylist() == faces.table["image_id"].to_pylist()
    assert set(faces.table["split"].to_pylist()) == {"train"}
    assert faces.table["identity"].null_count == len(good)
    assert all(faces.table[name].null_count == len(good) for name in ATTRIBUTES)
    for row in faces.table.select(["locator", "size"]).to_pylist():
        assert len(faces.source.read(row["locator"])) == row["size"] > 0


def test_the_images_of_celeba_alone_are_a_plain_folder(tmp_path: Path) -> None:
    draw(tmp_path / "img_align_celeba" / "000001.jpg")
    assert read_faces(tmp_path / "img_align_celeba").layout == "folder"
    with pytest.raises(InputError, match=r"no list_attr_celeba.txt .* images alone"):
        read_faces(tmp_path)


def test_links_out_of_the_folder_are_left_out_and_told(tmp_path: Path) -> None:
    draw(tmp_path / "out" / "x.jpg")
    draw(tmp_path / "in" / "a.jpg")
    (tmp_path / "in" / "b.jpg").symlink_to("a.jpg")
    (tmp_path / "in" / "c.jpg").symlink_to(tmp_path / "out" / "x.jpg")
    (tmp_path / "in" / "d.jpg").symlink_to("nothing.jpg")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    faces = read_faces(tmp_path / "in")
    assert faces.table["image_id"].to_pylist() == ["a.jpg", "b.jpg"]
    (problem,) = faces.problems
    assert problem.startswith("2 images are links that lead out of")
    assert "c.jpg, d.jpg" in problem
    with pytest.raises(InputError, match="2 images are links"):
        read_faces(tmp_path / "in", strict=True)
    (tmp_path / "link").symlink_to(tmp_path / "in")
    assert read_faces(tmp_path / "link").digest == faces.digest


@pytest.mark.parametrize("kind", ["missing", "url", "empty", "no images", "text file", "zip of text", "weights"])
def test_what_holds_no_faces_is_refused_in_one_sentence(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "url":
        path = Path("s3://bucket/celeba")
    elif kind == "no images":
        path.mkdir()
        (path / "list.txt").write_text("x")
    elif kind == "empty":
        path.mkdir()
    elif kind == "text file":
        path.write_text("000001.jpg")
    elif kind == "weights":
        path = tmp_path / "vgg.safetensors"
        path.write_bytes(b"\0" * 64)
    elif kind == "zip of text":
        path = tmp_path / "faces.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", "x")
    with pytest.raises(InputError) as caught:
        read_faces(path)
    assert str(path) in str(caught.value)
    assert str(caught.value).count(". ") == 0


def test_a_file_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    try:
        (tmp_path / "a.jpg").rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(InputError, match="not UTF-8"):
        read_faces(tmp_path)


ROWS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.text(max_size=4)),
        st.one_of(st.none(), st.booleans()),
        st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
    ),
    max_size=6,
)


def table_of(rows: list[tuple[str | None, bool | None, int | None]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    types = [pa.string(), pa.bool_(), pa.int64()]
    return pa.table([pa.array(c, t) for c, t in zip(columns, types, strict=True)], names=["s", "b", "i"])


@settings(deadline=None)
@given(rows=ROWS, cut=st.integers(0, 6))
def test_the_digest_does_not_see_chunks_or_slices(
    rows: list[tuple[str | None, bool | None, int | None]], cut: int
) -> None:
    table = table_of(rows)
    padded = pa.concat_tables([table_of([("x", None, 1)]), table, table_of([(None, True, 2)])]).combine_chunks()
    chunked = pa.concat_tables([table.slice(0, cut), table.slice(cut)])
    assert catalogue_digest(chunked) == catalogue_digest(table) == catalogue_digest(padded.slice(1, len(rows)))


@settings(deadline=None)
@given(one=ROWS, other=ROWS)
def test_the_digest_tells_tables_apart(
    one: list[tuple[str | None, bool | None, int | None]], other: list[tuple[str | None, bool | None, int | None]]
) -> None:
    same = one == other
    assert (catalogue_digest(table_of(one)) == catalogue_digest(table_of(other))) == same
    assert catalogue_digest(table_of(one), [("f", 1)]) != catalogue_digest(table_of(one), [("f", 2)])


def test_the_digest_does_not_see_bytes_behind_a_null() -> None:
    offsets = pa.array([0, 1, 3, 4], pa.int32()).buffers()[1]
    valid = pa.py_buffer(b"\x05")
    hidden = pa.Array.from_buffers(pa.string(), 3, [valid, offsets, pa.py_buffer(b"axxb")])
    assert hidden.to_pylist() == ["a", None, "b"]
    assert catalogue_digest(pa.table({"s": hidden})) == catalogue_digest(pa.table({"s": ["a", None, "b"]}))
