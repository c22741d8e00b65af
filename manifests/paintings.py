"""The catalogue of paintings: one table of ids, artists, titles, genres, styles and image locators."""

import os
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from manifests.catalogue_digest import catalogue_digest
from manifests.disagreement import disagreement, without_duplicates
from manifests.errors import InputError
from manifests.image_files import list_image_files
from manifests.image_source import ImageSource
from manifests.painting_csv import LABELS, read_painting_csv
from manifests.parquet_copy import ParquetFiles, find_parquet, open_parts
from manifests.remote_path import Place, RemotePath, place_of
from manifests.zip_images import list_zip_images

PAINTING_SCHEMA = pa.schema(
    [
        pa.field("painting", pa.string(), nullable=False),
        *(pa.field(name, pa.string()) for name in LABELS),
        pa.field("locator", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
    ]
)


@dataclass(frozen=True)
class PaintingCatalogue:
    """Every painting of one input.

    Attributes:
        table: PAINTING_SCHEMA: ``painting`` (the id), ``artist``, ``title``, ``genre``, ``style`` (strings or null),
            ``locator``, ``size`` (bytes, -1 unknown); one row per id, sorted by id (UTF-8 order).
        source: reads an image by its locator.
        layout: "wikiart" (style folders), "flat", "zip" or "parquet".
        problems: disagreements between the inputs: one sentence each, with a count and the first three offenders.
        digest: hex SHA-256 over the table (and the names and sizes of Parquet files); independent of the root path.
    """

    table: pa.Table
    source: ImageSource
    layout: str
    problems: tuple[str, ...]
    digest: str


def read_paintings(
    path: str | os.PathLike[str], *, csv: str | os.PathLike[str] | None = None, strict: bool = False
) -> PaintingCatalogue:
    """Read the catalogue of a folder, zip archive or Parquet copy of paintings, here or behind an fsspec URL.

    In a folder or archive the id is the posix path ("Baroque/rembrandt_the-night-watch.jpg"), the style is the folder
    that holds the file, and the file name splits at its first underscore into artist and title, which stay spelt as
    they are ("vincent-van-gogh"); a name without underscore is all title. In a Parquet copy the labels are the columns
    ``artist``, ``title``, ``genre``, ``style`` (class labels by name), the id is the column ``painting``, else the path
    in the image struct, else ``file:row``.

    Args:
        path: folder, .zip or .parquet. Over http(s), which cannot list folders, one of the two files.
        csv: adds labels (see ``read_painting_csv``); its cells go before what folder, name or Parquet tell, except
            where they are empty. A key is an id, or a bare file name that only one painting has. A painting without a
            row is reported but stays: its pixels need no labels.
        strict: refuse inputs that disagree.

    Raises:
        InputError: nothing usable there, a malformed CSV, a damaged file, or (strict) any problem.
        RunError: a store does not answer.
    """
    place = place_of(path)
    if not place.exists():
        raise InputError(f"{place} does not exist; give a folder of paintings, a .zip or Parquet files.")
    if isinstance(place, RemotePath) and place.is_dir():
        place = place.tree()
    if place.is_file() and place.suffix.lower() not in {".zip", ".parquet"}:
        raise InputError(f"{place} is a file that cannot hold paintings; give a folder, a .zip or a .parquet file.")
    problems: list[str] = []
    files = None if place.is_file() and place.suffix.lower() == ".zip" else find_parquet(place)
    if files is None:
        table, source, layout = _read_files(place, problems)
    else:
        table, source, layout = _read_parquet(place, files), files.source, "parquet"
    table = _without_duplicates(table, str(place), problems)
    if csv is not None:
        table = _with_csv(table, place_of(csv), place, problems)
    if strict and problems:
        raise InputError(" ".join(problems))
    table = pa.table([table[field.name] for field in PAINTING_SCHEMA], schema=PAINTING_SCHEMA)
    table = table.take(pc.sort_indices(table, [("painting", "ascending")]))
    named = () if files is None else tuple(zip(files.names, files.sizes, strict=True))
    return PaintingCatalogue(table, source, layout, tuple(problems), catalogue_digest(table, named))


def _read_files(place: Place, problems: list[str]) -> tuple[pa.Table, ImageSource, str]:
    zipped = place.is_file()
    listing = list_zip_images(place) if zipped else list_image_files(place, recursive=True)
    problems += listing.problems
    if listing.table.num_rows == 0:
        told = "".join(f" {problem}" for problem in problems)
        raise InputError(
            f"{place} holds no paintings (jpg, png, webp, bmp, tiff or Parquet); give one that does.{told}"
        )
    ids = listing.table["locator"].combine_chunks()
    parts = pc.extract_regex(ids, r"(?s)^(?:.*/)?(?P<file>[^/]*)\.[^./]*$")
    stem = pc.struct_field(parts, "file")
    folder = pc.struct_field(pc.extract_regex(ids, r"(?s)^(?:.*/)?(?P<style>[^/]+)/[^/]*$"), "style")
    halves = pc.extract_regex(stem, r"(?s)^(?P<artist>[^_]+)_(?P<title>.+)$")
    table = pa.table(
        {
            "painting": ids,
            "artist": pc.struct_field(halves, "artist"),
            "title": pc.coalesce(pc.struct_field(halves, "title"), stem),
            "genre": pa.nulls(len(ids), pa.string()),
            "style": folder,
            "locator": ids,
            "size": listing.table["size"],
        }
    )
    source = ImageSource.at("zip" if zipped else "folder", place)
    return table, source, "zip" if zipped else "wikiart" if folder.null_count < len(ids) else "flat"


def _read_parquet(place: Place, files: ParquetFiles) -> pa.Table:
    tables = []
    for part in open_parts(place, files):
        ids = part.labels("painting")
        columns = {name: part.labels(name) for name in LABELS}
        tables.append(
            pa.table(
                {
                    "painting": pc.coalesce(*(() if ids is None else (ids,)), part.image_paths(), part.synthetic_ids()),
                    **{
                        name: pa.nulls(part.rows, pa.string()) if values is None else values
                        for name, values in columns.items()
                    },
                    "locator": part.locators(),
                    "size": pa.repeat(pa.scalar(-1, pa.int64()), part.rows),
                }
            )
        )
    return pa.concat_tables(tables)


def _without_duplicates(table: pa.Table, where: str, problems: list[str], key: str = "painting") -> pa.Table:
    one = f"row in {where} repeats an earlier painting and is left out"
    many = f"rows in {where} repeat an earlier painting and are left out"
    return without_duplicates(table, key, one, many, problems)


def _with_csv(table: pa.Table, path: Place, place: Place, problems: list[str]) -> pa.Table:
    rows = read_painting_csv(path)
    rows = rows.set_column(0, "key", pc.fill_null(rows["key"], ""))
    ids = table["painting"].combine_chunks()
    names = pc.replace_substring_regex(ids, r"(?s)^.*/", "")
    seen_once = pc.value_counts(names)
    unique = seen_once.field("values").filter(pc.equal(seen_once.field("counts"), 1))
    by_name = pc.if_else(pc.is_in(names, value_set=unique), names, None)
    # A bare file name means the painting whose id it is, else the only painting with that name.
    keys = rows["key"].combine_chunks()
    target = pc.coalesce(pc.index_in(keys, value_set=ids), pc.index_in(keys, value_set=by_name, skip_nulls=True))
    rows = rows.set_column(0, "key", pc.coalesce(ids.take(target), keys))
    stray = keys.filter(pc.is_null(target))
    if len(stray):
        problems.append(
            disagreement(
                stray,
                f"row in {path} names no painting in {place} and is left out",
                f"rows in {path} name no painting in {place} and are left out",
            )
        )
    rows = _without_duplicates(rows.filter(pc.is_valid(target)), str(path), problems, key="key")
    found = pc.index_in(ids, value_set=rows["key"].combine_chunks())
    missing = ids.filter(pc.is_null(found))
    if len(missing):
        problems.append(
            disagreement(
                missing,
                f"painting in {place} has no row in {path} and keeps the labels it has",
                f"paintings in {place} have no row in {path} and keep the labels they have",
            )
        )
    for name in LABELS:
        if name in rows.column_names:
            told = pc.coalesce(rows[name].take(found), table[name])
            table = table.set_column(table.column_names.index(name), name, told)
    return table
