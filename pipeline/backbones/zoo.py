"""Every backbone there is: importing this file registers the architectures."""

from pipeline.backbones import (  # noqa: F401  # each registers itself
    adaface,
    inception_resnet,
    iresnet,
    lightcnn,
    mobilefacenet,
    sphereface,
    vggface,
    vggface2_resnet,
)
from pipeline.backbones.registry import Backbone, find_backbone
from pipeline.backbones.timm_models import timm_backbone

TIMM = "timm:"


def backbone(name: str) -> Backbone:
    """Look a backbone up: one of `pipeline.backbones.registry.backbone_names`, or any of timm's as "timm:<model>".

    Raises:
        InputError: there is none of this name, or it needs a package that is not installed.
    """
    return timm_backbone(name) if name.startswith(TIMM) else find_backbone(name)
