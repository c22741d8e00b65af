"""What every reader of faces returns, and the columns of a catalogue of faces."""

from dataclasses import dataclass

import pyarrow as pa

from manifests.attributes import ATTRIBUTES
from manifests.image_source import ImageSource

FACE_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("identity", pa.int64()),
        *(pa.field(name, pa.bool_()) for name in ATTRIBUTES),
        pa.field("locator", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
    ]
)


@dataclass(frozen=True)
class FaceRows:
    """Faces as one reader found them, in any order; columns of FACE_SCHEMA that ``table`` lacks are null.

    Attributes:
        table: some columns of FACE_SCHEMA, at least ``image_id``, ``split``, ``locator`` and ``size``.
        source: where the images are read from.
        layout: name of the layout.
        problems: disagreements between the inputs, one sentence each.
        notes: what the inputs do not tell and was filled in, one sentence each; no error even when strict.
        files: (name, size in bytes) of Parquet files, for the digest.
    """

    table: pa.Table
    source: ImageSource
    layout: str
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    files: tuple[tuple[str, int], ...] = ()
