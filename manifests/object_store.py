"""File systems behind URLs, made steady: with retries, plain OSErrors, no credentials in them, no stale listings."""

import os
from collections.abc import Callable
from typing import Any, Final, TypeVar
from urllib.parse import unquote

from fsspec import AbstractFileSystem
from fsspec.asyn import AsyncFileSystem
from fsspec.config import conf
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from manifests.redaction import remember
from manifests.remote_file import RemoteFile
from manifests.store_retry import steadily

Answer = TypeVar("Answer")

SILENCE: Final = 30.0
"""Seconds in which a transfer of nothing must be over, and"""
LEAST_RATE: Final = 250_000
"""bytes per second beyond that. Not every client has a limit of its own: s3fs waits for ever for a server that has
accepted a connection and does not say that the upload may begin."""

_S3: Final = ("s3", "s3a")
# s3fs tries lost connections five times by itself; botocore's own five tries within each of them would make a stalled
# server a matter of half an hour. With concurrency, every image would be asked for its size first.
_S3_OPTIONS: Final = {"config_kwargs": {"retries": {"total_max_attempts": 1}}, "max_concurrency": 1}
_WHOLE_FILE: Final = 100_000_000  # bytes; larger files are read in ranges
_PATTERN: Final = frozenset("*?[")


class ObjectStore(AbstractFileSystem):  # type: ignore[misc]
    """A file system behind fsspec with the same paths, whose failures are those of `manifests.store_retry.steadily`.

    Nothing is answered from an earlier listing: other machines write to the store meanwhile. Every file is read by
    ranges (`RemoteFile`). Picklable; not to be used by a child that was forked.
    """

    cachable = False

    def __init__(self, inner: AbstractFileSystem) -> None:
        super().__init__()
        self._inner = inner
        self.protocol = inner.protocol

    def _fresh(self, path: str, operation: Callable[[], Answer]) -> Answer:
        def ask() -> Answer:
            self._inner.invalidate_cache(path)
            return operation()

        return steadily(ask)

    def _within(self, size: int) -> dict[str, float]:
        """Return the option that bounds the time of a transfer, for clients that can be bounded."""
        return {"timeout": SILENCE + size / LEAST_RATE} if isinstance(self._inner, AsyncFileSystem) else {}

    def invalidate_cache(self, path: str | None = None) -> None:
        """Forget listings; never needed."""
        self._inner.invalidate_cache(path)

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        """List one folder; FileNotFoundError where there is nothing."""
        return self._fresh(path, lambda: self._inner.ls(path, detail=detail, **kwargs))

    def find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, **_: Any
    ) -> Any:
        """List everything below a folder; empty where there is nothing."""
        try:
            return self._fresh(
                path, lambda: self._inner.find(path, maxdepth=maxdepth, withdirs=withdirs, detail=detail)
            )
        finally:
            self._inner.invalidate_cache(path)  # of hundreds of thousands of entries

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """Return size and type of a file or folder; FileNotFoundError."""
        found: dict[str, Any] = self._fresh(path, lambda: self._inner.info(path, **kwargs))
        return found

    def exists(self, path: str, **kwargs: Any) -> bool:
        """Whether there is a file or folder; unlike fsspec's own, raises where the store does not answer."""
        return self._type(path) is not None

    def isfile(self, path: str) -> bool:
        """Whether there is a file; raises where the store does not answer."""
        return self._type(path) == "file"

    def isdir(self, path: str) -> bool:
        """Whether there is a folder; raises where the store does not answer."""
        return self._type(path) == "directory"

    def _type(self, path: str) -> str | None:
        try:
            return str(self.info(path)["type"])
        except FileNotFoundError:
            return None

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """Return a file, or the bytes [start, end) of it, whole or not at all."""

        limit = self._within(_WHOLE_FILE if start is None or end is None else end - start)

        def ask() -> bytes:
            data: bytes = self._inner.cat_file(path, start=start, end=end, **limit, **kwargs)
            if start is not None and end is not None and len(data) < end - start:
                raise ConnectionError(f"{len(data)} of {end - start} bytes arrived")
            return data

        return steadily(ask)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        """Write a file by one put; FileExistsError where ``mode`` is "create" and there is one."""
        if mode != "overwrite":
            kwargs["mode"] = mode
        limit = self._within(len(value))
        steadily(lambda: self._inner.pipe_file(path, value, **limit, **kwargs))

    def rm_file(self, path: str) -> None:
        """Remove a file."""
        steadily(lambda: self._inner.rm_file(path))

    def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Remove a file, or a folder with everything in it; ``path`` is a name and no pattern."""
        if recursive and _PATTERN.intersection(path):  # which fsspec would take for one
            for file in [path] if self.isfile(path) else self.find(path):
                self.rm_file(file)
        else:
            self._fresh(path, lambda: self._inner.rm(path, recursive=recursive, maxdepth=maxdepth))

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        """Copy a file within the store."""
        steadily(lambda: self._inner.cp_file(path1, path2, **kwargs))

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        """Make a folder, where the store has such a thing."""
        steadily(lambda: self._inner.mkdir(path, create_parents=create_parents, **kwargs))

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Make a folder and those above it, where the store has such a thing."""
        steadily(lambda: self._inner.makedirs(path, exist_ok=exist_ok))

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        if mode != "rb":
            return steadily(lambda: self._inner.open(path, mode, **kwargs))
        return RemoteFile(self, path)


_STORES: dict[tuple[int, str], tuple[AbstractFileSystem, str]] = {}  # by process: a forked child needs its own


def open_store(url: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of a URL or local path, and the path in it; nothing is connected yet.

    Local ones are fsspec's own; all others are an `ObjectStore`, the same for the same URL within a process. A user and
    password in front of an S3 bucket are its key and secret. Other credentials come from where the store's package
    looks for them (environment, profile, fsspec's configuration), here and on every worker.

    Raises:
        ValueError: an unknown protocol, or a malformed URL.
        ImportError: the package for this protocol is not installed.
    """
    key = (os.getpid(), url)
    found = _STORES.get(key) or _open(url)
    if isinstance(found[0], ObjectStore):  # of local ones, a relative path may be another folder later
        _STORES[key] = found
    return found


def _open(url: str) -> tuple[AbstractFileSystem, str]:
    protocol, separator, rest = url.partition("://")
    options: dict[str, Any] = {}
    if separator and protocol.lower() in _S3 and "::" not in url:
        configured = {option for name in _S3 for option in conf.get(name, {})}
        options |= {option: value for option, value in _S3_OPTIONS.items() if option not in configured}
        user, at, place = rest.rpartition("@")
        if at and ":" in user and "/" not in user.split(":", 1)[0]:
            name, password = (unquote(part) for part in user.split(":", 1))
            remember(name, password)
            options |= {"key": name, "secret": password}
            url = f"{protocol}://{place}"
    fs, path = url_to_fs(url, **options)
    return (fs, path) if isinstance(fs, LocalFileSystem) else (ObjectStore(fs), path)
