"""A gallery on disk: described once, added to when there are new pictures, and opened to be searched."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from manifests.commit import TEMPORARY_NAME
from manifests.errors import InputError, RunError
from manifests.image_source import ImageSource
from pipeline.retrieval.described_faces import DescribedFaces, describe
from pipeline.retrieval.face_set import FACE_SET_SCHEMA, ID, LOCATOR, VERSION, FaceSet
from pipeline.retrieval.index_file import (
    INDEX_FILE,
    IndexDocument,
    PartHeader,
    part_number,
    part_path,
    part_paths,
    read_document,
    read_header,
    read_part,
    write_document,
    write_part,
)
from pipeline.retrieval.retrieval_model import Crop, ModelPlaces, RetrievalModel
from stylize.decode import decode_image
from stylize.errors import ImageError
from stylize.fit import cover

FACES_PER_PART: Final = 4096
"""What an interrupted update loses at most; 32 MB of 2,048-dimensional embeddings."""


@dataclass(frozen=True)
class IndexUpdate:
    """What an update did.

    Attributes:
        added: faces that were described.
        already: faces given that the index had.
        total: faces in the index now.
    """

    added: int
    already: int
    total: int

    def lines(self) -> list[str]:
        """Return what to print."""
        known = f", {self.already:,} were there already" if self.already else ""
        return [f"{self.added:,} faces added{known}; {self.total:,} in the index"]

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers by name."""
        return {"added": self.added, "already": self.already, "total": self.total}


@dataclass(frozen=True, eq=False)
class Index:
    """An opened index of G faces, described as art.

    Attributes:
        path: its folder.
        gallery: the faces with their descriptions, in memory, in the order of the parts.
        document: which model described them, and what it saw of them; the properties below are of it.
        contents: what was indexed, for people, one entry for every set of faces.
        sources: where the pictures lie.
        source_numbers: of every face, int64 [G], indices into `sources`.
    """

    path: str
    gallery: DescribedFaces
    document: IndexDocument
    contents: tuple[str, ...]
    sources: Sequence[ImageSource]
    source_numbers: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.gallery)

    @property
    def places(self) -> ModelPlaces:
        """Where the model was."""
        return self.document.places

    @property
    def model_digest(self) -> str:
        """Which model it was."""
        return self.document.digest

    @property
    def title(self) -> str:
        """What the model was, for people."""
        return self.document.title

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names, in the order of the gallery's probabilities."""
        return self.document.attributes

    @property
    def untrained(self) -> tuple[str, ...]:
        """Those of them whose answers mean nothing."""
        return self.document.untrained

    @property
    def dim(self) -> int:
        """D."""
        return self.document.dim

    @property
    def crop(self) -> Crop:
        """What the identity's network saw of a picture."""
        return self.document.crop

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the pictures as networks see them."""
        return self.document.size

    def thumbnail(self, item: int) -> npt.NDArray[np.uint8]:
        """Read the picture of an item, fitted to `size` as the networks saw it: uint8 [H, W, 3], RGB.

        Raises:
            IndexError: there is no such item.
            InputError: the picture is not where it was, or cannot be decoded.
        """
        at = range(len(self))[item]
        source = self.sources[int(self.source_numbers[at])]
        locator = self.gallery.table[LOCATOR][at].as_py()
        try:
            return cover(decode_image(source.read(locator)), *self.size)
        except (ImageError, OSError) as error:
            raise InputError(
                f'the picture "{locator}" in "{source.root}" cannot be read any more ({error}); put it back, or make '
                "the index again"
            ) from error

    def check_model(self, model: RetrievalModel) -> None:
        """Refuse any model but the one that described the gallery; InputError."""
        _check_same(Path(self.path), self.document, IndexDocument.of(self.places, model, self.size))


def open_index(index_dir: str | os.PathLike[str]) -> Index:
    """Read an index into memory.

    Args:
        index_dir: its folder, local.

    Raises:
        InputError: there is no index, or it is empty or of a format that is not read here.
        RunError: a file of it is damaged or missing; it is named.
    """
    place = Path(index_dir)
    document = read_document(place)
    paths = _complete(place)
    if not paths:
        raise InputError(f'the index "{place}" is empty; add faces to it with stylize index')
    parts = [read_part(path, document) for path in paths]
    headers = [header for header, _ in parts]
    _ids(headers)
    sources = list(dict.fromkeys(header.source for header in headers))
    gallery = DescribedFaces(
        pa.concat_tables([header.rows for header in headers]).combine_chunks(),
        torch.cat([described.embeddings for _, described in parts]),
        torch.cat([described.probabilities for _, described in parts]),
    )
    numbers = [np.full(header.rows.num_rows, sources.index(header.source), np.int64) for header in headers]
    contents = tuple(dict.fromkeys(header.faces for header in headers))
    return Index(str(place), gallery, document, contents, sources, np.concatenate(numbers))


def update_index(
    index_dir: str | os.PathLike[str],
    faces: FaceSet,
    places: ModelPlaces,
    model: RetrievalModel,
    *,
    batch_size: int = 64,
    quiet: bool = False,
) -> IndexUpdate:
    """Add the faces that an index does not have yet, by their ids; make the index if there is none.

    A face that is there is not described again. Every few thousand faces are written as a part of their own, so that
    an update that is interrupted goes on where it was. Two updates at once do not overwrite each other's parts, and of
    faces that both add one keeps them.

    Args:
        index_dir: its folder, local, made if need be.
        faces: at least one; described as art.
        places: of the model, to be recorded; paths may be others than when the index was made.
        model: in evaluation mode.
        batch_size: pictures at a time.
        quiet: no progress bar.

    Raises:
        InputError: the folder holds something else, or lies among the faces; the index was made with another model,
            crop or size of pictures; a face of an id that the index has is another one (version, place, labels); two
            faces have one id; a picture cannot be read, or it is not known where it lies.
        RunError: an embedding is not finite, a file of the index is damaged, or the index cannot be written.
    """
    place = Path(index_dir)
    document = IndexDocument.of(places, model, faces.size)
    _check_faces(place, faces)
    if _exists(place):
        known = read_document(place)
        _check_same(place, known, document)
        document = known
    held = _Held(place, document)
    fresh = held.new(faces.table, faces.source)
    added = 0
    for start in range(0, len(fresh), FACES_PER_PART):
        part = faces.take(fresh[start : start + FACES_PER_PART])
        described = describe(model, part, "art", batch_size=batch_size, quiet=quiet)
        if not write_document(place, document):
            _check_same(place, read_document(place), document)  # another update may have made the index meanwhile
        added += _add(held, described, part)
    return IndexUpdate(added, len(faces) - added, len(held))


def _add(held: "_Held", described: DescribedFaces, faces: FaceSet) -> int:
    """Write a part under the lowest free number; return how many faces it has.

    Whoever writes part N has seen all others: had one been added since, it would be N. So no two parts have a face in
    common, and a part that was damaged and deleted is replaced.
    """
    while True:
        rest = described.take(held.new(described.table, faces.source))
        if not len(rest):
            return 0
        written = write_part(held.free, held.document, rest, faces.source, faces.title)
        held.read()
        if written:
            return len(rest)


class _Held:
    """What an index has, without descriptions."""

    def __init__(self, place: Path, document: IndexDocument) -> None:
        self.document = document
        self._place = place
        self._headers: dict[Path, PartHeader] = {}
        self.read()

    def read(self) -> None:
        """Read the parts that have come since, too."""
        paths = part_paths(self._place) if self._place.is_dir() else []
        self._headers = {path: self._headers.get(path) or read_header(path, self.document) for path in paths}
        headers = list(self._headers.values())
        self._rows = pa.concat_tables([FACE_SET_SCHEMA.empty_table(), *(header.rows for header in headers)])
        self._ids = _ids(headers)
        self._sources = list(dict.fromkeys(header.source for header in headers))
        sizes = [header.rows.num_rows for header in headers]
        numbers = [self._sources.index(header.source) for header in headers]
        self._source_numbers = np.repeat(np.array(numbers, np.int64), sizes)

    @property
    def free(self) -> Path:
        """The path of the part with the lowest number that is not taken."""
        taken = {part_number(path) for path in self._headers}
        return part_path(self._place, next(number for number in range(len(taken) + 1) if number not in taken))

    def __len__(self) -> int:
        return self._rows.num_rows  # type: ignore[no-any-return]

    def new(self, rows: pa.Table, source: ImageSource) -> npt.NDArray[np.int64]:
        """Return the indices of the faces that are not here; InputError for one that is here as another face."""
        found = pc.index_in(rows[ID], value_set=self._ids).combine_chunks()
        there = np.flatnonzero(found.is_valid().to_numpy(zero_copy_only=False))
        at = found.drop_null().cast(pa.int64())
        given, known = rows.take(pa.array(there)), self._rows.take(at)
        sources = self._source_numbers[at.to_numpy()]
        for number in np.unique(sources).tolist():
            if self._sources[number] != source:
                first = given[ID][int(np.flatnonzero(sources == number)[0])]
                raise InputError(
                    f'the index "{self._place}" has {first} from "{self._sources[number].root}", and here it is in '
                    f'"{source.root}"; make another index for other pictures of the same names, or for a folder that '
                    "was moved"
                )
        for name in (VERSION, *(name for name in FACE_SET_SCHEMA.names if name not in {ID, VERSION, LOCATOR})):
            same = pc.equal(given[name], known[name])
            both_null = pc.and_(given[name].is_null(), known[name].is_null())
            other = np.flatnonzero(~pc.or_(same.fill_null(False), both_null).to_numpy(zero_copy_only=False))
            if len(other):
                what = "the picture of" if name == VERSION else f"the {name} of"
                raise InputError(
                    f'{what} {given[ID][int(other[0])]} is not what it was when the index "{self._place}" was made; '
                    "make the index again, in another folder"
                )
        fresh: npt.NDArray[np.int64] = np.flatnonzero(found.is_null().to_numpy(zero_copy_only=False))
        return fresh


def _ids(headers: Sequence[PartHeader]) -> pa.Array:
    """Return all ids; RunError for a face that two parts have."""
    arrays = [header.rows[ID].combine_chunks() for header in headers]
    ids = pa.concat_arrays([pa.array([], pa.string()), *arrays])
    if len(ids.unique()) < len(ids):
        counts = pc.value_counts(ids)
        twice = counts.filter(pc.greater(counts.field("counts"), 1))[0]["values"].as_py()
        last = [header.path for header in headers if pc.index(header.rows[ID], twice).as_py() >= 0][-1]
        raise RunError(f'"{last}" has {twice}, which another part has too; delete the file and run stylize index again')
    return ids


def _exists(place: Path) -> bool:
    """Say whether there is an index; InputError for a folder that holds anything else."""
    if (place / INDEX_FILE).exists():
        return True
    if place.exists() and not place.is_dir():
        raise InputError(f'"{place}" is a file; give a folder for the index')
    if place.is_dir() and any(not TEMPORARY_NAME.fullmatch(name) for name in os.listdir(place)):
        raise InputError(f'"{place}" holds other files and no index; give an empty folder, or one that is not there')
    return False


def _complete(place: Path) -> list[Path]:
    """Return all parts; RunError where a number is missing."""
    paths = part_paths(place)
    for number, path in enumerate(paths):
        if part_number(path) != number:
            missing = part_path(place, number)
            raise RunError(
                f'"{missing}" is missing; restore it from a copy, or run stylize index again, which describes its '
                "faces anew"
            )
    return paths


def _check_faces(place: Path, faces: FaceSet) -> None:
    if not len(faces):
        raise InputError(f"there are no {faces.title} to index")
    ids = faces.table[ID]
    counts = pc.value_counts(ids.combine_chunks())
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        raise InputError(f"two of the {faces.title} have the id {twice[0]['values']}; give every face an id of its own")
    for name in (LOCATOR, VERSION):
        empty = pc.index(faces.table[name], "").as_py()
        if empty >= 0:
            raise InputError(f"it is not known where the picture of {ids[empty]} lies; index a folder or a run")
    inner, outer = os.path.realpath(place), os.path.realpath(faces.source.root)
    if inner == outer or inner.startswith(os.path.join(outer, "")):
        raise InputError(f'"{place}" lies in "{faces.source.root}", among the faces; make the index outside')


def _check_same(place: Path, known: IndexDocument, given: IndexDocument) -> None:
    if given.digest != known.digest:
        raise InputError(
            f'the index "{place}" was made with another model ({known.title}; this is {given.title}); give that model, '
            "or make another index"
        )
    if (given.crop, given.attribute_crops) != (known.crop, known.attribute_crops):
        crop = ",".join(f"{side:g}" for side in known.crop)
        raise InputError(
            f'the index "{place}" was made with another model: its networks saw another part of the pictures '
            f"(crop {crop}); give that crop, or make another index"
        )
    if given.size != known.size:
        old, new = (f"{width}x{height}" for width, height in (known.size, given.size))
        raise InputError(
            f'the index "{place}" was made of pictures of {old}, and these are {new}; give that size, or make another '
            "index"
        )
