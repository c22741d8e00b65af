"""IIIT-D Sketch (Bhatt et al. 2012), viewed sketches: a photograph and a sketch of each of 238 people."""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

import pyarrow as pa

from manifests.disagreement import disagreement
from manifests.errors import InputError
from manifests.image_files import list_image_files
from manifests.image_source import ImageSource
from pipeline.retrieval.face_files import FaceFile, QueriesAndGallery, faces_of_files, unwrapped

_SKETCHES: Final = re.compile(r"sketch", re.IGNORECASE)
_PHOTOGRAPHS: Final = re.compile(r"photo|digital|image", re.IGNORECASE)
_KIND: Final = re.compile(r"(?<![a-z])(sketch(es)?|photo(graph)?s?|digital|images?)(?![a-z])", re.IGNORECASE)


def found(folder: Path) -> bool:
    """Whether there is one folder of photographs and one of sketches."""
    return _folders(folder) is not None


def iiitd_sketch(folder: Path, size: tuple[int, int]) -> QueriesAndGallery:
    """Return photographs as queries and sketches as gallery; equal names are one person.

    Relied on: two folders, of whose names one contains "sketch" and the other "photo", "digital" or "image" (a public
    description of a working copy has ``Photo`` and ``Sketch``, with sub-folders of equal names in both), in the given
    folder or in one below whose name contains "viewed"; and a photograph and its sketch having the same name there,
    in any case, whatever their suffix, and apart from a word such as "sketch" or "photo" in it. The database is handed
    out on request, and its own file names could not be verified: what stays without a partner is told in the notes,
    and none at all is an error. The semi-forensic and forensic sketches are not of the paper's test set.

    Pictures are taken whole and cut to the size evenly: there are no landmarks. If faces are framed otherwise than in
    Celeb-A, the model's crop (`ModelPlaces.crop`) says where they are.

    Args:
        folder: of the unpacked database.
        size: width and height in pixels.

    Raises:
        InputError: not the two folders, one of them without pictures, or not a single pair.
    """
    folders = _folders(folder)
    if folders is None:
        raise InputError(
            f'"{folder}" has not one folder of photographs (Photo) and one of sketches (Sketch); give the folder that '
            "has both"
        )
    root = folders[0].parent
    (photographs, first), (sketches, second) = (_files(side, root) for side in folders)
    drawn = {sketch.identity for sketch in sketches}
    taken = {photograph.identity for photograph in photographs}
    if not drawn & taken:
        raise InputError(
            f'no sketch in "{folders[1]}" has the name of a photograph in "{folders[0]}" (first: '
            f"{sketches[0].locator}, {photographs[0].locator}); name the two pictures of a person alike"
        )
    source = ImageSource("folder", os.path.abspath(root))
    unsketched = [file.locator for file in photographs if file.identity not in drawn]
    unphotographed = [file.locator for file in sketches if file.identity not in taken]
    notes = [*first, *second]
    if unsketched:
        one = "photograph has no sketch of its name"
        notes.append(disagreement(pa.array(unsketched), one, "photographs have no sketch of their name"))
    if unphotographed:
        one = "sketch has no photograph of its name"
        notes.append(disagreement(pa.array(unphotographed), one, "sketches have no photograph of their name"))
    return QueriesAndGallery(
        faces_of_files("IIIT-D Sketch, photographs", "iiitd-sketch", source, photographs, size),
        faces_of_files("IIIT-D Sketch, sketches", "iiitd-sketch", source, sketches, size),
        tuple(notes),
    )


def _folders(folder: Path) -> tuple[Path, Path] | None:
    """Find the folders of photographs and sketches."""
    for place in _candidates(folder):
        below = [entry for entry in place.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
        sketches = [entry for entry in below if _SKETCHES.search(entry.name)]
        photographs = [entry for entry in below if _PHOTOGRAPHS.search(entry.name) and entry not in sketches]
        if len(sketches) == len(photographs) == 1:
            return photographs[0], sketches[0]
    return None


def _candidates(folder: Path) -> Iterator[Path]:
    inner = unwrapped(folder)
    yield folder
    yield inner
    yield from (entry for entry in sorted(inner.iterdir()) if entry.is_dir() and "viewed" in entry.name.lower())


def _files(side: Path, root: Path) -> tuple[list[FaceFile], tuple[str, ...]]:
    listing = list_image_files(side, recursive=True)
    if not listing.table.num_rows:
        raise InputError(f'"{side}" has no picture (jpg, png, webp, bmp, tiff); unpack the database there')
    prefix = side.relative_to(root).as_posix()
    rows = listing.table.to_pylist()
    files = [FaceFile(f"{prefix}/{row['locator']}", str(row["size"]), _person(row["locator"])) for row in rows]
    return files, listing.problems


def _person(locator: str) -> str:
    """Name who is shown: sub-folder and file name, without the words for the kind of picture."""
    path = PurePosixPath(locator)
    stem = _KIND.sub("", path.stem.lower()).strip(" _-.") or path.stem.lower()
    return (PurePosixPath(path.parent.as_posix().lower()) / stem).as_posix()
