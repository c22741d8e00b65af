"""Progress of a build: what workers report, what the user sees, and what the event log keeps of it."""

import sys
import threading
import time
import uuid
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import distributed
from tqdm import tqdm

from manifests.event_log import (
    POISON,
    PROGRESS,
    SHARD_COMMITTED,
    SHARD_RETRIED,
    SHARD_STARTED,
    WORKER_JOINED,
    WORKER_LOST,
    WORKER_REFUSED,
    EventLog,
)

TOPIC = "stylize-progress"
CLUSTER_TOPIC = "all"  # where Dask's scheduler tells of workers that join and leave
REPORT_SECONDS = 0.5
COUNTS = ("faces", "accepted", "rejected", "failed", "attempts", "retries")
RESUMED = "resumed"
"""Faces among `COUNTS`' that were not repainted but taken from the journal of an execution that had died."""

# Totals go to the event log once in a hundredth of the time so far, within these bounds in seconds.
PROGRESS_SECONDS = (1.0, 15.0)


class Reporter:
    """Worker's side: sends a shard's running totals to the client, at most twice a second; silent outside a worker.

    The first message goes out at once and says that the shard has been begun. Totals, not increments: a lost, late or
    repeated message then does no harm.
    """

    def __init__(self, token: str, shard: str) -> None:
        self._message: dict[str, Any] = {"token": token, "shard": shard, "execution": uuid.uuid4().hex}
        self._message.update(dict.fromkeys((*COUNTS, RESUMED), 0))
        self._sent = 0.0
        self._lock = threading.Lock()  # the engine may report from several threads
        try:
            self._worker = distributed.get_worker()
        except ValueError:
            self._worker = None
        else:
            self._send()

    def count(self, *fields: str) -> None:
        """Add one to each of these fields out of `COUNTS` and `RESUMED`."""
        with self._lock:
            for name in fields:
                self._message[name] += 1
            if self._worker is not None and time.monotonic() - self._sent > REPORT_SECONDS:
                self._send()

    def _send(self) -> None:
        self._sent = time.monotonic()
        self._worker.log_event(TOPIC, dict(self._message))


class Progress:
    """Client's side: a tqdm bar over faces on a terminal, else one line per shard on stderr.

    Thread-safe: events arrive on Dask's thread.

    Args:
        token: of this execution of the build; reports of others are ignored.
        faces, shards: in the whole run.
        faces_done, shards_done: committed before this execution began.
        stream: where to write.
        quiet: write nothing.
        events: log to keep, too; closed by whoever made it.
    """

    def __init__(
        self,
        token: str,
        *,
        faces: int,
        shards: int,
        faces_done: int = 0,
        shards_done: int = 0,
        stream: TextIO | None = None,
        quiet: bool = False,
        events: EventLog | None = None,
    ) -> None:
        stream = sys.stderr if stream is None else stream
        self._token = token
        self._shards = shards
        self._shards_done = shards_done
        self._faces_done = faces_done
        self._complete = dict.fromkeys((*COUNTS, RESUMED), 0)
        self._events = events
        self._began = self._logged = time.monotonic()
        self._workers: set[str] = set()
        self._starts: Counter[str] = Counter()
        self._start_times: dict[str, float] = {}
        self._running: dict[str, Mapping[str, Any]] = {}
        self._lost: set[str] = set()
        self._finished: set[str] = set()
        self._lock = threading.Lock()
        on_terminal = stream.isatty() and not quiet
        self._write_line: Callable[[str], object] = lambda line: None
        if not quiet and not on_terminal:
            self._write_line = lambda line: print(line, file=stream, flush=True)
        self._bar: tqdm[Any] = tqdm(
            total=faces,
            initial=faces_done,
            unit="face",
            desc="repainting",
            file=stream,
            disable=not on_terminal,
            dynamic_ncols=True,
            smoothing=0.05,  # images finish in bursts
        )

    def subscribe(self, client: distributed.Client) -> None:
        """Take what the workers of this client's cluster report from now on, and who joins and leaves it."""
        client.subscribe_topic(TOPIC, self.on_event)
        if self._events is not None:
            client.subscribe_topic(CLUSTER_TOPIC, self.on_cluster_event)
            for address in client.nthreads():
                self.on_cluster_event((0.0, {"action": "add-worker", "worker": address}))

    def on_event(self, event: tuple[float, Mapping[str, Any]]) -> None:
        """Take one report as Dask delivers it: (time stamp, message)."""
        _, message = event
        with self._lock:
            shard = message.get("shard", "")
            if message.get("token") != self._token or shard in self._finished or message["execution"] in self._lost:
                return
            before = self._running.get(shard)
            if before is not None and before["execution"] != message["execution"]:
                self._lost.add(before["execution"])  # Dask has begun the shard again on another worker
                self._log(SHARD_RETRIED, shard=shard, reason="its worker died, and another has begun it again")
            if before is None or before["execution"] != message["execution"]:
                self._starts[shard] += 1
                self._start_times[shard] = time.monotonic()
                worker = _place(str(message.get("worker", "")))  # which Dask adds
                self._log(SHARD_STARTED, shard=shard, worker=worker, start=self._starts[shard])
            self._running[shard] = message
            self._show()
            self._log_progress()

    def on_cluster_event(self, event: tuple[float, Any]) -> None:
        """Take one of the scheduler's own events; only workers that join and leave are of interest."""
        message = event[1]
        action = message.get("action") if isinstance(message, Mapping) else None
        if action not in ("add-worker", "remove-worker"):
            return
        address = str(message.get("worker", ""))
        with self._lock:
            if action == "add-worker" and address not in self._workers:
                self._workers.add(address)
                self._log(WORKER_JOINED, worker=_place(address), workers=len(self._workers))
            elif action == "remove-worker" and address in self._workers:
                self._workers.remove(address)
                expected = bool(message.get("expected", False))
                self._log(WORKER_LOST, worker=_place(address), workers=len(self._workers), expected=expected)

    def shard_done(self, shard: str, counts: Mapping[str, int], *, resumed: int = 0, poisoned: int = 0) -> None:
        """Take the final counts of a shard that has been committed.

        Args:
            shard: its name.
            counts: by `COUNTS`.
            resumed: faces of it that were taken from the journal of an execution that had died.
            poisoned: faces of it that killed the process that repainted them.
        """
        with self._lock:
            if shard in self._finished:
                return
            self._finished.add(shard)
            self._running.pop(shard, None)
            self._shards_done += 1
            for name in COUNTS:
                self._complete[name] += counts[name]
            self._complete[RESUMED] += resumed
            self._show()
            self._write_line(
                f"{shard}: {counts['faces']} faces, {counts['accepted']} accepted, {counts['rejected']} rejected, "
                f"{counts['failed']} failed, {counts['attempts']} attempts "
                f"({self._shards_done} of {self._shards} shards)"
            )
            began = self._start_times.pop(shard, None)
            seconds = None if began is None else time.monotonic() - began
            kept = {name: counts[name] for name in COUNTS}
            self._log(SHARD_COMMITTED, shard=shard, seconds=seconds, resumed=resumed, **kept)
            if poisoned:
                self._log(POISON, shard=shard, faces=poisoned)
            self._log_progress()

    def shard_lost(self, shard: str) -> None:
        """Take back what a shard had reported: its worker died, and it will be done again."""
        with self._lock:
            if message := self._running.pop(shard, None):
                self._lost.add(message["execution"])
            self._log(SHARD_RETRIED, shard=shard, reason="its workers died, and it is submitted again")
            self._show()

    def worker_refused(self, worker: str, reason: str) -> None:
        """Take note of a worker that gets no shards, because of what a sentence says."""
        with self._lock:
            self._log(WORKER_REFUSED, worker=_place(worker), reason=reason)

    def totals(self) -> dict[str, int]:
        """Return the counts of this execution so far, running shards included."""
        with self._lock:
            totals = self._totals()
            return {name: totals[name] for name in COUNTS}

    def close(self) -> None:
        """Leave the bar as it stands, and log the last totals."""
        with self._lock:
            self._log(PROGRESS, **self._totals())
        self._bar.close()

    def _totals(self) -> dict[str, int]:
        running = self._running.values()
        return {
            name: count + sum(message.get(name, 0) for message in running) for name, count in self._complete.items()
        }

    def _log(self, kind: str, **fields: str | int | float | bool | None) -> None:
        if self._events is not None:
            self._events.append(kind, **fields)

    def _log_progress(self) -> None:
        now = time.monotonic()
        least, most = PROGRESS_SECONDS
        if now - self._logged >= min(most, max(least, (now - self._began) / 100)):
            self._logged = now
            self._log(PROGRESS, **self._totals())

    def _show(self) -> None:
        totals = self._totals()
        shown = {name: totals[name] for name in ("accepted", "retries", "rejected", "failed")}
        self._bar.set_postfix(OrderedDict(shown), refresh=False)  # any other mapping would be sorted
        self._bar.update(self._faces_done + totals["faces"] - self._bar.n)


def _place(address: str) -> str:
    """Return a worker's address without its protocol: "127.0.0.1:41231"."""
    return address.rpartition("://")[2]
