"""A visitor's photograph: fitted as the engine fits faces, and refused with a sentence where it cannot be one."""

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from manifests.errors import InputError
from pipeline.retrieval.face_files import MIN_SIDE
from pipeline.retrieval.query_photo import read_photo


def noise(width, height, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def saved(tmp_path):
    def save(pixels, name="me.png", **options):
        Image.fromarray(pixels).save(tmp_path / name, **options)
        return tmp_path / name

    return save


def as_pixels(photo):
    return photo.permute(1, 2, 0).numpy()


def test_a_picture_of_the_size_is_left_alone(saved):
    pixels = noise(40, 50)
    photo = read_photo(saved(pixels), (40, 50))
    assert (photo.shape, photo.dtype) == ((3, 50, 40), torch.uint8)
    assert photo.is_contiguous()
    np.testing.assert_array_equal(as_pixels(photo), pixels)
    assert read_photo(str(saved(pixels)), (40, 50)).equal(photo)


@pytest.mark.parametrize(("width", "height"), [(120, 50), (40, 200), (33, 32), (400, 500)])
def test_the_centre_is_taken_and_nothing_is_stretched(saved, width, height):
    """Against Pillow's own fit, which is another code path to the same definition."""
    pixels = noise(width, height)
    image = Image.fromarray(pixels)
    scale = max(40 / width, 50 / height)
    box = ((width - 40 / scale) / 2, (height - 50 / scale) / 2, (width + 40 / scale) / 2, (height + 50 / scale) / 2)
    expected = np.asarray(image.resize((40, 50), Image.Resampling.LANCZOS, box=box)).astype(int)
    found = as_pixels(read_photo(saved(pixels), (40, 50))).astype(int)
    assert np.abs(found - expected).max() <= 1


def test_the_way_up_that_a_telephone_says(saved):
    """A head that was stored lying is stood up before anything is cropped."""
    pixels = noise(50, 40)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    photo = read_photo(saved(pixels, exif=exif), (40, 50))
    np.testing.assert_array_equal(as_pixels(photo), np.rot90(pixels, -1))


def test_grey_and_transparent_pictures_are_rgb(tmp_path):
    Image.fromarray(np.full((50, 40), 77, np.uint8)).save(tmp_path / "grey.png")
    assert set(read_photo(tmp_path / "grey.png", (40, 50)).unique().tolist()) == {77}
    Image.new("RGBA", (40, 50), (9, 9, 9, 0)).save(tmp_path / "clear.png")
    assert set(read_photo(tmp_path / "clear.png", (40, 50)).unique().tolist()) == {255}


def test_the_part_that_shows_the_head(saved):
    pixels = noise(100, 80)
    place = saved(pixels)
    photo = read_photo(place, (40, 40), head=(0.2, 0.25, 0.6, 0.75))
    np.testing.assert_array_equal(as_pixels(photo), pixels[20:60, 20:60])
    assert read_photo(place, (40, 50), head=(0, 0, 1, 1)).equal(read_photo(place, (40, 50)))


@pytest.mark.parametrize(("width", "height"), [(31, 400), (400, 31), (1, 1)])
def test_too_small_to_show_a_face(saved, width, height):
    with pytest.raises(InputError, match=rf'me\.png" is {width}x{height} pixels, .*cropped to the head'):
        read_photo(saved(noise(width, height)), (40, 50))


def test_the_smallest_photograph(saved):
    assert read_photo(saved(noise(MIN_SIDE, MIN_SIDE)), (40, 50)).shape == (3, 50, 40)


def test_a_head_that_is_too_little(saved):
    with pytest.raises(InputError, match=r'the head in ".*me\.png" is 20x80 pixels'):
        read_photo(saved(noise(100, 80)), (40, 50), head=(0.4, 0, 0.6, 1))


@pytest.mark.parametrize(
    "head", [(0.5, 0, 0.5, 1), (0, 0.9, 1, 0.1), (-0.1, 0, 1, 1), (0, 0, 1.01, 1), (0, 0, math.nan, 1), (0, 1)]
)
def test_a_head_that_is_none(saved, head):
    with pytest.raises(InputError, match="is not within the photograph"):
        read_photo(saved(noise(100, 80)), (40, 50), head=head)


def test_what_is_no_photograph(tmp_path, saved):
    with pytest.raises(InputError, match=r'there is no photograph ".*nobody\.jpg"'):
        read_photo(tmp_path / "nobody.jpg", (40, 50))
    with pytest.raises(InputError, match="is a folder; give one photograph"):
        read_photo(tmp_path, (40, 50))
    with pytest.raises(InputError, match=r"cannot be read"):
        read_photo(saved(noise(40, 50)) / "inside", (40, 50))
    (tmp_path / "words.jpg").write_text("I am no picture.")
    with pytest.raises(InputError, match=r'words\.jpg" is no photograph that can be read: .*recognised'):
        read_photo(tmp_path / "words.jpg", (40, 50))
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(InputError, match="the file is empty"):
        read_photo(tmp_path / "empty.jpg", (40, 50))


def test_a_file_that_ends_early(saved, tmp_path):
    whole = saved(noise(64, 64), "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r'half\.jpg" is no photograph that can be read'):
        read_photo(tmp_path / "half.jpg", (40, 50))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 60), st.integers(1, 60))
def test_any_size_to_any_other(tmp_path_factory, width, height, wanted_width, wanted_height):
    place = tmp_path_factory.getbasetemp() / "any.bmp"
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (10, 200, 30)).save(buffer, "BMP")
    place.write_bytes(buffer.getvalue())
    if min(width, height) < MIN_SIDE:
        with pytest.raises(InputError):
            read_photo(place, (wanted_width, wanted_height))
        return
    photo = read_photo(place, (wanted_width, wanted_height))
    assert photo.shape == (3, wanted_height, wanted_width)
    assert photo.flatten(1).unique(dim=1).flatten().tolist() == [10, 200, 30]
