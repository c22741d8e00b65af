"""The catalogue of extracted faces: one row per face, and one per picture that was looked at."""

import io
import os
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.errors import RunError

FACES_FILE: Final = "catalogue.parquet"
PICTURES_FILE: Final = "pictures.parquet"

FACE_SCHEMA: Final = pa.schema(
    [
        pa.field("face", pa.string(), nullable=False),
        pa.field("crop", pa.string(), nullable=False),
        pa.field("painting", pa.string(), nullable=False),
        pa.field("title", pa.string()),
        pa.field("artist", pa.string()),
        pa.field("style", pa.string()),
        pa.field("genre", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("locator", pa.string(), nullable=False),
        pa.field("picture_width", pa.int32(), nullable=False),
        pa.field("picture_height", pa.int32(), nullable=False),
        *(pa.field(name, pa.float32(), nullable=False) for name in ("x", "y", "width", "height")),
        *(pa.field(f"crop_{name}", pa.int32(), nullable=False) for name in ("x", "y", "width", "height")),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("detector", pa.string(), nullable=False),
        pa.field("landmarks", pa.list_(pa.float32())),
        pa.field("struck", pa.bool_(), nullable=False),
        pa.field("reason", pa.string()),
    ]
)
"""Columns of catalogue.parquet.

face: id, unique; path of the crop below faces/, and so the id that `stylize index` gives it. crop: path of the crop
below the extraction's folder: faces/… , or struck/… of a struck face. painting: id of the picture that shows it; title,
artist, style, genre: as the picture's catalogue has them, null where unknown. source, locator: where the picture was.
picture_width, picture_height: of the picture as a viewer shows it (EXIF orientation applied), in whose pixels all
coordinates are. x, y, width, height: the detector's box; it may reach beyond the picture. crop_…: the enlarged box,
which was cut out. score: the detector's, 0 to 1. landmarks: x and y of eyes, nose and corners of the mouth, ten numbers
(`FaceBox`), null where the detector tells none. struck, reason: whether and why somebody has struck the face.
"""

PICTURE_SCHEMA: Final = pa.schema(
    [
        pa.field("painting", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("faces", pa.int32(), nullable=False),
        pa.field("small", pa.int32(), nullable=False),
        pa.field("error", pa.string()),
    ]
)
"""Columns of pictures.parquet: id, size of the file in bytes (-1 unknown), faces that were kept, faces that were too
small, and why the picture could not be used, null if it could."""


def encoded(table: pa.Table) -> bytes:
    """Return a table as a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def read_table(path: Path, schema: pa.Schema) -> pa.Table:
    """Read a file of the catalogue; an empty table if there is none, RunError if it is damaged."""
    if not path.exists():
        return schema.empty_table()
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read(columns=schema.names).cast(schema)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise RunError(
            f'"{path}" is damaged ({str(error).splitlines()[0]}); restore it from a copy, or extract the faces into a '
            "new folder"
        ) from error


def with_strikes(faces: pa.Table, reasons: dict[str, str]) -> pa.Table:
    """Return rows of FACE_SCHEMA, by id, with `crop`, `struck` and `reason` as the strikes have it."""
    ids = faces["face"].to_pylist()
    columns = {name: faces[name] for name in FACE_SCHEMA.names}
    columns["struck"] = pa.array([name in reasons for name in ids], pa.bool_())
    columns["reason"] = pa.array([reasons.get(name) for name in ids], pa.string())
    columns["crop"] = pa.array([crop_path(name, struck=name in reasons) for name in ids], pa.string())
    table = pa.table(columns).cast(FACE_SCHEMA)
    return table.take(pc.sort_indices(table, [("face", "ascending")]))


def crop_path(face: str, *, struck: bool) -> str:
    """Return where a face's crop lies below the extraction's folder."""
    return f"{'struck' if struck else 'faces'}/{face}"


def read_face_catalogue(out: str | os.PathLike[str], *, struck: bool = False) -> pa.Table:
    """Read the faces of a finished or interrupted extraction as of its last completed command.

    Args:
        out: the extraction's folder.
        struck: with the faces that were struck.

    Returns:
        FACE_SCHEMA, by id; empty if there are none.

    Raises:
        RunError: the catalogue is damaged.
    """
    table = read_table(Path(os.path.expanduser(out), FACES_FILE), FACE_SCHEMA)
    return table if struck else table.filter(pc.invert(table["struck"]))
