"""LightCNN-9 and -29: Wu et al., "A Light CNN for Deep Face Representation with Noisy Labels" (TIFS 2018), Sec. III.

The paper's max-feature-map (MFM) takes the larger of two halves of the channels instead of an activation function.

Crop: the authors put the middle of the eyes at (64, 40) of 128×128 and the middle of the mouth 48 below. Celeb-A's mean
landmarks, in 178×218, have the eyes' middle at (88.85, 111.45) and 40.8 between the two: a scale of 1.1765, so the crop
has 108.8 pixels on each side.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from pipeline.backbones.card import BackboneCard
from pipeline.backbones.registry import Backbone, register
from pipeline.backbones.renaming import rename_modules

_STAGES = ((48, 96, True), (96, 192, True), (192, 128, False), (128, 128, True))  # channels in, out, pooled after


class LightCNN(nn.Module):
    """A 5×5 MFM convolution, four stages with 2×2 max pooling between, and a fully connected MFM.

    The embedding is that last layer, before the dropout that belongs to the classifier's training.

    Args:
        residual_blocks: how many precede the group of each stage: none in LightCNN-9, (1, 2, 3, 4) in LightCNN-29.
    """

    def __init__(self, residual_blocks: tuple[int, int, int, int]) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv1=MaxFeatureMap(nn.Conv2d(1, 2 * 48, 5, padding=2)), pool1=_pool()
        )
        pools = 1
        for stage, (before, after, pooled) in enumerate(_STAGES, start=1):
            layers[f"block{stage}"] = nn.Sequential(*(ResidualBlock(before) for _ in range(residual_blocks[stage - 1])))
            layers[f"group{stage}"] = nn.Sequential(
                OrderedDict(conv_a=_convolution(before, before, 1), conv=_convolution(before, after, 3))
            )
            if pooled:
                pools += 1
                layers[f"pool{pools}"] = _pool()
        self.features = nn.Sequential(layers)
        self.fc = MaxFeatureMap(nn.Linear(128 * 8 * 8, 2 * 256))

    def forward(self, images: Tensor) -> Tensor:
        """Embed normalised images, float [B, 1, 128, 128], grey, as [B, 256]."""
        embedding: Tensor = self.fc(self.features(images).flatten(1))
        return embedding


class MaxFeatureMap(nn.Module):
    """max(y[:, :C], y[:, C:]) of a linear layer's or a convolution's output y, [B, 2C, …] → [B, C, …]."""

    def __init__(self, layer: nn.Conv2d | nn.Linear) -> None:
        super().__init__()
        self.filter = layer

    def forward(self, features: Tensor) -> Tensor:
        """Apply the layer, then halve its channels."""
        return torch.maximum(*self.filter(features).chunk(2, dim=1))


class ResidualBlock(nn.Module):
    """x + MFM(MFM(x)), 3×3, without batch normalisation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _convolution(channels, channels, 3)
        self.conv2 = _convolution(channels, channels, 3)

    def forward(self, features: Tensor) -> Tensor:
        """Keep the shape [B, C, h, w]."""
        residual: Tensor = self.conv2(self.conv1(features))
        return features + residual


def _convolution(before: int, after: int, kernel: int) -> MaxFeatureMap:
    return MaxFeatureMap(nn.Conv2d(before, 2 * after, kernel, padding=kernel // 2))


def _pool() -> nn.MaxPool2d:
    # Caffe's rounding: an odd side keeps its last row.
    return nn.MaxPool2d(2, ceil_mode=True)


_NAMES_9 = {
    "features.0": "features.conv1",
    "features.2": "features.group1",
    "features.4": "features.group2",
    "features.6": "features.group3",
    "features.7": "features.group4",
    "fc1": "fc",
}
_PARTS_29 = ("conv1", *(f"{part}{stage}" for stage in range(1, 5) for part in ("block", "group")))
_NAMES_29 = {part: f"features.{part}" for part in _PARTS_29} | {"fc": "fc"}

_LICENCE = "MIT; of the Caffe models before them the authors allow non-commercial use only"
_CROP = (34.5 / 178, 77.5 / 218, 143.3 / 178, 186.3 / 218)


def _card(name: str, parameters: int, file: str, note: str) -> BackboneCard:
    return BackboneCard(
        name=name,
        width=128,
        height=128,
        channels="grey",
        mean=(0.0,),
        std=(255.0,),
        crop=_CROP,
        embedding=256,
        parameters=parameters,
        source=f"LightCNN ({file}), trained on MS-Celeb-1M: https://github.com/AlfredXiangWu/LightCNN",
        licence=_LICENCE,
        note=f"One grey channel in [0, 1]. {note}",
    )


LIGHTCNN9 = register(
    Backbone(
        _card("lightcnn9", 5_480_864, "LightCNN_9Layers_checkpoint.pth.tar", "The 9-layer network of the paper."),
        lambda: LightCNN((0, 0, 0, 0)),
        (rename_modules(_NAMES_9, classifier=("fc2",)),),
    )
)

LIGHTCNN29 = register(
    Backbone(
        _card(
            "lightcnn29",
            12_573_280,
            "LightCNN_29Layers_checkpoint.pth.tar",
            "The original LightCNN-29, not 29v2: that one adds average to max pooling and has a plain fc without MFM "
            '("fc.weight" where this one has "fc.filter.weight"), and its checkpoint does not fit.',
        ),
        lambda: LightCNN((1, 2, 3, 4)),
        (rename_modules(_NAMES_29, classifier=("fc2",)),),
    )
)
