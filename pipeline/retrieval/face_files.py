"""Faces whose pictures lie as encoded files: a table of what is known, and their pixels when they are asked for."""

import errno
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor

from manifests.errors import InputError
from manifests.image_source import ImageSource
from pipeline.retrieval.face_set import (
    FACE_SET_SCHEMA,
    ID,
    IDENTITY,
    LOCATOR,
    SOURCE_ID,
    VERSION,
    FaceSet,
    Indices,
    PictureError,
)
from stylize.decode import decode_image
from stylize.errors import ImageError
from stylize.fit import cover

Pixels = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels of a picture; it may reach beyond its edges."""

CELEBA_SIZE: Final = (178, 218)
MIN_SIDE: Final = 32
"""Pixels of the shorter side, under which a picture or a box shows no face that could be told from another."""

_READERS = 8


class QueriesAndGallery(NamedTuple):
    """What a reader of a test set finds.

    Attributes:
        queries: the photographs; None where the set has none.
        gallery: the art.
        notes: what was left out or assumed, one sentence each.
    """

    queries: FaceSet | None
    gallery: FaceSet
    notes: tuple[str, ...] = ()


class FaceFile(NamedTuple):
    """One picture of a set.

    Attributes:
        locator: where it is in its source; also its id.
        version: see FACE_SET_SCHEMA.
        identity: who it shows, if that is known.
        box: which part of it is the face with its surroundings; None is all of it.
    """

    locator: str
    version: str
    identity: str | None = None
    box: Box | None = None


def unwrapped(folder: Path) -> Path:
    """Go down through folders that hold one folder and no file: what unpacking an archive often leaves."""
    while True:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith((".", "__MACOSX"))]
        if len(entries) != 1 or not entries[0].is_dir():
            return folder
        folder = entries[0]


def faces_of_files(
    title: str, name: str, source: ImageSource, files: Sequence[FaceFile], size: tuple[int, int]
) -> FaceSet:
    """Return pictures without attributes as a set; each is its own photograph, and its id is its locator.

    Args:
        title: for people.
        name: of the data set. It is part of `source_id`, so that a file that happens to be named like a photograph of
            another data set is not taken for that photograph's own proxy.
        source: of all of them.
        files: at least one.
        size: width and height in pixels.
    """
    locators = [file.locator for file in files]
    columns = {
        ID: locators,
        SOURCE_ID: [f"{name}:{locator}" for locator in locators],
        IDENTITY: [file.identity for file in files],
        LOCATOR: locators,
        VERSION: [file.version for file in files],
    }
    boxes = {index: file.box for index, file in enumerate(files) if file.box is not None}
    return face_set(title, columns, source, size, boxes)


def face_set(
    title: str,
    columns: Mapping[str, Sequence[object] | pa.ChunkedArray],
    source: ImageSource,
    size: tuple[int, int],
    boxes: Mapping[int, Box] | None = None,
) -> FaceSet:
    """Return a set over pictures that are read from a source when they are loaded.

    Args:
        title: for people.
        columns: of FACE_SET_SCHEMA, at least `locator`; those that are missing become null.
        source: where the locators lead.
        size: width and height in pixels.
        boxes: of a picture by its index, see `fit_face`; those without one are taken whole.

    Raises:
        InputError: a size without area.
    """
    if min(size) < 1:
        raise InputError(f"pictures of {size[0]}x{size[1]} have nothing to show; give a width and a height from 1 on")
    count = len(columns[LOCATOR])
    table = pa.table(
        {
            field.name: columns[field.name] if field.name in columns else pa.nulls(count, field.type)
            for field in FACE_SET_SCHEMA
        }
    ).cast(FACE_SET_SCHEMA)
    locators: list[str] = table[LOCATOR].to_pylist()
    placed = boxes or {}

    def load(indices: Indices) -> Tensor:
        return _load(source, [(locators[int(at)], placed.get(int(at))) for at in indices], size)

    return FaceSet(title, table, source, size, load)


def fit_face(encoded: bytes, size: tuple[int, int], box: Box | None = None) -> Pixels:
    """Decode a picture and bring its face to a size.

    Without a box the whole picture is scaled to cover the size, and what is too wide or too high is cut off evenly.
    With one, the box is scaled to the size, whose aspect it should have; where it reaches beyond the picture, the
    outermost pixels are continued, as in Celeb-A's own aligned pictures.

    Args:
        encoded: an image file.
        size: width and height in pixels.
        box: in the picture's pixels.

    Returns:
        uint8 [height, width, 3], RGB.

    Raises:
        ImageError: it cannot be decoded, or the picture (the box, or what of it lies in the picture) has a side of
            under MIN_SIDE pixels.
    """
    pixels = decode_image(encoded)
    height, width = pixels.shape[:2]
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{width}x{height} pixels are too small to show a face (at least {MIN_SIDE} a side)")
    return cover(pixels, *size) if box is None else _cut(pixels, size, box)


def _cut(pixels: Pixels, size: tuple[int, int], box: Box) -> Pixels:
    """Scale what of the box lies in the picture to its part of the result, and continue its edges over the rest."""
    height, width = pixels.shape[:2]
    ends = np.array(box).reshape(2, 2)  # [first, last] x [x, y]
    inside = ends.clip(0, (width, height))
    if (inside[1] - inside[0]).min() < MIN_SIDE:
        shown = ", ".join(f"{value:.0f}" for value in box)
        raise ImageError(
            f"of the face's box ({shown}) too little lies in the {width}x{height} picture (at least {MIN_SIDE} pixels "
            "a side)"
        )
    scale = np.array(size) / (ends[1] - ends[0])
    first, last = np.rint((inside - ends[0]) * scale).astype(int)
    last = np.maximum(last, first + 1)
    part = Image.fromarray(pixels).resize(
        (int(last[0] - first[0]), int(last[1] - first[1])), Image.Resampling.LANCZOS, box=tuple(inside.ravel().tolist())
    )
    rest = np.array(size) - last
    pad = ((first[1], rest[1]), (first[0], rest[0]), (0, 0))
    return np.pad(np.asarray(part), pad, mode="edge")


def _load(source: ImageSource, wanted: Sequence[tuple[str, Box | None]], size: tuple[int, int]) -> Tensor:
    width, height = size
    batch = np.empty((len(wanted), height, width, 3), np.uint8)

    def read(position: int) -> bytes:
        locator = wanted[position][0]
        try:
            return source.read(locator)
        except InputError as error:
            raise PictureError(str(error), str(error)) from error
        except OSError as error:
            message = f'"{locator}" in "{source.root}" cannot be read: {error}'
            if error.errno == errno.EIO:  # the disk or the store, and not this picture
                raise InputError(message) from error
            raise PictureError(message, f"cannot be read: {error.strerror or error}") from error

    def place(position: int, encoded: bytes) -> None:
        locator, box = wanted[position]
        try:
            batch[position] = fit_face(encoded, size, box)
        except ImageError as error:
            raise PictureError(f'"{locator}" in "{source.root}": {error}; replace or remove it', str(error)) from error

    positions = range(len(wanted))
    with ThreadPoolExecutor(min(_READERS, os.cpu_count() or 1)) as pool:
        if source.kind == "parquet":
            # Each thread would decode the row group up to its own rows; one, in order, decodes it once.
            encoded = [read(position) for position in positions]
            list(pool.map(place, positions, encoded))
        else:
            list(pool.map(lambda position: place(position, read(position)), positions))
    return torch.from_numpy(batch).permute(0, 3, 1, 2).contiguous()
