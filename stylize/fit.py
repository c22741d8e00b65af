"""Fit an image to a size: scale until it covers it, cut the centre out."""

from __future__ import annotations

import numpy as np
from PIL import Image


def cover(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Scale an image by the one factor with which it just covers width × height, and crop the centre.

    The one rule for paintings, and for faces where a size is asked for: nothing is stretched, and nothing but what
    lies outside the target's aspect ratio is lost. Lanczos resampling; crops at fractional positions are resampled
    exactly, once. An image that has the size already is returned unchanged.

    Args:
        image: uint8 [h, w, 3], sides of at least 1.
        width, height: In pixels.

    Returns:
        uint8 [height, width, 3].

    """
    source_height, source_width = image.shape[:2]
    if (source_width, source_height) == (width, height):
        return image
    scale = max(width / source_width, height / source_height)
    box_width, box_height = min(width / scale, source_width), min(height / scale, source_height)
    left, top = (source_width - box_width) / 2, (source_height - box_height) / 2
    box = (left, top, left + box_width, top + box_height)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS, box=box))
