"""Encoded proxies: lossless where it says so, near where not, and the same bytes every time."""

import io

import numpy as np
import pytest
from PIL import Image

from stylize.decode import decode_image
from stylize.encode import IMAGE_FORMATS, LOSSLESS, encode_image
from tests.tiny_transfer import picture

IMAGE = picture(4, 37, 29)


@pytest.mark.parametrize("image_format", sorted(IMAGE_FORMATS))
def test_an_encoded_image_is_of_its_format_and_comes_back(image_format):
    data = encode_image(IMAGE, image_format)
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == image_format.upper()
        assert image.mode == "RGB"
        assert image.size == (29, 37)
    difference = np.abs(decode_image(data).astype(int) - IMAGE)
    if image_format in LOSSLESS:
        assert difference.max() == 0
    else:
        assert difference.mean() < 5
    assert encode_image(IMAGE, image_format) == data


def test_lossless_formats_keep_noise_and_extremes():
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for image_format in LOSSLESS:
        for image in (noise, np.zeros_like(noise), np.full_like(noise, 255)):
            assert np.array_equal(decode_image(encode_image(image, image_format)), image)


def test_jpeg_keeps_colour_at_full_resolution():
    with Image.open(io.BytesIO(encode_image(IMAGE, "jpeg"))) as image:
        assert {layer[1:3] for layer in image.layer} == {(1, 1)}  # type: ignore[attr-defined]


@pytest.mark.parametrize("image_format", ["gif", "PNG", ""])
def test_other_formats_are_a_key_error(image_format):
    with pytest.raises(KeyError):
        encode_image(IMAGE, image_format)
