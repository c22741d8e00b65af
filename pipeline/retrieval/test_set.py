"""Test sets of retrieval in the layouts in which they are published."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, NamedTuple

from manifests.errors import InputError
from manifests.run import RunDirectory
from pipeline.retrieval import deviantart_faces, iiitd_sketch, webcaricature, wikiart_faces
from pipeline.retrieval.celeba_proxies import celeba_proxies
from pipeline.retrieval.face_files import CELEBA_SIZE, QueriesAndGallery
from pipeline.retrieval.face_set import FaceSet

RUN: Final = "celeba-proxies"


@dataclass(frozen=True, eq=False)
class TestSet:
    """Photographs that are searched with, and art that is searched.

    Attributes:
        title: what it is, for people; of a published set its name as the paper's tables have it.
        name: of the layout, one of LAYOUTS.
        queries: photographs; None for a set without any, in which a run's photographs search.
        gallery: art. Identities of queries and gallery are comparable.
        notes: what was left out or assumed, one sentence each.
    """

    __test__: ClassVar[bool] = False  # the name is not one of pytest's

    title: str
    name: str
    queries: FaceSet | None
    gallery: FaceSet
    notes: tuple[str, ...] = ()


class _Layout(NamedTuple):
    """A published layout.

    Attributes:
        title: the data set's name in the paper.
        looks_like: what is to be seen, for messages.
        found: whether a folder looks like that.
        read: (folder, size) → the two sides.
    """

    title: str
    looks_like: str
    found: Callable[[Path], bool]
    read: Callable[[Path, tuple[int, int]], QueriesAndGallery]


_PUBLISHED: Final[Mapping[str, _Layout]] = {
    "webcaricature": _Layout(
        "WebCaricature",
        "OriginalImages/PERSON/C00001.jpg (caricatures) and P00001.jpg (photographs)",
        webcaricature.found,
        webcaricature.webcaricature,
    ),
    "iiitd-sketch": _Layout(
        "IIIT-D Sketch",
        "a folder of photographs (Photo) and one of sketches (Sketch) with equal file names",
        iiitd_sketch.found,
        iiitd_sketch.iiitd_sketch,
    ),
    "deviantart-faces": _Layout(
        "DeviantArt Faces",
        "PERSON/portrait.jpg with photographs beside it, or a folder of portraits and one of photographs",
        deviantart_faces.found,
        deviantart_faces.deviantart_faces,
    ),
    "wikiart-faces": _Layout(
        "WikiArt Faces",
        "pictures of painted faces, in a folder named like WikiArt_Faces",
        wikiart_faces.found,
        wikiart_faces.wikiart_faces,
    ),
}

LAYOUTS: Final = (RUN, *_PUBLISHED)
"""Names of all layouts, in the order in which they are tried."""


def open_test_set(
    place: str | os.PathLike[str],
    *,
    layout: str | None = None,
    split: str = "test",
    size: tuple[int, int] | None = None,
    faces: str | os.PathLike[str] | None = None,
) -> TestSet:
    """Open a test set; pictures are read when they are loaded.

    Args:
        place: a built run (a folder or fsspec URL), or the local folder of a published set.
        layout: one of LAYOUTS; None recognises it from what is there.
        split: of a run: "train", "valid" or "test". Published sets have none and ignore it.
        size: width and height in pixels of a published set's pictures as networks see them; None is 178x218, Celeb-A's.
            A run's proxies have a size already, and another is refused.
        faces: of a run, where its photographs are now, if not where run.json says.

    Raises:
        InputError: an unknown layout, nothing of the kind there (the sentence lists what is known), an unfinished or
            empty run, a set without pictures, or an argument that does not go with the layout.
    """
    if layout is not None and layout not in LAYOUTS:
        raise InputError(f'there is no layout "{layout}" of test sets; those known are {", ".join(LAYOUTS)}')
    name = layout or _recognised(place)
    if name == RUN:
        sides = celeba_proxies(place, split, faces=faces)
        if size not in {None, sides.gallery.size}:
            width, height = sides.gallery.size
            raise InputError(f'the pictures of the run "{os.fspath(place)}" are {width}x{height}; give no other size')
        return TestSet(f"proxies of {split} in {os.fspath(place)}", name, *sides)
    if faces is not None:
        raise InputError(f'only a run has photographs that lie elsewhere, and "{os.fspath(place)}" is {name}')
    folder = Path(place)
    if not folder.is_dir():
        raise InputError(f'there is no folder "{folder}"; give that of the test set, unpacked')
    published = _PUBLISHED[name]
    try:
        return TestSet(published.title, name, *published.read(folder, size or CELEBA_SIZE))
    except OSError as error:
        raise InputError(f'"{folder}" cannot be read: {error}') from error


def _recognised(place: str | os.PathLike[str]) -> str:
    if RunDirectory.exists(place):
        return RUN
    folder = Path(place)
    if not folder.is_dir():
        raise InputError(f'there is no run and no local folder "{os.fspath(place)}"; give one of a test set, unpacked')
    try:
        for name, layout in _PUBLISHED.items():
            if layout.found(folder):
                return name
    except OSError as error:
        raise InputError(f'"{folder}" cannot be read: {error}') from error
    known = "; ".join(f"{name}: {layout.looks_like}" for name, layout in _PUBLISHED.items())
    raise InputError(
        f'"{folder}" looks like no test set; say which it is (--layout), or give {RUN}: a built run, with run.json; '
        f"{known}"
    )
