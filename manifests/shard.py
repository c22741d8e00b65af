"""Writing one shard: results of its faces → a data file and a manifest file, committed in this order."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from manifests import schema
from manifests.attributes import ATTRIBUTES
from manifests.image_files import IMAGE_SUFFIXES
from manifests.run import RunDirectory
from manifests.schema import ACCEPTED, DATA_SCHEMA, FAILED, MANIFEST_SCHEMA, STATUSES
from manifests.shard_name import ShardName

__all__ = ["AttemptRecord", "ShardName", "ShardRow", "data_file", "manifest_file", "write_shard"]

ROW_GROUP_ROWS: Final = 100
ROW_GROUP_BYTES: Final = 95_000_000
"""Image bytes per row group: Hugging Face's viewer and loaders want groups under 100 MB, scalars included."""

# About 1 MB of pictures to a page, so that the page index lets a reader fetch a few rows of a group.
_PAGE_ROWS = 10
_IMAGE_BYTES_COLUMN = f"{schema.IMAGE}.{schema.IMAGE_BYTES}"


@dataclass(frozen=True)
class AttemptRecord:
    """One painting tried for one face. Losses are in loss units; None where the attempt never got that far."""

    painting: str
    loss: float | None
    style_losses: tuple[float, ...] | None
    content_loss: float | None
    evaluations: int
    stop_reason: str
    error: str | None = None


@dataclass(frozen=True)
class ShardRow:
    """One input face and what became of it.

    ``attributes`` has 40 entries in the order of ``ATTRIBUTES`` (True, False, None = unknown). From ``painting`` to
    ``loss`` and from ``image`` to ``image_suffix`` (".png") the fields describe the accepted proxy: None for a face
    that is rejected or failed, whose story is in ``attempts`` and ``error``. ``image`` is the encoded picture as it is
    stored, ``width`` × ``height`` pixels.
    """

    image_id: str
    source_id: str
    split: str
    identity: int | None
    attributes: tuple[bool | None, ...]
    status: str
    convention: str
    precision: str
    attempts: tuple[AttemptRecord, ...] = ()
    error: str | None = None
    painting: str | None = None
    artist: str | None = None
    genre: str | None = None
    style: str | None = None
    loss: float | None = None
    image: bytes | None = None
    width: int | None = None
    height: int | None = None
    image_suffix: str | None = None


def write_shard(run: RunDirectory, name: ShardName, rows: Sequence[ShardRow]) -> None:
    """Commit one shard: the data file first, the manifest file last.

    Both files are built before anything is written, and depend on ``name`` and ``rows`` only, so that a second
    execution of the same shard replaces files by equal ones. Raises ValueError for inconsistent rows and OSError where
    the run cannot be written.
    """
    data, manifest = data_file(name, rows), manifest_file(name, rows)
    run.publish(name.data_file, data)
    run.publish(name.manifest_file, manifest)


def data_file(name: ShardName, rows: Sequence[ShardRow]) -> bytes:
    """Return the Parquet file of the accepted rows, in order; zero rows keep the numbering whole. ValueError."""
    _check(name, rows)
    accepted = [row for row in rows if row.status == ACCEPTED]
    columns: dict[str, list[Any]] = {column: [getattr(row, column) for row in accepted] for column in _PLAIN_DATA}
    columns |= _attribute_columns(accepted)
    columns[schema.IMAGE] = [
        {
            schema.IMAGE_BYTES: row.image,
            schema.IMAGE_PATH: _image_path(row),
        }
        for row in accepted
    ]
    table = pa.Table.from_pydict(columns, schema=DATA_SCHEMA)
    return _parquet(table, list(_row_group_sizes([len(row.image or b"") for row in accepted])))


def manifest_file(name: ShardName, rows: Sequence[ShardRow]) -> bytes:
    """Return the Parquet file with one row per face, in input order. ValueError."""
    _check(name, rows)
    columns: dict[str, list[Any]] = {column: [getattr(row, column) for row in rows] for column in _PLAIN_MANIFEST}
    columns |= _attribute_columns(rows)
    columns[schema.ATTEMPTS] = [[vars(attempt) for attempt in row.attempts] for row in rows]
    columns[schema.SHA256] = [None if row.image is None else hashlib.sha256(row.image).hexdigest() for row in rows]
    columns[schema.DATA_FILE] = [name.data_file if row.status == ACCEPTED else None for row in rows]
    columns[schema.DATA_ROW] = []
    accepted = 0
    for row in rows:
        columns[schema.DATA_ROW].append(accepted if row.status == ACCEPTED else None)
        accepted += row.status == ACCEPTED
    table = pa.Table.from_pydict(columns, schema=MANIFEST_SCHEMA)
    return _parquet(table, [ROW_GROUP_ROWS] * (-(-len(rows) // ROW_GROUP_ROWS)))


_PLAIN_DATA = tuple(name for name in DATA_SCHEMA.names if name not in ATTRIBUTES and name != schema.IMAGE)
_PLAIN_MANIFEST = tuple(
    name
    for name in MANIFEST_SCHEMA.names
    if name not in ATTRIBUTES and name not in (schema.ATTEMPTS, schema.SHA256, schema.DATA_FILE, schema.DATA_ROW)
)
_OF_THE_PROXY = ("painting", "artist", "genre", "style", "loss", "image", "width", "height", "image_suffix")
_NEEDED_OF_THE_PROXY = ("painting", "loss", "image", "width", "height", "image_suffix")


def _image_path(row: ShardRow) -> str:
    """Name the stored picture after its face: only an image's suffix is replaced, since other dots tell faces apart."""
    named = row.image_id.lower().endswith(IMAGE_SUFFIXES)
    stem = str(PurePosixPath(row.image_id).with_suffix("")) if named else row.image_id
    return stem + (row.image_suffix or "")


def _attribute_columns(rows: Sequence[ShardRow]) -> dict[str, list[Any]]:
    return {name: [row.attributes[position] for row in rows] for position, name in enumerate(ATTRIBUTES)}


def _row_group_sizes(image_bytes: Sequence[int]) -> Iterator[int]:
    rows = total = 0
    for size in image_bytes:
        if rows and (rows == ROW_GROUP_ROWS or total + size > ROW_GROUP_BYTES):
            yield rows
            rows = total = 0
        rows += 1
        total += size
    if rows:
        yield rows


def _parquet(table: pa.Table, row_groups: Sequence[int]) -> bytes:
    leaves = _leaf_columns(table.schema)
    scalars = [leaf for leaf in leaves if leaf != _IMAGE_BYTES_COLUMN]
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        table.schema,
        # Pictures are compressed already, and statistics of them would be pictures in the footer.
        compression={leaf: "zstd" if leaf in scalars else "none" for leaf in leaves},
        use_dictionary=scalars,
        write_statistics=scalars,
        write_page_index=True,
        write_batch_size=_PAGE_ROWS,
    ) as writer:
        start = 0
        for rows in row_groups:
            writer.write_table(table.slice(start, rows), row_group_size=rows)
            start += rows
    return bytes(sink.getvalue())


def _leaf_columns(table_schema: pa.Schema) -> list[str]:
    empty = pa.BufferOutputStream()
    pq.write_table(table_schema.empty_table(), empty)
    layout = pq.ParquetFile(pa.BufferReader(empty.getvalue())).schema
    return [layout.column(index).path for index in range(len(layout))]


def _check(name: ShardName, rows: Sequence[ShardRow]) -> None:
    seen: set[str] = set()
    for row in rows:
        problem = "its image_id comes twice" if row.image_id in seen else _inconsistency(name, row)
        if problem is not None:
            raise ValueError(f"shard {name}, face '{row.image_id}': {problem}")
        seen.add(row.image_id)


def _inconsistency(name: ShardName, row: ShardRow) -> str | None:
    if not row.image_id or not row.source_id:
        return "image_id and source_id must not be empty"
    if row.split != name.split:
        return f"its split is '{row.split}'"
    if row.status not in STATUSES:
        return f"unknown status '{row.status}'"
    if len(row.attributes) != len(ATTRIBUTES):
        return f"{len(row.attributes)} attributes, not {len(ATTRIBUTES)}"
    return _accepted_inconsistency(row) if row.status == ACCEPTED else _unaccepted_inconsistency(row)


def _unaccepted_inconsistency(row: ShardRow) -> str | None:
    present = [field for field in _OF_THE_PROXY if getattr(row, field) is not None]
    if present:
        return f"{row.status}, yet {', '.join(present)} given"
    if row.status == FAILED and not row.error:
        return "failed without an error"
    return None


def _accepted_inconsistency(row: ShardRow) -> str | None:
    absent = [field for field in _NEEDED_OF_THE_PROXY if not getattr(row, field) and field != "loss"]
    if absent:
        return f"accepted without {', '.join(absent)}"
    if row.loss is None or not math.isfinite(row.loss):
        return f"accepted with loss {row.loss}"
    if not row.attempts or (row.attempts[-1].painting, row.attempts[-1].loss) != (row.painting, row.loss):
        return "accepted, yet painting and loss are not those of the last attempt"
    return None
