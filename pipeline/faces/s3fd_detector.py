"""Faces by S3FD, the detector of Cornia et al. (TOMM 2022), from a user's own checkpoint."""

import os
from typing import Final

import numpy as np
import torch

from manifests.errors import InputError
from pipeline.faces.detector import LONG_SIDES, OVERLAP, Detector, Pixels
from pipeline.faces.face_box import FaceBox, suppressed
from pipeline.faces.s3fd import S3FD, STRIDES, decode
from pipeline.faces.s3fd_checkpoint import Convention, load_s3fd
from pipeline.file_digest import file_digest

NAME: Final = "s3fd"
CONFIDENCE: Final = 0.5
"""Score from which a box counts as a face. The paper names none; face-alignment uses this one."""

MEAN_RGB: Final = (123.0, 117.0, 104.0)
_SMALLEST: Final = 32  # pixels: five poolings come before fc6


def open_s3fd(
    weights: str | os.PathLike[str] | None,
    *,
    confidence: float | None = None,
    device: torch.device | str = "cpu",
    long_sides: tuple[int, ...] = LONG_SIDES,
) -> Detector:
    """Open S3FD.

    Args:
        weights: of a checkpoint as `load_s3fd` takes them; None is an error that says where there are some.
        confidence: score from which a box counts as a face, 0 to 1; None is CONFIDENCE.
        device: where the network runs.
        long_sides: see `Detector`.

    Raises:
        InputError: there is no checkpoint, or it is not S3FD.
    """
    if weights is None:
        raise InputError(
            "S3FD needs a checkpoint, which stylize neither has nor downloads; give --weights with s3fd-619a316812.pth "
            "of face-alignment or sfd_face.pth of S3FD.pytorch, or use the detector centerface"
        )
    network, convention = load_s3fd(weights)
    network = network.to(device)

    def find(picture: Pixels, least: float) -> tuple[FaceBox, ...]:
        return find_faces(network, convention, picture, least, torch.device(device))

    score = CONFIDENCE if confidence is None else confidence
    return Detector(NAME, file_digest(weights), score, find, long_sides)


@torch.inference_mode()
def find_faces(
    network: S3FD, convention: Convention, picture: Pixels, least: float, device: torch.device | None = None
) -> tuple[FaceBox, ...]:
    """Find faces in a picture at its own scale.

    Args:
        network: in evaluation mode, on the device.
        convention: of its weights.
        picture: uint8 [H, W, 3], RGB. One with a side of under 32 pixels has none.
        least: score that a box must exceed.
        device: None is the CPU.
    """
    if min(picture.shape[:2]) < _SMALLEST:
        return ()
    values = torch.from_numpy(np.array(picture)).to(device or "cpu").permute(2, 0, 1).float()
    values -= torch.tensor(MEAN_RGB, device=values.device).view(3, 1, 1)
    if convention.bgr:
        values = values.flip(0)
    found = [
        decode(probabilities[0], offsets[0], stride, least)
        for (probabilities, offsets), stride in zip(network(values[None]), STRIDES, strict=True)
    ]
    boxes, scores = (torch.cat(parts).cpu() for parts in zip(*found, strict=True))
    return suppressed(boxes, scores, None, OVERLAP)
