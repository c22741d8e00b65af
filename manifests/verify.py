"""Whether a run on disk is whole: every digest, row count, schema and label, from storage alone."""

import hashlib
import io
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from manifests import schema
from manifests.errors import InputError
from manifests.run import JOURNAL_FOLDER, RUN_FILE, RunDirectory, open_filesystem
from manifests.schema import ACCEPTED, ACCEPTED_COLUMNS, DATA_SCHEMA, FAILED, MANIFEST_SCHEMA, SHARED_COLUMNS, STATUSES
from manifests.shard_name import DATA_FOLDER, MANIFEST_FOLDER, ShardName

RUN_KEYS: Final = (
    *("config", "fingerprint", "inputs", "weights", "objective", "versions"),
    *("shards", "shard_size"),
)
FINDINGS_PER_SHARD: Final = 20
"""A shard that is wrong throughout would otherwise bury the others."""

_NEEDED_WHEN_ACCEPTED = tuple(
    name for name in ACCEPTED_COLUMNS if name not in (schema.ARTIST, schema.GENRE, schema.STYLE)
)


@dataclass(frozen=True)
class Verification:
    """One sentence per finding, with file and row (from 0), and what was looked at: shards, faces, images."""

    findings: tuple[str, ...]
    counts: Mapping[str, int]

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return {"clean": self.clean, "counts": dict(self.counts), "findings": list(self.findings)}


def verify(
    url: str | os.PathLike[str],
    *,
    threads: int | None = None,
    on_shard: Callable[[ShardName], None] | None = None,
) -> Verification:
    """Check a run against its plan and itself.

    Per planned shard: both files there, schemas and footer features, one manifest row per face, data rows in step with
    the manifest on every shared column, SHA-256 of every image, and that it decodes to the recorded size. Over the run:
    run.json, no image_id twice, no other file in data/ or manifest/. Damage is a finding and never an exception;
    an unfinished run has a finding per missing shard. ``threads`` defaults to the cores, at most 8; ``on_shard`` is
    called from this thread as shards are done, in order. Raises InputError where there is no run at all.
    """
    fs, root, address = open_filesystem(url)
    if not fs.exists(f"{root}/{RUN_FILE}"):
        raise InputError(f"{address} has no {RUN_FILE}, so there is no run to verify; check the path")
    try:
        run = RunDirectory.open(url)
        planned = run.planned()
    except InputError as error:
        return Verification((f"{error}.",), {"shards": 0, "faces": 0, "images": 0})
    findings = [f"{RUN_FILE} lacks '{key}'." for key in RUN_KEYS if key not in run.content]
    findings += [
        f"{JOURNAL_FOLDER}/{name}.rewrite: the shard was being replaced when a command died; run stylize verify where "
        "the run may be written, and it is brought to its end."
        for name in run.half_replaced()
    ]
    findings += _unexpected(run, set(planned))
    counts = {"shards": 0, "faces": 0, "images": 0}
    first_seen: dict[str, str] = {}
    with warnings.catch_warnings(), ThreadPoolExecutor(threads or min(8, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore")  # Pillow's, of odd files; here, because filters are not per thread
        checks = pool.map(lambda item: _check_shard(run, item[0], len(item[1])), planned.items())
        for name, check in zip(planned, checks, strict=True):
            findings += check.capped()
            counts["shards"] += check.read
            counts["faces"] += len(check.image_ids)
            counts["images"] += check.images
            for row, image_id in enumerate(check.image_ids):
                here = f"{name.manifest_file}, row {row}"
                there = first_seen.setdefault(image_id, here)
                if there != here:
                    findings.append(f"{here}: '{image_id}' is also in {there}.")
            if on_shard is not None:
                on_shard(name)
    return Verification(tuple(findings), counts)


@dataclass
class _ShardCheck:
    """What the check of one shard found."""

    findings: list[str] = field(default_factory=list)
    image_ids: list[str] = field(default_factory=list)
    images: int = 0
    read: bool = False

    def capped(self) -> list[str]:
        more = len(self.findings) - FINDINGS_PER_SHARD
        if more <= 0:
            return self.findings
        file = self.findings[FINDINGS_PER_SHARD].split(",")[0]
        return [*self.findings[:FINDINGS_PER_SHARD], f"{file}: {more} more findings in this shard."]


def _unexpected(run: RunDirectory, planned: set[ShardName]) -> Iterator[str]:
    committed = run.committed()
    for folder in (DATA_FOLDER, MANIFEST_FOLDER):
        for entry in run.entries(folder):
            name = ShardName.parse(entry)
            if name is None or entry != f"{name}.parquet" or name not in planned:
                yield f"{folder}/{entry} is no shard of this run; move it away."
            elif folder == DATA_FOLDER and name not in committed:
                yield f"{folder}/{entry} has no manifest, so the shard is not committed; run the build again."


def _check_shard(run: RunDirectory, name: ShardName, faces: int) -> _ShardCheck:
    check = _ShardCheck()
    manifest = _read_whole(run, name.manifest_file, MANIFEST_SCHEMA, check)
    if manifest is not None:
        check.image_ids = manifest[schema.IMAGE_ID].to_pylist()
        check.findings += _manifest_findings(name, manifest, faces)
    data = _read_whole(run, name.data_file, DATA_SCHEMA, check, without=schema.IMAGE)
    if manifest is None or data is None:
        return check
    check.read = True
    rows_of = {row: position for position, row in enumerate(manifest[schema.DATA_ROW].to_pylist()) if row is not None}
    if len(rows_of) != data.num_rows:
        check.findings.append(f"{name.data_file} has {data.num_rows} rows and the manifest points to {len(rows_of)}.")
    positions = pa.array([rows_of.get(row) for row in range(data.num_rows)], pa.int64())
    expected = manifest.take(positions)
    check.findings += _label_findings(name, data, expected, positions)
    check.findings += _image_findings(run, name, expected, check)
    return check


def _read_whole(
    run: RunDirectory, relative: str, expected: pa.Schema, check: _ShardCheck, *, without: str | None = None
) -> pa.Table | None:
    # The manifest is the commit: as long as it is there, the build takes the shard for done.
    manifest = relative.replace(DATA_FOLDER, MANIFEST_FOLDER, 1)
    committed = run.fs.exists(run.path(manifest))
    remedy = f"delete {manifest} and run the build again" if committed else "run the build again"
    if not run.fs.exists(run.path(relative)):
        check.findings.append(f"{relative} is missing; {remedy}.")
        return None
    try:
        with run.parquet(relative) as file:
            found = file.schema_arrow
            if not found.equals(expected):
                check.findings.append(f"{relative} has other columns than this version of stylize writes.")
                return None
            if (found.metadata or {}).get(schema.HUGGINGFACE) != expected.metadata[schema.HUGGINGFACE]:
                check.findings.append(f"{relative} lacks the footer that tells Hugging Face its features.")
            table = file.read(columns=[column for column in expected.names if column != without], use_threads=False)
            table.validate(full=True)  # text that is not UTF-8 would raise later, and without the file's name
            return table
    except Exception as error:  # a damaged file may raise anything; it is a finding whatever it raises
        check.findings.append(f"{relative} cannot be read ({_one_line(error)}); {remedy}.")
        return None


def _manifest_findings(name: ShardName, manifest: pa.Table, faces: int) -> Iterator[str]:
    file = name.manifest_file
    if manifest.num_rows != faces:
        yield f"{file} has {manifest.num_rows} rows and the plan {faces} faces."
    columns = (schema.STATUS, schema.SPLIT, schema.ERROR, *ACCEPTED_COLUMNS)
    accepted = 0
    for position, row in enumerate(manifest.select(list(columns)).to_pylist()):
        where = f"{file}, row {position}"
        if row[schema.SPLIT] != name.split:
            yield f"{where}: split is {row[schema.SPLIT]!r}."
        if row[schema.STATUS] not in STATUSES:
            yield f"{where}: unknown status {row[schema.STATUS]!r}."
        if row[schema.STATUS] == FAILED and not row[schema.ERROR]:
            yield f"{where}: failed without an error."
        if row[schema.STATUS] != ACCEPTED:
            given = [column for column in ACCEPTED_COLUMNS if row[column] is not None]
            if given:
                yield f"{where}: {row[schema.STATUS]}, yet {', '.join(given)} given."
            continue
        absent = [column for column in _NEEDED_WHEN_ACCEPTED if row[column] is None]
        if absent:
            yield f"{where}: accepted without {', '.join(absent)}."
        if (row[schema.DATA_FILE], row[schema.DATA_ROW]) != (name.data_file, accepted):
            yield (
                f"{where}: points to row {row[schema.DATA_ROW]} of {row[schema.DATA_FILE]} "
                f"instead of row {accepted} of {name.data_file}."
            )
        accepted += 1


def _label_findings(name: ShardName, data: pa.Table, expected: pa.Table, positions: pa.Array) -> Iterator[str]:
    for row in pc.indices_nonzero(pc.is_null(positions)).to_pylist():
        yield f"{name.data_file}, row {row}: no manifest row points here."
    for column in SHARED_COLUMNS:
        found, recorded = data[column], expected[column].cast(DATA_SCHEMA.field(column).type)
        one_null = pc.xor(pc.is_null(found), pc.is_null(recorded))
        differs = pc.and_(pc.is_valid(positions), pc.coalesce(pc.not_equal(found, recorded), one_null))
        for row in pc.indices_nonzero(differs).to_pylist():
            yield (
                f"{name.data_file}, row {row}: {column} is {found[row].as_py()!r} and "
                f"{recorded[row].as_py()!r} in row {positions[row]} of {name.manifest_file}."
            )


def _image_findings(run: RunDirectory, name: ShardName, expected: pa.Table, check: _ShardCheck) -> Iterator[str]:
    recorded = expected.select([schema.SHA256, schema.WIDTH, schema.HEIGHT]).to_pylist()
    row = 0
    try:
        with run.parquet(name.data_file) as file:
            for group in range(file.num_row_groups):
                for encoded in _encoded_images(file, group):
                    problem = _image_problem(encoded, recorded[row])
                    if problem is not None:
                        yield f"{name.data_file}, row {row}: {problem}."
                    check.images += 1
                    row += 1
    except Exception as error:  # as above
        yield f"{name.data_file}, row {row} and on: images cannot be read ({_one_line(error)})."


def _encoded_images(file: pq.ParquetFile, group: int) -> list[bytes | None]:
    images = file.read_row_group(group, columns=[schema.IMAGE], use_threads=False)[schema.IMAGE].combine_chunks()
    encoded: list[bytes | None] = pc.struct_field(images, schema.IMAGE_BYTES).to_pylist()
    return encoded


def _image_problem(encoded: bytes | None, recorded: Mapping[str, Any]) -> str | None:
    if encoded is None:
        return "has no image"
    digest = hashlib.sha256(encoded).hexdigest()
    if recorded[schema.SHA256] is not None and digest != recorded[schema.SHA256]:
        return f"image has SHA-256 {digest[:12]}… instead of {recorded[schema.SHA256][:12]}…"
    try:
        with Image.open(io.BytesIO(encoded), formats=schema.PROXY_FORMATS) as image:
            image.load()
            size = image.size
    except Exception as error:  # Pillow's decoders raise many types for damaged files
        return f"image cannot be decoded ({_one_line(error)})"
    if recorded[schema.WIDTH] is not None and size != (recorded[schema.WIDTH], recorded[schema.HEIGHT]):
        return f"image is {size[0]}x{size[1]} instead of {recorded[schema.WIDTH]}x{recorded[schema.HEIGHT]}"
    return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
