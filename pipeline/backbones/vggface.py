"""VGG-Face: Parkhi, Vedaldi and Zisserman, "Deep Face Recognition" (BMVC 2015), network A, which is VGG-16.

Crop: the authors publish no template; they enlarge a detector's box. Their example image (224×224, the whole head) has
eyes, nose and corners of the mouth at about (63.5, 113.5) (117, 113.5) (77, 149) (73, 168) (111, 169). By least squares
against Celeb-A's mean landmarks that is a scale of 1.33, and this top and bottom; that head is turned to one side, so
left and right are centred on the eyes instead. Read by eye from one image, so try others.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from pipeline.backbones.card import BackboneCard
from pipeline.backbones.registry import Backbone, register
from pipeline.backbones.renaming import rename_modules

_CONVOLUTIONS = (2, 2, 3, 3, 3)  # per block


def _build() -> nn.Module:
    """Torchvision's VGG-16 without its last layer: normalised images, float [B, 3, 224, 224], RGB, to [B, 4096].

    The embedding is fc7 *after* its ReLU. So it is in the original Caffe network, whose ReLUs work in place: the blob
    "fc7" that users of the descriptor read is the rectified one. It is what the classifier sees, dropout apart.
    """
    from torchvision.models import vgg16  # noqa: PLC0415  # seconds to import, which not every process needs

    network: nn.Module = vgg16(weights=None, num_classes=1)
    classifier = network.get_submodule("classifier")
    assert isinstance(classifier, nn.Sequential)
    network.classifier = classifier[:5]  # fc6, ReLU, dropout, fc7, ReLU
    return network


def _names(convolution: str) -> dict[str, str]:
    """Foreign names → torchvision's; ``convolution`` formats block and number."""
    names = {"fc6": "classifier.0", "fc7": "classifier.3"}
    index = 0
    for block, count in enumerate(_CONVOLUTIONS, start=1):
        for number in range(1, count + 1):
            names[convolution.format(block, number)] = f"features.{index}"
            index += 2  # a ReLU follows each
        index += 1  # and a pool each block
    return names


_from_dag = rename_modules(_names("conv{}_{}"), classifier=("fc8",))
_from_torch7 = rename_modules(_names("conv_{}_{}"), classifier=("fc8",))


def _from_bgr(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Bring in a port of the Torch7 file, whose first convolution takes BGR: with its input channels reversed, RGB."""
    renamed = _from_torch7(state)
    first = "features.0.weight"
    if renamed is not None and first in renamed:
        renamed[first] = renamed[first].flip(1)
    return renamed


VGGFACE = register(
    Backbone(
        BackboneCard(
            name="vggface",
            width=224,
            height=224,
            channels="rgb",
            mean=(129.186279296875, 104.76238250732422, 93.59396362304688),
            std=(1.0, 1.0, 1.0),
            crop=(4.6 / 178, 25.1 / 218, 173.0 / 178, 193.5 / 218),
            embedding=4096,
            parameters=134_260_544,
            source="Albanie's import of the authors' MatConvNet model (vgg_face_dag.pth), trained on the VGG Face "
            "dataset: https://www.robots.ox.ac.uk/~albanie/pytorch-models.html",
            licence="CC BY-NC 4.0",
            note="RGB pixels of 0 to 255 less the mean, no standard deviation, as MatConvNet and vgg_face_dag have it. "
            "The Caffe and Torch7 files take BGR; a PyTorch port of the latter (vgg-face.pytorch: conv_1_1 …) is "
            "recognised by its keys and its first convolution turned round. The embedding is fc7 after ReLU, so "
            "no component is negative.",
        ),
        _build,
        (_from_dag, _from_bgr),
    )
)
