"""Names of shards, and which shards a run is planned to have."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from manifests.errors import InputError
from manifests.schema import SPLITS

DATA_FOLDER: Final = "data"
MANIFEST_FOLDER: Final = "manifest"
_PATTERN = re.compile(r"(\w+)-(\d{5,})-of-(\d{5,})")


@dataclass(frozen=True)
class ShardName:
    """Shard ``index`` (from 0) of the ``count`` shards of one split."""

    split: str
    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.split}-{self.index:05d}-of-{self.count:05d}"

    @property
    def data_file(self) -> str:
        """Path of the data file inside the run, as the manifest records it."""
        return f"{DATA_FOLDER}/{self}.parquet"

    @property
    def manifest_file(self) -> str:
        """Path of the manifest file inside the run."""
        return f"{MANIFEST_FOLDER}/{self}.parquet"

    @classmethod
    def parse(cls, text: str) -> "ShardName | None":
        """Read a name as ``str`` writes it, with or without ``.parquet``; None for anything else."""
        match = _PATTERN.fullmatch(text.removesuffix(".parquet"))
        if match is None:
            return None
        name = cls(match[1], int(match[2]), int(match[3]))
        return name if str(name) == match[0] and name.index < name.count else None


def planned_shards(run: Mapping[str, Any]) -> dict[ShardName, range]:
    """Return every shard of a run with the positions of its faces inside the split's sorted list.

    ``run`` is the content of run.json, of which ``shards`` ({split: {"faces": n, "shards": k}}) and ``shard_size`` are
    read. Shard i holds the faces i·shard_size … min(n, (i+1)·shard_size). Splits in the order train, valid, test.
    Raises InputError where the two keys are missing or contradict each other.
    """
    try:
        size = int(run["shard_size"])
        planned = {str(split): (int(plan["faces"]), int(plan["shards"])) for split, plan in run["shards"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            "run.json lacks a readable plan ('shards' and 'shard_size'); restore the file, or build into a new folder"
        ) from error
    shards: dict[ShardName, range] = {}
    for split in sorted(planned, key=lambda name: (SPLITS.index(name) if name in SPLITS else len(SPLITS), name)):
        faces, count = planned[split]
        if size < 1 or faces < 0 or count != -(-faces // size):
            raise InputError(
                f"run.json plans {count} shards of {size} for the {faces} faces of split '{split}', which cannot be; "
                "restore the file, or build into a new folder"
            )
        for index in range(count):
            shards[ShardName(split, index, count)] = range(index * size, min(faces, (index + 1) * size))
    return shards
