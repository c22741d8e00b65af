"""The digest of a file of weights, by which a catalogue says what found its faces."""

import hashlib
import os
from pathlib import Path

from manifests.errors import InputError


def file_digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file, in hex; InputError if it cannot be read."""
    try:
        with Path(os.path.expanduser(path)).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f'weights "{os.fspath(path)}" cannot be read: {error.strerror or error}') from error
