"""Pairing: uniform, without replacement, independent of everything but (seed, image id, attempt)."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from pipeline.pairing import draws

seeds = st.integers(-(2**70), 2**70)
ids = st.text(max_size=40)
sizes = st.integers(1, 200)


@given(seeds, ids, sizes, st.integers(0, 40))
def test_draws_are_distinct_and_in_range(seed, image_id, size, count):
    drawn = draws(seed, image_id, size, count)
    assert len(drawn) == len(set(drawn)) == min(count, size)
    assert all(0 <= index < size for index in drawn)


@given(seeds, ids, sizes, st.integers(0, 40))
def test_fewer_draws_are_a_prefix_of_more(seed, image_id, size, count):
    assert draws(seed, image_id, size, count) == draws(seed, image_id, size, count + 1)[:count]


def test_the_whole_small_catalogue_is_drawn_when_more_is_asked_for():
    assert sorted(draws(0, "000001.jpg", 5, 99)) == [0, 1, 2, 3, 4]


def test_frozen_rule():
    """The rule is part of every published data set: another answer here is another data set under the same seed."""
    assert draws(0, "000001.jpg", 81444, 4) == [39610, 7007, 19145, 10656]
    assert draws(7, "Anna/ä 2.png", 30, 6) == [0, 4, 7, 12, 3, 11]


def test_every_draw_number_is_uniform_over_the_catalogue():
    size, faces = 20, 6000
    table = [draws(3, f"{face:06d}.jpg", size, 3) for face in range(1, faces + 1)]
    for number in range(3):
        counts = Counter(row[number] for row in table)
        assert chisquare([counts[index] for index in range(size)]).pvalue > 1e-4


def test_first_and_second_draw_are_independent():
    size, faces = 5, 8000
    pairs = Counter(tuple(draws(3, f"{face:06d}.jpg", size, 2)) for face in range(faces))
    assert len(pairs) == size * (size - 1)
    assert chisquare(list(pairs.values())).pvalue > 1e-4


def test_seed_and_id_cannot_run_into_each_other():
    assert draws(1, "2:x", 10**9, 3) != draws(12, ":x", 10**9, 3)
    assert draws(1, "x", 10**9, 3) != draws(2, "x", 10**9, 3)
    assert draws(1, "x", 10**9, 3) != draws(1, "y", 10**9, 3)


def test_a_file_name_that_is_not_utf8_is_drawn_for():
    assert len(draws(0, b"caf\xe9.jpg".decode("utf-8", "surrogateescape"), 10, 2)) == 2


@pytest.mark.parametrize(("size", "count"), [(0, 1), (-1, 1), (3, -1)])
def test_bad_arguments(size, count):
    with pytest.raises(ValueError, match="must"):
        draws(0, "a", size, count)
