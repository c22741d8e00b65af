"""faiss: flat returns what exact search returns; what is approximate misses little of clustered faces."""

import importlib.util
import sys

import pytest
import torch
from torch import nn

from manifests.errors import InputError
from pipeline.retrieval.exact_search import ExactSearch
from pipeline.retrieval.faiss_search import KINDS, FaissSearch
from pipeline.retrieval.scoring import gallery_vectors, query_vectors

needs_faiss = pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="needs the extra faiss")


def random_unit(count, width, seed):
    return nn.functional.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def same(found, expected):
    return torch.equal(found.items, expected.items) and torch.equal(found.products, expected.products)


class Faces:
    """Several pictures of each of many people, whose attributes are mostly theirs; queries of the same people."""

    def __init__(self, people=500, pictures=10, width=64, seed=0):
        self.generator = torch.Generator().manual_seed(seed)
        self.centres = random_unit(people, width, seed + 1)
        self.traits = torch.rand(people, 40, generator=self.generator) < 0.3
        self.items, self.item_bits = self.draw(torch.arange(people).repeat_interleave(pictures))
        self.queries, self.query_bits = self.draw(torch.arange(0, people, 5))

    def draw(self, who):
        noise = torch.randn(len(who), self.centres.shape[1], generator=self.generator)
        flips = torch.rand(len(who), 40, generator=self.generator) < 0.1
        embeddings = nn.functional.normalize(self.centres[who] + 0.08 * noise, dim=1)
        return embeddings, self.traits[who] ^ flips

    @property
    def vectors(self):
        return gallery_vectors(self.items, self.item_bits)

    def asked(self, weight):
        return query_vectors(self.queries, self.query_bits, weight)


@pytest.fixture(scope="module")
def faces():
    return Faces()


@pytest.fixture(scope="module")
def built(faces):
    """What is approximate, built once."""
    return {kind: FaissSearch(faces.vectors, kind, bits=40) for kind in ("ivf", "hnsw")}


def recall(found, expected):
    hits = (found.items[:, :, None] == expected.items[:, None, :]).any(dim=2)
    return float(hits.float().mean())


@needs_faiss
@pytest.mark.parametrize("seed", range(3))
def test_flat_is_exact_search_ties_and_filter_included(seed):
    generator = torch.Generator().manual_seed(seed)
    vectors = random_unit(800, 48, seed)
    vectors[200:400] = vectors[:200]
    vectors[500:700] = vectors[3]
    queries = torch.cat([random_unit(20, 48, seed + 50), vectors[:5]])
    exact, flat = ExactSearch(vectors), FaissSearch(vectors)
    for allowed in (None, torch.rand(800, generator=generator) < 0.5, torch.arange(800) < 3, torch.arange(800) < 0):
        for k in (1, 10, 100, 2000):
            assert same(flat.top_k(queries, k, allowed), exact.top_k(queries, k, allowed))
    assert same(flat.top_k(queries[:0], 3), exact.top_k(queries[:0], 3))


@needs_faiss
def test_flat_agrees_on_whole_numbers():
    generator = torch.Generator().manual_seed(7)
    vectors, queries = (torch.randint(-1, 2, (n, 4), generator=generator).float() for n in (600, 30))
    assert same(FaissSearch(vectors).top_k(queries, 7), ExactSearch(vectors).top_k(queries, 7))


@needs_faiss
@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
@pytest.mark.parametrize("weight", [0.0, 0.2, 1.0])
def test_approximate_kinds_miss_little(faces, built, kind, weight):
    search = built[kind]
    queries = faces.asked(weight)
    expected = ExactSearch(faces.vectors).top_k(queries, 10)
    found = search.top_k(queries, 10)
    assert recall(found, expected) >= 0.95
    # What both find has the same product, and results are in order.
    for row in range(len(queries)):
        known = dict(zip(expected.items[row].tolist(), expected.products[row].tolist(), strict=True))
        for item, product in zip(found.items[row].tolist(), found.products[row].tolist(), strict=True):
            assert known.get(item, product) == product
    assert bool((found.products[:, :-1] >= found.products[:, 1:]).all())
    assert same(search.top_k(queries, 10), found)


@needs_faiss
def test_lists_and_graphs_are_built_for_the_weight_and_not_of_attributes_alone(faces):
    """[f; b] as it is has 40 of 41 of its squared length in the attributes."""
    queries = faces.asked(0.2)
    expected = ExactSearch(faces.vectors).top_k(queries, 10)
    as_it_is, scaled = (FaissSearch(faces.vectors, "ivf", bits=bits, probes=4) for bits in (0, 40))
    assert recall(scaled.top_k(queries, 10), expected) > recall(as_it_is.top_k(queries, 10), expected) + 0.05


@needs_faiss
@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_with_a_filter_there_are_as_many_results_as_there_can_be(faces, built, kind):
    search, exact = built[kind], ExactSearch(faces.vectors)
    queries = faces.asked(0.2)
    for share in (0.5, 0.02, 0.001):
        allowed = torch.rand(len(search), generator=torch.Generator().manual_seed(3)) < share
        expected = exact.top_k(queries, 10, allowed)
        found = search.top_k(queries, 10, allowed)
        assert found.items.shape == expected.items.shape
        assert bool(allowed[found.items].all())
        assert all(len(set(row)) == len(row) for row in found.items.tolist())
        assert recall(found, expected) >= 0.9
    nobody = torch.zeros(len(search), dtype=torch.bool)
    assert same(search.top_k(queries, 10, nobody), exact.top_k(queries, 10, nobody))


@needs_faiss
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("items", [0, 1, 5, 60])
def test_small_galleries(kind, items):
    vectors, queries = random_unit(items, 6, 30), random_unit(3, 6, 31)
    search = FaissSearch(vectors, kind)
    assert len(search) == items
    assert same(search.top_k(queries, 4), ExactSearch(vectors).top_k(queries, 4))


@needs_faiss
def test_what_cannot_be_searched(faces):
    vectors = faces.vectors
    with pytest.raises(InputError, match='"lsh" is no kind of faiss index; give flat, ivf or hnsw'):
        FaissSearch(vectors, "lsh")  # type: ignore[arg-type]
    for wrong in ({"bits": 105}, {"bits": -1}, {"weight": 0}, {"weight": float("inf")}, {"probes": 0}, {"ef": 0}):
        with pytest.raises(ValueError, match="out of range"):
            FaissSearch(vectors, "ivf", **wrong)
    with pytest.raises(ValueError, match="k must be at least 1"):
        FaissSearch(vectors[:9]).top_k(vectors[:1], 0)
    with pytest.raises(ValueError, match="on the CPU"):
        FaissSearch(vectors.to("meta"))


def test_without_faiss_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match=r'faiss cannot be imported .*pip install "stylize\[faiss\]"'):
        FaissSearch(random_unit(3, 4, 0))
