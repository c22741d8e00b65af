"""A seeded sample of faces, each with the first painting drawn for it: what calibration and benchmarks measure on."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manifests.errors import InputError
from manifests.faces import read_faces
from manifests.image_source import ImageSource
from manifests.paintings import read_paintings
from pipeline.pairing import draws
from stylize.decode import decode_image
from stylize.errors import ImageError
from stylize.fit import cover
from stylize.loading import unworkable


@dataclass(frozen=True)
class Pair:
    """A face and the painting drawn for it.

    Attributes:
        image_id, painting_id: their names.
        read_face, read_painting: get the encoded images.
        face, painting: uint8 [H, W, 3], both of the sample's size.
    """

    image_id: str
    painting_id: str
    read_face: Callable[[], bytes]
    read_painting: Callable[[], bytes]
    face: npt.NDArray[np.uint8]
    painting: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Sample:
    """Pairs of one size.

    Attributes:
        pairs: at least one.
        size: (width, height) in pixels.
        unreadable: one sentence for each pair that was left out.
    """

    pairs: tuple[Pair, ...]
    size: tuple[int, int]
    unreadable: tuple[str, ...]


def sample_pairs(
    faces: str | os.PathLike[str],
    paintings: str | os.PathLike[str],
    *,
    pairs: int,
    seed: int = 0,
    size: tuple[int, int] | None = None,
) -> Sample:
    """Choose faces by a seed and read them with their paintings.

    Args:
        faces, paintings: as `stylize build` takes them.
        pairs: how many faces, at most; each once.
        seed: of the choice and of the pairing.
        size: (width, height); None is the size of the first face that can be read, for all.

    Raises:
        InputError: wrong input, or no pair could be read.
    """
    if pairs < 1:
        raise InputError(f"the number of pairs must be at least 1, not {pairs}")
    face_catalogue, painting_catalogue = read_faces(faces), read_paintings(paintings)
    total = face_catalogue.table.num_rows
    chosen = np.sort(np.random.default_rng(seed).choice(total, min(pairs, total), replace=False))
    found: list[Pair] = []
    unreadable: list[str] = []
    for index in chosen.tolist():
        image_id = face_catalogue.table["image_id"][index].as_py()
        drawn = draws(seed, image_id, painting_catalogue.table.num_rows, 1)[0]
        face_locator = face_catalogue.table["locator"][index].as_py()
        painting_locator = painting_catalogue.table["locator"][drawn].as_py()
        read_face = _reader(face_catalogue.source, face_locator)
        read_painting = _reader(painting_catalogue.source, painting_locator)
        try:
            face, painting = _decode(face_locator, read_face), _decode(painting_locator, read_painting)
        except ImageError as error:
            unreadable.append(str(error))
            continue
        if size is None and (reason := unworkable(*face.shape[:2])):
            unreadable.append(f"{image_id}: {reason}")
            continue
        size = size or (face.shape[1], face.shape[0])
        painting_id = painting_catalogue.table["painting"][drawn].as_py()
        found.append(Pair(image_id, painting_id, read_face, read_painting, cover(face, *size), cover(painting, *size)))
    if not found or size is None:
        raise InputError(f"none of the {len(chosen)} pairs sampled could be read (first: {unreadable[0]})")
    return Sample(tuple(found), size, tuple(unreadable))


def _decode(locator: str, read: Callable[[], bytes]) -> npt.NDArray[np.uint8]:
    try:
        return decode_image(read())
    except ImageError as error:
        raise ImageError(f"{locator}: {error}") from error


def _reader(source: ImageSource, locator: str) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            return source.read(locator)
        except (InputError, OSError) as error:
            raise ImageError(str(error)) from error

    return read
