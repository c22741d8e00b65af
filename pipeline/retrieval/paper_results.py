"""The published results of Cornia et al. (TOMM 2022), Tables 1 to 5 and what its text says of Fig. 7, as printed.

All figures are per cent. Names of backbones are those of Table 1; Tables 3 and 4 write "LightCNN-29" for LightCNN-29L,
Table 4 "LightCNN-9" for LightCNN-9L. Finetuned rows of Table 1 are λ = 0 of Table 3.

Kept as printed, although they do not fit together:

- Table 3, IIIT-D Sketch, SphereFace, λ = 0.5: attribute accuracy 80.6 between 88.2 and 92.1. All other rows rise with
  λ, so 90.6 was probably meant.
- Sec. 6.3 says of Fig. 7 that the AP of both VGG-Face-2 begins at about 48.5 on Celeb-A, and that four rounds raise it
  "by 15 points … reaching more than 70 %"; 48.5 + 15 is 63.5. Fig. 7 is a drawing, and not transcribed.
- On WebCaricature AP begins at 65.5 by the same text, and is 58.94 after a round of FSW by Table 5: either a round of
  FSW makes it worse there, or Table 5 was made with another λ than Fig. 7 (it names none).
"""

from collections.abc import Mapping
from typing import Final

SPHEREFACE: Final = "SphereFace"
LIGHTCNN_9: Final = "LightCNN-9L"
VGGFACE: Final = "VGG-Face"
LIGHTCNN_29: Final = "LightCNN-29L"
VGGFACE2_RESNET: Final = "VGG-Face-2 (ResNet)"
VGGFACE2_SENET: Final = "VGG-Face-2 (SE-ResNet)"

EMBEDDING_SIZES: Final[Mapping[str, int]] = {
    SPHEREFACE: 512,
    LIGHTCNN_9: 256,
    VGGFACE: 4096,
    LIGHTCNN_29: 256,
    VGGFACE2_RESNET: 2048,
    VGGFACE2_SENET: 2048,
}
"""The paper's backbones and D, in the order of its tables, which is that of R@1 on Celeb-A."""

CELEBA: Final = "Celeb-A"
WEBCARICATURE: Final = "WebCaricature"
IIITD_SKETCH: Final = "IIIT-D Sketch"
DEVIANTART_FACES: Final = "DeviantArt Faces"
WIKIART_FACES: Final = "WikiArt Faces"

KS: Final = (1, 5, 10)
"""Cut-offs of Table 1."""

WEIGHTS: Final = (0.0, 0.1, 0.2, 0.5, 1.0, 5.0, 10.0)
"""λ of Tables 3 and 4."""

ROUNDS: Final = (1, 5, 10)
"""Rounds of feedback of Table 5."""

QPM: Final = "QPM"
FSW: Final = "FSW"
BOTH: Final = "QPM + FSW"
"""Table 5 calls it "Ours", which beside our own rows would mean something else."""

FEEDBACK_PARAMETERS: Final[Mapping[str, tuple[float, float, float, float, float]]] = {
    QPM: (0.0, 1.0, 0.0, 0.0, 0.0),
    FSW: (1.0, 0.0, 0.0, 0.5, 0.8),
    BOTH: (0.8, 0.1, 0.1, 0.5, 0.8),
}
"""alpha, beta, gamma, eta, c of Table 5: query point movement, feature space warping, both."""

_NEAREST: Final[Mapping[str, str]] = {
    "sphereface20": SPHEREFACE,
    "lightcnn9": LIGHTCNN_9,
    "vggface": VGGFACE,
    "lightcnn29": LIGHTCNN_29,
    "vggface2-resnet50": VGGFACE2_RESNET,
    "vggface2-senet50": VGGFACE2_SENET,
    # The same architecture does not occur: a small network with a small embedding beside the paper's smallest, one
    # trained on VGGFace2 beside the paper's, and networks of later years beside the paper's best.
    "mobilefacenet": LIGHTCNN_9,
    "inception-resnet-v1": VGGFACE2_RESNET,
    "arcface-iresnet50": VGGFACE2_SENET,
    "arcface-iresnet100": VGGFACE2_SENET,
    "adaface-ir50": VGGFACE2_SENET,
    "adaface-ir101": VGGFACE2_SENET,
}


def nearest_backbone(name: str) -> str | None:
    """Return the paper's backbone to compare with one of ours (name of its card): the same one, or the nearest.

    None for a network that nobody has placed, such as any of timm's.
    """
    return _NEAREST.get(name)


# Celeb-A, WebCaricature, IIIT-D Sketch, DeviantArt Faces: R@1, R@5, R@10 of each; False is "projections only".
_TABLE_1_SETS: Final = (CELEBA, WEBCARICATURE, IIITD_SKETCH, DEVIANTART_FACES)
_TABLE_1: Final[Mapping[tuple[str, bool], tuple[float, ...]]] = {
    (SPHEREFACE, False): (30.2, 44.0, 50.4, 22.9, 40.9, 49.3, 29.9, 57.3, 67.5, 3.0, 7.1, 10.4),
    (SPHEREFACE, True): (33.0, 46.9, 52.8, 26.8, 45.7, 54.2, 31.6, 62.0, 69.7, 3.8, 9.5, 13.2),
    (LIGHTCNN_9, False): (69.2, 80.7, 83.8, 69.0, 84.7, 88.8, 57.7, 81.6, 89.7, 19.3, 31.9, 38.7),
    (LIGHTCNN_9, True): (69.6, 80.8, 84.2, 69.3, 85.0, 89.0, 57.7, 81.2, 90.6, 19.6, 32.5, 39.6),
    (VGGFACE, False): (70.1, 82.7, 86.2, 70.9, 87.2, 91.6, 61.1, 86.8, 91.5, 20.5, 37.8, 46.4),
    (VGGFACE, True): (77.7, 88.2, 90.9, 75.2, 89.7, 93.0, 61.5, 87.2, 90.2, 26.5, 45.3, 54.3),
    (LIGHTCNN_29, False): (87.8, 92.4, 93.6, 82.2, 91.6, 94.1, 52.6, 75.6, 83.8, 35.1, 51.9, 59.4),
    (LIGHTCNN_29, True): (88.6, 93.2, 94.1, 82.5, 92.5, 94.8, 55.1, 78.6, 86.3, 36.3, 55.1, 62.9),
    (VGGFACE2_RESNET, False): (90.5, 94.4, 95.2, 90.1, 96.4, 97.6, 66.7, 88.5, 92.3, 45.7, 65.4, 73.1),
    (VGGFACE2_RESNET, True): (90.9, 94.6, 95.3, 89.6, 96.1, 97.7, 63.7, 88.5, 93.2, 45.9, 65.6, 73.4),
    (VGGFACE2_SENET, False): (91.1, 94.6, 95.3, 91.6, 97.4, 98.5, 60.7, 87.6, 92.7, 47.6, 67.0, 74.8),
    (VGGFACE2_SENET, True): (91.5, 94.8, 95.5, 91.3, 97.2, 98.2, 58.1, 86.3, 93.6, 47.9, 67.1, 74.8),
}

TABLE_2: Final[Mapping[tuple[str, str], tuple[float, float]]] = {
    (VGGFACE, "real"): (88.9, 85.2),
    (VGGFACE2_RESNET, "real"): (88.5, 86.3),
    (VGGFACE2_SENET, "real"): (87.7, 85.8),
    (VGGFACE, "art"): (88.7, 87.2),
    (VGGFACE2_RESNET, "art"): (87.9, 87.0),
    (VGGFACE2_SENET, "art"): (87.1, 86.3),
    (VGGFACE, "joint"): (88.8, 87.0),
    (VGGFACE2_RESNET, "joint"): (88.4, 87.0),
    (VGGFACE2_SENET, "joint"): (87.4, 86.4),
}
"""(backbone, training set) → accuracy on Celeb-A's photographs and on its style-transferred pictures."""

# For every λ: R@1 and attribute accuracy of the first item.
_TABLE_3: Final[Mapping[str, Mapping[str, tuple[float, ...]]]] = {
    CELEBA: {
        SPHEREFACE: (33.0, 85.4, 34.1, 87.7, 32.8, 88.9, 26.0, 90.5, 17.3, 91.3, 6.2, 91.7, 6.1, 91.7),
        LIGHTCNN_9: (69.6, 86.5, 70.0, 87.4, 69.5, 88.1, 63.6, 89.3, 52.3, 90.4, 13.5, 91.8, 9.1, 91.9),
        VGGFACE: (77.7, 86.8, 77.4, 87.8, 75.7, 88.5, 68.0, 89.6, 54.0, 90.6, 13.6, 91.8, 9.9, 91.8),
        LIGHTCNN_29: (88.6, 86.8, 88.6, 87.6, 88.1, 88.1, 84.2, 89.1, 74.4, 90.0, 21.1, 91.8, 10.8, 91.8),
        VGGFACE2_RESNET: (90.9, 86.9, 90.7, 87.6, 90.1, 88.2, 85.5, 89.2, 73.7, 90.2, 17.9, 91.8, 10.6, 91.8),
        VGGFACE2_SENET: (91.5, 86.7, 91.2, 87.6, 90.5, 88.2, 85.7, 89.3, 73.8, 90.3, 17.7, 91.9, 10.7, 91.9),
    },
    WEBCARICATURE: {
        SPHEREFACE: (26.8, 85.0, 30.2, 89.3, 30.6, 91.5, 26.4, 94.6, 19.0, 96.4, 10.9, 97.4, 10.9, 97.4),
        LIGHTCNN_9: (69.3, 86.8, 69.9, 88.5, 69.9, 89.7, 64.8, 92.1, 53.0, 94.3, 17.7, 97.4, 15.1, 97.4),
        VGGFACE: (75.2, 87.6, 75.5, 89.3, 73.9, 90.5, 67.3, 92.8, 54.3, 94.7, 19.6, 97.3, 16.7, 97.4),
        LIGHTCNN_29: (82.5, 87.1, 82.7, 88.5, 82.6, 89.5, 77.5, 91.7, 65.0, 93.8, 22.5, 97.3, 16.9, 97.4),
        VGGFACE2_RESNET: (89.6, 87.5, 89.3, 88.8, 88.2, 89.8, 81.2, 92.0, 67.2, 94.2, 20.6, 97.4, 17.5, 97.4),
        VGGFACE2_SENET: (91.3, 87.5, 90.7, 88.9, 89.8, 89.9, 83.7, 92.1, 69.0, 94.2, 21.5, 97.3, 17.8, 97.4),
    },
    IIITD_SKETCH: {
        SPHEREFACE: (31.6, 84.0, 35.9, 84.6, 37.6, 88.2, 31.6, 80.6, 24.4, 92.1, 8.5, 93.3, 8.5, 93.3),
        LIGHTCNN_9: (57.7, 84.0, 62.0, 85.8, 62.4, 87.0, 56.0, 88.7, 38.9, 90.8, 11.5, 93.2, 9.0, 93.3),
        VGGFACE: (61.5, 85.3, 62.0, 86.3, 62.4, 87.1, 56.8, 88.6, 43.2, 90.4, 9.8, 93.2, 7.7, 93.3),
        LIGHTCNN_29: (55.1, 84.5, 54.7, 85.8, 56.4, 87.1, 50.4, 88.7, 37.6, 90.6, 11.5, 93.2, 8.5, 93.3),
        VGGFACE2_RESNET: (63.7, 85.0, 64.1, 86.0, 63.2, 87.0, 52.6, 89.2, 35.0, 91.4, 9.4, 93.3, 8.1, 93.3),
        VGGFACE2_SENET: (58.1, 84.9, 61.5, 86.2, 59.8, 87.0, 51.7, 89.0, 36.3, 91.3, 9.8, 93.3, 8.5, 93.3),
    },
    DEVIANTART_FACES: {
        SPHEREFACE: (3.8, 84.1, 4.8, 88.6, 5.0, 91.0, 4.0, 94.3, 2.7, 95.8, 1.6, 96.5, 1.6, 96.5),
        LIGHTCNN_9: (19.6, 85.1, 20.3, 87.6, 20.2, 89.0, 17.4, 91.9, 11.6, 94.2, 2.9, 96.5, 2.4, 96.5),
        VGGFACE: (26.5, 86.5, 26.3, 88.2, 25.3, 89.6, 20.2, 92.2, 13.4, 94.3, 3.4, 96.5, 2.7, 96.5),
        LIGHTCNN_29: (36.3, 85.7, 36.6, 87.3, 35.8, 88.5, 30.2, 91.2, 20.0, 93.6, 4.2, 96.5, 2.8, 96.5),
        VGGFACE2_RESNET: (45.9, 86.0, 45.6, 87.5, 43.6, 88.8, 34.8, 91.5, 21.5, 94.2, 3.7, 96.5, 2.9, 96.5),
        VGGFACE2_SENET: (47.9, 86.0, 47.3, 87.5, 45.1, 88.7, 35.2, 91.4, 21.8, 94.0, 3.9, 96.5, 3.0, 96.5),
    },
}

TABLE_4: Final[Mapping[str, tuple[float, ...]]] = {
    SPHEREFACE: (83.3, 87.3, 89.9, 94.0, 95.9, 96.7, 96.7),
    LIGHTCNN_9: (83.1, 85.8, 87.8, 91.5, 94.3, 96.7, 96.7),
    VGGFACE: (83.7, 86.4, 88.4, 92.1, 94.5, 96.6, 96.7),
    LIGHTCNN_29: (83.1, 85.4, 87.3, 91.2, 94.0, 96.6, 96.7),
    VGGFACE2_RESNET: (83.1, 85.5, 87.6, 92.0, 94.7, 96.7, 96.7),
    VGGFACE2_SENET: (83.1, 85.3, 87.2, 91.0, 93.7, 96.7, 96.7),
}
"""Backbone → attribute accuracy of the first item of WikiArt Faces, for every λ of `WEIGHTS`; queries from Celeb-A."""

TABLE_5: Final[Mapping[tuple[str, str, str], tuple[float, float, float]]] = {
    (CELEBA, QPM, VGGFACE2_RESNET): (56.41, 56.20, 55.98),
    (CELEBA, FSW, VGGFACE2_RESNET): (56.23, 62.74, 67.24),
    (CELEBA, BOTH, VGGFACE2_RESNET): (56.56, 73.63, 82.23),
    (CELEBA, QPM, VGGFACE2_SENET): (59.68, 59.64, 60.15),
    (CELEBA, FSW, VGGFACE2_SENET): (60.02, 64.23, 68.32),
    (CELEBA, BOTH, VGGFACE2_SENET): (56.68, 73.00, 81.53),
    (WEBCARICATURE, QPM, VGGFACE2_RESNET): (47.07, 46.60, 46.79),
    (WEBCARICATURE, FSW, VGGFACE2_RESNET): (58.94, 62.15, 65.67),
    (WEBCARICATURE, BOTH, VGGFACE2_RESNET): (71.10, 81.93, 86.51),
    (WEBCARICATURE, QPM, VGGFACE2_SENET): (50.17, 50.36, 50.72),
    (WEBCARICATURE, FSW, VGGFACE2_SENET): (61.49, 64.34, 67.43),
    (WEBCARICATURE, BOTH, VGGFACE2_SENET): (72.13, 81.73, 85.71),
}
"""(test set, setting, backbone) → average precision after the rounds of `ROUNDS`."""

FIGURE_7_BEFORE: Final[Mapping[tuple[str, str], float]] = {
    (CELEBA, VGGFACE2_RESNET): 48.5,
    (CELEBA, VGGFACE2_SENET): 48.6,
    (WEBCARICATURE, VGGFACE2_RESNET): 65.5,
    (WEBCARICATURE, VGGFACE2_SENET): 67.2,
}
"""(test set, backbone) → average precision before feedback, as the text on Fig. 7 states it."""


def table_1(test_set: str) -> dict[tuple[str, bool], tuple[float, float, float]]:
    """Return (backbone, finetuned) → R@1, R@5, R@10 on one test set, rows as printed; empty for a set not in Table 1.

    "✗" is read as Sec. 6.1 has it, "training only the non-symmetric linear projections": not the bare network, of
    which the paper says nothing.
    """
    if test_set not in _TABLE_1_SETS:
        return {}
    start = len(KS) * _TABLE_1_SETS.index(test_set)
    return {row: (values[start], values[start + 1], values[start + 2]) for row, values in _TABLE_1.items()}


def table_3(test_set: str) -> dict[str, tuple[tuple[float, float], ...]]:
    """Return backbone → (R@1, attribute accuracy) for every λ of `WEIGHTS`; empty for a set not in Table 3."""
    rows = _TABLE_3.get(test_set, {})
    return {name: tuple(zip(values[::2], values[1::2], strict=True)) for name, values in rows.items()}
