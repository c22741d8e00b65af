"""Work that takes seconds, done one at a time beside the server: searches first, then explanations, in turn."""

import asyncio
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Literal

from pipeline.exhibition.failure_log import log_failure

Kind = Literal["search", "explanation"]
Pause = Callable[[], None]
"""To be called by work between its parts: waits while anybody's search is on, and raises `JobCancelled`."""

_LOOK_SECONDS: Final = 0.1  # a pause looks as often whether its work is wanted, and lets go of a photograph if not


class JobCancelled(Exception):  # noqa: N818 - not an error of anybody's
    """The work is not wanted any more."""


class Job:
    """One piece of work, from `JobQueue.submit`.

    Attributes:
        owner: whose it is.
        kind: searches go first.
        cancelled: it is not wanted any more; it may be at work still.
    """

    def __init__(self, owner: Hashable, kind: Kind, work: Callable[[Pause], Any], done: "Done") -> None:
        self.owner = owner
        self.kind: Kind = kind
        self.cancelled = False
        self._work: Callable[[Pause], Any] | None = work
        self._done: Done | None = done

    def drop(self) -> None:
        """Let go of what it would work on."""
        self.cancelled = True
        self._work = self._done = None


Done = Callable[[Any, BaseException | None], None]
"""Called on the event loop with the result, or with None and what went wrong; not where the job was cancelled."""


class JobQueue:
    """A queue of one event loop; all methods are to be called on it.

    Searches are done in the order in which they came. Of the owners who wait for an explanation, the one served longest
    ago is next, so that whoever asks for ten does not make the others wait for ten. A search that comes during an
    explanation makes it pause at its next part. One thread does all searches and one all explanations. Work that fails,
    wanted or not, is logged by kind and place of its error.
    """

    def __init__(self) -> None:
        self._waiting: dict[Kind, list[Job]] = {"search": [], "explanation": []}
        self._running: dict[Kind, Job | None] = {"search": None, "explanation": None}
        self._threads: Final[dict[Kind, ThreadPoolExecutor]] = {
            "search": ThreadPoolExecutor(1, "search"),
            "explanation": ThreadPoolExecutor(1, "explanation"),
        }
        self._served: dict[Hashable, int] = {}
        self._count = 0
        self._at_work: set[asyncio.Future[Any]] = set()
        self._no_search = threading.Event()
        self._no_search.set()

    def submit(self, owner: Hashable, kind: Kind, work: Callable[[Pause], Any], done: Done) -> Job:
        """Take a piece of work into the queue.

        Args:
            owner: whose it is.
            kind: "search" or "explanation".
            work: run in a thread.
            done: see `Done`.
        """
        job = Job(owner, kind, work, done)
        self._waiting[kind].append(job)
        self._next(kind)
        return job

    def cancel(self, job: Job) -> None:
        """Take a job out, or drop its result if it is at work or done."""
        if job in self._waiting[job.kind]:
            self._waiting[job.kind].remove(job)
        job.drop()
        self._heed_searches()

    def forget(self, owner: Hashable) -> None:
        """Cancel all jobs of an owner."""
        jobs = [job for kind in self._waiting for job in (*self._waiting[kind], self._running[kind]) if job is not None]
        for job in jobs:
            if job.owner == owner:
                self.cancel(job)
        self._served.pop(owner, None)

    def pending(self, owner: Hashable, kind: Kind) -> int:
        """Return how many jobs of an owner wait or are at work."""
        running = self._running[kind]
        jobs = [*self._waiting[kind], *([running] if running is not None and not running.cancelled else [])]
        return sum(job.owner == owner for job in jobs)

    def ahead(self, job: Job) -> int:
        """Return how many jobs will be done before this one, those at work included; 0 if it is at work or done."""
        if job not in self._waiting[job.kind]:
            return 0
        waiting, served, before = [*self._waiting[job.kind]], dict(self._served), 0
        while (next_ := _chosen(waiting, served, job.kind)) is not job:
            waiting.remove(next_)
            before += 1
            served[next_.owner] = self._count + before
        before += self._running[job.kind] is not None
        if job.kind == "explanation":
            before += len(self._waiting["search"]) + (self._running["search"] is not None)
        return before

    async def close(self) -> None:
        """Drop everything, and wait until what is at work has come to its next pause."""
        for kind, waiting in self._waiting.items():
            for job in (*waiting, self._running[kind]):
                if job is not None:
                    job.drop()
            waiting.clear()
        self._no_search.set()
        await asyncio.gather(*self._at_work, return_exceptions=True)
        for threads in self._threads.values():
            threads.shutdown(wait=False)

    def _next(self, kind: Kind) -> None:
        self._heed_searches()
        if self._running[kind] is not None or not self._waiting[kind]:
            return
        job = _chosen(self._waiting[kind], self._served, kind)
        self._waiting[kind].remove(job)
        self._running[kind] = job
        self._count += 1
        if kind == "explanation":
            self._served[job.owner] = self._count
        self._heed_searches()
        future = asyncio.get_running_loop().run_in_executor(self._threads[kind], self._run, job)
        self._at_work.add(future)
        future.add_done_callback(lambda done: self._finished(job, done))

    def _run(self, job: Job) -> Any:
        work = job._work
        self._pause(job)
        if work is None:
            raise JobCancelled
        return work(lambda: self._pause(job))

    def _pause(self, job: Job) -> None:
        while job.kind == "explanation" and not job.cancelled and not self._no_search.wait(_LOOK_SECONDS):
            pass
        if job.cancelled:
            raise JobCancelled

    def _finished(self, job: Job, future: "asyncio.Future[Any]") -> None:
        self._running[job.kind] = None
        self._at_work.discard(future)
        error = None if future.cancelled() else future.exception()
        if error is not None and not isinstance(error, JobCancelled):
            log_failure(f"{'an' if job.kind == 'explanation' else 'a'} {job.kind}", error)
        done = job._done
        job._work = job._done = None
        if not job.cancelled and done is not None and not future.cancelled():
            done(None if error else future.result(), error)
        self._next(job.kind)

    def _heed_searches(self) -> None:
        if self._waiting["search"] or self._running["search"] is not None:
            self._no_search.clear()
        else:
            self._no_search.set()


def _chosen(waiting: list[Job], served: dict[Hashable, int], kind: Kind) -> Job:
    """Return who is next: the first, or of the explanations the first of whoever was served longest ago."""
    return waiting[0] if kind == "search" else min(waiting, key=lambda job: served.get(job.owner, 0))
