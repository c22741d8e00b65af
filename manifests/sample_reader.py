"""Rows of a run's data files as samples for PyTorch, which itself only `manifests.loader` knows.

A sample is a dict of the asked columns, in a form that ``torch.utils.data.default_collate`` stacks; `manifests.loader`
says which.
"""

import io
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from manifests import schema
from manifests.attributes import ATTRIBUTES
from manifests.errors import RunError
from manifests.row_groups import RowGroups
from manifests.schema import DATA_SCHEMA, PROXY_FORMATS

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


class SampleReader:
    """Rows of row groups as samples, the last few groups kept as columns of Python and NumPy values.

    Kept are ``cached_groups`` groups, and more as long as all take about ``cached_bytes`` at most.

    ``tensor`` makes what a sample has of an array (``torch.from_numpy``); it may keep the array, which is nobody
    else's. ``transform`` is called with that, or with the encoded bytes where ``decode`` is False.

    ValueError for columns that a sample does not have.
    """

    def __init__(
        self,
        groups: RowGroups,
        columns: Sequence[str] | None,
        decode: bool,
        transform: Transform | None,
        *,
        tensor: Callable[[npt.NDArray[Any]], Any],
        cached_groups: int,
        cached_bytes: int = 0,
    ) -> None:
        self._groups = groups
        self._tensor = tensor
        self._columns = tuple(COLUMNS if columns is None else columns)
        known = {*COLUMNS, *ATTRIBUTES}
        unknown = [name for name in self._columns if name not in known]
        if isinstance(columns, str) or unknown or not self._columns:
            raise ValueError(
                f"columns {columns!r} are not columns of a sample; "
                f"give a list of {', '.join(COLUMNS)} or attribute names"
            )
        self._stored = list(_parquet_columns(self._columns))
        self._decode = decode
        self._transform = transform
        self._cached_groups = cached_groups
        self._cached_bytes = cached_bytes
        self._cache: OrderedDict[int, dict[str, Any]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cache": OrderedDict()}

    def sample(self, group: int, row: int) -> Sample:
        """Return one sample of a row group; RunError for an image that cannot be decoded."""
        values = self._group(group)
        stored = self._groups.stored_row(group, row)
        sample = {name: values[name][stored] for name in self._columns}
        if ATTRIBUTE_VECTOR in sample:
            sample[ATTRIBUTE_VECTOR] = self._tensor(sample[ATTRIBUTE_VECTOR].copy())
        if schema.IMAGE in sample:
            image = sample[schema.IMAGE].as_py()
            if self._decode:
                try:
                    image = self._tensor(decoded(image))
                except Exception as error:  # Pillow's decoders raise many types for damaged files
                    raise RunError(
                        f"{self._groups.url}: {self._groups.place(group, row)}: image cannot be decoded ({error}); "
                        "run `stylize verify`"
                    ) from error
            sample[schema.IMAGE] = image if self._transform is None else self._transform(image)
        return sample

    def _group(self, group: int) -> dict[str, Any]:
        if group not in self._cache:
            values = _values(self._groups.read(group, self._stored), self._columns)
            self._cache[group] = values
            while (
                len(self._cache) > self._cached_groups and sum(map(_bytes, self._cache.values())) > self._cached_bytes
            ):
                self._cache.popitem(last=False)
        self._cache.move_to_end(group)
        return self._cache[group]


def decoded(encoded: bytes) -> npt.NDArray[np.uint8]:
    """Return an encoded picture as uint8 [3, H, W], RGB, in memory of its own; raises what Pillow raises.

    Pillow's pixels, as those that `stylize verify --recompute` judges. (torchvision's decoders, a sixth faster for PNG,
    are deprecated since torchvision 0.29.)
    """
    with Image.open(io.BytesIO(encoded), formats=PROXY_FORMATS) as image:
        pixels = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    return pixels.transpose(2, 0, 1).copy()  # once, from Pillow's rows to planes


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
            column = table[name]
            whole = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()  # which copies
            values[name] = pc.struct_field(whole, schema.IMAGE_BYTES)
        elif name == schema.IDENTITY:
            values[name] = table[name].fill_null(UNKNOWN).to_pylist()
        elif name == schema.LOSS:
            values[name] = table[name].to_pylist()
        else:
            values[name] = table[name].fill_null("").to_pylist()
    return values


def _bits(column: pa.ChunkedArray) -> npt.NDArray[np.int8]:
    bits: npt.NDArray[np.int8] = column.cast(pa.int8()).fill_null(UNKNOWN).to_numpy()
    return bits


def _bytes(values: dict[str, Any]) -> int:
    """Return about what a row group takes in memory: its encoded pictures, and a little for each row's labels."""
    pictures = values[schema.IMAGE].nbytes if schema.IMAGE in values else 0
    return int(pictures) + 1000 * len(next(iter(values.values())))
