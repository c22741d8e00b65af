"""MobileFaceNet: Chen et al., "MobileFaceNets" (CCBR 2018), Table 1, as Xiaoccer/MobileFaceNet_Pytorch trained it.

Crop: by hand, near that of SphereFace, whose alignment the port was trained with.

Three facts of that port: the input is 112×96, so the global depthwise convolution is 7×6; the last 1×1 convolution has
no activation; every batch normalisation has PyTorch's defaults.
"""

from torch import Tensor, nn

from pipeline.backbones.card import BackboneCard
from pipeline.backbones.registry import Backbone, register

_BOTTLENECKS = (  # expansion, channels, repeats, stride of the first
    (2, 64, 5, 2),
    (4, 128, 1, 2),
    (2, 128, 6, 1),
    (4, 128, 1, 2),
    (2, 128, 2, 1),
)


class MobileFaceNet(nn.Module):
    """Inverted residual bottlenecks between a stem and a global depthwise convolution.

    Modules bear the names of the port, so its state dict is ours.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = NormalisedConvolution(nn.Conv2d(3, 64, 3, 2, 1, bias=False))
        self.dw_conv1 = NormalisedConvolution(nn.Conv2d(64, 64, 3, 1, 1, groups=64, bias=False))
        blocks = []
        before = 64
        for expansion, channels, repeats, stride in _BOTTLENECKS:
            for repeat in range(repeats):
                blocks.append(Bottleneck(before, channels, expansion, stride if repeat == 0 else 1))
                before = channels
        self.blocks = nn.Sequential(*blocks)
        self.conv2 = NormalisedConvolution(nn.Conv2d(before, 512, 1, bias=False))
        self.linear7 = NormalisedConvolution(nn.Conv2d(512, 512, (7, 6), groups=512, bias=False), linear=True)
        self.linear1 = NormalisedConvolution(nn.Conv2d(512, 128, 1, bias=False), linear=True)

    def forward(self, images: Tensor) -> Tensor:
        """Embed normalised images, float [B, 3, 112, 96], RGB, as [B, 128]."""
        features = self.conv2(self.blocks(self.dw_conv1(self.conv1(images))))
        embedding: Tensor = self.linear1(self.linear7(features)).flatten(1)
        return embedding


class NormalisedConvolution(nn.Module):
    """A convolution, batch normalisation and, unless linear, a PReLU of one slope per channel."""

    def __init__(self, convolution: nn.Conv2d, *, linear: bool = False) -> None:
        super().__init__()
        self.conv = convolution
        self.bn = nn.BatchNorm2d(convolution.out_channels)
        self.prelu = nn.Identity() if linear else nn.PReLU(convolution.out_channels)

    def forward(self, features: Tensor) -> Tensor:
        """Map [B, C, h, w] to the convolution's output."""
        output: Tensor = self.prelu(self.bn(self.conv(features)))
        return output


class Bottleneck(nn.Module):
    """1×1 expansion, 3×3 depthwise with the stride, 1×1 linear projection; added to the input if that has its shape."""

    def __init__(self, before: int, after: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = before * expansion
        self.residual = stride == 1 and before == after
        self.conv = nn.Sequential(
            nn.Conv2d(before, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.PReLU(inner),
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
            nn.PReLU(inner),
            nn.Conv2d(inner, after, 1, bias=False),
            nn.BatchNorm2d(after),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map [B, before, h, w] to [B, after, h', w']."""
        output: Tensor = self.conv(features)
        return features + output if self.residual else output


MOBILEFACENET = register(
    Backbone(
        BackboneCard(
            name="mobilefacenet",
            width=96,
            height=112,
            channels="rgb",
            mean=(127.5, 127.5, 127.5),
            std=(128.0, 128.0, 128.0),
            crop=(35 / 178, 54 / 218, 142 / 178, 178 / 218),
            embedding=128,
            parameters=999_552,
            source="MobileFaceNet_Pytorch (model/best/068.ckpt), trained on CASIA-WebFace: "
            "https://github.com/Xiaoccer/MobileFaceNet_Pytorch",
            licence="none stated; CASIA-WebFace is for research only",
            note="112x96, not the 112x112 of most other ports, whose checkpoints do not fit. State dict under "
            '"net_state_dict". Crop for deep-funneled LFW of 250x250: (69, 52, 181, 182).',
        ),
        MobileFaceNet,
    )
)
