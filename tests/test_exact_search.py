"""Exact search against float64 and sorting: ties, filters, chunks, duplicates, collapsed galleries."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipeline.retrieval.exact_search import Candidates, ExactSearch
from pipeline.retrieval.scoring import gallery_vectors, query_vectors


def by_sorting(queries, vectors, k, allowed=None):
    """Products in float64, rounded; larger first, then lower index."""
    numbers = range(len(vectors)) if allowed is None else allowed.nonzero()[:, 0].tolist()
    products = (queries.double() @ vectors.double().T).float().tolist()
    order = [sorted(numbers, key=lambda item: (-row[item], item))[:k] for row in products]
    return [[row[item] for item in kept] for row, kept in zip(products, order, strict=True)], order


def random_unit(count, width, seed):
    return nn.functional.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def check(found, queries, vectors, k, allowed=None):
    products, items = by_sorting(queries, vectors, k, allowed)
    assert (found.products.dtype, found.items.dtype) == (torch.float32, torch.int64)
    assert found.items.tolist() == items
    assert found.products.tolist() == products


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.integers(0, 5), st.integers(0, 150)),
    st.integers(1, 6),
    st.integers(0, 10**6),
    st.sampled_from([1, 100, 1 << 20]),
    st.sampled_from([None, 0.0, 0.1, 0.6, 1.0]),
)
def test_the_definition(sizes, k, seed, chunk, share):
    queries, items = sizes
    generator = torch.Generator().manual_seed(seed)
    # Small whole numbers: ties are the rule, at the k-th place too.
    asked = torch.randint(-1, 2, (queries, 3), generator=generator).float()
    vectors = torch.randint(-1, 2, (items, 3), generator=generator).float()
    allowed = None if share is None else torch.rand(items, generator=generator) < share
    found = ExactSearch(vectors, chunk=chunk).top_k(asked, k, allowed)
    assert found.items.shape == (queries, min(k, items if allowed is None else int(allowed.sum())))
    check(found, asked, vectors, k, allowed)


@pytest.mark.parametrize("k", [1, 10, 60])
def test_eq_9_on_real_widths(k):
    """Embeddings, bits and λ; some items are there several times, and some bits differ alone."""
    generator = torch.Generator().manual_seed(1)
    embeddings, bits = random_unit(900, 128, 2), torch.rand(900, 40, generator=generator) < 0.5
    embeddings[300:600] = embeddings[:300]
    bits[300:450] = bits[:150]
    vectors = gallery_vectors(embeddings, bits)
    queries = query_vectors(random_unit(20, 128, 3), torch.rand(20, 40, generator=generator) < 0.5, 0.2)
    queries[0] = query_vectors(embeddings[:1], bits[:1], 0.2)[0]
    check(ExactSearch(vectors).top_k(queries, k), queries, vectors, k)
    allowed = torch.rand(900, generator=generator) < 0.5
    check(ExactSearch(vectors).top_k(queries, k, allowed), queries, vectors, k, allowed)


def test_equal_items_come_in_order_however_many():
    """A thousand copies of two items, scattered: float32 products of equal rows need not be equal."""
    two = random_unit(2, 700, 4)
    which = torch.randint(0, 2, (2000,), generator=torch.Generator().manual_seed(5))
    queries = random_unit(7, 700, 6)
    found = ExactSearch(two[which]).top_k(queries, 25)
    best = (queries.double() @ two.double().T).argmax(dim=1)
    expected = [(which == int(one)).nonzero()[:25, 0].tolist() for one in best]
    assert found.items.tolist() == expected


@pytest.mark.parametrize("spread", [0.0, 1e-8, 1e-6, 1e-4])
def test_a_collapsed_model(spread):
    """Everybody at one point, or so nearly that float32 products cannot tell."""
    vectors = random_unit(1, 256, 7) + spread * random_unit(1500, 256, 8)
    queries = random_unit(1, 256, 7).expand(5, -1) + spread * random_unit(5, 256, 9)
    check(ExactSearch(vectors).top_k(queries, 4), queries, vectors, 4)


def test_lengths_that_differ_by_orders_of_magnitude():
    generator = torch.Generator().manual_seed(10)
    vectors = random_unit(1200, 64, 11) * torch.logspace(-6, 6, 1200)[torch.randperm(1200, generator=generator), None]
    queries = random_unit(6, 64, 12) * torch.tensor([1e-9, 1e-3, 1.0, 1e3, 1e6, 0.0])[:, None]
    check(ExactSearch(vectors).top_k(queries, 5), queries, vectors, 5)


def test_a_query_alone_is_answered_as_among_others():
    vectors, queries = random_unit(3000, 300, 13), random_unit(40, 300, 14)
    search = ExactSearch(vectors)
    together = search.top_k(queries, 10)
    for row in range(0, 40, 7):
        alone = search.top_k(queries[row : row + 1], 10)
        assert torch.equal(alone.items[0], together.items[row])
        assert torch.equal(alone.products[0], together.products[row])
    in_chunks = ExactSearch(vectors, chunk=7000).top_k(queries, 10)
    assert torch.equal(in_chunks.items, together.items)
    assert torch.equal(in_chunks.products, together.products)


def test_a_filter_is_a_smaller_gallery():
    vectors, queries = random_unit(2000, 32, 15), random_unit(9, 32, 16)
    allowed = torch.rand(2000, generator=torch.Generator().manual_seed(17)) < 0.4
    numbers = allowed.nonzero()[:, 0]
    filtered = ExactSearch(vectors).top_k(queries, 12, allowed)
    smaller = ExactSearch(vectors[numbers]).top_k(queries, 12)
    assert torch.equal(filtered.items, numbers[smaller.items])
    assert torch.equal(filtered.products, smaller.products)
    everything = ExactSearch(vectors).top_k(queries, 12, torch.ones(2000, dtype=torch.bool))
    assert torch.equal(everything.items, ExactSearch(vectors).top_k(queries, 12).items)


def test_all_products_are_computed_in_float64_only_where_they_have_to_be(monkeypatch):
    wide = []
    original = Candidates.float64_top_k

    def counted(self, queries, k, numbers):
        wide.append(len(queries))
        return original(self, queries, k, numbers)

    monkeypatch.setattr(Candidates, "float64_top_k", counted)
    vectors, queries = random_unit(4000, 512, 18), random_unit(100, 512, 19)
    check(ExactSearch(vectors).top_k(queries, 10), queries, vectors, 10)
    assert not wide
    vectors[1000:3500] = queries[3]  # 2,500 equal items are the best for one query, and among the best for few others
    check(ExactSearch(vectors).top_k(queries, 10), queries, vectors, 10)
    assert len(wide) == 1
    assert 1 <= wide[0] <= 5


def test_products_in_memory_are_bounded(monkeypatch):
    largest = []
    original = Candidates.products

    def measured(self, queries, numbers):
        products = original(self, queries, numbers)
        largest.append(products.numel())
        return products

    monkeypatch.setattr(Candidates, "products", measured)
    vectors, queries = random_unit(1000, 16, 20), random_unit(500, 16, 21)
    ExactSearch(vectors, chunk=10_000).top_k(queries, 3)
    assert len(largest) == 50
    assert max(largest) <= 10_000


def test_one_item_and_more_asked_for_than_there_are():
    vectors, queries = random_unit(1, 8, 22), random_unit(3, 8, 23)
    check(ExactSearch(vectors).top_k(queries, 5), queries, vectors, 5)
    vectors = random_unit(30, 8, 24)
    check(ExactSearch(vectors).top_k(queries, 100), queries, vectors, 100)


def test_what_is_not_a_search():
    search = ExactSearch(random_unit(5, 8, 25))
    queries = random_unit(2, 8, 26)
    assert len(search) == 5
    with pytest.raises(ValueError, match="k must be at least 1, not 0"):
        search.top_k(queries, 0)
    with pytest.raises(ValueError, match=r"queries must be \[Q, 8\], not \[2, 7\]"):
        search.top_k(queries[:, :7], 1)
    with pytest.raises(ValueError, match=r"queries must be \[Q, 8\], not \[8\]"):
        search.top_k(queries[0], 1)
    with pytest.raises(ValueError, match=r"allowed must be bool \[5\], not torch.bool \[4\]"):
        search.top_k(queries, 1, torch.ones(4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"allowed must be bool \[5\], not torch.int64 \[5\]"):
        search.top_k(queries, 1, torch.arange(5))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_finds_what_the_cpu_finds():
    vectors, queries = random_unit(5000, 600, 27), random_unit(50, 600, 28)
    vectors[100:200] = vectors[0]
    queries[0] = vectors[0]
    allowed = torch.rand(5000, generator=torch.Generator().manual_seed(29)) < 0.5
    for mask in (None, allowed):
        here = ExactSearch(vectors).top_k(queries, 10, mask)
        there = ExactSearch(vectors.cuda()).top_k(queries.cuda(), 10, mask)
        assert torch.equal(here.items, there.items.cpu())
        torch.testing.assert_close(here.products, there.products.cpu(), rtol=1e-7, atol=1e-8)
