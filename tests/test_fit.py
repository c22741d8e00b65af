"""Cover and crop: the size asked for, nothing stretched, centred."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylize.fit import cover
from tests.tiny_transfer import picture

SIDES = st.integers(1, 70)


@given(SIDES, SIDES, SIDES, SIDES, st.integers(0, 255))
@settings(max_examples=120, deadline=None)
def test_the_size_is_met_and_a_constant_colour_stays(height, width, to_width, to_height, value):
    fitted = cover(np.full((height, width, 3), (value, 7, 250), np.uint8), to_width, to_height)
    assert fitted.shape == (to_height, to_width, 3)
    assert fitted.dtype == np.uint8
    assert (fitted == np.array([value, 7, 250], np.uint8)).all()


def test_an_image_of_the_size_is_returned_unchanged():
    image = picture(0, 23, 17)
    assert np.array_equal(cover(image, 17, 23), image)


def disc(height: int, width: int, radius: float) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    inside = np.hypot(y - (height - 1) / 2, x - (width - 1) / 2) <= radius
    return np.repeat((inside * np.uint8(255))[..., None], 3, 2)


@pytest.mark.parametrize("source", [(200, 120), (120, 200), (150, 150), (60, 90)])
@pytest.mark.parametrize("target", [(89, 109), (109, 89), (64, 64), (30, 200)])
def test_a_circle_stays_a_circle_of_the_right_size_in_the_middle(source, target):
    height, width = source
    to_width, to_height = target
    scale = max(to_width / width, to_height / height)
    radius = min(0.3 * min(height, width), 0.4 * min(to_width, to_height) / scale)
    fitted = cover(disc(height, width, radius), to_width, to_height)[..., 0] / 255
    for axis, side in ((0, to_width), (1, to_height)):
        profile = fitted.sum(axis)
        assert profile.max() == pytest.approx(2 * radius * scale, abs=2 + scale)
        centre = (profile * np.arange(side)).sum() / profile.sum()
        assert centre == pytest.approx((side - 1) / 2, abs=0.3)
    assert fitted.sum() == pytest.approx(np.pi * (radius * scale) ** 2, rel=0.15)


@pytest.mark.parametrize(("source", "target"), [((40, 80), (20, 20)), ((80, 40), (20, 20)), ((31, 90), (31, 31))])
def test_what_is_cut_off_is_the_same_on_either_side(source, target):
    image = picture(3, *source)
    fitted = cover(image, *target).astype(int)
    assert np.abs(cover(np.ascontiguousarray(image[:, ::-1]), *target)[:, ::-1] - fitted).max() <= 1
    assert np.abs(cover(np.ascontiguousarray(image[::-1]), *target)[::-1] - fitted).max() <= 1


def test_the_middle_is_kept_and_only_the_longer_side_is_cut():
    image = np.zeros((40, 120, 3), np.uint8)
    image[:, 40:80] = 255
    assert (cover(image, 40, 40) == 255).all()
    image = np.zeros((40, 120, 3), np.uint8)
    image[0, :], image[-1, :] = 200, 200
    fitted = cover(image, 40, 40)
    assert (fitted[0] == 200).all()
    assert (fitted[-1] == 200).all()


def test_upscaling_is_smooth_and_keeps_the_mean():
    image = picture(5, 9, 9)
    fitted = cover(image, 90, 90)
    assert fitted.mean() == pytest.approx(image.mean(), abs=3)
    assert np.abs(np.diff(fitted.astype(int), axis=1)).max() < 60


@pytest.mark.parametrize(("source", "target"), [((1, 1), (40, 30)), ((1, 5000), (32, 32)), ((5000, 1), (32, 48))])
def test_images_of_one_pixel_across_cover_anything(source, target):
    image = np.full((*source, 3), 77, np.uint8)
    assert (cover(image, *target) == 77).all()


def test_the_input_is_left_alone():
    image = picture(1, 30, 40)
    before = image.copy()
    cover(image, 20, 20)
    assert np.array_equal(image, before)
