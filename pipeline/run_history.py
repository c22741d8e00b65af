"""What the event log of a run says of its executions: when, how long, how fast, and what went wrong meanwhile."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from manifests import event_log
from manifests.event_log import Event

MAX_BINS: Final = 120
NO_END: Final = "no end recorded"
"""Outcome of an execution that was killed, or is still at work."""

_SHORTEST_BIN = 0.3  # of the others: the last one of an execution is joined with the one before it otherwise
_MEASURABLE = 0.001  # seconds
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)


@dataclass(frozen=True)
class Execution:
    """One execution of a command on a run; `events` are its own, in order."""

    events: Sequence[Event]

    @property
    def number(self) -> int:
        """Number in the run, from 1."""
        return self.events[0].number

    @property
    def started(self) -> str:
        """When it began, UTC, by the clock of the machine: "2026-11-22 09:39"."""
        return self.events[0].time[:16].replace("T", " ")

    @property
    def command(self) -> str:
        """What was executed: "build", …"""
        return str(self._field(event_log.EXECUTION_STARTED, "command", "build"))

    @property
    def outcome(self) -> str:
        """Return "complete", "interrupted" or "failed", or `NO_END`."""
        return str(self._field(event_log.EXECUTION_ENDED, "outcome", NO_END))

    @property
    def reason(self) -> str | None:
        """Why it failed, one sentence."""
        reason = self._field(event_log.EXECUTION_ENDED, "reason", None)
        return None if reason is None else str(reason)

    @cached_property
    def seconds(self) -> float:
        """How long it has worked: until its last event."""
        return max(event.elapsed for event in self.events)

    @cached_property
    def work(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Seconds since its beginning, ascending, and faces done until then (float64, never falling).

        Faces that were taken from the journal of a dead execution are no work of this one, and a face that was lost
        with its worker counts when it is done for good.
        """
        times, done = [0.0], [0.0]
        committed = 0.0
        for event in self.events:
            if event.kind not in (event_log.PROGRESS, event_log.SHARD_COMMITTED):
                continue
            faces = float(event.fields.get("faces", 0)) - float(event.fields.get("resumed", 0))
            if event.kind == event_log.SHARD_COMMITTED:
                committed = faces = committed + faces
            times.append(event.elapsed)
            done.append(max(faces, done[-1]))
        return np.array(times), np.array(done)

    @property
    def faces(self) -> int:
        """Faces done, resumed ones not counted."""
        return int(self.work[1][-1])

    @property
    def resumed(self) -> int:
        """Faces of committed shards that were taken from the journal of an execution that had died."""
        return sum(int(event.fields.get("resumed", 0)) for event in self.of(event_log.SHARD_COMMITTED))

    @property
    def most_workers(self) -> int:
        """How many workers there were at once, at most; 0 where none was recorded."""
        return max((int(event.fields.get("workers", 0)) for event in self.of(event_log.WORKER_JOINED)), default=0)

    @property
    def lost_workers(self) -> list[Event]:
        """Workers that left without having been asked to."""
        return [event for event in self.of(event_log.WORKER_LOST) if not event.fields.get("expected")]

    def of(self, kind: str) -> list[Event]:
        """Return its events of one kind."""
        return [event for event in self.events if event.kind == kind]

    def _field(self, kind: str, name: str, default: object) -> object:
        found = self.of(kind)
        return found[-1].fields.get(name, default) if found else default


@dataclass(frozen=True, eq=False)
class Throughput:
    """Faces per second over the working time of all executions, laid end to end.

    Attributes:
        edges: float64 [bins + 1], seconds of work.
        rates: float64 [bins], faces per second.
        boundaries: where one execution ends and the next begins, seconds of work.
        losses: when workers were lost.
        worker_times, workers: seconds of work, ascending, and how many workers there were from then on.
        faces: done in all.
    """

    edges: npt.NDArray[np.float64]
    rates: npt.NDArray[np.float64]
    boundaries: Sequence[float]
    losses: Sequence[float]
    worker_times: Sequence[float]
    workers: Sequence[int]
    faces: int

    @property
    def seconds(self) -> float:
        """Of work, in all."""
        return float(self.edges[-1])

    @property
    def mean(self) -> float:
        """Faces per second of work."""
        return self.faces / self.seconds

    @property
    def most_workers(self) -> int:
        """How many workers there were at once, at most."""
        return max(self.workers, default=0)


def read_executions(events: Iterable[Event]) -> list[Execution]:
    """Group events by execution, in the order in which these began."""
    return [Execution(members) for members in event_log.executions(tuple(events))]


def throughput(executions: Sequence[Execution]) -> Throughput | None:
    """Return how fast a run was; None where no execution has done a face in measurable time."""
    working = [execution for execution in executions if execution.seconds >= _MEASURABLE]
    total = sum(execution.seconds for execution in working)
    if not any(execution.faces for execution in working):
        return None
    width = bin_width(total)
    edges, rates = [0.0], []
    boundaries: list[float] = []
    losses: list[float] = []
    worker_times: list[float] = []
    workers: list[int] = []
    for execution in working:
        start = edges[-1]
        if start:
            boundaries.append(start)
        inner = np.arange(width, execution.seconds, width)
        if len(inner) and execution.seconds - inner[-1] < _SHORTEST_BIN * width:
            inner = inner[:-1]
        places = np.array([0.0, *inner, execution.seconds])
        done = np.interp(places, *execution.work)
        done[0] = 0.0  # were it not for what was logged in the first millisecond
        rates += (np.diff(done) / np.diff(places)).tolist()
        edges += (start + places[1:]).tolist()
        losses += [start + event.elapsed for event in execution.lost_workers]
        changes = [*execution.of(event_log.WORKER_JOINED), *execution.of(event_log.WORKER_LOST)]
        counts = {0.0: 0} | {event.elapsed: event.fields.get("workers", 0) for event in sorted(changes, key=_sequence)}
        worker_times += [start + elapsed for elapsed in counts]
        workers += [int(count) for count in counts.values()]
    faces = sum(execution.faces for execution in working)
    return Throughput(np.array(edges), np.array(rates), boundaries, losses, worker_times, workers, faces)


def _sequence(event: Event) -> int:
    return event.sequence


def bin_width(seconds: float) -> float:
    """Return a round number of seconds that makes at most `MAX_BINS` bins of this time."""
    return next((float(step) for step in _STEPS if seconds / step <= MAX_BINS), seconds / MAX_BINS)
