"""Eq. 6, 8 and 9 as one inner product, against the formula pair by pair in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.errors import InputError
from pipeline.retrieval import scoring

WEIGHTS = (0.0, 0.1, 0.2, 0.5, 1.0, 5.0, 10.0)


def drawn(count, dim, n, seed):
    generator = torch.Generator().manual_seed(seed)
    embeddings = F.normalize(torch.randn(count, dim, generator=generator, dtype=torch.float64), dim=1)
    return embeddings, torch.rand(count, n, generator=generator) > 0.5


def by_formula(query, item, query_bits, item_bits, weight):
    """Eq. 9 as it is printed, one pair at a time, in Python's floats."""
    cosine = math.fsum(a * b for a, b in zip(query.tolist(), item.tolist(), strict=True))
    hamming = sum(a != b for a, b in zip(query_bits.tolist(), item_bits.tolist(), strict=True))
    agreement = 1 - hamming / len(item_bits) if len(item_bits) else 0.0
    return (1 + cosine) / 2 + weight * agreement


@settings(deadline=None)
@given(
    st.integers(1, 24), st.integers(0, 45), st.one_of(st.sampled_from(WEIGHTS), st.floats(0, 20)), st.integers(0, 99)
)
def test_one_product_is_the_formula(dim, n, weight, seed):
    weight = weight if n else 0.0
    (queries, query_bits), (items, item_bits) = drawn(3, dim, n, seed), drawn(4, dim, n, seed + 1)
    products = scoring.query_vectors(queries, query_bits, weight) @ scoring.gallery_vectors(items, item_bits).T
    found = scoring.scores(products, weight) if n else scoring.scores(products, 0.0)
    for q in range(3):
        for g in range(4):
            expected = by_formula(queries[q], items[g], query_bits[q], item_bits[g], weight)
            assert float(found[q, g]) == pytest.approx(expected, abs=1e-12)
            parts = float(scoring.identity_scores(queries[q], items[g]))
            if n:
                parts += weight * float(scoring.attribute_scores(query_bits[q], item_bits[g]))
            assert parts == pytest.approx(expected, abs=1e-12)
            assert -1e-12 <= expected <= 1 + weight + 1e-12


@settings(deadline=None)
@given(st.sampled_from(WEIGHTS), st.integers(0, 99))
def test_float32_keeps_the_order(weight, seed):
    """What is searched is float32: it may swap only what float64 holds for all but equal."""
    (queries, query_bits), (items, item_bits) = drawn(2, 128, 40, seed), drawn(300, 128, 40, seed + 1)
    exact = scoring.query_vectors(queries, query_bits, weight) @ scoring.gallery_vectors(items, item_bits).T
    single = scoring.query_vectors(queries.float(), query_bits, weight)
    single = single @ scoring.gallery_vectors(items.float(), item_bits).T
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), exact, rtol=0, atol=2e-6 * (1 + weight))
    ordered = exact.gather(1, single.argsort(dim=1, descending=True))
    assert ((ordered[:, 1:] - ordered[:, :-1]) < 4e-6 * (1 + weight)).all()


def test_one_gallery_serves_every_weight():
    """λ is nowhere in the gallery: its vectors are the embeddings and signs, and nothing else."""
    items, bits = drawn(5, 6, 3, 0)
    vectors = scoring.gallery_vectors(items, bits)
    assert vectors.shape == (5, 9)
    assert vectors[:, :6].equal(items)
    assert vectors[:, 6:].equal(torch.where(bits, 1.0, -1.0).double())


def test_with_weight_zero_attributes_decide_nothing():
    (queries, bits), (items, item_bits) = drawn(4, 6, 40, 1), drawn(9, 6, 40, 2)
    found = scoring.query_vectors(queries, bits, 0.0) @ scoring.gallery_vectors(items, item_bits).T
    assert found.equal(scoring.query_vectors(queries, ~bits, 0.0) @ scoring.gallery_vectors(items, item_bits).T)
    torch.testing.assert_close(scoring.scores(found, 0.0), (1 + queries @ items.T) / 2)


def test_a_very_large_weight_sorts_by_attributes():
    (queries, bits), (items, item_bits) = drawn(1, 6, 40, 3), drawn(50, 6, 40, 4)
    found = scoring.query_vectors(queries, bits, 1000.0) @ scoring.gallery_vectors(items, item_bits).T
    agreement = scoring.attribute_scores(bits, item_bits)[found[0].argsort(descending=True)]
    assert (agreement.diff() <= 0).all()


def test_the_extremes():
    same = torch.tensor([[1.0, 0.0]])
    yes, no = torch.ones(1, 4, dtype=torch.bool), torch.zeros(1, 4, dtype=torch.bool)
    top = scoring.query_vectors(same, yes, 0.2) @ scoring.gallery_vectors(same, yes).T
    low = scoring.query_vectors(same, yes, 0.2) @ scoring.gallery_vectors(-same, no).T
    assert float(scoring.scores(top, 0.2)) == pytest.approx(1.2)
    assert float(scoring.scores(low, 0.2)) == pytest.approx(0.0, abs=1e-7)
    assert scoring.attribute_scores(yes, no).item() == 0
    assert scoring.attribute_scores(yes, yes).item() == 1


def test_one_attribute_weighs_lambda_over_n():
    query, item = torch.tensor([[0.6, 0.8]]), torch.tensor([[1.0, 0.0]])
    bits = torch.tensor([[True, False, True, True]])
    other = bits.clone()
    other[0, 2] = False
    vectors = scoring.query_vectors(query, bits, 0.2)
    both = [scoring.scores(vectors @ scoring.gallery_vectors(item, b).T, 0.2).item() for b in (bits, other)]
    assert both[0] - both[1] == pytest.approx(0.2 / 4)


@pytest.mark.parametrize("weight", [-0.1, -math.inf, math.inf, math.nan])
def test_weights_that_are_none(weight):
    for n in (0, 40):
        with pytest.raises(InputError, match=r"\(lambda\) must be a number from 0 on, not"):
            scoring.check_weight(weight, n)


def test_weights_of_attributes_that_are_not_there():
    with pytest.raises(InputError, match=r"there are no attributes to weigh; .*--attributes"):
        scoring.check_weight(0.2, 0)
    for weight, n in ((0, 0), (0.0, 40), (0.2, 1), (10, 40)):
        scoring.check_weight(weight, n)


def test_weights_that_leave_the_face_no_digit():
    scoring.check_weight(scoring.MAX_WEIGHT, 40)
    with pytest.raises(InputError, match="must be at most 1,000,000, not 1000001"):
        scoring.check_weight(1000001, 40)


@pytest.mark.parametrize("count", [0, 1, 5, 31, 32, 33])
def test_products_of_all_pairs(count):
    (queries, bits), (items, item_bits) = drawn(count, 9, 7, 1), drawn(6, 9, 7, 2)
    found = scoring.all_products(queries, items)
    torch.testing.assert_close(found, torch.einsum("qd,gd->qg", queries, items), rtol=0, atol=1e-14)
    agreement = scoring.all_attribute_scores(bits, item_bits)
    torch.testing.assert_close(agreement, scoring.attribute_scores(bits[:, None], item_bits), rtol=0, atol=1e-14)
