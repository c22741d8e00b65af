"""VGG-19 up to conv5_1, frozen, with the unit-RMS scales folded into its weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylize.weights import CONVOLUTIONS, LAYERS, VGGWeights

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class VGG19(nn.Module):
    """Features after ReLU of VGG-19's first thirteen convolutions (Simonyan & Zisserman 2015; PersonArt, Sec. 5).

    The layers are torchvision's, max pooling included. ReLU and max pooling are positively homogeneous, so dividing
    the activations of each layer by a constant is exactly a change of that layer's weights, made once here.

    Args:
        weights: The thirteen convolutions.
        scales: Thirteen positive divisors, one per layer of `LAYERS`; None leaves features as they come.
        dtype: Of the convolutions (float32 or bfloat16); features are returned in it.

    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, weights: VGGWeights, scales: Sequence[float] | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        from torchvision.models import vgg19  # noqa: PLC0415  # seconds to import, which not every process needs

        super().__init__()
        with torch.device("meta"):  # the architecture alone: no memory and no initialisation of 143 million numbers
            features = vgg19(weights=None).features[: CONVOLUTIONS[-1][1] + 2]
        features.load_state_dict(_fold(weights.tensors, scales), assign=True)
        self.features = features.to(dtype=dtype, memory_format=torch.channels_last)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        self.dtype = dtype
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Compute the features of `layers`.

        Args:
            images: float32 [B, 3, H, W], RGB in [0, 1], sides of at least 16 pixels.
            layers: Names out of `LAYERS`, in any order.

        Returns:
            For each layer [B, C, h, w], after ReLU, in `self.dtype`, channels last.

        """
        wanted = set(layers)
        x = self.normalise(images)
        taps: dict[str, Tensor] = {}
        for name, convolution, pooled in self.stages():
            if pooled:
                x = F.max_pool2d(x, 2)
            # In place is safe: the convolution does not keep its output.
            x = F.relu_(convolution(x))
            if name in wanted:
                taps[name] = x
                if len(taps) == len(wanted):
                    break
        return taps

    def normalise(self, images: Tensor) -> Tensor:
        """Turn images in [0, 1] into the first convolution's input, in `self.dtype`, channels last."""
        return ((images - self.mean) / self.std).to(dtype=self.dtype, memory_format=torch.channels_last)

    def stages(self) -> Iterator[tuple[str, nn.Conv2d, bool]]:
        """Yield each layer's name, its convolution, and whether its input is max-pooled (2×2) first."""
        names = iter(LAYERS)
        pooled = False
        for module in self.features:
            if isinstance(module, nn.MaxPool2d):
                pooled = True
            elif isinstance(module, nn.Conv2d):
                yield next(names), module, pooled
                pooled = False


def _fold(tensors: Mapping[str, Tensor], scales: Sequence[float] | None) -> dict[str, Tensor]:
    """Divide each layer's output by its scale, given that its input is divided by the previous layer's."""
    if scales is None:
        return dict(tensors)
    if len(scales) != len(CONVOLUTIONS) or not all(0 < scale < math.inf for scale in scales):
        raise ValueError(f"scales must be {len(CONVOLUTIONS)} positive numbers, one per layer, got {list(scales)}")
    folded: dict[str, Tensor] = {}
    previous = 1.0
    for (_, index, _, _), scale in zip(CONVOLUTIONS, scales, strict=True):
        folded[f"{index}.weight"] = tensors[f"{index}.weight"] * (previous / scale)
        folded[f"{index}.bias"] = tensors[f"{index}.bias"] / scale
        previous = scale
    return folded
