"""Images inside Parquet files: the image column, and one image by its locator ``file.parquet#row_group#row``."""

import errno
import os
import threading
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.errors import InputError
from manifests.image_files import check_locator, path_inside
from manifests.object_store import open_store
from manifests.redaction import redact
from manifests.remote_file import RemoteFile
from manifests.remote_path import is_url, joined

# Rows handed over at a time. Below it Arrow holds one decoded page (or dictionary page) per thread; its own writer
# makes pages of up to 1,024 images, so the bound is in practice about twice the encoded images of a row group.
BATCH_ROWS = 16
_BUFFER = 1 << 20


def open_parquet(path: str, where: str | None = None) -> pq.ParquetFile:
    """Open a Parquet file for streaming: columns are buffered piecewise, not loaded as whole chunks.

    Args:
        path: the file, or its URL.
        where: how messages name it; the path if None.

    Raises:
        InputError: not a Parquet file, or a damaged one.
        FileNotFoundError: it has vanished.
        OSError: it cannot be read.
    """
    where = where or _shown(path)
    try:
        source = RemoteFile(*open_store(path)) if is_url(path) else path
        return pq.ParquetFile(source, buffer_size=_BUFFER, pre_buffer=False)
    except FileNotFoundError:
        raise FileNotFoundError(f"The Parquet file {where} has vanished.") from None
    except (pa.ArrowException, OSError) as error:
        # Arrow reports a damaged footer as an OSError without a number; those of the system have one.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputError(f"{where} is not a readable Parquet file ({_one_line(error)}); download it again.") from error


def _shown(path: str) -> str:
    return redact(path) if is_url(path) else path


def _one_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__


def image_column(schema: pa.Schema, where: str) -> str:
    """Return the name of the column that holds encoded images.

    It is ``image`` when that is ``struct<bytes: binary, …>`` (Hugging Face) or plain binary; otherwise the only column
    that is such a struct.

    Raises:
        InputError: there is none.
    """
    if "image" in schema.names and (_has_bytes(schema.field("image").type) or _is_binary(schema.field("image").type)):
        return "image"
    structs = [field.name for field in schema if _has_bytes(field.type)]
    if len(structs) == 1:
        return str(structs[0])
    raise InputError(
        f"{where} has no image column (its columns: {', '.join(schema.names[:8])}); "
        "expected `image` as struct<bytes, path> or binary."
    )


def image_leaf(schema: pa.Schema, column: str) -> str:
    """Return the Parquet leaf path of the encoded bytes: ``image.bytes`` or ``image``."""
    return column if _is_binary(schema.field(column).type) else f"{column}.bytes"


def has_image_path(schema: pa.Schema, column: str) -> bool:
    """Say whether the image struct carries a ``path`` string."""
    kind = schema.field(column).type
    return bool(pa.types.is_struct(kind) and kind.get_field_index("path") >= 0)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _has_bytes(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind):
        return False
    index = kind.get_field_index("bytes")
    return index >= 0 and _is_binary(kind.field(index).type)


class _Cursor:
    """A position in one row group of one file; going forward streams on, going back starts again."""

    def __init__(self, path: str, row_group: int) -> None:
        self._file = open_parquet(path)
        path = _shown(path)
        if not 0 <= row_group < self._file.num_row_groups:
            raise InputError(f"{path} has no row group {row_group}; plan the run again from the present files.")
        schema = self._file.schema_arrow
        self._column = image_column(schema, path)
        self._leaf = image_leaf(schema, self._column)
        self._path = path
        self._row_group = row_group
        self._rows = self._file.metadata.row_group(row_group).num_rows
        self._rewind()

    def _rewind(self) -> None:
        self._batches: Iterator[pa.RecordBatch] = self._file.iter_batches(
            batch_size=BATCH_ROWS, row_groups=[self._row_group], columns=[self._leaf], use_threads=False
        )
        self._start = 0
        self._images: pa.Array = pa.array([], pa.binary())

    def image(self, row: int) -> bytes:
        if not 0 <= row < self._rows:
            raise InputError(f"{self._path} has no row {row} in row group {self._row_group}; plan the run again.")
        if row < self._start:
            self._rewind()
        try:
            while row >= self._start + len(self._images):
                self._start += len(self._images)
                column = next(self._batches).column(0)
                self._images = column.field(0) if pa.types.is_struct(column.type) else column
        except (pa.ArrowException, OSError, StopIteration) as error:
            if isinstance(error, OSError) and error.errno is not None:  # storage, and not what is stored
                raise
            raise InputError(f"{self._path} is damaged in row group {self._row_group} ({_one_line(error)}).") from error
        value = self._images[row - self._start].as_py()
        if value is None:
            raise InputError(
                f"{self._path} holds no image bytes in row {row} of row group {self._row_group}; "
                "embed the images in the Parquet file."
            )
        return bytes(value)


class _Cursors(threading.local):
    """One cursor per root and thread, so that faces and paintings drawn in turn do not rewind each other."""

    def __init__(self) -> None:
        self.by_root: dict[str, tuple[tuple[int, str, int], _Cursor]] = {}


_CURSORS = _Cursors()
_MAX_ROOTS = 4


def read_parquet_image(root: str, locator: str) -> bytes:
    """Return the encoded bytes of one image; each thread keeps one cursor per root, so rows in order decode once.

    Only the image column is read, ``BATCH_ROWS`` images at a time; a row behind the cursor rereads its row group from
    the start (our choice: pyarrow offers no cheaper random access, and catalogues are read in order).

    Raises:
        InputError: the locator is malformed or leaves the root, or the file, the row or its bytes are not usable.
        FileNotFoundError: the file has vanished.
        OSError: it cannot be read; behind a URL EIO.
    """
    try:
        name, row_group, row = locator.rsplit("#", 2)
        position = (int(row_group), int(row))
    except ValueError:
        raise InputError(f"The image locator {locator!r} is not of the form file.parquet#row_group#row.") from None
    if is_url(root):
        check_locator(name, _shown(root))
        path = joined(root, name)
    else:
        path = path_inside(name, root)
    key = (os.getpid(), path, position[0])
    cursors = _CURSORS.by_root
    # Taken out while in use: an old cursor is gone before the next opens, and one that failed is not kept.
    held = cursors.pop(root, None)
    try:
        if held is not None and held[0] == key:
            cursor = held[1]
        else:
            held = None
            while len(cursors) >= _MAX_ROOTS:
                del cursors[next(iter(cursors))]
            cursor = _Cursor(path, position[0])
        image = cursor.image(position[1])
    except FileNotFoundError:
        raise
    except OSError as error:
        if is_url(root):  # what is wrong with the file is no image's fault
            raise OSError(errno.EIO, error.strerror or str(error)) from None
        raise
    cursors[root] = (key, cursor)
    return image
