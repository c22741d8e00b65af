"""The loss of given pairs after every evaluation: what calibration and benchmarks look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from stylize.objective import Losses
from stylize.slots import Slots
from stylize.transfer import StyleTransfer


@dataclass(frozen=True)
class Trajectory:
    """The course of one pair.

    Attributes:
        curve: float64 [evaluations], the best loss after each evaluation, in the working precision and loss units;
            constant from where the pair stopped.
        final: The losses in fp32 of the finished image as stored in 8 bits; each tensor has one row.
        image: uint8 [H, W, 3].

    """

    curve: np.ndarray
    final: Losses
    image: np.ndarray


def trace(
    transfer: StyleTransfer, faces: Sequence[np.ndarray], paintings: Sequence[np.ndarray], *, batch_size: int = 4
) -> Iterator[Trajectory]:
    """Optimise pairs with the engine's settings but without the retry rule, in order.

    Args:
        transfer: The loaded network and settings.
        faces, paintings: uint8 [H, W, 3], all of one size, as many of the one as of the other.
        batch_size: Pairs at once.

    """
    for first in range(0, len(faces), batch_size):
        chosen = slice(first, first + batch_size)
        yield from _trace_batch(transfer, faces[chosen], paintings[chosen])


def _trace_batch(
    transfer: StyleTransfer, faces: Sequence[np.ndarray], paintings: Sequence[np.ndarray]
) -> Iterator[Trajectory]:
    slots = Slots(transfer, len(faces), faces[0].shape[:2])
    slots.start(range(len(faces)), faces, paintings, [None] * len(faces), [None] * len(faces))
    values = []
    for _ in range(transfer.settings.evaluations):
        slots.advance()
        values.append(slots.optimiser.value.clone())
    curves = torch.stack(values, dim=1).double().cpu().numpy()
    for row, (face, painting) in enumerate(zip(faces, paintings, strict=True)):
        image = transfer.fetch_pixels(slots.optimiser.x[row])()
        yield Trajectory(curves[row], transfer.losses(image, face, painting), image)
