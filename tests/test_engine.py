"""The engine against the retry rule played out by hand: each face alone, each attempt by `trace`."""

import copy
import dataclasses
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import stylize.engine
from stylize.batch_size import choose_batch_size
from stylize.decode import decode_image
from stylize.encode import IMAGE_FORMATS
from stylize.engine import repaint
from stylize.errors import DeviceMemoryError, ImageError
from stylize.fit import cover
from stylize.jobs import Draw, FaceJob, FaceResult, PaintingDraw
from stylize.lbfgs import BatchedLBFGS
from stylize.objective import Targets
from stylize.retry import UNREADABLE_PAINTING, Attempt
from stylize.settings import MAX_WORKING_PIXELS
from stylize.slots import Slots
from stylize.stopwatch import Stopwatch
from stylize.trajectory import trace
from stylize.transfer import StyleTransfer
from tests.tiny_transfer import encoded, picture, transfer

SIZES = [(20, 24), (20, 24), (24, 20), (20, 24), (24, 20)]
FACES = {f"face{number}": picture(number, *size) for number, size in enumerate(SIZES)}
PAINTINGS = {f"painting{number}": picture(100 + number, 30 + 5 * number, 40) for number in range(4)}
ENCODED = {name: encoded(image) for name, image in {**FACES, **PAINTINGS}.items()}
MAX_ATTEMPTS = 3


def job(key: str, data: bytes | None = None) -> FaceJob:
    return FaceJob(key, lambda: ENCODED[key] if data is None else data)


def order(key: str) -> list[str]:
    """The paintings of a face: each once, from a place of its own."""
    start = int(key[-1])
    return [f"painting{(start + number) % len(PAINTINGS)}" for number in range(len(PAINTINGS))]


def draw(key: str, number: int) -> PaintingDraw | None:
    names = order(key)
    return PaintingDraw(names[number], lambda: ENCODED[names[number]]) if number < len(names) else None


def with_unreadable(*broken: str, data: bytes = b"torn") -> Draw:
    def drawn(key: str, number: int) -> PaintingDraw | None:
        painting = draw(key, number)
        if painting is None or painting.painting not in broken:
            return painting
        return PaintingDraw(painting.painting, lambda: data)

    return drawn


@cache
def loss_of(key: str, painting: str) -> float:
    """Loss of a face with a painting, alone."""
    face = FACES[key]
    fitted = cover(PAINTINGS[painting], face.shape[1], face.shape[0])
    (trajectory,) = trace(transfer(), [face], [fitted], batch_size=1)
    return float(trajectory.final.total)


@cache
def middle_threshold() -> float:
    """A threshold that some faces pass at once, some later, and some never."""
    first = sorted(min(loss_of(key, name) for name in order(key)[:MAX_ATTEMPTS]) for key in FACES)
    return (first[-2] + first[-1]) / 2


def expected(key: str, threshold: float, unreadable: tuple[str, ...] = ()) -> tuple[str, list[str]]:
    """Status and paintings tried of a face, by the rule."""
    tried: list[str] = []
    counted = 0
    for name in order(key):
        tried.append(name)
        if name in unreadable:
            continue
        counted += 1
        if loss_of(key, name) < threshold:
            return "accepted", tried
        if counted == MAX_ATTEMPTS:
            return "rejected", tried
    return "rejected", tried


def run(subject: StyleTransfer, jobs: list[FaceJob], draws: Draw = draw, **options: Any) -> dict[str, FaceResult]:
    results = list(repaint(jobs, draws, subject, **options))
    assert sorted(result.key for result in results) == sorted(job.key for job in jobs)
    return {result.key: result for result in results}


def check(result: FaceResult, subject: StyleTransfer) -> None:
    """What holds for every result."""
    assert result.status in {"accepted", "rejected", "failed"}
    assert (result.image is None) == (result.status != "accepted")
    assert (result.width is None) == (result.height is None) == (result.status != "accepted")
    assert (result.error is None) == (result.status != "failed")
    assert result.precision == subject.precision
    for attempt in result.attempts:
        readable = attempt.stop_reason != UNREADABLE_PAINTING
        assert readable == (attempt.loss is not None) == (attempt.error is None)
        if readable:
            assert attempt.style_losses is not None
            assert attempt.content_loss is not None
            assert attempt.loss == pytest.approx(sum(attempt.style_losses) + 0.02 * attempt.content_loss, rel=1e-5)
            assert 1 <= attempt.evaluations <= subject.settings.evaluations


def summary(results: dict[str, FaceResult]) -> dict[str, tuple[str, list[str]]]:
    return {key: (result.status, [a.painting for a in result.attempts]) for key, result in results.items()}


@pytest.fixture(scope="module")
def by_batch_size() -> dict[int, dict[str, FaceResult]]:
    subject = transfer(threshold=middle_threshold())
    return {size: run(subject, [job(key) for key in FACES], batch_size=size) for size in (1, 2, 5)}


def test_statuses_and_attempts_are_those_of_the_rule(by_batch_size):
    threshold = middle_threshold()
    wanted = {key: expected(key, threshold) for key in FACES}
    assert {status for status, _ in wanted.values()} == {"accepted", "rejected"}
    assert len({len(tried) for _, tried in wanted.values()}) > 1
    for size, results in by_batch_size.items():
        assert summary(results) == wanted, size
        for result in results.values():
            check(result, transfer(threshold=threshold))
            for attempt in result.attempts:
                assert attempt.loss == pytest.approx(loss_of(result.key, attempt.painting), rel=1e-6)


def test_no_result_depends_on_the_batch_size(by_batch_size):
    first, *others = by_batch_size.values()
    for results in others:
        for key, result in results.items():
            assert result.image == first[key].image
            for a, b in zip(result.attempts, first[key].attempts, strict=True):
                assert a.loss == pytest.approx(b.loss, rel=1e-6)
                assert (a.evaluations, a.stop_reason) == (b.evaluations, b.stop_reason)


def test_no_result_depends_on_the_order_of_the_faces(by_batch_size):
    subject = transfer(threshold=middle_threshold())
    results = run(subject, [job(key) for key in reversed(FACES)], batch_size=3)
    assert {key: result.image for key, result in results.items()} == {
        key: result.image for key, result in by_batch_size[1].items()
    }


def test_the_threshold_itself_is_not_under_the_threshold():
    loss = loss_of("face0", "painting0")
    assert run(transfer(threshold=loss, max_attempts=1), [job("face0")])["face0"].status == "rejected"
    just_above = float(np.nextafter(loss, np.inf))
    assert run(transfer(threshold=just_above, max_attempts=1), [job("face0")])["face0"].status == "accepted"


@pytest.mark.parametrize("image_format", sorted(IMAGE_FORMATS))
def test_the_recorded_loss_is_that_of_the_stored_image(image_format):
    subject = transfer(image_format=image_format)
    result = run(subject, [job("face2")])["face2"]
    check(result, subject)
    assert result.image is not None
    stored = decode_image(result.image)
    assert stored.shape == (24, 20, 3)
    assert (result.width, result.height) == (20, 24)
    painting = cover(PAINTINGS["painting2"], 20, 24)
    losses = subject.losses(stored, FACES["face2"], painting)
    (attempt,) = result.attempts
    assert attempt.loss == float(losses.total)
    assert attempt.style_losses == tuple(losses.style[0].tolist())
    assert attempt.content_loss == float(losses.content)


def test_every_attempt_is_told_once_and_every_draw_asked_for_in_order_and_only_as_needed():
    told: list[tuple[str, Attempt]] = []
    asked: dict[str, list[int]] = {key: [] for key in FACES}
    broken = with_unreadable("painting1")

    def recorded(key: str, number: int) -> PaintingDraw | None:
        asked[key].append(number)
        return broken(key, number)

    subject = transfer(threshold=middle_threshold())
    results = run(
        subject,
        [job(key) for key in FACES],
        recorded,
        batch_size=2,
        on_attempt=lambda key, attempt: told.append((key, attempt)),
    )
    for key, result in results.items():
        assert tuple(attempt for told_key, attempt in told if told_key == key) == result.attempts
        assert asked[key] in (list(range(len(result.attempts))), list(range(len(PAINTINGS) + 1)))
    assert len(told) == sum(len(result.attempts) for result in results.values())


# Bad input


def test_an_unreadable_painting_costs_an_attempt_of_its_own_kind():
    threshold = middle_threshold()
    subject = transfer(threshold=threshold)
    results = run(
        subject,
        [job(key) for key in FACES],
        with_unreadable("painting2", data=ENCODED["painting2"][:200]),
        batch_size=2,
    )
    assert summary(results) == {key: expected(key, threshold, ("painting2",)) for key in FACES}
    seen = 0
    for result in results.values():
        check(result, subject)
        for attempt in result.attempts:
            assert (attempt.stop_reason == UNREADABLE_PAINTING) == (attempt.painting == "painting2")
            if attempt.painting == "painting2":
                seen += 1
                assert attempt.error
                assert attempt.evaluations == 0
    assert seen


def test_an_image_error_of_the_reader_is_an_unreadable_painting():
    def refuse() -> bytes:
        raise ImageError("the shelf is empty")

    def drawn(key: str, number: int) -> PaintingDraw | None:
        return PaintingDraw("lost", refuse) if number == 0 else draw(key, number)

    result = run(transfer(), [job("face0")], drawn)["face0"]
    assert result.status == "accepted"
    assert [attempt.error for attempt in result.attempts] == ["the shelf is empty", None]


def test_corrupt_faces_fail_with_the_reason_and_others_are_as_without_them():
    def refuse() -> bytes:
        raise ImageError("the shelf is empty")

    subject = transfer()
    corrupt = [
        job("face7", b""),
        job("face8", ENCODED["face0"][:-30]),
        FaceJob("face9", refuse),
        job("small", encoded(picture(1, 15, 40))),
    ]
    good = [job("face0"), job("face2"), job("face1")]
    results = run(subject, [corrupt[0], good[0], corrupt[1], corrupt[2], *good[1:], corrupt[3]], batch_size=2)
    for broken in corrupt:
        result = results[broken.key]
        check(result, subject)
        assert result.status == "failed"
        assert not result.attempts
    assert results["face9"].error == "the shelf is empty"
    assert "40x15" in str(results["small"].error)
    alone = run(subject, good, batch_size=2)
    assert {key: results[key].image for key in alone} == {key: result.image for key, result in alone.items()}


def test_nothing_but_corrupt_faces():
    results = run(transfer(), [job(f"x{number}", b"x") for number in range(12)])
    assert {result.status for result in results.values()} == {"failed"}
    assert run(transfer(), []) == {}


def test_a_face_too_large_to_repaint_fails_and_with_a_size_it_does_not():
    side = int(MAX_WORKING_PIXELS**0.5) + 1
    large = encoded(Image.new("RGB", (side, side), (90, 60, 30)))
    result = run(transfer(), [job("face0", large)])["face0"]
    assert result.status == "failed"
    assert "--size" in str(result.error)
    assert run(transfer(size=(24, 20)), [job("face0", large)])["face0"].status == "accepted"


def test_all_paintings_corrupt_fails_the_face_and_says_how_many():
    subject = transfer()
    results = run(subject, [job("face0"), job("face3")], with_unreadable(*PAINTINGS))
    for result in results.values():
        check(result, subject)
        assert result.status == "failed"
        assert len(result.attempts) == MAX_ATTEMPTS
        assert f"none of the {MAX_ATTEMPTS} paintings" in str(result.error)


def test_a_face_that_one_readable_painting_was_tried_on_is_not_said_to_have_had_none():
    draws = with_unreadable("painting0", "painting2", "painting3")
    result = run(transfer(threshold=1e-6), [job("face0")], draws)["face0"]
    assert [attempt.loss is None for attempt in result.attempts] == [True, False, True, True]
    assert "none of" not in str(result.error)
    assert result.status == "rejected"


def test_no_painting_at_all_fails_the_face():
    subject = transfer()
    result = run(subject, [job("face0")], lambda key, number: None)["face0"]
    check(result, subject)
    assert (result.status, result.attempts) == ("failed", ())


def test_draws_may_run_out_before_the_attempts():
    def one_only(key: str, number: int) -> PaintingDraw | None:
        return draw(key, number) if number == 0 else None

    results = run(transfer(threshold=1e-6, evaluations=2), [job(key) for key in FACES], one_only, batch_size=2)
    assert summary(results) == {key: ("rejected", order(key)[:1]) for key in FACES}


# Sizes


def test_a_size_is_used_for_every_face():
    subject = transfer(size=(26, 18))
    results = run(subject, [job(key) for key in ("face0", "face2")], batch_size=2)
    for key, result in results.items():
        assert result.image is not None
        assert decode_image(result.image).shape == (18, 26, 3)
        face, painting = cover(FACES[key], 26, 18), cover(PAINTINGS[order(key)[0]], 26, 18)
        assert result.attempts[0].loss == float(subject.losses(decode_image(result.image), face, painting).total)


def test_results_keep_each_faces_own_size(by_batch_size):
    accepted = [result for result in by_batch_size[2].values() if result.image is not None]
    assert {(result.height, result.width) for result in accepted} == {(20, 24), (24, 20)}
    for result in accepted:
        assert result.image is not None
        assert (result.height, result.width) == FACES[result.key].shape[:2]
        assert decode_image(result.image).shape == FACES[result.key].shape


def test_slots_that_nothing_will_fill_are_not_evaluated(monkeypatch):
    """The face in the first slot ends first, so the others move up, and their targets with them."""
    keys = sorted(("face0", "face1", "face3"), key=lambda key: loss_of(key, order(key)[0]))
    threshold = float(np.nextafter(loss_of(keys[0], order(keys[0])[0]), np.inf))
    rows: list[int] = []
    subject = transfer(threshold=threshold)
    plain = subject.value_and_gradient

    def counted(images: torch.Tensor, targets: Targets) -> tuple[torch.Tensor, torch.Tensor]:
        rows.append(len(images))
        return plain(images, targets)

    monkeypatch.setattr(subject, "value_and_gradient", counted)
    results = run(subject, [job(key) for key in keys], batch_size=8)
    assert summary(results) == {key: expected(key, threshold) for key in keys}
    assert (max(rows), len(results[keys[0]].attempts)) == (3, 1)
    assert rows == sorted(rows, reverse=True)
    assert sum(rows) == sum(attempt.evaluations for result in results.values() for attempt in result.attempts)
    for result in results.values():
        for attempt in result.attempts:
            assert attempt.loss == pytest.approx(loss_of(result.key, attempt.painting), rel=1e-6)


@pytest.mark.parametrize("batch_size", [-1, 0])
def test_a_batch_size_below_one_is_an_error_and_not_a_loss_of_faces(batch_size):
    with pytest.raises(ValueError, match="batch"):
        list(repaint([job("face0")], draw, transfer(), batch_size=batch_size))


def test_the_default_batch_size_works():
    assert choose_batch_size(transfer(), 20, 24) >= 1
    assert run(transfer(), [job("face0")])["face0"].status == "accepted"


def test_targets_are_computed_in_the_working_precision(monkeypatch):
    """Outside its context, "fp32" means TF32 to cuDNN by PyTorch's default."""
    allowed: list[bool] = []
    subject = transfer()
    for name in ("style_targets", "content_target"):
        plain: Callable[[torch.Tensor], object] = getattr(subject.objective, name)

        def recorded(images: torch.Tensor, plain: Callable[[torch.Tensor], object] = plain) -> object:
            allowed.append(torch.backends.cudnn.allow_tf32)
            return plain(images)

        monkeypatch.setattr(subject.objective, name, recorded)
    run(subject, [job("face0")])
    list(trace(subject, [FACES["face0"]], [FACES["face1"]]))
    assert allowed
    assert not any(allowed)


# Streams and threads


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_results_come_before_all_faces_are_read():
    read = 0

    def read_one() -> bytes:
        nonlocal read
        read += 1
        return ENCODED["face0"]

    def endless() -> Iterator[FaceJob]:
        number = 0
        while True:
            yield FaceJob(f"f{number}", read_one)
            number += 1

    stream = repaint(endless(), lambda key, number: draw("face0", number), transfer(evaluations=1), batch_size=2)
    assert [next(stream).status for _ in range(3)] == ["accepted"] * 3
    assert read < 20
    stream.close()  # type: ignore[attr-defined]
    gc.collect()
    assert not workers()


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_closing_early_leaves_no_thread(taken):
    stream = repaint([job(key) for key in FACES] * 4, draw, transfer(evaluations=1), batch_size=2)
    for _ in range(taken):
        next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert not workers()


def test_an_exception_in_draw_propagates_and_leaves_no_thread():
    def broken(key: str, number: int) -> PaintingDraw | None:
        raise LookupError("the catalogue is gone")

    with pytest.raises(LookupError, match="gone"):
        list(repaint([job(key) for key in FACES] * 4, broken, transfer()))
    gc.collect()
    assert not workers()


def test_no_thread_waits_for_the_exception_to_be_forgotten():
    def broken(key: str, number: int) -> PaintingDraw | None:
        raise LookupError("the catalogue is gone")

    with pytest.raises(LookupError) as kept:
        list(repaint([job(key) for key in FACES] * 4, broken, transfer()))
    assert kept.value
    assert not workers()


def test_an_exception_that_is_no_image_error_propagates_from_readers():
    def broken() -> bytes:
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="disk"):
        list(repaint([job("face0"), FaceJob("face1", broken)], draw, transfer()))
    with pytest.raises(OSError, match="disk"):
        list(repaint([job("face0")], lambda key, number: PaintingDraw("p", broken), transfer()))
    gc.collect()
    assert not workers()


def test_loading_in_threads_does_not_touch_the_random_state():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    run(transfer(), [job("face0")])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_bfloat16_gives_the_same_statuses_by_a_clear_threshold():
    losses = sorted(loss_of(key, order(key)[0]) for key in FACES)
    gaps = [(b / a, (a * b) ** 0.5) for a, b in pairwise(losses)]
    threshold = max(gaps)[1]
    wanted = {key: "accepted" if loss_of(key, order(key)[0]) < threshold else "rejected" for key in FACES}
    subject = transfer(threshold=threshold, max_attempts=1, precision="bf16")
    results = run(subject, [job(key) for key in FACES], batch_size=3)
    assert {result.precision for result in results.values()} == {"bf16"}
    assert {key: result.status for key, result in results.items()} == wanted


# Out of memory


Guard = Callable[[int], None]


def no_room_for_more_than(rows: int, refused: list[int]) -> Guard:
    def guard(asked: int) -> None:
        if asked > rows:
            refused.append(asked)
            raise torch.OutOfMemoryError(f"no room for {asked}")

    return guard


def guarded(monkeypatch: pytest.MonkeyPatch, subject: StyleTransfer, name: str, guard: Guard) -> None:
    """Have a method of the transfer whose first argument is a batch ask the guard first."""
    plain: Callable[..., Any] = getattr(subject, name)

    def asking(batch: Any, *others: Any) -> Any:
        guard(len(batch))
        return plain(batch, *others)

    monkeypatch.setattr(subject, name, asking)


def same(results: dict[str, FaceResult], wanted: dict[str, FaceResult]) -> None:
    assert results.keys() == wanted.keys()
    for key, result in results.items():
        assert result == wanted[key]


@pytest.fixture
def asked() -> dict[str, list[int]]:
    return {key: [] for key in FACES}


def recorded(asked: dict[str, list[int]]) -> Draw:
    def drawn(key: str, number: int) -> PaintingDraw | None:
        asked[key].append(number)
        return draw(key, number)

    return drawn


@pytest.mark.parametrize("method", ["value_and_gradient", "style_targets", "content_target"])
@pytest.mark.parametrize("room", [1, 2, 4])
def test_where_memory_runs_out_every_result_is_the_same_in_fewer_slots(monkeypatch, by_batch_size, asked, method, room):
    subject = transfer(threshold=middle_threshold())
    refused: list[int] = []
    guarded(monkeypatch, subject, method, no_room_for_more_than(room, refused))
    told: dict[str, list[Attempt]] = {key: [] for key in FACES}
    # Faces of one size: more of them at once than there is room for.
    keys = [key for key in FACES if FACES[key].shape == (20, 24, 3)] * 3
    jobs = [FaceJob(f"{number}{key}", job(key).read) for number, key in enumerate(keys)]
    asked.update({job.key: [] for job in jobs})
    told.update({job.key: [] for job in jobs})
    results = run(
        subject, jobs, recorded(asked), batch_size=8, on_attempt=lambda key, attempt: told[key].append(attempt)
    )
    assert refused
    for result in results.values():
        wanted = by_batch_size[1][result.key[1:]]
        assert (result.status, result.image, result.attempts) == (wanted.status, wanted.image, wanted.attempts)
        assert tuple(told[result.key]) == result.attempts
        assert asked[result.key] == list(range(len(result.attempts)))


def test_memory_that_runs_out_in_the_midst_of_attempts_costs_them_a_fresh_start_only(monkeypatch, by_batch_size, asked):
    """As when another process takes memory: the network has seen every sample before it fails."""
    subject = transfer(threshold=middle_threshold())
    calls = 0

    def guard(rows: int) -> None:
        nonlocal calls
        calls += 1
        if rows > 1 and calls in {2, 5, 9}:
            raise torch.OutOfMemoryError("taken")

    guarded(monkeypatch, subject, "value_and_gradient", guard)
    same(run(subject, [job(key) for key in FACES], recorded(asked), batch_size=5), by_batch_size[1])
    assert calls > 9
    assert asked == {key: list(range(len(result.attempts))) for key, result in by_batch_size[1].items()}


def test_memory_that_runs_out_while_judging_loses_no_attempt(monkeypatch, by_batch_size, asked):
    subject = transfer(threshold=middle_threshold())
    plain, calls = subject.losses_of_all, 0  # while the first one is judged, others are half-way

    def judged(*images: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise torch.OutOfMemoryError("taken")
        return plain(*images)

    monkeypatch.setattr(subject, "losses_of_all", judged)
    same(run(subject, [job(key) for key in FACES], recorded(asked), batch_size=5), by_batch_size[1])
    assert calls > 1
    assert asked == {key: list(range(len(result.attempts))) for key, result in by_batch_size[1].items()}


def test_pytorchs_own_message_for_no_memory_on_the_cpu_is_understood(monkeypatch, by_batch_size):
    subject = transfer(threshold=middle_threshold())
    guarded(monkeypatch, subject, "value_and_gradient", lambda rows: rows > 2 and torch.empty(1 << 56))  # type: ignore[arg-type]
    same(run(subject, [job(key) for key in FACES], batch_size=5), by_batch_size[1])


def test_slots_that_cannot_even_be_made_are_halved_too(monkeypatch, by_batch_size):
    """The optimiser's own memory, some 15 MB a slot at Celeb-A's size, is the first to be asked for."""
    refused: list[int] = []
    guard = no_room_for_more_than(2, refused)

    def made(transfer: StyleTransfer, count: int, *others: Any) -> Slots:
        guard(count)
        return Slots(transfer, count, *others)

    monkeypatch.setattr(stylize.engine, "Slots", made)
    same(run(transfer(threshold=middle_threshold()), [job(key) for key in FACES], batch_size=8), by_batch_size[1])
    assert refused


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many optimisers of earlier slots were alive whenever slots were made, without the collector of cycles."""
    old: list[weakref.ref[BatchedLBFGS]] = []
    alive: list[int] = []

    def made(*arguments: Any) -> Slots:
        alive.append(sum(reference() is not None for reference in old))
        slots = Slots(*arguments)
        old.append(weakref.ref(slots.optimiser))
        return slots

    monkeypatch.setattr(stylize.engine, "Slots", made)
    gc.collect()
    gc.disable()
    yield alive
    gc.enable()


def test_the_memory_of_the_old_slots_is_free_before_half_as_many_are_made(monkeypatch, alive):
    """On CUDA nearly all of it hangs on them, in the graph's own pool."""
    subject = transfer()
    guarded(monkeypatch, subject, "value_and_gradient", no_room_for_more_than(1, []))
    run(subject, [job(key) for key in ("face0", "face1", "face3")], batch_size=4)
    assert len(alive) > 1
    assert not any(alive)


def test_the_memory_of_one_sizes_slots_is_free_before_those_of_the_next_are_made(alive):
    run(transfer(), [job(key) for key in FACES], batch_size=2)
    assert alive == [0, 0]


@pytest.mark.parametrize("method", ["value_and_gradient", "style_targets"])
def test_a_single_face_that_does_not_fit_is_an_error_that_names_its_size(monkeypatch, method):
    subject = transfer()
    guarded(monkeypatch, subject, method, no_room_for_more_than(0, []))
    with pytest.raises(DeviceMemoryError, match=r"24x20.*--size"):
        list(repaint([job("face0"), job("face1")], draw, subject, batch_size=4))
    assert not workers()


@pytest.mark.parametrize("method", ["value_and_gradient", "style_targets", "content_target"])
@pytest.mark.parametrize("error", [RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), ValueError("wrong")])
def test_other_errors_of_the_network_are_passed_on(monkeypatch, method, error):
    subject = transfer()
    calls: list[int] = []

    def guard(rows: int) -> None:
        calls.append(rows)
        raise error

    guarded(monkeypatch, subject, method, guard)
    with pytest.raises(type(error), match=str(error)):
        list(repaint([job("face0"), job("face1")], draw, subject, batch_size=4))
    assert len(calls) == 1
    assert not workers()


# Samples do not depend on each other


@cache
def patient(give_up: bool = True, threshold: float = float("inf"), evaluations: int = 60) -> StyleTransfer:
    """A transfer with time enough to be stopped early, sharing its network with the others."""
    subject = copy.copy(transfer())
    subject.settings = dataclasses.replace(
        subject.settings, evaluations=evaluations, give_up=give_up, threshold=threshold, max_attempts=1
    )
    return subject


def test_a_result_is_the_same_alone_in_a_batch_and_beside_neighbours_that_come_and_go():
    subject = patient(evaluations=14)

    def neighbours(budgets: list[int | None]) -> list[FaceJob]:
        faces = ("face1", "face3")
        return [FaceJob(f"n{n}", job(faces[n % 2]).read, budget) for n, budget in enumerate(budgets)]

    alone = run(subject, [job("face0")], batch_size=1)["face0"]
    others = (
        run(subject, [*neighbours([None] * 4), job("face0"), *neighbours([None] * 7)[4:]], batch_size=8),
        run(subject, [job("face0"), *neighbours([5, 7, 7, 1, 3])], batch_size=2),
        run(subject, [*neighbours([5, 9, 2, 6, 30]), job("face0")], batch_size=3),
    )
    (wanted,) = alone.attempts
    assert wanted.evaluations == 14
    for results in others:
        result = results["face0"]
        (attempt,) = result.attempts
        assert attempt.loss == pytest.approx(wanted.loss, rel=1e-6)
        assert (attempt.evaluations, attempt.stop_reason) == (wanted.evaluations, wanted.stop_reason)
        assert result.image == alone.image
    assert [others[1][f"n{n}"].attempts[0].evaluations for n in range(5)] == [5, 7, 7, 1, 3]
    assert others[2]["n4"].attempts[0].evaluations == 30


def test_a_content_target_is_computed_once_a_face_whatever_its_draws(monkeypatch):
    subject = transfer(threshold=middle_threshold())
    rows: list[int] = []
    guarded(monkeypatch, subject, "content_target", rows.append)
    results = run(subject, [job(key) for key in FACES], batch_size=2)
    assert sum(len(result.attempts) for result in results.values()) > len(FACES)
    assert sum(rows) == len(FACES)


# Slots are kept busy


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_hardly_a_row_is_evaluated_in_vain_whatever_the_budgets(monkeypatch, batch_size):
    budgets = np.random.default_rng(2).permutation(np.linspace(5, 60, 24).astype(int)).tolist()
    small = encoded(picture(5, 16, 16))
    subject = patient(evaluations=60)
    rows: list[int] = []
    generator = torch.Generator().manual_seed(4)
    centre, curvature = torch.rand(2, 3, 16, 16, generator=generator)
    curvature = 1e4**curvature

    def cheap(images: torch.Tensor, targets: Targets) -> tuple[torch.Tensor, torch.Tensor]:
        rows.append(len(images))
        difference = images - centre
        return (curvature * difference.square()).sum((1, 2, 3)) / 2, curvature * difference

    monkeypatch.setattr(subject, "value_and_gradient", cheap)
    jobs = [FaceJob(f"f{number}", lambda: small, budget) for number, budget in enumerate(budgets)]
    results = run(subject, jobs, batch_size=batch_size)
    used = [results[job.key].attempts[0].evaluations for job in jobs]
    assert all(0 < evaluations <= budget for evaluations, budget in zip(used, budgets, strict=True))
    assert max(used) > 4 * min(used)
    assert sum(used) <= sum(rows) <= 1.1 * sum(used)
    assert max(rows) == batch_size


def test_faces_without_a_usable_painting_do_not_end_the_run_for_those_behind_them():
    def drawn(key: str, number: int) -> PaintingDraw | None:
        return None if key.startswith("bare") else draw("face0", number)

    jobs = [FaceJob(f"bare{number}", job("face0").read) for number in range(9)]
    jobs += [FaceJob(f"good{number}", job("face0").read) for number in range(2)]
    for batch_size in (1, 2, 4):
        results = run(transfer(evaluations=1), jobs, drawn, batch_size=batch_size)
        assert {key: result.status for key, result in results.items()} == {
            job.key: "failed" if job.key.startswith("bare") else "accepted" for job in jobs
        }


def test_faces_without_a_usable_painting_do_not_cost_the_run_its_slots(monkeypatch):
    def drawn(key: str, number: int) -> PaintingDraw | None:
        return None if key.startswith("bare") else draw("face0", number)

    subject = transfer(evaluations=6)
    rows: list[int] = []
    guarded(monkeypatch, subject, "value_and_gradient", rows.append)
    jobs = [FaceJob(f"bare{number}", job("face0").read) for number in range(7)]
    jobs = [job("face0"), *jobs, *(FaceJob(f"good{number}", job("face0").read) for number in range(12))]
    results = run(subject, jobs, drawn, batch_size=4)
    assert sum(result.status == "accepted" for result in results.values()) == 13
    assert rows.count(4) > len(rows) / 2


def test_a_stopwatchs_sections_do_not_overlap_and_all_are_used():
    class Watched(Stopwatch):
        inside = ""

        @contextmanager
        def section(self, name: str) -> Iterator[None]:
            assert not self.inside, f"{name} within {self.inside}"
            self.inside = name
            try:
                with super().section(name):
                    yield
            finally:
                self.inside = ""

    stopwatch = Watched()
    run(transfer(threshold=middle_threshold()), [job(key) for key in FACES], batch_size=2, stopwatch=stopwatch)
    assert set(stopwatch.seconds) == {"input", "network", "optimiser", "output"}


# Giving up early


PAIRS = [("face0", 1), ("face1", 0), ("face3", 1)]  # a face, and which painting of its order


def with_painting(offset: int) -> Draw:
    return lambda key, number: draw(key, number + offset)


@cache
def to_the_end(key: str, offset: int) -> FaceResult:
    """A face with a painting, never given up."""
    return run(patient(give_up=False), [job(key)], with_painting(offset))[key]


def final_loss(result: FaceResult) -> float:
    loss = result.attempts[-1].loss
    assert loss is not None
    return loss


def test_attempts_far_from_the_threshold_are_given_up_and_only_where_that_is_asked_for():
    for key, offset in PAIRS[:2]:
        whole = to_the_end(key, offset)
        threshold = 0.2 * final_loss(whole)
        (stopped,) = run(patient(threshold=threshold), [job(key)], with_painting(offset))[key].attempts
        assert stopped.stop_reason == "hopeless"
        assert stopped.evaluations < whole.attempts[0].evaluations
        assert stopped.loss is not None
        assert stopped.loss >= threshold
        kept = run(patient(give_up=False, threshold=threshold), [job(key)], with_painting(offset))[key]
        assert kept.status == "rejected"
        assert kept.attempts == whole.attempts
        assert kept.attempts[0].stop_reason != "hopeless"


@pytest.mark.parametrize("factor", [1.0001, 1.02, 1.3])
@pytest.mark.parametrize(("key", "offset"), PAIRS)
def test_an_attempt_that_would_pass_is_never_given_up_and_its_image_is_the_same(key, offset, factor):
    whole = to_the_end(key, offset)
    result = run(patient(threshold=factor * final_loss(whole)), [job(key)], with_painting(offset))[key]
    assert result.status == "accepted"
    assert result == whole


def test_the_hopeless_make_room_for_others():
    threshold = 0.2 * min(final_loss(to_the_end(key, offset)) for key, offset in PAIRS)
    subject = copy.copy(patient(threshold=threshold))
    subject.settings = dataclasses.replace(subject.settings, max_attempts=2)
    results = run(subject, [job(key) for key in FACES], batch_size=2)
    for result in results.values():
        check(result, subject)
        assert result.status == "rejected"
        assert [attempt.stop_reason for attempt in result.attempts] == ["hopeless"] * 2


# Threads


def test_nothing_is_drawn_or_read_and_no_thread_left_once_the_stream_is_closed():
    before = set(threading.enumerate())
    read: list[str] = []

    def reader(name: str) -> Callable[[], bytes]:
        def read_it() -> bytes:
            read.append(name)
            return ENCODED["face0" if name.startswith("f") else "painting0"]

        return read_it

    jobs = (FaceJob(f"f{number}", reader(f"f{number}")) for number in range(1000))
    stream = repaint(jobs, lambda key, _: PaintingDraw("p", reader("p")), transfer(evaluations=1), batch_size=3)
    assert next(stream).status == "accepted"
    stream.close()  # type: ignore[attr-defined]
    count = len(read)
    assert count < 40
    assert set(threading.enumerate()) <= before
    time.sleep(0.02)
    assert len(read) == count


def test_closing_waits_for_the_painting_that_is_being_read():
    before = set(threading.enumerate())
    reading, released = threading.Event(), threading.Event()
    finished: list[bool] = []

    def slow() -> bytes:
        reading.set()
        finished.append(released.wait(10))
        return ENCODED["painting0"]

    def drawn(key: str, number: int) -> PaintingDraw | None:
        return PaintingDraw("slow", slow) if key == "face3" else draw(key, number)

    stream = repaint([job(key) for key in ("face0", "face1", "face3")], drawn, transfer(evaluations=1), batch_size=1)
    assert next(stream).key == "face0"  # the next one has the slot; that of the third is being loaded
    assert reading.wait(10)
    assert not finished
    timer = threading.Timer(0.05, released.set)
    timer.start()
    stream.close()  # type: ignore[attr-defined]
    assert finished == [True]
    timer.join()
    assert set(threading.enumerate()) <= before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("batch_size", [2, None])
def test_on_cuda_losses_are_within_two_percent_and_statuses_the_same(precision, batch_size):
    threshold = middle_threshold()
    subject = transfer(threshold=threshold, precision=precision, device="cuda")
    results = run(subject, [job(key) for key in FACES], batch_size=batch_size)
    for key, result in results.items():
        check(result, subject)
        for attempt in result.attempts:
            assert attempt.loss == pytest.approx(loss_of(key, attempt.painting), rel=0.02)
    assert summary(results) == {key: expected(key, threshold) for key in FACES}
