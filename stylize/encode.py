"""Encode a finished proxy for storage."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

# Pillow's options by format. PNG at level 6 is its default; WebP lossless; JPEG at full chroma resolution, since style
# lives in fine colour texture.
IMAGE_FORMATS: dict[str, dict[str, Any]] = {
    "png": {"compress_level": 6},
    "jpeg": {"quality": 95, "subsampling": 0},
    "webp": {"lossless": True, "quality": 50, "method": 4},
}
LOSSLESS = frozenset({"png", "webp"})


def encode_image(image: np.ndarray, image_format: str) -> bytes:
    """Encode an image, uint8 [H, W, 3] RGB, in one of `IMAGE_FORMATS`.

    Raises:
        KeyError: Another format.

    """
    options = IMAGE_FORMATS[image_format]
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format=image_format.upper(), **options)
    return buffer.getvalue()
