"""The two sides of a built run: its photographs, and its proxies."""

import numpy as np
import pyarrow as pa

from manifests import schema
from manifests.attributes import ATTRIBUTES
from manifests.image_source import ImageSource
from pipeline.retrieval.face_set import FACE_SET_SCHEMA, ID, IDENTITY, LOCATOR, SOURCE_ID, VERSION, FaceSet, Indices
from pipeline.training.run_faces import RunFaces


def photographs_of_run(faces: RunFaces, indices: Indices) -> FaceSet:
    """Return the photographs of some of a run's faces, fitted to the proxies' size as the engine fitted them.

    They are read when they are loaded: InputError then, if they are not where they were. Their locators and versions
    are empty, since only what the run was built from knows them; so they search and are searched in, but cannot be
    indexed, and `source` leads to the run, not to them.
    """
    wanted = np.asarray(indices, np.int64)
    empty = [""] * len(wanted)  # the catalogue that knows where they are is opened only when one is asked for
    table = _table(faces, wanted, locators=empty, versions=empty)
    source = ImageSource("folder", faces.url)
    return FaceSet(f"photographs of {faces.url}", table, source, faces.size, lambda at: faces.photographs(wanted[at]))


def proxies_of_run(faces: RunFaces, indices: Indices) -> FaceSet:
    """Return the accepted proxies of some of a run's faces; InputError for damage in the run."""
    wanted = np.asarray(indices, np.int64)
    table = _table(faces, wanted, locators=faces.locators(wanted), versions=faces.digests(wanted))
    source = ImageSource("parquet", faces.url)
    return FaceSet(f"proxies of {faces.url}", table, source, faces.size, lambda at: faces.proxies(wanted[at]))


def _table(faces: RunFaces, wanted: np.ndarray, *, locators: list[str], versions: list[str]) -> pa.Table:
    kept = faces.table.take(pa.array(wanted))
    bits = faces.attributes[wanted]
    columns = {
        ID: kept[schema.IMAGE_ID].cast(pa.string()),
        SOURCE_ID: kept[schema.SOURCE_ID].cast(pa.string()),
        IDENTITY: kept[schema.IDENTITY].cast(pa.string()),
        LOCATOR: pa.array(locators, pa.string()),
        VERSION: pa.array(versions, pa.string()),
    }
    columns |= {name: pa.array(bits[:, at] == 1, mask=bits[:, at] < 0) for at, name in enumerate(ATTRIBUTES)}
    return pa.table(columns).cast(FACE_SET_SCHEMA)
