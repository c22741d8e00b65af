"""Recall@k against sorting in Python: ties, several relevant items, the own proxy, queries without an answer."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.retrieval.recall import first_relevant_ranks, ranks_of_people, recall_at_k


def rank_by_sorting(row, relevant, excluded):
    """Sort with the worst luck: of equals, irrelevant items first. One-based place of the first relevant item."""
    items = sorted((-similarity, hit) for similarity, hit, out in zip(row, relevant, excluded, strict=True) if not out)
    return next((place for place, (_, hit) in enumerate(items, 1) if hit), 0)


@st.composite
def galleries(draw):
    queries, items = draw(st.integers(0, 6)), draw(st.integers(0, 9))

    def table(values):
        return draw(st.lists(st.lists(values, min_size=items, max_size=items), min_size=queries, max_size=queries))

    # Few values, so that ties are the rule.
    return (
        table(st.sampled_from([-1.0, 0.0, 0.25, 0.5, math.inf, -math.inf])),
        table(st.booleans()),
        table(st.booleans()),
    )


@settings(deadline=None)
@given(galleries())
def test_ranks(of):
    similarities, relevant, excluded = of
    shape = (len(similarities), len(similarities[0]) if similarities else 0)
    tensors = (
        torch.tensor(similarities).reshape(shape),
        torch.tensor(relevant, dtype=torch.bool).reshape(shape),
        torch.tensor(excluded, dtype=torch.bool).reshape(shape),
    )
    found = first_relevant_ranks(*tensors)
    assert found.dtype == torch.int64
    assert found.tolist() == [rank_by_sorting(*row) for row in zip(similarities, relevant, excluded, strict=True)]
    nothing = [[False] * shape[1]] * shape[0]
    assert first_relevant_ranks(*tensors[:2]).tolist() == [
        rank_by_sorting(*row) for row in zip(similarities, relevant, nothing, strict=True)
    ]


@st.composite
def people(draw):
    """Faces of a few people; some photographs have no proxy, some two, some people are unknown."""
    sources = draw(st.lists(st.integers(-1, 3), min_size=1, max_size=9))  # identity of photograph 0, 1, …
    gallery = draw(st.lists(st.integers(0, len(sources) - 1), max_size=12))  # photograph of each item
    return sources, gallery


@settings(deadline=None)
@given(people(), st.integers(0, 10**6), st.integers(1, 40))
def test_people_by_definition(of, seed, chunk):
    identities, gallery = of
    generator = torch.Generator().manual_seed(seed)
    # Small whole numbers: products are exact, and there are ties.
    queries = torch.randint(-2, 3, (len(identities), 3), generator=generator).float()
    items = torch.randint(-2, 3, (len(gallery), 3), generator=generator).float()
    found = ranks_of_people(
        queries,
        items,
        query_identities=torch.tensor(identities),
        gallery_identities=torch.tensor([identities[photograph] for photograph in gallery], dtype=torch.int64),
        query_sources=torch.arange(len(identities)),
        gallery_sources=torch.tensor(gallery, dtype=torch.int64),
        chunk=chunk,
    )
    expected = []
    for query, person in enumerate(identities):
        row = [float(queries[query] @ item) for item in items]
        relevant = [person >= 0 and identities[photograph] == person for photograph in gallery]
        expected.append(rank_by_sorting(row, relevant, [photograph == query for photograph in gallery]))
    assert found.tolist() == expected


def test_the_own_proxy_is_not_in_the_gallery():
    """Two people, two photographs each, proxies that equal them: with the own proxy R@1 would be 1."""
    phi = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.9, 0.44], [0.0, 1.0]])
    people, photographs = torch.tensor([0, 0, 1, 1]), torch.arange(4)
    ranks = ranks_of_people(
        phi,
        phi,
        query_identities=people,
        gallery_identities=people,
        query_sources=photographs,
        gallery_sources=photographs,
    )
    assert ranks.tolist() == [2, 2, 3, 2]


def test_recall_is_over_the_queries_that_can_be_answered():
    recall = recall_at_k(torch.tensor([1, 0, 2, 5, 6, 0, 11]))
    assert recall.at == {1: 0.2, 5: 0.6, 10: 0.8}
    assert recall.as_dict() == {"R@1": 0.2, "R@5": 0.6, "R@10": 0.8, "queries": 5, "without_relevant": 2}


def test_nobody_to_find():
    recall = recall_at_k(torch.tensor([0, 0]), ks=(1,))
    assert math.isnan(recall.at[1])
    assert recall.as_dict() == {"R@1": None, "queries": 0, "without_relevant": 2}


@given(st.lists(st.integers(0, 30), max_size=40))
def test_recall_grows_with_k(ranks):
    recall = recall_at_k(torch.tensor(ranks, dtype=torch.int64), ks=(1, 2, 5, 10, 30))
    assert recall.queries + recall.without_relevant == len(ranks)
    if recall.queries:
        assert list(recall.at.values()) == sorted(recall.at.values())
        assert recall.at[30] == 1


def test_a_collapsed_embedding_finds_nobody():
    """Thirty people, three pictures each, all in one point: first among equals would find some."""
    phi = torch.full((90, 4), 0.5)
    identities, sources = torch.arange(90) // 3, torch.arange(90)
    ranks = ranks_of_people(
        phi,
        phi,
        query_identities=identities,
        gallery_identities=identities,
        query_sources=sources,
        gallery_sources=sources,
    )
    assert recall_at_k(ranks).at == {1: 0, 5: 0, 10: 0}
    assert set(ranks.tolist()) == {88}


def test_similarities_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="cannot be ranked"):
        first_relevant_ranks(torch.tensor([[math.nan]]), torch.tensor([[True]]))
