"""Test sets in their published layouts: who is a query, who is in the gallery, and what is said of stray files."""

import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from manifests.errors import InputError
from pipeline.retrieval.described_faces import Codes
from pipeline.retrieval.face_set import FaceSet
from pipeline.retrieval.test_set import LAYOUTS, TestSet, open_test_set
from pipeline.retrieval.webcaricature import face_box, read_landmarks
from pipeline.training.run_faces import RunFaces
from stylize.decode import decode_image
from stylize.fit import cover
from tests.labelled_run import HEIGHT, WIDTH, people, photograph, proxy, write_labelled_run
from tests.small_run import A, R, write_run

SIZE = (36, 44)

# Where Celeb-A's aligned pictures (178x218) have, on average, what WebCaricature's 17 landmarks are; those of the
# outline were read off pictures by eye.
CELEBA_LANDMARKS = np.array(
    [
        *[(89, 75), (41, 120), (89, 180), (137, 120)],
        *[(58, 98), (80, 98), (98, 98), (120, 98)],
        *[(62, 111), (77, 111), (101, 111), (116, 111)],
        *[(89, 135), (89, 147), (73, 152), (89, 158), (105, 152)],
    ],
    np.float64,
)


def write_pictures(root, *names, sides=(40, 50)):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        seed = [ord(letter) for letter in name]
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*sides[::-1], 3), np.uint8)).save(path)


def ids(faces):
    return faces.table["id"].to_pylist()


def identities(faces):
    return faces.table["identity"].to_pylist()


def queries_of(test_set: TestSet) -> FaceSet:
    assert test_set.queries is not None
    return test_set.queries


def relevant(test_set: TestSet) -> set[tuple[str, str]]:
    """Pairs of query and item that show one person."""
    codes = Codes.of(queries_of(test_set).table, test_set.gallery.table)
    return {
        (query, item)
        for query, who in zip(ids(queries_of(test_set)), codes.query_identities.tolist(), strict=True)
        for item, whom in zip(ids(test_set.gallery), codes.gallery_identities.tolist(), strict=True)
        if who == whom >= 0
    }


def assert_readable(test_set):
    """All pictures load, are those of the locators, and none is another's own proxy."""
    for faces in (test_set.queries, test_set.gallery):
        if faces is None:
            continue
        encoded = [faces.source.read(locator) for locator in faces.table["locator"].to_pylist()]
        expected = np.stack([cover(decode_image(data), *faces.size) for data in encoded])
        assert torch.equal(faces.load(range(len(faces))), torch.from_numpy(expected).permute(0, 3, 1, 2))
        assert len(set(ids(faces))) == len(faces)
        assert faces.table["Smiling"].null_count == len(faces)
    if test_set.queries is not None:
        sources = [set(faces.table["source_id"].to_pylist()) for faces in (queries_of(test_set), test_set.gallery)]
        assert not sources[0] & sources[1]


# A built run.


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_labelled_run(tmp_path_factory.mktemp("labelled"), {"train": [2, 2], "valid": [3], "test": [2, 1, 3]})


@pytest.mark.parametrize(("split", "count"), [("test", 6), ("valid", 3)])
def test_photographs_search_in_proxies(run, split, count):
    test_set = open_test_set(run, split=split)
    faces = [face for face in people({"train": [2, 2], "valid": [3], "test": [2, 1, 3]}) if face[1] == split]
    assert (test_set.name, test_set.notes) == ("celeba-proxies", ())
    assert split in test_set.title
    assert str(run) in test_set.title
    assert ids(queries_of(test_set)) == ids(test_set.gallery) == [face[0] for face in faces]
    assert len(faces) == count
    codes = Codes.of(queries_of(test_set).table, test_set.gallery.table)
    assert torch.equal(codes.query_sources, codes.gallery_sources)
    for side, draw in ((queries_of(test_set), photograph), (test_set.gallery, proxy)):
        assert side.size == (WIDTH, HEIGHT)
        assert np.array_equal(side.load([count - 1])[0].permute(1, 2, 0), draw(*faces[-1][2:]))


def test_photographs_without_a_proxy_are_counted(tmp_path):
    url = write_run(tmp_path / "run", {"train": [A], "test": [A, R, A, R, A]}).url
    test_set = open_test_set(url)
    assert len(queries_of(test_set)) == len(test_set.gallery) == 3
    assert test_set.notes == (
        "2 of the 5 photographs of test have no accepted proxy and are neither searched for nor found",
    )


def test_a_run_that_does_not_do(run, tmp_path):
    with pytest.raises(InputError, match="has no accepted proxy in split test; it has train"):
        open_test_set(write_run(tmp_path / "untested", {"train": [A]}).url)
    with pytest.raises(InputError, match="are not committed yet"):
        open_test_set(write_run(tmp_path / "unfinished", {"train": [A] * 5}, skip={"train-00001-of-00002"}).url)
    with pytest.raises(InputError, match=f"are {WIDTH}x{HEIGHT}; give no other size"):
        open_test_set(run, size=(178, 218))
    assert open_test_set(run, size=(WIDTH, HEIGHT)).gallery.size == (WIDTH, HEIGHT)
    with pytest.raises(InputError, match=r"has no run\.json"):
        open_test_set(tmp_path / "nowhere", layout="celeba-proxies")


def test_photographs_that_have_moved(run, tmp_path):
    shutil.copytree(run.parent / "faces", tmp_path / "elsewhere")
    moved = open_test_set(run, faces=tmp_path / "elsewhere")
    assert torch.equal(queries_of(moved).load([0]), queries_of(open_test_set(run)).load([0]))
    with pytest.raises(InputError, match="are not at"):
        queries_of(open_test_set(run, faces=tmp_path / "nowhere")).load([0])


# WebCaricature.


def write_webcaricature(root, *, points=True):
    for person, letters in (("Adele Laurie Blue Adkins", "CCCPP"), ("Zoë Kravitz", "CPPP")):
        for number, letter in enumerate(letters, 1):
            write_pictures(root, f"OriginalImages/{person}/{letter}{number:05d}.jpg")
            if points:
                path = root / f"FacialPoints/{person}/{letter}{number:05d}.txt"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("".join(f"{x} {y}\n" for x, y in CELEBA_LANDMARKS / 4.5))
    (root / "Filenames").mkdir()
    (root / "Readme.txt").touch()
    return root


@pytest.mark.parametrize("given_as", [".", "OriginalImages", ".."])
def test_webcaricature(tmp_path, given_as):
    root = write_webcaricature(tmp_path / "WebCaricature")
    test_set = open_test_set(root / given_as, size=SIZE)
    assert (test_set.name, test_set.title, test_set.notes) == ("webcaricature", "WebCaricature", ())
    assert ids(queries_of(test_set)) == [
        *(f"Adele Laurie Blue Adkins/P0000{number}.jpg" for number in (4, 5)),
        *(f"Zoë Kravitz/P0000{number}.jpg" for number in (2, 3, 4)),
    ]
    assert identities(test_set.gallery) == ["Adele Laurie Blue Adkins"] * 3 + ["Zoë Kravitz"]
    assert len(relevant(test_set)) == 2 * 3 + 3 * 1
    assert test_set.gallery.load(range(4)).shape == (4, 3, SIZE[1], SIZE[0])
    assert not set(queries_of(test_set).table["source_id"].to_pylist()) & set(
        test_set.gallery.table["source_id"].to_pylist()
    )


def test_webcaricature_is_cut_at_the_landmarks(tmp_path):
    root = write_webcaricature(tmp_path, points=False)
    name = "Zoë Kravitz/C00001"
    picture = np.full((400, 300, 3), 20, np.uint8)
    landmarks = CELEBA_LANDMARKS + np.array([60, 100])
    left, top, right, bottom = (round(value) for value in face_box(landmarks, SIZE))
    picture[top:bottom, left:right] = (200, 30, 90)
    Image.fromarray(picture).save(root / f"OriginalImages/{name}.jpg", quality=100, subsampling=0)
    path = root / f"FacialPoints/{name}.txt"
    path.parent.mkdir(parents=True)
    path.write_text("\r\n".join(f"{x:.3f}\t{y:.3f}" for x, y in landmarks))
    test_set = open_test_set(root, size=SIZE)
    found = test_set.gallery.load([3])[0].permute(1, 2, 0).numpy().astype(int)
    assert np.abs(found - (200, 30, 90))[4:-4, 4:-4].max() <= 6
    versions = test_set.gallery.table["version"].to_pylist()
    path.write_text("\n".join(f"{x} {y}" for x, y in landmarks + 1))
    assert [
        a == b for a, b in zip(versions, open_test_set(root).gallery.table["version"].to_pylist(), strict=True)
    ] == [
        True,
        True,
        True,
        False,
    ]


def test_webcaricature_without_landmarks_is_taken_whole(tmp_path):
    test_set = open_test_set(write_webcaricature(tmp_path, points=False), size=SIZE)
    (note,) = test_set.notes
    assert note.startswith("9 pictures have no usable landmarks")
    assert_readable(test_set)


@pytest.mark.parametrize("text", ["", "1 2\n" * 16, "1 2\n" * 17, "1 2\n" * 16 + "1 x", "nan 2\n" + "3 4\n" * 16, "\0"])
def test_unusable_landmarks_are_told(tmp_path, text):
    root = write_webcaricature(tmp_path)
    (root / "FacialPoints/Zoë Kravitz/P00003.txt").write_text(text)
    (note,) = open_test_set(root).notes
    assert note.startswith("1 picture has no usable landmarks")
    assert "P00003" in note


def test_landmarks_outside_of_the_picture_are_named(tmp_path):
    root = write_webcaricature(tmp_path)
    (root / "FacialPoints/Zoë Kravitz/P00003.txt").write_text("".join(f"{x} {y}\n" for x, y in CELEBA_LANDMARKS + 900))
    with pytest.raises(InputError, match=r"Zoë Kravitz/P00003\.jpg.*too little lies in the 40x50 picture"):
        queries_of(open_test_set(root)).load(range(5))


def test_faces_too_small_to_be_told_apart_are_left_out(tmp_path):
    root = write_webcaricature(tmp_path)
    (root / "FacialPoints/Zoë Kravitz/P00003.txt").write_text("".join(f"{x} {y}\n" for x, y in CELEBA_LANDMARKS / 9))
    test_set = open_test_set(root, size=SIZE)
    assert test_set.notes == ("1 face is under 32 pixels wide or high and is left out (Zoë Kravitz/P00003.jpg).",)
    assert len(queries_of(test_set)) == 4


def test_stray_files_of_webcaricature(tmp_path):
    root = write_webcaricature(tmp_path)
    write_pictures(root / "OriginalImages", "contact.png", "Zoë Kravitz/X00001.jpg", "Zoë Kravitz/more/C00002.jpg")
    (root / "OriginalImages/Zoë Kravitz/Thumbs.db").touch()
    test_set = open_test_set(root)
    (note,) = test_set.notes
    assert note.startswith("3 pictures are not named")
    assert len(relevant(test_set)) == 9


@pytest.mark.parametrize(("gone", "lacking"), [("C", "caricatures"), ("P", "photographs")])
def test_half_of_webcaricature(tmp_path, gone, lacking):
    root = write_webcaricature(tmp_path)
    for path in root.glob(f"OriginalImages/*/{gone}*.jpg"):
        path.unlink()
    with pytest.raises(InputError, match=f"has no {lacking}"):
        open_test_set(root)


def test_a_face_is_shown_as_celeba_shows_it():
    """The box around Celeb-A's own mean landmarks is, within a few pixels, the whole of its picture."""
    assert np.abs(np.array(face_box(CELEBA_LANDMARKS, (178, 218))) - (0, 0, 178, 218)).max() < 6


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=17, max_size=17),
    st.tuples(st.integers(1, 400), st.integers(1, 400)),
)
def test_the_box_has_the_aspect_and_is_large_enough(points, size):
    landmarks = read_landmarks("\n".join(f"{x!r} {y!r}" for x, y in points))
    if landmarks is None:
        assert min(np.ptp(np.array(points), axis=0)) < 1
        return
    assert np.array_equal(landmarks, np.array(points))
    left, top, right, bottom = face_box(landmarks, size)
    width, height = np.ptp(landmarks, axis=0)
    assert (right - left) / (bottom - top) == pytest.approx(size[0] / size[1])
    assert right - left >= 1.8 * width * (1 - 1e-9)
    assert bottom - top >= 1.8 * height * (1 - 1e-9)
    assert left <= landmarks[:, 0].min()
    assert right >= landmarks[:, 0].max()
    assert top <= landmarks[8:12, 1].min()
    assert bottom >= landmarks[8:12, 1].max()


# IIIT-D Sketch.


@pytest.mark.parametrize(
    ("photographs", "sketches"),
    [
        (("Photo/1.jpg", "Photo/2.jpg"), ("Sketch/1.png", "Sketch/2.png")),
        (("photos/A-01.jpg", "photos/b-02.jpg"), ("sketches/a-01.JPG", "sketches/B-02.JPG")),
        (("Photo/query/1.jpg", "Photo/train/1.jpg"), ("Sketch/query/1.jpg", "Sketch/train/1.jpg")),
        (("Digital Images/7_photo.jpg", "Digital Images/8_photo.jpg"), ("Sketch/7_sketch.jpg", "Sketch/8_sketch.jpg")),
        (("DB/Photo/1.jpg", "DB/Photo/2.jpg"), ("DB/Sketch/1.jpg", "DB/Sketch/2.jpg")),
        (("Viewed/Photo/1.jpg", "Viewed/Photo/2.jpg"), ("Viewed/Sketch/1.jpg", "Viewed/Sketch/2.jpg")),
    ],
)
def test_iiitd_sketch(tmp_path, photographs, sketches):
    write_pictures(tmp_path, *photographs, *sketches)
    if photographs[0].startswith("Viewed"):
        write_pictures(tmp_path, "Forensic/1.jpg")
    test_set = open_test_set(tmp_path, size=SIZE)
    assert (test_set.name, test_set.title, test_set.notes) == ("iiitd-sketch", "IIIT-D Sketch", ())
    assert len(queries_of(test_set)) == len(test_set.gallery) == len(relevant(test_set)) == 2
    for (query, item), pair in zip(sorted(relevant(test_set)), zip(photographs, sketches, strict=True), strict=True):
        assert (pair[0].endswith(query), pair[1].endswith(item)) == (True, True)
    assert_readable(test_set)


def test_pictures_without_a_partner_stay_and_are_told(tmp_path):
    write_pictures(tmp_path, *(f"Photo/{n}.jpg" for n in (1, 2, 3, 5)), *(f"Sketch/{n}.jpg" for n in (1, 2, 4)))
    (tmp_path / "Photo/Thumbs.db").touch()
    test_set = open_test_set(tmp_path)
    assert (len(queries_of(test_set)), len(test_set.gallery), len(relevant(test_set))) == (4, 3, 2)
    assert test_set.notes == (
        "2 photographs have no sketch of their name (first: Photo/3.jpg, Photo/5.jpg).",
        "1 sketch has no photograph of its name (Sketch/4.jpg).",
    )


def test_iiitd_sketch_without_pairs(tmp_path):
    write_pictures(tmp_path, "Photo/a.jpg", "Sketch/b.jpg")
    with pytest.raises(InputError, match=r"no sketch .* has the name of a photograph .*Sketch/b.jpg, Photo/a.jpg"):
        open_test_set(tmp_path)
    (tmp_path / "Sketch/b.jpg").unlink()
    with pytest.raises(InputError, match="has no picture"):
        open_test_set(tmp_path)


# DeviantArt Faces.


@pytest.mark.parametrize(
    "names",
    [
        {
            "Art Garfunkel": ["portrait.jpg", "1.jpg", "art garfunkel_2.jpg"],
            "Bo Li": ["Bo Li portrait.png", "1.jpg", "2.jpg"],
        },
        {"art_garfunkel": ["art_1.jpg", "google_1.jpg", "x.jpg"], "bo_li": ["painting.jpg", "bo_li_1.jpg", "2.jpg"]},
        {"A": ["portrait/x.jpg", "photos/1.jpg", "photos/2.jpg"], "B": ["art/y.jpg", "photos/1.jpg", "photos/2.jpg"]},
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_deviantart_folders_of_people(tmp_path, names, wrapped):
    root = tmp_path / "set" if wrapped else tmp_path
    write_pictures(root, *(f"{person}/{name}" for person, files in names.items() for name in files))
    test_set = open_test_set(tmp_path, size=SIZE)
    assert (test_set.name, test_set.title, test_set.notes) == ("deviantart-faces", "DeviantArt Faces", ())
    assert ids(test_set.gallery) == [f"{person}/{files[0]}" for person, files in names.items()]
    assert len(queries_of(test_set)) == len(relevant(test_set)) == 4
    assert_readable(test_set)


@pytest.mark.parametrize(
    ("art", "real"),
    [
        (["portraits/Bo_Li.jpg", "portraits/Jane Doe.jpg"], ["photos/bo li_1.jpg", "photos/Jane_Doe (2).jpg"]),
        (["art/Bo Li/x.jpg", "art/Jane Doe/y.jpg"], ["real/Bo Li/1.jpg", "real/Jane Doe/1.jpg"]),
        (["DeviantArt/001.jpg", "DeviantArt/002.jpg"], ["Google Images/001_1.jpg", "Google Images/002_1.jpg"]),
        (["portraits/7.jpg", "portraits/8.jpg"], ["photos/7/1.jpg", "photos/8/1.jpg"]),
    ],
)
def test_deviantart_two_folders(tmp_path, art, real):
    write_pictures(tmp_path, *art, *real)
    test_set = open_test_set(tmp_path, size=SIZE)
    assert (test_set.name, test_set.notes) == ("deviantart-faces", ())
    assert ids(test_set.gallery) == art
    assert ids(queries_of(test_set)) == sorted(real)
    assert len(relevant(test_set)) == 2
    assert_readable(test_set)


def test_deviantart_with_disorder(tmp_path):
    write_pictures(
        tmp_path,
        *("Ann/portrait.jpg", "Ann/1.jpg", "Ann/portrait_2.jpg", "Bo/portrait.jpg", "Bo/1.jpg"),
        *("Cy/1.jpg", "Cy/2.jpg", "Di/portrait.jpg", "overview.jpg"),
    )
    (tmp_path / "Ann/urls.txt").touch()
    test_set = open_test_set(tmp_path, layout="deviantart-faces")
    assert identities(test_set.gallery) == ["ann", "ann", "bo", "di"]
    assert ids(queries_of(test_set)) == ["Ann/1.jpg", "Bo/1.jpg"]
    assert test_set.notes == (
        "1 picture belongs to nobody and is left out (overview.jpg).",
        "1 person has no portrait and is left out (cy).",
        "1 person has more than one portrait (ann).",
    )


def test_one_person_alone(tmp_path):
    write_pictures(tmp_path, "Ann/portrait.jpg", "Ann/1.jpg")
    assert len(relevant(open_test_set(tmp_path, layout="deviantart-faces"))) == 1


def test_deviantart_without_portraits(tmp_path):
    write_pictures(tmp_path, "Ann/1.jpg", "Ann/2.jpg", "Bo/1.jpg")
    with pytest.raises(InputError, match=r"nobody in .* has both a portrait"):
        open_test_set(tmp_path, layout="deviantart-faces")


def test_paintings_in_folders_of_styles_are_not_taken_for_people(tmp_path):
    write_pictures(
        tmp_path,
        *("Realism/rembrandt_portrait-of-a-man.jpg", "Realism/rembrandt_night.jpg"),
        *("Rococo/boucher_portrait.jpg", "Rococo/boucher_2.jpg"),
    )
    with pytest.raises(InputError, match="looks like no test set"):
        open_test_set(tmp_path)


# WikiArt Faces.


def test_wikiart_faces(tmp_path):
    root = tmp_path / "WikiArt_Faces"
    write_pictures(root, "Baroque/a_1.jpg", "Baroque/a_2.jpg", "c.png")
    (root / "readme.md").touch()
    test_set = open_test_set(root, size=SIZE)
    assert (test_set.name, test_set.title, test_set.notes) == ("wikiart-faces", "WikiArt Faces", ())
    assert test_set.queries is None
    assert ids(test_set.gallery) == ["Baroque/a_1.jpg", "Baroque/a_2.jpg", "c.png"]
    assert identities(test_set.gallery) == [None] * 3
    assert_readable(test_set)


def test_a_face_named_like_a_photograph_is_not_its_proxy(tmp_path, run):
    """Both sets number their files: the own proxy of a query must not be found by that."""
    queries = queries_of(open_test_set(run))
    write_pictures(tmp_path, *ids(queries))
    codes = Codes.of(queries.table, open_test_set(tmp_path, layout="wikiart-faces").gallery.table)
    assert not set(codes.query_sources.tolist()) & set(codes.gallery_sources.tolist())


# What is none of them.


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_empty_folder_is_refused(tmp_path, layout):
    with pytest.raises(InputError):
        open_test_set(tmp_path, layout=layout)


def test_layouts_are_listed(tmp_path):
    write_pictures(tmp_path, "a.jpg", "b.jpg")
    with pytest.raises(InputError) as caught:
        open_test_set(tmp_path)
    assert all(name in str(caught.value) for name in LAYOUTS)
    with pytest.raises(InputError, match=r'no layout "lfw".*webcaricature'):
        open_test_set(tmp_path, layout="lfw")


def test_nothing_there(tmp_path):
    for layout in (None, "webcaricature"):
        with pytest.raises(InputError, match=r"no .*folder"):
            open_test_set(tmp_path / "nowhere", layout=layout)
    (tmp_path / "set.zip").write_bytes(b"")
    with pytest.raises(InputError, match="unpacked"):
        open_test_set(tmp_path / "set.zip")


def test_only_a_run_has_photographs_elsewhere(tmp_path):
    write_pictures(tmp_path, "Photo/1.jpg", "Sketch/1.jpg")
    with pytest.raises(InputError, match="only a run"):
        open_test_set(tmp_path, faces=tmp_path)


@pytest.mark.parametrize("layout", [None, "iiitd-sketch", "webcaricature"])
def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch, layout):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(type(tmp_path), "iterdir", refuse)
    with pytest.raises(InputError, match=r"cannot be read: .*Permission denied"):
        open_test_set(tmp_path, layout=layout)


def test_celebas_size_by_default(tmp_path):
    write_pictures(tmp_path, "Photo/1.jpg", "Sketch/1.jpg")
    assert open_test_set(tmp_path).gallery.load([0]).shape == (1, 3, 218, 178)


def test_a_run_without_a_test_split_says_what_it_has(tmp_path):
    url = write_labelled_run(tmp_path, {"train": [2, 2]})
    assert len(open_test_set(url, split="train").gallery) == len(RunFaces.open(url)) == 4
