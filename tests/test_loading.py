"""Loading faces and paintings: what is refused and why, and drawing until a painting can be read."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylize.errors import ImageError
from stylize.fit import cover
from stylize.jobs import FaceJob, PaintingDraw
from stylize.loading import load_face, load_painting, unworkable
from stylize.retry import UNREADABLE_PAINTING, Attempt, Verdict
from stylize.settings import MAX_WORKING_PIXELS, TransferSettings
from tests.tiny_transfer import encoded, picture

SETTINGS = TransferSettings(max_attempts=3)
FACE, PAINTING = picture(1, 20, 24), picture(2, 60, 37)
GOOD = encoded(PAINTING)


def face(read: Callable[[], bytes], chosen: TransferSettings = SETTINGS) -> np.ndarray | str:
    return load_face(FaceJob("face", read), chosen)


def refuse() -> bytes:
    raise ImageError("the shelf is empty")


def missing() -> bytes:
    raise OSError("the disk is gone")


def tried(painting: str, loss: float | None) -> Attempt:
    if loss is None:
        return Attempt(painting, None, None, None, 0, UNREADABLE_PAINTING, "torn")
    return Attempt(painting, loss, (loss,), 0.0, 5, "evaluations")


# Faces


def test_a_face_comes_as_its_pixels():
    loaded = face(lambda: encoded(FACE))
    assert isinstance(loaded, np.ndarray)
    assert np.array_equal(loaded, FACE)
    assert loaded.dtype == np.uint8


def test_a_size_fits_every_face_even_one_too_small_or_too_large_for_itself():
    chosen = replace(SETTINGS, size=(24, 16))
    for picture_ in (FACE, picture(3, 5, 7), np.zeros((1, 1100, 3), np.uint8)):
        loaded = face(lambda pixels=picture_: encoded(pixels), chosen)  # type: ignore[misc]
        assert isinstance(loaded, np.ndarray)
        assert loaded.shape == (16, 24, 3)
        assert np.array_equal(loaded, cover(picture_, 24, 16))


@pytest.mark.parametrize(
    ("read", "reason"),
    [
        (refuse, "the shelf is empty"),
        (lambda: b"", "empty"),
        (lambda: encoded(FACE)[:60], "decoded"),
        (lambda: b"no image", "image"),
        (lambda: encoded(picture(1, 15, 40)), "40x15"),
        (lambda: encoded(picture(1, 40, 15)), "15x40"),
    ],
)
def test_what_is_wrong_with_a_face_is_said_in_a_sentence(read, reason):
    loaded = face(read)
    assert isinstance(loaded, str)
    assert reason in loaded


def test_an_error_of_the_disk_is_not_the_faces_fault():
    with pytest.raises(OSError, match="disk"):
        face(missing)


@pytest.mark.parametrize(
    ("height", "width", "reason"),
    [
        (16, 16, None),
        (15, 16, "16x15"),
        (16, 15, "15x16"),
        (1024, 1024, None),
        (1024, 1025, "--size"),
        (16, MAX_WORKING_PIXELS // 16, None),
        (17, MAX_WORKING_PIXELS // 16, "--size"),
    ],
)
def test_the_limits_of_a_workable_size_are_themselves_workable(height, width, reason):
    said = unworkable(height, width)
    assert said is None if reason is None else reason in str(said)


# Paintings


def drawing(kinds: str, asked: list[int]) -> Callable[[str, int], PaintingDraw | None]:
    """Draws by letters: "g" good, "b" not an image, "r" refused by its reader; no more after the last one."""
    readers = {"g": lambda: GOOD, "b": lambda: b"torn", "r": refuse}

    def draw(key: str, number: int) -> PaintingDraw | None:
        assert key == "face"
        asked.append(number)
        return PaintingDraw(f"p{number}", readers[kinds[number]]) if number < len(kinds) else None

    return draw


def test_a_painting_is_fitted_to_the_face():
    loaded = load_painting("face", (), drawing("g", []), SETTINGS, (24, 20))
    assert loaded.painting == "p0"
    assert loaded.verdict is Verdict.REDRAW
    assert loaded.unreadable == ()
    assert loaded.pixels is not None
    assert loaded.pixels.shape == (20, 24, 3)
    assert np.array_equal(loaded.pixels, cover(PAINTING, 24, 20))


def test_draws_go_on_from_the_attempts_there_are():
    asked: list[int] = []
    attempts = (tried("p0", 90.0), tried("p1", None))
    loaded = load_painting("face", attempts, drawing("gbrg", asked), SETTINGS, (24, 20))
    assert asked == [2, 3]
    assert loaded.painting == "p3"
    (refused,) = loaded.unreadable
    assert (refused.painting, refused.error, refused.loss) == ("p2", "the shelf is empty", None)
    assert (refused.stop_reason, refused.evaluations) == (UNREADABLE_PAINTING, 0)


def by_the_rule(kinds: str, attempts: Sequence[Attempt], limit: int) -> tuple[list[int], int | None, str]:
    """Draws asked for, the painting that comes of them, and the verdict, by counting."""
    asked: list[int] = []
    unreadable = sum(attempt.loss is None for attempt in attempts)
    readable = len(attempts) - unreadable
    while True:
        if readable >= limit:
            return asked, None, "rejected"
        end = "rejected" if readable else "failed"
        if unreadable >= limit:
            return asked, None, end
        number = readable + unreadable
        asked.append(number)
        if number >= len(kinds):
            return asked, None, end
        if kinds[number] == "g":
            return asked, number, "redraw"
        unreadable += 1


@given(
    kinds=st.text("gbr", max_size=9),
    before=st.lists(st.sampled_from([None, 90.0]), max_size=5),
    limit=st.integers(1, 4),
)
@settings(max_examples=150, deadline=None)
def test_paintings_are_drawn_until_one_is_readable_or_the_rule_ends_the_face(kinds, before, limit):
    attempts = [tried(f"p{number}", loss) for number, loss in enumerate(before)]
    asked: list[int] = []
    loaded = load_painting("face", attempts, drawing(kinds, asked), replace(SETTINGS, max_attempts=limit), (24, 20))
    wanted_asked, number, verdict = by_the_rule(kinds, attempts, limit)
    assert asked == wanted_asked
    assert loaded.verdict.value == verdict
    assert (loaded.pixels is None) == (number is None)
    assert loaded.painting == ("" if number is None else f"p{number}")
    readable_at_the_end = wanted_asked[: len(wanted_asked) - (number is not None)]
    assert [attempt.painting for attempt in loaded.unreadable] == [
        f"p{asked_for}" for asked_for in readable_at_the_end if asked_for < len(kinds)
    ]
    assert all(attempt.error for attempt in loaded.unreadable)


def test_an_error_of_the_disk_is_not_the_paintings_fault():
    with pytest.raises(OSError, match="disk"):
        load_painting("face", (), lambda key, number: PaintingDraw("p", missing), SETTINGS, (24, 20))


def test_an_error_of_the_draw_is_passed_on():
    def broken(key: str, number: int) -> PaintingDraw | None:
        raise LookupError("the catalogue is gone")

    with pytest.raises(LookupError, match="catalogue"):
        load_painting("face", (), broken, SETTINGS, (24, 20))
