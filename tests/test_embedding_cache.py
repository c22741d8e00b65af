"""Embeddings of a run: right rows, from the cache only when nothing that decides them has changed."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from manifests.errors import InputError, RunError
from pipeline.backbones.embedder import FaceEmbedder
from pipeline.training import ranks
from pipeline.training.embedding_cache import DOMAINS, compute_embeddings, embeddings, embeddings_of_all_ranks
from pipeline.training.run_faces import RunFaces
from tests.labelled_run import write_labelled_run
from tests.tiny_embedder import CARD, TinyNetwork, tiny_embedder


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return RunFaces.open(write_labelled_run(tmp_path_factory.mktemp("cache"), {"train": [3, 2], "test": [2, 2]}))


def pictures(embedder):
    """How many pictures it has embedded."""
    assert isinstance(embedder.network, TinyNetwork)
    return embedder.network.embedded


def forget(embedder):
    assert isinstance(embedder.network, TinyNetwork)
    embedder.network.embedded = 0


@torch.no_grad()
def expected(faces, domain, embedder):
    """One picture at a time."""
    read = faces.photographs if domain == "real" else faces.proxies
    return torch.cat([embedder(read([index])) for index in range(len(faces))])


@pytest.mark.parametrize("domain", ["real", "art"])
def test_embeddings_are_those_of_the_pictures_and_are_kept(faces, domain, tmp_path):
    embedder = tiny_embedder()
    first = embeddings(faces, domain, embedder, tmp_path, batch_size=4, quiet=True)
    assert first.dtype == torch.float32
    assert not first.requires_grad
    torch.testing.assert_close(first, expected(faces, domain, embedder))
    forget(embedder)
    again = embeddings(faces, domain, embedder, tmp_path, batch_size=3, quiet=True)
    assert pictures(embedder) == 0
    assert torch.equal(again, first)
    (path,) = tmp_path.iterdir()
    table = pq.read_table(path)
    assert table["image_id"].to_pylist() == faces.table["image_id"].to_pylist()
    assert table["embedding"].type == pa.list_(pa.float32(), 8)
    assert np.array_equal(np.array(table["embedding"].to_pylist(), np.float32), first.numpy())


def test_the_domains_are_kept_apart(faces, tmp_path):
    real, art = (embeddings(faces, domain, tiny_embedder(), tmp_path, quiet=True) for domain in ("real", "art"))
    assert not torch.allclose(real, art)
    assert len(list(tmp_path.iterdir())) == 2


def test_anything_that_decides_embeddings_makes_them_new(faces, tmp_path):
    def embedded(embedder, faces=faces, **options):
        embeddings(faces, "art", embedder, tmp_path, quiet=True, **options)
        return pictures(embedder)

    assert embedded(tiny_embedder()) == 9
    assert embedded(tiny_embedder()) == 0
    for embedder in (
        tiny_embedder(seed=1),
        tiny_embedder(crop=(0.1, 0.1, 0.9, 0.9)),
        tiny_embedder(card=dataclasses.replace(CARD, crop=(0.1, 0.0, 0.9, 1.0))),
        tiny_embedder(card=dataclasses.replace(CARD, channels="bgr")),
        tiny_embedder(card=dataclasses.replace(CARD, mean=(0.0,) * 3)),
        tiny_embedder(card=dataclasses.replace(CARD, std=(1.0,) * 3)),
        tiny_embedder(card=dataclasses.replace(CARD, width=5, height=4)),
    ):
        assert embedded(embedder) == 9
        forget(embedder)
        assert embedded(embedder) == 0
    assert embedded(tiny_embedder(), precision="bf16") == 9
    assert embedded(tiny_embedder(card=dataclasses.replace(CARD, note="a remark changes nothing"))) == 0
    assert embedded(tiny_embedder(crop=(0.0, 0.0, 1.0, 1.0))) == 0  # what the card says anyway
    other = write_labelled_run(tmp_path / "other", {"train": [3, 2], "test": [2, 3]})
    assert embedded(tiny_embedder(), RunFaces.open(other)) == 10


def test_bf16_computes_in_bf16(faces, tmp_path):
    exact, rough = (
        embeddings(faces, "art", tiny_embedder(), tmp_path, precision=p, quiet=True) for p in ("fp32", "bf16")
    )
    assert rough.dtype == torch.float32
    assert not torch.equal(exact, rough)
    torch.testing.assert_close(exact, rough, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "foreign", "empty", "other"])
def test_a_damaged_file_is_made_again(faces, tmp_path, damage):
    first = embeddings(faces, "art", tiny_embedder(), tmp_path, quiet=True)
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        at = data.index(first.numpy().tobytes()[:16])
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "foreign":
        pq.write_table(pa.table({"a": [1]}), path)
    else:  # the rows of another selection of faces under this file's name
        table = pq.read_table(path)
        pq.write_table(table.slice(1), path)
    embedder = tiny_embedder()
    assert torch.equal(embeddings(faces, "art", embedder, tmp_path, quiet=True), first)
    assert pictures(embedder) == len(faces)
    assert list(tmp_path.iterdir()) == [path]


def test_evaluation_mode_and_gradients_are_left_as_they_were(faces):
    embedder = tiny_embedder()
    embedder.train()
    before = {name: value.clone() for name, value in embedder.state_dict().items()}
    found = compute_embeddings(faces, "art", embedder, [5, 1], quiet=True)
    assert embedder.training
    assert not found.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in embedder.state_dict().items())
    torch.testing.assert_close(found, expected(faces, "art", embedder.eval())[[5, 1]])
    assert compute_embeddings(faces, "art", embedder, [], quiet=True).shape == (0, 8)


def test_what_cannot_be_embedded_is_named(faces, tmp_path):
    embedder = tiny_embedder()
    with torch.no_grad():
        next(embedder.network.parameters())[0, 0] = float("nan")
    with pytest.raises(RunError, match=r"embedding of the proxy of 000000.png is not finite"):
        embeddings(faces, "art", embedder, tmp_path, quiet=True)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RunError, match="embeddings cannot be written to"):
        embeddings(faces, "art", tiny_embedder(), tmp_path / "file", quiet=True)


class Scarce(TinyNetwork):
    """Fails for more pictures at a time than memory is enough for."""

    def __init__(self, most, error):
        super().__init__()
        self.most, self.error, self.sizes = most, error, []

    def forward(self, images):
        self.sizes.append(len(images))
        if len(images) > self.most:
            raise self.error
        return super().forward(images)


def scarce(most, error):
    network = Scarce(most, error)
    network.load_state_dict(tiny_embedder().network.state_dict())
    return FaceEmbedder(CARD, network).eval()


ON_CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
ON_CPU = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes. Error code 12")


@pytest.mark.parametrize("error", [ON_CUDA, ON_CPU])
def test_batches_are_halved_as_long_as_memory_is_short(faces, error):
    embedder = scarce(2, error)
    found = compute_embeddings(faces, "art", embedder, range(len(faces)), batch_size=8, quiet=True)
    torch.testing.assert_close(found, expected(faces, "art", tiny_embedder()))
    assert embedder.network.sizes == [
        8,
        4,
        2,
        2,
        2,
        2,
        1,
    ]  # nine faces in batches of 8 and 1; tried once, not each time
    with pytest.raises(RunError, match="not enough memory on cpu for tiny to embed a single picture"):
        compute_embeddings(faces, "art", scarce(0, error), range(5), quiet=True)


def test_other_failures_are_not_taken_for_a_lack_of_memory(faces):
    embedder = scarce(1, RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        compute_embeddings(faces, "art", embedder, range(5), quiet=True)
    assert embedder.network.sizes == [5]


def test_the_first_process_computes_for_all(faces, tmp_path, monkeypatch):
    """As the second of two processes: the work of the first is done before it looks into the cache."""
    there = tiny_embedder()
    order = []

    def on_first_rank(work):
        order.append("first")
        embeddings(faces, DOMAINS[len(order) - 1], there, tmp_path, quiet=True)

    expected_of = embeddings_of_all_ranks(faces, tiny_embedder(), tmp_path / "alone", quiet=True)
    monkeypatch.setattr(ranks, "on_first_rank", on_first_rank)
    here = tiny_embedder()
    found = embeddings_of_all_ranks(faces, here, tmp_path, quiet=True)
    assert (pictures(here), pictures(there)) == (0, 2 * len(faces))
    assert list(found) == list(DOMAINS)
    assert all(torch.equal(found[domain], expected_of[domain]) for domain in DOMAINS)


def test_unreadable_pictures_stop_it(faces, tmp_path, monkeypatch):
    def broken(indices):
        raise InputError("no such picture")

    monkeypatch.setattr(faces, "proxies", broken)
    with pytest.raises(InputError, match="no such picture"):
        embeddings(faces, "art", tiny_embedder(), tmp_path, quiet=True)
