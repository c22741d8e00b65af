"""A visitor's photograph, as the networks are to see it."""

import os

import torch
from torch import Tensor

from manifests.errors import InputError
from pipeline.retrieval.face_files import MIN_SIDE
from pipeline.retrieval.retrieval_model import Crop
from stylize.decode import decode_image
from stylize.errors import ImageError
from stylize.fit import cover


def read_photo(path: str | os.PathLike[str], size: tuple[int, int], *, head: Crop | None = None) -> Tensor:
    """Read a photograph and fit it to the size of a gallery's pictures.

    No face is looked for: the photograph has to show one head, framed as the gallery frames its own (Celeb-A's aligned
    pictures: the face in the middle, hair and shoulders just visible), or `head` has to say where it is. EXIF
    orientation is applied first; then the picture is scaled until it covers the size and its centre is taken
    (`stylize.fit.cover`, as the engine fits faces).

    Args:
        path: of an image file of any kind that `stylize.decode.decode_image` knows.
        size: width and height in pixels.
        head: the part of the photograph that shows the head: left, top, right, bottom as fractions of its width and
            height; None is all of it. It is rounded to whole pixels.

    Returns:
        uint8 [3, height, width], RGB.

    Raises:
        InputError: there is no file, it cannot be read or is no image, its shorter side (or that of the head) is under
            32 pixels, or the head is not within the photograph.
    """
    name = os.fspath(path)
    try:
        with open(os.path.expanduser(path), "rb") as file:
            pixels = decode_image(file.read())
    except FileNotFoundError:
        raise InputError(f'there is no photograph "{name}"') from None
    except IsADirectoryError:
        raise InputError(f'"{name}" is a folder; give one photograph') from None
    except OSError as error:
        raise InputError(f'the photograph "{name}" cannot be read: {error.strerror or error}') from error
    except ImageError as error:
        raise InputError(f'"{name}" is no photograph that can be read: {error}') from error
    if head is not None:
        left, top, right, bottom = _checked(head)
        height, width = pixels.shape[:2]
        pixels = pixels[round(top * height) : round(bottom * height), round(left * width) : round(right * width)]
    height, width = pixels.shape[:2]
    if min(width, height) < MIN_SIDE:
        part = "the head in " if head is not None else ""
        raise InputError(
            f'{part}"{name}" is {width}x{height} pixels, which is no face-sized image; give a photograph that is '
            f"cropped to the head and has at least {MIN_SIDE} pixels on its shorter side"
        )
    return torch.from_numpy(cover(pixels, *size).copy()).permute(2, 0, 1).contiguous()


def _checked(head: Crop) -> Crop:
    match head:
        case (left, top, right, bottom) if 0 <= left < right <= 1 and 0 <= top < bottom <= 1:
            return head
        case _:
            raise InputError(
                f"head {head} is not within the photograph; give left, top, right and bottom as fractions of its width "
                "and height, 0 to 1, left before right and top before bottom"
            )
