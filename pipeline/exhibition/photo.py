"""A visitor's photograph: decoded with limits, its faces found, and the head framed as a gallery frames its own."""

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from pipeline.faces.face_box import FaceBox
from stylize.decode import decode_image
from stylize.errors import ImageError, ImageSizeError

Pixels = npt.NDArray[np.uint8]


class Box(Protocol):
    """Where a face is, in pixels: `pipeline.faces.face_box.FaceBox`."""

    @property
    def left(self) -> float: ...  # noqa: D102

    @property
    def top(self) -> float: ...  # noqa: D102

    @property
    def right(self) -> float: ...  # noqa: D102

    @property
    def bottom(self) -> float: ...  # noqa: D102


Detector = Callable[[Pixels], Sequence[Box]]
"""uint8 [H, W, 3], RGB → the faces in it."""


@dataclass(frozen=True)
class Place:
    """Left, top, width and height of a face; in pixels, or in fractions of the photograph's sides."""

    x: float
    y: float
    w: float
    h: float

    def scaled(self, across: float, down: float) -> "Place":
        """Return the place in other units."""
        return Place(self.x * across, self.y * down, self.w * across, self.h * down)


@dataclass(frozen=True, eq=False)
class Portrait:
    """A photograph with its faces.

    Attributes:
        pixels: reduced so far that heads keep all that networks see: uint8 [H, W, 3], RGB.
        width, height: of the photograph as it came, upright, in pixels.
        faces: in fractions, from left to right; at least one.
    """

    pixels: Pixels
    width: int
    height: int
    faces: tuple[Place, ...]


class PhotoError(ValueError):
    """A photograph that cannot be used.

    Args:
        code: no_face, not_an_image, too_many_pixels or face_too_small.
        message: why, and what to do.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


ALIGNED: Final = Place(0.2623, 0.3124, 0.4835, 0.5279)
"""Where a detector finds the face in Celeb-A's aligned pictures, in fractions of 178x218.

Measured: medians of the centres and sizes of CenterFace's boxes in 137 of them (half of them lie within 0.02 of the
centre across and 0.01 down, and within 0.025 of the size).
"""

MIN_HEAD: Final = 64
"""Pixels across a head in the photograph; networks see 112 to 224 of them."""

# JPEG, PNG, WebP, GIF: what browsers send. Whatever else the library reads (TIFF, BMP) has no business here.
_SIGNATURES: Final = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"GIF8")
_ASPECT: Final = (178, 218)
_KEPT_SIDE: Final = 1600
_SEARCHED_SIDE: Final = 640
_PASSER_BY: Final = 1 / 3
_LARGE: Final = 16_000_000
_one_large_picture = threading.Lock()


def centre_face(picture: Pixels) -> tuple[FaceBox, ...]:
    """Return the place of a face in the middle, without looking: for a camera with a guide, where nothing detects.

    The head fills the height of the picture, or its width where it is narrower than Celeb-A's.
    """
    height, width = picture.shape[:2]
    scale = min(width / _ASPECT[0], height / _ASPECT[1])
    head = _ASPECT[0] * scale, _ASPECT[1] * scale
    face = ALIGNED.scaled(*head)
    left, top = face.x + (width - head[0]) / 2, face.y + (height - head[1]) / 2
    return (FaceBox(left, top, left + face.w, top + face.h, 1.0),)


def read_portrait(data: bytes, detect: Detector, *, max_pixels: int) -> Portrait:
    """Decode a photograph and find its faces.

    Faces are looked for on a copy reduced to 640 pixels; whoever stands before a camera is larger in it than detectors
    need. A face less than a third as wide as the largest is somebody who walked by, and left out. Only one large
    picture (over 16 million pixels) is decoded at a time, whatever the number of threads.

    Args:
        data: the file, JPEG, PNG, WebP or GIF.
        detect: finds faces.
        max_pixels: larger pictures are refused by their header, before anything is decoded.

    Raises:
        PhotoError: see there.
    """
    pixels, (width, height) = _decoded(data, max_pixels)
    searched = _reduced(pixels, _SEARCHED_SIDE)
    found = [
        Place(box.left, box.top, box.right - box.left, box.bottom - box.top).scaled(
            1 / searched.shape[1], 1 / searched.shape[0]
        )
        for box in detect(searched)
        if box.right > box.left and box.bottom > box.top
    ]
    found.sort(key=lambda place: place.x)
    if not found:
        raise PhotoError("no_face", "no face was found in the photograph; look at the camera, in good light")
    largest = max(place.w for place in found)
    faces = [place for place in found if place.w >= _PASSER_BY * largest]
    large = tuple(place for place in faces if _head(place.scaled(width, height))[2] >= MIN_HEAD)
    if not large:
        raise PhotoError("face_too_small", f"the head is less than {MIN_HEAD} pixels wide; come nearer to the camera")
    return Portrait(pixels, width, height, large)


def frame_head(portrait: Portrait, face: int, size: tuple[int, int]) -> Tensor:
    """Cut a head out as Celeb-A's aligned pictures show one: hair and shoulders just visible.

    Where the head goes beyond the photograph, its edge is continued. The cut is resampled once, exactly.

    Args:
        portrait: a photograph.
        face: index into its faces.
        size: width and height in pixels of a gallery's pictures; the cut has its aspect, around the same centre.

    Returns:
        uint8 [3, height, width], RGB.
    """
    pixels = portrait.pixels
    height, width = pixels.shape[:2]
    left, top, across, down = _head(portrait.faces[face].scaled(width, height))
    scale = min(across / size[0], down / size[1])  # as `stylize.fit.cover` has it
    left, top = left + (across - scale * size[0]) / 2, top + (down - scale * size[1]) / 2
    right, bottom = left + scale * size[0], top + scale * size[1]
    left, top, right, bottom = (round(side, 6) for side in (left, top, right, bottom))  # a rounding is not beyond
    margins = [math.ceil(max(0.0, over)) for over in (-left, -top, right - width, bottom - height)]
    padded = np.pad(pixels, ((margins[1], margins[3]), (margins[0], margins[2]), (0, 0)), mode="edge")
    box = (left + margins[0], top + margins[1], right + margins[0], bottom + margins[1])
    cut = np.asarray(Image.fromarray(padded).resize(size, Image.Resampling.LANCZOS, box=box))
    return torch.from_numpy(cut.copy()).permute(2, 0, 1).contiguous()


def _head(face: Place) -> tuple[float, float, float, float]:
    """Return left, top, width and height of the head around a face, in its pixels, with Celeb-A's aspect.

    Detectors' boxes differ in shape more than in area, so the area says the scale.
    """
    aligned = ALIGNED.scaled(*_ASPECT)
    scale = math.sqrt(face.w * face.h / (aligned.w * aligned.h))
    across, down = _ASPECT[0] * scale, _ASPECT[1] * scale
    left = face.x + face.w / 2 - (aligned.x + aligned.w / 2) * scale
    top = face.y + face.h / 2 - (aligned.y + aligned.h / 2) * scale
    return left, top, across, down


def _decoded(data: bytes, max_pixels: int) -> tuple[Pixels, tuple[int, int]]:
    """Return a photograph upright and reduced, and its width and height before that."""
    if not data.startswith(_SIGNATURES):
        raise _not_an_image()
    try:
        try:
            pixels = decode_image(data, max_pixels=min(_LARGE, max_pixels))
        except ImageSizeError:
            with _one_large_picture:
                pixels = decode_image(data, max_pixels=max_pixels)
                return _reduced(pixels, _KEPT_SIDE), (pixels.shape[1], pixels.shape[0])
    except ImageSizeError:
        million = f"{max_pixels / 1e6:.0f} million pixels"
        raise PhotoError("too_many_pixels", f"the photograph has more than {million}; send a smaller one") from None
    except ImageError:
        raise _not_an_image() from None
    return _reduced(pixels, _KEPT_SIDE), (pixels.shape[1], pixels.shape[0])


def _not_an_image() -> PhotoError:
    return PhotoError("not_an_image", "this is no picture that can be read; send a JPEG or PNG photograph")


def _reduced(pixels: Pixels, side: int) -> Pixels:
    """Return a picture whose longer side is at most so many pixels."""
    height, width = pixels.shape[:2]
    scale = side / max(width, height)
    if scale >= 1:
        return pixels
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
