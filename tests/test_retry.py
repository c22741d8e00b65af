"""The retry rule as a function of a face's attempts."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylize.retry import UNREADABLE_PAINTING, Attempt, Verdict, judge, judge_exhausted


def tried(loss: float) -> Attempt:
    return Attempt("p", loss, (loss,) * 5, loss, 7, "evaluations")


UNREADABLE = Attempt("p", None, None, None, 0, UNREADABLE_PAINTING, "the file is empty")


@pytest.mark.parametrize(
    ("attempts", "verdict"),
    [
        ([], Verdict.REDRAW),
        ([tried(39.999)], Verdict.ACCEPTED),
        ([tried(40.0)], Verdict.REDRAW),
        ([tried(math.inf)], Verdict.REDRAW),
        ([tried(math.nan)], Verdict.REDRAW),
        ([tried(90), tried(0)], Verdict.ACCEPTED),
        ([tried(90), tried(80), tried(70)], Verdict.REJECTED),
        ([tried(90), tried(80), tried(3)], Verdict.ACCEPTED),
        ([tried(math.nan)] * 3, Verdict.REJECTED),
        ([UNREADABLE], Verdict.REDRAW),
        ([UNREADABLE, tried(90), UNREADABLE, tried(90)], Verdict.REDRAW),
        ([UNREADABLE, tried(90), UNREADABLE, tried(90), tried(90)], Verdict.REJECTED),
        ([UNREADABLE, UNREADABLE, tried(1)], Verdict.ACCEPTED),
        ([UNREADABLE] * 3, Verdict.FAILED),
    ],
)
def test_the_rule(attempts, verdict):
    assert judge(attempts, threshold=40.0, max_attempts=3) is verdict


def test_a_face_of_which_an_attempt_was_read_has_not_failed():
    """ "Failed" means that it could not be tried; this one was, and lost."""
    attempts = [UNREADABLE, tried(90), UNREADABLE, UNREADABLE]
    assert judge(attempts, threshold=40.0, max_attempts=3) in {Verdict.REJECTED, Verdict.REDRAW}


@pytest.mark.parametrize(
    ("attempts", "verdict"),
    [
        ([], Verdict.FAILED),
        ([UNREADABLE], Verdict.FAILED),
        ([tried(90)], Verdict.REJECTED),
        ([tried(90), UNREADABLE], Verdict.REJECTED),
    ],
)
def test_when_nothing_is_left_to_draw(attempts, verdict):
    assert judge_exhausted(attempts) is verdict


@given(st.lists(st.one_of(st.none(), st.floats(0, 100)), max_size=60), st.integers(1, 6), st.floats(1, 99))
def test_every_face_comes_to_an_end(losses, max_attempts, threshold):
    """Fed any attempts for as long as the rule asks for another, it stops within a bound and never skips a success."""
    attempts: list[Attempt] = []
    for loss in losses:
        verdict = judge(attempts, threshold=threshold, max_attempts=max_attempts)
        if verdict is not Verdict.REDRAW:
            break
        attempts.append(UNREADABLE if loss is None else tried(loss))
    verdict = judge(attempts, threshold=threshold, max_attempts=max_attempts)
    readable = [attempt.loss for attempt in attempts if attempt.loss is not None]
    assert len(readable) <= max_attempts
    assert len(attempts) < 2 * max_attempts
    assert all(loss >= threshold for loss in readable[:-1])
    assert (verdict is Verdict.ACCEPTED) == bool(readable and readable[-1] < threshold)
    if len(losses) >= 2 * max_attempts:
        assert verdict is not Verdict.REDRAW
