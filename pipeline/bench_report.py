"""What a benchmark says: its JSON, and its lines for people."""

import dataclasses
import math
from typing import Any

from pipeline.bench_result import Bench
from pipeline.estimate import ATTEMPTS_PER_FACE
from pipeline.utilisation import FEWEST, MOST

CELEBA_FACES = 202_599


def bench_dict(measured: Bench) -> dict[str, Any]:
    """Return all that was measured as JSON can hold it; what never was reached is null."""
    document = dataclasses.asdict(measured)
    for name in (
        "images_per_second",
        "textbook_images_per_second",
        "ratio_equal_evaluations",
        "ratio_equal_quality",
        "loss_over_textbook",
        "share_of_peak",
    ):
        document[name] = getattr(measured, name)
    document["median_evaluations_needed"] = measured.median_evaluations_needed
    document["evaluations_per_second"] = measured.evaluations_done / measured.seconds
    document["tflops_per_second"] = measured.flops_per_second / 1e12
    document["peak_tflops_per_second"] = measured.peak / 1e12
    document["celeba_hours"] = _celeba_hours(measured)
    return {name: _finite(value) for name, value in document.items()}


def bench_lines(measured: Bench) -> list[str]:
    """Return the report, one fact to a line."""
    width, height = measured.size
    evaluations = measured.evaluations
    needed = measured.median_evaluations_needed
    reached = sum(map(math.isfinite, measured.evaluations_needed))
    lines = [
        f"{measured.device}, {measured.threads} threads, {measured.precision}, torch {measured.versions['torch']}, "
        f"{width}x{height}, {measured.batch_size} slots, weights {measured.weights}",
        f"engine     {measured.images_per_second:9.4f} images/s at {evaluations} evaluations "
        f"({measured.images_per_second * evaluations:,.1f} evaluations/s; {measured.images} images, all included)",
        f"textbook   {measured.textbook_images_per_second:9.4f} images/s at {evaluations} evaluations "
        f"({measured.textbook_images} images, optimisation alone)",
        f"ratio      {measured.ratio_equal_evaluations:9.2f}x at equal evaluations, with a final loss of "
        f"{measured.loss_over_textbook:.3f} of the textbook's (median)",
    ]
    if math.isfinite(needed):
        lines.append(
            f"ratio      {measured.ratio_equal_quality:9.2f}x at equal quality: the textbook's loss at {evaluations} "
            f"is reached in {needed:g} evaluations (median; {reached} of {len(measured.losses)} pairs reach it)"
        )
    else:
        lines.append(f"ratio      at equal quality: half the pairs do not reach the textbook's loss in {evaluations}")
    if measured.textbook_diverged:
        lines.append(
            f"textbook   diverged on {measured.textbook_diverged} of {measured.textbook_images} pairs, left out"
        )
    lines.append(
        f"compute    {measured.flops_per_second / 1e12:9.3f} TFLOP/s at {measured.flops / 1e9:.1f} GFLOP per "
        f"evaluation: {measured.share_of_peak:.0%} of the matrix peak, {measured.peak / 1e12:.3f} TFLOP/s"
    )
    shares = [f"{name} {share:.1%}" for name, share in measured.shares.items()]
    lines.append(f"time       {', '.join([*shares, f'other {1 - sum(measured.shares.values()):.1%}'])}")
    lines += [
        f"{measure.precision:10s} {1 / measure.seconds_per_evaluation:9.2f} evaluations/s; final loss against fp32: "
        f"median {measure.loss_over_fp32 - 1:+.2%}, from {measure.lowest - 1:+.2%} to {measure.highest - 1:+.2%}"
        for measure in measured.precisions
    ]
    if measured.slot_bytes is not None:
        lines.append(f"memory     {measured.slot_bytes / 2**20:9.0f} MiB per slot")
    if (use := measured.utilisation) is not None:
        lines.append(
            f"in flight  {use.in_flight:9.2f} useful evaluations/s, {use.faces} faces of {FEWEST} to {MOST}:"
            f" {use.in_flight / use.steady:.0%} of the steady {use.steady:.2f}; "
            f"fixed batches {use.fixed / use.steady:.0%}"
        )
    kind = "GPU-hours" if measured.cuda else "hours of this machine"
    lines.append(
        f"Celeb-A    {_celeba_hours(measured):9.1f} {kind} for {CELEBA_FACES:,} faces, {ATTEMPTS_PER_FACE} attempts "
        f"each, {measured.default_evaluations} evaluations per attempt (the default), at {width}x{height}"
    )
    return lines


def _celeba_hours(measured: Bench) -> float:
    evaluations = CELEBA_FACES * ATTEMPTS_PER_FACE * measured.default_evaluations
    return evaluations / (measured.evaluations_done / measured.seconds) / 3600


def _finite(value: Any) -> Any:
    """Put null for numbers that JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(entry) for name, entry in value.items()}
    return [_finite(entry) for entry in value] if isinstance(value, (list, tuple)) else value
