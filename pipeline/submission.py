"""Handing out shards to workers, bounded, and reading what comes back."""

import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from distributed import CancelledError, Client, Future, KilledWorker
from distributed import wait as wait_for

from manifests.errors import RunError
from manifests.shard_name import ShardName
from pipeline.cluster import slots, task_resources
from pipeline.progress import Progress
from pipeline.shard_task import ShardSummary
from stylize.errors import DeviceMemoryError, WeightsError

POLL_SECONDS = 2.0
NO_WORKER_SECONDS = 60.0
# Of one shard whose workers die without leaving anything in its journal; Dask has tried several workers each time.
RESUBMISSIONS = 2
HOPELESS_FACES = 64  # failed without one success: the rest will fail, too


class Submit(Protocol):
    """Submits one shard to the cluster."""

    def __call__(self, client: Client, name: ShardName, submission: int, resources: dict[str, float]) -> Future:
        """Return the future of the shard's summary."""


def hand_out(
    client: Client,
    missing: list[ShardName],
    submit: Submit,
    progress: Progress,
    journalled: Callable[[ShardName], int] = lambda name: 0,
) -> None:
    """Keep one shard in flight per worker until all are committed.

    Bounded, because Dask switches its own queuing off for tasks with resources, and a worker that dies then takes
    shards with it that it had not begun.

    Args:
        client: of a cluster with workers.
        missing: the shards, in the order to build them.
        submit: submits one shard; the number is how often it has been submitted before.
        progress: told of every shard that is done or lost.
        journalled: measures what the journal of a shard holds: one that grows is resumed as often as its workers die.

    Raises:
        RunError: one sentence on the first thing that stops the whole build.
    """
    pending = deque(missing)
    flying: dict[Future, ShardName] = {}
    submissions: Counter[ShardName] = Counter()
    deaths = _Deaths(journalled)
    hopeless = _Hopeless()
    last_worker = time.monotonic()
    while pending or flying:
        free = _slots(client)
        if free:
            last_worker = time.monotonic()
        elif time.monotonic() - last_worker > NO_WORKER_SECONDS:
            raise RunError(f"all workers are gone, and none has come back for {NO_WORKER_SECONDS:.0f} s")
        resources = task_resources(client) if pending and len(flying) < free else {}
        while pending and len(flying) < free:
            name = pending.popleft()
            flying[submit(client, name, submissions[name], resources)] = name
            submissions[name] += 1
        if flying:
            with contextlib.suppress(TimeoutError), client.as_current():
                wait_for(list(flying), timeout=POLL_SECONDS, return_when="FIRST_COMPLETED")
        else:
            time.sleep(POLL_SECONDS)
        for future in [future for future in flying if future.done()]:
            name = flying.pop(future)
            summary = _result(future, name, deaths)
            if summary is None:
                progress.shard_lost(str(name))
                pending.append(name)
            elif summary.executed:
                poisoned = len(summary.poisoned)
                progress.shard_done(summary.name, summary.counts, resumed=summary.resumed, poisoned=poisoned)
                hopeless.check(summary)


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


def _result(future: Future, name: ShardName, deaths: _Deaths) -> ShardSummary | None:
    """Return the summary of a finished task; None where the shard is to be submitted again."""
    try:
        summary: ShardSummary = future.result()
        return summary
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

    def __init__(self) -> None:
        self._failed: Counter[str] = Counter()
        self._succeeded = 0

    def check(self, summary: ShardSummary) -> None:
        self._failed.update(summary.errors)
        self._succeeded += summary.counts["faces"] - summary.counts["failed"]
        if not self._succeeded and self._failed.total() >= HOPELESS_FACES:
            raise RunError(
                f"all of the first {self._failed.total()} faces failed, most often because: "
                f"{self._failed.most_common(1)[0][0]} (they are committed as failed: mend the cause, and build with "
                "--retry-failed)"
            )


def _slots(client: Client) -> int:
    try:
        return slots(client)
    except (OSError, RuntimeError, TimeoutError) as error:
        raise RunError("the connection to the Dask scheduler was lost") from error
