"""What `stylize faces` knows of the faces of an index: which painting each was cut from, and where in it."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from PIL import ExifTags, Image

from manifests.remote_path import is_url
from pipeline.exhibition.museum import Box, Museum, Work, said_by_file
from pipeline.faces.face_catalogue import FACES_FILE, read_face_catalogue
from pipeline.retrieval.index import Index

_SAME: Final = 0.005  # by which a picture's proportions may differ from the photograph's


def with_extracted_faces(museum: Museum, index: Index) -> Museum:
    """Return a museum with what lies in the catalogue beside the crops that were indexed.

    Works that the museum's file does not have get title and artist of the catalogue. Works without a picture get the
    photograph that their faces were cut from, if it is a file of this machine that is still there. Faces get their
    boxes in it; and in a picture of the museum's own, if its proportions are the photograph's, so that it can be taken
    for a copy of it. An index of anything else than crops of `stylize faces` leaves the museum as it is.

    Raises:
        RunError: a catalogue is damaged.
    """
    for root in dict.fromkeys(source.root for source in index.sources):
        folder = Path(root).parent
        if not is_url(root) and (folder / FACES_FILE).is_file():
            museum = _with_faces(museum, read_face_catalogue(folder).to_pylist())
    return museum


def _with_faces(museum: Museum, faces: Iterable[Mapping[str, Any]]) -> Museum:
    by_work: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    works = dict(museum.works)
    boxes = dict(museum.boxes)
    for face in faces:
        work = museum.work_of(face["face"], face["painting"])
        if work.id not in works:
            works[work.id] = _catalogued(museum, face)
        by_work[work.id].append(face)
    for name, own in by_work.items():
        work = works[name]
        if work.picture is None:
            work = works[name] = replace(work, picture=_photograph(own[0]))
        ratio = None if work.picture is None else _ratio(work.picture)
        for face in own:
            width, height = face["picture_width"], face["picture_height"]
            if ratio is not None and abs(ratio * height / width - 1) < _SAME:
                boxes[face["face"]] = _box(face, width, height)
    return replace(museum, works=works, boxes=boxes)


def _catalogued(museum: Museum, face: Mapping[str, Any]) -> Work:
    artist, title = said_by_file(face["painting"])
    if face["title"] or face["artist"]:
        artist, title = face["artist"], face["title"] or title
    return Work(face["painting"], dict.fromkeys(museum.languages, title), artist)


def _photograph(face: Mapping[str, Any]) -> Path | None:
    if is_url(face["source"]):
        return None
    path = Path(face["source"], face["locator"])
    return path if path.is_file() else None


def _ratio(picture: Path) -> float | None:
    """Return width by height as a viewer shows it, None where it cannot be read."""
    try:
        with Image.open(picture) as image:
            width, height = image.size
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in {5, 6, 7, 8}
    except Exception:
        return None
    return height / width if turned else width / height


def _box(face: Mapping[str, Any], width: int, height: int) -> Box:
    """Return the detector's box, cut to the picture, in fractions."""
    left, top = max(face["x"], 0.0), max(face["y"], 0.0)
    right, bottom = min(face["x"] + face["width"], width), min(face["y"] + face["height"], height)
    return Box(left / width, top / height, max(right - left, 0.0) / width, max(bottom - top, 0.0) / height)
