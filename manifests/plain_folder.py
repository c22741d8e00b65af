"""Faces of a plain folder of pictures, without labels."""

import pyarrow as pa

from manifests.errors import InputError
from manifests.face_rows import FaceRows
from manifests.image_files import list_image_files
from manifests.image_source import ImageSource
from manifests.remote_path import Place


def read_plain_folder(path: Place) -> FaceRows:
    """Read every image file below ``path``; ``image_id`` is its posix path relative to ``path``.

    Our choice: every face is in split "train", and identity and attributes are null even where sub-folders look like
    people: guessing identities from folder names would make labels that nobody gave.

    Raises:
        InputError: the folder cannot be read or holds no images.
        RunError: a store does not answer.
    """
    listing = list_image_files(path, recursive=True)
    if listing.table.num_rows == 0:
        raise InputError(
            f"{path} holds no images (jpg, png, webp, bmp, tiff), no Parquet files and no Celeb-A copy; "
            "give a folder that does." + "".join(f" {problem}" for problem in listing.problems)
        )
    table = listing.table.append_column("image_id", listing.table["locator"])
    table = table.append_column("split", pa.repeat(pa.scalar("train"), table.num_rows))
    note = f"{path} is a plain folder of images: every face is in split train, without identity and attributes."
    return FaceRows(table, ImageSource.at("folder", path), "folder", listing.problems, (note,))
