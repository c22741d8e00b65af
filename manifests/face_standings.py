"""Where single faces of a run stand: their shard, their status, and how many paintings they have been tried with."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from manifests import schema
from manifests.errors import RunError
from manifests.run import RunDirectory
from manifests.shard_name import ShardName

_READERS = 8  # threads; the wait is for storage
# One leaf of the list tells its length.
_COLUMNS = (schema.IMAGE_ID, schema.STATUS, f"{schema.ATTEMPTS}.list.element.{schema.STOP_REASON}")


@dataclass(frozen=True)
class FaceStanding:
    """Where a face stands: ``attempts`` is the number of paintings drawn for it, and so that of its next draw."""

    shard: ShardName
    status: str
    attempts: int


def face_standings(run: RunDirectory, faces: Iterable[str]) -> dict[str, FaceStanding]:
    """Return where these faces stand, by image_id, in the order of the run.

    Faces that are in no committed shard are left out. Raises RunError for a manifest that cannot be read.
    """
    wanted = pa.array(list(faces), pa.string())
    committed = run.committed()

    def of_shard(name: ShardName) -> list[tuple[str, FaceStanding]]:
        try:
            with run.parquet(name.manifest_file) as file:
                table = file.read(columns=list(_COLUMNS), use_threads=False)
        except (OSError, pa.ArrowException, KeyError) as error:
            raise RunError(
                f'{name.manifest_file} of "{run.url}" cannot be read ({error}); run stylize verify'
            ) from error
        table = table.filter(pc.is_in(table[schema.IMAGE_ID], value_set=wanted))
        lengths = pc.list_value_length(table[schema.ATTEMPTS]).to_pylist()
        ids, statuses = table[schema.IMAGE_ID].to_pylist(), table[schema.STATUS].to_pylist()
        return [(face, FaceStanding(name, *rest)) for face, *rest in zip(ids, statuses, lengths, strict=True)]

    with ThreadPoolExecutor(_READERS) as pool:
        found = pool.map(of_shard, [name for name in run.planned() if name in committed])
        return {face: standing for shard in found for face, standing in shard}
