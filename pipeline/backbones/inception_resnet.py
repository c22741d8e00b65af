"""Inception-ResNet-v1 as FaceNet's open implementation trains it: davidsandberg/facenet, ported by facenet-pytorch.

Szegedy, Ioffe, Vanhoucke, Alemi, "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning",
AAAI 2017 (arXiv:1602.07261), with a linear layer to 512 and batch normalisation at the end instead of a classifier.
facenet-pytorch ℓ2-normalises that; here the embedding is what goes into the normalisation. Modules are named as there,
so that its files fit once the classifier is dropped.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.backbones.card import BackboneCard
from pipeline.backbones.registry import Backbone, register

_EPSILON = 1e-3  # of every batch normalisation: TensorFlow's


class ConvolutionUnit(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(
        self,
        channels: int,
        width: int,
        size: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, size, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(width, eps=_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, channels, H, W] to [B, width, H', W']."""
        return F.relu(self.bn(self.conv(x)))


class Branches(nn.Module):
    """Branches side by side, their outputs one after the other along the channels; named branch0, branch1, …"""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self._names = [f"branch{number}" for number in range(len(branches))]
        for name, branch in zip(self._names, branches, strict=True):
            self.add_module(name, branch)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, channels, H, W] to [B, sum of the branches' widths, H', W']."""
        return torch.cat([self.get_submodule(name)(x) for name in self._names], dim=1)


class ResidualBranches(Branches):
    """Inception-ResNet's block: branches, a 1×1 convolution back to the input's width, scaled, added to the input."""

    def __init__(self, channels: int, width: int, scale: float, *branches: nn.Module, rectify: bool = True) -> None:
        super().__init__(*branches)
        self.conv2d = nn.Conv2d(width, channels, 1)
        self.scale = scale
        self.rectify = rectify

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, channels, H, W] to the same shape."""
        x = x + self.scale * self.conv2d(super().forward(x))
        return F.relu(x) if self.rectify else x


def _block35() -> ResidualBranches:
    return ResidualBranches(
        256,
        96,
        0.17,
        ConvolutionUnit(256, 32, 1),
        nn.Sequential(ConvolutionUnit(256, 32, 1), ConvolutionUnit(32, 32, 3, padding=1)),
        nn.Sequential(
            ConvolutionUnit(256, 32, 1), ConvolutionUnit(32, 32, 3, padding=1), ConvolutionUnit(32, 32, 3, padding=1)
        ),
    )


def _block17() -> ResidualBranches:
    separable = nn.Sequential(
        ConvolutionUnit(896, 128, 1),
        ConvolutionUnit(128, 128, (1, 7), padding=(0, 3)),
        ConvolutionUnit(128, 128, (7, 1), padding=(3, 0)),
    )
    return ResidualBranches(896, 256, 0.10, ConvolutionUnit(896, 128, 1), separable)


def _block8(scale: float, *, rectify: bool = True) -> ResidualBranches:
    separable = nn.Sequential(
        ConvolutionUnit(1792, 192, 1),
        ConvolutionUnit(192, 192, (1, 3), padding=(0, 1)),
        ConvolutionUnit(192, 192, (3, 1), padding=(1, 0)),
    )
    return ResidualBranches(1792, 384, scale, ConvolutionUnit(1792, 192, 1), separable, rectify=rectify)


def _reduction_a() -> Branches:
    return Branches(
        ConvolutionUnit(256, 384, 3, stride=2),
        nn.Sequential(
            ConvolutionUnit(256, 192, 1),
            ConvolutionUnit(192, 192, 3, padding=1),
            ConvolutionUnit(192, 256, 3, stride=2),
        ),
        nn.MaxPool2d(3, stride=2),
    )


def _reduction_b() -> Branches:
    return Branches(
        nn.Sequential(ConvolutionUnit(896, 256, 1), ConvolutionUnit(256, 384, 3, stride=2)),
        nn.Sequential(ConvolutionUnit(896, 256, 1), ConvolutionUnit(256, 256, 3, stride=2)),
        nn.Sequential(
            ConvolutionUnit(896, 256, 1),
            ConvolutionUnit(256, 256, 3, padding=1),
            ConvolutionUnit(256, 256, 3, stride=2),
        ),
        nn.MaxPool2d(3, stride=2),
    )


class InceptionResNetV1(nn.Module):
    """Inception-ResNet-v1 with 5, 10 and 5 residual blocks; the embedding is not ℓ2-normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.conv2d_1a = ConvolutionUnit(3, 32, 3, stride=2)
        self.conv2d_2a = ConvolutionUnit(32, 32, 3)
        self.conv2d_2b = ConvolutionUnit(32, 64, 3, padding=1)
        self.maxpool_3a = nn.MaxPool2d(3, stride=2)
        self.conv2d_3b = ConvolutionUnit(64, 80, 1)
        self.conv2d_4a = ConvolutionUnit(80, 192, 3)
        self.conv2d_4b = ConvolutionUnit(192, 256, 3, stride=2)
        self.repeat_1 = nn.Sequential(*(_block35() for _ in range(5)))
        self.mixed_6a = _reduction_a()
        self.repeat_2 = nn.Sequential(*(_block17() for _ in range(10)))
        self.mixed_7a = _reduction_b()
        self.repeat_3 = nn.Sequential(*(_block8(0.20) for _ in range(5)))
        self.block8 = _block8(1.0, rectify=False)
        self.dropout = nn.Dropout(0.6)
        self.last_linear = nn.Linear(1792, 512, bias=False)
        self.last_bn = nn.BatchNorm1d(512, eps=_EPSILON)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Embed normalised images, float [B, 3, 160, 160] (other sizes work, too), as [B, 512]."""
        x = self.maxpool_3a(self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(images))))
        x = self.conv2d_4b(self.conv2d_4a(self.conv2d_3b(x)))
        x = self.mixed_6a(self.repeat_1(x))
        x = self.mixed_7a(self.repeat_2(x))
        x = self.block8(self.repeat_3(x))
        embedding: Tensor = self.last_bn(self.last_linear(self.dropout(x.mean(dim=(2, 3)))))
        return embedding


def without_classifier(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Drop the classifier (``logits``) of a file of facenet-pytorch."""
    if "logits.weight" not in state or "conv2d_1a.conv.weight" not in state:
        return None
    return {key: tensor for key, tensor in state.items() if not key.startswith("logits.")}


register(
    Backbone(
        BackboneCard(
            name="inception-resnet-v1",
            width=160,
            height=160,
            channels="rgb",
            mean=(127.5, 127.5, 127.5),
            std=(128.0, 128.0, 128.0),
            # facenet cuts MTCNN's box with a margin of 32 pixels and squeezes it to a square: on aligned Celeb-A about
            # (32.5, 52)–(145.5, 190) of 178 × 218. The box, 84 × 109 around (89, 121), is an estimate: see
            # vggface2_resnet.
            crop=(0.1826, 0.2385, 0.8174, 0.8716),
            embedding=512,
            parameters=23_482_624,
            source="20180402-114759-vggface2.pt or 20180408-102900-casia-webface.pt, "
            "https://github.com/timesler/facenet-pytorch, from https://github.com/davidsandberg/facenet",
            licence="MIT (both projects; neither speaks of the weights apart); the training data are for research only",
            note="Input is (pixel - 127.5) / 128. The embedding is taken before L2 normalisation.",
        ),
        InceptionResNetV1,
        (without_classifier,),
    )
)
