"""Describing a set of faces: every face its own description, in order, whatever the batches; codes of both sides."""

import threading

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.attributes import ATTRIBUTES
from manifests.errors import InputError, RunError
from manifests.image_source import ImageSource
from pipeline.retrieval.described_faces import Codes, DescribedFaces, describe
from pipeline.retrieval.face_set import FACE_SET_SCHEMA, FaceSet
from pipeline.retrieval.retrieval_model import ModelPlaces, RetrievalModel, open_retrieval_model
from pipeline.training.run_faces import UNKNOWN
from tests.trained_models import register_tiny, write_attributes, write_checkpoint, write_identity

PICTURES = torch.randint(0, 256, (11, 3, 20, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def table(ids, identities=None, sources=None, **attributes):
    """Rows of FACE_SET_SCHEMA; attributes that are not given are unknown."""
    count = len(ids)
    columns = {
        "id": ids,
        "source_id": ids if sources is None else sources,
        "identity": [None] * count if identities is None else identities,
        "locator": ids,
        "version": ["1"] * count,
    }
    columns |= {name: attributes.get(name, [None] * count) for name in ATTRIBUTES}
    return pa.table({field.name: pa.array(columns[field.name], field.type) for field in FACE_SET_SCHEMA})


def face_set(count=11, load=None):
    rows = table([f"face {at}" for at in range(count)])
    read = (lambda at: PICTURES[np.asarray(at)]) if load is None else load
    return FaceSet("drawn faces", rows, ImageSource("folder", "/nowhere"), (16, 20), read)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    place = tmp_path_factory.mktemp("described")
    checkpoint = write_checkpoint(place / "tiny.safetensors", seed=7)
    with pytest.MonkeyPatch.context() as patch:
        register_tiny(patch)
        return open_retrieval_model(
            ModelPlaces(
                identity=write_identity(place / "id", weights=checkpoint),
                attributes=write_attributes(place / "at", weights=checkpoint),
            )
        )


# --- describe ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("domain", ["real", "art"])
@pytest.mark.parametrize("batch_size", [1, 4, 11, 64])
def test_every_face_has_its_own_description(model, domain, batch_size):
    faces = face_set()
    found = describe(model, faces, domain, batch_size=batch_size, quiet=True)
    assert found.table is faces.table
    assert (found.embeddings.dtype, found.probabilities.dtype) == (torch.float32, torch.float32)
    assert (found.embeddings.shape, found.probabilities.shape) == ((11, 8), (11, 40))
    for row, picture in enumerate(PICTURES):
        expected = (model.real if domain == "real" else model.art)(picture[None])
        torch.testing.assert_close(found.embeddings[row], expected.embeddings[0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found.probabilities[row], expected.probabilities[0], rtol=1e-4, atol=1e-6)
    assert not found.embeddings.requires_grad
    torch.testing.assert_close(found.embeddings.norm(dim=1), torch.ones(11))
    assert found.bits.equal(found.probabilities > 0.5)
    assert 0 < found.bits.float().mean() < 1  # or the heads of these tests prove nothing


def test_the_domains_differ(model):
    real, art = (describe(model, face_set(), domain, quiet=True) for domain in ("real", "art"))
    assert (real.embeddings - art.embeddings).abs().max() > 0.1
    torch.testing.assert_close(real.probabilities, art.probabilities)  # one branch serves both


def test_pictures_are_asked_for_once_in_order(model):
    asked: list[list[int]] = []

    def load(at):
        asked.append(list(at))
        return PICTURES[np.asarray(at)]

    describe(model, face_set(load=load), "real", batch_size=4, quiet=True)
    assert asked == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]


def test_a_part_of_a_set(model):
    whole, faces = describe(model, face_set(), "art", quiet=True), face_set().take([9, 2, 2])
    part = describe(model, faces, "art", quiet=True)
    assert part.table["id"].to_pylist() == ["face 9", "face 2", "face 2"]
    torch.testing.assert_close(part.embeddings, whole.embeddings[[9, 2, 2]])
    again = whole.take(np.array([9, 2, 2]))
    assert again.table.equals(part.table)
    torch.testing.assert_close(again.probabilities, part.probabilities)


def test_a_picture_that_cannot_be_read_says_so(model):
    def load(at):
        if 5 in at:
            raise InputError('"face 5" cannot be read')
        return PICTURES[np.asarray(at)]

    before = threading.active_count()
    with pytest.raises(InputError, match='"face 5" cannot be read'):
        describe(model, face_set(load=load), "real", batch_size=2, quiet=True)
    assert threading.active_count() == before


def test_an_embedding_that_is_no_number_names_the_face(model):
    broken = RetrievalModel(model.identity, None, None, title="broken", digest="")
    embed = model.identity.embedder.forward

    def forward(images):
        features = embed(images)
        features[images.flatten(1).eq(PICTURES[6].flatten()).all(dim=1), 3] = torch.nan
        return features

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.identity.embedder, "forward", forward)
        with pytest.raises(RunError, match="the description of face 6 is not finite; are these the weights"):
            describe(broken, face_set(), "real", batch_size=4, quiet=True)


def test_without_attributes(model):
    bare = RetrievalModel(model.identity, None, None, title="bare", digest="")
    found = describe(bare, face_set(3), "real", quiet=True)
    assert found.probabilities.shape == found.bits.shape == (3, 0)


# --- labels -----------------------------------------------------------------------------------------


def test_labels_are_as_annotated():
    rows = table(["a", "b", "c"], Smiling=[True, False, None], Bald=[None, None, True])
    labels = DescribedFaces(rows, torch.zeros(3, 2), torch.zeros(3, 0)).labels
    assert (labels.dtype, labels.shape) == (torch.int8, (3, 40))
    assert labels[:, ATTRIBUTES.index("Smiling")].tolist() == [1, 0, -1]
    assert labels[:, ATTRIBUTES.index("Bald")].tolist() == [-1, -1, 1]
    assert (labels == -1).sum() == 3 * 40 - 3


def test_labels_of_a_table_in_pieces():
    """As Parquet gives them: several chunks, some empty."""
    rows = pa.concat_tables([table(["a"], Young=[True]), table([]), table(["b"], Young=[False])])
    found = DescribedFaces(rows, torch.zeros(2, 2), torch.zeros(2, 0))
    assert found.labels[:, ATTRIBUTES.index("Young")].tolist() == [1, 0]
    assert found.take([1]).labels[0, ATTRIBUTES.index("Young")] == 0


# --- codes ------------------------------------------------------------------------------------------

people = st.lists(st.one_of(st.none(), st.sampled_from(["7", "8", "-1", "nobody"])), max_size=6)


@settings(deadline=None, max_examples=60)
@given(people, people, st.data())
def test_codes_are_equal_where_names_are(queries, gallery, data):
    names = st.sampled_from(["p", "q", "r"])
    left, right = (
        pa.table(
            {
                "identity": pa.array(side, pa.string()),
                "source_id": pa.array([data.draw(names) for _ in side], pa.string()),
            }
        )
        for side in (queries, gallery)
    )
    codes = Codes.of(left, right)
    for tensor, side in (
        (codes.query_identities, left),
        (codes.gallery_identities, right),
        (codes.query_sources, left),
        (codes.gallery_sources, right),
    ):
        assert (tensor.dtype, tensor.shape) == (torch.int64, (len(side),))
    for q, query in enumerate(left.to_pylist()):
        for g, item in enumerate(right.to_pylist()):
            same = query["identity"] is not None and query["identity"] == item["identity"]
            if query["identity"] is not None:  # two unknown people have one code, and are not one person
                assert (codes.query_identities[q] == codes.gallery_identities[g]).item() == same
            assert (codes.query_sources[q] == codes.gallery_sources[g]).item() == (
                query["source_id"] == item["source_id"]
            )
    for tensor, names_of in ((codes.query_identities, queries), (codes.gallery_identities, gallery)):
        assert [code == UNKNOWN for code in tensor.tolist()] == [name is None for name in names_of]


def test_codes_of_nobody():
    codes = Codes.of(table(["a", "b"]), table(["c"]))
    assert codes.query_identities.tolist() == [UNKNOWN, UNKNOWN]
    assert codes.gallery_identities.tolist() == [UNKNOWN]
    assert len({*codes.query_sources.tolist(), *codes.gallery_sources.tolist()}) == 3
