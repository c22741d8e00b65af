"""Extract the faces of a collection: what `stylize faces` does."""

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from manifests.errors import InputError, RunError
from manifests.paintings import PaintingCatalogue, read_paintings
from pipeline.faces.crop_name import face_id
from pipeline.faces.detector import Detector, Pixels
from pipeline.faces.extraction_folder import ExtractionFolder
from pipeline.faces.face_box import ENLARGE, MINIMUM, FaceBox, head_box
from pipeline.faces.face_catalogue import FACE_SCHEMA, PICTURE_SCHEMA, crop_path
from pipeline.faces.open_detector import AUTO, open_detector
from pipeline.faces.review_sheet import write_review_sheet
from pipeline.faces.strikes import Strikes, read_strikes
from pipeline.training.device import training_device
from stylize.decode import decode_image
from stylize.encode import IMAGE_FORMATS, encode_image
from stylize.errors import ImageError
from stylize.prefetch import prefetch

PICTURES_PER_PART: Final = 32
"""What a killed extraction does again, at most."""

_NAMED: Final = 5  # of pictures that could not be used
_LABELS: Final = ("title", "artist", "style", "genre")


@dataclass(frozen=True)
class FacesSummary:
    """An extraction, as it now stands.

    Attributes:
        out: its folder.
        crops: the folder in it that `stylize index` reads.
        detector: that found the faces.
        looked: pictures that were looked at this time; those of earlier calls were left as they are.
        pictures: pictures that were ever looked at.
        with_faces: of them, those of which at least one face was kept.
        faces: faces in the catalogue that are not struck.
        struck: faces that somebody struck.
        small: faces that were found and left out, as their shorter edge was under the minimum.
        minimum: pixels that it had to have.
        unusable: pictures that could not be read or decoded, and why; the next call tries them again.
        problems: what was odd about the collection, one sentence each.
    """

    out: str
    crops: str
    detector: str
    looked: int
    pictures: int
    with_faces: int
    faces: int
    struck: int
    small: int
    minimum: int
    unusable: tuple[tuple[str, str], ...] = ()
    problems: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return what to print."""
        earlier = self.pictures - self.looked
        known = f" ({earlier:,} of them by an earlier call)" if earlier else ""
        struck = f", {self.struck:,} struck" if self.struck else ""
        small = f"; {self.small:,} under {self.minimum} pixels left out" if self.small else ""
        lines = [
            f"{_count(self.pictures, 'picture')} looked at{known} by {self.detector}, {self.with_faces:,} with faces",
            f"{_count(self.faces, 'face')}{struck}{small}",
        ]
        if self.unusable:
            lines.append(f"{_count(len(self.unusable), 'picture')} left out, as they cannot be used:")
            lines += [f"  {name}: {reason}" for name, reason in self.unusable[:_NAMED]]
            lines += [f"  and {len(self.unusable) - _NAMED:,} more"] if len(self.unusable) > _NAMED else []
        lines += self.problems
        if self.faces or self.struck:
            lines.append(f"look at them in {os.path.join(self.out, 'review.html')}; index them from {self.crops}")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it; of what could not be used the first few."""
        first = [{"painting": name, "reason": reason} for name, reason in self.unusable[:_NAMED]]
        return {
            name: getattr(self, name)
            for name in ("out", "crops", "detector", "looked", "pictures", "with_faces", "faces", "struck", "small")
        } | {
            "minimum": self.minimum,
            "unusable": {"count": len(self.unusable), "first": first},
            "problems": list(self.problems),
        }


def extract_faces(
    place: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    detector: str = AUTO,
    weights: str | os.PathLike[str] | None = None,
    enlarge: float = ENLARGE,
    minimum: int = MINIMUM,
    confidence: float | None = None,
    image_format: str = "png",
    csv: str | os.PathLike[str] | None = None,
    strike: str | os.PathLike[str] | None = None,
    unstrike: str | os.PathLike[str] | None = None,
    device: str | None = None,
    quiet: bool = False,
    notify: Callable[[str], None] = lambda sentence: None,
) -> FacesSummary:
    """Find the faces of a collection, cut them out with the head around them, and catalogue them.

    Cornia et al. (TOMM 2022), Sec. 5: boxes of a face detector, of which those with a shorter edge of at least 100
    pixels are kept and enlarged by 0.4 (`FaceBox.shorter_edge`, `head_box`); then, by hand, false positives are removed
    (Sec. 4). OUT holds what `extraction_folder` says; ``OUT/faces`` is for `stylize index`, `stylize evaluate`
    and `stylize search`, and review.html for the hand.

    The same call goes on where an earlier one stopped: pictures that are done are not looked at again, strikes stay,
    pictures that are new in the collection are added. One picture at a time is in memory, and the next one.

    Args:
        place: paintings or photographs, as `manifests.paintings.read_paintings` takes them: a folder, .zip, Parquet
            copy, or a URL of one.
        out: local folder, new or of an extraction with the same settings.
        detector, weights, confidence: see `open_detector`.
        enlarge: by how much of its edge each side of a box moves outwards, 0 to 4.
        minimum: pixels of a box's shorter edge, before it is enlarged, under which it is left out.
        image_format: of the crops, one of `stylize.encode.IMAGE_FORMATS`.
        csv: labels of the paintings, as `read_paintings` takes them.
        strike: list of faces to strike, see `strike_faces`.
        unstrike: list of faces whose strike is taken back.
        device: where the detector runs, as for `training_device`.
        quiet: no progress bar.
        notify: called with what is being done.

    Raises:
        InputError: a setting out of its range, no usable input, weights that are missing or wrong, an OUT that holds
            something else or an extraction with other settings, or a list that names a face that is not there.
        RunError: OUT cannot be written or is damaged, or the store of the pictures does not answer. Single pictures
            that cannot be used are no failure (`FacesSummary.unusable`).
    """
    if not 0 <= enlarge <= 4:
        raise InputError(f"boxes are not enlarged by {enlarge:g}; give 0 to 4, such as the paper's 0.4")
    if minimum < 0:
        raise InputError(f"no box has an edge of {minimum} pixels; give a minimum from 0 on")
    if image_format not in IMAGE_FORMATS:
        raise InputError(f'crops are not written as "{image_format}"; give one of {", ".join(IMAGE_FORMATS)}')
    changes = read_strikes(strike, unstrike)
    folder = ExtractionFolder.at(out)
    opened = open_detector(detector, weights, confidence=confidence, device=training_device(device))
    catalogue = read_paintings(place, csv=csv)
    _check_apart(folder.place, place)
    folder.begin(
        {
            "source": catalogue.source.root,
            "detector": opened.name,
            "weights": opened.weights,
            "confidence": opened.confidence,
            "long_sides": list(opened.long_sides),
            "enlarge": enlarge,
            "minimum": minimum,
            "image_format": image_format,
        }
    )
    extraction = _Extraction(folder, catalogue, opened, enlarge=enlarge, minimum=minimum, image_format=image_format)
    with folder.locked():
        pending = extraction.pending()
        notify(f"{_count(catalogue.table.num_rows, 'picture')}, {len(pending):,} of them to look at by {opened.name}")
        extraction.run(pending, quiet=quiet)
        _finish(folder, changes)
        return _summary(folder, len(pending), catalogue.problems)


def strike_faces(
    out: str | os.PathLike[str],
    ids: str | os.PathLike[str] | None = None,
    *,
    unstrike: str | os.PathLike[str] | None = None,
) -> FacesSummary:
    """Strike false positives, or take strikes back, without the pictures that the faces are from.

    A struck face stays in the catalogue, with its reason; its crop moves from ``OUT/faces`` to ``OUT/struck``, where
    `stylize index` does not see it. Indices that were made before still have it: they are made anew.

    Args:
        out: folder of the extraction.
        ids: text file of faces to strike, as review.html writes it: a line each, the face's id, or its id, a tab and a
            reason; ``#`` begins a comment.
        unstrike: the same, of faces that are none to be struck after all.

    Raises:
        InputError: no extraction there, no list, or a list that names a face that is not there, or one face twice over.
        RunError: the extraction is damaged or cannot be written.
    """
    changes = read_strikes(ids, unstrike)
    folder = ExtractionFolder.existing(out)
    with folder.locked():
        _finish(folder, changes)
        return _summary(folder, 0, ())


def _finish(folder: ExtractionFolder, changes: Strikes) -> None:
    strikes = folder.strikes()
    changed = changes.applied(strikes, set(folder.faces()["face"].to_pylist()))
    if changed != strikes:
        folder.write_strikes(changed)
    write_review_sheet(folder, folder.commit())


def _summary(folder: ExtractionFolder, looked: int, problems: Sequence[str]) -> FacesSummary:
    settings = folder.settings()
    pictures = folder.pictures()
    struck = len(folder.strikes())
    errors = zip(pictures["painting"].to_pylist(), pictures["error"].to_pylist(), strict=True)
    kept = np.asarray(pictures["faces"].to_pylist(), np.int64)
    return FacesSummary(
        str(folder.place),
        str(folder.crops),
        str(settings["detector"]),
        looked,
        pictures.num_rows,
        int((kept > 0).sum()),
        int(kept.sum()) - struck,
        struck,
        sum(pictures["small"].to_pylist()),
        int(settings["minimum"]),
        tuple((name, error) for name, error in errors if error is not None),
        tuple(problems),
    )


def _check_apart(out: Path, place: str | os.PathLike[str]) -> None:
    """Refuse to write crops where the next call would find them as pictures."""
    if os.path.isdir(place):
        root = Path(place).resolve()
        if root in (out.resolve(), *out.resolve().parents):
            raise InputError(
                f'"{out}" lies in the collection "{os.fspath(place)}", which its crops would become part of; give a '
                "folder outside"
            )


@dataclass
class _Rows:
    """What is done and not yet in the journal."""

    faces: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[dict[str, Any]] = field(default_factory=list)


class _Extraction:
    """Pictures become crops and rows."""

    def __init__(
        self,
        folder: ExtractionFolder,
        catalogue: PaintingCatalogue,
        detector: Detector,
        *,
        enlarge: float,
        minimum: int,
        image_format: str,
    ) -> None:
        self._folder = folder
        self._source = catalogue.source
        self._table = catalogue.table
        self._detector = detector
        self._enlarge = enlarge
        self._minimum = minimum
        self._format = image_format
        self._rows = _Rows()

    def pending(self) -> list[dict[str, Any]]:
        """Return the pictures that are not done, in the order in which they are stored.

        Raises:
            InputError: one that is done is another one now.
        """
        known = self._folder.pictures()
        done = {
            name: size
            for name, size, error in zip(
                *(known[name].to_pylist() for name in ("painting", "size", "error")), strict=True
            )
            if error is None
        }
        pending = []
        for row in self._table.to_pylist():
            size = done.get(row["painting"])
            if size is None:
                pending.append(row)
            elif row["size"] not in {size, -1}:
                raise InputError(
                    f'"{row["painting"]}" in "{self._source.root}" has changed since its faces were extracted '
                    f"({size:,} bytes then, {row['size']:,} now); extract the faces into a new folder"
                )
        return sorted(pending, key=self._storage_order)

    def run(self, pending: Sequence[Mapping[str, Any]], *, quiet: bool) -> None:
        """Look at pictures; what is done is in the journal even if it is interrupted."""
        pictures = prefetch(pending, self._load, depth=1)
        try:
            for row, picture in tqdm(pictures, total=len(pending), unit=" pictures", disable=quiet or not pending):
                self._look(row, picture)
                if len(self._rows.pictures) >= PICTURES_PER_PART:
                    self._flush()
        finally:
            pictures.close()
            self._flush()

    def _storage_order(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        """Order Parquet by file, row group and row: any other reads row groups again and again."""
        if self._source.kind != "parquet":
            return (row["painting"],)
        file, group, at = row["locator"].rsplit("#", 2)
        return file, int(group), int(at)

    def _load(self, row: Mapping[str, Any]) -> Pixels | str:
        """Return a picture, or why it cannot be used."""
        try:
            return decode_image(self._source.read(row["locator"]))
        except (InputError, ImageError) as error:
            return str(error)
        except OSError as error:
            if error.errno == errno.EIO:  # the disk or the store, and not this picture
                raise RunError(f'"{self._source.root}" cannot be read: {error.strerror or error}') from error
            return f"cannot be read: {error.strerror or error}"

    def _look(self, row: Mapping[str, Any], picture: Pixels | str) -> None:
        kept = small = 0
        error = None
        if isinstance(picture, str):
            error = picture
        else:
            found = self._detector.detect(picture)
            large = [face for face in found if face.shorter_edge >= self._minimum]
            small = len(found) - len(large)
            # From left to right: numbers that a person can find again in the painting.
            for face in sorted(large, key=lambda face: (face.left + face.right, face.top)):
                kept += self._keep(row, picture, face, kept + 1)
        self._rows.pictures.append(
            {"painting": row["painting"], "size": row["size"], "faces": kept, "small": small, "error": error}
        )

    def _keep(self, row: Mapping[str, Any], picture: Pixels, face: FaceBox, number: int) -> bool:
        height, width = picture.shape[:2]
        box = head_box(face, (width, height), self._enlarge)
        if box is None:
            return False
        name = face_id(row["painting"], number, self._format)
        crop = np.ascontiguousarray(picture[box.top : box.bottom, box.left : box.right])
        self._folder.write_crop(name, encode_image(crop, self._format))
        self._rows.faces.append(
            {label: row[label] for label in _LABELS}
            | {
                "face": name,
                "crop": crop_path(name, struck=False),
                "painting": row["painting"],
                "source": self._source.root,
                "locator": row["locator"],
                "picture_width": width,
                "picture_height": height,
                "x": face.left,
                "y": face.top,
                "width": face.width,
                "height": face.height,
                "crop_x": box.left,
                "crop_y": box.top,
                "crop_width": box.right - box.left,
                "crop_height": box.bottom - box.top,
                "score": face.score,
                "detector": self._detector.name,
                "landmarks": face.landmarks and [value for point in face.landmarks for value in point],
                "struck": False,
                "reason": None,
            }
        )
        return True

    def _flush(self) -> None:
        rows, self._rows = self._rows, _Rows()
        if rows.pictures:
            self._folder.journal(
                pa.Table.from_pylist(rows.faces, FACE_SCHEMA),
                pa.Table.from_pylist(rows.pictures, PICTURE_SCHEMA),
            )


def _count(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
