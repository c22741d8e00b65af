"""The row groups of the accepted proxies of one split, read one at a time and opened lazily per process."""

import bisect
import itertools
import os
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.errors import InputError
from manifests.run import RunDirectory

_OPEN_FILES: Final = 8
_FOOTER_READERS: Final = 16  # threads; the wait is for storage


class RowGroups:
    """Row groups of a split in file order, numbered through all its shards.

    Picklable: a copy carries row counts and addresses, and every process (spawned or forked) opens files of its own.
    Raises InputError for a split that the run does not have, and for an unfinished run unless ``partial`` (the shards
    committed now are then all there is).
    """

    def __init__(self, url: str | os.PathLike[str], split: str, *, partial: bool = False) -> None:
        run = RunDirectory.open(url)
        self.url = run.url
        planned = run.planned()
        names = [name for name in planned if name.split == split]
        if not names:
            splits = ", ".join(dict.fromkeys(name.split for name in planned)) or "none"
            raise InputError(f"{self.url} has no split '{split}'; its splits: {splits}")
        committed = run.committed()
        missing = len([name for name in names if name not in committed])
        if missing and not partial:
            raise InputError(
                f"{missing} of the {len(names)} shards of split '{split}' in {self.url} are not committed yet; "
                "finish the build, or pass partial=True to load what is there"
            )
        self._files = [name.data_file for name in names if name in committed]
        with ThreadPoolExecutor(_FOOTER_READERS) as pool:
            rows_by_file = list(pool.map(lambda file: _row_counts(run, file), self._files))
        self.rows: tuple[int, ...] = tuple(itertools.chain.from_iterable(rows_by_file))
        self._first_group = [0, *itertools.accumulate(map(len, rows_by_file))]
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pid": None, "_run": None, "_open": OrderedDict()}

    def _forget(self) -> None:
        self._pid: int | None = None
        self._run: RunDirectory | None = None
        self._open: OrderedDict[str, pq.ParquetFile] = OrderedDict()

    def read(self, group: int, columns: Sequence[str]) -> pa.Table:
        """Return the columns (``image.bytes`` for one field of a struct) of a row group; OSError, ArrowException."""
        file, number = self._locate(group)
        # One thread: loader workers are the parallelism, and a forked child has lost its parent's threads.
        return self._opened(file).read_row_group(number, columns=list(columns), use_threads=False)

    def place(self, group: int, row: int) -> str:
        """Return where a row is, for messages: the data file and the row in it."""
        file, number = self._locate(group)
        return f"{file}, row {sum(self.rows[group - number : group]) + row}"

    def _locate(self, group: int) -> tuple[str, int]:
        file = bisect.bisect_right(self._first_group, group) - 1
        return self._files[file], group - self._first_group[file]

    def _opened(self, file: str) -> pq.ParquetFile:
        if self._pid != os.getpid():
            # Handles of a parent share their file offset, and remote file systems refuse to work after a fork.
            self._forget()
            self._pid = os.getpid()
        if self._run is None:
            self._run = RunDirectory.open(self.url)
        if file not in self._open:
            self._open[file] = self._run.parquet(file)
            if len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)[1].close(force=True)
        self._open.move_to_end(file)
        return self._open[file]


def _row_counts(run: RunDirectory, file: str) -> list[int]:
    with run.parquet(file) as parquet:
        return [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
