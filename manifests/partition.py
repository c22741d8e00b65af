"""Which samples a rank and its workers read in an epoch: disjoint, of equal count, and seeded.

All samples of a split stand in one order, which depends on (seed, epoch) and never on the number of ranks or workers.
Ranks take consecutive stretches of this order, workers consecutive stretches of their rank's. So every process computes
its part alone, and reads whole row groups except at the two ends of its stretch.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

Remainder = Literal["drop", "pad", "uneven"]
REMAINDERS: tuple[Remainder, ...] = ("drop", "pad", "uneven")


def rank_stretch(total: int, rank: int, world_size: int, remainder: Remainder) -> range:
    """Return the positions of one rank in the order of ``total`` samples; modulo ``total`` where they run past the end.

    With r = total mod world_size: ``drop`` gives every rank ⌊total / world_size⌋ samples and leaves the last r
    positions out; ``pad`` gives every rank ⌈total / world_size⌉ by beginning again at position 0; ``uneven`` gives
    every sample to exactly one rank, the first r ranks one more than the others. Raises ValueError for a rank that
    cannot be.
    """
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} of {world_size} cannot be: ranks go from 0 to world_size - 1")
    if remainder not in REMAINDERS:
        raise ValueError(f"remainder is {remainder!r}; it must be one of {', '.join(REMAINDERS)}")
    if remainder == "uneven":
        return worker_stretch(range(total), rank, world_size)
    each = total // world_size if remainder == "drop" else -(-total // world_size)
    return range(rank * each, (rank + 1) * each)


def worker_stretch(positions: range, worker: int, workers: int) -> range:
    """Return one worker's consecutive part of ``positions``; parts differ by one in length, the first are longer."""
    each, longer = divmod(len(positions), workers)
    start = worker * each + min(worker, longer)
    return positions[start : start + each + (worker < longer)]


def stretch_rows(
    row_groups: Sequence[int], positions: range, *, seed: int | None, epoch: int, window: int
) -> Iterator[list[tuple[int, int]]]:
    """Yield the (row group, row) pairs at ``positions`` of the epoch's order, one list per window of row groups.

    ``row_groups`` are the row counts of the row groups in file order. A seeded order shuffles the row groups, cuts them
    into windows of ``window`` groups, and shuffles the rows of each window; a reader therefore holds so many groups at
    most. ``seed`` None keeps the order of the files. Positions past the end begin again at 0.
    """
    total = sum(row_groups)
    if not total or not positions:
        return
    groups = np.arange(len(row_groups)) if seed is None else _generator(seed, epoch).permutation(len(row_groups))
    windows = [groups[start : start + window].tolist() for start in range(0, len(groups), window)]
    ends = list(itertools.accumulate(sum(row_groups[group] for group in groups) for groups in windows))
    for lap in range(positions.start // total, (positions.stop - 1) // total + 1):
        for number, (members, end) in enumerate(zip(windows, ends, strict=True)):
            start = lap * total + (ends[number - 1] if number else 0)
            first, last = max(positions.start - start, 0), min(positions.stop, lap * total + end) - start
            if first < last:
                rows = [(group, row) for group in members for row in range(row_groups[group])]
                if seed is not None:
                    rows = [rows[position] for position in _generator(seed, epoch, number).permutation(len(rows))]
                yield rows[first:last]


def _generator(seed: int, *parts: int) -> np.random.Generator:
    return np.random.default_rng((seed, *parts))
