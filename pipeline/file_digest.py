"""The digest of a file's bytes."""

import hashlib
import os
from pathlib import Path


def file_digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 (hex) of a file's bytes; OSError."""
    with Path(path).expanduser().open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
