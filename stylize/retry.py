"""The retry rule: while the final loss is not under the threshold, draw the next painting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

UNREADABLE_PAINTING = "unreadable_painting"


@dataclass(frozen=True)
class Attempt:
    """What came of one painting drawn for a face.

    Attributes:
        painting: Its id.
        loss: Final total loss in loss units, in fp32, of the image as stored; None for an unreadable painting.
        style_losses: E_s of each style layer; None likewise.
        content_loss: E_c, without α; None likewise.
        evaluations: Of the objective, used up by this attempt.
        stop_reason: "evaluations", "converged", "hopeless", "line_search", "not_finite" or "unreadable_painting". Only
            the loss decides: a "hopeless" attempt that rounding puts under the threshold after all is accepted.
        error: Why the painting could not be read.

    """

    painting: str
    loss: float | None
    style_losses: tuple[float, ...] | None
    content_loss: float | None
    evaluations: int
    stop_reason: str
    error: str | None = None


class Verdict(Enum):
    """What happens to a face after an attempt."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    FAILED = "failed"
    REDRAW = "redraw"


def judge(attempts: Sequence[Attempt], *, threshold: float, max_attempts: int) -> Verdict:
    """Decide on a face from its attempts so far (PersonArt Sec. 5: repeat until the loss is under the threshold).

    A loss that is not a number is not under the threshold. Unreadable paintings do not count as attempts, since they
    say nothing of the face; but at `max_attempts` of them no more are drawn (our bound: the folder is broken).

    Args:
        attempts: In the order drawn; empty means nothing was drawn yet.
        threshold: In loss units.
        max_attempts: At least 1.

    """
    unreadable = sum(attempt.stop_reason == UNREADABLE_PAINTING for attempt in attempts)
    if attempts and attempts[-1].loss is not None and attempts[-1].loss < threshold:
        return Verdict.ACCEPTED
    if len(attempts) - unreadable >= max_attempts:
        return Verdict.REJECTED
    return judge_exhausted(attempts) if unreadable >= max_attempts else Verdict.REDRAW


def judge_exhausted(attempts: Sequence[Attempt]) -> Verdict:
    """Decide on a face for which no further painting may be drawn: failed if not one could be read."""
    readable = any(attempt.stop_reason != UNREADABLE_PAINTING for attempt in attempts)
    return Verdict.REJECTED if readable else Verdict.FAILED
