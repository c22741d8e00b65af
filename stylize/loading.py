"""Read, decode and fit faces and paintings: the work of the engine's loading threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stylize.decode import decode_image
from stylize.errors import ImageError
from stylize.fit import cover
from stylize.jobs import Draw, FaceJob
from stylize.retry import UNREADABLE_PAINTING, Attempt, Verdict, judge, judge_exhausted
from stylize.settings import MAX_WORKING_PIXELS, TransferSettings
from stylize.weights import MINIMUM_SIDE


@dataclass(frozen=True)
class LoadedPainting:
    """The next painting of a face, or the end of its attempts.

    Attributes:
        unreadable: The paintings drawn before it that could not be read.
        painting: Its id.
        pixels: uint8 [H, W, 3], fitted; None if there is none, and then `verdict` is about the face.
        verdict: REDRAW while there is a painting.

    """

    unreadable: tuple[Attempt, ...]
    painting: str
    pixels: np.ndarray | None
    verdict: Verdict


def load_face(job: FaceJob, settings: TransferSettings) -> np.ndarray | str:
    """Read, decode and fit a face; the reason if that fails."""
    try:
        face = decode_image(job.read())
    except ImageError as error:
        return str(error)
    if settings.size is not None:
        return cover(face, *settings.size)
    return unworkable(*face.shape[:2]) or face


def load_painting(
    key: str, attempts: Sequence[Attempt], draw: Draw, settings: TransferSettings, size: tuple[int, int]
) -> LoadedPainting:
    """Draw paintings for a face until one can be read or the retry rule ends it.

    Args:
        key: Of the face.
        attempts: Its attempts so far, none of them accepted.
        draw: See `stylize.jobs`.
        settings: For the retry rule.
        size: (width, height) of the face in pixels.

    """
    unreadable: list[Attempt] = []
    while True:
        so_far = [*attempts, *unreadable]
        verdict = judge(so_far, threshold=settings.threshold, max_attempts=settings.max_attempts)
        drawn = draw(key, len(so_far)) if verdict is Verdict.REDRAW else None
        if drawn is None:
            end = judge_exhausted(so_far) if verdict is Verdict.REDRAW else verdict
            return LoadedPainting(tuple(unreadable), "", None, end)
        try:
            pixels = cover(decode_image(drawn.read()), *size)
        except ImageError as error:
            unreadable.append(Attempt(drawn.painting, None, None, None, 0, UNREADABLE_PAINTING, str(error)))
            continue
        return LoadedPainting(tuple(unreadable), drawn.painting, pixels, Verdict.REDRAW)


def unworkable(height: int, width: int) -> str | None:
    """Say why an image of this size cannot be repainted as it is; None if it can."""
    if min(height, width) < MINIMUM_SIDE:
        return f"{width}x{height} is smaller than VGG-19 can see; the least side is {MINIMUM_SIDE} pixels"
    if height * width > MAX_WORKING_PIXELS:
        return f"{width}x{height} is too large to repaint at its own size; give a working size with --size"
    return None
