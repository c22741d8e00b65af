"""Explanations of matches: through both branches, on both sides, in the units of Eq. 9."""

import json
import math
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from manifests.attributes import ATTRIBUTES
from manifests.errors import InputError
from pipeline.retrieval.explanation import explain, soft_agreement
from pipeline.retrieval.integrated_gradients import integrated_gradients
from pipeline.retrieval.retrieval_model import AttributeBranch, ModelPlaces, RetrievalModel, open_retrieval_model
from pipeline.retrieval.scoring import attribute_scores, identity_scores
from pipeline.training.attribute_heads import AttributeHeads
from pipeline.training.attribute_model import AttributeModel
from pipeline.training.identity_model import IdentityModel
from pipeline.training.projection import AsymmetricProjections
from stylize.decode import decode_image
from tests.tiny_embedder import tiny_embedder

N = 6
CROP = (0.25, 0.2, 0.75, 0.8)


def branch(seed, embedder=None, *, sharpness=1.0):
    torch.manual_seed(seed)
    heads = AttributeHeads(8, N, widths=(16, 8, 8))
    heads.fourth.weight.data *= 10 * sharpness
    model = AttributeModel(
        *(heads.requires_grad_(False).eval(), ATTRIBUTES[:N], (), "real", "tiny", "random", 0, "", CROP)
    )
    return AttributeBranch(model, embedder)


def tiny_model(*, attributes=True, own=False, sharpness=1.0):
    torch.manual_seed(5)
    projections = AsymmetricProjections(8)
    nn.init.normal_(projections.real.weight, std=0.3)
    nn.init.normal_(projections.art.weight, std=0.3)
    real = branch(1, sharpness=sharpness) if attributes else None
    art = branch(2, tiny_embedder(7, crop=CROP), sharpness=sharpness) if own else real
    identity = IdentityModel(tiny_embedder(3, crop=CROP), projections)
    return RetrievalModel(identity, real, art, title="tiny", digest="").requires_grad_(False).eval()


def picture(seed, height=20, width=16):
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("own", [False, True])
def test_each_side_and_part_is_the_integrated_gradient_of_its_term(own):
    model, photograph, painting = tiny_model(own=own), picture(1), picture(2, 24, 18)
    found = explain(model, photograph, painting, weight=0.7)
    for side, image, forward, other in (
        (found.photograph, photograph, model.real, model.art(painting[None])),
        (found.painting, painting, model.art, model.real(photograph[None])),
    ):
        bits = other.probabilities[0] > 0.5

        def identity(images, forward=forward, other=other):
            return (1 + forward(images).embeddings @ other.embeddings[0]) / 2

        def attributes(images, forward=forward, bits=bits):
            chances = forward(images).probabilities
            return 0.7 * sum(chances[:, i] if bits[i] else 1 - chances[:, i] for i in range(N)) / N

        assert side.attributes is not None
        for part, function in ((side.identity, identity), (side.attributes, attributes)):
            assert part.map.shape == image.shape
            torch.testing.assert_close(part.map, integrated_gradients(function, image).map, atol=1e-6, rtol=1e-4)
            assert part.score == pytest.approx(float(function(image[None])), abs=1e-6)
            assert part.baseline_score == pytest.approx(float(function(torch.zeros_like(image)[None])), abs=1e-6)
            assert part.relative_gap < 0.01
        torch.testing.assert_close(side.total.map, side.identity.map + side.attributes.map)
        assert side.total.relative_gap < 0.01


def test_scores_are_those_of_eq_9_where_the_heads_are_sure():
    model, photograph, painting = tiny_model(own=True, sharpness=1e4), picture(3), picture(4)
    real, art = model.real(photograph[None]), model.art(painting[None])
    found = explain(model, photograph, painting, weight=0.5)
    agreement = 0.5 * float(attribute_scores(real.probabilities > 0.5, art.probabilities > 0.5))
    for side in (found.photograph, found.painting):
        assert side.identity.score == pytest.approx(float(identity_scores(real.embeddings, art.embeddings)), abs=1e-6)
        assert side.attributes is not None
        assert side.attributes.score == pytest.approx(agreement, abs=1e-4)


def test_what_the_networks_do_not_see_explains_nothing():
    found = explain(tiny_model(), picture(5), picture(6), weight=0.2)
    for side in (found.photograph, found.painting):
        assert (side.total.map[:, :, :2] == 0).all()  # far left of the crop
        assert side.total.map[:, 6:14, 6:10].abs().sum() > 0


@pytest.mark.parametrize("attributes", [True, False])
def test_without_a_weight_there_is_the_identity_alone(attributes):
    found = explain(tiny_model(attributes=attributes), picture(7), picture(8), weight=0)
    assert found.photograph.attributes is found.painting.attributes is None
    assert found.photograph.total is found.photograph.identity
    document = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert document["painting"]["attributes"] is None
    assert document["painting"]["total"] == document["painting"]["identity"]
    assert document["lambda"] == 0


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_in_a_program_that_takes_no_gradients(context):
    model = tiny_model()
    expected = explain(model, picture(9), picture(10), weight=0.2)
    with context():
        found = explain(model, picture(9).clone(), picture(10).clone(), weight=0.2)
    assert torch.equal(found.painting.total.map, expected.painting.total.map)
    assert torch.equal(found.photograph.total.map, expected.photograph.total.map)
    assert not any(parameter.requires_grad for parameter in model.parameters())


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0]) | st.floats(0, 1, width=32), st.booleans()), min_size=1))
def test_soft_agreement(pairs):
    chances, bits = torch.tensor([chance for chance, _ in pairs]), torch.tensor([bit for _, bit in pairs])
    expected = math.fsum(p * b + (1 - p) * (1 - b) for p, b in pairs) / len(pairs)
    assert float(soft_agreement(chances[None], bits)[0]) == pytest.approx(expected, abs=1e-6)
    hard = (chances > 0.5).float()
    assert float(soft_agreement(hard[None], bits)[0]) == pytest.approx(float(attribute_scores(hard > 0.5, bits)))


@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf])
def test_a_weight_that_is_none(weight):
    with pytest.raises(InputError, match="lambda"):
        explain(tiny_model(), picture(0), picture(1), weight=weight)


def test_a_weight_for_nothing():
    with pytest.raises(InputError, match="no attributes"):
        explain(tiny_model(attributes=False), picture(0), picture(1), weight=0.2)


def test_a_model_that_is_being_trained():
    with pytest.raises(ValueError, match="evaluation mode"):
        explain(tiny_model().train(), picture(0), picture(1), weight=0.2)


@pytest.mark.parametrize("shape", [(20, 16, 3), (1, 3, 20, 16), (20, 16)])
def test_a_picture_of_another_shape(shape):
    with pytest.raises(ValueError, match="H"):
        explain(tiny_model(), torch.zeros(shape, dtype=torch.uint8), picture(1), weight=0.2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu():
    expected = explain(tiny_model(), picture(1), picture(2), weight=0.2)
    found = explain(tiny_model().cuda(), picture(1), picture(2), weight=0.2)
    for side in ("photograph", "painting"):
        there, here = getattr(found, side).total, getattr(expected, side).total
        assert there.map.device.type == "cpu"
        torch.testing.assert_close(there.map, here.map, atol=1e-4, rtol=1e-2)


# --- trained weights ------------------------------------------------------------------------------


@pytest.mark.data
def test_a_trained_network_s_maps_are_complete_at_50_steps():
    data = os.environ.get("STYLIZE_TEST_DATA")
    if not data:
        pytest.skip("STYLIZE_TEST_DATA is not set")
    model = open_retrieval_model(
        ModelPlaces(backbone="mobilefacenet", weights=str(Path(data) / "facerec" / "mobilefacenet_068.ckpt"))
    )
    person = sorted(path for path in (Path(data) / "lfw").rglob("*") if path.suffix in {".jpg", ".png"})[:2]
    first, second = (
        torch.from_numpy(decode_image(path.read_bytes()).copy()).permute(2, 0, 1)[:, 16:234, 36:214] for path in person
    )
    found = explain(model, first, second, weight=0)
    for side in (found.photograph, found.painting):
        assert side.total.relative_gap < 0.01
        # Near black the score swings by several times what it changes in all, so equal steps miss it by far.
        assert side.total.plain_gap < 0.1
        # Most of what speaks for the match is in the face, not in the corners of the crop.
        saliency = side.total.saliency
        assert abs(saliency[54:178, 35:142]).sum() > 0.9 * abs(saliency).sum()
