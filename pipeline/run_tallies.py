"""What the manifests of a run say of its attempts: losses, attempts per face, rejections by painting and by style."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests import schema
from manifests.event_log import without_places
from manifests.run import RunDirectory
from manifests.shard_name import ShardName

UNKNOWN_STYLE: Final = "style unknown"


_READERS = 8  # threads; the wait is for storage
_ATTEMPT = f"{schema.ATTEMPTS}.list.element"
_COLUMNS = (
    *(schema.STATUS, schema.PAINTING, schema.STYLE, schema.ERROR),
    *(f"{_ATTEMPT}.{name}" for name in (schema.PAINTING, schema.LOSS, schema.ERROR)),
)
_Z = 1.959964  # of the normal distribution's central 95 %


@dataclass(frozen=True)
class Tally:
    """How often something was tried and what came of it: a painting, or all paintings of a style.

    Attributes:
        name: id of the painting, or the style.
        style: of the painting; the style itself for a style.
        tried: attempts with a loss, so those that a curator has struck, but not unreadable paintings.
        rejected: attempts whose loss was at the threshold or above it.
        unreadable: attempts that had no loss, since the painting could not be read.
        struck: attempts that a curator has struck.
    """

    name: str
    style: str
    tried: int
    rejected: int
    unreadable: int
    struck: int

    @property
    def share(self) -> float:
        """Rejected share of what was tried, 0 to 1; NaN without a try."""
        return self.rejected / self.tried if self.tried else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """What the share may be in truth (`wilson_interval`)."""
        return wilson_interval(self.rejected, self.tried)


@dataclass(frozen=True, eq=False)
class RunTallies:
    """All committed attempts of a run, counted.

    Attributes:
        kept: float64 losses of attempts under the threshold, in loss units; struck ones included.
        thrown: float64 losses of attempts at the threshold or above it.
        faces_by_attempts: faces by (status, number of attempts with a loss).
        paintings: every painting that was drawn, in order of its id.
        styles: every style, likewise.
        failures: failed faces by reason, most frequent first; without names of files, so that equal reasons meet.
    """

    kept: npt.NDArray[np.float64]
    thrown: npt.NDArray[np.float64]
    faces_by_attempts: Mapping[tuple[str, int], int]
    paintings: Sequence[Tally]
    styles: Sequence[Tally]
    failures: Sequence[tuple[str, int]]

    def most_rejected(self, count: int) -> list[Tally]:
        """Return the paintings with the most certainly high share of rejections, at least one each.

        By the lower end of `wilson_interval`: one rejection in one try says less than nine in ten.
        """
        rejected = [tally for tally in self.paintings if tally.rejected]
        return sorted(rejected, key=lambda tally: (-tally.interval[0], -tally.rejected, tally.name))[:count]

    def paintings_of_half(self) -> int:
        """Return how many paintings, the most often rejected first, make up half of all rejections."""
        counts = np.sort([tally.rejected for tally in self.paintings])[::-1]
        total = counts.sum()
        return int(np.searchsorted(2 * counts.cumsum(), total)) + 1 if total else 0


def wilson_interval(hits: int, tries: int) -> tuple[float, float]:
    """Return the 95 % interval of a share, each end from 0 to 1, as E. B. Wilson has it (JASA 22, 1927).

    It holds for few tries and for shares near 0 and 1, too; (0, 1) without a try.
    """
    if not tries:
        return 0.0, 1.0
    share, z2 = hits / tries, _Z * _Z
    centre = (share + z2 / (2 * tries)) / (1 + z2 / tries)
    half = _Z / (1 + z2 / tries) * math.sqrt(share * (1 - share) / tries + z2 / (4 * tries * tries))
    return max(0.0, centre - half), min(1.0, centre + half)


def tally_run(run: RunDirectory, threshold: float) -> RunTallies:
    """Count the attempts of all committed shards; damaged manifests are left out (`read_status` names them)."""
    committed = run.committed()
    names = [name for name in run.planned() if name in committed]
    with ThreadPoolExecutor(_READERS) as pool:
        shards = [shard for shard in pool.map(lambda name: _tally_shard(run, name, threshold), names) if shard]
    faces: Counter[tuple[str, int]] = Counter()
    errors: Counter[str] = Counter()
    for shard in shards:
        faces.update(shard.faces_by_attempts)
        errors.update(shard.errors)
    drawn = _summed([shard.paintings for shard in shards], ("painting",))
    labelled = pa.concat_tables([shard.labels for shard in shards]) if shards else _NO_LABELS
    styles = _styles(drawn["painting"].to_pylist(), zip(*labelled.to_pydict().values(), strict=True))
    paintings = [
        Tally(row["painting"], styles.get(row["painting"], UNKNOWN_STYLE), **{name: row[name] for name in _COUNTS})
        for row in drawn.sort_by("painting").to_pylist()
    ]
    return RunTallies(
        kept=_joined([shard.kept for shard in shards]),
        thrown=_joined([shard.thrown for shard in shards]),
        faces_by_attempts=faces,
        paintings=paintings,
        styles=_by_style(paintings),
        failures=errors.most_common(),
    )


@dataclass(frozen=True, eq=False)
class _Shard:
    kept: npt.NDArray[np.float64]
    thrown: npt.NDArray[np.float64]
    faces_by_attempts: Counter[tuple[str, int]]
    errors: Counter[str]
    paintings: pa.Table
    labels: pa.Table


_COUNTS = ("tried", "rejected", "unreadable", "struck")
_NO_LABELS = pa.table({"painting": pa.array([], pa.string()), "style": pa.array([], pa.string())})


def _tally_shard(run: RunDirectory, name: ShardName, threshold: float) -> _Shard | None:
    try:
        with run.parquet(name.manifest_file) as file:
            table = file.read(columns=list(_COLUMNS), use_threads=False)
    except (OSError, pa.ArrowException, KeyError):
        return None
    attempts = table[schema.ATTEMPTS].combine_chunks()
    flat = attempts.flatten()
    losses = pc.struct_field(flat, schema.LOSS)
    struck = pc.fill_null(pc.starts_with(pc.struct_field(flat, schema.ERROR), schema.STRUCK), False)
    tried = pc.is_valid(losses)
    under = pc.fill_null(pc.less(losses, threshold), False)  # a loss that is not a number is under nothing
    rejected = pc.and_(tried, pc.invert(under))
    drawn = pa.table(
        {
            "painting": pc.struct_field(flat, schema.PAINTING),
            "tried": tried.cast(pa.int64()),
            "rejected": rejected.cast(pa.int64()),
            "unreadable": pc.invert(tried).cast(pa.int64()),
            "struck": struck.cast(pa.int64()),
        }
    )
    numbers = pa.table({"face": pc.list_parent_indices(attempts), "tried": drawn["tried"]})
    per_face = np.zeros(table.num_rows, np.int64)
    np.add.at(per_face, numbers["face"].to_numpy(), numbers["tried"].to_numpy())
    failed = pc.equal(table[schema.STATUS], schema.FAILED)
    errors = table[schema.ERROR].filter(failed).to_pylist()
    accepted = table.filter(pc.and_(pc.is_valid(table[schema.PAINTING]), pc.is_valid(table[schema.STYLE])))
    return _Shard(
        kept=losses.filter(pc.and_(tried, under)).to_numpy(zero_copy_only=False),
        thrown=losses.filter(rejected).to_numpy(zero_copy_only=False),
        faces_by_attempts=Counter(zip(table[schema.STATUS].to_pylist(), per_face.tolist(), strict=True)),
        errors=Counter(without_places(error or "no reason given") for error in errors),
        paintings=_summed([drawn], ("painting",)),
        labels=accepted.select([schema.PAINTING, schema.STYLE]).group_by([schema.PAINTING, schema.STYLE]).aggregate([]),
    )


def _summed(tables: Sequence[pa.Table], keys: Sequence[str]) -> pa.Table:
    if not tables:
        return pa.table({"painting": pa.array([], pa.string()), **{name: pa.array([], pa.int64()) for name in _COUNTS}})
    summed = pa.concat_tables(tables).group_by(list(keys)).aggregate([(name, "sum") for name in _COUNTS])
    return summed.select([*keys, *(f"{name}_sum" for name in _COUNTS)]).rename_columns([*keys, *_COUNTS])


def _joined(parts: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    return np.concatenate(parts) if parts else np.empty(0)


def _styles(paintings: Iterable[str], labels: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the styles of paintings as far as the manifests know them.

    They name the style of an accepted painting alone. Another one's is taken from its folder, where all accepted
    paintings in that folder are of one style.
    """
    known: dict[str, str] = {}
    folders: dict[str, set[str]] = {}
    for painting, style in labels:
        known[painting] = style
        folders.setdefault(_folder(painting), set()).add(style)
    found = {}
    for painting in paintings:
        of_folder = folders.get(_folder(painting), set()) if "/" in painting else set()
        if painting in known:
            found[painting] = known[painting]
        elif len(of_folder) == 1:
            found[painting] = next(iter(of_folder))
    return found


def _folder(painting: str) -> str:
    return painting.rpartition("/")[0]


def _by_style(paintings: Iterable[Tally]) -> list[Tally]:
    sums: dict[str, Counter[str]] = {}
    for tally in paintings:
        sums.setdefault(tally.style, Counter()).update({name: getattr(tally, name) for name in _COUNTS})
    return [Tally(style, style, **{name: sums[style][name] for name in _COUNTS}) for style in sorted(sums)]
