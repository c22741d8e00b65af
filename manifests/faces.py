"""The catalogue of faces: one table of ids, labels and image locators, whatever layout the images come in."""

import os
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from manifests.catalogue_digest import catalogue_digest
from manifests.celeba import read_celeba
from manifests.celeba_annotations import SPLITS
from manifests.celeba_layout import find_celeba
from manifests.errors import InputError
from manifests.face_rows import FACE_SCHEMA, FaceRows
from manifests.image_source import ImageSource
from manifests.parquet_copy import find_parquet
from manifests.parquet_faces import read_parquet_faces
from manifests.plain_folder import read_plain_folder
from manifests.remote_path import Place, RemotePath, place_of


@dataclass(frozen=True)
class FaceCatalogue:
    """Every usable face of one input.

    Attributes:
        table: FACE_SCHEMA: ``image_id``, ``split`` ("train", "valid", "test"), ``identity`` (int64 or null), the 40
            attributes (bool or null), ``locator``, ``size`` (bytes, -1 unknown); one row per ``image_id``, sorted by
            split (train, valid, test), then by ``image_id`` (UTF-8 order).
        source: reads an image by its locator.
        layout: "celeba", "celeba-torchvision", "celeba-kaggle", "celeba-zip", "parquet" or "folder".
        problems: disagreements between the inputs: one sentence each, with a count and the first three offenders.
        digest: hex SHA-256 over the table (and the names and sizes of Parquet files); independent of the root path.
        notes: what the input does not tell and was filled in (no identity file, no partition); never an error.
    """

    table: pa.Table
    source: ImageSource
    layout: str
    problems: tuple[str, ...]
    digest: str
    notes: tuple[str, ...] = ()


def read_faces(path: str | os.PathLike[str], *, strict: bool = False) -> FaceCatalogue:
    """Read the catalogue of a folder, ``img_align_celeba.zip`` or Parquet file, here or behind an fsspec URL.

    Tried in this order: a Celeb-A copy (see ``find_celeba`` and ``read_celeba``), Parquet files (see
    ``read_parquet_faces``), any images (see ``read_plain_folder``).

    Args:
        path: the images' folder or the one above it, the archive, or the Parquet file or folder. Over http(s), which
            cannot list folders, one of the two files.
        strict: refuse inputs that disagree, instead of leaving out what does not fit.

    Raises:
        InputError: nothing usable there, a malformed annotation file, or (strict) any problem.
        RunError: a store does not answer.
    """
    rows = _read(place_of(path))
    if strict and rows.problems:
        raise InputError(" ".join(rows.problems))
    table = _completed(rows.table)
    digest = catalogue_digest(table, rows.files)
    return FaceCatalogue(table, rows.source, rows.layout, rows.problems, digest, rows.notes)


def _read(place: Place) -> FaceRows:
    if not place.exists():
        raise InputError(f"{place} does not exist; give a folder of faces, img_align_celeba.zip or Parquet files.")
    if isinstance(place, RemotePath) and place.is_dir():
        place = place.tree()
    if place.is_file() and place.suffix.lower() not in {".zip", ".parquet"}:
        raise InputError(f"{place} is a file that cannot hold faces; give a folder, a .zip or a .parquet file.")
    if place.suffix.lower() != ".parquet" or place.is_dir():
        layout = find_celeba(place)
        if layout is not None:
            return read_celeba(layout)
    files = find_parquet(place)
    return read_plain_folder(place) if files is None else read_parquet_faces(place, files)


def _completed(table: pa.Table) -> pa.Table:
    """Bring the columns into FACE_SCHEMA and the rows into catalogue order."""
    columns = [
        table[field.name] if field.name in table.column_names else pa.nulls(table.num_rows, field.type)
        for field in FACE_SCHEMA
    ]
    whole = pa.table(columns, schema=FACE_SCHEMA)
    order = pa.table({"split": pc.index_in(whole["split"], value_set=pa.array(SPLITS)), "image_id": whole["image_id"]})
    return whole.take(pc.sort_indices(order, [("split", "ascending"), ("image_id", "ascending")]))
