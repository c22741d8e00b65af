"""Progress of a build: what workers report, and what the user sees."""

import sys
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import distributed
from tqdm import tqdm

TOPIC = "stylize-progress"
REPORT_SECONDS = 0.5
COUNTS = ("faces", "accepted", "rejected", "failed", "attempts", "retries")


class Reporter:
    """Worker's side: sends a shard's running totals to the client, at most twice a second; silent outside a worker.

    Totals, not increments: a lost, late or repeated message then does no harm.
    """

    def __init__(self, token: str, shard: str) -> None:
        self._message: dict[str, Any] = {"token": token, "shard": shard, "execution": uuid.uuid4().hex}
        self._message.update(dict.fromkeys(COUNTS, 0))
        self._sent = 0.0
        self._lock = threading.Lock()  # the engine may report from several threads
        try:
            self._worker = distributed.get_worker()
        except ValueError:
            self._worker = None

    def count(self, *fields: str) -> None:
        """Add one to each of these fields out of `COUNTS`."""
        with self._lock:
            for name in fields:
                self._message[name] += 1
            if self._worker is not None and time.monotonic() - self._sent > REPORT_SECONDS:
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
    ) -> None:
        stream = sys.stderr if stream is None else stream
        self._token = token
        self._shards = shards
        self._shards_done = shards_done
        self._faces_done = faces_done
        self._complete = dict.fromkeys(COUNTS, 0)
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
            self._running[shard] = message
            self._show()

    def shard_done(self, shard: str, counts: Mapping[str, int]) -> None:
        """Take the final counts of a shard that has been committed."""
        with self._lock:
            if shard in self._finished:
                return
            self._finished.add(shard)
            self._running.pop(shard, None)
            self._shards_done += 1
            for name in COUNTS:
                self._complete[name] += counts[name]
            self._show()
            self._write_line(
                f"{shard}: {counts['faces']} faces, {counts['accepted']} accepted, {counts['rejected']} rejected, "
                f"{counts['failed']} failed, {counts['attempts']} attempts "
                f"({self._shards_done} of {self._shards} shards)"
            )

    def shard_lost(self, shard: str) -> None:
        """Take back what a shard had reported: its worker died, and it will be done again."""
        with self._lock:
            if message := self._running.pop(shard, None):
                self._lost.add(message["execution"])
            self._show()

    def totals(self) -> dict[str, int]:
        """Return the counts of this execution so far, running shards included."""
        with self._lock:
            return self._totals()

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()

    def _totals(self) -> dict[str, int]:
        running = self._running.values()
        return {name: self._complete[name] + sum(message[name] for message in running) for name in COUNTS}

    def _show(self) -> None:
        totals = self._totals()
        shown = {name: totals[name] for name in ("accepted", "retries", "rejected", "failed")}
        self._bar.set_postfix(OrderedDict(shown), refresh=False)  # any other mapping would be sorted
        self._bar.update(self._faces_done + totals["faces"] - self._bar.n)
