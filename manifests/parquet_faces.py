"""Faces of a Hugging Face style Parquet copy."""

import re

import pyarrow as pa
import pyarrow.compute as pc

from manifests.attributes import ATTRIBUTES
from manifests.disagreement import without_duplicates
from manifests.errors import InputError
from manifests.face_rows import FaceRows
from manifests.parquet_copy import ParquetFiles, ParquetPart, open_parts
from manifests.remote_path import Place

_SPLITS = {
    "train": ("train", "training", "0"),
    "valid": ("valid", "validation", "val", "dev", "1"),
    "test": ("test", "testing", "2"),
}
_SPLIT_OF_WORD = {word: split for split, words in _SPLITS.items() for word in words}
_FILE_WORD = re.compile(r"(?:^|(?<=[-_./]))(train|training|validation|valid|val|dev|testing|test)(?=[-_./]|$)")
_IDENTITY_COLUMNS = ("celeb_id", "identity")


def read_parquet_faces(path: Place, files: ParquetFiles) -> FaceRows:
    """Read ids and labels of a Parquet copy; image bytes are not touched, so ``size`` is -1.

    ``image_id`` is the column of that name, else the file name in ``image.path``, else ``file:row`` (the Parquet
    file's name and the row in it). ``identity`` is the column ``celeb_id`` or ``identity``. Attributes are columns with
    Celeb-A's names, bool or integer (1 is true; 0 and -1 are false); those that are absent are null. ``split`` is the
    column of that name, else the word train, valid, validation or test in the file's path, else "train". Of duplicate
    ids the first counts, in the order of the files' names.

    Raises:
        InputError: no image column, an attribute, identity or split with an impossible value, or a damaged file.
    """
    tables = []
    columns: set[str] = set()
    for part in open_parts(path, files):
        tables.append(_read_part(part))
        columns.update(part.file.schema_arrow.names)
    table = pa.concat_tables(tables)
    problems: list[str] = []
    one = f"row in {path} repeats an earlier id and is left out"
    many = f"rows in {path} repeat an earlier id and are left out"
    table = without_duplicates(table, "image_id", one, many, problems)
    notes = []
    absent = [name for name in ATTRIBUTES if name not in columns]
    if absent:
        notes.append(f"{path} lacks {len(absent)} of the 40 attribute columns (first: {absent[0]}), so they are null.")
    if not columns.intersection(_IDENTITY_COLUMNS):
        notes.append(f"{path} has no column celeb_id, so every identity is null.")
    if "split" not in columns and not any(_split_of_name(name) for name in files.names):
        notes.append(f"{path} names no split, so every face is in split train.")
    named = tuple(zip(files.names, files.sizes, strict=True))
    return FaceRows(table, files.source, "parquet", tuple(problems), tuple(notes), named)


def _read_part(part: ParquetPart) -> pa.Table:
    columns = {
        "image_id": _image_ids(part),
        "split": _splits(part),
        "identity": _identities(part),
        "locator": part.locators(),
        "size": pa.repeat(pa.scalar(-1, pa.int64()), part.rows),
    }
    return pa.table(columns | {name: _attribute(part, name) for name in ATTRIBUTES})


def _image_ids(part: ParquetPart) -> pa.Array:
    ids = part.labels("image_id")
    names = pc.replace_substring_regex(part.image_paths(), r"^.*/", "")
    return pc.coalesce(*(() if ids is None else (ids,)), names, part.synthetic_ids())


def _split_of_name(name: str) -> str | None:
    words = _FILE_WORD.findall(name.lower().removesuffix(".parquet"))
    return _SPLIT_OF_WORD[words[-1]] if words else None


def _splits(part: ParquetPart) -> pa.Array:
    values = part.labels("split")
    if values is None:
        return pa.repeat(pa.scalar(_split_of_name(part.name) or "train"), part.rows)
    words = pa.array(list(_SPLIT_OF_WORD))
    found = pc.index_in(pc.utf8_lower(values), value_set=words)
    if found.null_count:
        row = pc.index(pc.is_null(found), True).as_py()
        raise InputError(
            f"{part.where} has the split {values[row].as_py()!r} in row {row}; expected train, valid(ation) or test."
        )
    return pa.array(list(_SPLIT_OF_WORD.values())).take(found)


def _identities(part: ParquetPart) -> pa.Array:
    name = next((name for name in _IDENTITY_COLUMNS if name in part.file.schema_arrow.names), None)
    if name is None:
        return pa.nulls(part.rows, pa.int64())
    values = part.column(name)
    try:
        return pc.cast(values, pa.int64())
    except pa.ArrowException:
        raise InputError(f"{part.where} has the column {name} with values that are no whole numbers.") from None


def _attribute(part: ParquetPart, name: str) -> pa.Array:
    values = part.column(name)
    if values is None:
        return pa.nulls(part.rows, pa.bool_())
    if pa.types.is_boolean(values.type):
        return values
    try:
        numbers = pc.cast(values, pa.int64())
    except pa.ArrowException:
        raise InputError(
            f"{part.where} has the attribute {name} as {values.type}; expected true/false, 1/0 or 1/-1."
        ) from None
    bad = pc.fill_null(pc.or_(pc.less(numbers, -1), pc.greater(numbers, 1)), False)
    row = pc.index(bad, True).as_py()
    if row >= 0:
        raise InputError(
            f"{part.where} has the value {numbers[row].as_py()} for {name} in row {row}; expected 1, 0 or -1."
        )
    return pc.equal(numbers, 1)
