"""Which samples a rank and its workers read in an epoch: disjoint, of equal count, and seeded.

All samples stand in one order, which depends on (seed, epoch) and never on the number of ranks or workers. Two ways to
deal it out:

*In turns* (`rank_batches`): the order is cut into steps of ``world_size x batch_size`` samples, of which rank r takes
the r-th batch; workers take their rank's batches in turns, which is how a DataLoader asks for them. What has been
delivered is then always a beginning of the order, one number, and the samples of a step are the same for any ranks and
workers of the same product. Every process reads parts of every row group.

*In stretches* (`rank_stretch`, `worker_stretch`): ranks take consecutive stretches of the order, workers consecutive
stretches of their rank's. Every process reads whole row groups except at the two ends of its stretch.
"""

import bisect
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


def rank_batches(
    total: int, rank: int, world_size: int, remainder: Remainder, *, batch_size: int, start: int = 0
) -> Iterator[range]:
    """Yield the batches of one rank, as positions in the order of ``total`` samples, from position ``start`` on.

    All batches have ``batch_size`` positions but the last, for which the ranks share what is left as `rank_stretch`
    has it; positions that run past the end are meant modulo ``total``. Over the epoch a rank gets as many samples as
    `rank_stretch` would give it. ValueError as there.
    """
    step = world_size * batch_size
    steps = (total - start) // step
    left = start + steps * step
    last = rank_stretch(total - left, rank, world_size, remainder)
    for number in range(steps):
        first = start + number * step + rank * batch_size
        yield range(first, first + batch_size)
    if last:
        yield range(left + last.start, left + last.stop)


def position_after(total: int, start: int, delivered: int, world_size: int, batch_size: int) -> int:
    """Return from which position `rank_batches` goes on when every rank has got ``delivered`` samples since ``start``.

    ValueError unless that is a number of whole batches which the epoch has.
    """
    position = start + delivered * world_size
    if delivered % batch_size or position > total:
        raise ValueError(
            f"{delivered} samples delivered are neither whole batches of {batch_size} nor all that there are"
        )
    return position


class EpochOrder:
    """The order of all samples in one epoch: position → (row group, row).

    A seeded order shuffles the row groups, cuts them into windows of ``window`` groups, and shuffles the rows of each
    window; who reads it through holds so many groups at most. Without a seed it is the order of the files. Building one
    costs a permutation of the row groups; beginning anywhere in it costs nothing more.

    Attributes:
        total: number of samples.
    """

    def __init__(self, row_groups: Sequence[int], *, seed: int | None, epoch: int, window: int) -> None:
        """Take the row counts of the row groups in file order; ``seed`` None keeps that order."""
        self._row_groups = row_groups
        self._seed, self._epoch = seed, epoch
        count = len(row_groups)
        groups = range(count) if seed is None else _generator(seed, epoch).permutation(count).tolist()
        self._windows = [groups[first : first + window] for first in range(0, count, window)]
        self._ends = list(itertools.accumulate(sum(row_groups[group] for group in groups) for groups in self._windows))
        self._shuffled: tuple[int, list[tuple[int, int]]] | None = None
        self.total = self._ends[-1] if self._ends else 0

    def rows(self, positions: range) -> Iterator[tuple[int, int]]:
        """Yield (row group, row) at consecutive positions; those past the end begin again at 0."""
        position = positions.start
        while position < positions.stop and self.total:
            lap, place = divmod(position, self.total)
            window = bisect.bisect_right(self._ends, place)
            first = self._ends[window - 1] if window else 0
            rows = self._window(window)[place - first : positions.stop - lap * self.total - first]
            yield from rows
            position += len(rows)

    def _window(self, number: int) -> list[tuple[int, int]]:
        if self._shuffled is None or self._shuffled[0] != number:
            rows = [(group, row) for group in self._windows[number] for row in range(self._row_groups[group])]
            if self._seed is not None:
                permutation = _generator(self._seed, self._epoch, number).permutation(len(rows))
                rows = [rows[position] for position in permutation.tolist()]
            self._shuffled = number, rows
        return self._shuffled[1]


def _generator(seed: int, *parts: int) -> np.random.Generator:
    return np.random.default_rng((seed, *parts))
