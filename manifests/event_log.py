"""The event log of a run: what happened when, as JSON lines, one log for each execution of a command.

    OUT/events/00001-3fe1a2b4c5d6-00000.jsonl     number of the execution, its token, number of the segment

An object store cannot append, so a log is published in segments, each whole: the last one is written again as it
grows, a few times a minute at most, until it is full. In the order of their names the segments are the story of the
run, so that ``cat OUT/events/*.jsonl`` shows it. An event is one line, such as

    {"sequence":17,"time":"2026-11-22T09:39:12.345Z","elapsed":61.207,"execution":"3fe1a2b4c5d6",
     "kind":"shard_committed","shard":"train-00003-of-00396","faces":512,"accepted":497, … }

``time`` is what the clock said, and clocks go backwards; ``sequence`` and ``elapsed`` (seconds since the execution
began, by a clock that does not) never do. Events hold counts and names of shards, no names of images; text is stripped
of addresses and paths, and of the credentials in them. The log is for people and plots: no command decides by it, its
loss is nobody's failure, and a run without one is as good.
"""

import contextlib
import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final

from manifests.commit import TEMPORARY_NAME, publish
from manifests.redaction import redact
from manifests.run import EVENT_SEGMENT_NAME, EVENTS_FOLDER, RunDirectory

FLUSH_SECONDS: Final = 5.0
"""What a client that is killed loses of its log at most."""

SEGMENT_BYTES: Final = 256_000
MAX_TEXT: Final = 400

EXECUTION_STARTED: Final = "execution_started"
EXECUTION_ENDED: Final = "execution_ended"
WORKER_JOINED: Final = "worker_joined"
WORKER_LOST: Final = "worker_lost"
WORKER_REFUSED: Final = "worker_refused"
SHARD_STARTED: Final = "shard_started"
SHARD_RETRIED: Final = "shard_retried"
SHARD_COMMITTED: Final = "shard_committed"
POISON: Final = "poison"
REDRAW: Final = "redraw"
PROGRESS: Final = "progress"

_COUNTS: Final = ("faces", "accepted", "rejected", "failed", "attempts", "retries", "resumed")
FIELDS: Final[Mapping[str, frozenset[str]]] = {
    # command is "build", "build --retry-failed" or "redraw"; faces and shards are what is to be done, *_done what was
    # done before.
    EXECUTION_STARTED: frozenset({"command", "stylize", "faces", "shards", "faces_done", "shards_done"}),
    # outcome is "complete", "interrupted" or "failed"; reason is a sentence.
    EXECUTION_ENDED: frozenset({"outcome", "reason"}),
    WORKER_JOINED: frozenset({"worker", "workers"}),
    WORKER_LOST: frozenset({"worker", "workers", "expected"}),
    # One that joined later and cannot do the work; reason is a sentence.
    WORKER_REFUSED: frozenset({"worker", "reason"}),
    # start counts the times that this execution has seen the shard begun: 1, 2, …
    SHARD_STARTED: frozenset({"shard", "worker", "start"}),
    # A worker died: Dask has begun the shard elsewhere ("begun again"), or has given it up ("submitted again").
    SHARD_RETRIED: frozenset({"shard", "reason"}),
    # seconds since the shard was last begun; resumed are faces taken from the journal of a dead execution.
    SHARD_COMMITTED: frozenset({"shard", "seconds", *_COUNTS}),
    POISON: frozenset({"shard", "faces"}),
    REDRAW: frozenset({"shard", "faces", "reason"}),
    # Totals of this execution so far.
    PROGRESS: frozenset(_COUNTS),
}
"""Every kind of event, and the fields that one may have beside its place in the log."""

_PLACE: Final = ("sequence", "time", "elapsed", "execution", "kind")
_ATTEMPTS_TO_WRITE: Final = 3
_TOKEN_LENGTH: Final = 12
_MOST_READ: Final = 4 * MAX_TEXT

# Linear in the length of the text, whatever it is: an error may quote half a file.
_WORD: Final = re.compile(r"\"[^\"]*\"|'[^']*'|[^\s\"']+")
_PLACE_IN_WORD: Final = re.compile(r"[/\\@]|\.(?:jpe?g|png|webp|bmp|tiff?|gif)\b", re.IGNORECASE)
_SECRET: Final = re.compile(
    r"(?:key|secret|token|passw(?:or)?d|signature|credential)[\w-]{0,40}[\"']?\s?[=:]\s?[\"']?[^\s\"']+", re.IGNORECASE
)

Value = str | int | float | bool | None


@dataclass(frozen=True)
class Event:
    """One event as it was read.

    Attributes:
        number: of the execution in the run, from 1.
        execution: its token.
        sequence: of the event in the execution, from 0.
        time: UTC in ISO 8601, by the clock of the machine that ran the command.
        elapsed: seconds since the execution began, never falling.
        kind: one of `FIELDS`, or of a later version of stylize.
        fields: the rest.
    """

    number: int
    execution: str
    sequence: int
    time: str
    elapsed: float
    kind: str
    fields: Mapping[str, Any]


class EventLog:
    """The log of one execution, written by a thread of its own. Thread-safe; nothing here ever stops a run.

    Use it as a context manager: the end of the block is the end of the execution, and its exception the outcome.

    Args:
        run: whose log it is.
        execution: token of this execution, hexadecimal; its first twelve characters name the log.
        flush_seconds: how long an event may wait before it is written.
        clock: seconds since 1970, UTC.
        monotonic: seconds that never fall.
    """

    def __init__(
        self,
        run: RunDirectory,
        execution: str,
        *,
        flush_seconds: float = FLUSH_SECONDS,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._execution = execution[:_TOKEN_LENGTH].lower()
        if not re.fullmatch(r"[0-9a-z]+", self._execution):
            raise ValueError(f"the token of an execution is hexadecimal, not {execution!r}")
        self._flush_seconds = flush_seconds
        self._clock, self._monotonic = clock, monotonic
        self._began = monotonic()
        self._elapsed = 0.0
        self._sequence = 0
        self._ended = False
        self._closing = False
        self._problem: str | None = None
        self._unwritten: list[str] = []
        self._changed = threading.Condition()  # guards all of the above
        self._number: int | None = None  # from here on the writer's alone
        self._segment = 0
        self._lines: list[str] = []
        self._writer = threading.Thread(target=self._write, name="event-log", daemon=True)
        self._writer.start()

    def append(self, kind: str, **fields: Value) -> None:
        """Add one event, now; after the end of the execution events are dropped, since Dask tells of some too late.

        Text is stripped by `without_places`. Raises ValueError for a kind or a field that is not in `FIELDS`, or a
        value that JSON has not.
        """
        unknown = fields.keys() - FIELDS.get(kind, frozenset())
        if kind not in FIELDS or unknown:
            raise ValueError(f"no event {kind!r} with {', '.join(sorted(unknown)) or 'these fields'} is known")
        clean = {name: _clean(value) for name, value in fields.items() if value is not None}
        with self._changed:
            self._add(kind, clean)

    def close(self, outcome: str = "complete", reason: str | None = None) -> None:
        """End the execution and write what is left; harmless when called twice."""
        with self._changed:
            if not self._closing:
                ending = {"outcome": outcome} | ({} if reason is None else {"reason": without_places(reason)})
                self._add(EXECUTION_ENDED, ending)
            self._ended = self._closing = True
            self._changed.notify_all()
        self._writer.join()

    @property
    def problem(self) -> str | None:
        """One sentence if the log is not whole in storage, else None; final after `close`."""
        with self._changed:
            return self._problem

    def __enter__(self) -> "EventLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        elif isinstance(error, KeyboardInterrupt):
            self.close("interrupted")
        else:
            self.close("failed", str(error).partition("\n")[0] or type(error).__name__)

    def _add(self, kind: str, fields: Mapping[str, Value]) -> None:
        if self._ended:
            return
        # The stock clock of Python never falls; one that a test or a broken hypervisor gives may.
        self._elapsed = max(self._elapsed, self._monotonic() - self._began)
        place = (self._sequence, _utc(self._clock()), round(self._elapsed, 3), self._execution, kind)
        event = dict(zip(_PLACE, place, strict=True)) | dict(fields)
        line = json.dumps(event, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        self._sequence += 1
        self._unwritten.append(line + "\n")
        self._changed.notify_all()

    def _write(self) -> None:
        failures = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._unwritten or self._closing)
                self._changed.wait_for(lambda: self._closing, self._flush_seconds)
                lines, self._unwritten = self._unwritten, []
                closing = self._closing
            if not lines and (closing and not failures):
                return
            try:
                self._publish(lines)
                failures = 0
                problem = None
            except Exception as error:  # whatever a store's client raises: a log is not worth a run
                failures += 1
                problem = (
                    f"the event log could not be written ({without_places(_reason(error))}); the run is not harmed"
                )
            with self._changed:
                self._problem = problem
                if self._closing and not self._unwritten and (not failures or failures >= _ATTEMPTS_TO_WRITE):
                    return

    def _publish(self, lines: list[str]) -> None:
        self._lines += lines
        if self._number is None:
            self._number = self._next_number()
        while self._lines:
            part = _first(self._lines)
            name = f"{self._number:05d}-{self._execution}-{self._segment:05d}.jsonl"
            path = self._run.path(f"{EVENTS_FOLDER}/{name}")
            # Not in the run's journal, which is removed when the last shard is committed, under our hands.
            publish(self._run.fs, path, "".join(part).encode(), journal=self._run.path(EVENTS_FOLDER))
            if len(part) == len(self._lines) and sum(map(len, part)) < SEGMENT_BYTES:
                return
            self._segment += 1
            self._lines = self._lines[len(part) :]

    def _next_number(self) -> int:
        entries = self._run.entries(EVENTS_FOLDER)
        for entry in entries:
            if TEMPORARY_NAME.fullmatch(entry):
                # Of a client that was killed; one that is still alive fails this once and writes it again.
                with contextlib.suppress(OSError):
                    self._run.fs.rm_file(self._run.path(f"{EVENTS_FOLDER}/{entry}"))
        return 1 + max(
            (int(found[1]) for entry in entries if (found := EVENT_SEGMENT_NAME.fullmatch(entry))), default=0
        )


@dataclass(frozen=True)
class EventHistory:
    """The events of all executions of a run, oldest first; `unreadable` has a sentence for each damaged file."""

    events: tuple[Event, ...]
    unreadable: tuple[str, ...]


def read_events(run: RunDirectory) -> EventHistory:
    """Read the event log of a run; empty where there is none. RunError where the storage does not answer."""
    names = [(found, entry) for entry in run.entries(EVENTS_FOLDER) if (found := EVENT_SEGMENT_NAME.fullmatch(entry))]
    names.sort(key=lambda item: (int(item[0][1]), item[0][2], int(item[0][3])))
    events: list[Event] = []
    unreadable: list[str] = []
    for found, entry in names:
        try:
            lines = run.fs.cat_file(run.path(f"{EVENTS_FOLDER}/{entry}")).decode(errors="replace").splitlines()
        except OSError as error:
            unreadable.append(f"{EVENTS_FOLDER}/{entry} cannot be read ({error.strerror or error}).")
            continue
        read = [event for line in lines if (event := _event(int(found[1]), found[2], line)) is not None]
        events += read
        if len(read) < len(lines):
            unreadable.append(f"{EVENTS_FOLDER}/{entry}: {len(lines) - len(read)} of {len(lines)} lines are damaged.")
    return EventHistory(tuple(events), tuple(unreadable))


def executions(events: tuple[Event, ...]) -> Iterator[tuple[Event, ...]]:
    """Yield the events of each execution, in order."""
    found: dict[tuple[int, str], list[Event]] = {}
    for event in events:
        found.setdefault((event.number, event.execution), []).append(event)
    for members in found.values():
        yield tuple(members)


def without_places(text: str) -> str:
    """Return text with every address, path, name of a picture and "secret=…" put as "…", on one line, not too long.

    What is quoted, and else a single word, is taken out where it has a separator of paths, a user, or the ending of a
    picture in it.
    """
    text = _SECRET.sub("…", redact(" ".join(text[:_MOST_READ].split())))
    text = _WORD.sub(_without_place, text)
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def _without_place(word: re.Match[str]) -> str:
    if not _PLACE_IN_WORD.search(word[0]):
        return word[0]
    return "…" + word[0][len(word[0].rstrip(".,:;)")) :]


def _clean(value: Value) -> Value:
    if isinstance(value, str):
        return without_places(value)
    if not isinstance(value, (bool, int, float)):
        raise ValueError(f"an event holds text and numbers, not {type(value).__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"an event cannot hold {value}")
    return round(value, 3) if isinstance(value, float) else value


def _utc(seconds: float) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _first(lines: list[str]) -> list[str]:
    """Return as many of the lines as fill a segment."""
    size = 0
    for count, line in enumerate(lines, 1):
        size += len(line)
        if size >= SEGMENT_BYTES:
            return lines[:count]
    return lines


def _reason(error: Exception) -> str:
    strerror = error.strerror if isinstance(error, OSError) else None
    return strerror or str(error).partition("\n")[0] or type(error).__name__


def _event(number: int, execution: str, line: str) -> Event | None:
    try:
        content = json.loads(line)
        sequence, moment, elapsed, _, kind = (content.pop(name) for name in _PLACE)
        return Event(number, execution, int(sequence), str(moment), float(elapsed), str(kind), content)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
