"""Decode an image file of any common kind into RGB, or say why not.

Faces, paintings and visitors' photographs come from strangers. So only the kinds in `FORMATS` are read, whatever the
installed Pillow could: PostScript is a program, for which Pillow would start Ghostscript; of the rest, most are exotic
with decoders that few have looked at, and some (AVIF, JPEG 2000) depend on how Pillow was built, which must not decide
what a data set holds. And of the kinds in `FORMATS`, what lets a small file cost much is refused: more than
`MAX_PIXELS` or a side over `MAX_SIDE`, thousands of progressive scans or Exif blocks, TIFF strips that lie upon each
other, tiles far larger than the picture, run-length encoded BMP (which Pillow decodes in Python, byte by byte).

An image costs at most about 26 bytes a pixel for a moment, thus 1.7 GB, and a few seconds, both at `MAX_PIXELS` and
with transparency and a rotation (measured; tests/test_fuzz_decode.py holds smaller ones to it).
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin

from stylize.errors import ImageError, ImageSizeError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
"""Pillow's names of what is read; JPEG includes the several-picture JPEGs (MPO) of telephones, of which the first."""

# A decoded image takes up to 4 bytes a pixel; laying transparency on paper takes three such copies for a moment.
MAX_PIXELS = 64 * 1024 * 1024
MAX_SIDE = 65_535
"""Pixels; JPEG's and GIF's own limit. Longer rows are nobody's picture but have cost decoders gigabytes for one row."""

# libtiff's limit for JPEGs within TIFF. A common progressive JPEG has 10; each costs a pass over the whole picture,
# and may take but a few bytes of the file.
_MAX_SCANS = 100
# Pillow joins Exif blocks one by one, in time quadratic in their number; cameras write one.
_MAX_EXIF_BLOCKS = 256
# Uncompressed strips and tiles cost microseconds each, and may lie upon each other: a stored plane for each of RGBA and
# a few extra samples is the most that a picture needs.
_MAX_TILES = 100_000
_MAX_COVERINGS = 8

_SCAN = b"\xff\xda"
_EXIF = b"Exif\0\0"
# Any marker but those that stand within the coded data of a scan (stuffed zeros, restarts) and fill bytes.
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])", re.DOTALL)
_BAND = 256  # rows converted at a time, so that wide copies stay small

# Kinds that people do have, to be named where they are refused: (offset, signature, name).
_FOREIGN = (
    (0, b"%!PS", "PostScript"),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript"),
    (0, b"%PDF", "PDF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypheic", "HEIC"),
    (4, b"ftypheix", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"8BPS", "Photoshop's format"),
)

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
        ImageError: Empty, truncated, damaged, not of a kind in `FORMATS`, too large, or made to be expensive.

    """
    if not data:
        raise ImageError("the file is empty")
    if data.startswith(b"\xff\xd8"):
        _refuse_expensive_jpeg(data)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _refuse_expensive(image, max_pixels)
            image.load()
            return np.asarray(_to_rgb(_upright(image)), dtype=np.uint8).copy()
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # the second where warnings raise
        raise ImageSizeError(f"the image is far too large; {_at_most(max_pixels)}") from error
    except MemoryError as error:
        raise ImageError("there is not enough memory to decode the image") from error
    except Exception as error:
        # Pillow's decoders raise nearly every exception there is on damaged files; none may stop a run of days.
        raise ImageError(_reason(error, data)) from error


def _reason(error: Exception, data: bytes) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if "MAX_TEXT" in reason:  # Pillow's limits of what a PNG's texts and colour profile may unpack to
        reason = "its texts or its colour profile unpack to more than is read"
    elif "cannot identify image file" in reason:
        kinds = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        name = next((name for at, signature, name in _FOREIGN if data.startswith(signature, at)), None)
        reason = (
            f"not an image that can be recognised; give {kinds}"
            if name is None
            else f"{name} is not read; convert it to {kinds}"
        )
    return f"the image cannot be decoded: {reason}"


def _at_most(max_pixels: int) -> str:
    return f"at most {max_pixels / 1e6:.0f} million pixels are decoded"


def _refuse_expensive_jpeg(data: bytes) -> None:
    """Refuse what makes libjpeg or Pillow slow, before they see it."""
    if data.count(_EXIF) > _MAX_EXIF_BLOCKS:
        raise ImageError(f"the image has more than {_MAX_EXIF_BLOCKS} Exif blocks, which no camera writes")
    # Counting is quick; it may count too many, as in a film behind the picture, and then it is walked through.
    if data.count(_SCAN) > _MAX_SCANS and _scans(data) > _MAX_SCANS:
        raise ImageError(f"the image has more than {_MAX_SCANS} progressive scans, which would take long to decode")


def _scans(data: bytes) -> int:
    """Count the scans of a JPEG up to its end or one above the limit (ITU-T T.81, B.1.1: markers and segments)."""
    scans, at = 0, 2
    while scans <= _MAX_SCANS and (found := _MARKER.search(data, at)) is not None:
        marker, at = found.group(1)[0], found.end()
        if marker == 0xD9:  # end of image
            break
        scans += marker == 0xDA
        if marker not in (0x01, 0xD8):  # those two have no length
            at += int.from_bytes(data[at : at + 2], "big")
    return scans


def _refuse_expensive(image: ImageFile.ImageFile, max_pixels: int) -> None:
    """Refuse what the header alone tells."""
    width, height = image.size
    if width * height > max_pixels:
        raise ImageSizeError(f"{width}x{height} is {width * height / 1e6:.0f} million pixels; {_at_most(max_pixels)}")
    if max(width, height) > MAX_SIDE:
        raise ImageSizeError(f"{width}x{height} has a side of more than {MAX_SIDE} pixels")
    if any(tile[0] == "bmp_rle" for tile in image.tile):
        raise ImageError("run-length encoded BMP is not read; save it as PNG")
    pieces = [tile[1] for tile in image.tile if tile[1] is not None]
    covered = sum((right - left) * (lower - upper) for left, upper, right, lower in pieces)
    if len(image.tile) > _MAX_TILES or covered > _MAX_COVERINGS * width * height:
        raise ImageError(f"the picture is stored in {len(image.tile)} pieces, far more than it needs; save it anew")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        sides = [image.tag_v2.get(tag) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH)]
        wide, high = (side if isinstance(side, int) else 0 for side in sides)
        if wide * high > MAX_PIXELS:
            raise ImageError(f"the picture is stored in tiles of {wide}x{high} pixels; {_at_most(MAX_PIXELS)}")


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
        return _by_bands(np.asarray(image), lambda band: band.astype(np.int64).clip(0, 65535) >> 8)
    if image.mode == "F":
        values = np.asarray(image)
        scale = 255.0 if np.fmax.reduce(values, axis=None, initial=0.0) <= 1.0 else 1.0
        return _by_bands(values, lambda band: (np.nan_to_num(band.astype(np.float64)) * scale).clip(0, 255))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        paper = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(paper, layer).convert("RGB")
    return image.convert("RGB")


def _by_bands(values: npt.NDArray[np.generic], convert: Callable[[np.ndarray], np.ndarray]) -> Image.Image:
    """Convert [H, W] to 8-bit grey a few rows at a time; the result as RGB."""
    grey = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), _BAND):
        grey[start : start + _BAND] = convert(values[start : start + _BAND])
    return Image.fromarray(grey).convert("RGB")
