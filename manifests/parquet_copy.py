"""A data set copied as Parquet in the Hugging Face style: its files, ids and labels, without touching image bytes."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.errors import InputError, RunError
from manifests.image_source import ImageSource
from manifests.parquet_images import has_image_path, image_column, open_parquet
from manifests.remote_path import Place, RemotePath, joined

_ROW_DIGITS = 7


@dataclass(frozen=True)
class ParquetFiles:
    """The files of one copy.

    Attributes:
        source: reads their images; its root is the real folder, or the URL, that holds all of them.
        names: posix paths as the user sees them, relative to what was given.
        locators: posix paths relative to the root; they differ from ``names`` where files are links.
        sizes: bytes.
    """

    source: ImageSource
    names: tuple[str, ...]
    locators: tuple[str, ...]
    sizes: tuple[int, ...]


def find_parquet(path: Place) -> ParquetFiles | None:
    """Find ``path`` itself or every ``*.parquet`` below it, hidden files aside; None if there is none.

    The Hugging Face cache holds links into a folder of blobs: links are resolved here once, and the root is the folder
    above all real files, so that ``ImageSource`` never has to follow a link that leaves its root.

    Raises:
        InputError: a link that leads nowhere.
        RunError: a store does not answer.
    """
    if isinstance(path, RemotePath):
        return _find_objects(path)
    if path.is_file():
        found = {path.name: path}
    else:
        found = {}
        for folder, folders, files in os.walk(path):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in files:
                if name.lower().endswith(".parquet") and not name.startswith((".", "_")):
                    full = Path(folder, name)
                    found[full.relative_to(path).as_posix()] = full
    if not found:
        return None
    names = tuple(sorted(found))
    real = [os.path.realpath(found[name]) for name in names]
    gone = next((name for name, target in zip(names, real, strict=True) if not os.path.isfile(target)), None)
    if gone is not None:
        raise InputError(f"{found[gone]} is a link that leads nowhere; download the file again.")
    root = os.path.realpath(path.parent if path.is_file() else path)
    if any(os.path.commonpath([root, target]) != root for target in real):
        root = os.path.commonpath([os.path.dirname(target) for target in real])
    locators = tuple(Path(target).relative_to(root).as_posix() for target in real)
    return ParquetFiles(
        ImageSource("parquet", root), names, locators, tuple(os.path.getsize(target) for target in real)
    )


def _find_objects(path: RemotePath) -> ParquetFiles | None:
    if path.is_file():
        folder, sizes = path.parent, {path.name: path.size()}
    else:
        folder, sizes = path, path.files()
    names = tuple(name for name in sizes if _is_parquet(name))
    if not names:
        return None
    return ParquetFiles(ImageSource.at("parquet", folder), names, names, tuple(sizes[name] for name in names))


def _is_parquet(name: str) -> bool:
    *folders, file = name.split("/")
    hidden = file.startswith((".", "_")) or any(folder.startswith(".") for folder in folders)
    return file.lower().endswith(".parquet") and not hidden


@dataclass(frozen=True)
class ParquetPart:
    """One file of a copy, opened; ``where`` names it in messages."""

    file: pq.ParquetFile
    name: str
    locator: str
    where: str

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.file.metadata.num_rows)

    def column(self, name: str) -> pa.Array | None:
        """Read one column, decoded from a dictionary if need be; None if the file has none of that name.

        Raises:
            InputError: the file is damaged.
        """
        if name not in self.file.schema_arrow.names:
            return None
        return self._leaf(name)

    def _leaf(self, leaf: str) -> pa.Array:
        try:
            values = self.file.read(columns=[leaf]).column(0).combine_chunks()
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise RunError(f"{self.where} cannot be read: {error.strerror or error}") from None
            raise InputError(f"{self.where} is damaged in column {leaf} ({error}); download it again.") from error
        return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values

    def labels(self, name: str) -> pa.Array | None:
        """Read one column as strings.

        Integers that the ``huggingface`` footer declares as ClassLabel become its names, -1 (no label) null; other
        integers become their digits; an empty string becomes null. None if the file has no such column.

        Raises:
            InputError: a label without a name, or a column that is neither text nor integers.
        """
        values = self.column(name)
        if values is None:
            return None
        if pa.types.is_integer(values.type):
            names = self._class_names(name)
            if names is None:
                return pc.cast(values, pa.string())
            values = pc.if_else(pc.equal(values, -1), None, pc.cast(values, pa.int64()))
            bounds = pc.min_max(values).as_py()
            if bounds["min"] is not None and (bounds["min"] < 0 or bounds["max"] >= len(names)):
                bad = bounds["min"] if bounds["min"] < 0 else bounds["max"]
                raise InputError(f"{self.where} has the label {bad} in column {name}, which its footer does not name.")
            return pa.array(names, pa.string()).take(values)
        if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
            if pa.types.is_null(values.type):
                return pa.nulls(self.rows, pa.string())
            raise InputError(f"{self.where} has the column {name} as {values.type}; expected text or integers.")
        values = pc.cast(values, pa.string())
        return pc.if_else(pc.equal(values, ""), None, values)

    def _class_names(self, name: str) -> list[str] | None:
        footer = (self.file.schema_arrow.metadata or {}).get(b"huggingface", b"{}")
        try:
            feature = json.loads(footer)["info"]["features"][name]
            names = feature["names"] if feature.get("_type") == "ClassLabel" else None
        except (TypeError, ValueError, KeyError, AttributeError):
            return None
        return [str(label) for label in names] if isinstance(names, list) else None

    def image_paths(self) -> pa.Array:
        """Read the file names kept in the image struct (string, null where there is none)."""
        schema = self.file.schema_arrow
        column = image_column(schema, self.where)
        if not has_image_path(schema, column):
            return pa.nulls(self.rows, pa.string())
        paths = pc.cast(pc.struct_field(self._leaf(f"{column}.path"), "path"), pa.string())
        paths = pc.replace_substring(paths, "\\", "/")
        return pc.if_else(pc.equal(paths, ""), None, paths)

    def synthetic_ids(self) -> pa.Array:
        """Return ``file:row`` for every row, the row zero-padded so that ids sort in the order of the file."""
        rows = pc.utf8_lpad(pc.cast(pa.array(np.arange(self.rows)), pa.string()), width=_ROW_DIGITS, padding="0")
        return pc.binary_join_element_wise(self.name, rows, ":")

    def locators(self) -> pa.Array:
        """Return ``file.parquet#row_group#row`` for every row."""
        metadata = self.file.metadata
        counts = np.array([metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)], dtype=np.int64)
        groups = np.repeat(np.arange(len(counts)), counts)
        rows = np.arange(self.rows) - np.repeat(np.cumsum(counts) - counts, counts)
        digits = [pc.cast(pa.array(values), pa.string()) for values in (groups, rows)]
        return pc.binary_join_element_wise(self.locator, *digits, "#")


def open_parts(path: Place, files: ParquetFiles) -> Iterator[ParquetPart]:
    """Open one file after the other; each must have an image column.

    Raises:
        InputError: a file is not Parquet or has no image column, or the copy has no rows.
        RunError: a store does not answer.
    """
    rows = 0
    root = files.source.address or files.source.root
    alone = path.is_file()
    for name, locator in zip(files.names, files.locators, strict=True):
        where = str(path if alone else path / name)
        # Opened by its real path, like ImageSource will, but named as the user sees it.
        address = joined(root, locator) if isinstance(path, RemotePath) else os.path.join(root, locator)
        try:
            opened = open_parquet(address, where)
        except OSError as error:
            if isinstance(path, RemotePath):
                raise RunError(f"{where} cannot be read: {error.strerror or error}") from None
            raise
        with opened as file:
            image_column(file.schema_arrow, where)
            part = ParquetPart(file, name, locator, where)
            rows += part.rows
            yield part
    if not rows:
        raise InputError(f"{path} holds no rows in its Parquet files; download them again.")
