"""Images inside a zip archive, read in place."""

import os
import threading
import zipfile
import zlib
from pathlib import Path

from manifests.errors import InputError
from manifests.image_files import IMAGE_SUFFIXES, ImageListing, check_locator, listing_table

_ENCRYPTED = 0x1


class _Archive:
    """An archive opened at first use; one lock, because concurrent reads share the file position."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.zip: zipfile.ZipFile | None = None


# Keyed by process too: a forked child must neither share the parent's file position nor wait for its lock.
_ARCHIVES: dict[tuple[int, str], _Archive] = {}


def _open(path: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"The archive {path} has vanished.") from None
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a readable zip archive ({error}); download it again.") from error


def list_zip_images(path: Path) -> ImageListing:
    """List the image members of an archive from its central directory, in archive order.

    Folders, hidden files and ``__MACOSX`` are ignored.

    Raises:
        InputError: not a zip archive, encrypted, or a member's name leaves the archive.
    """
    locators: list[str] = []
    sizes: list[int] = []
    with _open(str(path)) as archive:
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
    """Return the encoded bytes of one member of the archive ``root``; safe to call from several threads.

    Raises:
        InputError: the locator leaves the archive, the member is encrypted or damaged, or the archive is no zip file.
        FileNotFoundError: the archive or the member has vanished.
    """
    check_locator(locator, root)
    entry = _ARCHIVES.setdefault((os.getpid(), root), _Archive())
    with entry.lock:
        if entry.zip is None:
            entry.zip = _open(root)
        try:
            info = entry.zip.getinfo(locator)
        except KeyError:
            raise FileNotFoundError(f"The image {locator!r} has vanished from {root}.") from None
        if info.flag_bits & _ENCRYPTED:
            raise InputError(f"{locator!r} in {root} is encrypted; unpack the archive with its password first.")
        try:
            return entry.zip.read(info)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise InputError(f"{locator!r} in {root} is damaged ({error}); download the archive again.") from error
