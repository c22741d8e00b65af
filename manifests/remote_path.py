"""Files and folders behind URLs, with those methods of ``pathlib.Path`` that the readers of catalogues use."""

import os
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Final

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from manifests.errors import InputError, RunError
from manifests.object_store import open_store
from manifests.redaction import redact

_URL = re.compile(r"(?i)([a-z][a-z0-9+.-]+::)*[a-z][a-z0-9+.-]+://")  # one letter would be a drive
_WITH_QUERY: Final = ("http://", "https://")  # elsewhere a question mark is a part of names


def is_url(place: str | os.PathLike[str]) -> bool:
    """Whether this is an address for fsspec rather than a local path."""
    return _URL.match(os.fspath(place)) is not None


def joined(address: str, relative: str) -> str:
    """Return the URL, or path in a file system, of something below a folder; a query stays at the end."""
    start, query, chain = _parts(address)
    return f"{start.rstrip('/')}/{relative}{query}{chain}"


def _parts(address: str) -> tuple[str, str, str]:
    """Cut an address behind its path: what names the place, the query, and the links of a chain that follow.

    ``simplecache::s3://bucket/x`` names a place by its second link, ``zip://x::s3://bucket/a.zip`` by its first.
    """
    scheme = address.find("://")
    end = address.find("::", scheme) if scheme >= 0 else -1
    first, chain = (address, "") if end < 0 else (address[:end], address[end:])
    if not first.rpartition("::")[2].startswith(_WITH_QUERY):
        return first, "", chain
    start, mark, query = first.partition("?")
    return start, mark + query, chain


class RemoteTree:
    """The files below one folder, listed once, when they are first asked for."""

    def __init__(self, store: AbstractFileSystem, root: str) -> None:
        self._store = store
        self.root = root

    def relative(self, path: str) -> str | None:
        """Return a path relative to the root ("" is the root); None for one outside."""
        if path == self.root:
            return ""
        return path[len(self.root) + 1 :] if path.startswith(f"{self.root}/") else None

    @cached_property
    def files(self) -> Mapping[str, int]:
        """Size in bytes (-1 unknown) by path relative to the root, in the order of the paths; OSError."""
        sizes: dict[str, int] = {}
        for path, info in sorted(self._store.find(self.root, detail=True).items()):
            name = self.relative(path)
            # Stores mark folders by objects without content whose names end in a slash.
            if name and not name.endswith("/") and info["type"] == "file":
                sizes[name] = -1 if info.get("size") is None else int(info["size"])
        return sizes

    @cached_property
    def folders(self) -> frozenset[str]:
        """Every folder that holds a file somewhere below, relative to the root; OSError."""
        found: set[str] = set()
        for name in self.files:
            while name and (name := name.rpartition("/")[0]) not in found:
                found.add(name)
        return frozenset(found)


class RemotePath:
    """A file or folder behind a URL; as text it is the address without credentials.

    The files below the first folder that was asked about are listed at once, and everything within answered from it.
    OSErrors of the store are told as RunError: a catalogue is read before the work begins, and by nobody who could go
    on without it.
    """

    def __init__(self, url: str, tree: RemoteTree | None = None) -> None:
        self.url = url
        start, query, chain = _parts(url)
        self._start, self._end = start.rstrip("/"), query + chain
        self._tree = tree

    def __str__(self) -> str:
        return redact(self.url)

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and (self._start, self._end) == (other._start, other._end)

    def __hash__(self) -> int:
        return hash((self._start, self._end))

    def __truediv__(self, relative: str) -> "RemotePath":
        return RemotePath(joined(self.url, relative), self._tree)

    @property
    def name(self) -> str:
        """Last part of the path, without a query."""
        return self._start.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """What follows the last dot of the name, dot included."""
        return PurePosixPath(self.name).suffix

    @property
    def is_http(self) -> bool:
        """Whether the server knows no folders."""
        return self._start.rpartition("::")[2].startswith(_WITH_QUERY)

    @property
    def parent(self) -> "RemotePath":
        """The folder above; a bucket is its own."""
        above = self._start.rpartition("/")[0]
        return self if above.endswith(("/", ":")) or not above else RemotePath(above + self._end, self._tree)

    @cached_property
    def _opened(self) -> tuple[AbstractFileSystem, str]:
        try:
            store, path = open_store(self.url)
        except (ValueError, ImportError) as error:
            raise InputError(f"{self} cannot be opened: {redact(str(error))}") from None
        return store, path.rstrip("/")

    @cached_property
    def _type(self) -> str | None:
        store, path = self._opened
        relative = None if self._tree is None else self._tree.relative(path)
        try:
            if self._tree is None or relative is None:
                return str(store.info(path)["type"])
            if relative in self._tree.files:
                return "file"
            return "directory" if relative in self._tree.folders else None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unread(error) from None

    def exists(self) -> bool:
        """Whether there is a file, or a folder with something in it."""
        return self._type is not None

    def is_file(self) -> bool:
        """Whether there is a file."""
        return self._type == "file"

    def is_dir(self) -> bool:
        """Whether there is a folder with something in it."""
        return self._type == "directory"

    def size(self) -> int:
        """Return the size of a file in bytes; -1 unknown."""
        store, path = self._opened
        try:
            size = store.info(path).get("size")
        except OSError as error:
            raise self._unread(error) from None
        return -1 if size is None else int(size)

    def read_bytes(self) -> bytes:
        """Return the content of a file."""
        store, path = self._opened
        try:
            content: bytes = store.cat_file(path)
        except OSError as error:
            raise self._unread(error) from None
        return content

    def tree(self) -> "RemotePath":
        """Return the same folder, with everything below it listed at once when it is first asked for."""
        return RemotePath(self.url, RemoteTree(*self._opened))

    def files(self) -> dict[str, int]:
        """Return the size in bytes (-1 unknown) of every file below, by its posix path relative to here, sorted."""
        if self._tree is None:
            return self.tree().files()
        above = self._tree.relative(self._opened[1])
        if above is None:
            return self.tree().files()
        try:
            files = self._tree.files
        except OSError as error:
            raise self._unread(error) from None
        start = f"{above}/" if above else ""
        return {name[len(start) :]: size for name, size in files.items() if name.startswith(start)}

    def _unread(self, error: OSError) -> RunError | InputError:
        kind = InputError if isinstance(error, (FileNotFoundError, PermissionError)) else RunError
        return kind(f"{self} cannot be read: {error.strerror or redact(str(error))}")


Place = Path | RemotePath
"""Where a catalogue's parts lie: here, or behind a URL."""


def place_of(path: str | os.PathLike[str]) -> Place:
    """Return the place that a user has named, ``file://`` being local."""
    if not is_url(path):
        return Path(path)
    remote = RemotePath(os.fspath(path))
    store, local = remote._opened
    return Path(local) if isinstance(store, LocalFileSystem) else remote


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether there is something at a path or URL.

    Raises:
        InputError: the URL cannot be opened, or access is refused.
        RunError: the store does not answer.
    """
    return place_of(path).exists()


def lies_within(inner: str | os.PathLike[str], outer: str | os.PathLike[str]) -> bool:
    """Whether ``inner`` lies below the folder ``outer``, links followed; nothing is asked of a store.

    Raises:
        InputError: a URL cannot be opened.
    """
    below, above = place_of(inner), place_of(outer)
    if isinstance(below, Path) and isinstance(above, Path):
        folder = Path(os.path.realpath(above))
        return folder.is_dir() and folder in Path(os.path.realpath(below)).parents
    if isinstance(below, Path) or isinstance(above, Path):
        return False
    (store, path), (other_store, folder_path) = below._opened, above._opened
    return store.protocol == other_store.protocol and path.startswith(f"{folder_path}/")
