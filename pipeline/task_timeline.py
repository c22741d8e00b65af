"""When the tasks of a build ran, as the scheduler of a local cluster sees it; for measurements.

Dask loads this module into every scheduler that is started within `recorded`, and asks `dask_setup` to set it up.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import dask
from distributed import Scheduler, SchedulerPlugin

_PRELOADS: Final = "distributed.scheduler.preload"
_recording: list["Timeline"] = []


@dataclass(frozen=True)
class TaskSpan:
    """One task that a worker has finished: its address, start and stop in seconds since 1970, by the worker's clock."""

    worker: str
    start: float
    stop: float

    @property
    def seconds(self) -> float:
        """How long the task ran."""
        return self.stop - self.start


@dataclass
class Timeline:
    """What happened on a scheduler.

    Attributes:
        tasks: that finished, by key, in the order in which they did.
        submitted: how many tasks clients have sent.
        transitions: how often a task has changed its state.
        messages: what workers have told, by topic of `distributed.Worker.log_event`.
        kept: those messages themselves, of the topics to keep.
        topics: to keep.
    """

    topics: tuple[str, ...] = ()
    tasks: dict[str, TaskSpan] = field(default_factory=dict)
    submitted: int = 0
    transitions: int = 0
    messages: Counter[str] = field(default_factory=Counter)
    kept: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def span(self) -> float:
        """Seconds from the first task's start to the last one's end; 0 without a task."""
        tasks = self.tasks.values()
        return max(task.stop for task in tasks) - min(task.start for task in tasks) if tasks else 0.0

    @property
    def busy(self) -> float:
        """Seconds of all tasks together."""
        return sum(task.seconds for task in self.tasks.values())

    def by_worker(self) -> list[list[TaskSpan]]:
        """Return the tasks of every worker, in order."""
        found: dict[str, list[TaskSpan]] = {}
        for task in sorted(self.tasks.values(), key=lambda task: task.start):
            found.setdefault(task.worker, []).append(task)
        return list(found.values())

    def gaps(self) -> list[float]:
        """Return the seconds between one task of a worker and its next, for all workers."""
        return [later.start - earlier.stop for tasks in self.by_worker() for earlier, later in pairwise(tasks)]

    def steady_rate(self) -> float:
        """Return tasks per second of all workers together, from the end of each one's first task to that of its last.

        A worker with one task counts as none.
        """
        return sum((len(tasks) - 1) / (tasks[-1].stop - tasks[0].stop) for tasks in self.by_worker() if len(tasks) > 1)


@contextlib.contextmanager
def recorded(*topics: str) -> Iterator[Timeline]:
    """Record what happens on the schedulers that this process starts meanwhile; keep messages of these topics."""
    timeline = Timeline(topics)
    preloads = [*dask.config.get(_PRELOADS, ()), __name__]
    _recording.append(timeline)
    try:
        with dask.config.set({_PRELOADS: preloads}):
            yield timeline
    finally:
        _recording.remove(timeline)


def dask_setup(scheduler: Scheduler) -> None:
    """Begin to record; called by Dask."""
    for timeline in _recording:
        scheduler.add_plugin(_Recorder(timeline), name=f"timeline-{id(timeline)}")


class _Recorder(SchedulerPlugin):  # type: ignore[misc]  # Dask has no types
    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline

    def update_graph(self, scheduler: Scheduler, *, tasks: list[str], **rest: Any) -> None:
        self._timeline.submitted += len(tasks)

    def transition(self, key: str, start: str, finish: str, *args: Any, **rest: Any) -> None:
        self._timeline.transitions += 1
        if start == "processing" and finish == "memory":
            for span in rest.get("startstops", ()):
                if span["action"] == "compute":
                    self._timeline.tasks[str(key)] = TaskSpan(str(rest.get("worker", "")), span["start"], span["stop"])

    def log_event(self, topic: str, msg: Any) -> None:
        self._timeline.messages[topic] += 1
        if topic in self._timeline.topics:
            self._timeline.kept.append(msg)
