"""Torch data sets over the accepted proxies of a run, in a local folder or behind any fsspec URL.

A sample is a dict of the asked columns, in a form that ``torch.utils.data.default_collate`` stacks:

    image        uint8 tensor [3, H, W], RGB, 0–255; with ``decode=False`` the encoded bytes
    attributes   int8 tensor [40] in the order of ``manifests.attributes.ATTRIBUTES``: 1 yes, 0 no, -1 unknown
    identity     int; -1 where the input has none
    loss         float, in loss units
    image_id, source_id, split, painting, artist, style    str; "" where unknown

A single attribute may be asked by its name (``columns=["image", "Smiling"]``): an int 1, 0 or -1. Pictures of unequal
size (a plain folder of faces built without ``--size``) do not stack: pass a ``transform`` that resizes.
"""

import io
import itertools
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
import torch.distributed
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from manifests import schema
from manifests.attributes import ATTRIBUTES
from manifests.errors import RunError
from manifests.partition import Remainder, rank_stretch, stretch_rows, worker_stretch
from manifests.row_groups import RowGroups
from manifests.schema import DATA_SCHEMA

ATTRIBUTE_VECTOR: Final = "attributes"
"""Name under which a sample has its 40 attributes as one tensor."""

COLUMNS: Final = tuple(
    ATTRIBUTE_VECTOR if name == ATTRIBUTES[0] else name for name in DATA_SCHEMA.names if name not in ATTRIBUTES[1:]
)
"""Columns of a sample unless others are asked for."""

UNKNOWN: Final = -1
"""Stands for a null identity or attribute, which ``default_collate`` cannot stack."""

Sample = dict[str, Any]
Transform = Callable[[Any], Any]


class ProxyDataset(Dataset[Sample]):
    """Map-style data set: ``ProxyDataset("OUT", split="train", columns=["image", "identity"])[0]``.

    Order is that of the run (by image_id). ``transform`` is called with the decoded tensor, or with the bytes where
    ``decode`` is False. Works with ``DistributedSampler`` and with worker processes, spawned or forked.

    A row group (100 images at most) is the unit of reading; each process caches ``cached_groups`` of them (encoded),
    and a batch reads each group it needs once. Shuffling with a ``RandomSampler`` nevertheless reads up to one group
    per image: for large sets use ``ProxyStream``, for small ones a cache that holds them.

    Raises InputError for a folder without a run, an unknown split, and an unfinished run unless ``partial``; ValueError
    for an unknown column; RunError, when it is read, for an image that cannot be decoded.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        *,
        split: str = "train",
        columns: Sequence[str] | None = None,
        decode: bool = True,
        transform: Transform | None = None,
        cached_groups: int = 4,
        partial: bool = False,
    ) -> None:
        if cached_groups < 1:
            raise ValueError(f"cached_groups must be at least 1, not {cached_groups}")
        self._groups = RowGroups(url, split, partial=partial)
        self._reader = _SampleReader(self._groups, columns, decode, transform, cached_groups=cached_groups)
        self._ends = np.array(list(itertools.accumulate(self._groups.rows)), np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._ends.size else 0

    def __getitem__(self, index: int) -> Sample:
        """Return one sample; negative indices count from the end; IndexError."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Return a batch of samples in the order asked for, reading each row group once; the DataLoader calls this."""
        places = [self._place(int(index)) for index in indices]
        samples: dict[int, Sample] = {}
        for position in sorted(range(len(places)), key=places.__getitem__):
            samples[position] = self._reader.sample(*places[position])
        return [samples[position] for position in range(len(places))]

    def _place(self, index: int) -> tuple[int, int]:
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        group = int(np.searchsorted(self._ends, position, side="right"))
        return group, position - (int(self._ends[group - 1]) if group else 0)


class ProxyStream(IterableDataset[Sample]):
    """Iterable data set that reads row groups one after the other, shuffled, and split over ranks and workers.

    ``shuffle`` gives every (seed, epoch) an order of its own: row groups of all shards are permuted, cut into windows
    of ``window`` groups, and the images of each window permuted (800 images by default, held encoded in memory by each
    worker). Call ``set_epoch`` before each epoch, as for a ``DistributedSampler``; it reaches persistent workers too.
    The order does not depend on the number of ranks or workers: ranks take consecutive stretches of it, and a rank's
    workers consecutive stretches of those.

    ``remainder`` says what becomes of r = images mod ``world_size``. ``"drop"``: equal counts, every image once at
    most, the last r of the epoch's order left out (others each epoch if shuffled). ``"pad"``: equal counts, every image
    once at least, the first world_size - r of the order once more. ``"uneven"``: every image exactly once, r ranks have
    one more (for evaluation; collectives per step would hang).

    ``rank`` and ``world_size`` default to those of ``torch.distributed`` where that is initialised when iteration
    begins, else to one rank. ``len`` is the number of images of this rank; with several workers each has a last
    incomplete batch of its own, so use ``drop_last`` where the number of batches must be foreseen.

    Further arguments and errors as for ``ProxyDataset``; ValueError also for an impossible rank or ``remainder``.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        *,
        split: str = "train",
        columns: Sequence[str] | None = None,
        decode: bool = True,
        transform: Transform | None = None,
        shuffle: bool = False,
        seed: int = 0,
        window: int = 8,
        rank: int | None = None,
        world_size: int | None = None,
        remainder: Remainder = "drop",
        partial: bool = False,
    ) -> None:
        if (rank is None) != (world_size is None):
            raise ValueError("rank and world_size go together: give both or neither")
        if seed < 0 or window < 1:
            raise ValueError(f"seed must be at least 0 and window at least 1, not {seed} and {window}")
        self._groups = RowGroups(url, split, partial=partial)
        self._window = window if shuffle else 1
        self._reader = _SampleReader(self._groups, columns, decode, transform, cached_groups=self._window)
        self._seed = seed if shuffle else None
        self._rank = None if rank is None or world_size is None else (rank, world_size)
        self._remainder: Remainder = remainder
        # In shared memory, so that workers which outlive an epoch see the next one's number.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self._positions()

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration; ``epoch`` counts from 0."""
        if epoch < 0:
            raise ValueError(f"epoch must be at least 0, not {epoch}")
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self._positions())

    def __iter__(self) -> Iterator[Sample]:
        info = get_worker_info()
        positions = self._positions()
        if info is not None:
            positions = worker_stretch(positions, info.id, info.num_workers)
        epoch = int(self._epoch)
        pieces = stretch_rows(self._groups.rows, positions, seed=self._seed, epoch=epoch, window=self._window)
        for group, row in itertools.chain.from_iterable(pieces):
            yield self._reader.sample(group, row)

    def __getstate__(self) -> dict[str, Any]:
        # A spawned worker has no process group to ask, so it is told here, in its parent.
        return self.__dict__ | {"_rank": self._rank_and_world_size()}

    def _positions(self) -> range:
        return rank_stretch(sum(self._groups.rows), *(self._rank_and_world_size() or (0, 1)), self._remainder)

    def _rank_and_world_size(self) -> tuple[int, int] | None:
        if self._rank is None and torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return self._rank


class _SampleReader:
    """Rows of row groups as samples, the last few groups kept as columns of Python and NumPy values."""

    def __init__(
        self,
        groups: RowGroups,
        columns: Sequence[str] | None,
        decode: bool,
        transform: Transform | None,
        *,
        cached_groups: int,
    ) -> None:
        self._groups = groups
        self._columns = tuple(COLUMNS if columns is None else columns)
        known = {*COLUMNS, *ATTRIBUTES}
        unknown = [name for name in self._columns if name not in known]
        if isinstance(columns, str) or unknown or not self._columns:
            raise ValueError(
                f"columns {columns!r} are not columns of a sample; "
                f"give a list of {', '.join(COLUMNS)} or attribute names"
            )
        self._decode = decode
        self._transform = transform
        self._cached_groups = cached_groups
        self._cache: OrderedDict[int, dict[str, Any]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cache": OrderedDict()}

    def sample(self, group: int, row: int) -> Sample:
        """Return one row of a row group."""
        values = self._group(group)
        sample = {name: values[name][row] for name in self._columns}
        if ATTRIBUTE_VECTOR in sample:
            sample[ATTRIBUTE_VECTOR] = torch.from_numpy(sample[ATTRIBUTE_VECTOR].copy())
        if schema.IMAGE in sample:
            image = sample[schema.IMAGE].as_py()
            if self._decode:
                try:
                    image = _decoded(image)
                except Exception as error:  # Pillow's decoders raise many types for damaged files
                    raise RunError(
                        f"{self._groups.url}: {self._groups.place(group, row)}: image cannot be decoded ({error}); "
                        "run `stylize verify`"
                    ) from error
            sample[schema.IMAGE] = image if self._transform is None else self._transform(image)
        return sample

    def _group(self, group: int) -> dict[str, Any]:
        if group not in self._cache:
            while len(self._cache) >= self._cached_groups:
                self._cache.popitem(last=False)
            self._cache[group] = _values(self._groups.read(group, list(_parquet_columns(self._columns))), self._columns)
        self._cache.move_to_end(group)
        return self._cache[group]


def _parquet_columns(columns: Iterable[str]) -> Iterator[str]:
    for name in columns:
        if name == ATTRIBUTE_VECTOR:
            yield from ATTRIBUTES
        else:
            yield f"{schema.IMAGE}.{schema.IMAGE_BYTES}" if name == schema.IMAGE else name


def _values(table: pa.Table, columns: Iterable[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in columns:
        if name == ATTRIBUTE_VECTOR:
            values[name] = np.stack([_bits(table[attribute]) for attribute in ATTRIBUTES], axis=1)
        elif name in ATTRIBUTES:
            values[name] = _bits(table[name]).tolist()
        elif name == schema.IMAGE:
            # Left in Arrow: a Python bytes object for each image of the group would double the memory.
            values[name] = pc.struct_field(table[name].combine_chunks(), schema.IMAGE_BYTES)
        elif name == schema.IDENTITY:
            values[name] = table[name].fill_null(UNKNOWN).to_pylist()
        elif name == schema.LOSS:
            values[name] = table[name].to_pylist()
        else:
            values[name] = table[name].fill_null("").to_pylist()
    return values


def _bits(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.int8]]:
    bits: np.ndarray[Any, np.dtype[np.int8]] = column.cast(pa.int8()).fill_null(UNKNOWN).to_numpy()
    return bits


def _decoded(encoded: bytes) -> torch.Tensor:
    with Image.open(io.BytesIO(encoded)) as image:
        pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
