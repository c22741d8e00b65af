"""Which detectors there are, and opening one by its name."""

import os
from collections.abc import Callable, Mapping
from typing import Final

import torch

from manifests.errors import InputError
from pipeline.faces import centerface, s3fd_detector
from pipeline.faces.detector import LONG_SIDES, Detector

AUTO: Final = "auto"

_OPENERS: Final[Mapping[str, Callable[..., Detector]]] = {
    centerface.NAME: centerface.open_centerface,
    s3fd_detector.NAME: s3fd_detector.open_s3fd,
}

DETECTORS: Final = (AUTO, *_OPENERS)
"""Names to choose from."""


def open_detector(
    name: str = AUTO,
    weights: str | os.PathLike[str] | None = None,
    *,
    confidence: float | None = None,
    device: torch.device | str = "cpu",
    long_sides: tuple[int, ...] = LONG_SIDES,
) -> Detector:
    """Open a detector.

    Args:
        name: "s3fd", the paper's, of a user's own checkpoint; "centerface", whose weights come with the extra `faces`;
            or "auto": s3fd where weights are given, centerface where none are.
        weights: path of the detector's weights; None takes those that come with the extra.
        confidence: score from which a box counts as a face, 0 to 1; None is the detector's own.
        device: where it runs.
        long_sides: pixels of the longer side, falling, at which a picture is looked at, each at least 32.

    Raises:
        InputError: another name, a number out of its range, or weights that are missing or of another network.
    """
    if name not in DETECTORS:
        raise InputError(f'there is no face detector "{name}"; those known are {", ".join(DETECTORS)}')
    if confidence is not None and not 0 <= confidence <= 1:
        raise InputError(f"a face's score is 0 to 1, and a confidence of {confidence:g} is none; give one within")
    if not long_sides or min(long_sides) < 32 or sorted(long_sides, reverse=True) != list(long_sides):
        raise InputError(
            f"pictures cannot be looked at with long sides of {long_sides}; give falling ones of at least 32"
        )
    chosen = name if name != AUTO else centerface.NAME if weights is None else s3fd_detector.NAME
    return _OPENERS[chosen](weights, confidence=confidence, device=device, long_sides=long_sides)
