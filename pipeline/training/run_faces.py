"""The faces of a built run: accepted proxies with their labels and the photographs they were made from."""

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from fsspec.implementations.local import LocalFileSystem
from torch import Tensor

from manifests import schema
from manifests.attributes import ATTRIBUTES
from manifests.catalogue_digest import catalogue_digest
from manifests.errors import InputError
from manifests.image_source import ImageSource
from manifests.run import RunDirectory, open_filesystem
from manifests.schema import ACCEPTED, MANIFEST_SCHEMA
from pipeline.run_inputs import open_faces
from pipeline.training import ranks
from stylize.batch_size import free_memory
from stylize.decode import decode_image
from stylize.errors import ImageError
from stylize.fit import cover

Indices = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]

UNKNOWN: Final = -1
"""Stands for a null identity or attribute, as in `manifests.loader`."""

_TABLE = (schema.IMAGE_ID, schema.SOURCE_ID, schema.SPLIT, schema.IDENTITY)
_PROXY = (schema.SHA256, schema.WIDTH, schema.HEIGHT, schema.DATA_FILE, schema.DATA_ROW)
_COLUMNS = (*_TABLE, *ATTRIBUTES, *_PROXY)
_READERS = 8  # threads that read manifests (the wait is for storage) and decode pictures (Pillow lets go of the GIL)
_CACHED_BYTES = 4 << 30  # of encoded proxies at most
_CACHED_SHARE = 0.25  # and of the memory that is free, of all processes of torchrun together


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
        self._digests: list[str] = accepted[schema.SHA256].to_pylist()
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
        """Read proxies: uint8 [B, 3, H, W], RGB, in the order asked for; InputError for damage in the run.

        Row groups that are not in memory yet are read whole, each once for all faces of this call. 4 GiB of proxies
        stay in memory as they are stored, or a quarter of what was free when the run was opened, if that is less.
        """
        wanted = [int(index) for index in indices]
        with ThreadPoolExecutor(_threads()) as pool:
            encoded = self._proxies.encoded(wanted, pool)
            return _stacked(lambda at: self._proxies.decoded(wanted[at], encoded[at]), len(wanted), self.size, pool)

    def locators(self, indices: Sequence[int] | Indices) -> list[str]:
        """Return where proxies are, as `manifests.image_source.ImageSource` has it for Parquet; InputError as above."""
        return [self._proxies.locator(int(index)) for index in indices]

    def digests(self, indices: Sequence[int] | Indices) -> list[str]:
        """Return the SHA-256 (hex) of proxies as they are stored."""
        return [self._digests[int(index)] for index in indices]

    def photographs(self, indices: Sequence[int] | Indices) -> Tensor:
        """Read photographs fitted to the proxies' size as the engine fitted them: uint8 [B, 3, H, W], RGB.

        Raises:
            InputError: the photographs are not where they were, are others than the run's, or cannot be decoded.
        """
        with self._lock:
            if self._photographs is None:
                sources = self.table[schema.SOURCE_ID].to_pylist()
                self._photographs = _Photographs(self._run, self._faces, sources, self.size)
            photographs = self._photographs
        wanted = [int(index) for index in indices]
        with ThreadPoolExecutor(_threads()) as pool:
            return _stacked(lambda at: photographs.read(wanted[at]), len(wanted), self.size, pool)

    def refuse_folder_inside(self, folder: str | os.PathLike[str]) -> None:
        """Raise InputError for a local folder inside the run's own, where it would be copied and shared with it."""
        filesystem, root, url = open_filesystem(folder)
        if not (isinstance(filesystem, LocalFileSystem) and isinstance(self._run.fs, LocalFileSystem)):
            return
        inner, outer = os.path.realpath(root), os.path.realpath(self._run.root)
        if inner == outer or inner.startswith(os.path.join(outer, "")):
            raise InputError(
                f'"{url}" lies inside the run "{self.url}" and would be copied and shared with it; train into a folder '
                "outside"
            )


class _Proxies:
    """Stored proxies by index. Threads may share it.

    A row group is read whole, once for all pictures of it that are asked for together, and stays in memory, encoded, as
    long as there is room: with room for all of them no picture is read from storage twice.
    """

    def __init__(self, run: RunDirectory, files: list[str], rows: Indices) -> None:
        self._run = run
        self._files = files
        self._rows = rows
        self._ends: dict[str, Indices] = {}
        self._groups: OrderedDict[tuple[str, int], pa.Array] = OrderedDict()  # the one used last is last
        self._held = 0
        self._room = _cache_bytes()
        self._lock = threading.Lock()  # for the groups and their bytes; nothing is read under it

    def encoded(self, indices: Sequence[int], pool: Executor) -> list[bytes]:
        """Return the files of proxies; those of different data files are read at the same time."""
        wanted: dict[str, set[int]] = {}
        for index in indices:
            wanted.setdefault(self._files[index], set()).add(int(self._rows[index]))
        found = dict(zip(wanted, pool.map(self._of_file, wanted, wanted.values()), strict=True))
        return [found[self._files[index]][int(self._rows[index])] for index in indices]

    def locator(self, index: int) -> str:
        file, row = self._files[index], int(self._rows[index])
        try:
            ends = self._ends_of(file)
        except (OSError, pa.ArrowException) as error:
            raise self._damage(f'"{file}"') from error
        group = int(np.searchsorted(ends, row, side="right"))
        return f"{file}#{group}#{row - int(np.append(0, ends)[group])}"

    def decoded(self, index: int, encoded: bytes) -> Pixels:
        """Decode a proxy; InputError names its place."""
        try:
            return decode_image(encoded)
        except (ImageError, OSError) as error:
            raise self._damage(f'row {self._rows[index]} of "{self._files[index]}"') from error

    def _of_file(self, file: str, rows: set[int]) -> dict[int, bytes]:
        try:
            ends = self._ends_of(file)
            if beyond := [row for row in rows if row >= ends[-1]]:
                raise self._damage(f'row {min(beyond)} of "{file}"')
            groups = {row: int(np.searchsorted(ends, row, side="right")) for row in rows}
            images = self._of_groups(file, set(groups.values()))
        except (OSError, pa.ArrowException) as error:
            raise self._damage(f'"{file}"') from error
        starts = np.append(0, ends)
        return {row: images[group][row - int(starts[group])].as_py() for row, group in groups.items()}

    def _ends_of(self, file: str) -> Indices:
        if file not in self._ends:
            with self._run.parquet(file) as parquet:
                self._ends[file] = _row_group_ends(parquet)
        return self._ends[file]

    def _of_groups(self, file: str, groups: set[int]) -> dict[int, pa.Array]:
        with self._lock:
            images = {group: self._groups[file, group] for group in groups if (file, group) in self._groups}
            for group in images:
                self._groups.move_to_end((file, group))
        missing = groups - images.keys()
        if missing:
            with self._run.parquet(file) as parquet:
                for group in sorted(missing):
                    images[group] = _images(parquet, group)
                    self._keep((file, group), images[group])
        return images

    def _keep(self, place: tuple[str, int], images: pa.Array) -> None:
        with self._lock:
            if place not in self._groups:  # another thread may have read it meanwhile
                self._groups[place] = images
                self._held += images.nbytes
            while len(self._groups) > 1 and self._held > self._room:
                self._held -= self._groups.popitem(last=False)[1].nbytes

    def _damage(self, what: str) -> InputError:
        return InputError(f'{what} in "{self._run.url}" cannot be read; run stylize verify')


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

    def read(self, index: int) -> Pixels:
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


def _cache_bytes() -> int:
    return int(min(_CACHED_BYTES, _CACHED_SHARE * free_memory() / ranks.world_size()))


def _row_group_ends(parquet: pq.ParquetFile) -> Indices:
    metadata = parquet.metadata
    counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    return np.cumsum(counts or [0], dtype=np.int64)


def _images(parquet: pq.ParquetFile, group: int) -> pa.Array:
    table = parquet.read_row_group(group, columns=[f"{schema.IMAGE}.{schema.IMAGE_BYTES}"], use_threads=False)
    return pc.struct_field(table[schema.IMAGE].combine_chunks(), schema.IMAGE_BYTES)


def _threads() -> int:
    return min(_READERS, os.cpu_count() or 1)


def _stacked(read: Callable[[int], Pixels], count: int, size: tuple[int, int], pool: Executor) -> Tensor:
    """Put the pictures at positions 0 … count-1 into one tensor, read in the threads of the pool."""
    width, height = size
    batch = np.empty((count, height, width, 3), np.uint8)

    def place(position: int) -> None:
        picture = read(position)
        if picture.shape != batch.shape[1:]:
            raise InputError(
                f"a picture is {picture.shape[1]}x{picture.shape[0]} where {width}x{height} is recorded; "
                "run stylize verify"
            )
        batch[position] = picture

    list(pool.map(place, range(count)))
    return torch.from_numpy(batch).permute(0, 3, 1, 2).contiguous()
