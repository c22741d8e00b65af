"""What goes into the engine and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stylize.retry import Attempt


@dataclass(frozen=True)
class FaceJob:
    """A face to repaint.

    Attributes:
        key: Its name.
        read: Gets its encoded image (`ImageError` if that fails); called in another thread.
        evaluations: Budget of each of its attempts; None is the settings'.

    """

    key: str
    read: Callable[[], bytes]
    evaluations: int | None = None


@dataclass(frozen=True)
class PaintingDraw:
    """A painting drawn for a face: its id, and how to get its encoded image (`ImageError` if that fails)."""

    painting: str
    read: Callable[[], bytes]


# (face key, number of the draw from 0) → the painting; None when no further one may be drawn. Called in other threads.
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
