"""Finished proxies beside the photograph and the painting they were made from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests import schema
from manifests.errors import InputError
from manifests.image_source import ImageSource
from manifests.run import RunDirectory
from pipeline.run_inputs import Inputs
from stylize.decode import decode_image
from stylize.errors import ImageError
from stylize.fit import cover

_COLUMNS = (schema.IMAGE_ID, schema.STATUS, schema.PAINTING, schema.LOSS, schema.DATA_FILE, schema.DATA_ROW)


@dataclass(frozen=True)
class Triple:
    """One accepted face.

    Attributes:
        row: its manifest row.
        face, painting, proxy: uint8 [H, W, 3], all of the proxy's size, fitted as the engine fitted them.
    """

    row: Mapping[str, Any]
    face: npt.NDArray[np.uint8]
    painting: npt.NDArray[np.uint8]
    proxy: npt.NDArray[np.uint8]


class NothingAccepted(InputError):  # noqa: N818  # a run may well be right and have no proxy
    """The run has no accepted proxy (yet)."""


def sample_triples(run: RunDirectory, inputs: Inputs, count: int, seed: int = 0) -> list[Triple]:
    """Take a seeded sample of the accepted faces of all committed shards, in the order of the run.

    Args:
        run: finished or not.
        inputs: its catalogues.
        count: at most so many.
        seed: of the choice.

    Raises:
        NothingAccepted: no proxy is accepted (yet).
        InputError: an image or a file of the run cannot be read any more.
    """
    committed = run.committed()
    manifests = [_manifest(run, name.manifest_file) for name in run.planned() if name in committed]
    rows = pa.concat_tables(manifests) if manifests else pa.table({name: [] for name in _COLUMNS})
    accepted = rows.filter(pc.equal(rows[schema.STATUS].cast(pa.string()), schema.ACCEPTED))
    if not accepted.num_rows:
        raise NothingAccepted(f'"{run.url}" has no accepted proxy; stylize status says how far the run is')
    chosen = np.random.default_rng(seed).choice(accepted.num_rows, min(count, accepted.num_rows), replace=False)
    faces = _locators(inputs.faces.table, schema.IMAGE_ID)
    paintings = _locators(inputs.paintings.table, schema.PAINTING)
    triples = []
    for row in accepted.take(pa.array(np.sort(chosen))).to_pylist():
        proxy = _proxy(run, row[schema.DATA_FILE], row[schema.DATA_ROW])
        height, width = proxy.shape[:2]
        face = _read(inputs.faces.source, faces[row[schema.IMAGE_ID]])
        painting = _read(inputs.paintings.source, paintings[row[schema.PAINTING]])
        triples.append(Triple(row, cover(face, width, height), cover(painting, width, height), proxy))
    return triples


def _manifest(run: RunDirectory, file: str) -> pa.Table:
    try:
        with run.parquet(file) as manifest:
            return manifest.read(columns=list(_COLUMNS))
    except (OSError, pa.ArrowException) as error:
        raise InputError(f'"{file}" of "{run.url}" cannot be read; run stylize verify') from error


def _proxy(run: RunDirectory, data_file: str, row: int) -> npt.NDArray[np.uint8]:
    try:
        return decode_image(_proxy_bytes(run, data_file, row))
    except (ImageError, OSError, pa.ArrowException) as error:
        raise InputError(f'row {row} of "{data_file}" in "{run.url}" cannot be read; run stylize verify') from error


def _locators(table: pa.Table, key: str) -> dict[str, str]:
    return dict(zip(table[key].to_pylist(), table["locator"].to_pylist(), strict=True))


def _proxy_bytes(run: RunDirectory, data_file: str, row: int) -> bytes:
    with run.parquet(data_file) as file:
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if row < rows:
                images = file.read_row_group(group, columns=[schema.IMAGE])[schema.IMAGE]
                encoded: bytes = images[row].as_py()[schema.IMAGE_BYTES]
                return encoded
            row -= rows
    raise InputError(f"{data_file} has fewer rows than its manifest says; run stylize verify")


def _read(source: ImageSource, locator: str) -> npt.NDArray[np.uint8]:
    try:
        return decode_image(source.read(locator))
    except (ImageError, OSError) as error:
        raise InputError(f'"{locator}" in "{source.root}" cannot be read any more: {error}') from error
