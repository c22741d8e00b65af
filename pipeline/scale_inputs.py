"""Catalogues of any size that weigh nothing: a synthetic Celeb-A and WikiArt for measuring what is not repainting.

Names, annotation files and folders are those of the real data sets; every image is a hard link to one tiny picture.
"""

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from manifests.attributes import ATTRIBUTES

CELEBA_FACES: Final = 202_599
CELEBA_SPLITS: Final = (162_770, 19_867, 19_962)
"""Faces of Celeb-A in train, valid and test (Liu et al., ICCV 2015; `list_eval_partition.txt`)."""

WIKIART_PAINTINGS: Final = 81_444
_IDENTITIES = 10_177  # of Celeb-A, for as many faces as it has
_STYLES, _ARTISTS = 27, 1_119  # of WikiArt
_LINKS_PER_FILE = 30_000  # ext4 takes 65,000, others fewer
_ROWS_AT_A_TIME = 50_000


def write_celeba(root: Path, faces: int, *, seed: int = 0) -> Path:
    """Write Celeb-A's official layout with this many faces under `root`, and return `root`.

    Attributes are drawn evenly; identities and splits have Celeb-A's proportions, splits in the order of the names, as
    there. OSError.
    """
    images = root / "img_align_celeba"
    digits = max(6, len(str(faces)))
    names = [f"{number:0{digits}d}.jpg" for number in range(1, faces + 1)]
    link_pictures(images, names)
    generator = np.random.default_rng(seed)
    with open(root / "list_attr_celeba.txt", "w", encoding="ascii") as file:
        file.write(f"{faces}\n{' '.join(ATTRIBUTES)}\n")
        for start in range(0, faces, _ROWS_AT_A_TIME):
            chunk = names[start : start + _ROWS_AT_A_TIME]
            drawn = generator.integers(0, 2, (len(chunk), len(ATTRIBUTES)))
            values = np.array(["-1", " 1"])[drawn].tolist()
            file.writelines(f"{name} {' '.join(row)}\n" for name, row in zip(chunk, values, strict=True))
    identities = max(1, _IDENTITIES * faces // CELEBA_FACES)
    bounds = np.cumsum(CELEBA_SPLITS) * faces // CELEBA_FACES
    partition = np.searchsorted(bounds, np.arange(faces), side="right").tolist()
    _write_column(root / "identity_CelebA.txt", names, (number % identities + 1 for number in range(faces)))
    _write_column(root / "list_eval_partition.txt", names, partition)
    return root


def write_wikiart(root: Path, paintings: int) -> Path:
    """Write this many paintings in folders of WikiArt's number of styles under `root`, and return `root`. OSError."""
    for style in range(min(_STYLES, paintings)):
        numbers = range(style, paintings, _STYLES)
        names = [f"artist-{number % _ARTISTS}_title-of-painting-{number}.jpg" for number in numbers]
        link_pictures(root / f"Style_{style:02d}", names)
    return root


def link_pictures(folder: Path, names: Sequence[str]) -> None:
    """Make `folder` with a tiny picture under each of these names; copies where links cannot be made. OSError."""
    folder.mkdir(parents=True)
    for start in range(0, len(names), _LINKS_PER_FILE):
        first, *others = names[start : start + _LINKS_PER_FILE]
        picture = folder / first
        Image.new("RGB", (16, 20), (120, 90, 60)).save(picture, "PNG")
        for name in others:
            try:
                os.link(picture, folder / name)
            except OSError:
                shutil.copyfile(picture, folder / name)


def _write_column(path: Path, names: Sequence[str], values: Iterable[int]) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.writelines(f"{name} {value}\n" for name, value in zip(names, values, strict=True))
