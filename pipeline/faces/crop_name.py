"""The id of a face, which is the name of its crop."""

import hashlib
from typing import Final

_UNSAFE: Final = frozenset('<>:"|?*#\\')
_LONGEST: Final = 150  # bytes of a part of a path; file systems allow 255
_LONGEST_PATH: Final = 700


def face_id(painting: str, number: int, suffix: str) -> str:
    """Return the id of a face: the id of its picture, the face's number in it and the crop's suffix.

    "Baroque/rembrandt_night-watch.jpg", 2, "png" → "Baroque/rembrandt_night-watch.jpg.2.png". It is a relative posix
    path on every file system, never of a hidden file, and different for different pictures: where characters have to
    be replaced or names cut, a digest of the picture's id is added.

    Args:
        painting: id of the picture, any text.
        number: of the face, from 1.
        suffix: of the crop's format, without a dot.
    """
    parts = [_part(part) for part in painting.split("/") if part not in {"", ".", ".."}] or ["_"]
    path = "/".join(parts)
    if path != painting or len(path.encode()) > _LONGEST_PATH:
        digest = hashlib.sha256(painting.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        path = (path if len(path.encode()) <= _LONGEST_PATH else parts[-1]) + f".{digest}"
    return f"{path}.{number}.{suffix}"


def _part(text: str) -> str:
    safe = "".join("_" if letter in _UNSAFE or not letter.isprintable() else letter for letter in text).strip(" ")
    safe = "_" + safe[1:] if safe.startswith(".") else safe or "_"
    return safe.encode("utf-8", "replace")[:_LONGEST].decode("utf-8", "ignore")
