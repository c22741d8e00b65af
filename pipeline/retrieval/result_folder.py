"""The folder that an evaluation is written to, every file whole or not at all."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from manifests.commit import publish
from manifests.errors import InputError, RunError


class ResultFolder:
    """A local folder, made when it is opened: who cannot write there should know before an hour of work.

    Args:
        place: the folder; may be there.
        sources: places that are read from; the folder must lie in none of them.

    Attributes:
        path: of the folder.
        files: names of the files written, in that order.

    Raises:
        InputError: `place` is a file or lies inside a source.
        RunError: it cannot be made.
    """

    def __init__(self, place: str | os.PathLike[str], sources: Sequence[str] = ()) -> None:
        self.path = Path(place).expanduser()
        self.files: list[str] = []
        for source in sources:
            if self._inside(source):
                raise InputError(
                    f'"{self.path}" lies inside "{source}" and would be taken for a part of it; choose a folder outside'
                )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise InputError(f'"{self.path}" is a file or lies in one; choose a folder') from None
        except OSError as error:
            raise self._failure(error) from error

    def write(self, name: str, data: bytes) -> None:
        """Write a file, replacing one of this name; RunError if it cannot be."""
        try:
            publish(LocalFileSystem(), str(self.path / name), data, journal=str(self.path))
        except OSError as error:
            raise self._failure(error) from error
        self.files.append(name)

    def discard(self, name: str) -> None:
        """Remove a file of an earlier evaluation, if there is one; RunError if it cannot be."""
        try:
            (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise self._failure(error) from error

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write a Parquet file, as `write`."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        self.write(name, sink.getvalue().to_pybytes())

    def write_json(self, name: str, document: object) -> None:
        """Write a JSON file, as `write`; its numbers must be finite."""
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
        self.write(name, f"{text}\n".encode())

    def _inside(self, source: str) -> bool:
        inner, outer = os.path.realpath(self.path), os.path.realpath(os.path.expanduser(source))
        return os.path.isdir(outer) and (inner == outer or inner.startswith(os.path.join(outer, "")))

    def _failure(self, error: OSError) -> RunError:
        return RunError(f'"{self.path}" cannot be written ({error.strerror or error}); choose another folder')
