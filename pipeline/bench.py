"""Measure this machine: the engine beside the textbook loop, on the same pairs, in the same run."""

import dataclasses
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from manifests.errors import InputError, RunError
from pipeline.bench_result import Bench, PrecisionMeasure
from pipeline.demo.cartoon_faces import SMALLEST_SIDE, draw_celeba
from pipeline.demo.procedural_paintings import draw_wikiart
from pipeline.network import load_local_transfer
from pipeline.sample_pairs import Pair, Sample, sample_pairs
from pipeline.utilisation import measure_utilisation
from stylize.batch_size import choose_batch_size
from stylize.convention import CONVENTIONS
from stylize.engine import repaint
from stylize.flops import evaluation_flops
from stylize.jobs import FaceJob, FaceResult, PaintingDraw
from stylize.peak import matrix_peak
from stylize.precision import native_precisions
from stylize.settings import TransferSettings
from stylize.slot_memory import measure_slot_bytes
from stylize.slots import Slots
from stylize.stopwatch import Stopwatch
from stylize.textbook import TextbookLoop, TextbookResult
from stylize.trajectory import trace
from stylize.transfer import StyleTransfer

TEXTBOOK_EVALUATIONS = 150  # our reading of "the usual": between the tutorial's 300 and what speed-minded users take
SIZE = (178, 218)  # Celeb-A's
DRIFT_PAIRS = 4


def bench(
    settings: TransferSettings | None = None,
    *,
    weights: str = "imagenet",
    faces: str | os.PathLike[str] | None = None,
    paintings: str | os.PathLike[str] | None = None,
    pairs: int | None = None,
    textbook_pairs: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    utilisation: bool = False,
    notify: Callable[[str], None] = lambda sentence: None,
) -> Bench:
    """Measure the engine and the textbook loop by turns, then where the time goes.

    The textbook loop repaints the first pairs, the engine all; on the CPU they take turns batch by batch, so that
    whatever else the machine does hits both.

    Args:
        settings: of the style transfer. Threshold, tolerance and giving up play no part: both sides do all evaluations.
            Without a size, 178x218.
        weights: as `stylize.weights.load_weights` takes them.
        faces, paintings: as `stylize build` takes them; None draws cartoon faces or paintings.
        pairs: for the engine; by default two batches on the CPU, eight on CUDA.
        textbook_pairs: of them; by default all on the CPU, eight on CUDA.
        batch_size: slots; None chooses.
        seed: of the sample, and of "random" weights.
        utilisation: also measure faces with wildly different numbers of evaluations (`pipeline.utilisation`).
        notify: called with what is being done.

    Raises:
        InputError: wrong input.
        WeightsError: the weights cannot be loaded.
    """
    asked = settings or TransferSettings(evaluations=TEXTBOOK_EVALUATIONS)
    if textbook_pairs is not None and textbook_pairs < 1:
        raise InputError(f"the number of textbook pairs must be at least 1, not {textbook_pairs}")
    settings = dataclasses.replace(
        asked, size=asked.size or SIZE, threshold=math.inf, max_attempts=1, tolerance=0.0, give_up=False
    )
    assert settings.size is not None
    if min(settings.size) < SMALLEST_SIDE and (faces is None or paintings is None):
        raise InputError(f"pictures are drawn with sides of at least {SMALLEST_SIDE} pixels; give a larger --size")
    transfer = load_local_transfer(weights, seed, settings)
    width, height = settings.size
    batch_size = batch_size or choose_batch_size(transfer, height, width)
    cuda = transfer.device.type == "cuda"
    pairs = pairs or (8 if cuda else 2) * batch_size
    with tempfile.TemporaryDirectory(prefix="stylize-bench-") as folder:
        sample = _sample(faces, paintings, pairs, seed=seed, size=settings.size, folder=Path(folder))
        for sentence in sample.unreadable:
            notify(sentence)
        notify(
            f"{len(sample.pairs)} pairs at {width}x{height}, {settings.evaluations} evaluations, {transfer.precision}"
        )
        return _measure(
            transfer,
            sample,
            batch_size,
            textbook_pairs or (8 if cuda else pairs),
            weights=weights,
            seed=seed,
            utilisation=utilisation,
            notify=notify,
        )


def _sample(
    faces: str | os.PathLike[str] | None,
    paintings: str | os.PathLike[str] | None,
    pairs: int,
    *,
    seed: int,
    size: tuple[int, int],
    folder: Path,
) -> Sample:
    if faces is None:
        faces = folder / "celeba"
        draw_celeba(Path(faces), identities=max(3, math.ceil(pairs / 4)), size=size, seed=seed)
    if paintings is None:
        paintings = folder / "wikiart"
        draw_wikiart(Path(paintings), count=24, size=(640, 800), seed=seed)
    return sample_pairs(faces, paintings, pairs=pairs, seed=seed, size=size)


def _measure(
    transfer: StyleTransfer,
    sample: Sample,
    batch_size: int,
    textbook_pairs: int,
    *,
    weights: str,
    seed: int,
    utilisation: bool,
    notify: Callable[[str], None],
) -> Bench:
    settings, (width, height) = transfer.settings, sample.size
    device = transfer.device
    peaks = [matrix_peak(transfer.precision, device)]
    memory = measure_slot_bytes(transfer, height, width, max(2, min(4, batch_size)))
    textbook = _textbook(transfer)
    _run_engine(transfer, sample.pairs[:batch_size], batch_size, evaluations=4)  # warm
    _run_textbook(textbook, transfer, sample.pairs[:1], 2)

    stopwatch = Stopwatch()
    results: dict[str, FaceResult] = {}
    seconds = textbook_seconds = 0.0
    theirs: list[TextbookResult] = []
    turn = batch_size if device.type == "cpu" else len(sample.pairs)
    for first in range(0, len(sample.pairs), turn):
        chosen = sample.pairs[first : first + turn]
        start = time.perf_counter()
        results |= _run_engine(transfer, chosen, batch_size, stopwatch=stopwatch)
        seconds += time.perf_counter() - start
        both = chosen[: max(0, textbook_pairs - first)]
        start = time.perf_counter()
        theirs += _run_textbook(textbook, transfer, both, settings.evaluations)
        textbook_seconds += time.perf_counter() - start
        notify(f"{first + len(chosen)} of {len(sample.pairs)} pairs repainted, {len(theirs)} by both")
    finite = [(pair, result) for pair, result in zip(sample.pairs, theirs, strict=False) if _is_finite(result)]
    if not finite:
        raise RunError(f"the textbook loop diverged on all of {len(theirs)} pairs; there is nothing to compare with")
    both = tuple(pair for pair, _ in finite)
    textbook_losses = tuple(
        float(transfer.losses(transfer.fetch_pixels(result.image)(), pair.face, pair.painting).total)
        for pair, result in finite
    )
    if device.type == "cuda":  # sections can only be told apart by waiting for the device, which slows it down
        stopwatch = Stopwatch(device)
        start = time.perf_counter()
        _run_engine(transfer, sample.pairs[:batch_size], batch_size, stopwatch=stopwatch)
        watched = time.perf_counter() - start
    else:
        watched = seconds
    notify("evaluations that the engine needs for the textbook's losses")
    needed = _evaluations_needed(transfer, both, textbook_losses, batch_size)
    peaks.append(matrix_peak(transfer.precision, device))
    measured = Bench(
        device=_device_name(device),
        cuda=device.type == "cuda",
        precision=transfer.precision,
        batch_size=batch_size,
        size=sample.size,
        threads=torch.get_num_threads(),
        versions={"python": platform.python_version(), "torch": torch.__version__},
        weights=weights,
        evaluations=settings.evaluations,
        seconds=seconds,
        images=len(results),
        evaluations_done=sum(result.attempts[-1].evaluations for result in results.values()),
        textbook_seconds=textbook_seconds,
        textbook_images=len(theirs),
        textbook_evaluations_done=sum(len(result.curve) for result in theirs),
        textbook_diverged=len(theirs) - len(both),
        losses=tuple(_loss(results[pair.image_id]) for pair in both),
        textbook_losses=textbook_losses,
        evaluations_needed=needed,
        peak=max(peaks),
        flops=evaluation_flops(height, width, settings.style_layers, settings.content_layer),
        shares={name: spent / watched for name, spent in stopwatch.seconds.items()},
        precisions=tuple(_precisions(transfer, weights, both[:DRIFT_PAIRS], seed=seed, notify=notify)),
        slot_bytes=memory,
        default_evaluations=TransferSettings().evaluations,
        utilisation=None,
    )
    if utilisation:
        notify("faces of 5 to 150 evaluations, in flight and in fixed batches")
        measured = dataclasses.replace(measured, utilisation=measure_utilisation(transfer, sample.pairs, batch_size))
    return measured


def _run_engine(
    transfer: StyleTransfer,
    pairs: Sequence[Pair],
    batch_size: int,
    *,
    evaluations: int | None = None,
    stopwatch: Stopwatch | None = None,
) -> dict[str, FaceResult]:
    by_id = {pair.image_id: pair for pair in pairs}
    jobs = [FaceJob(pair.image_id, pair.read_face, evaluations) for pair in pairs]

    def draw(key: str, number: int) -> PaintingDraw:
        return PaintingDraw(by_id[key].painting_id, by_id[key].read_painting)

    results = repaint(jobs, draw, transfer, batch_size=batch_size, stopwatch=stopwatch)
    return {result.key: result for result in results}


def _textbook(transfer: StyleTransfer) -> TextbookLoop:
    settings = transfer.settings
    unit = CONVENTIONS[settings.convention].loss_unit
    return TextbookLoop(transfer.exact_network, settings.alpha, settings.style_layers, settings.content_layer, unit)


def _run_textbook(
    textbook: TextbookLoop, transfer: StyleTransfer, pairs: Sequence[Pair], evaluations: int
) -> list[TextbookResult]:
    # Each evaluation ends with reading the loss, so nothing is left under way on CUDA.
    return [
        textbook.run(transfer.to_device(pair.face), transfer.to_device(pair.painting), evaluations) for pair in pairs
    ]


def _is_finite(result: TextbookResult) -> bool:
    return math.isfinite(result.curve[-1]) and bool(torch.isfinite(result.image).all())


def _loss(result: FaceResult) -> float:
    loss = result.attempts[-1].loss
    return math.nan if loss is None else loss


def _evaluations_needed(
    transfer: StyleTransfer, pairs: Sequence[Pair], losses: Sequence[float], batch_size: int
) -> tuple[float, ...]:
    """Count evaluations until each pair's loss is not above a given one; infinite where it stays above.

    Curves are in the working precision; each is scaled by what the fp32 loss of its stored image is to its last value.
    """
    needed = []
    courses = trace(transfer, [pair.face for pair in pairs], [pair.painting for pair in pairs], batch_size=batch_size)
    for course, loss in zip(courses, losses, strict=True):
        reached = course.curve * (float(course.final.total) / course.curve[-1]) <= loss
        needed.append(float(np.argmax(reached)) + 1 if reached.any() else math.inf)
    return tuple(needed)


def _precisions(
    transfer: StyleTransfer, weights: str, pairs: Sequence[Pair], *, seed: int, notify: Callable[[str], None]
) -> list[PrecisionMeasure]:
    """Repaint the same pairs in every precision that the device has natively, fp32 included, and the one asked for."""
    seconds: dict[str, float] = {}
    losses: dict[str, list[float]] = {}
    faces, paintings = [pair.face for pair in pairs], [pair.painting for pair in pairs]
    for precision in dict.fromkeys((transfer.precision, *native_precisions(transfer.device))):
        notify(f"precision {precision}")
        other = load_local_transfer(weights, seed, dataclasses.replace(transfer.settings, precision=precision))
        warm = Slots(other, len(pairs), faces[0].shape[:2])
        warm.start(range(len(pairs)), faces, paintings, [None] * len(pairs), [None] * len(pairs))
        warm.advance(4)
        del warm
        start = time.perf_counter()
        courses = list(trace(other, faces, paintings, batch_size=len(pairs)))
        seconds[precision] = (time.perf_counter() - start) / (len(pairs) * transfer.settings.evaluations)
        losses[precision] = [float(course.final.total) for course in courses]
    measures = []
    for precision, own in losses.items():
        ratios = [a / b for a, b in zip(own, losses["fp32"], strict=True)]
        measures.append(
            PrecisionMeasure(precision, seconds[precision], statistics.median(ratios), min(ratios), max(ratios))
        )
    return measures


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = {line.split(":", 1)[1].strip() for line in file if line.startswith("model name")}
        return f"{min(names)}, {os.cpu_count()} cores"
    except (OSError, ValueError):
        return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
