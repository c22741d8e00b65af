"""Faces in files: the right pixels for the right index, boxes against plain cropping, and refusals that name a file."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from manifests.errors import InputError
from manifests.image_source import ImageSource
from pipeline.retrieval.face_files import MIN_SIDE, FaceFile, faces_of_files, fit_face, unwrapped
from pipeline.retrieval.face_set import FACE_SET_SCHEMA
from stylize.errors import ImageError
from stylize.fit import cover

SIZE = (36, 44)


def pixels(seed, width=48, height=64):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def encoded(picture):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a").mkdir()
    for number in range(5):
        (tmp_path / "a" / f"{number}.png").write_bytes(encoded(pixels(number)))
    return tmp_path


def files(**changes):
    return [FaceFile(f"a/{number}.png", "1", f"person {number // 2}", **changes) for number in range(5)]


def test_pictures_are_those_of_the_indices(folder):
    faces = faces_of_files("some", "set", ImageSource("folder", str(folder)), files(), SIZE)
    expected = torch.from_numpy(np.stack([cover(pixels(number), *SIZE) for number in range(5)])).permute(0, 3, 1, 2)
    for indices in ([0, 1, 2, 3, 4], [3, 0, 3], np.array([4]), []):
        loaded = faces.load(indices)
        assert loaded.dtype == torch.uint8
        assert torch.equal(loaded, expected[torch.as_tensor(np.asarray(indices, np.int64))])
    taken = faces.take([4, 1]).take([1])
    assert taken.table["id"].to_pylist() == ["a/1.png"]
    assert torch.equal(taken.load([0]), expected[[1]])


def test_table(folder):
    faces = faces_of_files("some", "set", ImageSource("folder", str(folder)), files(), SIZE)
    assert faces.table.schema.equals(FACE_SET_SCHEMA)
    assert faces.table.slice(2, 1).drop(FACE_SET_SCHEMA.names[5:]).to_pylist() == [
        {"id": "a/2.png", "source_id": "set:a/2.png", "identity": "person 1", "locator": "a/2.png", "version": "1"}
    ]
    assert faces.table["Smiling"].null_count == len(faces) == 5


def test_a_box_inside_is_the_crop_scaled():
    picture = pixels(7, 200, 300)
    box = (20, 40, 20 + 3 * SIZE[0], 40 + 3 * SIZE[1])
    expected = Image.fromarray(picture).crop(box).resize(SIZE, Image.Resampling.LANCZOS)
    found = fit_face(encoded(picture), SIZE, box).astype(int)
    # Cropping first hides the neighbours from the filter, at the edges alone.
    assert np.abs(found - np.asarray(expected).astype(int))[3:-3, 3:-3].max() <= 1


def test_the_whole_picture_as_a_box():
    picture = pixels(8, 2 * SIZE[0], 2 * SIZE[1])
    assert np.array_equal(fit_face(encoded(picture), SIZE, (0, 0, 2 * SIZE[0], 2 * SIZE[1])), cover(picture, *SIZE))


@pytest.mark.parametrize("side", range(4))
def test_beyond_the_picture_its_edge_goes_on(side):
    picture = pixels(9, *SIZE)
    left, top = [(-3, 0), (0, -6), (3, 0), (0, 6)][side]
    found = fit_face(encoded(picture), SIZE, (left, top, left + SIZE[0], top + SIZE[1]))
    rows = (np.arange(SIZE[1]) + top).clip(0, SIZE[1] - 1)
    columns = (np.arange(SIZE[0]) + left).clip(0, SIZE[0] - 1)
    assert np.array_equal(found, picture[rows][:, columns])


def test_a_box_around_the_picture_shows_it_smaller():
    picture = np.full((64, 64, 3), 90, np.uint8)
    assert (fit_face(encoded(picture), SIZE, (-1e9, -1e9, 1e9, 1e9)) == 90).all()


@pytest.mark.parametrize("box", [(300, 300, 400, 400), (-90, 0, MIN_SIDE - 1, 60), (10, 10, 10, 50), (50, 50, 10, 10)])
def test_a_box_that_shows_too_little(box):
    with pytest.raises(ImageError, match="too little lies in the 48x64 picture"):
        fit_face(encoded(pixels(1)), SIZE, box)


@pytest.mark.parametrize(("width", "height"), [(MIN_SIDE - 1, 500), (500, MIN_SIDE - 1), (1, 1)])
def test_too_small_to_show_a_face(folder, width, height):
    (folder / "a/3.png").write_bytes(encoded(pixels(1, width, height)))
    faces = faces_of_files("some", "set", ImageSource("folder", str(folder)), files(), SIZE)
    assert len(faces.load([0, 1, 2, 4])) == 4
    with pytest.raises(InputError, match=rf'"a/3.png" in ".*": {width}x{height} pixels are too small to show a face'):
        faces.load([0, 3])


def test_just_large_enough():
    assert fit_face(encoded(pixels(1, MIN_SIDE, MIN_SIDE)), SIZE).shape == (SIZE[1], SIZE[0], 3)


@pytest.mark.parametrize("damage", [b"", b"no image", encoded(pixels(3))[:-200]])
def test_a_damaged_file_is_named(folder, damage):
    (folder / "a/3.png").write_bytes(damage)
    with pytest.raises(InputError, match=r'"a/3.png" in ".*": .*; replace or remove it'):
        faces_of_files("some", "set", ImageSource("folder", str(folder)), files(), SIZE).load([3])


def test_a_vanished_file_is_named(folder):
    faces = faces_of_files("some", "set", ImageSource("folder", str(folder)), files(), SIZE)
    (folder / "a/3.png").unlink()
    with pytest.raises(InputError, match=r'"a/3.png" in ".*" cannot be read'):
        faces.load([2, 3])


@pytest.mark.parametrize("size", [(0, 10), (10, -1)])
def test_a_size_without_area(folder, size):
    with pytest.raises(InputError, match="nothing to show"):
        faces_of_files("some", "set", ImageSource("folder", str(folder)), files(), size)


def test_unwrapping_stops_at_the_first_folder_with_more_in_it(tmp_path):
    inner = tmp_path / "a/b"
    inner.mkdir(parents=True)
    assert unwrapped(tmp_path) == inner
    (tmp_path / "a" / ".DS_Store").touch()
    (tmp_path / "__MACOSX").mkdir()
    assert unwrapped(tmp_path) == inner
    (tmp_path / "a/readme.txt").touch()
    assert unwrapped(tmp_path) == tmp_path / "a"
