"""The catalogue of paintings: WikiArt folders, flat folders, archives, Parquet copies and the optional CSV."""

import io
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from manifests.errors import InputError
from manifests.paintings import PAINTING_SCHEMA, read_paintings

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
LABELS = ["painting", "artist", "title", "genre", "style"]


def draw(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3), (9, 9, len(path.name))).save(path)


def wikiart(root: Path) -> Path:
    for name in (
        "Post_Impressionism/vincent-van-gogh_the-starry-night-1889.jpg",
        "Baroque/rembrandt_the_night_watch.PNG",
        "Baroque/no-artist.jpg",
        "Baroque/jean.b.c_a.b.jpg",
    ):
        draw(root / name)
    return root


EXPECTED = [
    ("Baroque/jean.b.c_a.b.jpg", "jean.b.c", "a.b", None, "Baroque"),
    ("Baroque/no-artist.jpg", None, "no-artist", None, "Baroque"),
    ("Baroque/rembrandt_the_night_watch.PNG", "rembrandt", "the_night_watch", None, "Baroque"),
    (
        "Post_Impressionism/vincent-van-gogh_the-starry-night-1889.jpg",
        "vincent-van-gogh",
        "the-starry-night-1889",
        None,
        "Post_Impressionism",
    ),
]


def labels(table: pa.Table) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in LABELS) for row in table.to_pylist()]


def test_style_folders(tmp_path: Path) -> None:
    paintings = read_paintings(wikiart(tmp_path / "w"), strict=True)
    assert paintings.layout == "wikiart"
    assert paintings.table.schema == PAINTING_SCHEMA
    assert labels(paintings.table) == EXPECTED
    for row in paintings.table.to_pylist():
        assert len(paintings.source.read(row["locator"])) == row["size"]
    shutil.copytree(tmp_path / "w", tmp_path / "copy")
    assert read_paintings(tmp_path / "copy").digest == paintings.digest
    draw(tmp_path / "copy/Baroque/rembrandt_x.jpg")
    assert read_paintings(tmp_path / "copy").digest != paintings.digest


def test_a_flat_folder_has_no_styles(tmp_path: Path) -> None:
    draw(tmp_path / "klimt_the-kiss.jpg")
    draw(tmp_path / "_untitled.jpg")
    paintings = read_paintings(tmp_path)
    assert paintings.layout == "flat"
    assert labels(paintings.table) == [
        ("_untitled.jpg", None, "_untitled", None, None),
        ("klimt_the-kiss.jpg", "klimt", "the-kiss", None, None),
    ]


def test_an_archive_is_read_in_place(tmp_path: Path) -> None:
    root = wikiart(tmp_path / "w")
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        for name, *_ in EXPECTED:
            archive.write(root / name, name)
    paintings = read_paintings(tmp_path / "w.zip")
    assert paintings.layout == "zip"
    assert labels(paintings.table) == EXPECTED
    assert paintings.source.read(EXPECTED[0][0]) == (root / EXPECTED[0][0]).read_bytes()


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(folder=st.one_of(st.just(""), NAMES), stem=NAMES)
def test_any_name_splits_at_its_first_underscore(
    tmp_path_factory: pytest.TempPathFactory, folder: str, stem: str
) -> None:
    if folder.startswith(".") or stem.startswith("."):
        return
    root = tmp_path_factory.mktemp("w")
    path = root / folder / f"{stem}.jpg"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")
    (got,) = labels(read_paintings(root).table)
    artist, _, title = stem.partition("_")
    split = (artist, title) if artist and title else (None, stem)
    assert got == (path.relative_to(root).as_posix(), *split, None, folder or None)


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 3), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def parquet(path: Path, paths: list[str | None], footer: dict[str, Any] | None = None, **columns: Any) -> None:
    images = pa.array([{"bytes": png(at), "path": name} for at, name in enumerate(paths)], IMAGE)
    table = pa.table({"image": images, **columns})
    if footer is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": footer}})})
    pq.write_table(table, path)


def test_a_parquet_copy_names_its_class_labels(tmp_path: Path) -> None:
    names = {"_type": "ClassLabel", "names": ["claude-monet", "rembrandt"]}
    styles = {"_type": "ClassLabel", "names": ["Baroque", "Impressionism"]}
    footer = {"image": {"_type": "Image"}, "artist": names, "style": styles, "genre": {"_type": "Value"}}
    parquet(
        tmp_path / "train-00000-of-00001.parquet",
        ["m.jpg", None, "Baroque/r.jpg"],
        footer,
        artist=[0, -1, 1],
        style=pa.array([1, None, 0], pa.int16()),
        genre=[10, 11, 12],
    )
    paintings = read_paintings(tmp_path, strict=True)
    assert paintings.layout == "parquet"
    assert labels(paintings.table) == [
        ("Baroque/r.jpg", "rembrandt", None, "12", "Baroque"),
        ("m.jpg", "claude-monet", None, "10", "Impressionism"),
        ("train-00000-of-00001.parquet:0000001", None, None, "11", None),
    ]
    assert paintings.source.read(paintings.table["locator"][0].as_py()) == png(2)


@pytest.mark.parametrize("footer", [b"not json", b"[]", b'{"info": 1}', b"null"])
def test_text_labels_and_a_footer_that_says_nothing(tmp_path: Path, footer: bytes) -> None:
    table = pa.table(
        {
            "image": pa.array([{"bytes": b"x", "path": "a.jpg"}], IMAGE),
            "artist": pa.array(["Klimt"]).dictionary_encode(),
            "style": [3],
            "title": pa.array([""], pa.large_string()),
        }
    )
    pq.write_table(table.replace_schema_metadata({"huggingface": footer}), tmp_path / "a.parquet")
    assert labels(read_paintings(tmp_path / "a.parquet").table) == [("a.jpg", "Klimt", None, None, "3")]


def test_a_class_label_without_a_name_is_refused(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", ["a"], {"style": {"_type": "ClassLabel", "names": ["x"]}}, style=[4])
    with pytest.raises(InputError, match="label 4 in column style"):
        read_paintings(tmp_path)


def test_repeated_paintings_keep_the_first(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", ["a", "b", "a"], artist=["1", "2", "3"])
    paintings = read_paintings(tmp_path)
    assert paintings.table["artist"].to_pylist() == ["1", "2"]
    assert "1 row in" in paintings.problems[0]
    with pytest.raises(InputError, match="repeats an earlier painting"):
        read_paintings(tmp_path, strict=True)


def test_a_csv_adds_and_replaces_labels(tmp_path: Path) -> None:
    root = wikiart(tmp_path / "w")
    csv = tmp_path / "classes.csv"
    csv.write_bytes(
        b"\xef\xbb\xbfFilename,width,Artist,genre,title\r\n"
        b'Baroque/rembrandt_the_night_watch.PNG,4,Rembrandt,"portrait, group","The\r\nNight Watch"\r\n'
        b"no-artist.jpg,4,,still life,\r\n"
        b".\\Baroque\\jean.b.c_a.b.jpg,4,Jean,,A\r\n"
    )
    paintings = read_paintings(root, csv=csv)
    assert labels(paintings.table) == [
        ("Baroque/jean.b.c_a.b.jpg", "Jean", "A", None, "Baroque"),
        ("Baroque/no-artist.jpg", None, "no-artist", "still life", "Baroque"),
        ("Baroque/rembrandt_the_night_watch.PNG", "Rembrandt", "The\r\nNight Watch", "portrait, group", "Baroque"),
        EXPECTED[3],
    ]
    (problem,) = paintings.problems
    assert problem.startswith("1 painting in")
    assert "starry-night" in problem
    assert read_paintings(root).digest != paintings.digest


def test_csv_rows_that_fit_nothing_or_twice_are_told(tmp_path: Path) -> None:
    for name in ("A/same.jpg", "B/same.jpg", "B/only.jpg"):
        draw(tmp_path / "w" / name)
    csv = tmp_path / "c.csv"
    csv.write_text("path,style\nsame.jpg,x\nB/only.jpg,first\nonly.jpg,second\nA/same.jpg,y\nB/same.jpg,z\n,q\n")
    paintings = read_paintings(tmp_path / "w", csv=csv)
    assert paintings.table["style"].to_pylist() == ["y", "first", "z"]
    stray, repeated = paintings.problems
    assert stray.startswith("2 rows in")
    assert "name no painting" in stray
    assert "same.jpg" in stray
    assert repeated.startswith("1 row in")
    with pytest.raises(InputError, match="name no painting"):
        read_paintings(tmp_path / "w", csv=csv, strict=True)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "does not exist"),
        (b"", "not a readable CSV"),
        (b"a,b\n1,2\n", "it needs one of file, path"),
        (b"file,width\na.jpg,2\n", "at least one of artist"),
        (b"file,artist\na.jpg\n", "malformed row|not a readable CSV"),
        (b"file,artist\n" + b"a.jpg,x\n" * 200_000 + b"b.jpg\n", "malformed row"),
        (b"file,artist\na.jpg,\xff\xfe\n", "malformed row|not a readable CSV"),
    ],
)
def test_a_wrong_csv_is_refused(tmp_path: Path, text: bytes | None, reason: str) -> None:
    draw(tmp_path / "w/a.jpg")
    if text is not None:
        (tmp_path / "c.csv").write_bytes(text)
    with pytest.raises(InputError, match=reason) as caught:
        read_paintings(tmp_path / "w", csv=tmp_path / "c.csv")
    assert "c.csv" in str(caught.value)


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "zip", "no image"])
def test_what_holds_no_paintings_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "empty":
        path.mkdir()
        (path / "readme.txt").touch()
    elif kind == "text":
        path.write_text("x")
    elif kind == "zip":
        path = tmp_path / "a.zip"
        path.write_text("x")
    elif kind == "no image":
        path.mkdir()
        pq.write_table(pa.table({"artist": ["x"]}), path / "a.parquet")
    with pytest.raises(InputError) as caught:
        read_paintings(path)
    assert str(path) in str(caught.value)


@pytest.mark.data
def test_the_real_paintings() -> None:
    root = os.environ.get("STYLIZE_TEST_DATA")
    if not root:
        pytest.skip("STYLIZE_TEST_DATA is not set")
    paintings = read_paintings(Path(root) / "wikiart", strict=True)
    assert paintings.layout == "wikiart"
    assert paintings.table.num_rows == 30
    assert paintings.table["artist"].null_count == paintings.table["style"].null_count == 0
    assert len(set(paintings.table["style"].to_pylist())) == 15
