"""Training of Izadi's network by Algorithm 1, one batch at a time."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.training import ranks
from pipeline.training.embedding_cache import Precision
from pipeline.training.fusion_data import FusionFaces
from pipeline.training.fusion_network import FusionNetwork, attribute_loss, identity_loss
from pipeline.training.rank_rows import own_rows
from pipeline.training.step_seed import step_seed
from pipeline.training.two_step_adamax import TwoStepAdamax
from stylize.precision import convolution_precision

MONITOR: Final = "train/log_likelihood"

# What a seed is for: SeedSequence takes numbers that differ in trailing zeros for the same.
_ORDER, _FLIPS, _DROPOUT = 1, 2, 3

_EARLY = 3  # epochs in which a loss at its start is nothing strange
_COLLAPSED = 0.98  # of ln C, the loss of a network that gives every person the same probability


@dataclass(frozen=True)
class Scores:
    """What a network says of some photographs.

    Attributes:
        right: bool [N]: the most probable person is the right one.
        log_likelihood: mean natural logarithm of the right person's probability.
        predicted: bool [N, T]: attributes predicted present; None in case "none".
    """

    right: npt.NDArray[np.bool_]
    log_likelihood: float
    predicted: npt.NDArray[np.bool_] | None

    @property
    def accuracy(self) -> float:
        """Share of photographs recognised."""
        return float(self.right.mean())


class FusionTrainer:
    """Trainer of one network for `pipeline.training.loop.fit`.

    An epoch is a seeded permutation of the training photographs, cut into batches that differ by one image at most.
    Each batch makes one iteration of Algorithm 1. Order and flips of a step follow from (seed, epoch, index), dropout
    also from the process's number; none of them uses the global generators.

    The paper has no validation set and trains "till we converge in training error": the epoch with the highest
    likelihood of the training photographs is the best one. Test photographs are not looked at while training.

    Under torchrun each process takes every k-th image of a batch, and losses are divided by the whole batch's counts,
    so that averaged gradients are those of the whole batch. Batch normalisation sees each process's part alone; its
    running statistics are the first process's.

    Args:
        network: what is trained; moved to ``device``.
        faces: photographs; held in memory.
        batch_size: at most so many images per step, of all processes together.
        lr: α of AdaMax.
        flip: mirror every other training photograph, drawn anew each time.
        seed: of order, flips and dropout.
        precision: "bf16" computes convolutions and products under autocast; weights and moments stay float32.
        device: to train on.

    Attributes:
        monitor: "train/log_likelihood".
    """

    def __init__(
        self,
        network: FusionNetwork,
        faces: FusionFaces,
        *,
        batch_size: int = 32,
        lr: float = 0.002,
        flip: bool = False,
        seed: int = 0,
        precision: Precision = "fp32",
        device: torch.device | None = None,
    ) -> None:
        self.monitor = MONITOR
        self._device = device or torch.device("cpu")
        self._network = network.to(self._device)
        self._faces = faces
        self._flip, self._seed, self._precision = flip, seed, precision
        self._steps = -(-len(faces.train) // batch_size)
        branch = network.attributes
        self._optimiser = TwoStepAdamax(
            network.features.parameters(),
            [] if branch is None else branch.parameters(),
            network.identities.parameters(),
            lr=lr,
        )
        ranks.broadcast_weights(network)

    def steps(self, epoch: int) -> int:
        """Return the number of batches; the same in every epoch."""
        return self._steps

    def batch(self, epoch: int, index: int) -> tuple[Tensor, Tensor]:
        """Return a batch of all processes: int64 indices of photographs, and bool, which of them are mirrored."""
        order = np.random.default_rng([_ORDER, self._seed, epoch]).permutation(self._faces.train.numpy())
        rows = np.array_split(order, self._steps)[index]
        flips = np.random.default_rng([_FLIPS, self._seed, epoch, index]).random(len(rows)) < 0.5
        return torch.from_numpy(rows), torch.from_numpy(flips & self._flip)

    def step(self, epoch: int, index: int) -> Mapping[str, float]:
        """Make one iteration of Algorithm 1.

        Returns:
            "identity_loss" (L₂ per image), "attribute_loss" (L₁ per known label; not in case "none") and their sum,
            "loss"; each before its own update.
        """
        rows, flips = self.batch(epoch, index)
        known = int((self._faces.attributes[rows] >= 0).sum())
        # Averaging over processes divides by their number.
        per_image, per_label = ranks.world_size() / len(rows), ranks.world_size() / max(known, 1)
        own = own_rows(len(rows))
        images = _mirrored(self._faces.images[rows[own]], flips[own]).to(self._device)
        people = self._faces.classes[rows[own]].to(self._device)
        labels = self._faces.attributes[rows[own]].to(self._device)
        network = self._network.train()

        def attributes() -> Tensor:
            with self._autocast():
                logits = network.attribute_logits(network.pooled(images))
            return attribute_loss(logits, labels) * per_label

        def identities() -> Tensor:
            with self._autocast():
                logits = network.identity_logits(network.pooled(images), labels)
            return identity_loss(logits, people) * per_image

        # Dropout draws from numbers of this step's and this process's own.
        own_numbers = step_seed(self._device, _DROPOUT, self._seed, epoch, index, ranks.rank())
        with own_numbers, convolution_precision("fp32"):
            first, second = self._optimiser.step(
                attributes if network.attributes is not None and known else None,
                identities,
                reduce=ranks.average_gradients,
            )
        losses = {"identity_loss": float(second)}
        if first is not None:
            losses["attribute_loss"] = float(first)
        return {"loss": sum(losses.values()), **losses}

    def validate(self, epoch: int) -> Mapping[str, float]:
        """Score the training photographs as they are, without mirroring and dropout (the paper's Figure 3)."""
        ranks.broadcast_weights(self._network)  # running statistics differ
        scores = self.scores(self._faces.train)
        metrics = {MONITOR: scores.log_likelihood, "train/accuracy": scores.accuracy}
        labels = self._faces.attributes[self._faces.train].numpy()
        if scores.predicted is not None and (labels >= 0).any():
            metrics["train/attribute_accuracy"] = float((scores.predicted == labels)[labels >= 0].mean())
        return metrics

    @torch.inference_mode()
    def scores(self, rows: Tensor, *, batch_size: int = 64) -> Scores:
        """Apply the network as it is to photographs, in evaluation mode and float32.

        Args:
            rows: int64 indices, at least one.
            batch_size: images at a time.
        """
        with convolution_precision("fp32"):
            return self._scores(rows, batch_size)

    def _scores(self, rows: Tensor, batch_size: int) -> Scores:
        network, right, log_likelihood, predicted = self._network.eval(), [], 0.0, []
        for part in torch.split(rows, batch_size):
            people = self._faces.classes[part]
            pooled = network.pooled(self._faces.images[part].to(self._device))
            logits = network.identity_logits(pooled, self._faces.attributes[part].to(self._device)).cpu()
            right.append((logits.argmax(1) == people).numpy())
            log_likelihood -= float(identity_loss(logits, people))
            if network.attributes is not None:
                predicted.append((network.attribute_logits(pooled).argmax(2) == 1).cpu().numpy())
        return Scores(
            np.concatenate(right), log_likelihood / len(rows), np.concatenate(predicted) if predicted else None
        )

    def state(self) -> dict[str, Any]:
        """Return the network's weights and statistics and the moments of both optimisers."""
        return {"network": self._network.state_dict(), "optimiser": self._optimiser.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take them over."""
        self._network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])

    def weights(self) -> dict[str, Tensor]:
        """Return the network's weights and statistics."""
        return dict(self._network.state_dict())

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Make ``weights`` the network's; the optimisers are left as they are."""
        self._network.load_state_dict(weights)

    def warning(self, epoch: int, metrics: Mapping[str, float]) -> str | None:
        """Say so where the network gives every person the same probability."""
        guess = math.log(self._network.people)
        loss = -metrics[MONITOR]
        if epoch < _EARLY or not _COLLAPSED * guess <= loss <= guess / _COLLAPSED:
            return None
        return (
            f"after epoch {epoch} the network has not learned to tell people apart: its loss, {loss:.3f}, is that of a "
            f"guess among {self._network.people} people; try batch normalisation, weights that were trained before, or "
            "a lower learning rate"
        )

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._precision == "bf16")


def _mirrored(images: Tensor, flips: Tensor) -> Tensor:
    return torch.where(flips.view(-1, 1, 1, 1), images.flip(3), images)
