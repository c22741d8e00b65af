"""VGGFace2's ResNet-50 and SE-ResNet-50: Caffe networks, with Caffe's strides and pooling.

Cao, Shen, Xie, Parkhi, Zisserman, "VGGFace2: A dataset for recognising faces across pose and age", FG 2018
(arXiv:1710.08092). SE-ResNet-50 is the original of Hu, Shen, Sun (CVPR 2018), timm's ``legacy_seresnet50``.

Two things differ from torchvision's ResNet-50 and load without an error when wrong: a stage's first bottleneck has its
stride in the first 1×1 convolution (torchvision: in the 3×3), and the max pooling after the stem has no padding and
rounds its output size up (torchvision: padding 1, rounds down).

The channel order depends on the port, too. The Caffe networks, and the files of cydonia999/VGGFace2-pytorch that hold
their weights unchanged, read BGR. Those of Albanie (``resnet50_ft_dag.pth``, ``senet50_ft_dag.pth``, also given out by
ox-vgg/vgg_face2) went through MatConvNet, whose importer turned the first convolution round: they read RGB. Here the
network is the Caffe one, and the renaming of Albanie's files turns that convolution back.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.backbones.card import BackboneCard
from pipeline.backbones.registry import Backbone, register
from pipeline.backbones.renaming import rename_modules

_UNITS = (3, 4, 6, 3)  # per stage
_IMAGENET_CLASSES = 1000


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolution beside a shortcut; the stride is the first convolution's, as in Caffe.

    [B, channels, H, W] → [B, 4 · width, H / stride, W / stride].
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, stride=stride, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels != 4 * width:
            projection = nn.Conv2d(channels, 4 * width, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(4 * width))

    def residual(self, x: Tensor) -> Tensor:
        """Compute what is added to the shortcut."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        output: Tensor = self.bn3(self.conv3(x))
        return output

    def forward(self, x: Tensor) -> Tensor:
        """Add the residual to the shortcut, then ReLU."""
        return F.relu(self.residual(x) + self.downsample(x))


class SqueezeBottleneck(Bottleneck):
    """A bottleneck whose residual is gated channel by channel (squeeze and excitation, reduction 16).

    ``conv4`` and ``conv5`` are the gate's two layers, named as in cydonia999's port so that its files fit as they are.
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__(channels, width, stride)
        self.conv4 = nn.Conv2d(4 * width, width // 4, 1)
        self.conv5 = nn.Conv2d(width // 4, 4 * width, 1)

    def residual(self, x: Tensor) -> Tensor:
        """Compute what is added to the shortcut."""
        x = super().residual(x)
        squeezed = x.mean(dim=(2, 3), keepdim=True)
        return x * torch.sigmoid(self.conv5(F.relu(self.conv4(squeezed))))


class VGGFace2ResNet(nn.Module):
    """ResNet-50 as Caffe computes it, up to its last pooling layer, of which no component is negative."""

    def __init__(self, block: type[Bottleneck]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=0, ceil_mode=True)
        self.layer1 = _stage(block, 64, 64, count=_UNITS[0], stride=1)
        self.layer2 = _stage(block, 256, 128, count=_UNITS[1], stride=2)
        self.layer3 = _stage(block, 512, 256, count=_UNITS[2], stride=2)
        self.layer4 = _stage(block, 1024, 512, count=_UNITS[3], stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Embed BGR pixels less their mean, float [B, 3, 224, 224] (other sizes work, too), as [B, 2048]."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        embedding: Tensor = x.mean(dim=(2, 3))
        return embedding


def _stage(block: type[Bottleneck], channels: int, width: int, *, count: int, stride: int) -> nn.Sequential:
    return nn.Sequential(block(channels, width, stride), *(block(4 * width, width, 1) for _ in range(count - 1)))


def without_classifier(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Drop the classifier of a file with our own keys, such as cydonia999's ``resnet50_ft_weight.pkl``.

    torchvision's ResNet-50 has the same keys and shapes but for the classifier: one with ImageNet's 1,000 classes is
    that other network, and is not accepted.
    """
    classifier = state.get("fc.weight")
    if classifier is None or "layer1.0.conv3.weight" not in state or classifier.shape[0] == _IMAGENET_CLASSES:
        return None
    return {key: tensor for key, tensor in state.items() if not key.startswith("fc.")}


_DAG_LAYERS = {
    "1x1_reduce": "conv1",
    "1x1_reduce_bn": "bn1",
    "3x3": "conv2",
    "3x3_bn": "bn2",
    "1x1_increase": "conv3",
    "1x1_increase_bn": "bn3",
    "1x1_proj": "downsample.0",
    "1x1_proj_bn": "downsample.1",
    "1x1_down": "conv4",
    "1x1_up": "conv5",
}


def _dag_names() -> dict[str, str]:
    """Albanie's names → ours, of both networks."""
    names = {"conv1_7x7_s2": "conv1", "conv1_7x7_s2_bn": "bn1"}
    for stage, count in enumerate(_UNITS, start=1):
        for unit in range(count):
            for foreign, ours in _DAG_LAYERS.items():
                names[f"conv{stage + 1}_{unit + 1}_{foreign}"] = f"layer{stage}.{unit}.{ours}"
    return names


_rename_dag = rename_modules(_dag_names(), classifier=("classifier",))


def from_dag(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Bring in one of Albanie's ``…_dag.pth``: renamed, without classifier, its first convolution turned to BGR.

    Keys that the two networks do not have (``feat_extract`` of the 128-d and 256-d variants) stay as they are, so that
    loading can name them.
    """
    renamed = _rename_dag(state)
    if renamed is not None and "conv1.weight" in renamed:
        renamed["conv1.weight"] = renamed["conv1.weight"].flip(1)
    return renamed


# What the networks were measured on: the box of MTCNN made larger by 0.3, its shorter side scaled to 256 pixels, the
# central 224 × 224. On aligned Celeb-A that is about (34.5, 66.5)–(143.5, 175.5) of 178 × 218: in 23 sample crops of
# ox-vgg/vgg_face2 the eyes lie at 0.43 of the height, 0.295 of the width apart, and the mouth at 0.73 of the height,
# so the enlarged box is about 124 × 142 Celeb-A pixels around (89, 121).
_CROP = (0.1938, 0.3050, 0.8062, 0.8050)


def _card(name: str, parameters: int, network: str) -> BackboneCard:
    return BackboneCard(
        name=name,
        width=224,
        height=224,
        channels="bgr",
        mean=(91.4953, 103.8827, 131.0912),
        std=(1.0, 1.0, 1.0),
        crop=_CROP,
        embedding=2048,
        parameters=parameters,
        source=f"{network}_ft or {network}_scratch, trained on VGGFace2 (https://github.com/ox-vgg/vgg_face2), as "
        "converted by https://github.com/cydonia999/VGGFace2-pytorch (.pkl) or by S. Albanie (…_dag.pth)",
        licence="Creative Commons BY-SA as the VGGFace2 data set, according to an author of it; the ports state none",
        note="Mean and order are Caffe's (BGR, 0 to 255, no scaling). Albanie's files read RGB and are turned round on "
        "loading. Stride in the first 1x1 convolution; max pooling without padding, rounding up.",
    )


_RENAMINGS = (without_classifier, from_dag)

register(
    Backbone(
        _card("vggface2-resnet50", 23_508_032, "resnet50"),
        lambda: VGGFace2ResNet(Bottleneck),
        _RENAMINGS,
    )
)
register(
    Backbone(
        _card("vggface2-senet50", 26_039_024, "senet50"),
        lambda: VGGFace2ResNet(SqueezeBottleneck),
        _RENAMINGS,
    )
)
