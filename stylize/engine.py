"""The in-flight engine: fixed slots, each with a face under repainting; who finishes makes room for the next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from stylize.decode import decode_image
from stylize.encode import LOSSLESS, encode_image
from stylize.errors import ImageError
from stylize.fit import cover
from stylize.lbfgs import BatchedLBFGS, Stop
from stylize.objective import Targets
from stylize.preconditioner import LowPassPreconditioner
from stylize.prefetch import prefetch
from stylize.retry import UNREADABLE_PAINTING, Attempt, Verdict, judge, judge_exhausted
from stylize.settings import MAX_WORKING_PIXELS
from stylize.transfer import StyleTransfer
from stylize.weights import MINIMUM_SIDE

# Relative rounding error of a loss that the line search must not take for an increase.
_SLACK = {"fp32": 1e-6, "tf32": 1e-5, "bf16": 1e-4}
_POLL_CUDA = 4  # evaluations between two looks at who has finished: each look waits for the device


@dataclass(frozen=True)
class FaceJob:
    """A face to repaint: its key, and how to get its encoded image (`ImageError` if that fails)."""

    key: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class PaintingDraw:
    """A painting drawn for a face: its id, and how to get its encoded image (`ImageError` if that fails)."""

    painting: str
    read: Callable[[], bytes]


# (face key, number of the draw from 0) → the painting; None when no further one may be drawn.
Draw = Callable[[str, int], PaintingDraw | None]


@dataclass(frozen=True)
class FaceResult:
    """What became of a face.

    Attributes:
        key: Of its job.
        status: "accepted", "rejected" (no attempt was under the threshold) or "failed" (could not be tried).
        attempts: All of them, in order; the last one of an accepted face is the proxy's.
        image: The proxy, encoded as it is to be stored; None unless accepted.
        width, height: Of the proxy in pixels; None unless accepted.
        error: One sentence; None unless failed.
        precision: Of the convolutions, resolved ("fp32", "tf32" or "bf16").

    """

    key: str
    status: str
    attempts: tuple[Attempt, ...]
    image: bytes | None
    width: int | None
    height: int | None
    error: str | None
    precision: str


@dataclass
class _Work:
    """A face in a slot: its pixels, the painting of the current attempt, and the attempts before."""

    job: FaceJob
    face: np.ndarray
    painting: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint8))
    painting_id: str = ""
    draws: int = 0
    attempts: list[Attempt] = field(default_factory=list)


def repaint(
    faces: Iterable[FaceJob],
    draw: Draw,
    transfer: StyleTransfer,
    *,
    batch_size: int | None = None,
    on_attempt: Callable[[str, Attempt], None] = lambda key, attempt: None,
) -> Iterator[FaceResult]:
    """Repaint faces, each with paintings drawn until one attempt is under the threshold.

    A face's result depends on its own pixels, its draws and the settings, never on its batchmates.

    Args:
        faces: Consumed as slots become free. Faces of another size than the first wait for a pass of their own.
        draw: Called for a face with 0, 1, 2, … as it needs paintings.
        transfer: The loaded network and settings.
        batch_size: Slots; None chooses by device and image size.
        on_attempt: Called after every attempt, unreadable paintings included.

    Yields:
        One result per face, in the order in which they finish.

    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"the batch size must be at least 1, got {batch_size}")
    jobs: list[FaceJob] = []
    while True:
        # Closed even while an exception is on its way, whose traceback would keep the reading thread alive.
        with closing(prefetch(faces, lambda job: load_face(job, transfer))) as stream:
            for job, face in stream:
                if isinstance(face, np.ndarray):
                    break
                yield _failure(job, (), face, transfer)
            else:
                return
            engine = _Engine(transfer, draw, face.shape[:2], batch_size, on_attempt)
            yield from engine.run(chain([(job, face)], stream), postponed=jobs)
        faces, jobs = jobs, []


def choose_batch_size(transfer: StyleTransfer, height: int, width: int) -> int:
    """Slots for images of this size: few on the CPU, where more save nothing; on CUDA, 60 % of free memory."""
    if transfer.device.type != "cuda":
        return 4 if height * width <= 512 * 512 else 1
    free, _ = torch.cuda.mem_get_info(transfer.device)
    # Per pixel, measured on the layers up to conv5_1: activations kept for backward, their gradients, workspace; then
    # the optimiser's history and vectors.
    element = 2 if transfer.precision == "bf16" else 4
    per_pixel = 700 * element + 3 * 4 * (2 * transfer.settings.history + 12)
    return int(max(1, min(256, 0.6 * free // (per_pixel * height * width))))


def make_optimiser(transfer: StyleTransfer, rows: int, size: Sequence[int]) -> BatchedLBFGS:
    """Make the optimiser that the settings describe, for `rows` images of size (height, width)."""
    settings, (height, width) = transfer.settings, size
    low_pass = LowPassPreconditioner(height, width, exponent=settings.filter_exponent, device=transfer.device)
    return BatchedLBFGS(
        rows,
        (3, height, width),
        history=settings.history,
        max_evaluations=settings.evaluations,
        precondition=low_pass if settings.filter_exponent else None,
        tolerance=settings.tolerance,
        slack=_SLACK[transfer.precision],
        device=transfer.device,
    )


class _Engine:
    """Slots for faces of one size."""

    def __init__(
        self,
        transfer: StyleTransfer,
        draw: Draw,
        size: Sequence[int],
        batch_size: int | None,
        on_attempt: Callable[[str, Attempt], None],
    ) -> None:
        self._transfer = transfer
        self._settings = transfer.settings
        self._draw = draw
        self._on_attempt = on_attempt
        self._height, self._width = size
        self._slots: list[_Work | None] = [None] * (batch_size or choose_batch_size(transfer, *size))
        self._targets: Targets | None = None
        self._results: deque[FaceResult] = deque()
        self._optimiser = make_optimiser(transfer, len(self._slots), size)

    def run(self, stream: Iterator[tuple[FaceJob, np.ndarray | str]], postponed: list[FaceJob]) -> Iterator[FaceResult]:
        """Repaint the stream's faces of this engine's size; append jobs of other sizes to `postponed`."""
        poll = _POLL_CUDA if self._transfer.device.type == "cuda" else 1
        while True:
            self._fill(stream, postponed)
            yield from self._drain()
            if self._targets is None or not any(self._slots):
                return
            for _ in range(poll):
                self._optimiser.tell(*self._transfer.value_and_gradient(self._optimiser.trial, self._targets))
            stops = self._optimiser.stop.tolist()
            for row, work in enumerate(self._slots):
                if work is not None and stops[row] != Stop.RUNNING:
                    self._finish(row, work, Stop(stops[row]))
            yield from self._drain()

    def _drain(self) -> Iterator[FaceResult]:
        while self._results:
            yield self._results.popleft()

    def _fill(self, stream: Iterator[tuple[FaceJob, np.ndarray | str]], postponed: list[FaceJob]) -> None:
        for row, slot in enumerate(self._slots):
            if slot is None and (work := self._next_work(stream, postponed)) is not None:
                self._start(row, work, new_face=True)
        if None in self._slots and any(self._slots):
            self._compact()

    def _next_work(self, stream: Iterator[tuple[FaceJob, np.ndarray | str]], postponed: list[FaceJob]) -> _Work | None:
        for job, face in stream:
            if isinstance(face, str):
                self._results.append(_failure(job, (), face, self._transfer))
            elif face.shape[:2] != (self._height, self._width):
                postponed.append(job)
            else:
                work = _Work(job, face)
                if self._draw_painting(work):
                    return work
        return None

    def _draw_painting(self, work: _Work) -> bool:
        """Draw until a painting can be read; if the retry rule ends the face before, record its result."""
        settings = self._settings
        while True:
            verdict = judge(work.attempts, threshold=settings.threshold, max_attempts=settings.max_attempts)
            drawn = self._draw(work.job.key, work.draws) if verdict is Verdict.REDRAW else None
            if drawn is None:
                self._conclude(work, judge_exhausted(work.attempts) if verdict is Verdict.REDRAW else verdict)
                return False
            work.draws += 1
            work.painting_id = drawn.painting
            try:
                work.painting = cover(decode_image(drawn.read()), self._width, self._height)
                return True
            except ImageError as error:
                self._record(work, Attempt(drawn.painting, None, None, None, 0, UNREADABLE_PAINTING, str(error)))

    def _start(self, row: int, work: _Work, *, new_face: bool) -> None:
        """Begin an attempt in a slot; a face that stays keeps its content target."""
        face = self._transfer.to_device(work.face)[None]
        grams = self._transfer.style_targets(self._transfer.to_device(work.painting)[None])
        content = self._transfer.content_target(face) if new_face or self._targets is None else None
        if self._targets is None:
            assert content is not None
            self._targets = Targets(
                tuple(_rows_like(gram, len(self._slots)) for gram in grams), _rows_like(content, len(self._slots))
            )
        for target, gram in zip(self._targets.grams, grams, strict=True):
            target[row] = gram[0]
        if content is not None:
            self._targets.content[row] = content[0]
        self._slots[row] = work
        self._optimiser.start(row, face[0])

    def _compact(self) -> None:
        """Drop empty slots: nothing will fill them any more, and the network would go on evaluating them."""
        assert self._targets is not None
        rows = [row for row, slot in enumerate(self._slots) if slot is not None]
        self._slots = [self._slots[row] for row in rows]
        self._optimiser.keep(rows)
        self._targets = Targets(tuple(gram[rows] for gram in self._targets.grams), self._targets.content[rows])

    def _finish(self, row: int, work: _Work, stop: Stop) -> None:
        """Judge a finished attempt by its image as stored; start the next attempt or conclude the face."""
        pixels = self._transfer.to_pixels(self._optimiser.x[row])
        encoded = encode_image(pixels, self._settings.image_format)
        stored = pixels if self._settings.image_format in LOSSLESS else decode_image(encoded)
        losses = self._transfer.losses(stored, work.face, work.painting)
        attempt = Attempt(
            painting=work.painting_id,
            loss=float(losses.total[0]),
            style_losses=tuple(losses.style[0].tolist()),
            content_loss=float(losses.content[0]),
            evaluations=int(self._optimiser.evaluations[row]),
            stop_reason=stop.name.lower(),
        )
        self._record(work, attempt)
        settings = self._settings
        verdict = judge(work.attempts, threshold=settings.threshold, max_attempts=settings.max_attempts)
        if verdict is not Verdict.REDRAW:
            self._conclude(work, verdict, encoded)
        elif self._draw_painting(work):
            self._start(row, work, new_face=False)
            return
        self._slots[row] = None

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


def load_face(job: FaceJob, transfer: StyleTransfer) -> np.ndarray | str:
    """Read, decode and fit a face; the reason if that fails."""
    try:
        face = decode_image(job.read())
    except ImageError as error:
        return str(error)
    if transfer.settings.size is not None:
        return cover(face, *transfer.settings.size)
    return unworkable(*face.shape[:2]) or face


def unworkable(height: int, width: int) -> str | None:
    """Say why an image of this size cannot be repainted as it is; None if it can."""
    if min(height, width) < MINIMUM_SIDE:
        return f"{width}x{height} is smaller than VGG-19 can see; the least side is {MINIMUM_SIDE} pixels"
    if height * width > MAX_WORKING_PIXELS:
        return f"{width}x{height} is too large to repaint at its own size; give a working size with --size"
    return None


def _failure(job: FaceJob, attempts: tuple[Attempt, ...], error: str, transfer: StyleTransfer) -> FaceResult:
    return FaceResult(job.key, Verdict.FAILED.value, attempts, None, None, None, error, transfer.precision)


def _rows_like(tensor: Tensor, rows: int) -> Tensor:
    return torch.zeros((rows, *tensor.shape[1:]), dtype=tensor.dtype, device=tensor.device)
