"""The files of an index: index.json, which says what described its faces, and parts of faces with descriptions.

INDEX/index.json               the model, what it saw of a picture, the attributes
INDEX/items-00000.parquet, …   one file for every few thousand faces; a part is there whole or not at all
INDEX/faiss-….index            what was built of it to search nearly, if that was asked for; see `faiss_file`

A part has the columns of `face_set.FACE_SET_SCHEMA`, then

embedding       f_a: D float32, little-endian, as fixed-size binary (``numpy.frombuffer(value, "<f4")``): read three
                times as fast as a list
probabilities   of the attributes of index.json, in their order: fixed-size list of n float32; only where n > 0
bits            γ of Eq. 8: ``numpy.packbits`` of n bits, five bytes for 40; only where n > 0

and in its footer, under ``stylize.index``, what its faces are, where their pictures lie, and the index that it is of.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from fsspec.implementations.local import LocalFileSystem
from torch import Tensor

from manifests.commit import publish
from manifests.errors import InputError, RunError
from manifests.image_source import ImageSource
from pipeline.retrieval.described_faces import DescribedFaces
from pipeline.retrieval.face_set import FACE_SET_SCHEMA
from pipeline.retrieval.retrieval_model import Crop, ModelPlaces, RetrievalModel
from pipeline.training.attribute_heads import binarise

Floats = npt.NDArray[np.float32]

INDEX_FILE: Final = "index.json"
FORMAT: Final = 1

EMBEDDING: Final = "embedding"
PROBABILITIES: Final = "probabilities"
BITS: Final = "bits"

_KIND: Final = "index"
_KEY: Final = b"stylize.index"
_PART: Final = re.compile(r"items-([0-9]{5,})\.parquet")
_ROW_GROUP: Final = 4096
_FLOAT: Final = np.dtype("<f4")


@dataclass(frozen=True)
class IndexDocument:
    """What an index says of itself.

    Attributes:
        places: of the model, as they were given when the index was made.
        digest, title, attributes, untrained, dim, crop: of the model.
        attribute_crops: what the networks of the attributes of photographs and of art see of a picture; None for one
            that takes the identity network's features, and for a model without attributes.
        size: width and height of the pictures as networks see them.
    """

    places: ModelPlaces
    digest: str
    title: str
    attributes: tuple[str, ...]
    untrained: tuple[str, ...]
    dim: int
    crop: Crop
    attribute_crops: tuple[Crop | None, Crop | None]
    size: tuple[int, int]

    @classmethod
    def of(cls, places: ModelPlaces, model: RetrievalModel, size: tuple[int, int]) -> "IndexDocument":
        """Return what the index of a gallery has to say that this model describes."""
        return cls(
            places=places,
            digest=model.digest,
            title=model.title,
            attributes=model.attributes,
            untrained=model.untrained,
            dim=model.dim,
            crop=_crop(model.crop),
            attribute_crops=attribute_crops(model),
            size=(int(size[0]), int(size[1])),
        )

    @property
    def key(self) -> str:
        """What every part says of its index: hex SHA-256 of all that decides a description."""
        parts = [FORMAT, self.digest, self.attributes, self.dim, self.crop, self.attribute_crops, self.size]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """Return index.json."""
        return {
            "format": FORMAT,
            "kind": _KIND,
            "model": self.places.as_dict(),
            "digest": self.digest,
            "title": self.title,
            "attributes": list(self.attributes),
            "untrained": list(self.untrained),
            "dim": self.dim,
            "crop": list(self.crop),
            "attribute_crops": [None if crop is None else list(crop) for crop in self.attribute_crops],
            "size": list(self.size),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "IndexDocument":
        """Return what `as_dict` was made of; KeyError, TypeError or ValueError for anything else."""
        real, art = (None if crop is None else _crop(crop) for crop in document["attribute_crops"])
        width, height = (int(side) for side in document["size"])
        return cls(
            places=ModelPlaces.from_dict(document["model"]),
            digest=str(document["digest"]),
            title=str(document["title"]),
            attributes=tuple(map(str, document["attributes"])),
            untrained=tuple(map(str, document["untrained"])),
            dim=int(document["dim"]),
            crop=_crop(document["crop"]),
            attribute_crops=(real, art),
            size=(width, height),
        )


@dataclass(frozen=True, eq=False)
class PartHeader:
    """What a part says of its faces without their descriptions.

    Attributes:
        path: of the file.
        rows: FACE_SET_SCHEMA.
        source: where the pictures lie.
        faces: what they are, for people.
    """

    path: Path
    rows: pa.Table
    source: ImageSource
    faces: str


def attribute_crops(model: RetrievalModel) -> tuple[Crop | None, Crop | None]:
    """Return what the attributes' own networks see of photographs and of art; None where there is no such network."""
    branches = (model.real_attributes, model.art_attributes)
    embedders = [None if branch is None else branch.embedder for branch in branches]
    real, art = (None if embedder is None else _crop(embedder.face_input.crop) for embedder in embedders)
    return real, art


def read_document(place: Path) -> IndexDocument:
    """Read index.json.

    Raises:
        InputError: there is none, or it is of another kind or format.
        RunError: it is damaged.
    """
    path = place / INDEX_FILE
    try:
        document = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f'"{place}" is no index, for it has no {INDEX_FILE}; make one with stylize index') from None
    except (OSError, ValueError) as error:
        raise RunError(f'"{path}" cannot be read ({error}); restore it from a copy, or make the index again') from error
    if not isinstance(document, dict) or (document.get("kind"), document.get("format")) != (_KIND, FORMAT):
        raise InputError(f'"{path}" is not that of an index of format {FORMAT}, which is all that is read here')
    try:
        return IndexDocument.from_dict(document)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f'"{path}" is incomplete; restore it from a copy, or make the index again') from error


def write_document(place: Path, document: IndexDocument) -> bool:
    """Write index.json where there is none; return whether there was none. RunError where it cannot be written."""
    text = json.dumps(document.as_dict(), indent=2, ensure_ascii=False) + "\n"
    return _published(place / INDEX_FILE, text.encode())


def part_paths(place: Path) -> list[Path]:
    """Return the parts there are, in the order of their numbers."""
    found = {int(match[1]): place / name for name in os.listdir(place) if (match := _PART.fullmatch(name))}
    return [found[number] for number in sorted(found)]


def part_path(place: Path, number: int) -> Path:
    """Return where the part of a number is."""
    return place / f"items-{number:05d}.parquet"


def part_number(path: Path) -> int:
    """Return the number of a part."""
    match = _PART.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def write_part(path: Path, document: IndexDocument, described: DescribedFaces, source: ImageSource, faces: str) -> bool:
    """Write a part where there is none of this name; return whether there was none. RunError if it cannot be written.

    Args:
        path: of the part.
        document: of the index.
        described: at least one face.
        source: where the pictures lie.
        faces: what they are, for people.
    """
    columns = {name: described.table[name] for name in FACE_SET_SCHEMA.names}
    columns[EMBEDDING] = _binary(described.embeddings.numpy().astype(_FLOAT, copy=False))
    n = described.probabilities.shape[1]
    if n:
        probabilities = pa.array(described.probabilities.numpy().reshape(-1), pa.float32())
        columns[PROBABILITIES] = pa.FixedSizeListArray.from_arrays(probabilities, n)
        columns[BITS] = _binary(_packed(described.probabilities))
    footer = {
        "format": FORMAT,
        "index": document.key,
        "faces": faces,
        "source": {"kind": source.kind, "root": source.root},
    }
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table(columns).replace_schema_metadata({_KEY: json.dumps(footer).encode()}),
        sink,
        row_group_size=_ROW_GROUP,
        # Mantissas do not compress; what is left of a row is its labels, and they do.
        compression={name: "none" if name in {EMBEDDING, PROBABILITIES, BITS} else "zstd" for name in columns},
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
    )
    return _published(path, sink.getvalue().to_pybytes())


def read_header(path: Path, document: IndexDocument) -> PartHeader:
    """Read what a part says of its faces; RunError for one that is damaged or of another index."""
    table, footer = _read(path, document, FACE_SET_SCHEMA.names)
    return _header(path, table, footer)


def read_descriptions(header: PartHeader, document: IndexDocument, embeddings: Floats, probabilities: Floats) -> None:
    """Read the descriptions of a part's R faces into arrays.

    The file is memory-mapped while it is read; Arrow decodes one part at a time out of it (32 MB of 2,048-dimensional
    embeddings), and its values are copied once more, to where they stay.

    Args:
        header: of the part, as `read_header` has it.
        document: of the index.
        embeddings: float32 [R, D], written to.
        probabilities: float32 [R, n], written to.

    Raises:
        RunError: the part is damaged; also if its bits are not those of its probabilities.
    """
    path, n = header.path, len(document.attributes)
    table, _ = _read(path, document, [EMBEDDING, *([PROBABILITIES, BITS] if n else [])])
    try:
        embeddings[:] = _rows(table[EMBEDDING], _FLOAT, document.dim)
        if n:
            values = table[PROBABILITIES].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            probabilities[:] = values.reshape(table.num_rows, n)
            packed = _rows(table[BITS], np.dtype(np.uint8), -(-n // 8))
            if not np.array_equal(packed, _packed(torch.from_numpy(probabilities))):
                raise ValueError("bits that are not those of the probabilities")
    except (ValueError, TypeError, AttributeError, pa.ArrowException) as error:
        raise _damage(path) from error


def _read(path: Path, document: IndexDocument, columns: list[str]) -> tuple[pa.Table, dict[str, Any]]:
    try:
        with pq.ParquetFile(path, memory_map=True, page_checksum_verification=True) as file:
            footer = json.loads((file.schema_arrow.metadata or {}).get(_KEY, b"{}"))
            if not isinstance(footer, dict) or footer.get("index") != document.key:
                raise RunError(f'"{path}" is a part of another index; take it out of the folder')
            table = file.read(columns=columns)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _damage(path) from error
    if table.column_names != columns or not table.num_rows:
        raise _damage(path)
    return table, footer


def _header(path: Path, table: pa.Table, footer: dict[str, Any]) -> PartHeader:
    try:
        source = ImageSource(footer["source"]["kind"], footer["source"]["root"])
        rows = table.select(FACE_SET_SCHEMA.names).replace_schema_metadata(None).cast(FACE_SET_SCHEMA)
        return PartHeader(path, rows, source, str(footer["faces"]))
    except (KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise _damage(path) from error


def _damage(path: Path) -> RunError:
    return RunError(
        f'"{path}" is damaged; restore it from a copy, or delete it and run stylize index again, which describes its '
        "faces anew"
    )


def _published(path: Path, data: bytes) -> bool:
    folder = str(path.parent)
    try:
        publish(LocalFileSystem(), str(path), data, journal=folder, exclusive=True)
    except FileExistsError:
        if path.exists():
            return False
        raise RunError(f'the index cannot be written to "{folder}": there is a file of that name') from None
    except OSError as error:
        raise RunError(f'the index cannot be written to "{folder}": {error.strerror or error}') from error
    return True


def _binary(rows: npt.NDArray[Any]) -> pa.Array:
    """Return rows of numbers as fixed-size binary."""
    rows = np.ascontiguousarray(rows)
    return pa.Array.from_buffers(pa.binary(rows[0].nbytes), len(rows), [None, pa.py_buffer(rows)])


def _rows(column: pa.ChunkedArray, kind: np.dtype[Any], width: int) -> npt.NDArray[Any]:
    """Return rows of numbers from fixed-size binary, without a copy where the column is in one piece."""
    array = column.combine_chunks()
    if array.type != pa.binary(width * kind.itemsize) or array.null_count:
        raise ValueError(f"{array.type} where {width} numbers are expected")
    start = array.offset * width
    return np.frombuffer(array.buffers()[1], kind)[start : start + len(array) * width].reshape(len(array), width)


def _packed(probabilities: Tensor) -> npt.NDArray[np.uint8]:
    """Return γ of Eq. 8, packed: uint8 [R, ⌈n/8⌉]."""
    return np.packbits(binarise(probabilities).numpy(), axis=1)


def _crop(values: Any) -> Crop:
    left, top, right, bottom = (float(value) for value in values)
    return left, top, right, bottom
