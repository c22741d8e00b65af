"""iresnet, the improved residual network of ArcFace, as insightface's ``arcface_torch`` trains it.

Deng, Guo, Xue, Zafeiriou, "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019
(arXiv:1801.07698): a first 3×3 convolution without stride, residual units of batch normalisation, 3×3 convolution,
normalisation, PReLU, 3×3 convolution and normalisation, the stride in the second convolution, no activation after the
addition, and a fully connected layer on the last 7×7 map. Modules are named as in insightface, so that its
``backbone.pth`` fits as it is; the margin's weights are a file of their own there.
"""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from pipeline.backbones.card import BackboneCard
from pipeline.backbones.registry import Backbone, register

DEPTHS_50 = (3, 4, 14, 3)
DEPTHS_100 = (3, 13, 30, 3)

TEMPLATE_CROP = (0.1678, 0.2611, 0.8269, 0.7994)
"""Where the image of the five-point template lies on aligned Celeb-A, as fractions of its width and height.

The scale and shift, without rotation, that bring the mean landmarks of Celeb-A (178 by 218; eyes (69.5, 111.4) and
(108.2, 111.5), nose (87.7, 134.0), mouth (72.4, 152.2) and (105.1, 152.3)) nearest, in least squares, to insightface's
template (112 by 112; (38.29, 51.70), (73.53, 51.50), (56.03, 71.74), (41.55, 92.37), (70.73, 92.20)): a square of
117.3 pixels.
"""


class ResidualUnit(nn.Module):
    """BN, 3×3 convolution, BN, PReLU, 3×3 convolution, BN beside a shortcut; the stride is the second convolution's.

    [B, channels, H, W] → [B, width, H / stride, W / stride].
    """

    def __init__(self, channels: int, width: int, stride: int, shortcut: nn.Module) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.prelu = nn.PReLU(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Add the residual to the shortcut."""
        residual: Tensor = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        shortcut: Tensor = self.downsample(x)
        return residual + shortcut


class IResNet(nn.Module):
    """iresnet; the embedding is not ℓ2-normalised.

    Weights start as PyTorch's layers do. (insightface starts convolutions at a standard deviation of 0.1, with which
    the deeper networks overflow in evaluation mode until the statistics of batch normalisation have been learnt.)

    Args:
        depths: residual units in each of the four stages; every stage halves the image.
        project_first: whether the first stage's shortcut, whose width does not change, is a 1×1 convolution with batch
            normalisation (insightface) or takes every second pixel (AdaFace).
        scale_embedding: whether the embedding's batch normalisation has a scale, fixed at 1, and a shift to learn
            (insightface), or neither (AdaFace).
        dropout: rate before the fully connected layer, in training.
    """

    def __init__(
        self, depths: Sequence[int], *, project_first: bool = True, scale_embedding: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.prelu = nn.PReLU(64)
        self.layer1 = _stage(64, 64, depths[0], project=project_first)
        self.layer2 = _stage(64, 128, depths[1], project=True)
        self.layer3 = _stage(128, 256, depths[2], project=True)
        self.layer4 = _stage(256, 512, depths[3], project=True)
        self.bn2 = nn.BatchNorm2d(512)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(512 * 7 * 7, 512)
        self.features = nn.BatchNorm1d(512, affine=scale_embedding)
        if scale_embedding:
            # A scale per dimension would undo what the angular margin asks for.
            self.features.weight.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Embed normalised images, float [B, 3, 112, 112], as [B, 512]."""
        x = self.prelu(self.bn1(self.conv1(images)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        embedding: Tensor = self.features(self.fc(self.dropout(self.bn2(x).flatten(1))))
        return embedding


def _stage(channels: int, width: int, count: int, *, project: bool) -> nn.Sequential:
    shortcut: nn.Module = nn.MaxPool2d(1, stride=2)
    if project:
        shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride=2, bias=False), nn.BatchNorm2d(width))
    rest = (ResidualUnit(width, width, 1, nn.Identity()) for _ in range(count - 1))
    return nn.Sequential(ResidualUnit(channels, width, 2, shortcut), *rest)


def _card(name: str, parameters: int, network: str) -> BackboneCard:
    return BackboneCard(
        name=name,
        width=112,
        height=112,
        channels="rgb",
        mean=(127.5, 127.5, 127.5),
        std=(127.5, 127.5, 127.5),
        crop=TEMPLATE_CROP,
        embedding=512,
        parameters=parameters,
        source=f"{network} of recognition/arcface_torch (backbone.pth), trained on MS1MV3, Glint360K or others: "
        "https://github.com/deepinsight/insightface",
        licence="non-commercial research only",
        note="Input is (pixel - 127.5) / 127.5. Faces aligned to the five-point template.",
    )


register(Backbone(_card("arcface-iresnet50", 43_590_848, "r50"), partial(IResNet, DEPTHS_50)))
register(Backbone(_card("arcface-iresnet100", 65_156_160, "r100"), partial(IResNet, DEPTHS_100)))
