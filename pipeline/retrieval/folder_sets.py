"""Sets of faces from what `stylize build` takes as faces: a Celeb-A copy, Parquet files, any folder of pictures."""

import hashlib
import os

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.attributes import ATTRIBUTES
from manifests.errors import InputError
from manifests.faces import FaceCatalogue, read_faces
from manifests.run import RunDirectory
from pipeline.faces.extraction_folder import crops_of
from pipeline.retrieval.face_files import CELEBA_SIZE, face_set
from pipeline.retrieval.face_set import ID, IDENTITY, LOCATOR, SOURCE_ID, VERSION, FaceSet


def faces_of_folder(place: str | os.PathLike[str], *, size: tuple[int, int] = CELEBA_SIZE) -> FaceSet:
    """Return all faces that `manifests.faces.read_faces` finds, in its order; those of Parquet as they are stored.

    `id` and `source_id` are the image_id: a Celeb-A copy's photographs know their own proxies in a run that was made of
    it. `version` is the file's size in bytes; of Parquet, where sizes are not known, the SHA-256 of the encoded
    picture, for which every picture is read once, here. Identities and attributes are those of the catalogue. What
    the catalogue leaves out (`FaceCatalogue.problems`) is left out here.

    Args:
        place: a folder, ``img_align_celeba.zip`` or Parquet, as `read_faces` takes them; or what `stylize faces` wrote.
        size: width and height in pixels; pictures are scaled to cover it and cut evenly.

    Raises:
        InputError: nothing usable there, a built run, or a Parquet file without the pictures' bytes. On loading: a
            picture that cannot be read or whose shorter side is under 32 pixels.
    """
    if os.path.isdir(place) and RunDirectory.exists(place):
        raise InputError(
            f'"{os.fspath(place)}" is a built run, not a folder of faces; give it where a run is asked for'
        )
    catalogue = read_faces(crops_of(place))
    table = catalogue.table
    if catalogue.source.kind == "parquet":
        table = table.take(_storage_order(table[LOCATOR].to_pylist()))
        versions = pa.chunked_array([_digests(catalogue, table[LOCATOR].to_pylist())])
    else:
        versions = table["size"].cast(pa.string())
    columns = {
        ID: table["image_id"],
        SOURCE_ID: table["image_id"],
        IDENTITY: table["identity"].cast(pa.string()),
        LOCATOR: table[LOCATOR],
        VERSION: versions,
    }
    columns |= {name: table[name] for name in ATTRIBUTES}
    return face_set(f"faces of {os.fspath(place)}", columns, catalogue.source, size)


def _storage_order(locators: list[str]) -> pa.Array:
    """Indices in the order of files, row groups and rows: any other reads row groups again and again."""
    files, groups, rows = zip(*(locator.rsplit("#", 2) for locator in locators), strict=True)
    keys = pa.table({"file": pa.array(files), "group": np.array(groups, np.int64), "row": np.array(rows, np.int64)})
    return pc.sort_indices(keys, [(name, "ascending") for name in keys.column_names])


def _digests(catalogue: FaceCatalogue, locators: list[str]) -> pa.Array:
    try:
        return pa.array(hashlib.sha256(catalogue.source.read(locator)).hexdigest() for locator in locators)
    except OSError as error:
        raise InputError(f'"{catalogue.source.root}" cannot be read: {error}') from error
