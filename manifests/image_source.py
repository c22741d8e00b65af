"""Where a catalogue's images lie, and how one of them is read."""

import os
from dataclasses import dataclass, field
from typing import Literal, assert_never

from manifests.errors import InputError, RunError
from manifests.image_files import read_image_file
from manifests.parquet_images import read_parquet_image
from manifests.remote_path import Place, RemotePath, is_url
from manifests.zip_images import read_zip_image


@dataclass(frozen=True)
class ImageSource:
    """A folder, a zip archive or a folder of Parquet files that holds encoded images, here or behind a URL.

    Picklable and cheap: nothing is opened before the first ``read``; handles are cached per process (and per thread for
    Parquet), so that an instance may be sent to workers, forked and used from several threads. Workers open a URL by
    themselves, with the credentials that they have.

    Attributes:
        kind: "folder", "zip" or "parquet".
        root: absolute path, or URL without credentials, of the folder, of the archive, or of the folder that holds the
            Parquet files.
        address: the URL with the credentials that it was given with (a presigned query, a password), which travel with
            the instance but are neither shown nor stored; "" where ``root`` says it all.
    """

    kind: Literal["folder", "zip", "parquet"]
    root: str
    address: str = field(default="", repr=False)

    @classmethod
    def at(cls, kind: Literal["folder", "zip", "parquet"], place: Place) -> "ImageSource":
        """Return the source at a place; a relative path is made absolute."""
        if not isinstance(place, RemotePath):
            return cls(kind, os.path.abspath(place))
        shown = str(place)
        return cls(kind, shown, "" if shown == place.url else place.url)

    def unreachable(self) -> str | None:
        """Return why nothing can be read here (no such place, no access, no answer), in words; None if it can be.

        None also where the server cannot be asked: HTTP knows files only, and a folder of Parquet files is none.
        """
        try:
            if is_url(self.root):
                place = RemotePath(self.address or self.root)
                there = (place.is_http and self.kind == "parquet") or place.exists()
            else:
                there = os.path.exists(self.root)
        except (InputError, RunError) as error:
            return str(error)
        return None if there else f"there is nothing at {self.root}"

    def read(self, locator: str) -> bytes:
        """Return the encoded bytes of one image.

        Args:
            locator: folder: posix path relative to the root; zip: member name;
                parquet: ``file.parquet#row_group#row``, the file relative to the root, the row within its row group.

        Raises:
            InputError: the locator leaves the root (``..``, absolute, a link that leads out) or is malformed; or the
                archive, the Parquet file or the member is damaged or encrypted.
            FileNotFoundError: the file or member has vanished.
            OSError: it cannot be read. Behind a URL, EIO if it is the store that cannot be read, and not one object.
        """
        address = self.address or self.root
        if self.kind == "folder":
            return read_image_file(address, locator)
        if self.kind == "zip":
            return read_zip_image(address, locator)
        if self.kind == "parquet":
            return read_parquet_image(address, locator)
        assert_never(self.kind)
