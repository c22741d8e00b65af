"""Extracting faces: catalogue, crops, going on where one stopped, strikes, and the review sheet."""

import io
import json
import os
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from manifests.commit import publish
from manifests.errors import InputError, RunError
from pipeline.faces import extraction, extraction_folder, review_sheet
from pipeline.faces.crop_name import face_id
from pipeline.faces.detector import Detector
from pipeline.faces.extraction import extract_faces, strike_faces
from pipeline.faces.face_box import FaceBox
from pipeline.faces.face_catalogue import FACE_SCHEMA, read_face_catalogue
from pipeline.retrieval.folder_sets import faces_of_folder

SIDE = 300
POINTS = tuple((float(x), float(x + 1)) for x in range(5))


class DrawnFaces:
    """A detector that finds rectangles of one red value each, scores them by it, and counts what it was shown."""

    def __init__(self):
        self.seen = 0
        self.dies_at = None

    def find(self, picture, least):
        self.seen += 1
        if self.seen == self.dies_at:
            raise KeyboardInterrupt
        found = []
        for red in np.unique(picture[..., 0]):
            rows, columns = np.nonzero((picture[..., 0] == red) & (picture[..., 2] == 9))
            if red and len(rows) and red / 255 > least:
                box = float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)
                found.append(FaceBox(*box, float(red / 255), POINTS))
        return tuple(found)


@pytest.fixture
def drawn(monkeypatch):
    faces = DrawnFaces()

    def opened(name, weights, *, confidence, device):
        return Detector("drawn", "00ff", 0.1 if confidence is None else confidence, faces.find, (SIDE,))

    monkeypatch.setattr(extraction, "open_detector", opened)
    return faces


def write_picture(path, *faces):
    """Write a picture of rectangles (left, top, width, height, red)."""
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[..., 1] = np.arange(SIDE)[:, None] % 256
    for left, top, width, height, red in faces:
        pixels[top : top + height, left : left + width] = (red, 7, 9)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def museum(tmp_path):
    root = tmp_path / "museum"
    write_picture(root / "Baroque" / "rembrandt_night-watch.png", (160, 50, 100, 120, 200), (20, 40, 110, 130, 150))
    write_picture(root / "Baroque" / "vermeer_girl.png", (100, 100, 99, 140, 250), (10, 5, 60, 60, 90))
    write_picture(root / "Cubism" / "picasso_self.png", (0, 0, 150, 150, 60))
    write_picture(root / "Realism" / "empty.png")
    return root


def crops(out):
    return sorted(path.relative_to(out / "faces").as_posix() for path in (out / "faces").rglob("*.*"))


def tree(out):
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def test_faces_are_cut_out_with_their_heads_and_catalogued(museum, tmp_path, drawn):
    out = tmp_path / "out"
    summary = extract_faces(museum, out, quiet=True)
    assert (summary.looked, summary.pictures, summary.with_faces, summary.faces, summary.small) == (4, 4, 2, 3, 2)
    table = read_face_catalogue(out)
    assert table.schema == FACE_SCHEMA
    rows = table.to_pylist()
    assert [row["face"] for row in rows] == [
        "Baroque/rembrandt_night-watch.png.1.png",
        "Baroque/rembrandt_night-watch.png.2.png",
        "Cubism/picasso_self.png.1.png",
    ]
    left = rows[0]
    assert (left["x"], left["y"], left["width"], left["height"]) == (20, 40, 110, 130)
    assert (left["crop_x"], left["crop_y"], left["crop_width"], left["crop_height"]) == (0, 0, 174, 222)
    assert (left["artist"], left["title"], left["style"]) == ("rembrandt", "night-watch", "Baroque")
    assert left["genre"] is None
    assert (left["painting"], left["locator"]) == ("Baroque/rembrandt_night-watch.png",) * 2
    assert left["source"] == str(museum)
    assert left["score"] == pytest.approx(150 / 255)
    assert left["detector"] == "drawn"
    assert left["landmarks"] == [value for point in POINTS for value in point]
    assert (left["picture_width"], left["picture_height"]) == (SIDE, SIDE)
    assert not left["struck"]
    assert left["reason"] is None
    whole = np.asarray(Image.open(museum / left["locator"]))
    for row in rows[:2]:
        cut = np.asarray(Image.open(out / row["crop"]))
        top, first = row["crop_y"], row["crop_x"]
        np.testing.assert_array_equal(cut, whole[top : top + row["crop_height"], first : first + row["crop_width"]])
    assert crops(out) == [row["face"] for row in rows]
    assert not (out / "journal").exists()


def test_the_index_reads_the_crops_under_their_ids(museum, tmp_path, drawn):
    extract_faces(museum, tmp_path / "out", quiet=True)
    faces = faces_of_folder(tmp_path / "out" / "faces")
    assert faces.table["id"].to_pylist() == read_face_catalogue(tmp_path / "out")["face"].to_pylist()
    assert faces.load([0, 1, 2]).shape == (3, 3, 218, 178)
    whole = faces_of_folder(tmp_path / "out")  # of an extraction, too, it takes the crops alone
    assert whole.table.equals(faces.table)


def test_the_same_call_again_looks_at_nothing_and_changes_nothing(museum, tmp_path, drawn):
    extract_faces(museum, tmp_path / "out", quiet=True)
    before, seen = tree(tmp_path / "out"), drawn.seen
    summary = extract_faces(museum, tmp_path / "out", quiet=True)
    assert drawn.seen == seen
    assert summary.looked == 0
    assert (summary.pictures, summary.faces) == (4, 3)
    assert tree(tmp_path / "out") == before


@pytest.mark.parametrize("per_part", [1, 2, 32])
def test_what_was_interrupted_goes_on_and_ends_as_if_it_had_not_been(museum, tmp_path, drawn, monkeypatch, per_part):
    monkeypatch.setattr(extraction, "PICTURES_PER_PART", per_part)
    extract_faces(museum, tmp_path / "whole", quiet=True)
    drawn.seen, drawn.dies_at = 0, 3
    with pytest.raises(KeyboardInterrupt):
        extract_faces(museum, tmp_path / "out", quiet=True)
    assert not (tmp_path / "out" / "catalogue.parquet").exists()
    drawn.seen, drawn.dies_at = 0, None
    summary = extract_faces(museum, tmp_path / "out", quiet=True)
    assert drawn.seen == 2
    assert summary.looked == 2
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_a_process_that_dies_while_it_commits_loses_nothing(museum, tmp_path, drawn, monkeypatch):
    extract_faces(museum, tmp_path / "whole", quiet=True)
    for torn in range(20):
        out = tmp_path / f"out{torn}"
        left = torn

        def dying(*args, **kwargs):
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            return publish(*args, **kwargs)

        monkeypatch.setattr(extraction_folder, "publish", dying)
        try:
            extract_faces(museum, out, quiet=True)
        except KeyboardInterrupt:
            monkeypatch.setattr(extraction_folder, "publish", publish)
            extract_faces(museum, out, quiet=True)
            assert tree(out) == tree(tmp_path / "whole")
        else:
            assert torn > 8
            return
    pytest.fail("never ended")


def test_pictures_that_come_later_are_added(museum, tmp_path, drawn):
    extract_faces(museum, tmp_path / "out", quiet=True)
    write_picture(museum / "Baroque" / "new.png", (100, 100, 120, 120, 99))
    seen = drawn.seen
    summary = extract_faces(museum, tmp_path / "out", quiet=True)
    assert drawn.seen == seen + 1
    assert (summary.looked, summary.pictures, summary.faces) == (1, 5, 4)
    assert "Baroque/new.png.1.png" in crops(tmp_path / "out")


def test_a_picture_that_has_changed_is_refused(museum, tmp_path, drawn):
    extract_faces(museum, tmp_path / "out", quiet=True)
    (museum / "Realism" / "empty.png").write_bytes(b"other")
    with pytest.raises(InputError, match=r'"Realism/empty\.png" in .* has changed since its faces were extracted'):
        extract_faces(museum, tmp_path / "out", quiet=True)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"enlarge": 0.2}, "with enlarge 0.4, not 0.2"),
        ({"minimum": 50}, "with minimum 100, not 50"),
        ({"confidence": 0.9}, "with confidence 0.1, not 0.9"),
        ({"image_format": "jpeg"}, "with image format png, not jpeg"),
    ],
)
def test_other_settings_are_refused(museum, tmp_path, drawn, settings, said):
    extract_faces(museum, tmp_path / "out", quiet=True)
    before = tree(tmp_path / "out")
    with pytest.raises(InputError, match=re.escape(said)):
        extract_faces(museum, tmp_path / "out", quiet=True, **settings)
    assert tree(tmp_path / "out") == before


def test_another_collection_is_refused(museum, tmp_path, drawn):
    extract_faces(museum, tmp_path / "out", quiet=True)
    shutil.copytree(museum, tmp_path / "other")
    with pytest.raises(InputError, match="were extracted with source"):
        extract_faces(tmp_path / "other", tmp_path / "out", quiet=True)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"enlarge": -0.1}, "enlarged by -0.1"), ({"minimum": -1}, "edge of -1"), ({"image_format": "gif"}, '"gif"')],
)
def test_settings_out_of_range_are_refused_before_anything_is_written(museum, tmp_path, drawn, settings, said):
    with pytest.raises(InputError, match=said):
        extract_faces(museum, tmp_path / "out", quiet=True, **settings)
    assert not (tmp_path / "out").exists()


def test_a_place_that_is_not_for_faces_is_refused(museum, tmp_path, drawn):
    with pytest.raises(InputError, match="lies in the collection"):
        extract_faces(museum, museum / "faces", quiet=True)
    with pytest.raises(InputError, match="lies in the collection"):
        extract_faces(museum, museum, quiet=True)
    with pytest.raises(InputError, match="is a URL"):
        extract_faces(museum, "s3://bucket/faces", quiet=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match=r"holds other files \(first: letter\.txt\)"):
        extract_faces(museum, tmp_path / "full", quiet=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file; give a folder"):
        extract_faces(museum, tmp_path / "file", quiet=True)
    with pytest.raises(InputError, match="does not exist"):
        extract_faces(tmp_path / "nowhere", tmp_path / "out", quiet=True)


def test_pictures_that_cannot_be_used_are_told_and_tried_again(museum, tmp_path, drawn):
    (museum / "torn.png").write_bytes((museum / "Cubism" / "picasso_self.png").read_bytes()[:200])
    (museum / "letter.jpg").write_text("no picture")
    (museum / "empty.jpg").write_bytes(b"")
    header = io.BytesIO()
    Image.new("1", (20000, 20000)).save(header, "PNG")
    (museum / "vast.png").write_bytes(header.getvalue())
    summary = extract_faces(museum, tmp_path / "out", quiet=True)
    assert (summary.pictures, summary.faces) == (8, 3)
    told = dict(summary.unusable)
    assert sorted(told) == ["empty.jpg", "letter.jpg", "torn.png", "vast.png"]
    assert "million" in told["vast.png"]
    assert any("4 pictures left out" in line for line in summary.lines())
    write_picture(museum / "torn.png", (50, 50, 130, 130, 77))
    seen = drawn.seen
    summary = extract_faces(museum, tmp_path / "out", quiet=True)
    assert drawn.seen == seen + 1
    assert (summary.looked, summary.pictures, summary.faces) == (4, 8, 4)
    assert sorted(dict(summary.unusable)) == ["empty.jpg", "letter.jpg", "vast.png"]


def test_a_store_that_fails_is_no_picture_s_fault(museum, tmp_path, drawn, monkeypatch):
    def failing(source, locator):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("manifests.image_source.ImageSource.read", failing)
    with pytest.raises(RunError, match="cannot be read: Input/output error"):
        extract_faces(museum, tmp_path / "out", quiet=True)


def test_archives_and_parquet_have_the_same_faces_as_the_folder(museum, tmp_path, drawn):
    with zipfile.ZipFile(tmp_path / "museum.zip", "w") as archive:
        for path in sorted(museum.rglob("*.png")):
            archive.write(path, path.relative_to(museum).as_posix())
    rows = [
        {
            "image": {"bytes": path.read_bytes(), "path": path.relative_to(museum).as_posix()},
            "artist": "somebody",
            "title": "Übung, mit Komma",
        }
        for path in sorted(museum.rglob("*.png"), reverse=True)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "museum.parquet", row_group_size=2)
    extract_faces(museum, tmp_path / "a", quiet=True)
    extract_faces(tmp_path / "museum.zip", tmp_path / "b", quiet=True)
    extract_faces(tmp_path / "museum.parquet", tmp_path / "c", quiet=True)
    folder, archived, copied = (read_face_catalogue(tmp_path / name) for name in "abc")
    same = ["face", "painting", "x", "y", "width", "height", "score", "style"]
    assert archived.select(same) == folder.select(same)
    assert copied.select(same[:-1]) == folder.select(same[:-1])
    assert set(copied["title"].to_pylist()) == {"Übung, mit Komma"}
    for face in folder["face"].to_pylist():
        assert (tmp_path / "a" / "faces" / face).read_bytes() == (tmp_path / "c" / "faces" / face).read_bytes()


def test_names_of_a_csv_reach_the_catalogue(museum, tmp_path, drawn):
    (tmp_path / "labels.csv").write_text(
        "painting,artist,title,genre\nCubism/picasso_self.png,Pablo Picasso,Self,portrait\n"
    )
    extract_faces(museum, tmp_path / "out", csv=tmp_path / "labels.csv", quiet=True)
    row = read_face_catalogue(tmp_path / "out").to_pylist()[2]
    assert (row["artist"], row["title"], row["genre"], row["style"]) == ("Pablo Picasso", "Self", "portrait", "Cubism")


class TestStrikes:
    @pytest.fixture
    def out(self, museum, tmp_path, drawn):
        extract_faces(museum, tmp_path / "out", quiet=True)
        return tmp_path / "out"

    @staticmethod
    def lists(tmp_path, *lines):
        file = tmp_path / "list.tsv"
        file.write_text("# seen by me\n\n" + "".join(f"{line}\n" for line in lines), encoding="utf-8")
        return file

    def test_struck_faces_leave_what_is_indexed_and_stay_in_the_catalogue(self, out, tmp_path):
        summary = strike_faces(out, self.lists(tmp_path, "Cubism/picasso_self.png.1.png\ta guitar"))
        assert (summary.faces, summary.struck) == (2, 1)
        assert "2 faces, 1 struck" in summary.lines()[1]
        assert crops(out) == [f"Baroque/rembrandt_night-watch.png.{number}.png" for number in (1, 2)]
        assert read_face_catalogue(out)["face"].to_pylist() == crops(out)
        row = read_face_catalogue(out, struck=True).to_pylist()[2]
        assert (row["struck"], row["reason"]) == (True, "a guitar")
        assert (out / row["crop"]).is_file()
        assert faces_of_folder(out / "faces").table["id"].to_pylist() == crops(out)

    def test_a_strike_taken_back_leaves_everything_as_it_was(self, out, tmp_path):
        before = tree(out)
        file = self.lists(tmp_path, "Cubism/picasso_self.png.1.png", "Baroque/rembrandt_night-watch.png.2.png")
        strike_faces(out, file)
        assert read_face_catalogue(out, struck=True)["reason"].to_pylist() == [None, "not a face", "not a face"]
        strike_faces(out, unstrike=file)
        assert tree(out) == before

    def test_strikes_outlive_the_extraction_going_on(self, out, museum, tmp_path, drawn):
        strike_faces(out, self.lists(tmp_path, "Cubism/picasso_self.png.1.png\ta guitar"))
        write_picture(museum / "new.png", (100, 100, 120, 120, 99))
        summary = extract_faces(museum, out, quiet=True)
        assert (summary.faces, summary.struck) == (3, 1)
        assert "Cubism/picasso_self.png.1.png" not in crops(out)

    def test_faces_can_be_struck_by_the_call_that_extracts_them(self, museum, tmp_path, drawn):
        file = self.lists(tmp_path, "Cubism/picasso_self.png.1.png")
        summary = extract_faces(museum, tmp_path / "other", strike=file, quiet=True)
        assert (summary.faces, summary.struck) == (2, 1)
        summary = extract_faces(museum, tmp_path / "other", unstrike=file, quiet=True)
        assert (summary.faces, summary.struck) == (3, 0)

    def test_what_a_dying_process_left_half_struck_is_put_right(self, out, tmp_path, monkeypatch):
        wanted = tmp_path / "wanted"
        shutil.copytree(out, wanted)
        file = self.lists(tmp_path, "Cubism/picasso_self.png.1.png", "Baroque/rembrandt_night-watch.png.2.png")
        strike_faces(wanted, file)
        replace = os.replace
        left = 1

        def dying(*args):
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            replace(*args)

        monkeypatch.setattr(extraction_folder.ExtractionFolder, "write_strikes", no_journal(monkeypatch, dying))
        with pytest.raises(KeyboardInterrupt):
            strike_faces(out, file)
        monkeypatch.undo()
        assert (out / "strikes.tsv").is_file()
        strike_faces(out)
        assert tree(out) == tree(wanted)

    @pytest.mark.parametrize(
        ("strike", "unstrike", "said"),
        [
            (["nobody.png.1.png"], None, 'there is no face "nobody.png.1.png"'),
            (None, ["Cubism/picasso_self.png.1.png"], "is not struck"),
            (["Cubism/picasso_self.png.1.png"], ["Cubism/picasso_self.png.1.png"], "keep one of them"),
            ([], None, "names no face"),
            (["Cubism/picasso_self.png.1.png\ta", "Cubism/picasso_self.png.1.png\tb"], None, "second reason"),
        ],
    )
    def test_lists_that_cannot_be_meant_change_nothing(self, out, tmp_path, strike, unstrike, said):
        before = tree(out)
        files = []
        for name, lines in (("strike", strike), ("unstrike", unstrike)):
            file = tmp_path / name
            file.write_text("".join(f"{line}\n" for line in lines or []))
            files.append(None if lines is None else file)
        with pytest.raises(InputError, match=re.escape(said)):
            strike_faces(out, files[0], unstrike=files[1])
        assert tree(out) == before

    def test_a_folder_without_faces_is_refused(self, tmp_path):
        with pytest.raises(InputError, match="holds no extracted faces"):
            strike_faces(tmp_path, self.lists(tmp_path, "a"))

    def test_damage_is_named(self, out, museum, tmp_path):
        file = self.lists(tmp_path, "Cubism/picasso_self.png.1.png")
        (out / "faces" / "Cubism" / "picasso_self.png.1.png").unlink()
        with pytest.raises(RunError, match=r'the crop "Cubism/picasso_self\.png\.1\.png" is missing'):
            strike_faces(out, file)
        (out / "catalogue.parquet").write_bytes(b"PAR1")
        with pytest.raises(RunError, match=r"catalogue\.parquet\" is damaged"):
            strike_faces(out, file)
        (out / "faces.json").write_text("{")
        with pytest.raises(RunError, match=r"faces\.json\" is damaged"):
            extract_faces(museum, out, quiet=True)


@pytest.mark.parametrize("damage", ["missing", "text", "cut"])
def test_a_damaged_crop_is_named_by_the_review_sheet(museum, tmp_path, drawn, damage):
    out = tmp_path / "out"
    extract_faces(museum, out, quiet=True)
    face = "Cubism/picasso_self.png.1.png"
    crop = out / "faces" / face
    data = crop.read_bytes()
    if damage == "missing":
        crop.unlink()
    else:
        crop.write_bytes(b"no picture" if damage == "text" else data[: len(data) // 2])
    folder = extraction_folder.ExtractionFolder.existing(out)
    reason = "is missing" if damage == "missing" else "cannot be read"
    with pytest.raises(RunError, match=rf'the crop "{re.escape(face)}" {reason} in .*restore it from a copy'):
        review_sheet.write_review_sheet(folder, read_face_catalogue(out, struck=True))


def no_journal(monkeypatch, dying):
    """Let the strikes be written, and die while crops are moved."""
    write = extraction_folder.ExtractionFolder.write_strikes

    def writing(self, reasons):
        write(self, reasons)
        monkeypatch.setattr(os, "replace", dying)

    return writing


def test_the_review_sheet_shows_the_lowest_scores_first_and_asks_no_host(museum, tmp_path, drawn):
    write_picture(museum / 'A<script>alert("x")' / "b&c_<i>d</i>.png", (50, 50, 130, 130, 111))
    extract_faces(museum, tmp_path / "out", quiet=True)
    page = (tmp_path / "out" / "review.html").read_text()
    assert re.findall(r'class="score">([0-9.]+)<', page) == ["0.24", "0.44", "0.59", "0.78"]
    shown = re.findall(r'data-id="([^"]+)"', page)
    assert len(shown) == 4
    assert not re.search(r"(src|href)=\"(?!data:image/jpeg|review)", page)
    assert "default-src 'none'" in page
    assert 'alert("x")' not in page
    assert "<i>d</i>" not in page
    assert "night watch" in page


def test_the_review_sheet_has_pages_and_forgets_those_it_needs_no_more(museum, tmp_path, drawn, monkeypatch):
    extract_faces(museum, tmp_path / "out", quiet=True)
    monkeypatch.setattr(review_sheet, "FACES_PER_PAGE", 2)
    extract_faces(museum, tmp_path / "out", quiet=True)
    pages = sorted(path.name for path in (tmp_path / "out").glob("*.html"))
    assert pages == ["review-2.html", "review.html"]
    assert 'href="review-2.html"' in (tmp_path / "out" / "review.html").read_text()
    assert 'href="review.html"' in (tmp_path / "out" / "review-2.html").read_text()
    monkeypatch.setattr(review_sheet, "FACES_PER_PAGE", 5)
    strike = tmp_path / "list"
    strike.write_text("Cubism/picasso_self.png.1.png\ta <b>guitar</b>\n")
    strike_faces(tmp_path / "out", strike)
    (page,) = (tmp_path / "out").glob("*.html")
    text = page.read_text()
    assert "a &lt;b&gt;guitar&lt;/b&gt;" in text
    assert text.index("rembrandt_night-watch") < text.index("Click one to take its strike back")


def test_a_collection_without_faces_is_no_failure(tmp_path, drawn):
    write_picture(tmp_path / "museum" / "empty.png")
    summary = extract_faces(tmp_path / "museum", tmp_path / "out", quiet=True)
    assert (summary.faces, summary.with_faces) == (0, 0)
    assert read_face_catalogue(tmp_path / "out").num_rows == 0
    assert "No faces were found" in (tmp_path / "out" / "review.html").read_text()
    json.dumps(summary.as_dict())


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40) | st.sampled_from(
    ["a/../b", "/etc/passwd", ".hidden/x", "a//b", "CON", "x" * 300, "é" * 200, "a\tb", "#c", " d ", "..", "a/b/" * 100]
)


@given(st.lists(names, min_size=2, max_size=6, unique=True))
def test_names_of_crops_are_safe_and_tell_faces_apart(paintings):
    made = [face_id(painting, number, "png") for painting in paintings for number in (1, 2)]
    assert len(set(made)) == len(made)
    for name in made:
        path = Path(name)
        assert not path.is_absolute()
        assert not any(part in {"..", "."} or part.startswith(".") or len(part.encode()) > 255 for part in path.parts)
        assert path.as_posix() == name
        assert name == name.strip()
        assert not set(name) & set("\t\n\r\0#:\\")
        assert name.splitlines() == [name]


def test_names_that_need_no_change_stay():
    assert face_id("Baroque/rembrandt_night-watch.jpg", 2, "png") == "Baroque/rembrandt_night-watch.jpg.2.png"
