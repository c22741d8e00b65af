"""Which committed shards hold faces that failed, from their manifests alone."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc

from manifests import schema
from manifests.errors import RunError
from manifests.run import RunDirectory
from manifests.schema import FAILED
from manifests.shard_name import ShardName

_READERS = 8  # threads; the wait is for storage


def failed_faces(run: RunDirectory, names: Iterable[ShardName]) -> dict[ShardName, int]:
    """Return how many faces failed, by shard, in the order of ``names``; shards without any are left out.

    Raises RunError for a manifest that cannot be read.
    """
    names = list(names)
    with ThreadPoolExecutor(_READERS) as pool:
        counts = pool.map(lambda name: _failed(run, name), names)
        return {name: count for name, count in zip(names, counts, strict=True) if count}


def _failed(run: RunDirectory, name: ShardName) -> int:
    try:
        with run.parquet(name.manifest_file) as file:
            statuses = file.read(columns=[schema.STATUS], use_threads=False)[schema.STATUS]
    except (OSError, pa.ArrowException, KeyError) as error:
        raise RunError(f"{name.manifest_file} cannot be read ({error}); delete it and run the build again") from error
    return pc.sum(pc.equal(statuses, FAILED)).as_py() or 0
