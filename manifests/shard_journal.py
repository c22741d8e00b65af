"""The journal of a shard in the making: its finished faces, and the faces that an execution had begun when it died.

    OUT/journal/train-00000-of-00396/
        3f…e1.00000.faces    a few finished faces, every field of their rows, pictures included
        3f…e1.begun          what execution 3f…e1 has begun and not yet put away; a file left behind is a death

Segments are written by the commit protocol; records are renamed into place, but not forced onto the disk, since what
they are for, the death of a process, leaves the system's memory as it is. A damaged or foreign file is no file. Losing
any of it costs work, never correctness: a row depends on the run and the face alone, so a face done twice, or taken
from either of two executions, is the same face.
"""

import contextlib
import hashlib
import json
import os
import threading
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from manifests import schema
from manifests.commit import publish
from manifests.run import JOURNAL_FOLDER, RunDirectory
from manifests.schema import FAILED
from manifests.shard import AttemptRecord, ShardRow
from manifests.shard_name import ShardName

FLUSH_FACES: Final = 16
FLUSH_SECONDS: Final = 1.0
FLUSH_BYTES: Final = 64_000_000
AHEAD: Final = 16
"""Faces marked as begun at a time: one small write for so many, paid by innocents suspected with the guilty."""

_ATTEMPTS_TO_WRITE = 3
_READERS = 8  # threads; the wait is for storage
_MAGIC = b"STYLJ001"  # the last digits are the version of the form
_SEGMENT, _BEGUN = ".faces", ".begun"
_DIGEST_BYTES = hashlib.sha256().digest_size
_KEY: Final = b"key"
_ROW_SCHEMA: Final = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("image_id", "source_id", "split")),
        pa.field("identity", pa.int64()),
        pa.field("attributes", pa.list_(pa.bool_())),
        *(pa.field(name, pa.string()) for name in ("status", "convention", "precision")),
        pa.field("attempts", pa.list_(schema.ATTEMPT_TYPE)),
        *(pa.field(name, pa.string()) for name in ("error", "painting", "artist", "genre", "style")),
        pa.field("loss", pa.float64()),
        pa.field("image", pa.large_binary()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("image_suffix", pa.string()),
    ]
)


def journal_key(run: RunDirectory, name: ShardName, faces: Sequence[str]) -> str:
    """Return what a journal must agree in to be of use: the run's fingerprint, the shard, its faces in order."""
    identity = [str(run.content.get("fingerprint", "")), str(name), list(faces)]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


@dataclass(frozen=True)
class JournalContent:
    """What earlier executions of a shard have left.

    Attributes:
        rows: finished faces by image_id.
        deaths: of every face not finished, how many executions died (or are still alive somewhere) while it was in
            progress; faces with none are left out.
    """

    rows: Mapping[str, ShardRow]
    deaths: Mapping[str, int]


def read_journal(run: RunDirectory, name: ShardName, key: str) -> JournalContent:
    """Read what is of use under this key; OSError where the storage does not answer, never for a damaged file."""
    entries = run.entries(_folder(name))
    with ThreadPoolExecutor(_READERS) as pool:
        segments = pool.map(
            lambda entry: _read_segment(_content(run, name, entry), key),
            [entry for entry in entries if entry.endswith(_SEGMENT)],
        )
        records = pool.map(
            lambda entry: _read_record(_content(run, name, entry), key),
            [entry for entry in entries if entry.endswith(_BEGUN)],
        )
        rows: dict[str, ShardRow] = {}
        for segment in segments:
            for row in segment:
                rows.setdefault(row.image_id, row)
        deaths = Counter(face for begun in records for face in begun if face not in rows)
    return JournalContent(rows, deaths)


def journal_size(run: RunDirectory, name: ShardName) -> int:
    """Return how many files of finished faces a journal has; it never falls before the shard is committed."""
    return sum(entry.endswith(_SEGMENT) for entry in run.entries(_folder(name)))


def remove_journal(run: RunDirectory, name: ShardName) -> None:
    """Remove what is left of a shard that is committed; what cannot be removed now, the end of the run removes."""
    with contextlib.suppress(OSError):
        run.fs.rm(run.path(_folder(name)), recursive=True)
    if isinstance(run.fs, LocalFileSystem):
        with contextlib.suppress(OSError):  # other shards are at work, most of the time
            os.rmdir(run.path(JOURNAL_FOLDER))


class ShardJournal:
    """The journal that one execution of a shard keeps. Thread-safe.

    Finished faces are written by a thread of its own, so that whoever finishes them never waits for storage. Close it
    in every orderly end, failure included; a process that dies cannot, and that is how its death is known.
    """

    def __init__(self, run: RunDirectory, name: ShardName, key: str, faces: Sequence[str]) -> None:
        self._run = run
        self._name = name
        self._key = key
        self._execution = uuid.uuid4().hex
        self._faces = list(faces)
        self._places = {face: place for place, face in enumerate(self._faces)}
        self._marked: set[str] = set()
        self._in_progress: dict[str, None] = {}  # in order
        self._pending: list[ShardRow] = []
        self._segments = 0
        self._closing = False
        self._failure: Exception | None = None
        self._recording = threading.Lock()  # held while the record is written: one writer, and none after the end
        self._changed = threading.Condition()  # guards all of the above
        self._writer = threading.Thread(target=self._write_segments, name=f"journal-{name}", daemon=True)
        self._writer.start()

    def begin(self, face: str) -> None:
        """Return once storage knows that this face is being worked on, and some that come after it.

        Raises:
            OSError: the record cannot be written.
        """
        with self._recording:
            with self._changed:
                if face in self._marked or self._closing:
                    return
                place = self._places[face]
                chunk = [other for other in self._faces[place : place + AHEAD] if other not in self._marked]
                self._in_progress.update(dict.fromkeys(chunk))
                content = {"key": self._key, "begun": list(self._in_progress)}
            self._record(_sealed(json.dumps(content).encode()))
            with self._changed:
                self._marked.update(chunk)

    def finish(self, row: ShardRow) -> None:
        """Hand over a finished face, to be written soon.

        A row that tells of any error is not kept, since nobody knows yet whether the image is to blame or a volume that
        has just vanished: such a face is done again.
        """
        with self._changed:
            if row.status == FAILED or any(attempt.error for attempt in row.attempts):
                self._in_progress.pop(row.image_id, None)
            elif not self._closing:
                self._pending.append(row)
                self._changed.notify_all()

    def check(self) -> None:
        """Raise OSError if finished faces could not be written several times in a row."""
        with self._changed:
            failure = self._failure
        if failure is not None:
            raise failure if isinstance(failure, OSError) else OSError(str(failure)) from failure

    def close(self) -> None:
        """Write what is finished, and take the record of begun faces away; harmless when called twice.

        What cannot be written any more is lost without a word: whoever closes after a failure has one to tell.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._writer.join()
        with self._recording, contextlib.suppress(OSError):
            self._run.fs.rm_file(self._path(f"{self._execution}{_BEGUN}"))

    def _write_segments(self) -> None:
        failures = 0
        while rows := self._next_rows():
            name = f"{self._execution}.{self._segments:05d}{_SEGMENT}"
            try:
                publish(self._run.fs, self._path(name), _segment(rows, self._key), journal=self._path())
            except Exception as error:  # a store's client may raise anything; whoever calls `check` gets to know
                failures += 1
                with self._changed:
                    self._pending[:0] = rows
                    if failures == _ATTEMPTS_TO_WRITE or self._closing:
                        self._failure = error
                        return
                    self._changed.wait_for(lambda: self._closing, FLUSH_SECONDS)
            else:
                failures = 0
                self._segments += 1
                with self._changed:
                    for row in rows:
                        self._in_progress.pop(row.image_id, None)

    def _next_rows(self) -> list[ShardRow]:
        """Wait for enough finished faces, or a second after the first; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._closing)
            self._changed.wait_for(self._enough, FLUSH_SECONDS)
            rows, self._pending = self._pending, []
            return rows

    def _enough(self) -> bool:
        size = sum(len(row.image or b"") for row in self._pending)
        return self._closing or len(self._pending) >= FLUSH_FACES or size >= FLUSH_BYTES

    def _record(self, data: bytes) -> None:
        path = self._path(f"{self._execution}{_BEGUN}")
        if not isinstance(self._run.fs, LocalFileSystem):
            self._run.fs.pipe_file(path, data)
            return
        temporary = f"{path}.{uuid.uuid4().hex}.tmp"
        for left in reversed(range(_ATTEMPTS_TO_WRITE)):
            try:
                os.makedirs(self._path(), exist_ok=True)
                with open(temporary, "xb") as file:
                    file.write(data)
                os.replace(temporary, path)
                return
            except FileNotFoundError:  # another execution has committed the shard and removed the folder meanwhile
                if not left:
                    raise

    def _path(self, entry: str = "") -> str:
        return self._run.path(f"{_folder(self._name)}/{entry}").rstrip("/")


def _folder(name: ShardName) -> str:
    return f"{JOURNAL_FOLDER}/{name}"


def _sealed(payload: bytes) -> bytes:
    return _MAGIC + hashlib.sha256(payload).digest() + payload


def _content(run: RunDirectory, name: ShardName, entry: str) -> bytes | None:
    """Return the payload of a file; None where it is torn, altered, of another form, or has just been removed."""
    try:
        data: bytes = run.fs.cat_file(run.path(f"{_folder(name)}/{entry}"))
    except FileNotFoundError:
        return None
    head = len(_MAGIC) + _DIGEST_BYTES
    payload = data[head:]
    return payload if data[:head] == _sealed(payload)[:head] else None


def _segment(rows: Iterable[ShardRow], key: str) -> bytes:
    table = pa.Table.from_pylist(
        [vars(row) | {"attempts": [vars(attempt) for attempt in row.attempts]} for row in rows],
        schema=_ROW_SCHEMA.with_metadata({_KEY: key}),
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return _sealed(bytes(sink.getvalue()))


def _read_segment(payload: bytes | None, key: str) -> list[ShardRow]:
    if payload is None:
        return []
    with pa.ipc.open_stream(payload) as reader:
        if not reader.schema.equals(_ROW_SCHEMA) or reader.schema.metadata != {_KEY: key.encode()}:
            return []
        return [_row(fields) for fields in reader.read_all().to_pylist()]


def _row(fields: dict[str, Any]) -> ShardRow:
    attempts = tuple(
        AttemptRecord(**attempt | {"style_losses": _optional_tuple(attempt["style_losses"])})
        for attempt in fields["attempts"]
    )
    return ShardRow(**fields | {"attempts": attempts, "attributes": tuple(fields["attributes"])})


def _optional_tuple(values: list[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(values)


def _read_record(payload: bytes | None, key: str) -> list[str]:
    content = {} if payload is None else json.loads(payload)
    return list(content["begun"]) if content.get("key") == key else []
