"""Training of attribute heads on embeddings that were computed beforehand (PersonArt, Sec. 3.3 and 5)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.training import ranks
from pipeline.training.attribute_accuracy import AttributeAccuracy, attribute_accuracy, majority_class
from pipeline.training.attribute_heads import AttributeHeads, binarise, probabilities
from pipeline.training.attribute_loss import attribute_cross_entropy, balancing_weights, label_weights
from pipeline.training.embedding_cache import DOMAINS, Domain, Precision
from pipeline.training.rank_rows import own_rows
from pipeline.training.step_seed import step_seed

TrainingSet = Literal["real", "art", "joint"]
"""Table 2's training sets: photographs, proxies, or both."""

Criterion = Literal["accuracy", "balanced"]
Indices = npt.NDArray[np.int64]

STEP_EPOCHS: Final = 3
DECAY: Final = 0.8

_EARLY = 5  # epochs in which constant answers mean nothing yet
_CONSTANT = 0.505  # mean balanced accuracy up to which answers are as good as constant


@dataclass(frozen=True)
class AttributeData:
    """Faces as embeddings and labels.

    Attributes:
        embeddings: by domain, "real" and "art": float32 [N, D] on the CPU, one row per face.
        labels: int8 [N, n]: 1 yes, 0 no, -1 unknown.
        persons: int64 [N]: equal for faces of one person.
        indices: by split: rows of its faces; "train" and "valid" at least.
    """

    embeddings: Mapping[Domain, Tensor]
    labels: npt.NDArray[np.int8]
    persons: Indices
    indices: Mapping[str, Indices]

    @property
    def majority(self) -> npt.NDArray[np.int8]:
        """Return every attribute's majority class in the training split; -1 for one without any label there."""
        return majority_class(self.labels[self.indices["train"]])

    def accuracy(self, heads: AttributeHeads, split: str, domain: Domain) -> AttributeAccuracy:
        """Score heads on one split of one domain."""
        rows = self.indices[split]
        predicted = binarise(probabilities(heads, self.embeddings[domain][rows])).numpy()
        return attribute_accuracy(predicted, self.labels[rows], self.majority, self.persons[rows])


class AttributeTrainer:
    """Trainer of attribute heads for `pipeline.training.loop.fit`.

    Adam; the learning rate is multiplied by 0.8 every 3 epochs. An epoch is a permutation of the training split's
    pictures in batches, the last one of which may be smaller; "joint" has both pictures of every face, so twice as
    many, each in a batch of its own chance. Order and dropout of a step follow from (seed, epoch, index) alone.

    Under torchrun each process takes every k-th row of a batch, and gradients are those of the whole batch (dropout
    apart, which each process draws for itself).

    Args:
        data: what to train and validate on; on every process the same.
        train_on: which pictures.
        batch_size: of all processes together.
        lr: initial learning rate.
        seed: of the start, the order and dropout.
        optimise_for: "accuracy" is the paper's plain cross-entropy. "balanced" weighs the classes of each attribute so
            that both count the same, and chooses the best epoch by balanced accuracy.
        precision: "bf16" multiplies matrices under autocast.
        device: of the heads.

    Attributes:
        heads: what is trained.
        monitor: "valid/accuracy" (or "valid/balanced"): the mean over attributes, then over the domains trained on.
    """

    def __init__(
        self,
        data: AttributeData,
        *,
        train_on: TrainingSet,
        batch_size: int = 32,
        lr: float = 1e-4,
        seed: int = 0,
        optimise_for: Criterion = "accuracy",
        precision: Precision = "fp32",
        device: torch.device | None = None,
    ) -> None:
        assert train_on in get_args(TrainingSet)
        self.monitor = f"valid/{optimise_for}"
        self._data = data
        self._domains: Sequence[Domain] = DOMAINS if train_on == "joint" else (train_on,)
        self._batch_size, self._seed, self._precision = batch_size, seed, precision
        self._device = device or torch.device("cpu")
        train = torch.from_numpy(data.indices["train"])
        inputs = [data.embeddings[domain][train] for domain in self._domains]
        self._inputs = torch.cat(inputs).to(self._device)
        self._labels = torch.from_numpy(data.labels)[train].repeat(len(inputs), 1).to(self._device)
        self._classes = balancing_weights(self._labels) if optimise_for == "balanced" else None
        with step_seed(self._device, seed):
            self.heads = AttributeHeads(self._inputs.shape[1], self._labels.shape[1]).to(self._device)
        ranks.broadcast_weights(self.heads)
        # Fused: one pass over the weights instead of a dozen; on two CPU cores 32 instead of 125 ms for 27 million.
        self._optimiser = torch.optim.Adam(self.heads.parameters(), lr=lr, fused=True)
        self._scheduler = torch.optim.lr_scheduler.StepLR(self._optimiser, STEP_EPOCHS, DECAY)
        self._order: tuple[int, Tensor] | None = None

    def steps(self, epoch: int) -> int:
        """Return the number of batches."""
        return -(-len(self._inputs) // self._batch_size)

    def batch(self, epoch: int, index: int) -> Tensor:
        """Return the rows of a batch among the training pictures: int64, "real" before "art" in "joint"."""
        if self._order is None or self._order[0] != epoch:
            order = np.random.default_rng([self._seed, epoch]).permutation(len(self._inputs))
            self._order = epoch, torch.from_numpy(order).to(self._device)
        return self._order[1][index * self._batch_size : (index + 1) * self._batch_size]

    def step(self, epoch: int, index: int) -> Mapping[str, float]:
        """Make one step of Adam; the loss is the mean cross-entropy over the known labels of the batch."""
        rows = self.batch(epoch, index)
        weights = label_weights(self._labels[rows], self._classes)
        own = own_rows(len(rows))
        self.heads.train()
        with (
            step_seed(self._device, self._seed, epoch, index, ranks.rank()),
            torch.autocast(self._device.type, torch.bfloat16, enabled=self._precision == "bf16"),
        ):
            logits = self.heads(self._inputs[rows[own]])
        # Times the number of processes, because gradients (and the loop's losses) are averaged over them.
        loss = attribute_cross_entropy(logits, self._labels[rows[own]], weights[own]) * ranks.world_size()
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        ranks.average_gradients(self.heads.parameters())
        self._optimiser.step()
        return {"loss": loss.item()}

    def validate(self, epoch: int) -> Mapping[str, float]:
        """Score both domains, whichever was trained on, and step the schedule."""
        scores = {domain: self._data.accuracy(self.heads, "valid", domain) for domain in DOMAINS}
        trained = [scores[domain] for domain in self._domains]
        self._scheduler.step()
        return {
            "valid/accuracy": sum(score.mean_accuracy for score in trained) / len(trained),
            "valid/balanced": sum(score.mean_balanced for score in trained) / len(trained),
            **{f"valid/accuracy/{domain}": score.mean_accuracy for domain, score in scores.items()},
            "valid/accuracy/majority": trained[0].mean_majority,
            **{f"valid/balanced/{domain}": score.mean_balanced for domain, score in scores.items()},
        }

    def state(self) -> dict[str, Any]:
        """Return heads, Adam's moments and the schedule."""
        return {
            "heads": self.heads.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "scheduler": self._scheduler.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take them over."""
        self.heads.load_state_dict(state["heads"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._scheduler.load_state_dict(state["scheduler"])

    def weights(self) -> dict[str, Tensor]:
        """Return the heads' weights."""
        return dict(self.heads.state_dict())

    def warning(self, epoch: int, metrics: Mapping[str, float]) -> str | None:
        """Say so where all attributes are answered alike for every face: 50 % of balanced accuracy."""
        balanced = metrics.get("valid/balanced")
        if epoch < _EARLY or balanced is None or not balanced <= _CONSTANT:
            return None
        return (
            f"after epoch {epoch} the heads answer nearly the same for every face (balanced accuracy {balanced:.1%}): "
            "they have learned each attribute's majority class and no more; give them more epochs, more faces or "
            "another learning rate"
        )
