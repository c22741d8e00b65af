"""What `pipeline.training.loop.fit` wants of the thing that it trains."""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor


class Trainer(Protocol):
    """A model with its optimisers, schedulers and data. Epochs count from 1, steps of an epoch from 0.

    For a resumed run to equal an uninterrupted one, everything that changes while training must be in ``state`` or be
    one of the global random generators (PyTorch, NumPy, `random`), which the loop keeps itself; the batch of a step
    must follow from a seed, the epoch and the index alone.

    Under torchrun (`pipeline.training.ranks`) every process has a trainer of its own: its constructor calls
    `broadcast_weights`, its ``step`` calls `average_gradients` between backward and the optimiser's step, and its
    ``steps`` must be the same in all processes. Where its ``validate`` steps a scheduler by a metric, that metric must
    be the same in all of them, too (`from_first_rank`).

    Attributes:
        monitor: name of the metric that says which epoch is best, as in "valid/R@1"; higher is better.
    """

    monitor: str

    def steps(self, epoch: int) -> int:
        """Return the number of steps of an epoch, at least 1."""
        ...

    def step(self, epoch: int, index: int) -> Mapping[str, float]:
        """Make one optimiser step; return its metrics, "loss" among them, under names without a split.

        The loop logs their means over the epoch as "train/loss" and so on.
        """
        ...

    def validate(self, epoch: int) -> Mapping[str, float]:
        """Evaluate after an epoch and step the schedulers; return metrics named as in "valid/R@1".

        It is called with finite weights only. ``monitor`` must be among the metrics. One that is not finite is logged
        as missing; the monitor must be finite.

        Raises:
            ValueError, RunError: outputs that cannot be scored, as of weights that are finite and overflow; the loop
                adds where that was.
        """
        ...

    def state(self) -> dict[str, Any]:
        """Return model, optimisers and schedulers: tensors, numbers, strings, None, and dicts and lists of such."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state`` returned; tensors are on the CPU."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """Return what the best checkpoint keeps."""
        ...

    def warning(self, epoch: int, metrics: Mapping[str, float]) -> str | None:
        """Return a sentence if an epoch's metrics say that something is wrong, as a loss at its collapse value does."""
        ...
