"""Saliency overlays: what is coloured, what is not, and what does not matter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.retrieval.saliency import overlay, relative_strength

HEIGHT, WIDTH = 60, 48


def blob(y, x, height=HEIGHT, width=WIDTH, sign=1.0):
    rows, columns = np.mgrid[:height, :width]
    return (sign * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 18)).astype(np.float32)


def flat(level=120, height=HEIGHT, width=WIDTH):
    return np.full((height, width, 3), level, np.uint8)


def test_what_speaks_for_the_match_is_coloured_and_nothing_else():
    drawn = overlay(flat(), blob(15, 12) + blob(45, 36, sign=-3)).astype(int)
    spread = drawn.max(axis=2) - drawn.min(axis=2)
    assert spread[15, 12] > 80
    assert spread[45, 36] == 0
    assert spread[5, 40] == 0
    y, x = np.unravel_index(spread.argmax(), spread.shape)
    assert abs(y - 15) < 5
    assert abs(x - 12) < 5


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (60, 48), (48, 60)])
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_nothing_for_the_match_leaves_a_grey_picture(shape, value):
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    drawn = overlay(picture, np.full(shape, value, np.float32))
    assert drawn.shape == picture.shape
    assert drawn.dtype == np.uint8
    assert (drawn == drawn[..., :1]).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.floats(-12, 12), st.integers(1, 30), st.integers(1, 30))
def test_units_of_the_score_do_not_matter(seed, exponent, height, width):
    contributions = np.random.default_rng(seed).standard_normal((height, width)).astype(np.float32)
    strength = relative_strength(contributions)
    assert strength.shape == (height, width)
    assert (strength >= 0).all()
    assert (strength <= 1).all()
    np.testing.assert_allclose(strength, relative_strength(contributions * np.float32(10.0**exponent)), atol=1e-4)


def test_one_pixel_does_not_drown_the_rest():
    contributions = blob(30, 24)
    before = relative_strength(contributions)[30, 24]
    contributions[3, 3] = 1000
    assert before == pytest.approx(1, abs=0.01)
    assert relative_strength(contributions, smoothing=0, percentile=99)[30, 24] > 0.5


def test_smoothing_is_in_the_picture_s_own_scale():
    """A face twice as large shows the same regions."""
    small = relative_strength(blob(20, 16), percentile=100)
    large = relative_strength(blob(20, 16).repeat(2, axis=0).repeat(2, axis=1), percentile=100)
    halves = large.reshape(HEIGHT, 2, WIDTH, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(halves, small, atol=0.03)


def test_smoothing_nothing():
    contributions = np.array([[1, -1], [2, 4]], np.float32)
    np.testing.assert_allclose(relative_strength(contributions, smoothing=0, percentile=100), [[0.25, 0], [0.5, 1]])


@pytest.mark.parametrize(
    ("picture", "contributions", "options", "message"),
    [
        (flat(), np.zeros((HEIGHT, WIDTH - 1), np.float32), {}, "does not fit"),
        (flat()[..., 0], np.zeros((HEIGHT, WIDTH), np.float32), {}, "does not fit"),
        (flat(), np.zeros((3, HEIGHT, WIDTH), np.float32), {}, "H, W"),
        (flat(), np.full((HEIGHT, WIDTH), np.nan, np.float32), {}, "finite"),
        (flat(), blob(1, 1), {"percentile": 101}, "percentile"),
        (flat(), blob(1, 1), {"smoothing": -1}, "smoothing"),
        (flat(), blob(1, 1), {"opacity": 1.5}, "opacity"),
    ],
)
def test_bad_arguments(picture, contributions, options, message):
    with pytest.raises(ValueError, match=message):
        overlay(picture, contributions, **options)
