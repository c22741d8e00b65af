"""Images that lie as files in a folder: listing and reading."""

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from manifests.disagreement import disagreement
from manifests.errors import InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class ImageListing:
    """Images of one folder or archive.

    ``table`` has the columns ``locator`` (string, posix path relative to the folder) and ``size`` (int64, bytes).
    """

    table: pa.Table
    problems: tuple[str, ...] = ()


def listing_table(locators: list[str], sizes: list[int], where: str) -> pa.Table:
    """Build the table of an ``ImageListing``.

    Raises:
        InputError: a name is not valid UTF-8.
    """
    try:
        names = pa.array(locators, pa.string())
    except UnicodeEncodeError:
        bad = next(name for name in locators if not _is_utf8(name))
        raise InputError(f"{where} holds the file name {bad!r}, which is not UTF-8; rename it.") from None
    return pa.table({"locator": names, "size": pa.array(sizes, pa.int64())})


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def list_image_files(folder: Path, *, recursive: bool) -> ImageListing:
    """List the image files of ``folder`` by suffix, in any case, sorted; hidden files and folders are ignored.

    Links to folders are not followed (they may form loops). Links to files are followed as long as they stay inside
    ``folder``. Links that lead out are left out and reported: ``ImageSource`` would refuse their images one by one.

    Raises:
        InputError: a folder cannot be read, or a file name is not UTF-8.
    """
    locators: list[str] = []
    sizes: list[int] = []
    bad_links: list[str] = []
    linked_folders: list[str] = []
    real_folder = os.path.realpath(folder)
    pending = [""]
    while pending:
        prefix = pending.pop()
        try:
            entries = os.scandir(os.path.join(folder, prefix))
        except OSError as error:
            raise InputError(f"The folder {error.filename} cannot be read: {error.strerror}.") from error
        with entries:
            for entry in entries:
                name = entry.name
                if name.startswith(".") or name == "__MACOSX":
                    continue
                if entry.is_dir(follow_symlinks=False):
                    if recursive:
                        pending.append(f"{prefix}{name}/")
                    continue
                if recursive and entry.is_symlink() and entry.is_dir():
                    linked_folders.append(prefix + name)
                    continue
                if not name.lower().endswith(IMAGE_SUFFIXES):
                    continue
                locator = prefix + name
                if entry.is_symlink() and not _is_inside(os.path.realpath(entry.path), real_folder):
                    bad_links.append(locator)
                    continue
                if entry.is_file():
                    locators.append(locator)
                    sizes.append(entry.stat().st_size)
                elif entry.is_symlink():
                    bad_links.append(locator)
    table = listing_table(locators, sizes, str(folder))
    problems = _link_problems(folder, bad_links, linked_folders)
    return ImageListing(table.take(pc.sort_indices(table["locator"])), problems)


def _link_problems(folder: Path, images: list[str], folders: list[str]) -> tuple[str, ...]:
    real_folder = os.path.realpath(folder)
    outside = [name for name in folders if not _is_inside(os.path.realpath(os.path.join(folder, name)), real_folder)]
    told = (
        (
            images,
            f"image is a link that leads out of {folder} or nowhere, and is left out; copy the file there",
            f"images are links that lead out of {folder} or nowhere, and are left out; copy the files there",
        ),
        (
            outside,
            f"folder is a link that leads out of {folder}, and is left out; move the folder there",
            f"folders are links that lead out of {folder}, and are left out; move the folders there",
        ),
    )
    return tuple(
        disagreement(listing_table(sorted(names), [0] * len(names), str(folder))["locator"].combine_chunks(), one, many)
        for names, one, many in told
        if names
    )


def check_locator(locator: str, root: str) -> None:
    """Refuse a locator that is empty, absolute or climbs out with ``..``.

    Raises:
        InputError: naming the locator and the root.
    """
    parts = PurePosixPath(locator)
    if not parts.parts or parts.is_absolute() or ".." in parts.parts or "\0" in locator:
        raise InputError(f"The image locator {locator!r} leaves its root {root}; use a path inside it.")


def path_inside(locator: str, root: str) -> str:
    """Return the real path of ``locator`` below ``root``.

    Raises:
        InputError: the locator leaves the root, by its text or through a link.
    """
    check_locator(locator, root)
    real = os.path.realpath(os.path.join(root, locator))
    if not _is_inside(real, os.path.realpath(root)):
        raise InputError(f"The image {locator!r} is a link that leads out of {root}; copy the file there.")
    return real


def _is_inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def read_image_file(root: str, locator: str) -> bytes:
    """Return the encoded bytes of one image file.

    Raises:
        InputError: the locator leaves the root.
        FileNotFoundError: the file has vanished.
        OSError: it cannot be read.
    """
    path = path_inside(locator, root)
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise FileNotFoundError(f"The image {locator!r} has vanished from {root}.") from None
