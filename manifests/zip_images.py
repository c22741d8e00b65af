"""Images inside a zip archive, read in place.

Nothing is ever unpacked to disk, so that no name can write outside a folder; names that would, are refused all the
same, for whoever made them means harm. A member is unpacked up to the size that it declares and no further.
"""

import errno
import os
import re
import stat
import struct
import threading
import zipfile
import zlib

from manifests.disagreement import disagreement
from manifests.errors import InputError, RunError
from manifests.image_files import IMAGE_SUFFIXES, ImageListing, check_image_bytes, check_locator, listing_table
from manifests.object_store import open_store
from manifests.redaction import redact
from manifests.remote_file import RemoteFile
from manifests.remote_path import Place, RemotePath, is_url

_ENCRYPTED = 0x1
_LOCAL_HEADER = 30  # bytes in front of a member's name
_EXTRA = 1024  # and behind it, up to 64 KB; more than this costs another range

# ".." between slashes of either kind, a slash or a drive in front: on Windows backslashes part folders, too.
_LEADS_OUT = re.compile(r"(?:^|[/\\])\.\.(?:[/\\]|$)|^[/\\]|^[A-Za-z]:[/\\]")
# Of the others, which nobody packs images with, `zipfile` unpacks a block at once, and bzip2 holds gigabytes in one.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError, OverflowError)


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
    except (InputError, RunError):
        raise
    except _DAMAGE as error:
        raise InputError(f"{shown} is not a readable zip archive ({error}); download it again.") from error


def list_zip_images(path: Place) -> ImageListing:
    """List the image members of an archive from its central directory, in archive order.

    Folders, hidden files and ``__MACOSX`` are ignored. Links and other members that are no files are left out and
    reported. Of members with the same name, the last is read, as by any program that unpacks one after the other.

    Raises:
        InputError: not a zip archive, encrypted, packed by another method than deflate, or a member's name leaves the
            archive.
        RunError: a store does not answer.
    """
    locators: list[str] = []
    sizes: list[int] = []
    links: list[str] = []
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
            _check_name(name, str(path))
            if "/." in f"/{name}" or name.startswith("__MACOSX/"):
                continue
            if info.flag_bits & _ENCRYPTED:
                raise InputError(f"{path} is encrypted (first at {name!r}); unpack it with its password first.")
            if info.compress_type not in _METHODS:
                raise InputError(f"{path} is packed by an unusual method (first at {name!r}); pack it with deflate.")
            if not _is_file(info):
                links.append(name)
                continue
            locators.append(name)
            sizes.append(info.file_size)
    problems: tuple[str, ...] = ()
    if links:
        names = listing_table(links, [0] * len(links), str(path))["locator"].combine_chunks()
        one = f"image in {path} is a link or no file, and is left out; pack the file itself"
        many = f"images in {path} are links or no files, and are left out; pack the files themselves"
        problems = (disagreement(names, one, many),)
    return ImageListing(listing_table(locators, sizes, str(path)), problems)


def _check_name(name: str, where: str) -> None:
    if _LEADS_OUT.search(name):
        raise InputError(f"The image locator {name!r} leaves its root {where}; use an archive without such names.")


def _is_file(info: zipfile.ZipInfo) -> bool:
    """Say whether a member is an ordinary file; the upper half of its attributes is Unix's mode, or nothing."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    return kind in (0, stat.S_IFREG)


def read_zip_image(root: str, locator: str) -> bytes:
    """Return the encoded bytes of one member of the archive ``root``, a path or URL; safe to call from several threads.

    Raises:
        InputError: the locator leaves the archive, the member is encrypted, damaged, a link, too large or packed by
            another method than deflate, or the archive is no zip file.
        FileNotFoundError: the archive or the member has vanished.
        OSError: it cannot be read; behind a URL EIO.
    """
    shown = redact(root) if is_url(root) else root
    check_locator(locator, shown)
    _check_name(locator, shown)
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
    if info.compress_type not in _METHODS or not _is_file(info):
        raise InputError(
            f"{locator!r} in {shown} is a link, or packed by an unusual method; pack the file with deflate."
        )
    check_image_bytes(info.file_size, locator, shown)
    if entry.remote is not None:
        content = info.header_offset + _LOCAL_HEADER + len(info.orig_filename.encode()) + _EXTRA
        entry.remote.prefetch(info.header_offset, content + info.compress_size)
    try:
        with entry.zip.open(info) as member:
            # Not read(): that unpacks two gigabytes at a time, whatever is declared. One more, for the checksum.
            return member.read(info.file_size + 1)
    except (InputError, RunError):
        raise
    except _DAMAGE as error:
        raise InputError(f"{locator!r} in {shown} is damaged ({error}); download the archive again.") from error
