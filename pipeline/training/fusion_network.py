"""Izadi's network (Sec. 2): a VGG-16 trunk, an attribute branch, and an identity branch that sees its soft-max."""

from collections.abc import Mapping
from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manifests.errors import InputError
from pipeline.training.attribute_loss import attribute_cross_entropy

Case = Literal["none", "ground-truth", "predicted"]
"""What of the attributes the identity branch sees: nothing, the labels, or the attribute branch's soft-max."""

CASES: Final[tuple[Case, ...]] = ("none", "ground-truth", "predicted")

MINIMUM_SIZE: Final = 32
"""Pixels: five poolings by two leave one place of it."""

VGG16: Final[tuple[tuple[int, ...], ...]] = (
    (64, 64),
    (128, 128),
    (256, 256, 256),
    (512, 512, 512),
    (512, 512, 512),
)
"""Output channels of the 13 convolutions, a pooling after each block (Simonyan & Zisserman 2015, configuration D)."""

# What torchvision's VGG checkpoints expect of pixels in 0–1.
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)


class FusionNetwork(nn.Module):
    """Attributes and identity of a face from one trunk.

    Parameters are W₁ = ``features``, W₂,₁ = ``attributes`` (None in case "none") and W₂,₂ = ``identities``. Keys of
    ``features`` are torchvision's ("features.0.weight", …), of ``vgg16`` or, with ``batch_norm``, of ``vgg16_bn``.

    Args:
        people: C, identities to tell apart.
        attributes: T; their two-way soft-max outputs are 2·T numbers.
        case: see ``Case``.
        size: side of the square input, at least ``MINIMUM_SIZE``.
        width: factor on the trunk's channels, each at least 1; 1 is VGG-16.
        hidden: outputs of the first fully connected layer of each branch (the paper: 4096).
        batch_norm: normalise after each convolution (not in the paper; the VGG-16 of 2015 hardly trains without
            it from random weights).
        dropout: share of hidden units dropped before each branch's last layer (not in the paper).
        seed: of the initial weights. The trunk's are drawn first, so that networks of all cases with the same seed
            begin with the same trunk. The global generator is left alone.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        *,
        people: int,
        attributes: int,
        case: Case,
        size: int = 224,
        width: float = 1.0,
        hidden: int = 4096,
        batch_norm: bool = False,
        dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if size < MINIMUM_SIZE:
            raise ValueError(f"size must be at least {MINIMUM_SIZE}, not {size}")
        self.case: Case = case
        self.people = people
        blocks = [[max(1, round(channels * width)) for channels in block] for block in VGG16]
        self.flat = blocks[-1][-1] * (size // 2 ** len(blocks)) ** 2
        fused = 0 if case == "none" else 2 * attributes
        self.register_buffer("mean", 255 * torch.tensor(_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", 255 * torch.tensor(_DEVIATION).view(3, 1, 1), persistent=False)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs, too
            self.features = _trunk(blocks, batch_norm)
            self.identities = _branch(self.flat + fused, hidden, people, dropout)
            self.attributes = None if case == "none" else _branch(self.flat, hidden, 2 * attributes, dropout)

    def pooled(self, images: Tensor) -> Tensor:
        """The last pooling layer, flattened.

        Args:
            images: uint8 [B, 3, size, size], RGB.

        Returns:
            [B, flat]; flat = 512 · width · ⌊size / 32⌋².
        """
        pooled: Tensor = self.features((images.float() - self.mean) / self.deviation).flatten(1)
        return pooled

    def attribute_logits(self, pooled: Tensor) -> Tensor:
        """Logits of f, [B, T, 2]: attribute absent, present.

        Raises:
            ValueError: the network is of case "none".
        """
        if self.attributes is None:
            raise ValueError('a network of case "none" has no attribute branch')
        logits: Tensor = self.attributes(pooled).unflatten(1, (-1, 2))
        return logits

    def identity_logits(self, pooled: Tensor, labels: Tensor) -> Tensor:
        """Logits of g, [B, C].

        In case "predicted" gradients flow through the soft-max into the attribute branch: L₂ is a function of W₂,₁.

        Args:
            pooled: [B, flat].
            labels: int8 [B, T], see ``one_hot``; read in case "ground-truth" only.
        """
        if self.case == "predicted":
            fused = self.attribute_logits(pooled).float().softmax(2).flatten(1)
        else:
            fused = one_hot(labels).flatten(1) if self.case == "ground-truth" else pooled[:, :0]
        logits: Tensor = self.identities(torch.cat([pooled, fused.to(pooled.dtype)], dim=1))
        return logits

    def load_trunk(self, state: Mapping[str, Tensor], source: str) -> None:
        """Copy the trunk's weights out of a state dict, whatever else that holds.

        Args:
            state: keys "features.0.weight", …, also behind a prefix ("module.features.0.weight") or without any
                ("0.weight").
            source: the file, for messages.

        Raises:
            InputError: a layer is missing or has another shape.
        """
        own = self.features.state_dict()
        bare = "0.weight" if "0.weight" in state else "features.0.weight"
        prefix = next((key for key in state if key.endswith("features.0.weight")), bare).removesuffix("0.weight")
        variant = "vgg16_bn" if any(name.endswith("running_mean") for name in own) else "vgg16"
        advice = f"give torchvision's {variant}, or the best.safetensors of a fusion run with the same width"
        begin = ", ".join(list(state)[:3])
        for name, tensor in own.items():
            if name.endswith("num_batches_tracked"):
                continue
            given = state.get(prefix + name)
            if given is None:
                raise InputError(f'weights "{source}" have no {prefix}{name} (they begin with {begin}); {advice}')
            if given.shape != tensor.shape:
                raise InputError(
                    f'weights "{source}" have {prefix}{name} as {list(given.shape)} where {list(tensor.shape)} is '
                    f"wanted; {advice}"
                )
            if not bool(torch.isfinite(given).all()):
                raise InputError(f'weights "{source}" hold a value in {prefix}{name} that is not finite; {advice}')
        layers = [key for key in state if key.startswith(prefix) and key.removeprefix(prefix)[:1].isdigit()]
        surplus = [key for key in layers if key.removeprefix(prefix) not in own]
        if surplus:
            raise InputError(f'weights "{source}" are of another network: {surplus[0]} has no place; {advice}')
        with torch.no_grad():
            for name, tensor in own.items():
                if prefix + name in state:
                    tensor.copy_(state[prefix + name])


def one_hot(labels: Tensor) -> Tensor:
    """Attribute labels in the form of soft-max outputs.

    Args:
        labels: int8 [B, T]: 1 yes, 0 no, -1 unknown.

    Returns:
        float32 [B, T, 2]: (1, 0) for no, (0, 1) for yes, (½, ½) for unknown.
    """
    present = torch.where(labels < 0, 0.5, labels.float())
    return torch.stack([1 - present, present], dim=2)


def attribute_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """L₁ (Eq. 1), with the minus that a loss needs: the sum of the cross-entropy over the labels that are known.

    Args:
        logits: [B, T, 2].
        labels: int8 [B, T]: 1 yes, 0 no, -1 unknown.
    """
    return attribute_cross_entropy(logits, labels, (labels >= 0).float())


def identity_loss(logits: Tensor, people: Tensor) -> Tensor:
    """L₂ (Eq. 2), with the minus that a loss needs: the sum over the images of the cross-entropy.

    Args:
        logits: [B, C].
        people: int64 [B].
    """
    return F.cross_entropy(logits.float(), people, reduction="sum")


def _trunk(blocks: list[list[int]], batch_norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for block in blocks:
        for outputs in block:
            convolution = nn.Conv2d(channels, outputs, 3, padding=1)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
            layers.append(convolution)
            if batch_norm:
                layers.append(nn.BatchNorm2d(outputs))
            layers.append(nn.ReLU(inplace=True))
            channels = outputs
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def _branch(inputs: int, hidden: int, outputs: int, dropout: float) -> nn.Sequential:
    first, last = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)
    nn.init.kaiming_normal_(first.weight, nonlinearity="relu")
    # Small, so that training begins at the loss of a guess.
    nn.init.normal_(last.weight, 0.0, 0.01)
    nn.init.zeros_(first.bias)
    nn.init.zeros_(last.bias)
    return nn.Sequential(first, nn.ReLU(inplace=True), nn.Dropout(dropout), last)
