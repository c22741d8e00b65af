"""A file behind a URL, read by random access: every read is one range, asked for again where it fails."""

import errno
import io
import os
from typing import Any

from fsspec import AbstractFileSystem


class RemoteFile(io.RawIOBase):
    """For readers that seek (zip archives, Parquet); one thread at a time.

    No read-ahead: readers that know what they want next say so by ``prefetch``.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: as `manifests.object_store.ObjectStore` raises it, also from reads.
    """

    def __init__(self, store: AbstractFileSystem, path: str) -> None:
        super().__init__()
        found = store.info(path)
        if found["type"] != "file":
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if found.get("size") is None:
            raise OSError(errno.EINVAL, "the server does not tell the size of the file; download it")
        self._store = store
        self._path = path
        self._size = int(found["size"])
        self._position = 0
        self._block_start = 0
        self._block = b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position, also behind the end; ValueError for one before the beginning."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"negative position {base + offset}")
        self._position = base + offset
        return self._position

    def prefetch(self, start: int, end: int) -> None:
        """Read [start, end) by one range; reads within it are answered from memory until the next call."""
        start, end = min(start, self._size), min(end, self._size)
        self._block = b""  # the old one must not stay in memory, nor be taken for the new one after a failure
        self._block = self._read(start, end)
        self._block_start = start

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` as far as the file goes."""
        view = memoryview(buffer).cast("B")
        start = self._position
        end = min(start + len(view), self._size)
        if start >= end:
            return 0
        if self._block_start <= start and end <= self._block_start + len(self._block):
            data = self._block[start - self._block_start : end - self._block_start]
        else:
            data = self._read(start, end)
        view[: len(data)] = data
        self._position = end
        return end - start

    def readall(self) -> bytes:
        """Read what is left, by one range."""
        data = self._read(self._position, self._size) if self._position < self._size else b""
        self._position += len(data)
        return data

    def _read(self, start: int, end: int) -> bytes:
        if start >= end:
            return b""
        data: bytes = self._store.cat_file(self._path, start=start, end=end)
        if len(data) > end - start:  # the whole file for every range of it
            raise OSError(errno.EINVAL, "the server does not serve ranges of a file; download it")
        return data
