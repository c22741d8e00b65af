"""Images inside a zip archive, read in place."""

import errno
import os
import threading
import zipfile
import zlib

from manifests.errors import InputError, RunError
from manifests.image_files import IMAGE_SUFFIXES, ImageListing, check_locator, listing_table
from manifests.object_store import open_store
from manifests.redaction import redact
from manifests.remote_file import RemoteFile
from manifests.remote_path import Place, RemotePath, is_url

_ENCRYPTED = 0x1
_LOCAL_HEADER = 30  # bytes in front of a member's name
_EXTRA = 1024  # and behind it, up to 64 KB; more than this costs another range


class _Archive:
    """An archive opened at first use; one lock, because concurrent reads share the file position."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.zip: zipfile.ZipFile | None = None
        self.remote: RemoteFile | None = None


# Keyed by process too: a forked child must neither share the parent's file position nor wait for its lock.
_ARCHIVES: dict[tuple[int, str], _Archive] = {}


def _open(address: str) -> tuple[zipfile.ZipFile, RemoteFile | None]:
    """Open an archive; over a network the central directory is read here, and members by ranges."""
    shown = redact(address)
    try:
        if not is_url(address):
            return zipfile.ZipFile(address), None
        remote = RemoteFile(*open_store(address))
        return zipfile.ZipFile(remote), remote
    except FileNotFoundError:
        raise FileNotFoundError(f"The archive {shown} has vanished.") from None
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        raise InputError(f"{shown} is not a readable zip archive ({error}); download it again.") from error


def list_zip_images(path: Place) -> ImageListing:
    """List the image members of an archive from its central directory, in archive order.

    Folders, hidden files and ``__MACOSX`` are ignored.

    Raises:
        InputError: not a zip archive, encrypted, or a member's name leaves the archive.
        RunError: a store does not answer.
    """
    locators: list[str] = []
    sizes: list[int] = []
    try:
        archive, _ = _open(path.url if isinstance(path, RemotePath) else str(path))
    except OSError as error:
        if isinstance(path, RemotePath):
            raise RunError(f"{path} cannot be read: {error.strerror or error}") from None
        raise
    with archive:
        for info in archive.infolist():
            name = info.filename
            if not name.lower().endswith(IMAGE_SUFFIXES):
                continue
            if ".." in name or name.startswith("/"):
                check_locator(name, str(path))
            if "/." in f"/{name}" or name.startswith("__MACOSX/"):
                continue
            if info.flag_bits & _ENCRYPTED:
                raise InputError(f"{path} is encrypted (first at {name!r}); unpack it with its password first.")
            locators.append(name)
            sizes.append(info.file_size)
    return ImageListing(listing_table(locators, sizes, str(path)))


def read_zip_image(root: str, locator: str) -> bytes:
    """Return the encoded bytes of one member of the archive ``root``, a path or URL; safe to call from several threads.

    Raises:
        InputError: the locator leaves the archive, the member is encrypted or damaged, or the archive is no zip file.
        FileNotFoundError: the archive or the member has vanished.
        OSError: it cannot be read; behind a URL EIO.
    """
    shown = redact(root) if is_url(root) else root
    check_locator(locator, shown)
    entry = _ARCHIVES.setdefault((os.getpid(), root), _Archive())
    try:
        with entry.lock:
            return _read_member(entry, root, locator, shown)
    except FileNotFoundError:
        raise
    except OSError as error:
        if is_url(root):  # what is wrong with the archive is no image's fault
            raise OSError(errno.EIO, error.strerror or str(error)) from None
        raise


def _read_member(entry: _Archive, root: str, locator: str, shown: str) -> bytes:
    if entry.zip is None:
        entry.zip, entry.remote = _open(root)
    try:
        info = entry.zip.getinfo(locator)
    except KeyError:
        raise FileNotFoundError(f"The image {locator!r} has vanished from {shown}.") from None
    if info.flag_bits & _ENCRYPTED:
        raise InputError(f"{locator!r} in {shown} is encrypted; unpack the archive with its password first.")
    if entry.remote is not None:
        content = info.header_offset + _LOCAL_HEADER + len(info.orig_filename.encode()) + _EXTRA
        entry.remote.prefetch(info.header_offset, content + info.compress_size)
    try:
        return entry.zip.read(info)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise InputError(f"{locator!r} in {shown} is damaged ({error}); download the archive again.") from error
