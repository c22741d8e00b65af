"""Handing out shards to workers, bounded, and reading what comes back."""

import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from distributed import CancelledError, Client, Future, KilledWorker
from distributed import wait as wait_for

from manifests.errors import RunError
from manifests.shard_name import ShardName
from pipeline.cluster import gpus_of, worker_infos
from pipeline.plan import ShardSpec
from pipeline.preflight import Gate, Unfit
from pipeline.progress import Progress
from pipeline.shard_task import ShardSummary
from stylize.errors import DeviceMemoryError, WeightsError

POLL_SECONDS = 2.0
NO_WORKER_SECONDS = 60.0
RESULT_SECONDS = 30.0  # a paused worker keeps a result to itself
UNFIT_SECONDS = 300.0  # after which a worker is tried again: what it lacked may be back
# Of one shard whose workers die without leaving anything in its journal; Dask has tried several workers each time.
RESUBMISSIONS = 2
HOPELESS_FACES = 64  # failed without one success: the rest will fail, too


@dataclass(frozen=True)
class Task:
    """What is to be done for one shard: `function(spec, *arguments)`, which returns a `ShardSummary`."""

    function: Callable[..., ShardSummary]
    spec: ShardSpec
    arguments: tuple[Any, ...] = ()


def hand_out(
    client: Client,
    shards: Sequence[ShardName],
    task: Callable[[ShardName], Task],
    gate: Gate,
    progress: Progress,
    *,
    if_hopeless: str,
    journalled: Callable[[ShardName], int] = lambda name: 0,
    notify: Callable[[str], None] = lambda sentence: None,
) -> Counter[str]:
    """Keep one shard in flight per worker until all are done; return how many faces failed, by reason.

    Bounded, because Dask switches its own queuing off for tasks with resources, and a worker that dies then takes
    shards with it that it had not begun. Which worker takes a shard is Dask's choice. From twenty workers on it may
    give two to one of several threads: workers of one thread are what this is made for (docs/clusters.md).

    From the moment that any worker declares a GPU, workers that declare one get all the work. If they all leave, the
    rest does not take over: it would be about a hundred times slower, and under precision "auto" compute in another
    number format. That is the user's decision, by the same command again.

    Args:
        client: of a cluster with workers.
        shards: in the order to work on them.
        task: what to do for one of them.
        gate: refuses workers that joined unfit; they get no more shards, and the others get theirs.
        progress: told of every shard that is done or lost.
        if_hopeless: what a user is told to do about a cause that makes every face fail.
        journalled: measures what the journal of a shard holds: one that grows is resumed as often as its workers die.
        notify: told of every unfit worker.

    Raises:
        RunError: one sentence on the first thing that stops the whole work, `NO_WORKER_SECONDS` without a worker that
            could go on with it among them.
    """
    pending = deque(shards)
    flying: dict[Future, Flight] = {}
    submissions: Counter[ShardName] = Counter()
    deaths = _Deaths(journalled)
    hopeless = _Hopeless(if_hopeless)
    crew = Crew()
    tasks = _Tasks(task)
    last_worker = time.monotonic()
    while pending or flying:
        crew.update(worker_infos(client))
        if crew.slots or crew.finishing:
            last_worker = time.monotonic()
        elif time.monotonic() - last_worker > NO_WORKER_SECONDS:
            raise RunError(crew.absence(NO_WORKER_SECONDS))
        for future in [future for future, flight in flying.items() if crew.stranded(flight)]:
            future.cancel()
            pending.appendleft(flying.pop(future).name)
        while pending and crew.free(flying.values()):
            name = pending.popleft()
            work = tasks.take(name)
            options: dict[str, Any] = {"resources": {"GPU": 1}} if crew.gpu else {}
            future = gate.submit(
                client,
                work.function,
                (work.spec, *work.arguments),
                gpu=crew.gpu,
                key=f"{name}-{work.spec.token[:8]}-{submissions[name]}",
                pure=False,
                retries=0,
                workers=crew.only,
                **options,
            )
            flying[future] = Flight(name, crew.gpu, crew.only)
            submissions[name] += 1
        tasks.prepare(pending)
        if flying:
            with contextlib.suppress(TimeoutError), client.as_current():
                wait_for(list(flying), timeout=POLL_SECONDS, return_when="FIRST_COMPLETED")
        else:
            time.sleep(POLL_SECONDS)
        for name, summary in _landed(flying, deaths):
            if isinstance(summary, Unfit):
                pending.appendleft(name)
                if not gate.restore() and crew.refuse(summary):
                    progress.worker_refused(summary.worker, summary.sentence)
                    notify(f"{summary.sentence}; it gets no work meanwhile")
            elif summary is None:
                progress.shard_lost(str(name))
                pending.append(name)
            elif summary.executed:
                poisoned = len(summary.poisoned)
                progress.shard_done(summary.name, summary.counts, resumed=summary.resumed, poisoned=poisoned)
                hopeless.check(summary)
    return hopeless.failed


class _Tasks:
    """Makes tasks, the next one while the workers are at work."""

    def __init__(self, make: Callable[[ShardName], Task]) -> None:
        self._make = make
        self._ready: dict[ShardName, Task] = {}

    def take(self, name: ShardName) -> Task:
        return self._ready.pop(name, None) or self._make(name)

    def prepare(self, pending: Sequence[ShardName]) -> None:
        if pending and pending[0] not in self._ready:
            self._ready = {pending[0]: self._make(pending[0])}


@dataclass(frozen=True)
class Flight:
    """A shard that was given out.

    Attributes:
        name: of the shard.
        gpu: it asked for a GPU.
        workers: the only ones that may take it; None where any may.
    """

    name: ShardName
    gpu: bool
    workers: Sequence[str] | None = None


class Crew:
    """Which of the workers may be given shards: with GPUs once there were any, and none that was found unfit.

    Attributes:
        gpu: shards ask for a GPU.
        slots: how many shards the present workers can work on, one per GPU or one per worker; one that Dask has paused
            (for its memory) or that is closing takes none.
        only: addresses of the fit workers, while an unfit one is there, too; None while any may take a shard.
        finishing: a worker that takes no more is still at work.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.gpu = False
        self.slots = 0
        self.only: list[str] | None = None
        self.finishing = False
        self._clock = clock
        self._present: Mapping[str, Any] = {}
        self._unfit: dict[str, tuple[Unfit, float]] = {}
        self._told: set[str] = set()

    def update(self, workers: Mapping[str, Any]) -> None:
        """Take the present workers, as `pipeline.cluster.worker_infos` has them."""
        self._present = workers
        now = self._clock()
        self._unfit = {
            address: (unfit, since)
            for address, (unfit, since) in self._unfit.items()
            if address in workers and now - since < UNFIT_SECONDS
        }
        self.gpu = self.gpu or any(map(gpus_of, workers.values()))
        usable = {address: info for address, info in workers.items() if address not in self._unfit}
        fit = {
            address: gpus_of(info) if self.gpu else 1
            for address, info in usable.items()
            if _takes_work(info) and (gpus_of(info) or not self.gpu)
        }
        self.slots = sum(fit.values())
        self.only = list(fit) if self._unfit and fit else None
        self.finishing = any(
            not _takes_work(info) and info.get("metrics", {}).get("executing", 0) for info in usable.values()
        )

    def free(self, flying: Iterable[Flight]) -> bool:
        """Whether there is room for one more shard.

        Shards that were given to workers without a GPU do not count once there are workers with one.
        """
        return sum(flight.gpu == self.gpu for flight in flying) < self.slots

    def refuse(self, unfit: Unfit) -> bool:
        """Give a worker no more shards; return whether its sentence is new."""
        new = unfit.sentence not in self._told
        self._told.add(unfit.sentence)
        self._unfit[unfit.worker] = unfit, self._clock()
        self.update(self._present)
        return new

    def stranded(self, flight: Flight) -> bool:
        """Whether a shard waits for workers that have all left, and that alone may take it, while there are others."""
        return flight.workers is not None and self.slots > 0 and self._present.keys().isdisjoint(flight.workers)

    def absence(self, seconds: float) -> str:
        """Say who is missing, after so many seconds."""
        if self._unfit:
            return next(iter(self._unfit.values()))[0].sentence + f", and there has been no other for {seconds:.0f} s"
        if not self._present:
            return f"all workers are gone, and none has come back for {seconds:.0f} s"
        paused = [info for info in self._present.values() if not _takes_work(info)]
        if paused and (not self.gpu or any(map(gpus_of, paused))):
            return (
                f"no worker has taken work for {seconds:.0f} s ({len(paused)} {paused[0]['status']}): Dask pauses "
                "workers that come near their memory limit; start them with --memory-limit 0, or with more memory"
            )
        rest = len(self._present)
        return (
            f"all workers with a GPU are gone, and none has come back for {seconds:.0f} s; {rest} without one "
            f"{'remains' if rest == 1 else 'remain'}, which would take about a hundred times as long, and may compute "
            "in another precision: start workers with a GPU again, or go on with what there is"
        )


def _takes_work(info: Mapping[str, Any]) -> bool:
    return bool(info.get("status", "running") == "running")


@dataclass
class _Deaths:
    """Counts how often a shard has killed its workers since its journal last grew."""

    journalled: Callable[[ShardName], int]
    _in_vain: Counter[ShardName] = field(default_factory=Counter)
    _size: dict[ShardName, int] = field(default_factory=dict)

    def too_many(self, name: ShardName) -> bool:
        size = self.journalled(name)
        if size > self._size.get(name, 0):
            self._in_vain[name] = 0
        self._size[name] = size
        self._in_vain[name] += 1
        return self._in_vain[name] > RESUBMISSIONS


class _NotYet(Exception):  # noqa: N818 - nothing is wrong
    """A result is there, and its worker does not hand it out."""


def _landed(flying: dict[Future, Flight], deaths: _Deaths) -> Iterator[tuple[ShardName, ShardSummary | Unfit | None]]:
    """Take out what has come to its end, and return what came of it, see `_result`."""
    for future in [future for future in flying if future.done()]:
        flight = flying.pop(future)
        try:
            yield flight.name, _result(future, flight.name, deaths)
        except _NotYet:
            flying[future] = flight


def _result(future: Future, name: ShardName, deaths: _Deaths) -> ShardSummary | Unfit | None:
    """Return the summary of a finished task; None where the shard is to be submitted again; _NotYet."""
    try:
        try:
            result = future.result(timeout=RESULT_SECONDS)
        except TimeoutError:
            if future.status == "error":  # a time-out of the task's own
                raise
            raise _NotYet from None
        summary: ShardSummary | Unfit = Gate.refusal(result) or result
        return summary
    except _NotYet:
        raise
    except KilledWorker as error:
        if not deaths.too_many(name):
            return None
        raise RunError(
            f"shard {name} has killed every worker it ran on (most often the memory is too small: try a smaller "
            "batch size)"
        ) from error
    except CancelledError as error:
        raise RunError("the connection to the Dask scheduler was lost") from error
    except (RunError, WeightsError, DeviceMemoryError) as error:
        raise RunError(str(error)) from error
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":
            raise RunError(f"shard {name} ran out of GPU memory; give a smaller batch size") from error
        reason = (str(error).splitlines() or [""])[0]
        raise RunError(f"shard {name} failed unexpectedly ({type(error).__name__}: {reason})") from error


class _Hopeless:
    """Stops a build in which nothing succeeds, before it has spent its hours."""

    def __init__(self, remedy: str) -> None:
        self._remedy = remedy
        self.failed: Counter[str] = Counter()
        self._succeeded = 0

    def check(self, summary: ShardSummary) -> None:
        self.failed.update(summary.errors)
        self._succeeded += summary.counts["faces"] - summary.counts["failed"]
        if not self._succeeded and self.failed.total() >= HOPELESS_FACES:
            raise RunError(
                f"all of the first {self.failed.total()} faces failed, most often because: "
                f"{self.failed.most_common(1)[0][0]} ({self._remedy})"
            )
