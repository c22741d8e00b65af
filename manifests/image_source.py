"""Where a catalogue's images lie, and how one of them is read."""

from dataclasses import dataclass
from typing import Literal, assert_never

from manifests.image_files import read_image_file
from manifests.parquet_images import read_parquet_image
from manifests.zip_images import read_zip_image


@dataclass(frozen=True)
class ImageSource:
    """A folder, a zip archive or a folder of Parquet files that holds encoded images.

    Picklable and cheap: nothing is opened before the first ``read``; handles are cached per process (and per thread for
    Parquet), so that an instance may be sent to workers, forked and used from several threads.

    Attributes:
        kind: "folder", "zip" or "parquet".
        root: absolute path of the folder, of the archive, or of the folder that holds the Parquet files.
    """

    kind: Literal["folder", "zip", "parquet"]
    root: str

    def read(self, locator: str) -> bytes:
        """Return the encoded bytes of one image.

        Args:
            locator: folder: posix path relative to the root; zip: member name;
                parquet: ``file.parquet#row_group#row``, the file relative to the root, the row within its row group.

        Raises:
            InputError: the locator leaves the root (``..``, absolute, a link that leads out) or is malformed; or the
                archive, the Parquet file or the member is damaged or encrypted.
            FileNotFoundError: the file or member has vanished.
            OSError: it cannot be read.
        """
        if self.kind == "folder":
            return read_image_file(self.root, locator)
        if self.kind == "zip":
            return read_zip_image(self.root, locator)
        if self.kind == "parquet":
            return read_parquet_image(self.root, locator)
        assert_never(self.kind)
