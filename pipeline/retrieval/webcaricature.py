"""WebCaricature (Huo et al., BMVC 2018): 6,042 caricatures and 5,974 photographs of 252 people."""

import os
import re
import zlib
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from manifests.disagreement import disagreement
from manifests.errors import InputError
from manifests.image_files import list_image_files
from manifests.image_source import ImageSource
from pipeline.retrieval.face_files import MIN_SIDE, Box, FaceFile, QueriesAndGallery, faces_of_files, unwrapped

IMAGES: Final = "OriginalImages"
POINTS: Final = "FacialPoints"
LANDMARKS: Final = 17
ENLARGED: Final = 0.4
"""By which share of its width (height) a face's box is moved outwards at each side (Cornia et al., Sec. 5)."""

EYE_LEVEL: Final = 0.51
"""How far down the eyes are in Celeb-A's aligned pictures, as a share of the height: 111 or 112 of 218 pixels."""

_PICTURE: Final = re.compile(r"(?P<person>[^/]+)/(?P<kind>[CP])\d+\.[^./]+", re.IGNORECASE)
_EYE_CORNERS: Final = slice(8, 12)


def found(folder: Path) -> bool:
    """Whether there is a folder OriginalImages, or this is it."""
    return _images(folder) is not None


def webcaricature(folder: Path, size: tuple[int, int]) -> QueriesAndGallery:
    """Return photographs as queries and caricatures as gallery, both all of them (the paper's protocol, Sec. 4).

    Layout, as the set's own description has it: ``OriginalImages/PERSON/C00001.jpg`` are caricatures and
    ``P00001.jpg`` photographs; ``FacialPoints/PERSON/C00001.txt`` has 17 lines "x y" in pixels of that picture: top
    of the hairline, left ear, chin, right ear, four corners of the brows, four of the eyes (lines 9 to 12), tip of the
    nose, and four points of the mouth. ``Filenames`` and ``EvaluationProtocols`` belong to other protocols and are not
    read. Checked against two public programs that read the set, not against the set itself.

    The paper finds faces with a detector, extends their boxes by 0.4 and leaves out those under 100 pixels. Here the
    landmarks say where the face is, see `face_box`, and only faces under 32 pixels are left out: the paper also says
    that it took all 6,042 caricatures. Where a picture has no usable landmarks it is taken whole. The notes tell both.

    Args:
        folder: that of the unpacked archive, or OriginalImages itself.
        size: width and height in pixels.

    Raises:
        InputError: no such folder, no photographs, or no caricatures.
    """
    images = _images(folder)
    if images is None:
        raise InputError(f'"{folder}" has no folder {IMAGES}; give the folder that WebCaricature.zip was unpacked to')
    listing = list_image_files(images, recursive=True)
    sides: dict[str, list[FaceFile]] = {"P": [], "C": []}
    stray: list[str] = []
    unplaced: list[str] = []
    small: list[str] = []
    points = images.parent / POINTS
    for row in listing.table.to_pylist():
        locator, version = row["locator"], str(row["size"])
        match = _PICTURE.fullmatch(locator)
        if match is None:
            stray.append(locator)
            continue
        text = _text(points / f"{locator.rpartition('.')[0]}.txt")
        landmarks = None if text is None else read_landmarks(text)
        if text is None or landmarks is None:
            unplaced.append(locator)
            file = FaceFile(locator, version, match["person"])
        else:
            box = face_box(landmarks, size)
            if min(box[2] - box[0], box[3] - box[1]) < MIN_SIDE:
                small.append(locator)
                continue
            digest = f"{version}-{zlib.crc32(text.encode()):08x}"
            file = FaceFile(locator, digest, match["person"], box)
        sides[match["kind"].upper()].append(file)
    if not sides["P"] or not sides["C"]:
        lacking = "photographs (PERSON/P00001.jpg)" if not sides["P"] else "caricatures (PERSON/C00001.jpg)"
        raise InputError(f'"{images}" has no {lacking}; unpack WebCaricature.zip again')
    source = ImageSource("folder", os.path.abspath(images))
    return QueriesAndGallery(
        faces_of_files("WebCaricature, photographs", "webcaricature", source, sides["P"], size),
        faces_of_files("WebCaricature, caricatures", "webcaricature", source, sides["C"], size),
        (*listing.problems, *_notes(stray, unplaced, small, points)),
    )


def read_landmarks(text: str) -> npt.NDArray[np.float64] | None:
    """Return the 17 points of a file of FacialPoints as [17, 2] (x, y); None where it is anything else."""
    try:
        values = np.array(text.replace(",", " ").split(), np.float64)
    except ValueError:
        return None
    if values.size != 2 * LANDMARKS or not np.isfinite(values).all():
        return None
    landmarks = values.reshape(LANDMARKS, 2)
    return landmarks if (np.ptp(landmarks, axis=0) >= 1).all() else None


def face_box(landmarks: npt.NDArray[np.float64], size: tuple[int, int]) -> Box:
    """Return the part of a picture that shows a face as Celeb-A's aligned pictures show theirs.

    "We extend face bounding boxes by a factor of 0.4" (Sec. 5) can mean that a box becomes 1.4 times as wide and high,
    or that each of its sides moves outwards by 0.4, which makes it 1.8 times as large. The latter is taken: a Celeb-A
    picture is about 1.9 times as wide as the face in it, and the networks' fixed crops are made for such pictures.

    The box of all landmarks reaches from ear to ear and from the hairline to the chin. It is enlarged, and then made
    wider or higher to the aspect of the size, so that nothing is stretched. Across it is centred on the face; down it
    is moved, other than in the paper, so that the eyes are as far down as in Celeb-A's pictures.

    What that is worth was measured on 400 of Celeb-A's own pictures, cut again around its mean landmarks (MobileFaceNet
    without training, photographs in photographs): R@1 is 94.7 % uncut, 95.5 % in this box, 78.4 % in the box of
    1.8 times the size about its centre, 61.3 % in that of 1.4 times.

    Args:
        landmarks: [17, 2], x and y in pixels.
        size: width and height in pixels that the box will be scaled to.
    """
    first, last = landmarks.min(axis=0), landmarks.max(axis=0)
    width, height = (last - first) * (1 + 2 * ENLARGED)
    aspect = size[0] / size[1]
    width, height = max(width, height * aspect), max(height, width / aspect)
    left = (first[0] + last[0] - width) / 2
    top = landmarks[_EYE_CORNERS, 1].mean() - EYE_LEVEL * height
    return float(left), float(top), float(left + width), float(top + height)


def _images(folder: Path) -> Path | None:
    if folder.resolve().name.lower() == IMAGES.lower():
        return folder.resolve()
    for place in (folder, unwrapped(folder)):
        for entry in place.iterdir():
            if entry.name.lower() == IMAGES.lower() and entry.is_dir():
                return entry
    return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _notes(stray: list[str], unplaced: list[str], small: list[str], points: Path) -> tuple[str, ...]:
    notes = []
    if stray:
        name = "PERSON/C00001.jpg or PERSON/P00001.jpg"
        notes.append(
            disagreement(
                pa.array(stray),
                f"picture is not named {name} and is left out",
                f"pictures are not named {name} and are left out",
            )
        )
    if unplaced:
        notes.append(
            disagreement(
                pa.array(unplaced),
                f'picture has no usable landmarks in "{points}" and is taken whole',
                f'pictures have no usable landmarks in "{points}" and are taken whole',
            )
        )
    if small:
        notes.append(
            disagreement(
                pa.array(small),
                f"face is under {MIN_SIDE} pixels wide or high and is left out",
                f"faces are under {MIN_SIDE} pixels wide or high and are left out",
            )
        )
    return tuple(notes)
