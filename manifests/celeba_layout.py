"""Where the parts of a Celeb-A copy lie: images and annotation files, in the layouts that people really have."""

import os
from dataclasses import dataclass
from pathlib import Path

from manifests.errors import InputError
from manifests.remote_path import Place, RemotePath

IMAGES = "img_align_celeba"
_ATTRIBUTES = ("list_attr_celeba.txt", "list_attr_celeba.csv")
_IDENTITIES = ("identity_CelebA.txt", "identity_CelebA.csv")
_PARTITION = ("list_eval_partition.txt", "list_eval_partition.csv")
_ALL = (_ATTRIBUTES, _IDENTITIES, _PARTITION)


@dataclass(frozen=True)
class CelebALayout:
    """The parts of one copy: ``images`` is a folder or a zip archive; absent annotation files are None."""

    name: str
    images: Place
    attributes: Place
    identities: Place | None
    partition: Place | None


def find_celeba(path: Place) -> CelebALayout | None:
    """Recognise a Celeb-A copy from the folder above its images, from the images' folder, or from the zip archive.

    Known: the official download (``Img/``, ``Anno/``, ``Eval/``), everything in one folder, torchvision's root (with
    its ``celeba`` sub-folder), and Kaggle's CSV copy with its doubled ``img_align_celeba`` folder. An unpacked folder
    with something in it is preferred to an archive beside it. The images' folder with no annotation beside it is not
    a Celeb-A copy but a plain folder of faces: None.

    Raises:
        InputError: a part of a copy is there but its images or its attribute file are not.
    """
    full: Place = path if isinstance(path, RemotePath) else Path(os.path.abspath(path))
    if full.is_file():
        return _assemble([full.parent], full, path)
    if full.name.lower() == IMAGES:
        above = [full.parent, full.parent.parent] if full.parent.name.lower() == IMAGES else [full.parent]
        if any(_find(base, _ATTRIBUTES) for base in above):
            return _assemble(above, _unnested(full), path)
    for base in (full, full / "celeba", full / "CelebA"):
        images = _images_in(base)
        if images is not None or any(_find(base, names) for names in _ALL):
            return _assemble([base], images, path, torchvision=base.name == "celeba" and base != full)
    return None


def _assemble(bases: list[Place], images: Place | None, given: Place, *, torchvision: bool = False) -> CelebALayout:
    found = {names: next((hit for base in bases if (hit := _find(base, names))), None) for names in _ALL}
    attributes = found[_ATTRIBUTES]
    if attributes is None:
        raise InputError(
            f"{given} has no {_ATTRIBUTES[0]} beside its Celeb-A images; put it there, "
            f"or give the unpacked folder of images alone to use them without labels."
        )
    if images is None:
        raise InputError(f"{given} has {attributes.name} but neither a folder {IMAGES} nor {IMAGES}.zip; put it there.")
    if images.is_file():
        name = "celeba-zip"
    elif attributes.suffix == ".csv":
        name = "celeba-kaggle"
    else:
        name = "celeba-torchvision" if torchvision else "celeba"
    return CelebALayout(name, images, attributes, found[_IDENTITIES], found[_PARTITION])


def _find(base: Place, names: tuple[str, ...]) -> Place | None:
    """Find an annotation file in ``base``, ``Anno`` or ``Eval``, or beside ``base`` when that is ``Img``."""
    bases = [base, base.parent] if base.name.lower() == "img" else [base]
    for name in names:
        for folder in bases:
            for candidate in (folder / name, folder / "Anno" / name, folder / "Eval" / name):
                if candidate.is_file():
                    return candidate
    return None


def _images_in(base: Place) -> Place | None:
    """Find the folder of images, or else the archive, in ``base`` or ``base/Img``."""
    for folder in (base, base / "Img"):
        images = _unnested(folder / IMAGES)
        if images.is_dir() and _holds_something(images):
            return images
    for folder in (base, base / "Img"):
        if (folder / f"{IMAGES}.zip").is_file():
            return folder / f"{IMAGES}.zip"
    for folder in (base, base / "Img"):
        if (folder / IMAGES).is_dir():
            return _unnested(folder / IMAGES)
    return None


def _holds_something(folder: Place) -> bool:
    if isinstance(folder, RemotePath):
        return True  # or it would not be there
    with os.scandir(folder) as entries:
        return next(entries, None) is not None


def _unnested(images: Place) -> Place:
    return images / IMAGES if (images / IMAGES).is_dir() else images
