"""A gallery on disk: described once, added to when there are new pictures, and opened to be searched."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from manifests.commit import TEMPORARY_NAME
from manifests.errors import InputError, RunError
from manifests.image_source import ImageSource
from pipeline.retrieval.described_faces import DescribedFaces, describe
from pipeline.retrieval.face_set import FACE_SET_SCHEMA, ID, LOCATOR, VERSION, FaceSet, Indices, PictureError
from pipeline.retrieval.index_file import (
    INDEX_FILE,
    IndexDocument,
    PartHeader,
    part_number,
    part_path,
    part_paths,
    read_descriptions,
    read_document,
    read_header,
    write_document,
    write_part,
)
from pipeline.retrieval.retrieval_model import Crop, ModelPlaces, RetrievalModel
from stylize.decode import decode_image
from stylize.errors import ImageError
from stylize.fit import cover

FACES_PER_PART: Final = 4096
"""What an interrupted update loses at most; 32 MB of 2,048-dimensional embeddings."""

_NAMED: Final = 5  # of pictures that were left out
_GREY: Final = 128


@dataclass(frozen=True)
class IndexUpdate:
    """What an update did.

    Attributes:
        added: faces that were described.
        already: faces given that the index had.
        total: faces in the index now.
        skipped: ids and reasons of faces given that cannot be used (not readable, too small) and were left out; the
            next update tries them again.
    """

    added: int
    already: int
    total: int
    skipped: tuple[tuple[str, str], ...] = ()

    def lines(self) -> list[str]:
        """Return what to print."""
        known = ""
        if self.already:
            known = f", {self.already:,} {'was' if self.already == 1 else 'were'} there already"
        lines = [f"{_faces(self.added)} added{known}; {self.total:,} in the index"]
        if self.skipped:
            count = len(self.skipped)
            lines.append(f"{_faces(count)} left out, as {'it' if count == 1 else 'they'} cannot be used:")
            lines += [f"  {name}: {reason}" for name, reason in self.skipped[:_NAMED]]
            lines += [f"  and {count - _NAMED:,} more"] if count > _NAMED else []
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers by name, and of what was left out the first few."""
        first = [{"id": name, "reason": reason} for name, reason in self.skipped[:_NAMED]]
        return {
            "added": self.added,
            "already": self.already,
            "total": self.total,
            "skipped": {"count": len(self.skipped), "first": first},
        }


def _faces(count: int) -> str:
    return f"{count:,} face{'' if count == 1 else 's'}"


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
        return cover(self.picture(item), *self.size)

    def picture(self, item: int) -> npt.NDArray[np.uint8]:
        """Read the picture of an item, as large as it is: uint8 [H, W, 3], RGB; raises as `thumbnail`."""
        at = range(len(self))[item]
        source = self.sources[int(self.source_numbers[at])]
        locator = self.gallery.table[LOCATOR][at].as_py()
        try:
            return decode_image(source.read(locator))
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

    Its files are memory-mapped while they are read, one after the other; descriptions are decoded from them and copied
    into one array, so that opening takes little more memory than the gallery, 4 (D + n) bytes a face and its labels,
    has afterwards. Parts are numbered, so one that is missing is noticed, but for the last ones: an index without them
    is one that was never added to so far, and an update adds their faces again.

    Args:
        index_dir: its folder, local; ``~`` is expanded.

    Raises:
        InputError: there is no index, or it is empty or of a format that is not read here.
        RunError: a file of it is damaged or missing; it is named.
    """
    place = Path(os.path.expanduser(index_dir))
    document = read_document(place)
    paths = _complete(place)
    if not paths:
        raise InputError(f'the index "{place}" is empty; add faces to it with stylize index')
    headers = [read_header(path, document) for path in paths]
    _ids(headers)
    sources = list(dict.fromkeys(header.source for header in headers))
    table = pa.concat_tables([header.rows for header in headers]).combine_chunks()
    embeddings = np.empty((table.num_rows, document.dim), np.float32)
    probabilities = np.empty((table.num_rows, len(document.attributes)), np.float32)
    start = 0
    for header in headers:
        own = slice(start, start + header.rows.num_rows)
        read_descriptions(header, document, embeddings[own], probabilities[own])
        start = own.stop
    gallery = DescribedFaces(table, torch.from_numpy(embeddings), torch.from_numpy(probabilities))
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

    A face that is there is not described again. A picture that cannot be read or is too small is left out. Every few
    thousand faces are written as a part of their own, so that an update that is interrupted goes on where it was. Two
    updates at once do not overwrite each other's parts, and of faces that both add one keeps them.

    Args:
        index_dir: its folder, local, made if need be; ``~`` is expanded.
        faces: at least one; described as art.
        places: of the model, to be recorded; paths may be others than when the index was made.
        model: in evaluation mode.
        batch_size: pictures at a time.
        quiet: no progress bar.

    Raises:
        InputError: the folder holds something else, or lies among the faces; the index was made with another model,
            crop or size of pictures; a face of an id that the index has is another one (version, place, labels); two
            faces have one id; no picture given can be used, or it is not known where one lies.
        RunError: an embedding is not finite, a file of the index is damaged, or the index cannot be written.
    """
    place = Path(os.path.expanduser(index_dir))
    document = IndexDocument.of(places, model, faces.size)
    _check_faces(place, faces)
    if _exists(place):
        known = read_document(place)
        _check_same(place, known, document)
        document = known
    held = _Held(place, document)
    fresh = held.new(faces.table, faces.source)
    added = 0
    skipped: list[tuple[str, str]] = []
    for start in range(0, len(fresh), FACES_PER_PART):
        part, described, unusable = _described(
            model, faces.take(fresh[start : start + FACES_PER_PART]), batch_size=batch_size, quiet=quiet
        )
        skipped += unusable
        if not len(part):
            continue
        if not write_document(place, document):
            _check_same(place, read_document(place), document)  # another update may have made the index meanwhile
        added += _add(held, described, part)
    if len(skipped) == len(faces):
        name, reason = skipped[0]
        raise InputError(
            f"none of the {faces.title} can be used ({name}: {reason}); give pictures that can be read and show a face"
        )
    return IndexUpdate(added, len(faces) - added - len(skipped), len(held), tuple(skipped))


def _described(
    model: RetrievalModel, faces: FaceSet, *, batch_size: int, quiet: bool
) -> tuple[FaceSet, DescribedFaces, list[tuple[str, str]]]:
    """Describe as art what can be used; return that, its descriptions, and ids and reasons of what cannot."""
    reasons: dict[int, str] = {}

    def load(indices: Indices) -> Tensor:
        try:
            return faces.load(indices)
        except PictureError:
            return torch.cat([one(int(at)) for at in indices])

    def one(at: int) -> Tensor:
        try:
            return faces.load([at])
        except PictureError as error:
            reasons[at] = error.reason
            width, height = faces.size
            return torch.full((1, 3, height, width), _GREY, dtype=torch.uint8)  # is described, and not kept

    described = describe(model, replace(faces, load=load), "art", batch_size=batch_size, quiet=quiet)
    if not reasons:
        return faces, described, []
    usable = np.setdiff1d(np.arange(len(faces)), list(reasons))
    names = faces.table[ID]
    unusable = [(names[at].as_py(), reasons[at]) for at in sorted(reasons)]
    return faces.take(usable), described.take(usable), unusable


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
        old, new = known.title, given.title
        if old == new:  # trained twice, say
            old, new = f"{old}, {known.digest[:8]}…", f"{new}, {given.digest[:8]}…"
        raise InputError(
            f'the index "{place}" was made with another model ({old}; this is {new}); give that model, or make another '
            "index"
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
