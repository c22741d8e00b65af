"""SphereFace-20: Liu et al., "SphereFace: Deep Hypersphere Embedding for Face Recognition" (CVPR 2017), Table 2.

Crop: the authors align five points (eyes, nose, corners of the mouth) to (30.29, 51.70) (65.53, 51.50) (48.03, 71.74)
(33.55, 92.37) (62.73, 92.20) in 112×96. One scale (0.9545) and a shift, by least squares, bring Celeb-A's mean
landmarks at 178×218, (69.5, 111.4) (108.2, 111.5) (87.7, 134) (72.4, 152.2) (105.1, 152.3), there. MobileFaceNet was
trained with the same template; with it, on 1,094 Celeb-A faces, this crop does as well as its own (area under the ROC
curve 0.981 and 0.982, R@1 0.928 and 0.922).
"""

from torch import Tensor, nn

from pipeline.backbones.card import BackboneCard
from pipeline.backbones.registry import Backbone, register
from pipeline.backbones.renaming import rename_modules

_STAGES = ((64, 1), (128, 2), (256, 4), (512, 1))  # channels, residual units


class SphereFace(nn.Module):
    """Twenty layers: four stages, each a 3×3 convolution of stride 2 and residual units, and one fully connected layer.

    Every convolution is followed by its PReLU, the second of a residual unit before the sum.

    The embedding is fc5 as it comes, without an activation: the angular softmax of the training compares directions.
    """

    def __init__(self) -> None:
        super().__init__()
        stages = []
        before = 3
        for channels, units in _STAGES:
            residuals = (ResidualUnit(channels) for _ in range(units))
            stages.append(nn.Sequential(_convolution(before, channels, 2), nn.PReLU(channels), *residuals))
            before = channels
        self.stages = nn.Sequential(*stages)
        self.fc5 = nn.Linear(512 * 7 * 6, 512)

    def forward(self, images: Tensor) -> Tensor:
        """Embed normalised images, float [B, 3, 112, 96], BGR, as [B, 512]."""
        embedding: Tensor = self.fc5(self.stages(images).flatten(1))
        return embedding


class ResidualUnit(nn.Sequential):
    """x + PReLU(conv(PReLU(conv(x)))), 3×3, stride 1."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            _convolution(channels, channels, 1),
            nn.PReLU(channels),
            _convolution(channels, channels, 1),
            nn.PReLU(channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Keep the shape [B, C, h, w]."""
        residual: Tensor = super().forward(features)  # type: ignore[no-untyped-call]
        return features + residual


def _convolution(before: int, channels: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(before, channels, 3, stride, padding=1)


def _caffe_names() -> dict[str, str]:
    """conv<stage>_<number> and relu<stage>_<number>, as in the authors' prototxt and in sphereface_pytorch."""
    names = {"fc5": "fc5"}
    for stage, (_, units) in enumerate(_STAGES):
        names[f"conv{stage + 1}_1"] = f"stages.{stage}.0"
        names[f"relu{stage + 1}_1"] = f"stages.{stage}.1"
        for unit in range(units):
            for half in range(2):
                number = 2 + 2 * unit + half
                names[f"conv{stage + 1}_{number}"] = f"stages.{stage}.{2 + unit}.{2 * half}"
                names[f"relu{stage + 1}_{number}"] = f"stages.{stage}.{2 + unit}.{2 * half + 1}"
    return names


SPHEREFACE20 = register(
    Backbone(
        BackboneCard(
            name="sphereface20",
            width=96,
            height=112,
            channels="bgr",
            mean=(127.5, 127.5, 127.5),
            std=(128.0, 128.0, 128.0),
            crop=(38.2 / 178, 56.9 / 218, 138.8 / 178, 174.3 / 218),
            embedding=512,
            parameters=22_670_656,
            source="sphereface_pytorch (sphere20a_20171020.pth), trained on CASIA-WebFace: "
            "https://github.com/clcarwin/sphereface_pytorch",
            licence="MIT; CASIA-WebFace is for research only",
            note="BGR. The embedding is fc5 without an activation; the authors append that of the mirrored image, "
            "which is not done here. The network of CosFace_pytorch has no biases in its residual units: it does not "
            "fit.",
        ),
        SphereFace,
        (rename_modules(_caffe_names(), classifier=("fc6",)),),
    )
)
