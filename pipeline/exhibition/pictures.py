"""The collection's pictures as browsers show them: faces as stored, whole works where the museum has them."""

import io
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final

from PIL import Image

from manifests.errors import InputError
from pipeline.exhibition.photo import Pixels
from stylize.decode import decode_image
from stylize.errors import ImageError

_FACE_SIDE: Final = 1200
_WORK_SIDE: Final = 2000
_QUALITY: Final = 90
_CACHE: Final = 128 << 20


class PictureCache:
    """JPEGs made on demand and kept in memory, the least recently shown ones leaving first; for any thread.

    Args:
        limit: bytes that are kept.
    """

    def __init__(self, limit: int = _CACHE) -> None:
        self._limit = limit
        self._kept: OrderedDict[object, bytes] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, key: object, read: Callable[[], Pixels], side: int) -> bytes:
        """Return a picture as JPEG.

        Args:
            key: of the picture.
            read: gives its pixels, where it is not kept.
            side: that it is reduced to if it is larger.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        encoded = _jpeg(read(), side)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = encoded
                self._size += len(encoded)
            while self._size > self._limit:
                self._size -= len(self._kept.popitem(last=False)[1])
        return encoded

    def face(self, item: int, read: Callable[[], Pixels]) -> bytes:
        """Return the face of an item."""
        return self.get(("face", item), read, _FACE_SIDE)

    def work(self, path: Path) -> bytes:
        """Return a whole work; InputError if its file cannot be read."""
        return self.get(("work", path), lambda: _file(path), _WORK_SIDE)


def _file(path: Path) -> Pixels:
    try:
        return decode_image(path.read_bytes())
    except (ImageError, OSError) as error:
        raise InputError(f'the picture "{path}" of a work cannot be read ({error}); mend it or leave it out') from error


def _jpeg(pixels: Pixels, side: int) -> bytes:
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
