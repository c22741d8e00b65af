"""Column names and Arrow schemas of the two files that make a shard.

A shard is a *data* file (accepted proxies with their image bytes) and a *manifest* file (one row per input face,
always; no image bytes). The columns of a run are defined here.

The footer key ``huggingface`` lists every column of the file as a feature, in the form that ``datasets`` 5.2 writes
itself. With a partial list, or none, ``load_dataset`` hands out dicts instead of images.
"""

import json
from typing import Any, Final

import pyarrow as pa

from manifests.attributes import ATTRIBUTES

SPLITS: Final = ("train", "valid", "test")
"""Split names in the order in which every listing shows them."""

ACCEPTED: Final = "accepted"
REJECTED: Final = "rejected"
FAILED: Final = "failed"
STATUSES: Final = (ACCEPTED, REJECTED, FAILED)

PROXY_FORMATS: Final = ("PNG", "JPEG", "WEBP")
"""Of proxies, by Pillow's names; readers take no other, since a run may be a stranger's and Pillow knows many more."""

IMAGE: Final = "image"
IMAGE_BYTES: Final = "bytes"
IMAGE_PATH: Final = "path"
IMAGE_ID: Final = "image_id"
SOURCE_ID: Final = "source_id"
SPLIT: Final = "split"
IDENTITY: Final = "identity"
PAINTING: Final = "painting"
ARTIST: Final = "artist"
GENRE: Final = "genre"
STYLE: Final = "style"
LOSS: Final = "loss"
STATUS: Final = "status"
ATTEMPTS: Final = "attempts"
ERROR: Final = "error"
SHA256: Final = "sha256"
WIDTH: Final = "width"
HEIGHT: Final = "height"
DATA_FILE: Final = "data_file"
DATA_ROW: Final = "data_row"
CONVENTION: Final = "convention"
PRECISION: Final = "precision"

# Fields of one attempt; its painting, loss and error share the names of the columns above.
STYLE_LOSSES: Final = "style_losses"
CONTENT_LOSS: Final = "content_loss"
EVALUATIONS: Final = "evaluations"
STOP_REASON: Final = "stop_reason"

IMAGE_TYPE: Final = pa.struct([(IMAGE_BYTES, pa.binary()), (IMAGE_PATH, pa.string())])
ATTEMPT_TYPE: Final = pa.struct(
    [
        (PAINTING, pa.string()),
        (LOSS, pa.float64()),
        (STYLE_LOSSES, pa.list_(pa.float64())),
        (CONTENT_LOSS, pa.float64()),
        (EVALUATIONS, pa.int32()),
        (STOP_REASON, pa.string()),
        (ERROR, pa.string()),
    ]
)

HUGGINGFACE: Final = b"huggingface"
"""Footer key under which ``datasets`` looks for the features."""


def huggingface_feature(arrow_type: pa.DataType) -> dict[str, Any]:
    """Return the feature that ``datasets`` 5.2 writes for a column of this type; TypeError for a type we do not use."""
    if arrow_type == IMAGE_TYPE:
        return {"_type": "Image"}
    if pa.types.is_list(arrow_type):
        return {"feature": huggingface_feature(arrow_type.value_type), "_type": "List"}
    if pa.types.is_struct(arrow_type):
        return {field.name: huggingface_feature(field.type) for field in arrow_type}
    names = {pa.float32(): "float32", pa.float64(): "float64"}
    if arrow_type in names or pa.types.is_primitive(arrow_type) or pa.types.is_string(arrow_type):
        return {"dtype": names.get(arrow_type, str(arrow_type)), "_type": "Value"}
    raise TypeError(f"no Hugging Face feature is known for the Arrow type {arrow_type}")


def _with_features(columns: list[tuple[str, pa.DataType]]) -> pa.Schema:
    features = {name: huggingface_feature(arrow_type) for name, arrow_type in columns}
    return pa.schema(columns, metadata={HUGGINGFACE: json.dumps({"info": {"features": features}}).encode()})


_ATTRIBUTE_COLUMNS = [(name, pa.bool_()) for name in ATTRIBUTES]

DATA_SCHEMA: Final[pa.Schema] = _with_features(
    [
        (IMAGE, IMAGE_TYPE),
        (IMAGE_ID, pa.string()),
        (SOURCE_ID, pa.string()),
        (SPLIT, pa.string()),
        (IDENTITY, pa.int64()),
        *_ATTRIBUTE_COLUMNS,
        (PAINTING, pa.string()),
        (ARTIST, pa.string()),
        (STYLE, pa.string()),
        (LOSS, pa.float32()),
    ]
)
"""Accepted proxies. Nullable in practice: identity, attributes, artist, style."""

MANIFEST_SCHEMA: Final[pa.Schema] = _with_features(
    [
        (IMAGE_ID, pa.string()),
        (SOURCE_ID, pa.string()),
        (SPLIT, pa.string()),
        (IDENTITY, pa.int64()),
        *_ATTRIBUTE_COLUMNS,
        (STATUS, pa.string()),
        (PAINTING, pa.string()),
        (ARTIST, pa.string()),
        (GENRE, pa.string()),
        (STYLE, pa.string()),
        (LOSS, pa.float64()),
        (ATTEMPTS, pa.list_(ATTEMPT_TYPE)),
        (ERROR, pa.string()),
        (SHA256, pa.string()),
        (WIDTH, pa.int32()),
        (HEIGHT, pa.int32()),
        (DATA_FILE, pa.string()),
        (DATA_ROW, pa.int32()),
        (CONVENTION, pa.string()),
        (PRECISION, pa.string()),
    ]
)
"""Every input face. From ``painting`` to ``loss`` and from ``sha256`` to ``data_row``: null unless accepted."""

SHARED_COLUMNS: Final = tuple(name for name in DATA_SCHEMA.names if name in MANIFEST_SCHEMA.names)
"""Columns that a data row and its manifest row must agree on (``loss`` after rounding to float32)."""

STRUCK: Final = "struck: "
"""Beginning of the error of an attempt whose proxy a curator has struck (`stylize redraw`); the reason follows."""

ACCEPTED_COLUMNS: Final = (PAINTING, ARTIST, GENRE, STYLE, LOSS, SHA256, WIDTH, HEIGHT, DATA_FILE, DATA_ROW)
"""Manifest columns that describe the accepted proxy: null for a face without one."""
