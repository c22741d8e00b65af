"""Average precision against sorting in Python with exact fractions: ties, infinities, items that are left out."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.retrieval.average_precision import average_precisions, average_precisions_of_ranks, relevant_ranks
from pipeline.retrieval.recall import first_relevant_ranks
from tests.test_recall import galleries

HALF = (torch.float16, torch.bfloat16)


def places_by_sorting(row, relevant, excluded):
    """Sort with the worst luck: of equals, irrelevant items first. One-based places of the relevant items."""
    items = sorted((-similarity, hit) for similarity, hit, out in zip(row, relevant, excluded, strict=True) if not out)
    return [place for place, (_, hit) in enumerate(items, 1) if hit]


def precision_of(places):
    return float(sum(Fraction(j, place) for j, place in enumerate(places, 1)) / len(places)) if places else math.nan


def tensors_of(similarities, relevant, excluded):
    shape = (len(similarities), len(similarities[0]) if similarities else 0)
    return (
        torch.tensor(similarities).reshape(shape),
        torch.tensor(relevant, dtype=torch.bool).reshape(shape),
        torch.tensor(excluded, dtype=torch.bool).reshape(shape),
    )


@settings(deadline=None)
@given(galleries(), st.sampled_from([torch.float32, torch.float64, *HALF]), st.booleans())
def test_by_definition(of, dtype, exclude):
    """The values are exact in every type."""
    similarities, relevant, excluded = tensors_of(*of)
    similarities = similarities.to(dtype)
    before = [tensor.clone() for tensor in (similarities, relevant, excluded)]
    arguments = (similarities, relevant, excluded) if exclude else (similarities, relevant)
    ranks, found = relevant_ranks(*arguments), average_precisions(*arguments)
    assert ranks.dtype == torch.int64
    assert found.dtype == torch.float64
    left_out = of[2] if exclude else [[False] * similarities.shape[1]] * len(similarities)
    expected = [places_by_sorting(*row) for row in zip(of[0], of[1], left_out, strict=True)]
    most = max((len(places) for places in expected), default=0)
    assert ranks.tolist() == [places + [0] * (most - len(places)) for places in expected]
    np.testing.assert_allclose(found.numpy(), [precision_of(places) for places in expected], rtol=1e-14)
    if most:
        assert ranks[:, 0].tolist() == first_relevant_ranks(*arguments).tolist()
    assert all(torch.equal(*pair) for pair in zip(before, (similarities, relevant, excluded), strict=True))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 300), st.floats(0, 1))
def test_many_items(seed, items, share):
    """Rows long enough that the sorting network of NumPy is used, and a few values that many items share."""
    generator = torch.Generator().manual_seed(seed)
    similarities = torch.randn(3, items, generator=generator)
    similarities[1] = (similarities[1] * 2).round() / 2
    relevant = torch.rand(3, items, generator=generator) < share
    excluded = torch.rand(3, items, generator=generator) < 0.1
    found = average_precisions(similarities, relevant, excluded)
    rows = zip(similarities.tolist(), relevant.tolist(), excluded.tolist(), strict=True)
    np.testing.assert_allclose(found, [precision_of(places_by_sorting(*row)) for row in rows], rtol=1e-13)
    order = torch.randperm(items, generator=generator)
    again = average_precisions(similarities[:, order], relevant[:, order], excluded[:, order])
    assert torch.equal(again.nan_to_num(-1), found.nan_to_num(-1))


def test_the_worked_example():
    similarities = torch.tensor([[0.9, 0.8, 0.8, 0.1]])
    relevant = torch.tensor([[False, True, False, True]])
    assert relevant_ranks(similarities, relevant).tolist() == [[3, 4]]
    assert average_precisions(similarities, relevant).item() == pytest.approx(5 / 12, abs=1e-15)
    without = torch.tensor([[True, False, False, False]])  # the best item is not in the gallery
    assert average_precisions(similarities, relevant, without).item() == pytest.approx((1 / 2 + 2 / 3) / 2, abs=1e-15)


def test_one_means_that_nothing_else_comes_before():
    assert average_precisions(torch.tensor([[0.1, 3.0, 2.0]]), torch.tensor([[False, True, True]])).tolist() == [1]
    assert average_precisions(torch.zeros(1, 3), torch.tensor([[True, True, True]])).tolist() == [1]


def test_a_collapsed_embedding_gains_nothing():
    """All in one point: of 4 relevant items among 100 the j-th is at 96 + j, whatever the order of the gallery."""
    relevant = torch.zeros(2, 100, dtype=torch.bool)
    relevant[0, :4] = relevant[1, -4:] = True
    expected = sum(j / (96 + j) for j in range(1, 5)) / 4
    assert average_precisions(torch.full((2, 100), 0.5), relevant).tolist() == pytest.approx([expected] * 2)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8, unique=True).map(sorted))
def test_of_ranks(places):
    padded = torch.tensor([[*places, 0, 0], [0] * (len(places) + 2)])
    found = average_precisions_of_ranks(padded)
    assert found[0].item() == pytest.approx(precision_of(places), abs=1e-14)
    assert found[1].isnan()
    assert 0 < found[0] <= 1


def test_scores_that_gradients_flow_through():
    similarities = torch.tensor([[0.3, 0.1]], requires_grad=True)
    found = average_precisions(similarities, torch.tensor([[False, True]]))
    assert found.tolist() == [0.5]
    assert not found.requires_grad


def test_similarities_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="cannot be ranked"):
        average_precisions(torch.tensor([[math.nan, 1.0]]), torch.tensor([[False, True]]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu():
    similarities = torch.randint(-20, 21, (40, 500)) / 4
    relevant, excluded = torch.rand(40, 500) < 0.05, torch.rand(40, 500) < 0.02
    there = average_precisions(similarities.cuda(), relevant.cuda(), excluded.cuda())
    assert there.is_cuda
    np.testing.assert_allclose(there.cpu(), average_precisions(similarities, relevant, excluded), rtol=1e-13)
