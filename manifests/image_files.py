"""Images that lie as files in a folder: listing and reading."""

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from manifests.disagreement import disagreement
from manifests.errors import InputError, RunError
from manifests.object_store import open_store
from manifests.redaction import redact
from manifests.remote_path import Place, RemotePath, is_url, joined

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")

MAX_IMAGE_BYTES = 640 * 1024 * 1024
"""No image file is larger: 64 Mi pixels, as many as are decoded, of 8 bytes each, unpacked, and room to spare."""


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


def list_image_files(folder: Place, *, recursive: bool) -> ImageListing:
    """List the image files of ``folder`` by suffix, in any case, sorted; hidden files and folders are ignored.

    ``folder`` itself may be a link: the user has named it. Within it, links to folders are not followed (they may form
    loops); links to files are, as long as they stay inside ``folder``. Links that lead out are left out and reported:
    ``ImageSource`` would refuse their images one by one. So are objects of a store whose names do the same. Pipes,
    sockets and devices are left out, too, whatever their names, and never opened.

    Raises:
        InputError: a folder cannot be read, or a file name is not UTF-8.
        RunError: a store does not answer.
    """
    if isinstance(folder, RemotePath):
        return _list_objects(folder, recursive=recursive)
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
                # Not the entry's own methods: they raise for a link that leads to itself.
                if recursive and entry.is_symlink() and os.path.isdir(entry.path):
                    linked_folders.append(prefix + name)
                    continue
                if not name.lower().endswith(IMAGE_SUFFIXES):
                    continue
                locator = prefix + name
                if entry.is_symlink() and not _is_inside(os.path.realpath(entry.path), real_folder):
                    bad_links.append(locator)
                    continue
                if os.path.isfile(entry.path):
                    locators.append(locator)
                    sizes.append(entry.stat().st_size)
                elif entry.is_symlink():
                    bad_links.append(locator)
    table = listing_table(locators, sizes, str(folder))
    problems = _link_problems(folder, bad_links, linked_folders)
    return ImageListing(table.take(pc.sort_indices(table["locator"])), problems)


def _list_objects(folder: RemotePath, *, recursive: bool) -> ImageListing:
    sizes: dict[str, int] = {}
    leading_out: list[str] = []
    for name, size in folder.files().items():
        parts = name.split("/")
        if not name.lower().endswith(IMAGE_SUFFIXES) or (len(parts) > 1 and not recursive):
            continue
        if ".." in parts or name.startswith("/"):
            leading_out.append(name)
        elif not any(part.startswith(".") or part == "__MACOSX" for part in parts):
            sizes[name] = size
    table = listing_table(list(sizes), list(sizes.values()), str(folder))
    problems: tuple[str, ...] = ()
    if leading_out:
        one = f"image has a name that leads out of {folder}, and is left out; rename it"
        many = f"images have names that lead out of {folder}, and are left out; rename them"
        problems = (disagreement(pa.array(leading_out), one, many),)
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
    """Return the encoded bytes of one image file below a folder or URL.

    Raises:
        InputError: the locator leaves the root, or names no file (a pipe would be waited for), or one over
            ``MAX_IMAGE_BYTES``.
        FileNotFoundError: the file has vanished.
        OSError: it cannot be read. Behind a URL, EIO if the whole store cannot be.
    """
    if is_url(root):
        return _read_object(root, locator)
    path = path_inside(locator, root)
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"The image {locator!r} in {root} is a pipe, a device or a folder; put a file there.")
        check_image_bytes(found.st_size, locator, root)
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise FileNotFoundError(f"The image {locator!r} has vanished from {root}.") from None


def check_image_bytes(size: int, locator: str, where: str) -> None:
    """Refuse to read an image file that fills the memory before its header could be looked at.

    Raises:
        InputError: it has more than ``MAX_IMAGE_BYTES``.
    """
    if size > MAX_IMAGE_BYTES:
        raise InputError(
            f"The image {locator!r} in {where} has {size / 1e6:,.0f} MB, "
            f"at most {MAX_IMAGE_BYTES / 1e6:,.0f} MB are read; save it smaller."
        )


def _read_object(address: str, locator: str) -> bytes:
    shown = redact(address)
    check_locator(locator, shown)
    store, folder = open_store(address)
    try:
        content: bytes = store.cat_file(joined(folder, locator))
    except FileNotFoundError:
        raise FileNotFoundError(f"The image {locator!r} has vanished from {shown}.") from None
    except OSError as error:
        # One object may be refused or have an impossible name. If the folder is, too, no image is to blame.
        if error.errno != errno.EIO and (reason := _unlistable(address)):
            raise OSError(errno.EIO, reason) from None
        raise
    return content


def _unlistable(address: str) -> str | None:
    try:
        RemotePath(address).exists()
    except (InputError, RunError) as error:
        return str(error)
    return None
