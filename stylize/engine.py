"""The in-flight engine: slots full of faces under repainting; who finishes makes room for the next."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from stylize.batch_size import choose_batch_size
from stylize.decode import decode_image
from stylize.encode import LOSSLESS, encode_image
from stylize.errors import DeviceMemoryError
from stylize.jobs import Draw, FaceJob, FaceResult
from stylize.lbfgs import Stop
from stylize.loading import LoadedPainting, load_face, load_painting
from stylize.prefetch import prefetch
from stylize.retry import Attempt, Verdict, judge
from stylize.slots import Slots
from stylize.stopwatch import Stopwatch
from stylize.transfer import StyleTransfer

_POLL_CUDA = 4  # evaluations between two looks at who has finished: each look waits for the device
_TAKEN_PER_POLL = 8  # faces that join those waiting for a slot
_AHEAD = {"cpu": 8, "cuda": 64}  # faces decoded ahead: on CUDA, slots that began together end together

OnAttempt = Callable[[str, Attempt], None]


@dataclass
class _Work:
    """A face on its way: its pixels, what is known of it, and the painting of the current attempt."""

    job: FaceJob
    face: np.ndarray
    attempts: list[Attempt] = field(default_factory=list)
    painting_id: str = ""
    painting: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint8))
    content: Tensor | None = None  # the content target, kept across redraws


@dataclass(frozen=True)
class _Finished:
    """An attempt that has left its slot; its image is being encoded."""

    work: _Work
    stop: Stop
    evaluations: int
    encoding: Future[tuple[bytes, np.ndarray]]


def repaint(
    faces: Iterable[FaceJob],
    draw: Draw,
    transfer: StyleTransfer,
    *,
    batch_size: int | None = None,
    on_attempt: OnAttempt = lambda key, attempt: None,
    stopwatch: Stopwatch | None = None,
) -> Iterator[FaceResult]:
    """Repaint faces, each with paintings drawn until one attempt is under the threshold.

    A face's result depends on its own pixels, its draws and the settings, never on its batchmates. Decoding and
    encoding run in threads beside the computation. Where memory runs out, the slots are halved and the attempts that
    were in them begin again.

    Args:
        faces: Consumed as slots become free. Faces of another size than the first wait for a pass of their own.
        draw: Called for a face with 0, 1, 2, … as it needs paintings, in loading threads.
        transfer: The loaded network and settings.
        batch_size: Slots; None chooses by device, image size and free memory.
        on_attempt: Called after every attempt, unreadable paintings included.
        stopwatch: Takes the time of "input", "network", "optimiser" and "output", as far as the computation waits for
            them.

    Yields:
        One result per face, in the order in which they finish.

    Raises:
        DeviceMemoryError: A single face does not fit into memory.

    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"the batch size must be at least 1, got {batch_size}")
    kind = transfer.device.type
    # A worker may have been given one thread for PyTorch, and a GPU that waits for eight decoders.
    threads = 1 if kind == "cpu" else min(8, os.cpu_count() or 1)
    jobs: list[FaceJob] = []
    while True:
        # Closed even while an exception is on its way, whose traceback would keep the reading threads alive.
        with closing(
            prefetch(faces, lambda job: load_face(job, transfer.settings), depth=_AHEAD[kind], threads=threads)
        ) as stream:
            for job, face in stream:
                if isinstance(face, np.ndarray):
                    break
                yield _failure(job, (), face, transfer)
            else:
                return
            with ThreadPoolExecutor(threads, thread_name_prefix="prefetch-painting") as pool:
                engine = _Engine(
                    transfer,
                    draw,
                    face.shape[:2],
                    pool,
                    batch_size=batch_size,
                    on_attempt=on_attempt,
                    stopwatch=stopwatch or Stopwatch(),
                )
                try:
                    yield from engine.run(chain([(job, face)], stream), postponed=jobs)
                finally:
                    del engine  # its slots would lie in memory while the next size's are made
                    pool.shutdown(wait=True, cancel_futures=True)
        faces, jobs = jobs, []


class _Engine:
    """Slots for faces of one size, and the faces on their way in and out of them."""

    def __init__(
        self,
        transfer: StyleTransfer,
        draw: Draw,
        size: Sequence[int],
        pool: ThreadPoolExecutor,
        *,
        batch_size: int | None,
        on_attempt: OnAttempt,
        stopwatch: Stopwatch,
    ) -> None:
        self._transfer = transfer
        self._settings = transfer.settings
        self._draw = draw
        self._on_attempt = on_attempt
        self._stopwatch = stopwatch
        self._pool = pool
        self._height, self._width = size
        # Waiting for a slot, those with a painting still to be loaded beside their future.
        self._waiting: deque[tuple[_Work, Future[LoadedPainting] | None]] = deque()
        self._finished: deque[_Finished] = deque()
        self._results: deque[FaceResult] = deque()
        self._dry = False  # no more faces in the stream
        self._make_slots(batch_size or choose_batch_size(transfer, *size))

    def run(self, stream: Iterator[tuple[FaceJob, np.ndarray | str]], postponed: list[FaceJob]) -> Iterator[FaceResult]:
        """Repaint the stream's faces of this engine's size; append jobs of other sizes to `postponed`."""
        while True:
            try:
                self._fill(stream, postponed)
                running = any(self._rows)
                if running:
                    self._slots.advance(_POLL_CUDA if self._transfer.device.type == "cuda" else 1)
                    # While a CUDA device is busy with its orders:
                    self._take_from(stream, postponed, min(len(self._rows), len(self._waiting) + _TAKEN_PER_POLL))
                    self._settle()
                    self._collect()
                no_memory = False
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
                no_memory = True
            if no_memory:  # outside of the handler, where the traceback would keep the tensors alive
                self._halve()
                continue
            while self._results:
                yield self._results.popleft()
            if not running:
                return

    def _make_slots(self, count: int) -> None:
        """Make so many slots, or half as many, or a quarter, … where memory does not suffice."""
        settings = self._settings
        target = settings.threshold if settings.give_up else None
        size = (self._height, self._width)
        while True:
            self._rows: list[_Work | None] = [None] * count
            if self._transfer.device.type == "cuda":
                torch.cuda.empty_cache()  # of slots that were here before
            try:
                self._slots = Slots(self._transfer, count, size, target, self._stopwatch)
                return
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
            count = self._half(count)

    def _halve(self) -> None:
        """Free half the slots; attempts that were under way begin again, so nothing of their result changes."""
        count = self._half(len(self._rows))
        self._waiting.extendleft((work, None) for work in reversed(self._rows) if work is not None)
        del self._slots
        self._make_slots(count)

    def _half(self, count: int) -> int:
        if count == 1:
            raise DeviceMemoryError(
                f"one face of {self._width}x{self._height} does not fit into the memory of {self._transfer.device}; "
                "give a smaller working size with --size"
            )
        return count // 2

    def _fill(self, stream: Iterator[tuple[FaceJob, np.ndarray | str]], postponed: list[FaceJob]) -> None:
        """Put waiting faces into the free slots; drop slots that nothing will come for any more."""
        while True:
            self._take_from(stream, postponed, self._rows.count(None))
            self._start_waiting()
            if all(self._rows):
                return
            if self._finished:
                self._settle()  # one of them may need its slot again
            elif self._waiting or self._dry:
                break
        live = [row for row, work in enumerate(self._rows) if work is not None]
        if self._waiting or not live:
            return
        # A new size costs CUDA a new graph, and cuDNN a new choice of algorithms.
        if self._transfer.device.type == "cpu" or len(live) <= len(self._rows) // 2:
            self._rows = [self._rows[row] for row in live]
            self._slots.keep(live)

    def _take_from(
        self, stream: Iterator[tuple[FaceJob, np.ndarray | str]], postponed: list[FaceJob], wanted: int
    ) -> None:
        """Let so many faces wait, their paintings being loaded."""
        while not self._dry and len(self._waiting) < wanted:
            with self._stopwatch.section("input"):
                job, face = next(stream, (None, ""))
            if job is None:
                self._dry = True
            elif isinstance(face, str):
                self._results.append(_failure(job, (), face, self._transfer))
            elif face.shape[:2] != (self._height, self._width):
                postponed.append(job)
            else:
                self._waiting.append(self._with_next_painting(_Work(job, face)))

    def _with_next_painting(self, work: _Work) -> tuple[_Work, Future[LoadedPainting]]:
        size = (self._width, self._height)
        loading = self._pool.submit(load_painting, work.job.key, tuple(work.attempts), self._draw, self._settings, size)
        return work, loading

    def _start_waiting(self) -> None:
        started: list[int] = []
        for row, slot in enumerate(self._rows):
            if slot is None and (work := self._next_waiting()) is not None:
                self._rows[row] = work
                started.append(row)
        if not started:
            return
        works = [work for row in started if (work := self._rows[row]) is not None]
        contents = self._slots.start(
            started,
            [work.face for work in works],
            [work.painting for work in works],
            [work.content for work in works],
            [work.job.evaluations for work in works],
        )
        for work, content in zip(works, contents, strict=True):
            work.content = content

    def _next_waiting(self) -> _Work | None:
        """Take the first waiting face whose painting is loaded; None if there is no such face now."""
        while self._waiting:
            # An idle slot costs the CPU an evaluation, far more than the rest of a painting takes to load.
            if self._transfer.device.type == "cpu" or not any(self._rows):
                chosen = 0
            else:
                loaded = (at for at, (_, loading) in enumerate(self._waiting) if loading is None or loading.done())
                chosen = next(loaded, -1)
            if chosen < 0:
                return None
            work, loading = self._waiting[chosen]
            if loading is None:
                del self._waiting[chosen]
                return work
            with self._stopwatch.section("input"):
                painting = loading.result()
            del self._waiting[chosen]
            for attempt in painting.unreadable:
                self._record(work, attempt)
            if painting.pixels is not None:
                work.painting_id, work.painting = painting.painting, painting.pixels
                return work
            self._conclude(work, painting.verdict)
        return None

    def _collect(self) -> None:
        """Take the images of finished attempts out of their slots and have them encoded."""
        with self._stopwatch.section("network"):  # on CUDA, this waits for it
            stops = self._slots.stops()
        if all(stop is Stop.RUNNING for stop in stops):
            return
        evaluations = self._slots.optimiser.evaluations.tolist()
        for row, work in enumerate(self._rows):
            if work is not None and stops[row] is not Stop.RUNNING:
                fetch = self._transfer.fetch_pixels(self._slots.optimiser.x[row])
                encoding = self._pool.submit(_encode, fetch, self._settings.image_format)
                self._finished.append(_Finished(work, stops[row], evaluations[row], encoding))
                self._rows[row] = None

    def _settle(self) -> None:
        """Judge finished attempts by their images as stored, and conclude their faces or draw again."""
        if not self._finished:
            return
        settings, finished = self._settings, list(self._finished)
        with self._stopwatch.section("output"):
            encoded, stored = zip(*(attempt.encoding.result() for attempt in finished), strict=True)
            losses = self._transfer.losses_of_all(
                stored, [attempt.work.face for attempt in finished], [attempt.work.painting for attempt in finished]
            )
        self._finished.clear()  # not before: memory may have run out
        for row, (attempt, image) in enumerate(zip(finished, encoded, strict=True)):
            work = attempt.work
            self._record(
                work,
                Attempt(
                    painting=work.painting_id,
                    loss=float(losses.total[row]),
                    style_losses=tuple(losses.style[row].tolist()),
                    content_loss=float(losses.content[row]),
                    evaluations=attempt.evaluations,
                    stop_reason=attempt.stop.name.lower(),
                ),
            )
            verdict = judge(work.attempts, threshold=settings.threshold, max_attempts=settings.max_attempts)
            if verdict is Verdict.REDRAW:
                self._waiting.appendleft(self._with_next_painting(work))
            else:
                self._conclude(work, verdict, image)

    def _record(self, work: _Work, attempt: Attempt) -> None:
        work.attempts.append(attempt)
        self._on_attempt(work.job.key, attempt)

    def _conclude(self, work: _Work, verdict: Verdict, encoded: bytes | None = None) -> None:
        attempts = tuple(work.attempts)
        if verdict is Verdict.FAILED:
            count = len(attempts)
            last = f", the last because {attempts[-1].error}" if attempts else ""
            error = f"none of the {count} paintings drawn could be read{last}" if count else "there is no painting"
            self._results.append(_failure(work.job, attempts, error, self._transfer))
            return
        accepted = verdict is Verdict.ACCEPTED
        self._results.append(
            FaceResult(
                key=work.job.key,
                status=verdict.value,
                attempts=attempts,
                image=encoded if accepted else None,
                width=self._width if accepted else None,
                height=self._height if accepted else None,
                error=None,
                precision=self._transfer.precision,
            )
        )


def _encode(fetch: Callable[[], np.ndarray], image_format: str) -> tuple[bytes, np.ndarray]:
    """Encode an image, and give it back as a reader will see it."""
    pixels = fetch()
    encoded = encode_image(pixels, image_format)
    return encoded, pixels if image_format in LOSSLESS else decode_image(encoded)


def _failure(job: FaceJob, attempts: tuple[Attempt, ...], error: str, transfer: StyleTransfer) -> FaceResult:
    return FaceResult(job.key, Verdict.FAILED.value, attempts, None, None, None, error, transfer.precision)


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Tell memory that ran out, as PyTorch or CUDA's libraries say it, from other errors."""
    return isinstance(error, torch.OutOfMemoryError) or any(
        sign in str(error) for sign in ("can't allocate memory", "ALLOC_FAILED", "out of memory")
    )
