"""Reading a committed shard back, and replacing it by other rows of the same faces."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests import schema
from manifests.attributes import ATTRIBUTES
from manifests.errors import RunError
from manifests.redo_log import Rewrite, redo, version, write_log
from manifests.run import JOURNAL_FOLDER, RunDirectory
from manifests.schema import ACCEPTED, MANIFEST_SCHEMA
from manifests.shard import AttemptRecord, ShardName, ShardRow, data_file, manifest_file


class ShardChanged(RunError):  # noqa: N818  # says what happened
    """The shard is not what it was when it was read: another command has rewritten or removed it meanwhile."""


@dataclass(frozen=True)
class CommittedShard:
    """A committed shard as it was read.

    Attributes:
        name: of the shard.
        rows: all its faces in order, with the image bytes of the accepted ones.
        version: tells this content from any other (see `manifests.redo_log.version`).
    """

    name: ShardName
    rows: tuple[ShardRow, ...]
    version: str


def read_shard(run: RunDirectory, name: ShardName) -> CommittedShard:
    """Read a committed shard so that writing its rows again gives the same two files, byte for byte.

    Raises:
        RunError: it is not committed, or damaged: every image is compared with its digest in the manifest, so that a
            rewrite never makes damage look right.
        OSError: the storage does not answer.
    """
    with run.locked():  # not between the two files of a replacement
        try:
            manifest = run.fs.cat_file(run.path(name.manifest_file))
            data = run.fs.cat_file(run.path(name.data_file))
        except FileNotFoundError as error:
            raise RunError(f'shard {name} of "{run.url}" is not committed; run the build first') from error
    try:
        return CommittedShard(name, tuple(_rows(name, _table(manifest), _table(data))), version(manifest))
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise RunError(f'shard {name} of "{run.url}" is damaged ({error}); run stylize verify') from error


def replace_shard(run: RunDirectory, shard: CommittedShard, rows: Sequence[ShardRow]) -> None:
    """Replace a committed shard by other rows of the same faces: whatever happens, the old or the new one is there.

    A crash on the way may leave the new data file beside the old manifest; opening the run (`RunDirectory.open` or
    `find`) then brings the new manifest in place before anything is read. Of two that rewrite the same shard at once,
    one wins and the other is told; on an object store, which has no locks, that is so unless both write in the same
    moment, and the shard is whole even then.

    Args:
        run: the run.
        shard: what is to be replaced, as `read_shard` returned it.
        rows: the new rows, of the same faces in the same order.

    Raises:
        ShardChanged: the shard is not what was read; nothing is written.
        ValueError: rows that contradict themselves, or of other faces; nothing is written.
        OSError: the run cannot be written. The old shard is there, or the new one will be when the run is opened.
    """
    if [row.image_id for row in rows] != [row.image_id for row in shard.rows]:
        raise ValueError(f"shard {shard.name} can only be rewritten with the same faces in the same order")
    data, manifest = data_file(shard.name, rows), manifest_file(shard.name, rows)
    journal = run.path(JOURNAL_FOLDER)
    with run.locked():
        run.repair()
        try:
            current = version(run.fs.cat_file(run.path(shard.name.manifest_file)))
        except FileNotFoundError:
            current = ""
        if current != shard.version:
            raise ShardChanged(f'shard {shard.name} of "{run.url}" has been changed by another command meanwhile')
        write_log(run.fs, journal, Rewrite(shard.name, shard.version, data, manifest))
        redo(run.fs, run.root, journal, shard.name)


def _table(content: bytes) -> pa.Table:
    with pq.ParquetFile(pa.BufferReader(content)) as file:
        table = file.read(use_threads=False)
    table.validate(full=True)  # text that is not UTF-8, first of all
    return table


def _rows(name: ShardName, manifest: pa.Table, data: pa.Table) -> list[ShardRow]:
    # Chunk by chunk in Python: a shard is a few hundred rows, and its pictures are not copied once more.
    images = data[schema.IMAGE].to_pylist()
    rows = [_row(name, fields, images) for fields in manifest.select(MANIFEST_SCHEMA.names).to_pylist()]
    accepted = sum(row.status == ACCEPTED for row in rows)
    if accepted != len(images):
        raise ValueError(f"{len(images)} images for {accepted} accepted faces")
    return rows


def _row(name: ShardName, fields: Mapping[str, Any], images: Sequence[Mapping[str, Any]]) -> ShardRow:
    image, suffix = None, None
    if fields[schema.STATUS] == ACCEPTED:
        position = fields[schema.DATA_ROW]
        if fields[schema.DATA_FILE] != name.data_file or not 0 <= position < len(images):
            raise ValueError(f"the image of '{fields[schema.IMAGE_ID]}' is not in {name.data_file}")
        image, path = images[position][schema.IMAGE_BYTES], images[position][schema.IMAGE_PATH]
        if image is None or hashlib.sha256(image).hexdigest() != fields[schema.SHA256]:
            raise ValueError(f"the image of '{fields[schema.IMAGE_ID]}' has another digest than its manifest says")
        suffix = PurePosixPath(path).suffix
    plain = {column: fields[column] for column in _PLAIN}
    return ShardRow(
        **plain,
        attributes=tuple(fields[column] for column in ATTRIBUTES),
        attempts=tuple(_attempt(attempt) for attempt in fields[schema.ATTEMPTS]),
        image=image,
        image_suffix=suffix,
    )


_PLAIN = tuple(
    column
    for column in MANIFEST_SCHEMA.names
    if column not in ATTRIBUTES and column not in (schema.ATTEMPTS, schema.SHA256, schema.DATA_FILE, schema.DATA_ROW)
)


def _attempt(fields: Mapping[str, Any]) -> AttemptRecord:
    losses = fields[schema.STYLE_LOSSES]
    return AttemptRecord(**{**fields, schema.STYLE_LOSSES: None if losses is None else tuple(losses)})
