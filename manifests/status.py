"""How far a run is, from storage alone: it works while the scheduler is busy and after it has died."""

import dataclasses
import os
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests import schema
from manifests.run import RunDirectory
from manifests.schema import ACCEPTED, STATUSES
from manifests.shard_name import ShardName

QUANTILES: Final = {"min": 0.0, "p10": 0.1, "p50": 0.5, "p90": 0.9, "max": 1.0}
_READERS = 8  # threads; the wait is for storage
_ATTEMPT = f"{schema.ATTEMPTS}.list.element"
_COLUMNS = (schema.STATUS, schema.LOSS, f"{_ATTEMPT}.{schema.EVALUATIONS}", f"{_ATTEMPT}.{schema.ERROR}")


@dataclass(frozen=True)
class RunStatus:
    """What is committed of a run.

    ``faces`` are counts by split and status of the committed shards; ``attempts`` says how many faces took how many
    attempts; ``retries`` counts attempts after the first; ``unusable`` those that ended in an error (an unreadable
    painting; not those that a curator has struck); ``loss`` holds quantiles of the accepted losses in loss units, empty
    while there are none; ``unreadable`` has one sentence per damaged manifest file, whose faces are in no count.
    """

    url: str
    fingerprint: str
    shards_planned: int
    shards_committed: int
    faces_planned: Mapping[str, int]
    faces: Mapping[str, Mapping[str, int]]
    attempts: Mapping[int, int]
    retries: int
    unusable: int
    loss: Mapping[str, float]
    unreadable: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every planned shard is committed and readable."""
        return self.shards_committed == self.shards_planned and not self.unreadable

    def total(self, status: str) -> int:
        """Return the faces with this status over all splits."""
        return sum(counts.get(status, 0) for counts in self.faces.values())

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it, with totals by status."""
        totals = {status: self.total(status) for status in STATUSES}
        attempts = {str(number): faces for number, faces in self.attempts.items()}
        return dataclasses.asdict(self) | {"attempts": attempts, "complete": self.complete, "totals": totals}


def read_status(run: str | os.PathLike[str] | RunDirectory) -> RunStatus:
    """Read the status of a run, finished or not; InputError where there is no run."""
    if not isinstance(run, RunDirectory):
        run = RunDirectory.open(run)
    planned = run.planned()
    committed = run.committed()
    shards = [name for name in planned if name in committed]
    faces: dict[str, Counter[str]] = {name.split: Counter(dict.fromkeys(STATUSES, 0)) for name in planned}
    faces_planned: Counter[str] = Counter()
    for name, positions in planned.items():
        faces_planned[name.split] += len(positions)
    attempts: Counter[int] = Counter()
    unusable = 0
    losses: list[npt.NDArray[np.float64]] = []
    unreadable: list[str] = []
    with ThreadPoolExecutor(_READERS) as pool:
        for name, shard in zip(shards, pool.map(lambda name: _count(run, name), shards), strict=True):
            if isinstance(shard, str):
                unreadable.append(shard)
                continue
            faces[name.split].update(shard.faces)
            attempts.update(shard.attempts)
            unusable += shard.unusable
            losses.append(shard.losses)
    return RunStatus(
        url=run.url,
        fingerprint=str(run.content.get("fingerprint", "")),
        shards_planned=len(planned),
        shards_committed=len(shards),
        faces_planned=dict(faces_planned),
        faces={split: dict(counts) for split, counts in faces.items()},
        attempts=dict(sorted(attempts.items())),
        retries=sum((number - 1) * count for number, count in attempts.items() if number),
        unusable=unusable,
        loss=_quantiles(np.concatenate(losses) if losses else np.empty(0)),
        unreadable=tuple(unreadable),
    )


@dataclass(frozen=True, eq=False)
class _ShardCounts:
    """What `RunStatus` says, of one shard; `losses` are the accepted ones."""

    faces: Mapping[str, int]
    attempts: Mapping[int, int]
    unusable: int
    losses: npt.NDArray[np.float64]


def _count(run: RunDirectory, name: ShardName) -> _ShardCounts | str:
    """Count one shard's faces, or say why that cannot be done. Small results: there may be thousands of shards."""
    try:
        with run.parquet(name.manifest_file) as file:
            table = file.read(columns=list(_COLUMNS), use_threads=False)
    except (OSError, pa.ArrowException, KeyError) as error:
        return f"{name.manifest_file} cannot be read ({error}); delete it and run the build again."
    accepted = pc.equal(table[schema.STATUS], ACCEPTED)
    tried = table[schema.ATTEMPTS].combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(tried), 0).to_numpy(zero_copy_only=False)
    errors = pc.struct_field(tried.flatten(), schema.ERROR).drop_null()
    struck = pc.sum(pc.starts_with(errors, schema.STRUCK)).as_py() or 0
    return _ShardCounts(
        faces={entry["values"]: entry["counts"] for entry in pc.value_counts(table[schema.STATUS]).to_pylist()},
        attempts={number: count for number, count in enumerate(np.bincount(lengths).tolist()) if count},
        unusable=len(errors) - struck,
        losses=table[schema.LOSS].filter(accepted).drop_null().to_numpy(),
    )


def _quantiles(losses: npt.NDArray[np.float64]) -> dict[str, float]:
    if not losses.size:
        return {}
    return {
        name: float(value) for name, value in zip(QUANTILES, np.quantile(losses, list(QUANTILES.values())), strict=True)
    }
