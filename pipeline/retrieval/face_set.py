"""Pictures of faces with what is known of them, wherever they lie: what is indexed, and what is searched with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from torch import Tensor

from manifests.attributes import ATTRIBUTES
from manifests.errors import InputError
from manifests.image_source import ImageSource

Indices = Sequence[int] | npt.NDArray[np.int64]

ID: Final = "id"
SOURCE_ID: Final = "source_id"
IDENTITY: Final = "identity"
LOCATOR: Final = "locator"
VERSION: Final = "version"

FACE_SET_SCHEMA: Final = pa.schema(
    [
        pa.field(ID, pa.string(), nullable=False),
        pa.field(SOURCE_ID, pa.string(), nullable=False),
        pa.field(IDENTITY, pa.string()),
        pa.field(LOCATOR, pa.string(), nullable=False),
        pa.field(VERSION, pa.string(), nullable=False),
        *(pa.field(name, pa.bool_()) for name in ATTRIBUTES),
    ]
)
"""Columns of a set.

id: unique within the set. source_id: the photograph that the picture shows or was made from; a query's own proxy is the
item with the query's source_id. identity: equal for pictures of one person, null where unknown; comparable between the
sets that are searched in each other. locator: where the picture is, for the set's `ImageSource`. version: differs when
the picture behind an id has changed (a digest, or its size in bytes). The 40 attributes: labels, null where unknown.
"""


class PictureError(InputError):
    """One picture of a set cannot be used: it cannot be read or decoded, or is too small. The others may be well.

    Attributes:
        reason: why, without where it is; the message says both.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, eq=False)
class FaceSet:
    """Faces in a fixed order, sorted by nothing in particular; a face is addressed by its index, 0 … N-1.

    Attributes:
        title: what it is, for people, such as "proxies of test in OUT".
        table: N rows of FACE_SET_SCHEMA.
        source: where the pictures lie; reads one, encoded, by its locator.
        size: width and height in pixels of all pictures as networks see them.
        load: indices → uint8 [B, 3, H, W], RGB, of that size, in the order asked for; InputError names a picture that
            cannot be read or is too small to show a face, as PictureError where it is that picture's own fault.
    """

    title: str
    table: pa.Table
    source: ImageSource
    size: tuple[int, int]
    load: Callable[[Indices], Tensor]

    def __len__(self) -> int:
        return self.table.num_rows  # type: ignore[no-any-return]

    def take(self, indices: Indices) -> "FaceSet":
        """Return some of the faces, in the order given."""
        kept = np.asarray(indices, np.int64)
        return FaceSet(
            self.title,
            self.table.take(pa.array(kept)),
            self.source,
            self.size,
            lambda wanted: self.load(kept[np.asarray(wanted, np.int64)]),
        )
