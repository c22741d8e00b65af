"""The page's own files: style, scripts, drawings."""

import hashlib
import threading
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple
from urllib.parse import quote

MEDIA_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
}


class StaticFile(NamedTuple):
    """A file: its bytes, their media type, and the beginning of their SHA-256."""

    data: bytes
    media_type: str
    digest: str


class StaticFiles:
    """Files of one folder, by their names in it; a file that has changed is read again.

    Args:
        folder: with the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, tuple[float, StaticFile]] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> StaticFile | None:
        """Return a file by its path in the folder; None if there is none, or it is of no known kind."""
        parts = PurePosixPath(name)
        media_type = MEDIA_TYPES.get(parts.suffix.lower())
        if media_type is None or parts.is_absolute() or any(part.startswith(".") for part in parts.parts):
            return None
        path = self._folder / parts
        try:
            changed = path.stat().st_mtime
            with self._lock:
                known = self._known.get(name)
                if known is None or known[0] != changed:
                    data = path.read_bytes()
                    known = changed, StaticFile(data, media_type, hashlib.sha256(data).hexdigest()[:16])
                    self._known[name] = known
                return known[1]
        except (OSError, ValueError):
            return None

    def address(self, name: str) -> str:
        """Return where the page finds a file; another one when its content is another. KeyError if there is none."""
        file = self.get(name)
        if file is None:
            raise KeyError(f"there is no static file {name}")
        return f"/static/{quote(name)}?v={file.digest}"
