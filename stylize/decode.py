"""Decode an image file of any common kind into RGB, or say why not."""

from __future__ import annotations

import io

import numpy as np
from PIL import ExifTags, Image

from stylize.errors import ImageError

# A decoded image takes up to 4 bytes a pixel; laying transparency on paper takes three such copies for a moment.
MAX_PIXELS = 64 * 1024 * 1024
# What brings a picture stored in each EXIF orientation upright.
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode an image as a viewer shows it.

    EXIF orientation is applied. Grey, palette, CMYK and 16-bit images (scaled to 8 bits) become RGB. Transparency is
    laid on white, as paper is under a drawing (our choice). Of an animation, the first frame.

    Args:
        data: The file's bytes.
        max_pixels: Larger images are refused before they are decoded.

    Returns:
        uint8 [H, W, 3].

    Raises:
        ImageError: Empty, truncated, damaged, not an image, or too large.

    """
    if not data:
        raise ImageError("the file is empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.format == "EPS":
                raise ImageError("PostScript is a program, which is not run; convert it to an image")
            width, height = image.size
            if width * height > max_pixels:
                raise ImageError(
                    f"{width}x{height} is {width * height / 1e6:.0f} million pixels, "
                    f"at most {max_pixels / 1e6:.0f} million are decoded"
                )
            image.load()
            return np.asarray(_to_rgb(_upright(image)), dtype=np.uint8).copy()
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError("the image is far too large to decode") from error
    except MemoryError as error:
        raise ImageError("there is not enough memory to decode the image") from error
    except Exception as error:
        # Pillow's decoders raise nearly every exception there is on damaged files; none may stop a run of days.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if "cannot identify image file" in reason:
            reason = "not an image that can be recognised"
        raise ImageError(f"the image cannot be decoded: {reason}") from error


def _upright(image: Image.Image) -> Image.Image:
    """Apply EXIF orientation; damaged EXIF does not cost the image."""
    try:
        transpose = _TRANSPOSES.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return image
    return image if transpose is None else image.transpose(transpose)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow's own conversion clips at 255 instead of scaling.
        values = np.asarray(image).astype(np.int64)
        return Image.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        scale = 255.0 if values.max(initial=0.0) <= 1.0 else 1.0
        return Image.fromarray((values * scale).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        paper = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(paper, layer).convert("RGB")
    return image.convert("RGB")
