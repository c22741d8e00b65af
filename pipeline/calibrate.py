"""Measure the loss of style transfer on given faces and paintings, to choose settings by."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manifests.errors import InputError
from manifests.faces import read_faces
from manifests.image_source import ImageSource
from manifests.paintings import read_paintings
from pipeline.network import reference
from pipeline.pairing import draws
from stylize.convention import CONVENTIONS
from stylize.decode import decode_image
from stylize.errors import ImageError, WeightsError
from stylize.fit import cover
from stylize.loading import unworkable
from stylize.settings import TransferSettings
from stylize.trajectory import trace
from stylize.transfer import StyleTransfer
from stylize.weights import load_weights

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
    if pairs < 1:
        raise InputError(f"the number of pairs must be at least 1, not {pairs}")
    settings = settings or TransferSettings()
    face_catalogue, painting_catalogue = read_faces(faces), read_paintings(paintings)
    network = reference(weights, seed, settings.convention)
    try:
        transfer = StyleTransfer(load_weights(weights, seed=seed), network.scales, settings)
    except WeightsError:
        raise
    except ValueError as error:
        raise InputError(str(error)) from error

    total = face_catalogue.table.num_rows
    sample = np.sort(np.random.default_rng(seed).choice(total, min(pairs, total), replace=False))
    ids, unreadable = [], []
    size = settings.size
    pictures: list[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]] = []
    for index in sample.tolist():
        image_id = face_catalogue.table["image_id"][index].as_py()
        drawn = draws(seed, image_id, painting_catalogue.table.num_rows, 1)[0]
        painting_id = painting_catalogue.table["painting"][drawn].as_py()
        try:
            face = _read(face_catalogue.source, face_catalogue.table["locator"][index].as_py())
            painting = _read(painting_catalogue.source, painting_catalogue.table["locator"][drawn].as_py())
        except ImageError as error:
            unreadable.append(str(error))
            continue
        if size is None and (reason := unworkable(*face.shape[:2])):
            unreadable.append(f"{image_id}: {reason}")
            continue
        size = size or (face.shape[1], face.shape[0])
        pictures.append((cover(face, *size), cover(painting, *size)))
        ids.append((image_id, painting_id))
    if not pictures or size is None:
        raise InputError(f"none of the {len(sample)} pairs sampled could be read (first: {unreadable[0]})")

    trajectories = []
    for done, trajectory in enumerate(trace(transfer, *map(list, zip(*pictures, strict=True))), start=1):
        trajectories.append(trajectory)
        on_pair(done)
    return Calibration(
        pairs=tuple(ids),
        losses=np.array([float(trajectory.final.total[0]) for trajectory in trajectories]),
        style_losses=np.array([trajectory.final.style[0].tolist() for trajectory in trajectories]),
        content_losses=np.array([float(trajectory.final.content[0]) for trajectory in trajectories]),
        curve=np.stack([trajectory.curve for trajectory in trajectories]),
        unreadable=tuple(unreadable),
        size=size,
        precision=transfer.precision,
        settings=settings,
    )


def loss_unit(settings: TransferSettings) -> float:
    """Return the factor that all losses under these settings carry."""
    return CONVENTIONS[settings.convention].loss_unit


def _read(source: ImageSource, locator: str) -> npt.NDArray[np.uint8]:
    try:
        return decode_image(source.read(locator))
    except (ImageError, InputError, OSError) as error:
        raise ImageError(f"{locator}: {error}") from error
