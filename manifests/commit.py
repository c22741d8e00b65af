"""The commit protocol: a file is published whole or not at all.

Local: unique temporary name in the run's journal (outside every glob), write, flush, fsync, rename, fsync of the
directory. Object stores: one put, which the store makes visible whole. Content depends on the run and the shard only,
so two workers that publish the same file do no harm.

A file system behind fsspec that is neither local nor an object store (SFTP, HDFS) has no atomic put; mount it instead.
"""

import contextlib
import errno
import os
import re
import uuid
from typing import Final

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_NO_DIRECTORY_FSYNC = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS}

TEMPORARY_NAME: Final = re.compile(r".+\.[0-9a-f]{32}\.tmp")
"""Names of files in flight. A folder that holds nothing else was left by a writer that died, not by a person."""


def publish(fs: AbstractFileSystem, path: str, data: bytes, *, journal: str, exclusive: bool = False) -> None:
    """Write ``data`` to ``path`` so that no reader ever sees part of it.

    ``path`` and ``journal`` (the folder for temporary files, on the same volume) are paths as ``fs`` has them; missing
    folders are made. ``exclusive`` refuses to replace: of several callers at once one wins, the others get
    FileExistsError. On any other failure (OSError) the old content of ``path``, or its absence, is untouched and the
    temporary file is gone.
    """
    if isinstance(fs, LocalFileSystem):
        _publish_local(path, data, journal=journal, exclusive=exclusive)
    elif exclusive:
        _put_exclusive(fs, path, data)
    else:
        fs.pipe_file(path, data)


def _publish_local(path: str, data: bytes, *, journal: str, exclusive: bool) -> None:
    folder = os.path.dirname(path)
    os.makedirs(journal, exist_ok=True)
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(journal, f"{os.path.basename(path)}.{uuid.uuid4().hex}.tmp")
    try:
        _write_durably(temporary, data)
        if exclusive:
            _link_exclusive(temporary, path, data)
        else:
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    _sync_directory(folder)


def _write_durably(path: str, data: bytes) -> None:
    # open() rather than tempfile: mkstemp's mode 0600 would survive the rename and hide the shard from colleagues.
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _link_exclusive(temporary: str, path: str, data: bytes) -> None:
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        # FAT and some network mounts. Still exclusive; only a crash in this moment could leave a torn file.
        _write_durably(path, data)


def _sync_directory(folder: str) -> None:
    if os.name == "nt":  # Windows cannot open a directory; NTFS journals the rename itself.
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_DIRECTORY_FSYNC:
            raise
    finally:
        os.close(descriptor)


def _put_exclusive(fs: AbstractFileSystem, path: str, data: bytes) -> None:
    if fs.exists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
    try:
        fs.pipe_file(path, data, mode="create")
    except TypeError:  # fsspec before 2024.10 has no conditional put; the check above must do.
        fs.pipe_file(path, data)
