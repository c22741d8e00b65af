"""The row groups of the accepted proxies of a run's splits, read one at a time and opened lazily per process."""

import bisect
import hashlib
import itertools
import json
import os
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from manifests import schema
from manifests.errors import InputError, RunError
from manifests.run import RunDirectory
from manifests.schema import DATA_SCHEMA

Filters = Sequence[tuple[str, str, Any]] | Sequence[Sequence[tuple[str, str, Any]]]
"""Conditions (column, operator, value) as `pyarrow.parquet.read_table` takes them: a list means *and*, a list of lists
*or* of *and*. Operators: = == != < <= > >= in, not in."""

_OPEN_FILES: Final = 64
_FOOTER_READERS: Final = 16  # threads; the wait is for storage
_VERSION_KEYS: Final = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")


@dataclass(frozen=True)
class _File:
    """A data file as it was when the row groups were counted.

    ``selected`` are the rows that pass the filters, by row group; None without filters.
    """

    name: str
    version: str
    rows: tuple[int, ...]
    selected: tuple[npt.NDArray[np.int32], ...] | None

    @property
    def counts(self) -> tuple[int, ...]:
        return self.rows if self.selected is None else tuple(map(len, self.selected))


class RowGroups:
    """Row groups of one or several splits in file order, numbered through all their shards.

    Picklable: a copy carries row counts and addresses, and every process (spawned or forked) opens files of its own.
    What is counted holds for the files as they are now: a shard that `stylize redraw` or a rebuild replaces later is
    noticed when it is opened.

    Raises InputError for a split that the run does not have, and for an unfinished run unless ``partial`` (the shards
    committed now are then all there is); ValueError for filters that make no sense.

    Attributes:
        url: of the run.
        rows: number of samples of every row group, filters applied.
        digest: equal for the same shards with the same samples chosen from every row group, whatever their content.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        split: str | Sequence[str],
        *,
        partial: bool = False,
        filters: Filters | None = None,
    ) -> None:
        condition = None if filters is None else _Condition.parse(filters)
        run = RunDirectory.open(url)
        self.url = run.url
        planned = run.planned()
        splits = (split,) if isinstance(split, str) else tuple(split)
        known = tuple(dict.fromkeys(name.split for name in planned))
        for name in splits:
            if name not in known:
                raise InputError(f"{self.url} has no split '{name}'; its splits: {', '.join(known) or 'none'}")
        names = [name for name in planned if name.split in splits]
        committed = run.committed()
        missing = len([name for name in names if name not in committed])
        if missing and not partial:
            raise InputError(
                f"{missing} of the {len(names)} shards of split '{', '.join(splits)}' in {self.url} are not committed "
                "yet; finish the build, or pass partial=True to load what is there"
            )
        data_files = [name.data_file for name in names if name in committed]
        with ThreadPoolExecutor(_FOOTER_READERS) as pool:
            self._files = list(pool.map(lambda file: _counted(run, file, condition), data_files))
        counts = [file.counts for file in self._files]
        self.rows: tuple[int, ...] = tuple(itertools.chain.from_iterable(counts))
        self.digest = _digest(self._files)
        self._first_group = [0, *itertools.accumulate(map(len, counts))]
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pid": None, "_run": None, "_open": OrderedDict()}

    def _forget(self) -> None:
        self._pid: int | None = None
        self._run: RunDirectory | None = None
        self._open: OrderedDict[str, pq.ParquetFile] = OrderedDict()

    def read(self, group: int, columns: Sequence[str]) -> pa.Table:
        """Return the columns (``image.bytes`` for one field of a struct) of a row group, rows not filtered.

        Raises OSError, ArrowException, and RunError for a file that is not the one whose rows were counted.
        """
        file, number = self._locate(group)
        # One thread: loader workers are the parallelism, and a forked child has lost its parent's threads.
        return self._opened(file).read_row_group(number, columns=list(columns), use_threads=False)

    def stored_row(self, group: int, row: int) -> int:
        """Return the row in what `read` returns of the ``row``-th sample of a row group."""
        file, number = self._locate(group)
        return row if file.selected is None else int(file.selected[number][row])

    def place(self, group: int, row: int) -> str:
        """Return where a sample is, for messages: the data file and the row in it."""
        file, number = self._locate(group)
        return f"{file.name}, row {sum(file.rows[:number]) + self.stored_row(group, row)}"

    def _locate(self, group: int) -> tuple[_File, int]:
        file = bisect.bisect_right(self._first_group, group) - 1
        return self._files[file], group - self._first_group[file]

    def _opened(self, file: _File) -> pq.ParquetFile:
        if self._pid != os.getpid():
            # Handles of a parent share their file offset, and remote file systems refuse to work after a fork.
            self._forget()
            self._pid = os.getpid()
        if self._run is None:
            self._run = RunDirectory.open(self.url)
        if file.name not in self._open:
            if _version(self._run, file.name) != file.version:
                raise RunError(
                    f"{self.url}: {file.name} has been replaced since the loader was made (stylize redraw, "
                    "or a rebuild); make the loader anew"
                )
            self._open[file.name] = self._run.parquet(file.name)
            if len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)[1].close(force=True)
        self._open.move_to_end(file.name)
        return self._open[file.name]


@dataclass(frozen=True)
class _Condition:
    """Filters, and the columns that they look at."""

    expression: Any
    columns: tuple[str, ...]

    @classmethod
    def parse(cls, filters: Filters) -> "_Condition":
        filterable = [name for name in DATA_SCHEMA.names if name != schema.IMAGE]
        try:
            either: Sequence[Any] = [filters] if isinstance(filters[0][0], str) else filters
            columns = tuple(dict.fromkeys(column for every in either for column, _, _ in every))
            expression = pq.filters_to_expression([list(map(tuple, every)) for every in either])
        except (TypeError, ValueError, IndexError, KeyError, pa.ArrowException) as error:
            raise ValueError(
                f'filters are {filters!r}; give a list of (column, operator, value), such as [("loss", "<", 30)]'
            ) from error
        unknown = [column for column in columns if column not in filterable]
        if unknown:
            raise ValueError(f"filters name {unknown[0]!r}, which is no column; columns: {', '.join(filterable)}")
        # Refuses a comparison of a text column with a number here, with one sentence, and not in every file.
        try:
            DATA_SCHEMA.empty_table().filter(expression)
        except pa.ArrowException as error:
            raise ValueError(f"filters {filters!r} do not fit the columns' types ({error})") from error
        return cls(expression, columns)

    def rows(self, table: pa.Table) -> npt.NDArray[np.int32]:
        """Return which rows pass; a comparison with null does not."""
        numbered = table.append_column("row number", pa.array(np.arange(table.num_rows, dtype=np.int32)))
        rows: npt.NDArray[np.int32] = numbered.filter(self.expression)["row number"].to_numpy()
        return rows


def _counted(run: RunDirectory, file: str, condition: _Condition | None) -> _File:
    version = _version(run, file)
    with run.parquet(file) as parquet:
        groups = range(parquet.num_row_groups)
        rows = tuple(parquet.metadata.row_group(group).num_rows for group in groups)
        if condition is None:
            return _File(file, version, rows, None)
        read = (parquet.read_row_group(group, columns=list(condition.columns), use_threads=False) for group in groups)
        return _File(file, version, rows, tuple(map(condition.rows, read)))


def _version(run: RunDirectory, file: str) -> str:
    """Return what changes when a file is replaced: its size, and the entity tag or time that the storage keeps."""
    info = run.fs.info(run.path(file))
    kept = next((info[key] for key in _VERSION_KEYS if info.get(key) is not None), None)
    return f"{info.get('size')} {kept}"


def _digest(files: Sequence[_File]) -> str:
    digest = hashlib.sha256(json.dumps([[file.name, *file.counts] for file in files]).encode())
    for rows in itertools.chain.from_iterable(file.selected or () for file in files):
        digest.update(rows.tobytes())
    return digest.hexdigest()[:16]
