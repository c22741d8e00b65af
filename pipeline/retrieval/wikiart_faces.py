"""WikiArt Faces (Cornia et al., Sec. 4): 15,116 faces cut out of paintings, of nobody known."""

import os
from pathlib import Path

from manifests.errors import InputError
from manifests.image_files import list_image_files
from manifests.image_source import ImageSource
from pipeline.retrieval.face_files import FaceFile, QueriesAndGallery, faces_of_files


def found(folder: Path) -> bool:
    """Whether a folder is named after WikiArt and faces: pictures alone may just as well be whole paintings."""
    name = folder.resolve().name.lower()
    return "wikiart" in name and "face" in name


def wikiart_faces(folder: Path, size: tuple[int, int]) -> QueriesAndGallery:
    """Return all pictures below a folder as a gallery without queries and identities.

    No copy of the set nor a description of its files could be found; relied on is only that it is pictures of single
    faces, in whatever folders. The paper cut them out with the head around them (Sec. 5), so they are taken whole and
    cut to the size evenly. Queries come from the test split of a run, and what can be measured is attributes (Table 4).

    Args:
        folder: of the unpacked set.
        size: width and height in pixels.

    Raises:
        InputError: no picture there, or a folder that cannot be read.
    """
    listing = list_image_files(folder, recursive=True)
    if not listing.table.num_rows:
        raise InputError(f'"{folder}" has no picture (jpg, png, webp, bmp, tiff); give the folder of WikiArt Faces')
    files = [FaceFile(row["locator"], str(row["size"])) for row in listing.table.to_pylist()]
    source = ImageSource("folder", os.path.abspath(folder))
    return QueriesAndGallery(
        None, faces_of_files("WikiArt Faces", "wikiart-faces", source, files, size), listing.problems
    )
