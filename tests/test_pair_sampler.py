"""Pairs of an epoch: each photograph once, its own proxy never ("other") or always ("own"), batches of many people."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from pipeline.training.pair_sampler import batch_bounds, eligible, epoch_pairs

faces = st.lists(st.tuples(st.integers(-1, 5), st.integers(0, 30)), max_size=60).map(
    lambda rows: (np.array([row[0] for row in rows], np.int64), np.array([row[1] for row in rows], np.int64))
)
seeds, epochs, sizes = st.integers(0, 2**63 - 1), st.integers(0, 50), st.integers(2, 9)


def partners(identities, sources, positives):
    """By definition: the proxies that each photograph may be paired with."""
    everybody = range(len(identities))
    if positives == "own":
        return [[at] if identities[at] >= 0 else [] for at in everybody]
    return [
        [o for o in everybody if identities[o] == identities[at] >= 0 and sources[o] != sources[at]] for at in everybody
    ]


@given(faces, seeds, epochs, sizes, st.sampled_from(["other", "own"]))
def test_every_eligible_photograph_once_with_an_allowed_partner(of, seed, epoch, batch_size, positives):
    identities, sources = of
    allowed = partners(identities, sources, positives)
    pairs = epoch_pairs(identities, sources, seed=seed, epoch=epoch, positives=positives, batch_size=batch_size)
    assert pairs.dtype == np.int64
    assert pairs.shape == (len(pairs), 2)
    wanted = [at for at, candidates in enumerate(allowed) if candidates]
    assert sorted(pairs[:, 0].tolist()) == wanted == np.flatnonzero(eligible(identities, sources, positives)).tolist()
    assert all(partner in allowed[photograph] for photograph, partner in pairs.tolist())
    again = epoch_pairs(identities, sources, seed=seed, epoch=epoch, positives=positives, batch_size=batch_size)
    assert np.array_equal(again, pairs)


@given(st.lists(st.integers(0, 4), max_size=40), seeds, sizes)
def test_batches_of_one_person_only_where_it_cannot_be_helped(people, seed, batch_size):
    """The most batches that can be mixed: each needs a pair that is not of the person who has the most."""
    identities = np.array(people, np.int64)
    pairs = epoch_pairs(identities, np.arange(len(people)), seed=seed, epoch=0, positives="own", batch_size=batch_size)
    batches = [identities[pairs[start:end, 0]] for start, end in pairwise(batch_bounds(len(pairs), batch_size))]
    strangers = len(people) - max(Counter(people).values(), default=0)
    possible = min(strangers, sum(len(batch) >= 2 for batch in batches))
    assert sum(len(set(batch.tolist())) >= 2 for batch in batches) == possible


@given(st.integers(0, 500), sizes)
def test_batches_cover_everything_in_nearly_equal_parts(pairs, batch_size):
    bounds = batch_bounds(pairs, batch_size)
    lengths = np.diff(bounds)
    assert bounds[0] == 0
    assert bounds[-1] == pairs
    assert len(lengths) == -(-pairs // batch_size)
    assert pairs == 0 or (lengths.max() <= batch_size and lengths.max() - lengths.min() <= 1)
    if batch_size > 2 and pairs > 1:
        assert lengths.min() >= 2


def test_seed_and_epoch_change_partners_and_order():
    identities = np.repeat(np.arange(20), 4)
    sources = np.arange(80)

    def pairs(seed, epoch):
        return epoch_pairs(identities, sources, seed=seed, epoch=epoch)

    first, second, other = pairs(0, 0), pairs(0, 1), pairs(1, 0)
    for one, two in ((first, second), (first, other), (second, other)):
        assert not np.array_equal(one[:, 0], two[:, 0])
        assert set(map(tuple, one.tolist())) != set(map(tuple, two.tolist()))


def test_partners_are_uniform_over_the_other_proxies():
    """One person with five proxies of four photographs: face 1 and face 2 are proxies of the same one."""
    identities, sources = np.array([7, 7, 7, 7, 7, 8]), np.array([3, 1, 1, 0, 2, 9])
    drawn = [Counter[int]() for _ in range(5)]
    for epoch in range(1500):
        pairs = epoch_pairs(identities, sources, seed=2, epoch=epoch)
        assert 5 not in pairs
        for photograph, partner in pairs.tolist():
            drawn[photograph][partner] += 1
    allowed = partners(identities, sources, "other")
    assert allowed[1] == [0, 3, 4]
    for photograph, counts in enumerate(drawn):
        assert sorted(counts) == allowed[photograph]
        assert chisquare(list(counts.values())).pvalue > 1e-4


def test_every_photograph_comes_at_every_place():
    identities, sources = np.repeat(np.arange(3), 2), np.arange(6)
    first = Counter(
        int(epoch_pairs(identities, sources, seed=0, epoch=epoch, batch_size=6)[0, 0]) for epoch in range(1800)
    )
    assert chisquare([first[at] for at in range(6)]).pvalue > 1e-4


@pytest.mark.parametrize("batch_size", [-1, 0, 1])
def test_batches_without_negatives_are_refused(batch_size):
    with pytest.raises(ValueError, match="batch_size"):
        epoch_pairs(np.array([1, 1]), np.array([0, 1]), seed=0, epoch=0, batch_size=batch_size)
