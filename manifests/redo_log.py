"""Replacing both files of a committed shard as one: a redo log says what is to be there, until it is.

    OUT/journal/train-00000-of-00396.rewrite     both new files whole, and which manifest they replace

Published by the commit protocol *before* either file is touched, and removed when both are in place. A crash before
it is there leaves the old shard; afterwards whoever opens the run next copies the two files out of it once more, which
does no harm however often and however many do it: they all write the same bytes.
"""

import contextlib
import hashlib
from dataclasses import dataclass
from typing import Final

from fsspec import AbstractFileSystem

from manifests.commit import publish
from manifests.shard_name import ShardName

SUFFIX: Final = ".rewrite"

_MAGIC: Final = b"STYLR001"  # the last digits are the version of the form
_DIGEST_BYTES: Final = hashlib.sha256().digest_size
_LENGTH_BYTES: Final = 8


@dataclass(frozen=True)
class Rewrite:
    """What is to replace a committed shard.

    Attributes:
        name: of the shard.
        replaced: `version` of the manifest file that was read to make the new ones.
        data: the new data file.
        manifest: the new manifest file.
    """

    name: ShardName
    replaced: str
    data: bytes
    manifest: bytes


def version(manifest: bytes) -> str:
    """Return what tells one content of a shard from another: the SHA-256 (hex) of its manifest file.

    The manifest holds the digest of every image, so it stands for both files.
    """
    return hashlib.sha256(manifest).hexdigest()


def write_log(fs: AbstractFileSystem, journal: str, rewrite: Rewrite) -> None:
    """Write the log of a rewrite, which must then be brought to its end by `redo`; OSError."""
    payload = b"".join(
        (
            bytes.fromhex(rewrite.replaced),
            len(rewrite.data).to_bytes(_LENGTH_BYTES, "big"),
            rewrite.data,
            rewrite.manifest,
        )
    )
    publish(fs, _log_path(journal, rewrite.name), _seal(payload) + payload, journal=journal)


def logged(entries: list[str]) -> list[ShardName]:
    """Return the shards with a log among the names of the journal's entries."""
    names = (ShardName.parse(entry.removesuffix(SUFFIX)) for entry in entries if entry.endswith(SUFFIX))
    return [name for name in names if name is not None]


def redo(fs: AbstractFileSystem, root: str, journal: str, name: ShardName) -> None:
    """Bring the logged rewrite of a shard to its end, and remove the log.

    A log is of no effect, and removed, where the manifest is neither the one that it replaces nor its own: somebody
    has removed or replaced the shard since. One that is damaged or of another form is left for a person to look at.

    Args:
        fs: of the run.
        root: its folder.
        journal: its journal's folder.
        name: of the shard.

    Raises:
        OSError: the run cannot be written, or does not answer; the log stays.
    """
    try:
        rewrite = _parse(name, fs.cat_file(_log_path(journal, name)))
    except FileNotFoundError:  # another has done it meanwhile
        return
    if rewrite is None:
        return
    try:
        current = version(fs.cat_file(f"{root}/{name.manifest_file}"))
    except FileNotFoundError:
        current = ""
    if current in (rewrite.replaced, version(rewrite.manifest)):
        publish(fs, f"{root}/{name.data_file}", rewrite.data, journal=journal)
        publish(fs, f"{root}/{name.manifest_file}", rewrite.manifest, journal=journal)
    with contextlib.suppress(FileNotFoundError):
        fs.rm_file(_log_path(journal, name))


def _log_path(journal: str, name: ShardName) -> str:
    return f"{journal}/{name}{SUFFIX}"


def _seal(payload: bytes) -> bytes:
    return _MAGIC + hashlib.sha256(payload).digest()


def _parse(name: ShardName, log: bytes) -> Rewrite | None:
    head = len(_MAGIC) + _DIGEST_BYTES
    payload = log[head:]
    if log[:head] != _seal(payload):
        return None
    start = _DIGEST_BYTES + _LENGTH_BYTES
    end = start + int.from_bytes(payload[_DIGEST_BYTES:start], "big")
    return Rewrite(name, payload[:_DIGEST_BYTES].hex(), payload[start:end], payload[end:])
