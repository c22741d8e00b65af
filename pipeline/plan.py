"""The plan of a build: which faces go into which shard, and everything one worker needs to make one of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests.errors import InputError
from manifests.faces import FaceCatalogue
from manifests.image_source import ImageSource
from manifests.paintings import PaintingCatalogue
from manifests.schema import IMAGE_ID, SPLIT, SPLITS
from manifests.shard_name import ShardName, planned_shards
from pipeline.config import BuildConfig
from pipeline.network import NetworkReference
from pipeline.pairing import draws
from stylize.settings import TransferSettings


@dataclass(frozen=True, eq=False)
class ShardSpec:
    """One task. Picklable, and as large as its own shard only.

    Attributes:
        name: of the shard.
        faces: its rows of the face catalogue.
        paintings: the rows of the painting catalogue that this shard may draw, and no others.
        draws: int32 [faces, draws]; entry [i, k] is the row in `paintings` of face i's k-th draw.
        face_source, painting_source: where the images lie.
        settings: of the style transfer.
        network: what to load.
        root: the run's folder or URL.
        batch_size: slots of the engine; None for the worker's own choice.
        token: of this execution of the build, so that progress and stop requests reach the right tasks.
    """

    name: ShardName
    faces: pa.Table
    paintings: pa.Table
    draws: npt.NDArray[np.int32]
    face_source: ImageSource
    painting_source: ImageSource
    settings: TransferSettings
    network: NetworkReference
    root: str
    batch_size: int | None = None
    token: str = ""


@dataclass(frozen=True, eq=False)
class Plan:
    """The faces of a build in the order of its shards, and the paintings to draw from."""

    faces: FaceCatalogue
    paintings: PaintingCatalogue
    config: BuildConfig
    selected: Mapping[str, pa.Table]

    @cached_property
    def shards(self) -> dict[ShardName, range]:
        """Every shard with the positions of its faces in its split, in the order in which they are built."""
        return planned_shards(self.layout())

    @property
    def face_count(self) -> int:
        """How many faces are to be repainted."""
        return sum(table.num_rows for table in self.selected.values())

    def layout(self) -> dict[str, Any]:
        """Return what run.json says about shards, as `manifests.shard_name.planned_shards` reads it."""
        size = self.config.shard_size
        return {
            "shard_size": size,
            "shards": {
                split: {"faces": table.num_rows, "shards": -(-table.num_rows // size)}
                for split, table in self.selected.items()
            },
        }

    def spec(
        self, name: ShardName, network: NetworkReference, root: str, batch_size: int | None = None, token: str = ""
    ) -> ShardSpec:
        """Make the task of one shard; made one by one, because all of them together would fill the client's memory."""
        positions = self.shards[name]
        # take() copies: a slice would travel with the buffers of the whole table.
        faces = self.selected[name.split].take(pa.array(positions, pa.int64()))
        count = 2 * self.config.transfer.max_attempts  # as many unreadable paintings again may come in between
        drawn = np.array(
            [
                draws(self.config.seed, image_id, self.paintings.table.num_rows, count)
                for image_id in faces[IMAGE_ID].to_pylist()
            ],
            dtype=np.int64,
        )
        needed, local = np.unique(drawn, return_inverse=True)
        return ShardSpec(
            name=name,
            faces=faces,
            paintings=self.paintings.table.take(pa.array(needed)),
            draws=local.reshape(drawn.shape).astype(np.int32),
            face_source=self.faces.source,
            painting_source=self.paintings.source,
            settings=self.config.transfer,
            network=network,
            root=root,
            batch_size=batch_size,
            token=token,
        )


def make_plan(faces: FaceCatalogue, paintings: PaintingCatalogue, config: BuildConfig) -> Plan:
    """Choose the faces and lay them out in shards.

    Raises:
        InputError: no face is left, or there is no painting.
    """
    if paintings.table.num_rows == 0:
        raise InputError(f'no painting was found in "{paintings.source.root}"')
    selected = select_faces(faces.table, config.splits, config.limit)
    if not selected:
        present = ", ".join(pc.unique(faces.table[SPLIT]).to_pylist()) or "none at all"
        raise InputError(
            f'no face of "{faces.source.root}" is in split {", ".join(config.splits or SPLITS)}; it has {present}'
        )
    return Plan(faces, paintings, config, selected)


def select_faces(table: pa.Table, splits: tuple[str, ...] | None, limit: int | None) -> dict[str, pa.Table]:
    """Return the faces to build, by split in the order train, valid, test, each in catalogue order; no empty split.

    Our choice for `limit`: it is shared out over the splits in proportion to their sizes (largest remainder), at least
    one face each while it lasts, and each split gives its first faces, so that a small trial has every split.
    """
    tables = {split: table.filter(pc.equal(table[SPLIT], split)) for split in SPLITS if not splits or split in splits}
    tables = {split: rows for split, rows in tables.items() if rows.num_rows}
    if limit is None:
        return tables
    shares = _apportion(limit, [rows.num_rows for rows in tables.values()])
    return {split: rows.slice(0, n) for (split, rows), n in zip(tables.items(), shares, strict=True) if n}


def _apportion(limit: int, sizes: list[int]) -> list[int]:
    total = sum(sizes)
    if limit >= total:
        return sizes
    if limit <= len(sizes):
        return [int(index < limit) for index in range(len(sizes))]
    # One each first; the rest in proportion, whole numbers by largest remainder.
    rest = limit - len(sizes)
    exact = [rest * (size - 1) / (total - len(sizes)) for size in sizes]
    shares = [int(share) for share in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda index: (shares[index] - exact[index], index))
    for index in by_remainder[: rest - sum(shares)]:
        shares[index] += 1
    return [1 + share for share in shares]
