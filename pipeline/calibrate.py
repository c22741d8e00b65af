"""Measure the loss of style transfer on given faces and paintings, to choose settings by."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.network import load_local_transfer
from pipeline.sample_pairs import sample_pairs
from stylize.convention import CONVENTIONS
from stylize.settings import TransferSettings
from stylize.trajectory import trace

ACCEPTED_SHARE = 0.9  # the published threshold throws one pair in ten away (docs/objective.md)


@dataclass(frozen=True)
class Calibration:
    """Losses of N pairs, in loss units.

    Attributes:
        pairs: (image_id, painting) of each.
        losses: float64 [N], final, in fp32, of the image as stored in 8 bits.
        style_losses: float64 [N, style layers].
        content_losses: float64 [N], without α.
        curve: float64 [N, evaluations], the loss after each evaluation, in the working precision.
        unreadable: one sentence for each pair that was left out.
        size: working size (width, height) in pixels.
        precision: of the convolutions.
        settings: what was measured.
    """

    pairs: tuple[tuple[str, str], ...]
    losses: npt.NDArray[np.float64]
    style_losses: npt.NDArray[np.float64]
    content_losses: npt.NDArray[np.float64]
    curve: npt.NDArray[np.float64]
    unreadable: tuple[str, ...]
    size: tuple[int, int]
    precision: str
    settings: TransferSettings

    def suggestion(self, share: float = ACCEPTED_SHARE) -> float:
        """Return the threshold under which this share of the pairs lies."""
        return float(np.quantile(self.losses, share))

    def acceptance(self, threshold: float) -> float:
        """Return the share of pairs, in [0, 1], whose loss is under a threshold."""
        return float(np.mean(self.losses < threshold))


def calibrate(
    faces: str | os.PathLike[str],
    paintings: str | os.PathLike[str],
    settings: TransferSettings | None = None,
    *,
    weights: str = "imagenet",
    pairs: int = 64,
    seed: int = 0,
    on_pair: Callable[[int], None] = lambda done: None,
) -> Calibration:
    """Repaint a seeded sample of faces, each with the first painting drawn for it, without the retry rule.

    Args:
        faces, paintings: as `stylize build` takes them.
        settings: of the style transfer; the threshold and the retry rule play no part. Without a size, the first
            face's size is everybody's.
        weights: as `stylize.weights.load_weights` takes them.
        pairs: how many faces, at most; each once.
        seed: of the sample and the pairing.
        on_pair: called with the number of finished pairs.

    Raises:
        InputError: wrong input, or no pair could be read.
        WeightsError: the weights cannot be loaded.
    """
    settings = settings or TransferSettings()
    sample = sample_pairs(faces, paintings, pairs=pairs, seed=seed, size=settings.size)
    transfer = load_local_transfer(weights, seed, settings)
    trajectories = []
    pictures = [pair.face for pair in sample.pairs], [pair.painting for pair in sample.pairs]
    for done, trajectory in enumerate(trace(transfer, *pictures), start=1):
        trajectories.append(trajectory)
        on_pair(done)
    return Calibration(
        pairs=tuple((pair.image_id, pair.painting_id) for pair in sample.pairs),
        losses=np.array([float(trajectory.final.total[0]) for trajectory in trajectories]),
        style_losses=np.array([trajectory.final.style[0].tolist() for trajectory in trajectories]),
        content_losses=np.array([float(trajectory.final.content[0]) for trajectory in trajectories]),
        curve=np.stack([trajectory.curve for trajectory in trajectories]),
        unreadable=sample.unreadable,
        size=sample.size,
        precision=transfer.precision,
        settings=settings,
    )


def loss_unit(settings: TransferSettings) -> float:
    """Return the factor that all losses under these settings carry."""
    return CONVENTIONS[settings.convention].loss_unit
