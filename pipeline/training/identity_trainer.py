"""Training of the joint identity space (Cornia et al., TOMM 2022, Sec. 3.2 and 5) for `pipeline.training.loop.fit`."""

from collections.abc import Mapping
from itertools import chain
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.retrieval.recall import Recall, ranks_of_people, recall_at_k
from pipeline.training import ranks
from pipeline.training.embedding_cache import DOMAINS
from pipeline.training.identity_data import IdentityData
from pipeline.training.identity_features import Features
from pipeline.training.pair_sampler import Positives, batch_bounds, epoch_pairs
from pipeline.training.projection import AsymmetricProjections
from pipeline.training.rank_rows import all_rows, own_rows
from pipeline.training.run_faces import Indices
from pipeline.training.triplet_loss import collapse_value, max_violation_hinge
from stylize.precision import convolution_precision

DECAY: Final = 0.1
"""Of the learning rate where validation recall stops improving."""

PROJECTIONS: Final = "projections."
NETWORK: Final = "network."
"""Prefixes of the names of the model's weights."""

_NEAR_COLLAPSE = 0.01


class IdentityTrainer:
    """Adam on the maximum-violation hinge, over pairs (photograph, proxy of the same person) of the training split.

    The learning rate is multiplied by 0.1 after ``plateau`` epochs in a row without a better R@1 on the validation
    split.

    Under torchrun each process embeds every k-th pair of a batch; the loss is over the whole batch in all of them, so
    that every pair has the negatives, and the weights the gradients, that they have in a single process.

    Args:
        data: which faces.
        features: of these faces; trains its network, too, if it has one.
        projections: what is trained; moved to the features' device.
        margin: α of Eq. 7.
        lr: of Adam, at first, for all weights.
        batch_size: pairs in a step, of all processes together.
        plateau: see above.
        positives: which pairs.
        seed: of partners and order.

    Attributes:
        monitor: "valid/R@1".

    """

    monitor = "valid/R@1"

    def __init__(
        self,
        data: IdentityData,
        features: Features,
        projections: AsymmetricProjections,
        *,
        margin: float,
        lr: float,
        batch_size: int,
        plateau: int,
        positives: Positives,
        seed: int,
    ) -> None:
        self.projections = projections.to(features.device)
        self._data, self._features = data, features
        self._margin, self._batch_size, self._positives, self._seed = margin, batch_size, positives, seed
        self._bounds = batch_bounds(data.pairs, batch_size)
        self._identities = torch.from_numpy(data.identities).to(features.device)
        self._modules: dict[str, nn.Module] = {PROJECTIONS: self.projections}
        if features.network is not None:
            self._modules[NETWORK] = features.network
        for module in self._modules.values():
            ranks.broadcast_weights(module)
        self._parameters = list(chain.from_iterable(module.parameters() for module in self._modules.values()))
        self._optimiser = torch.optim.Adam(self._parameters, lr=lr)
        # PyTorch's patience is the number of such epochs that it still bears.
        self._scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self._optimiser, mode="max", factor=DECAY, patience=plateau - 1, threshold=0.0
        )
        self._epoch: tuple[int, Indices] | None = None

    def steps(self, epoch: int) -> int:
        """Return the number of batches, the same in every epoch."""
        return len(self._bounds) - 1

    def batch(self, epoch: int, index: int) -> Indices:
        """Return the pairs of a step: int64 [b, 2], faces of photographs and of proxies."""
        if self._epoch is None or self._epoch[0] != epoch:
            train = self._data.splits["train"]
            pairs = epoch_pairs(
                self._data.identities[train],
                self._data.sources[train],
                seed=self._seed,
                epoch=epoch,
                positives=self._positives,
                batch_size=self._batch_size,
            )
            self._epoch = epoch, train[pairs]
        return self._epoch[1][self._bounds[index] : self._bounds[index + 1]]

    def step(self, epoch: int, index: int) -> Mapping[str, float]:
        """Make one step of Adam. "loss" is `max_violation_hinge`, per pair; "collapsed" is 1 at its collapse value."""
        pairs = self.batch(epoch, index)
        real, art = self._own(pairs)
        embedded_real = self.projections.real(self._features.batch("real", real))
        embedded_art = self.projections.art(self._features.batch("art", art))
        if index + 1 < self.steps(epoch):
            self._features.expect(*self._own(self.batch(epoch, index + 1)))
        loss = max_violation_hinge(
            all_rows(embedded_real, len(pairs)),
            all_rows(embedded_art, len(pairs)),
            self._identities[torch.from_numpy(pairs[:, 0]).to(self._identities.device)],
            self._margin,
        )
        self._optimiser.zero_grad()
        with convolution_precision("fp32"):
            (loss * ranks.world_size()).backward()  # type: ignore[no-untyped-call]  # averaged over processes next
        ranks.average_gradients(self._parameters)
        self._optimiser.step()
        value = float(loss.detach())
        return {"loss": value, "collapsed": float(self._at_collapse(value))}

    def validate(self, epoch: int) -> Mapping[str, float]:
        """Measure recall on the validation split, and step the schedule by R@1."""
        lr = float(self._optimiser.param_groups[0]["lr"])
        at = ranks.from_first_rank(self.recall("valid").at)
        self._scheduler.step(at[1])
        return {**{f"valid/R@{k}": value for k, value in at.items()}, "lr": lr}

    @torch.no_grad()
    def recall(self, split: str, *, bare: bool = False) -> Recall:
        """Find every photograph of a split among the split's proxies, its own left out.

        Args:
            split: "train", "valid" or "test".
            bare: compare the backbone's ℓ2-normalised embeddings, without projections.

        """
        indices = self._data.splits[split]
        real, art = (self._features.all(domain, indices) for domain in DOMAINS)
        if bare:
            real, art = F.normalize(real, dim=1), F.normalize(art, dim=1)
        else:
            real, art = self.projections.real(real), self.projections.art(art)
        identities, sources = (
            torch.from_numpy(column[indices]).to(real.device) for column in (self._data.identities, self._data.sources)
        )
        found = ranks_of_people(
            real,
            art,
            query_identities=identities,
            gallery_identities=identities,
            query_sources=sources,
            gallery_sources=sources,
        )
        return recall_at_k(found)

    def state(self) -> dict[str, Any]:
        """Return weights, optimiser and schedule."""
        return {
            "weights": self.weights(),
            "optimiser": self._optimiser.state_dict(),
            "scheduler": self._scheduler.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state`` returned."""
        self.load_weights(state["weights"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._scheduler.load_state_dict(state["scheduler"])

    def weights(self) -> dict[str, Tensor]:
        """Return the projections, and the backbone if it is trained."""
        return {
            prefix + name: tensor
            for prefix, module in self._modules.items()
            for name, tensor in module.state_dict().items()
        }

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Take over what ``weights`` returned."""
        for prefix, module in self._modules.items():
            module.load_state_dict(
                {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
            )

    def warning(self, epoch: int, metrics: Mapping[str, float]) -> str | None:
        """Tell if the loss sits where it is when all faces have one embedding: in the mean and in most steps.

        The mean alone is not enough. A loss that falls from above passes this value on its way, but batch by batch it
        then lies on both sides.
        """
        collapsed, loss = collapse_value(self._margin), metrics["train/loss"]
        if not (self._at_collapse(loss) and metrics["train/collapsed"] > 0.5):
            return None
        return (
            f"the loss of epoch {epoch} is {loss:.4f} per pair, and {collapsed:.4g} is what it is when all faces have "
            "the same embedding (twice the margin): nothing is learned; try a lower learning rate, or check the "
            "backbone and its crop"
        )

    def _at_collapse(self, loss: float) -> bool:
        value = collapse_value(self._margin)
        return abs(loss - value) <= _NEAR_COLLAPSE * value

    def _own(self, pairs: Indices) -> tuple[Indices, Indices]:
        own = pairs[own_rows(len(pairs))]
        return own[:, 0].copy(), own[:, 1].copy()
