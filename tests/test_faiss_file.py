"""What faiss has built is kept: read instead of built, mended where damaged, never taken for that of other vectors."""

import importlib.util

import pytest
import torch
from torch import nn

from pipeline.retrieval.faiss_search import FaissSearch
from pipeline.retrieval.scoring import gallery_vectors, query_vectors

pytestmark = pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="needs the extra faiss")

KINDS = ("ivf", "hnsw")


def described(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    embeddings = nn.functional.normalize(torch.randn(count, 12, generator=generator), dim=1)
    return embeddings, torch.rand(count, 8, generator=generator) < 0.4


def asked(count, seed):
    embeddings, bits = described(count, seed)
    return query_vectors(embeddings, bits, 0.2)


def searched(search):
    return search.top_k(asked(20, 9), 5)


def same(found, expected):
    return torch.equal(found.items, expected.items) and torch.equal(found.products, expected.products)


@pytest.fixture
def builds(monkeypatch):
    """Kinds that are built from now on."""
    kinds = []
    build = FaissSearch._built

    def counted(self, scaled):
        kinds.append(self.kind)
        return build(self, scaled)

    monkeypatch.setattr(FaissSearch, "_built", counted)
    return kinds


@pytest.fixture
def vectors():
    return gallery_vectors(*described(700))


def files(folder):
    return sorted(path.name.split("-")[1] for path in folder.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_built_is_read_and_finds_the_same(vectors, tmp_path, builds, kind):
    expected = searched(FaissSearch(vectors, kind, bits=8))
    first = searched(FaissSearch(vectors, kind, bits=8, folder=tmp_path))
    assert files(tmp_path) == [kind]
    assert builds == [kind, kind]
    second = searched(FaissSearch(vectors, kind, bits=8, folder=tmp_path))
    assert builds == [kind, kind]
    assert same(first, expected)
    assert same(second, expected)
    allowed = torch.arange(700) % 7 == 0
    found = FaissSearch(vectors, kind, bits=8, folder=tmp_path).top_k(asked(3, 4), 5, allowed)
    assert bool(allowed[found.items].all())


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_kept_unless_asked_for_and_never_of_flat(vectors, tmp_path, builds, kind):
    FaissSearch(vectors, "flat", folder=tmp_path)
    FaissSearch(vectors, kind)
    assert not list(tmp_path.iterdir())


def test_other_vectors_and_other_weights_have_files_of_their_own(vectors, tmp_path, builds):
    FaissSearch(vectors, "ivf", bits=8, folder=tmp_path)
    FaissSearch(vectors, "hnsw", bits=8, folder=tmp_path)
    (tmp_path / "items-00000.parquet").write_text("a part")
    more = gallery_vectors(*described(701))
    search = FaissSearch(more, "ivf", bits=8, folder=tmp_path)
    assert builds == ["ivf", "hnsw", "ivf"]
    assert same(searched(search), searched(FaissSearch(more, "ivf", bits=8)))
    # That of the gallery as it was is gone; what is of another kind, or no such file, stays.
    assert files(tmp_path) == ["00000.parquet", "hnsw", "ivf"]
    moved = vectors.clone()
    moved[3, 2] += 0.001
    FaissSearch(moved, "hnsw", bits=8, folder=tmp_path)
    FaissSearch(moved, "hnsw", bits=8, weight=10, folder=tmp_path)
    assert builds[4:] == ["hnsw", "hnsw"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", ["bit", "short", "empty", "long", "foreign"])
def test_a_damaged_file_is_built_anew(vectors, tmp_path, builds, kind, damage):
    expected = searched(FaissSearch(vectors, kind, bits=8, folder=tmp_path))
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(
        {
            "bit": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
            "short": data[:-9],
            "empty": b"",
            "long": data + b"more",
            "foreign": b"abc" + (0).to_bytes(4, "little"),
        }[damage]
    )
    assert same(searched(FaissSearch(vectors, kind, bits=8, folder=tmp_path)), expected)
    assert builds == [kind, kind]
    assert path.read_bytes()[-4:] == data[-4:] or kind == "hnsw"  # whose graph may be built in another order
    FaissSearch(vectors, kind, bits=8, folder=tmp_path)
    assert builds == [kind, kind]


def test_a_folder_that_cannot_be_written_to_is_searched_all_the_same(vectors, tmp_path, builds, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    expected = searched(FaissSearch(vectors, "ivf", bits=8))
    assert same(searched(FaissSearch(vectors, "ivf", bits=8, folder=tmp_path / "missing")), expected)
    monkeypatch.setattr("pipeline.retrieval.faiss_file.os.replace", full)
    assert same(searched(FaissSearch(vectors, "ivf", bits=8, folder=tmp_path)), expected)
    assert not list(tmp_path.iterdir())
