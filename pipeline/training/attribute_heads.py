"""Forty attribute classifiers side by side: one small network per attribute, computed as batched matrix products.

PersonArt (Cornia et al., TOMM 2022), Sec. 3.3 and 5: the activations of a face recognition network's last layer feed n
identical branches of four fully connected layers with 1024, 512, 64 and 2 outputs, with dropout of 0.2 after the first
and 0.4 after the second. The paper names no activation; ReLU follows all layers but the last here.
"""

import math
from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manifests.attributes import ATTRIBUTES

WIDTHS: Final = (1024, 512, 64)
DROPOUT: Final = (0.2, 0.4)
CLASSES: Final = 2
"""Outputs of a branch: logits of "no" and "yes", in this order."""

_CHUNK: Final = 256  # rows at once: the first layer of 40 branches takes 160 KiB for each


class BranchLinear(nn.Module):
    """n linear layers side by side: [n, B, inputs] → [n, B, outputs], each branch with weights of its own.

    ``weight`` is [n, inputs, outputs], the transpose of ``nn.Linear``'s, and ``bias`` [n, 1, outputs]; both start as
    those of ``nn.Linear`` do, uniform within ±1/√inputs.
    """

    def __init__(self, n: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(n, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n, 1, outputs).uniform_(-bound, bound))

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply every branch to its own rows."""
        return torch.baddbmm(self.bias, inputs, self.weight)


class AttributeHeads(nn.Module):
    """n branches over one embedding: float [B, dim] → logits float [B, n, 2].

    Equal to n ``nn.Sequential``s (see `branches`) up to rounding. All branches see the same input, so their first
    layers are one ``nn.Linear`` of n·1024 outputs; each of the other three is one ``baddbmm``. Dropout draws from the
    global generator, for all branches at once.

    Args:
        dim: width of the embedding.
        n: number of branches.
        widths: outputs of the hidden layers.
        dropout: probabilities after the first and the second layer.
    """

    def __init__(
        self,
        dim: int,
        n: int = len(ATTRIBUTES),
        *,
        widths: tuple[int, int, int] = WIDTHS,
        dropout: tuple[float, float] = DROPOUT,
    ) -> None:
        super().__init__()
        self.dim, self.n, self.widths, self.dropout = dim, n, widths, dropout
        self.first = nn.Linear(dim, n * widths[0])  # fan-in is dim, so each branch's share starts as its own would
        self.second = BranchLinear(n, widths[0], widths[1])
        self.third = BranchLinear(n, widths[1], widths[2])
        self.fourth = BranchLinear(n, widths[2], CLASSES)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return logits of "no" and "yes" of every attribute."""
        hidden = self.first(embeddings).relu().unflatten(1, (self.n, self.widths[0])).transpose(0, 1)
        hidden = self.second(F.dropout(hidden, self.dropout[0], self.training)).relu()
        hidden = self.third(F.dropout(hidden, self.dropout[1], self.training)).relu()
        logits: Tensor = self.fourth(hidden).transpose(0, 1)
        return logits

    @classmethod
    def from_branches(cls, branches: Sequence[nn.Sequential]) -> "AttributeHeads":
        """Make heads of branches that are made as `branches` makes them; weights are copied, dtype and device kept.

        Raises:
            ValueError: there is none, or a branch is of another make, or they differ.
        """
        makes = {_make(branch) for branch in branches}
        if len(makes) != 1:
            raise ValueError(f"branches must be at least one and all alike, not {sorted(map(str, makes)) or 'none'}")
        dim, *widths, low, high = makes.pop()
        linears = [[layer for layer in branch if isinstance(layer, nn.Linear)] for branch in branches]
        first = linears[0][0].weight
        with torch.device("meta"):
            heads = cls(
                int(dim),
                len(branches),
                widths=(int(widths[0]), int(widths[1]), int(widths[2])),
                dropout=(low, high),
            )
        heads = heads.to_empty(device=first.device).to(first.dtype)
        with torch.no_grad():
            heads.first.weight.copy_(torch.cat([layers[0].weight for layers in linears]))
            heads.first.bias.copy_(torch.cat([layers[0].bias for layers in linears]))
            for at, layer in enumerate((heads.second, heads.third, heads.fourth), start=1):
                layer.weight.copy_(torch.stack([layers[at].weight.T for layers in linears]))
                layer.bias.copy_(torch.stack([layers[at].bias[None] for layers in linears]))
        return heads.train(branches[0].training)

    def branches(self) -> list[nn.Sequential]:
        """Return the branches as networks of their own; weights are copies.

        Each is Linear, ReLU, Dropout, Linear, ReLU, Dropout, Linear, ReLU, Linear.
        """
        weight = self.first.weight
        made = []
        for branch in range(self.n):
            own = slice(branch * self.widths[0], (branch + 1) * self.widths[0])
            pairs = [(weight[own], self.first.bias[own])]
            pairs += [
                (layer.weight[branch].T, layer.bias[branch, 0]) for layer in (self.second, self.third, self.fourth)
            ]
            linears = []
            for values, bias in pairs:
                # By way of "meta", where the default initialisation draws no random numbers.
                with torch.device("meta"):
                    linear = nn.Linear(values.shape[1], values.shape[0], dtype=weight.dtype)
                linear = linear.to_empty(device=weight.device)
                with torch.no_grad():
                    linear.weight.copy_(values)
                    linear.bias.copy_(bias)
                linears.append(linear)
            first, second = (nn.Dropout(p) for p in self.dropout)
            network = nn.Sequential(
                *(linears[0], nn.ReLU(), first, linears[1], nn.ReLU(), second, linears[2], nn.ReLU(), linears[3])
            )
            made.append(network.train(self.training))
        return made


def probabilities(heads: AttributeHeads, embeddings: Tensor) -> Tensor:
    """Return how probable each attribute is, without dropout.

    Args:
        heads: on any device; its mode is left as it is.
        embeddings: float [N, dim], on any device; N may be 0.

    Returns:
        float32 [N, n] on the embeddings' device: the softmax probability of "yes".
    """
    weight = heads.first.weight
    training = heads.training
    heads.eval()
    try:
        with torch.inference_mode():
            chunks = [
                heads(chunk.to(weight.device, weight.dtype)).float().softmax(2)[..., 1].to(embeddings.device)
                for chunk in torch.split(embeddings, _CHUNK)
            ]
    finally:
        heads.train(training)
    return torch.cat(chunks).clone()  # out of inference mode: an ordinary tensor again


def binarise(probability: Tensor, threshold: float = 0.5) -> Tensor:
    """Return γ of Eq. 8: bool [N, n], true where "yes" is more probable than ``threshold``.

    Ties are "no". ``numpy.packbits(bits, axis=1)`` packs a row of 40 into five bytes.
    """
    return probability > threshold


def _make(branch: nn.Sequential) -> tuple[float, ...]:
    """Return inputs, three widths and two dropout probabilities of a branch."""
    kinds = (nn.Linear, nn.ReLU, nn.Dropout, nn.Linear, nn.ReLU, nn.Dropout, nn.Linear, nn.ReLU, nn.Linear)
    if len(branch) != len(kinds) or not all(map(isinstance, branch, kinds)):
        raise ValueError(f"a branch must consist of {', '.join(kind.__name__ for kind in kinds)}, not of {branch}")
    linears = [layer for layer in branch if isinstance(layer, nn.Linear)]
    if any(linear.bias is None for linear in linears) or linears[-1].out_features != CLASSES:
        raise ValueError(f"the layers of a branch must have biases, and the last {CLASSES} outputs: {branch}")
    drops = [layer.p for layer in branch if isinstance(layer, nn.Dropout)]
    return (linears[0].in_features, *(linear.out_features for linear in linears[:3]), *drops)
