"""AdaFace's IR-50 and IR-101: iresnets with other shortcuts, other keys and BGR input.

Kim, Jain, Liu, "AdaFace: Quality Adaptive Margin for Face Recognition", CVPR 2022 (arXiv:2204.00964), and its code,
mk-minchul/AdaFace. Against insightface's iresnet the first stage's shortcut takes every second pixel instead of a 1×1
convolution, and the embedding's batch normalisation learns nothing. IR-101 has the units of iresnet-100.
"""

from collections.abc import Sequence
from functools import partial

from pipeline.backbones.card import BackboneCard
from pipeline.backbones.iresnet import DEPTHS_50, DEPTHS_100, TEMPLATE_CROP, IResNet
from pipeline.backbones.registry import Backbone, register
from pipeline.backbones.renaming import rename_modules

_UNIT = ("bn1", "conv1", "bn2", "prelu", "conv2", "bn3")


def _names(depths: Sequence[int]) -> dict[str, str]:
    """AdaFace's names → iresnet's."""
    names = {
        "input_layer.0": "conv1",
        "input_layer.1": "bn1",
        "input_layer.2": "prelu",
        "output_layer.0": "bn2",
        "output_layer.3": "fc",
        "output_layer.4": "features",
    }
    units = [f"layer{stage}.{unit}" for stage, depth in enumerate(depths, start=1) for unit in range(depth)]
    for number, unit in enumerate(units):
        for layer, ours in enumerate(_UNIT):
            names[f"body.{number}.res_layer.{layer}"] = f"{unit}.{ours}"
        for layer in (0, 1):
            names[f"body.{number}.shortcut_layer.{layer}"] = f"{unit}.downsample.{layer}"
    return names


def _adaface(depths: Sequence[int]) -> IResNet:
    return IResNet(depths, project_first=False, scale_embedding=False, dropout=0.4)


def _card(name: str, parameters: int, network: str) -> BackboneCard:
    return BackboneCard(
        name=name,
        width=112,
        height=112,
        channels="bgr",
        mean=(127.5, 127.5, 127.5),
        std=(127.5, 127.5, 127.5),
        crop=TEMPLATE_CROP,
        embedding=512,
        parameters=parameters,
        source=f"{network}, trained on MS1MV2, MS1MV3, CASIA-WebFace, WebFace4M or WebFace12M: "
        "https://github.com/mk-minchul/AdaFace",
        licence="none stated for the weights (the code is MIT); the training data are for research only",
        note="BGR, unlike insightface's networks. CVLface, by the same author, has RGB networks of this architecture "
        "under other keys: they are not accepted here.",
    )


def _backbone(name: str, parameters: int, network: str, depths: Sequence[int]) -> Backbone:
    # "head" is the margin of the Lightning files.
    renaming = rename_modules(_names(depths), classifier=("head",))
    return Backbone(_card(name, parameters, network), partial(_adaface, depths), (renaming,))


register(_backbone("adaface-ir50", 43_585_600, "R50", DEPTHS_50))
register(_backbone("adaface-ir101", 65_150_912, "R100", DEPTHS_100))
