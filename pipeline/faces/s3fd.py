"""S3FD (Zhang et al., "S3FD: Single Shot Scale-invariant Face Detector", ICCV 2017): the network and its anchors."""

from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDES: Final = (4, 8, 16, 32, 64, 128)
ANCHOR_SCALE: Final = 4  # an anchor is a square of four strides (Table 1)
VARIANCES: Final = (0.1, 0.2)  # of centres and of sizes, as in SSD

_BLOCKS: Final = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_BACKGROUNDS: Final = 3  # background scores of the finest layer, of which the highest counts (max-out background label)
_LARGEST: Final = 8.0  # of log(size / anchor), beyond which a box would cover thousands of anchors

HEADS: Final = ("conv3_3_norm", "conv4_3_norm", "conv5_3_norm", "fc7", "conv6_2", "conv7_2")
"""Layers that faces are read from, in the order of STRIDES."""


class Geometry(NamedTuple):
    """What the published trainings do differently and their weights do not tell.

    Attributes:
        fc6_padding: of conv_fc6, a 3x3 convolution.
        fc6_dilation: of it.
        ceil_pool3: the pooling after conv3_3 keeps an odd last row and column.
    """

    fc6_padding: int
    fc6_dilation: int
    ceil_pool3: bool


class _L2Norm(nn.Module):
    """Scale each position's features to a learned length, per channel (Sec. 3.1)."""

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), scale))

    def forward(self, features: Tensor) -> Tensor:
        length = features.square().sum(1, keepdim=True).sqrt() + 1e-10
        return features / length * self.weight.view(1, -1, 1, 1)


class S3FD(nn.Module):
    """VGG-16 to conv5_3, its two fully connected layers as convolutions, two more stages, and six pairs of heads.

    Layers have the names of the authors' Caffe model.
    """

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        self._ceil_pool3 = geometry.ceil_pool3
        inputs = 3
        for block, widths in enumerate(_BLOCKS, 1):
            for position, outputs in enumerate(widths, 1):
                self.add_module(f"conv{block}_{position}", nn.Conv2d(inputs, outputs, 3, padding=1))
                inputs = outputs
        self.fc6 = nn.Conv2d(512, 1024, 3, padding=geometry.fc6_padding, dilation=geometry.fc6_dilation)
        self.fc7 = nn.Conv2d(1024, 1024, 1)
        self.conv6_1 = nn.Conv2d(1024, 256, 1)
        self.conv6_2 = nn.Conv2d(256, 512, 3, stride=2, padding=1)
        self.conv7_1 = nn.Conv2d(512, 128, 1)
        self.conv7_2 = nn.Conv2d(128, 256, 3, stride=2, padding=1)
        for name, channels, scale in (("conv3_3", 256, 10.0), ("conv4_3", 512, 8.0), ("conv5_3", 512, 5.0)):
            self.add_module(f"{name}_norm", _L2Norm(channels, scale))
        for name, channels in zip(HEADS, (256, 512, 512, 1024, 512, 256), strict=True):
            scores = _BACKGROUNDS + 1 if name == HEADS[0] else 2
            self.add_module(f"{name}_mbox_conf", nn.Conv2d(channels, scores, 3, padding=1))
            self.add_module(f"{name}_mbox_loc", nn.Conv2d(channels, 4, 3, padding=1))

    def forward(self, pictures: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Score every anchor and say where its face is.

        Args:
            pictures: float [B, 3, H, W], means subtracted, sides of at least 32.

        Returns:
            For each stride the probability of a face, [B, h, w], and its offsets, [B, 4, h, w]; h and w are about H and
            W over the stride.
        """
        features = pictures
        seen: list[Tensor] = []
        for block, widths in enumerate(_BLOCKS, 1):
            for position in range(1, len(widths) + 1):
                features = self._layer(f"conv{block}_{position}", features)
            if block >= 3:
                seen.append(self.get_submodule(f"conv{block}_3_norm")(features))
            features = F.max_pool2d(features, 2, ceil_mode=self._ceil_pool3 and block == 3)
        for names in (("fc6", "fc7"), ("conv6_1", "conv6_2"), ("conv7_1", "conv7_2")):
            for name in names:
                features = self._layer(name, features)
            seen.append(features)
        return [self._head(name, layer) for name, layer in zip(HEADS, seen, strict=True)]

    def _layer(self, name: str, features: Tensor) -> Tensor:
        return F.relu(self.get_submodule(name)(features))

    def _head(self, name: str, features: Tensor) -> tuple[Tensor, Tensor]:
        scores: Tensor = self.get_submodule(f"{name}_mbox_conf")(features)
        background = scores[:, :-1].amax(1)
        offsets: Tensor = self.get_submodule(f"{name}_mbox_loc")(features)
        return torch.sigmoid(scores[:, -1] - background), offsets  # the softmax of two


def decode(probabilities: Tensor, offsets: Tensor, stride: int, least: float) -> tuple[Tensor, Tensor]:
    """Return the boxes of one stride's anchors that score.

    The anchor of column x and row y is a square of 4 strides around ((x + ½), (y + ½)) strides; offsets move its centre
    by 0.1 and its log size by 0.2, in units of its size.

    Args:
        probabilities: [h, w], as S3FD has them.
        offsets: [4, h, w]: x and y of the centre, log width, log height.
        stride: pixels.
        least: probability that a box must exceed.

    Returns:
        boxes [N, 4] (left, top, right, bottom) in pixels, and their probabilities [N].
    """
    rows, columns = torch.nonzero(probabilities > least, as_tuple=True)
    anchor = ANCHOR_SCALE * stride
    moves = offsets[:, rows, columns].T
    centres = (torch.stack([columns, rows], 1) + 0.5) * stride + VARIANCES[0] * anchor * moves[:, :2]
    sizes = anchor * torch.exp((VARIANCES[1] * moves[:, 2:]).clamp(max=_LARGEST))
    return torch.cat([centres - sizes / 2, centres + sizes / 2], 1), probabilities[rows, columns]
