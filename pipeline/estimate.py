"""What a build will cost: the answer of a dry run."""

import math
import statistics
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from manifests.errors import InputError
from pipeline.plan import Plan
from stylize.decode import decode_image
from stylize.errors import ImageError
from stylize.flops import evaluation_flops

PEAK_TFLOPS = 790.0  # bf16 matrix product of one H200, measured
UTILISATION = 0.45  # our choice: what a convolutional network of this shape may be expected to reach
ATTEMPTS_PER_FACE = 1.1  # at the default threshold about one pair in ten is thrown away
# Measured on proxies of half-size Celeb-A: brush strokes in every pixel compress worse than photographs.
BYTES_PER_PIXEL = {"png": 2.3, "webp": 1.95, "jpeg": 1.05}
SAMPLE = 16


@dataclass(frozen=True)
class Estimate:
    """The plan of a build in numbers.

    Attributes:
        faces, paintings, shards: totals.
        splits: per split, faces and shards.
        shards_committed: of the shards, those that an earlier execution has left.
        width, height: working size in pixels; of faces that keep their size, the median of a sample.
        disk_bytes: expected size of all data files, at `BYTES_PER_PIXEL`.
        gpu_hours: expected time of one H200 for the shards that are missing, at `UTILISATION` of `PEAK_TFLOPS`.
        evaluations: network evaluations per attempt.
        flops: floating-point operations of one evaluation.
    """

    faces: int
    paintings: int
    shards: int
    splits: dict[str, dict[str, int]]
    shards_committed: int
    width: int
    height: int
    disk_bytes: int
    gpu_hours: float
    evaluations: int
    flops: int

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the report, one sentence to a line, with the assumptions."""
        splits = ", ".join(f"{name} {n['faces']:,} in {n['shards']:,}" for name, n in self.splits.items())
        return [
            f"{self.faces:,} faces in {self.shards:,} shards ({splits}); {self.paintings:,} paintings to draw from",
            f"{self.shards_committed:,} shards are committed already, {self.shards - self.shards_committed:,} to do",
            f"about {self.disk_bytes / 1e9:,.2f} GB on disk at {self.width}x{self.height}",
            f"about {_duration(self.gpu_hours)} of one H200: {self.evaluations} evaluations of "
            f"{self.flops / 1e9:.0f} GFLOP, {ATTEMPTS_PER_FACE} "
            f"attempts per face, at {UTILISATION:.0%} of {PEAK_TFLOPS:.0f} TFLOP/s",
        ]


def estimate(plan: Plan, committed: int = 0, faces_committed: int = 0) -> Estimate:
    """Estimate the cost of a plan of which `committed` shards with `faces_committed` faces are done."""
    settings = plan.config.transfer
    width, height = settings.size or _median_size(plan)
    layout = plan.layout()["shards"]
    one = evaluation_flops(height, width, settings.style_layers, settings.content_layer)
    flops = one * settings.evaluations * ATTEMPTS_PER_FACE * (plan.face_count - faces_committed)
    return Estimate(
        faces=plan.face_count,
        paintings=plan.paintings.table.num_rows,
        shards=len(plan.shards),
        splits={split: dict(entry) for split, entry in layout.items()},
        shards_committed=committed,
        width=width,
        height=height,
        disk_bytes=round(plan.face_count * width * height * BYTES_PER_PIXEL[settings.image_format]),
        gpu_hours=flops / (UTILISATION * PEAK_TFLOPS * 1e12) / 3600,
        evaluations=settings.evaluations,
        flops=one,
    )


def _duration(hours: float) -> str:
    return f"{hours:,.1f} hours" if hours >= 1 else f"{math.ceil(hours * 60)} minutes"


def _median_size(plan: Plan) -> tuple[int, int]:
    """Return (width, height) of the sampled face with the median area; Celeb-A's size where none can be read."""
    sizes: list[tuple[int, int]] = []
    for table in plan.selected.values():
        for position in np.linspace(0, table.num_rows - 1, SAMPLE // len(plan.selected)).astype(int):
            try:
                image = decode_image(plan.faces.source.read(table["locator"][int(position)].as_py()))
            except (ImageError, InputError, OSError):
                continue
            sizes.append((image.shape[1], image.shape[0]))
    if not sizes:
        return 178, 218
    median = statistics.median_low(width * height for width, height in sizes)
    return next(size for size in sizes if size[0] * size[1] == median)
