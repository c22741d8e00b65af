"""What faiss has built of a gallery, kept on disk, so that a graph of millions of items is built once.

FOLDER/faiss-<kind>-<items>-<built>.index: what ``faiss.write_index`` writes, then four bytes, the little-endian CRC-32
of all before them, which faiss does not look at. <items> is of the SHA-256 of the vectors, <built> of that of what they
were built into, so that a file never answers for other vectors. Reading the file and hashing the vectors take seconds
for gigabytes; building takes many minutes.
"""

import contextlib
import hashlib
import json
import os
import re
import uuid
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_NAME: Final = re.compile(r"faiss-([a-z]+)-([0-9a-f]{16})-([0-9a-f]{8})\.index")
_CRC_BYTES: Final = 4
_CHUNK: Final = 1 << 24


def faiss_path(
    folder: str | os.PathLike[str], kind: str, items: npt.NDArray[np.float32], built: Mapping[str, object]
) -> Path:
    """Return where that is kept which was built of these items in this way.

    Args:
        folder: local.
        kind: of index, lower-case letters.
        items: the vectors as faiss has them, [G, W], contiguous.
        built: what else decides the result, as JSON can hold it.
    """
    vectors = hashlib.sha256(json.dumps(items.shape).encode())
    vectors.update(items.data.cast("B"))
    way = hashlib.sha256(json.dumps(dict(built), sort_keys=True).encode())
    return Path(folder) / f"faiss-{kind}-{vectors.hexdigest()[:16]}-{way.hexdigest()[:8]}.index"


def read_faiss(faiss: Any, path: Path) -> Any | None:
    """Read a kept index; None where there is none, or it is damaged or cannot be read.

    Args:
        faiss: the package.
        path: as of `faiss_path`.
    """
    try:
        with path.open("rb") as file:
            length = os.fstat(file.fileno()).st_size - _CRC_BYTES
            if length <= 0 or _crc(file, length) != int.from_bytes(file.read(_CRC_BYTES), "little"):
                return None
        return faiss.read_index(str(path))
    except (OSError, RuntimeError):  # faiss raises the latter, also for a file of a version that it does not read
        return None


def keep_faiss(faiss: Any, index: Any, path: Path) -> None:
    """Write an index where it is read, whole or not at all, and remove those of the same kind and of other vectors.

    Nothing is written and nothing said where that cannot be (a folder that may not be written to, a full disk): it is
    the search that was asked for.
    """
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")  # as manifests.commit names files in flight
    try:
        faiss.write_index(index, str(temporary))
        with temporary.open("r+b") as file:
            length = os.fstat(file.fileno()).st_size
            crc = _crc(file, length)
            file.seek(length)
            file.write(crc.to_bytes(_CRC_BYTES, "little"))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _remove_stale(path)
    except (OSError, RuntimeError):
        pass
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _crc(file: Any, length: int) -> int:
    crc = 0
    while length:
        chunk = file.read(min(length, _CHUNK))
        if not chunk:
            raise OSError("the file ends before its end")
        crc = zlib.crc32(chunk, crc)
        length -= len(chunk)
    return crc


def _remove_stale(kept: Path) -> None:
    own = _NAME.fullmatch(kept.name)
    assert own is not None
    for name in os.listdir(kept.parent):
        other = _NAME.fullmatch(name)
        if other is not None and other[1] == own[1] and other[2] != own[2]:
            with contextlib.suppress(OSError):
                (kept.parent / name).unlink()
