"""A lock between processes that share a folder, held for as long as its holder lives and no longer."""

import contextlib
import os
import sys
from collections.abc import Iterator

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem


@contextlib.contextmanager
def locked(fs: AbstractFileSystem, path: str) -> Iterator[None]:
    """Hold the lock of an existing file meanwhile, waiting for whoever has it; not to be nested.

    Advisory (flock): it keeps out those who ask for it, in other processes and threads, on other machines where the
    volume passes locks on. Where there are no locks (object stores, a file that may not be written, a volume without
    them) nothing is held and nothing is raised: callers must do no more harm then than two of them at once can.
    """
    if not isinstance(fs, LocalFileSystem) or sys.platform == "win32":
        yield
        return
    import fcntl  # noqa: PLC0415  # absent on Windows

    try:
        descriptor = os.open(path, os.O_RDWR)  # for writing, or NFS refuses an exclusive lock
    except OSError:
        yield
        return
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)  # and with it the lock
