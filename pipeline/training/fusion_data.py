"""Photographs for Izadi's experiment: identities with enough of them, split into train and test within each person."""

import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import PurePosixPath
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from manifests import schema
from manifests.errors import InputError
from manifests.faces import FaceCatalogue, read_faces
from manifests.image_source import ImageSource
from stylize.decode import decode_image
from stylize.errors import ImageError
from stylize.fit import cover

IDENTITY_ATTRIBUTES: Final[tuple[str, ...]] = (
    "Arched_Eyebrows",
    "Bald",
    "Big_Lips",
    "Big_Nose",
    "Black_Hair",
    "Blond_Hair",
    "Brown_Hair",
    "Bushy_Eyebrows",
    "Chubby",
    "Double_Chin",
    "Gray_Hair",
    "High_Cheekbones",
    "Male",
    "Narrow_Eyes",
    "Oval_Face",
    "Pale_Skin",
    "Pointy_Nose",
    "Receding_Hairline",
    "Straight_Hair",
    "Wavy_Hair",
    "Young",
)
"""The 21 of Celeb-A's 40 that a person keeps from one picture to the next; our choice, see docs/fusion.md."""

UNKNOWN: Final = -1
_PERSON: Final = b"stylize/fusion1"
Crop = tuple[float, float, float, float]


@dataclass(frozen=True)
class FusionFaces:
    """The chosen photographs, decoded.

    Attributes:
        people: name of each class: the identity's number, or the folder's name; most photographs first.
        image_ids: N, in catalogue order.
        images: uint8 [N, 3, size, size], RGB.
        classes: int64 [N], index into ``people``.
        attributes: int8 [N, T]: 1 yes, 0 no, -1 unknown.
        train, test: int64 indices of images, ascending; every person is in both.
        digest: of the catalogue they come from.
        notes: what the reader should be told.
    """

    people: tuple[str, ...]
    image_ids: tuple[str, ...]
    images: Tensor
    classes: Tensor
    attributes: Tensor
    train: Tensor
    test: Tensor
    digest: str
    notes: tuple[str, ...]


def read_fusion_faces(
    path: str | os.PathLike[str],
    *,
    attributes: Sequence[str],
    min_images: int,
    identities: int,
    test_share: float,
    seed: int,
    size: int,
    crop: Crop | None = None,
) -> FusionFaces:
    """Choose people, split their photographs, and decode them.

    Args:
        path: anything ``read_faces`` reads. In a plain folder each sub-folder is one person, and nothing is known of
            attributes.
        attributes: names, from the catalogue's 40; empty where none are wanted.
        min_images: a person has at least so many photographs; at least 2.
        identities: at most so many people, those with most photographs; ties go to the smaller identity.
        test_share: of each person's photographs, see ``split_person``.
        seed: of the split.
        size: side of the square that each photograph is fitted to (``cover``), in pixels.
        crop: left, top, right, bottom of what is used of a photograph, as fractions of its width and height.

    Raises:
        InputError: no identities, fewer than two people with enough photographs, attributes wanted where none is
            known, or an image that cannot be read.
    """
    catalogue = read_faces(path)
    persons, notes = _persons(catalogue, path)
    rows_of: dict[int | str, list[int]] = defaultdict(list)
    for row, person in enumerate(persons):
        if person is not None:
            rows_of[person].append(row)
    chosen, note = _choose(rows_of, min_images, identities, path)
    notes = (*catalogue.problems, *notes, *note)
    ids = catalogue.table[schema.IMAGE_ID].to_pylist()
    held_out = {
        row
        for person in chosen
        for row in split_person({ids[row]: row for row in rows_of[person]}, test_share=test_share, seed=seed)
    }
    class_of = {row: index for index, person in enumerate(chosen) for row in rows_of[person]}
    rows = sorted(class_of)
    labels = _labels(catalogue.table, rows, attributes, path)
    is_test = np.array([row in held_out for row in rows])
    return FusionFaces(
        tuple(map(str, chosen)),
        tuple(ids[row] for row in rows),
        torch.from_numpy(_images(catalogue, rows, size, crop)),
        torch.tensor([class_of[row] for row in rows]),
        torch.from_numpy(labels),
        torch.from_numpy(np.flatnonzero(~is_test)),
        torch.from_numpy(np.flatnonzero(is_test)),
        catalogue.digest,
        notes,
    )


def split_person(rows: dict[str, int], *, test_share: float, seed: int) -> list[int]:
    """Choose one person's test photographs.

    So many as ``test_share`` rounds to (half up), at least one, and never all; those whose BLAKE2b of (seed, image_id)
    is smallest, so that the choice depends on nothing but this person's photographs and the seed.

    Args:
        rows: by image_id; at least two.
        test_share: in (0, 1).
        seed: any integer.

    Returns:
        The rows chosen.
    """
    count = min(max(1, int(len(rows) * test_share + 0.5)), len(rows) - 1)

    def rank(image_id: str) -> bytes:
        message = b"%d:%s" % (seed, image_id.encode("utf-8", "surrogatepass"))
        return blake2b(message, digest_size=16, person=_PERSON).digest()

    return [rows[image_id] for image_id in sorted(rows, key=rank)[:count]]


def _persons(
    catalogue: FaceCatalogue, path: str | os.PathLike[str]
) -> tuple[list[int | None] | list[str | None], tuple[str, ...]]:
    if catalogue.layout != "folder":
        identities: list[int | None] = catalogue.table[schema.IDENTITY].to_pylist()
        if all(identity is None for identity in identities):
            raise InputError(
                f'"{path}" does not say who its faces are, so nobody can be told apart; give a Celeb-A copy with '
                "identity_CelebA.txt, Parquet files with a column identity, or a folder with one sub-folder per person"
            )
        return identities, ()
    folders: list[str | None] = []
    for image_id in catalogue.table[schema.IMAGE_ID].to_pylist():
        parts = PurePosixPath(image_id).parts
        folders.append(parts[0] if len(parts) > 1 else None)
    loose = folders.count(None)
    if loose == len(folders):
        raise InputError(f'"{path}" holds images but no sub-folders; give a folder with one sub-folder per person')
    # The first folder's name, however deep the image: a folder too high up then gives one person, which is refused.
    return folders, ((f'{loose} images of "{path}" are in no person\'s sub-folder and are left out',) if loose else ())


def _choose(
    rows_of: dict[int | str, list[int]], min_images: int, identities: int, path: str | os.PathLike[str]
) -> tuple[list[int | str], tuple[str, ...]]:
    # Identities of one catalogue are all numbers or all names, so that they have an order.
    ranked = sorted(rows_of.items(), key=lambda item: (-len(item[1]), item[0]))
    eligible = [person for person, rows in ranked if len(rows) >= min_images]
    if len(eligible) < 2:
        counts = [len(rows) for _, rows in ranked]
        most = f"the second largest has {counts[1]}" if len(counts) > 1 else "there is one person in all"
        raise InputError(
            f'{len(eligible)} of {len(ranked)} people in "{path}" have at least {min_images} photographs ({most}), and '
            "telling people apart takes two; lower --min-images or give other faces"
        )
    chosen = eligible[:identities]
    if len(chosen) == identities:
        return chosen, ()
    return chosen, (f"{len(chosen)} people have at least {min_images} photographs; {identities} were asked for",)


def _labels(
    table: pa.Table, rows: list[int], attributes: Sequence[str], path: str | os.PathLike[str]
) -> npt.NDArray[np.int8]:
    if not attributes:
        return np.empty((len(rows), 0), np.int8)
    columns = [table[name].cast(pa.int8()).fill_null(UNKNOWN).to_numpy() for name in attributes]
    labels = np.stack(columns, axis=1)[rows].astype(np.int8)
    if (labels == UNKNOWN).all():
        raise InputError(
            f'"{path}" has no attribute labels for its faces, which the cases ground-truth and predicted learn from; '
            "give a Celeb-A copy with list_attr_celeba.txt, or choose case none"
        )
    return labels


def _images(catalogue: FaceCatalogue, rows: list[int], size: int, crop: Crop | None) -> npt.NDArray[np.uint8]:
    locators = catalogue.table["locator"].to_pylist()
    images = np.empty((len(rows), 3, size, size), np.uint8)

    def load(position: int) -> None:
        image = _decoded(catalogue.source, locators[rows[position]])
        images[position] = cover(_cropped(image, crop), size, size).transpose(2, 0, 1)

    # Pillow decodes and resizes without the interpreter's lock.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for _ in pool.map(load, range(len(rows))):
            pass
    return images


def _cropped(image: npt.NDArray[np.uint8], crop: Crop | None) -> npt.NDArray[np.uint8]:
    if crop is None:
        return image
    height, width = image.shape[:2]
    left, top = min(round(crop[0] * width), width - 1), min(round(crop[1] * height), height - 1)
    return image[top : max(round(crop[3] * height), top + 1), left : max(round(crop[2] * width), left + 1)]


def _decoded(source: ImageSource, locator: str) -> npt.NDArray[np.uint8]:
    try:
        return decode_image(source.read(locator))
    except (ImageError, OSError) as error:
        raise InputError(
            f'the image "{locator}" in "{source.root}" cannot be read ({error}); mend it or take it away'
        ) from error
