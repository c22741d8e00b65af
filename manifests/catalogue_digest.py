"""SHA-256 of a catalogue table: equal content, equal digest, whatever the root, the chunking or the Arrow version."""

import hashlib
import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def catalogue_digest(table: pa.Table, files: Sequence[tuple[str, int]] = ()) -> str:
    """Return the hex SHA-256 over every column of ``table`` (string, bool or integer columns) in row order.

    Strings are hashed as little-endian lengths (-1 for null) followed by their UTF-8 bytes, booleans as one byte
    (255 for null), integers as validity bytes followed by little-endian int64: our own encoding, because Arrow's IPC
    bytes depend on chunking and may change between versions.

    Args:
        table: the sorted catalogue.
        files: (name, size in bytes) of container files whose images have no size of their own (Parquet copies).
    """
    digest = hashlib.sha256()
    header = [table.num_rows, [(field.name, str(field.type)) for field in table.schema], [list(file) for file in files]]
    digest.update(json.dumps(header, ensure_ascii=True).encode())
    for column in table.columns:
        values = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
        if pa.types.is_string(values.type):
            lengths = pc.fill_null(pc.binary_length(values), -1)
            digest.update(lengths.to_numpy(zero_copy_only=False).astype("<i8").tobytes())
            # A null slot may own bytes; filling rewrites the data buffer without them.
            dense = pc.fill_null(values, "")
            _, offsets, data = dense.buffers()
            if data is not None and len(dense):
                ends = np.frombuffer(offsets, dtype=np.int32)[dense.offset : dense.offset + len(dense) + 1]
                digest.update(memoryview(data)[int(ends[0]) : int(ends[-1])])
        elif pa.types.is_boolean(values.type):
            filled = pc.fill_null(pc.cast(values, pa.uint8()), 255)
            digest.update(filled.to_numpy(zero_copy_only=False).tobytes())
        else:
            digest.update(pc.cast(pc.is_valid(values), pa.uint8()).to_numpy(zero_copy_only=False).tobytes())
            filled = pc.fill_null(pc.cast(values, pa.int64()), 0)
            digest.update(filled.to_numpy(zero_copy_only=False).astype("<i8").tobytes())
    return digest.hexdigest()
