"""The faces of a built run: accepted proxies with their labels and the photographs they were made from."""

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from manifests import schema
from manifests.attributes import ATTRIBUTES
from manifests.catalogue_digest import catalogue_digest
from manifests.errors import InputError
from manifests.image_source import ImageSource
from manifests.run import RunDirectory
from manifests.schema import ACCEPTED, MANIFEST_SCHEMA
from pipeline.run_inputs import open_faces
from stylize.decode import decode_image
from stylize.errors import ImageError
from stylize.fit import cover

Indices = npt.NDArray[np.int64]

UNKNOWN: Final = -1
"""Stands for a null identity or attribute, as in `manifests.loader`."""

_TABLE = (schema.IMAGE_ID, schema.SOURCE_ID, schema.SPLIT, schema.IDENTITY)
_PROXY = (schema.SHA256, schema.WIDTH, schema.HEIGHT, schema.DATA_FILE, schema.DATA_ROW)
_COLUMNS = (*_TABLE, *ATTRIBUTES, *_PROXY)
_READERS = 8  # threads that read manifests (the wait is for storage) and decode pictures (Pillow lets go of the GIL)
_CACHED_BYTES = 1 << 30


class RunFaces:
    """Every face of a run that has an accepted proxy, in run order (train, valid, test; then by image_id).

    A face is addressed by its index, 0 … N-1, and stands for two pictures: the proxy, as stored, and the photograph,
    read from the catalogue that the run was made from. A photograph whose face has no accepted proxy is not here.

    Attributes:
        url: of the run.
        table: N rows of image_id, source_id, split (strings), identity (int64 or null).
        identities: int64 [N], -1 unknown.
        sources: int64 [N]: equal numbers for equal source_ids, that is for proxies of one photograph.
        attributes: int8 [N, 40] in the order of ``manifests.attributes.ATTRIBUTES``: 1 yes, 0 no, -1 unknown.
        size: width and height in pixels of every proxy.
        fingerprint: hex SHA-256 over the run's fingerprint, all labels and the digests of all stored proxies: equal
            for equal data, wherever it lies.
    """

    def __init__(self, run: RunDirectory, accepted: pa.Table, faces: str | os.PathLike[str] | None) -> None:
        self.url = run.url
        self.table = accepted.select(_TABLE)
        self.identities = _integers(accepted[schema.IDENTITY])
        self.sources = _integers(accepted[schema.SOURCE_ID].combine_chunks().dictionary_encode().indices)
        self.attributes = np.stack([_bits(accepted[name]) for name in ATTRIBUTES], axis=1)
        self.size = _common_size(run.url, accepted)
        content = f"{run.content.get('fingerprint')}:{catalogue_digest(accepted)}"
        self.fingerprint = hashlib.sha256(content.encode()).hexdigest()
        self._splits = np.array(accepted[schema.SPLIT].to_pylist(), dtype=np.str_)
        self._proxies = _Proxies(run, accepted[schema.DATA_FILE].to_pylist(), _integers(accepted[schema.DATA_ROW]))
        self._run = run
        self._faces = faces
        self._photographs: _Photographs | None = None
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls,
        run_url: str | os.PathLike[str],
        *,
        faces: str | os.PathLike[str] | None = None,
        partial: bool = False,
    ) -> "RunFaces":
        """Read the labels of a run's accepted proxies; pictures are read when they are asked for.

        Args:
            run_url: of the run, a folder or any fsspec URL.
            faces: where its photographs are now, if not where run.json says.
            partial: take what is committed of an unfinished run.

        Raises:
            InputError: no run there, an unfinished one without ``partial``, a manifest that cannot be read, no accepted
                proxy, or proxies of unequal size.
        """
        run = RunDirectory.open(run_url)
        planned, committed = run.planned(), run.committed()
        names = [name for name in planned if name in committed]
        if len(names) < len(planned) and not partial:
            raise InputError(
                f'{len(planned) - len(names)} of the {len(planned)} shards of "{run.url}" are not committed yet; '
                "finish the build, or ask for what is there (partial)"
            )
        with ThreadPoolExecutor(_READERS) as pool:
            shards = list(pool.map(lambda name: _accepted(run, name.manifest_file), names))
        accepted = pa.concat_tables(shards) if shards else None
        if accepted is None or not accepted.num_rows:
            raise InputError(f'"{run.url}" has no accepted proxy; stylize status says how far the run is')
        return cls(run, accepted, faces)

    def __len__(self) -> int:
        return self.table.num_rows  # type: ignore[no-any-return]

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have an accepted proxy, in run order."""
        return tuple(dict.fromkeys(self._splits.tolist()))

    def indices(self, split: str) -> Indices:
        """Return the indices of a split's faces, int64, ascending; InputError where the split has none."""
        found: Indices = np.flatnonzero(self._splits == split)
        if not found.size:
            raise InputError(f'"{self.url}" has no accepted proxy in split {split}; it has {", ".join(self.splits)}')
        return found

    def labelled(self, split: str) -> Indices:
        """Return the indices of a split's faces whose identity is known.

        Raises:
            InputError: the split has no face, no identity, or a single one: there is nobody to tell from.
        """
        indices = self.indices(split)
        known: Indices = indices[self.identities[indices] != UNKNOWN]
        if not known.size:
            raise InputError(
                f'split {split} of "{self.url}" has no identities; build it from faces that have them '
                "(Celeb-A: identity_CelebA.txt)"
            )
        if np.unique(self.identities[known]).size < 2:
            raise InputError(
                f'split {split} of "{self.url}" has one identity alone, and people cannot be told apart '
                "with fewer than two; build it from more people"
            )
        return known

    def proxies(self, indices: Sequence[int] | Indices) -> Tensor:
        """Read proxies: uint8 [B, 3, H, W], RGB, in the order asked for; InputError for damage in the run."""
        return _stacked(self._proxies.read, indices, self.size)

    def photographs(self, indices: Sequence[int] | Indices) -> Tensor:
        """Read photographs fitted to the proxies' size as the engine fitted them: uint8 [B, 3, H, W], RGB.

        Raises:
            InputError: the photographs are not where they were, are others than the run's, or cannot be decoded.
        """
        with self._lock:
            if self._photographs is None:
                sources = self.table[schema.SOURCE_ID].to_pylist()
                self._photographs = _Photographs(self._run, self._faces, sources, self.size)
        return _stacked(self._photographs.read, indices, self.size)


class _Proxies:
    """Stored proxies by index; the last row groups stay in memory, encoded. Threads may share it."""

    def __init__(self, run: RunDirectory, files: list[str], rows: Indices) -> None:
        self._run = run
        self._files = files
        self._rows = rows
        self._ends: dict[str, Indices] = {}
        self._groups: OrderedDict[tuple[str, int], pa.Array] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, index: int) -> npt.NDArray[np.uint8]:
        file, row = self._files[index], int(self._rows[index])
        try:
            return decode_image(self._encoded(file, row))
        except (ImageError, OSError, pa.ArrowException, IndexError) as error:
            raise InputError(
                f'row {row} of "{file}" in "{self._run.url}" cannot be read; run stylize verify'
            ) from error

    def _encoded(self, file: str, row: int) -> bytes:
        with self._lock:
            if file not in self._ends:
                with self._run.parquet(file) as parquet:
                    metadata = parquet.metadata
                    counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
                self._ends[file] = np.cumsum(counts, dtype=np.int64)
            ends = self._ends[file]
            group = int(np.searchsorted(ends, row, side="right"))
            if group == ends.size:
                raise IndexError(row)
            images = self._group(file, group)
        encoded: bytes = images[row - (int(ends[group - 1]) if group else 0)].as_py()
        return encoded

    def _group(self, file: str, group: int) -> pa.Array:
        if (file, group) not in self._groups:
            with self._run.parquet(file) as parquet:
                table = parquet.read_row_group(group, columns=[f"{schema.IMAGE}.{schema.IMAGE_BYTES}"])
            self._groups[file, group] = pc.struct_field(table[schema.IMAGE].combine_chunks(), schema.IMAGE_BYTES)
            while len(self._groups) > 1 and sum(held.nbytes for held in self._groups.values()) > _CACHED_BYTES:
                self._groups.popitem(last=False)
        self._groups.move_to_end((file, group))
        return self._groups[file, group]


class _Photographs:
    """Photographs by index, from the catalogue that the run was made from."""

    def __init__(
        self,
        run: RunDirectory,
        faces: str | os.PathLike[str] | None,
        sources: list[str],
        size: tuple[int, int],
    ) -> None:
        catalogue = open_faces(run, faces)
        ids, locators = (catalogue.table[name].to_pylist() for name in (schema.IMAGE_ID, "locator"))
        located = dict(zip(ids, locators, strict=True))
        if missing := [source for source in sources if source not in located]:
            raise InputError(f'the faces of "{run.url}" lack {missing[0]} (and {len(missing) - 1} others) of the run')
        self._source: ImageSource = catalogue.source
        self._locators = [located[source] for source in sources]
        self._size = size

    def read(self, index: int) -> npt.NDArray[np.uint8]:
        locator = self._locators[index]
        try:
            return cover(decode_image(self._source.read(locator)), *self._size)
        except (ImageError, OSError) as error:
            raise InputError(f'"{locator}" in "{self._source.root}" cannot be read any more: {error}') from error


def _accepted(run: RunDirectory, file: str) -> pa.Table:
    try:
        with run.parquet(file) as manifest:
            rows = manifest.read(columns=[*_COLUMNS, schema.STATUS], use_threads=False)
    except (OSError, pa.ArrowException, KeyError) as error:
        raise InputError(f'"{file}" of "{run.url}" cannot be read; run stylize verify') from error
    accepted = rows.filter(pc.equal(rows[schema.STATUS].cast(pa.string()), ACCEPTED))
    return accepted.select(_COLUMNS).cast(pa.schema([MANIFEST_SCHEMA.field(name) for name in _COLUMNS]))


def _common_size(url: str, accepted: pa.Table) -> tuple[int, int]:
    sizes = sorted(set(zip(*(accepted[side].to_pylist() for side in (schema.WIDTH, schema.HEIGHT)), strict=True)))
    if len(sizes) > 1:
        shown = ", ".join(f"{width}x{height}" for width, height in sizes[:3])
        raise InputError(
            f'"{url}" has proxies of {len(sizes)} sizes ({shown}, …), and networks want one; build it with --size'
        )
    ((width, height),) = sizes
    return width, height


def _integers(column: Any) -> Indices:
    values: Indices = column.cast(pa.int64()).fill_null(UNKNOWN).to_numpy().copy()  # Arrow's memory is read-only
    return values


def _bits(column: pa.ChunkedArray) -> npt.NDArray[np.int8]:
    bits: npt.NDArray[np.int8] = column.cast(pa.int8()).fill_null(UNKNOWN).to_numpy()
    return bits


def _stacked(read: Callable[[int], npt.NDArray[np.uint8]], indices: Iterable[int], size: tuple[int, int]) -> Tensor:
    width, height = size
    wanted = [int(index) for index in indices]
    batch = np.empty((len(wanted), height, width, 3), np.uint8)

    def place(position: int) -> None:
        picture = read(wanted[position])
        if picture.shape != batch.shape[1:]:
            raise InputError(
                f"a picture is {picture.shape[1]}x{picture.shape[0]} where {width}x{height} is recorded; "
                "run stylize verify"
            )
        batch[position] = picture

    with ThreadPoolExecutor(min(_READERS, os.cpu_count() or 1)) as pool:
        list(pool.map(place, range(len(wanted))))
    return torch.from_numpy(batch).permute(0, 3, 1, 2).contiguous()
