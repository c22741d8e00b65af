"""The arithmetic of the loader: who gets which positions of an epoch's order, in stretches and in turns."""

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.partition import REMAINDERS, EpochOrder, position_after, rank_batches, rank_stretch, worker_stretch

row_groups = st.lists(st.integers(0, 12), max_size=12)
worlds = st.integers(1, 6)
batch_sizes = st.integers(1, 9)
orders = st.fixed_dictionaries(
    {"seed": st.none() | st.integers(0, 9), "epoch": st.integers(0, 3), "window": st.integers(1, 4)}
)


def flat(lists):
    return list(itertools.chain.from_iterable(lists))


def stretches(total, ranks, workers, remainder):
    """Positions of every worker of every rank, as lists of ranges."""
    return [
        [[worker_stretch(rank_stretch(total, rank, ranks, remainder), worker, workers)] for worker in range(workers)]
        for rank in range(ranks)
    ]


def turns(total, ranks, workers, remainder, batch_size):
    return [
        [
            list(itertools.islice(rank_batches(total, rank, ranks, remainder, batch_size=batch_size), w, None, workers))
            for w in range(workers)
        ]
        for rank in range(ranks)
    ]


def check_counts(rows, remainder, parts):
    """``parts``: what every rank reads, in all."""
    counts, times = [len(part) for part in parts], Counter(flat(parts))
    assert set(times) <= set(rows)
    if remainder == "drop":
        assert set(counts) == {len(rows) // len(parts)}
        assert set(times.values()) <= {1}
        assert len(rows) - len(times) == len(rows) % len(parts)
    elif remainder == "pad":
        assert set(counts) == {-(-len(rows) // len(parts))}
        assert set(times) == set(rows)
        assert not times or max(times.values()) - min(times.values()) <= 1
    else:
        assert max(counts) - min(counts) <= 1
        assert times == Counter(rows)


@settings(deadline=None)
@given(row_groups, st.tuples(worlds, worlds), st.sampled_from(REMAINDERS), orders, st.none() | batch_sizes)
def test_partition(rows, processes, remainder, order, batch_size):
    """Exactly once over ranks x workers, in equal counts, for any sizes, empty shards included."""
    ranks, workers = processes
    epoch = EpochOrder(rows, **order)
    everything = [(group, at) for group, count in enumerate(rows) for at in range(count)]
    assert Counter(epoch.rows(range(epoch.total))) == Counter(everything)
    if batch_size is None:
        shares = stretches(epoch.total, ranks, workers, remainder)
    else:
        shares = turns(epoch.total, ranks, workers, remainder, batch_size)
    read = [[flat(epoch.rows(positions) for positions in worker) for worker in rank] for rank in shares]
    check_counts(everything, remainder, [flat(rank) for rank in read])
    worker_counts = [[len(worker) for worker in rank] for rank in read]
    if remainder != "uneven":
        assert all(rank == worker_counts[0] for rank in worker_counts)
    if batch_size is None:
        assert all(max(rank) - min(rank) <= 1 for rank in worker_counts)


def delivered(worker_batches):
    """What a DataLoader hands out of its workers' batches: one of each in turns."""
    return [batch for turn in itertools.zip_longest(*worker_batches) for batch in turn if batch is not None]


@settings(deadline=None)
@given(st.integers(0, 60), worlds, worlds, st.sampled_from(REMAINDERS), batch_sizes)
def test_in_turns_a_rank_gets_the_same_batches_from_any_number_of_workers(total, ranks, workers, remainder, size):
    for rank, parts in enumerate(turns(total, ranks, workers, remainder, size)):
        batches = list(rank_batches(total, rank, ranks, remainder, batch_size=size))
        assert delivered(parts) == batches
        assert [len(batch) for batch in batches[:-1]] == [size] * len(batches[:-1])


@settings(deadline=None)
@given(st.integers(0, 80), st.sampled_from([(1, 12), (2, 6), (3, 4), (12, 1)]), st.sampled_from([(4, 3), (6, 2)]))
def test_a_step_is_the_same_samples_for_any_ranks_of_the_same_total_batch(total, one, other):
    def steps(ranks, size):
        parts = [list(rank_batches(total, rank, ranks, "uneven", batch_size=size)) for rank in range(ranks)]
        return [sorted(flat(batch for batch in step if batch)) for step in itertools.zip_longest(*parts)]

    assert steps(*one) == steps(*other)


@settings(deadline=None)
@given(row_groups, worlds, worlds, orders)
def test_order_does_not_depend_on_ranks_or_workers(rows, ranks, workers, order):
    epoch = EpochOrder(rows, **order)
    shares = flat(stretches(epoch.total, ranks, workers, "uneven"))
    assert flat(epoch.rows(positions) for positions in flat(shares)) == list(epoch.rows(range(epoch.total)))


@settings(deadline=None)
@given(row_groups, orders, st.integers(0, 200), st.integers(0, 60))
def test_beginning_anywhere_is_the_same_order(rows, order, start, count):
    epoch = EpochOrder(rows, **order)
    laps = list(epoch.rows(range(epoch.total))) * (2 + 260 // max(epoch.total, 1))
    expected = laps[start : start + count] if epoch.total else []
    assert list(EpochOrder(rows, **order).rows(range(start, start + count))) == expected


@settings(deadline=None)
@given(
    st.integers(0, 70),
    st.sampled_from(REMAINDERS),
    st.lists(st.tuples(worlds, batch_sizes, st.integers(0, 12)), min_size=1, max_size=4),
    worlds,
    batch_sizes,
)
def test_resumed_any_number_of_times_by_other_ranks_and_batches(total, remainder, phases, ranks, size):
    """A chain of interrupted phases and one to the end: exactly once, apart from what the remainder says."""
    seen: Counter[int] = Counter()
    start = 0
    for world, batch, steps in phases:
        parts = [list(rank_batches(total, r, world, remainder, batch_size=batch, start=start)) for r in range(world)]
        # Ranks step together, so a phase ends where every one of them still has a batch.
        taken = min(steps, *map(len, parts))
        if taken == max(map(len, parts)):  # the epoch is over
            taken -= 1
        taken = max(taken, 0)
        seen.update(place for part in parts for batch_ in part[:taken] for place in batch_)
        start = position_after(total, start, taken * batch, world, batch)
    left = [
        flat(list(batch) for batch in rank_batches(total, rank, ranks, remainder, batch_size=size, start=start))
        for rank in range(ranks)
    ]
    assert remainder == "uneven" or len({len(part) for part in left}) == 1
    seen.update(place % total for place in flat(left))
    missing = set(range(total)) - set(seen)
    if remainder == "uneven":
        assert seen == Counter(range(total))
    elif remainder == "pad":
        assert not missing
    else:
        assert set(seen.values()) <= {1}
        assert len(missing) == (total - start) % ranks


def test_resumed_by_the_same_ranks_nothing_differs():
    for remainder, rank, steps in itertools.product(REMAINDERS, range(3), range(4)):
        whole = list(rank_batches(50, rank, 3, remainder, batch_size=4))
        start = position_after(50, 0, steps * 4, 3, 4)
        assert list(rank_batches(50, rank, 3, remainder, batch_size=4, start=start)) == whole[steps:]


@pytest.mark.parametrize("delivered", [3, 5, 13, 16])
def test_no_place_in_the_order_between_batches(delivered):
    # Steps of 12: three whole ones of 36 positions, then 4 left of 40 for three ranks.
    with pytest.raises(ValueError, match="neither whole batches"):
        position_after(40, 0, delivered, 3, 4)


@settings(deadline=None)
@given(row_groups, st.integers(0, 9), st.integers(1, 4))
def test_windows_bound_what_is_held(rows, seed, window):
    order = list(EpochOrder(rows, seed=seed, epoch=0, window=window).rows(range(sum(rows))))
    met: list[int] = []
    for group, _ in order:
        if group not in met:
            met.append(group)
    first = {group: at for at, (group, _) in reversed(list(enumerate(order)))}
    last = {group: at for at, (group, _) in enumerate(order)}
    for at in range(len(order)):
        assert sum(first[group] <= at <= last[group] for group in met) <= window
