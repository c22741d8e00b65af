"""Fixed slots on the device, each with one image under optimisation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stylize.captured_step import CapturedStep
from stylize.lbfgs import BatchedLBFGS, Stop
from stylize.objective import Targets
from stylize.preconditioner import ImagePreconditioner
from stylize.stopwatch import Stopwatch
from stylize.transfer import StyleTransfer

_BOLDNESS = 2.0  # of a preconditioned step; chosen in docs/optimiser.md
# Relative rounding error of a loss that the line search must not take for an increase.
_SLACK = {"fp32": 1e-6, "tf32": 1e-5, "bf16": 1e-4}


def make_optimiser(
    transfer: StyleTransfer, rows: int, size: Sequence[int], target: float | None = None
) -> BatchedLBFGS:
    """Make the optimiser that the settings describe, for `rows` images of size (height, width)."""
    settings, (height, width) = transfer.settings, size
    plain = settings.preconditioner == "none"
    return BatchedLBFGS(
        rows,
        (3, height, width),
        history=settings.history,
        max_evaluations=settings.evaluations,
        precondition=None
        if plain
        else ImagePreconditioner(settings.preconditioner, rows, height, width, device=transfer.device),
        boldness=1.0 if plain else _BOLDNESS,
        tolerance=settings.tolerance,
        target=target,
        slack=_SLACK[transfer.precision],
        device=transfer.device,
    )


class Slots:
    """Images under optimisation, side by side; each has its own face, painting and state.

    All tensors stay where they are in memory, so that CUDA can replay an evaluation as a graph.

    Args:
        transfer: The loaded network and settings.
        count: How many slots, B.
        size: (height, width) of the images.
        target: Loss that a sample must get under to be of any use; one that clearly will not is stopped. None
            optimises all to the end.
        stopwatch: Takes the time of "network" and "optimiser".

    """

    def __init__(
        self,
        transfer: StyleTransfer,
        count: int,
        size: Sequence[int],
        target: float | None = None,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        self._transfer = transfer
        self._stopwatch = stopwatch or Stopwatch()
        self._targets: Targets | None = None
        self._count = count
        self.optimiser = make_optimiser(transfer, count, size, target)
        self._captured = CapturedStep(transfer.device)

    def start(
        self,
        rows: Sequence[int],
        faces: Sequence[np.ndarray],
        paintings: Sequence[np.ndarray],
        contents: Sequence[Tensor | None],
        budgets: Sequence[int | None],
    ) -> list[Tensor]:
        """Begin an attempt in each of `rows`, which are free.

        Args:
            rows: Which slots.
            faces, paintings: uint8 [H, W, 3], of the slots' size.
            contents: Content targets [1, C, h, w] as an earlier call returned them, for faces that have had one.
            budgets: Of evaluations; None is the settings'.

        Returns:
            The content targets.

        """
        transfer = self._transfer
        starts = torch.stack([transfer.to_device(face) for face in faces])
        grams = transfer.style_targets(torch.stack([transfer.to_device(painting) for painting in paintings]))
        new = [index for index, content in enumerate(contents) if content is None]
        fresh = iter(torch.split(transfer.content_target(starts[new]), 1) if new else ())
        known = [next(fresh) if content is None else content for content in contents]
        if self._targets is None:
            self._targets = Targets(
                tuple(_rows_like(gram, self._count) for gram in grams), _rows_like(known[0], self._count)
            )
        for index, row in enumerate(rows):
            for target, gram in zip(self._targets.grams, grams, strict=True):
                target[row] = gram[index]
            self._targets.content[row] = known[index][0]
            self.optimiser.start(row, starts[index], budgets[index])
        # A copy each: a view would keep the whole batch's features alive.
        return [content.clone() for content in known]

    def advance(self, evaluations: int = 1) -> None:
        """Evaluate every slot so many times; on CUDA this gives the orders and does not wait."""
        for _ in range(evaluations):
            # A graph has no place for a stopwatch that looks at the device between network and optimiser.
            if self._stopwatch.waits_for is None:
                self._captured(self._evaluate)
            else:
                self._evaluate()

    def stops(self) -> list[Stop]:
        """Look how each slot stands; waits for the device."""
        return [Stop(stop) for stop in self.optimiser.stop.tolist()]

    def keep(self, rows: list[int]) -> None:
        """Drop all slots but these, in this order."""
        assert self._targets is not None
        self._count = len(rows)
        self.optimiser.keep(rows)
        self._targets = Targets(tuple(gram[rows] for gram in self._targets.grams), self._targets.content[rows])
        self._captured = CapturedStep(self._transfer.device)

    def _evaluate(self) -> None:
        assert self._targets is not None
        with self._stopwatch.section("network"):
            evaluated = self._transfer.value_and_gradient(self.optimiser.trial, self._targets)
        with self._stopwatch.section("optimiser"):
            self.optimiser.tell(*evaluated)


def _rows_like(tensor: Tensor, rows: int) -> Tensor:
    return torch.zeros((rows, *tensor.shape[1:]), dtype=tensor.dtype, device=tensor.device)
