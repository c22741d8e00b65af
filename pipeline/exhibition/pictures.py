"""The collection's pictures as browsers show them: faces as stored, whole works where the museum has them."""

import hashlib
import io
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Jpeg:
    """A picture as browsers get it.

    Attributes:
        data: JPEG.
        digest: SHA-256 of it, hex.
    """

    data: bytes
    digest: str


class PictureCache:
    """JPEGs made on demand and kept in memory, the least recently shown ones leaving first; for any thread.

    One picture is decoded at a time: a whole work of 64 megapixels takes more than a gigabyte for a moment.

    Args:
        limit: bytes that are kept.
    """

    def __init__(self, limit: int = _CACHE) -> None:
        self._limit = limit
        self._kept: OrderedDict[object, Jpeg] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()
        self._decoding = threading.Lock()

    def get(self, key: object, read: Callable[[], Pixels], side: int) -> Jpeg:
        """Return a picture as JPEG.

        Args:
            key: of the picture.
            read: gives its pixels, where it is not kept.
            side: that it is reduced to if it is larger.
        """
        kept = self._find(key)
        if kept is not None:
            return kept
        with self._decoding:
            kept = self._find(key)  # others may have waited for the same picture
            if kept is not None:
                return kept
            made = _jpeg(read(), side)
            with self._lock:
                self._kept[key] = made
                self._size += len(made.data)
                while self._size > self._limit:
                    self._size -= len(self._kept.popitem(last=False)[1].data)
            return made

    def face(self, item: int, read: Callable[[], Pixels]) -> Jpeg:
        """Return the face of an item."""
        return self.get(("face", item), read, _FACE_SIDE)

    def work(self, path: Path) -> Jpeg:
        """Return a whole work; InputError if its file cannot be read."""
        return self.get(("work", path), lambda: _file(path), _WORK_SIDE)

    def _find(self, key: object) -> Jpeg | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)


def _file(path: Path) -> Pixels:
    try:
        return decode_image(path.read_bytes())
    except (ImageError, OSError) as error:
        raise InputError(f'the picture "{path}" of a work cannot be read ({error}); mend it or leave it out') from error


def _jpeg(pixels: Pixels, side: int) -> Jpeg:
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    data = buffer.getvalue()
    return Jpeg(data, hashlib.sha256(data).hexdigest())
