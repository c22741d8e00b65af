"""The model of retrieval against its parts, loaded and multiplied by hand; which parts may share features."""

import dataclasses
import json
import shutil

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from manifests.errors import InputError, RunError
from pipeline.backbones.loading import weights_digest
from pipeline.retrieval.retrieval_model import ModelPlaces, open_retrieval_model
from pipeline.training.attribute_model import load_attribute_heads
from tests.tiny_embedder import CARD, tiny_embedder
from tests.trained_models import register_tiny, write_attributes, write_checkpoint, write_identity

CROP = (0.1, 0.0, 0.9, 0.75)
NAMES = ("Smiling", "Eyeglasses", "Male")


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    register_tiny(monkeypatch)


@pytest.fixture
def checkpoint(tmp_path):
    return write_checkpoint(tmp_path / "tiny.safetensors", seed=7)


@pytest.fixture
def images():
    return torch.randint(0, 256, (6, 3, 20, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def phi(images, seed, crop=None):
    """What the tiny network of a seed says, without any of the loading."""
    return tiny_embedder(seed, crop=crop)(images)


def yes(folder, features):
    """Probabilities by one plain network per attribute."""
    branches = load_attribute_heads(folder).heads.branches()
    return torch.stack([branch(features).softmax(1)[:, 1] for branch in branches], dim=1)


# --- what it says ---------------------------------------------------------------------------------


def test_a_bare_network_is_its_normalised_embedding(checkpoint, images):
    model = open_retrieval_model(ModelPlaces(backbone="tiny", weights=checkpoint))
    expected = F.normalize(phi(images, 7), dim=1)
    for described in (model.real(images), model.art(images)):
        torch.testing.assert_close(described.embeddings, expected)
        assert described.probabilities.shape == (6, 0)
    assert (model.dim, model.attributes, model.untrained, model.crop) == (8, (), (), (0, 0, 1, 1))
    assert model.title == "tiny, bare, no attributes"


def test_projections_are_of_their_domain(checkpoint, images, tmp_path):
    folder = write_identity(tmp_path / "id", weights=checkpoint)
    model = open_retrieval_model(ModelPlaces(identity=folder))
    trained, features = load_file(tmp_path / "id" / "best.safetensors"), phi(images, 7)
    for domain, described in (("real", model.real(images)), ("art", model.art(images))):
        expected = F.normalize(features + features @ trained[f"projections.{domain}.weight"], dim=1)
        torch.testing.assert_close(described.embeddings, expected)
    assert model.title == "tiny, projections trained, no attributes"


def test_attributes_of_the_same_network_are_read_off_its_features(checkpoint, images, tmp_path):
    places = ModelPlaces(
        identity=write_identity(tmp_path / "id", weights=checkpoint),
        attributes=write_attributes(tmp_path / "at", weights=checkpoint, attributes=NAMES, untrained=("Male",)),
    )
    model = open_retrieval_model(places)
    assert model.real_attributes is not None
    assert model.real_attributes is model.art_attributes
    assert model.real_attributes.embedder is None  # the network runs once for both branches
    for described in (model.real(images), model.art(images)):
        torch.testing.assert_close(described.probabilities, yes(tmp_path / "at", phi(images, 7)))
    assert (model.attributes, model.untrained) == (NAMES, ("Male",))
    assert model.title == "tiny, projections trained, 3 attributes"


@pytest.mark.parametrize("case", ["other weights", "another crop", "trained network"])
def test_attributes_of_another_network_have_their_own(case, checkpoint, images, tmp_path):
    """Heads understand the embeddings that they were trained on, and no others: not even those of the same network
    after it was trained, whose folder still names the weights that it began with.
    """
    weights, crop, seed = checkpoint, None, 7
    if case == "other weights":
        weights, seed = write_checkpoint(tmp_path / "other.safetensors", seed=8), 8
    if case == "another crop":
        crop = CROP
    places = ModelPlaces(
        identity=write_identity(tmp_path / "id", weights=checkpoint, finetuned=case == "trained network"),
        attributes=write_attributes(tmp_path / "at", weights=weights, crop=crop),
    )
    model = open_retrieval_model(places)
    assert model.real_attributes is not None
    assert model.real_attributes.embedder is not None
    expected = yes(tmp_path / "at", phi(images, seed, crop))
    torch.testing.assert_close(model.real(images).probabilities, expected)
    torch.testing.assert_close(model.art(images).probabilities, expected)
    wrong = yes(tmp_path / "at", model.identity.embedder(images))
    assert (wrong - expected).abs().max() > 0.01


def test_random_weights_that_were_trained_are_random_no_longer(images, tmp_path):
    """A finetuned identity is loaded by way of the same random network that the heads were trained on."""
    places = ModelPlaces(
        identity=write_identity(tmp_path / "id", finetuned=True, seed=3),
        attributes=write_attributes(tmp_path / "at"),
    )
    model = open_retrieval_model(places)
    torch.testing.assert_close(model.identity.embedder(images), phi(images, 103))
    torch.testing.assert_close(model.real(images).probabilities, yes(tmp_path / "at", phi(images, 0)))
    assert model.title == "tiny, trained, 40 attributes"


def test_heads_of_their_own_for_art(checkpoint, images, tmp_path):
    real, art = (write_attributes(tmp_path / f"at{seed}", weights=checkpoint, seed=seed) for seed in (2, 3))
    model = open_retrieval_model(ModelPlaces(backbone="tiny", weights=checkpoint, attributes=real, art_attributes=art))
    torch.testing.assert_close(model.real(images).probabilities, yes(tmp_path / "at2", phi(images, 7)))
    torch.testing.assert_close(model.art(images).probabilities, yes(tmp_path / "at3", phi(images, 7)))
    assert model.title == "tiny, bare, 40 attributes, heads of their own for photographs and art"


def test_untrained_in_either_domain_is_untrained(checkpoint, tmp_path):
    real = write_attributes(tmp_path / "real", weights=checkpoint, attributes=NAMES, untrained=("Male",))
    art = write_attributes(tmp_path / "art", weights=checkpoint, attributes=NAMES, untrained=("Eyeglasses",))
    places = ModelPlaces(backbone="tiny", weights=checkpoint, attributes=real, art_attributes=art)
    assert open_retrieval_model(places).untrained == ("Eyeglasses", "Male")


def test_another_crop_is_every_networks_crop(checkpoint, images, tmp_path):
    other = write_checkpoint(tmp_path / "other.safetensors", seed=8)
    places = ModelPlaces(
        identity=write_identity(tmp_path / "id", weights=checkpoint),
        attributes=write_attributes(tmp_path / "at", weights=other),
        crop=CROP,
    )
    model = open_retrieval_model(places)
    assert model.crop == CROP
    torch.testing.assert_close(model.identity.embedder(images), phi(images, 7, CROP))
    torch.testing.assert_close(model.real(images).probabilities, yes(tmp_path / "at", phi(images, 8, CROP)))


def test_gradients_reach_the_pixels_and_no_weights(checkpoint, images, tmp_path):
    other = write_checkpoint(tmp_path / "other.safetensors", seed=8)
    places = ModelPlaces(
        identity=write_identity(tmp_path / "id", weights=checkpoint),
        attributes=write_attributes(tmp_path / "at", weights=other),
    )
    model = open_retrieval_model(places)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    for part in ("embeddings", "probabilities"):
        pixels = (images.float() / 255).requires_grad_()
        getattr(model.art(pixels), part).pow(3).sum().backward()
        assert pixels.grad is not None
        assert pixels.grad.abs().sum() > 0
    torch.testing.assert_close(model.real(images).embeddings, model.real(images.float() / 255).embeddings)


# --- its digest ------------------------------------------------------------------------------------


def test_equal_models_have_equal_digests_wherever_they_lie(checkpoint, tmp_path):
    identity = write_identity(tmp_path / "id", weights=checkpoint)
    attributes = write_attributes(tmp_path / "at", weights=checkpoint)
    shutil.copytree(tmp_path / "id", tmp_path / "moved")
    shutil.copy(checkpoint, tmp_path / "copy.bin")
    here = open_retrieval_model(ModelPlaces(identity=identity, attributes=attributes))
    there = open_retrieval_model(
        ModelPlaces(identity=str(tmp_path / "moved"), weights=str(tmp_path / "copy.bin"), attributes=attributes)
    )
    assert here.digest == there.digest


def test_every_part_counts(checkpoint, tmp_path):
    other = write_checkpoint(tmp_path / "other.safetensors", seed=8)
    bare = ModelPlaces(backbone="tiny", weights=checkpoint)
    heads = write_attributes(tmp_path / "at", weights=checkpoint)
    others = write_attributes(tmp_path / "at3", weights=checkpoint, seed=3)
    renamed = write_attributes(tmp_path / "renamed", weights=checkpoint, attributes=NAMES)
    shuffled = write_attributes(tmp_path / "shuffled", weights=checkpoint, attributes=NAMES[::-1])
    models = [
        bare,
        ModelPlaces(backbone="tiny", weights=other),
        ModelPlaces(identity=write_identity(tmp_path / "id", weights=checkpoint)),
        ModelPlaces(identity=write_identity(tmp_path / "id4", weights=checkpoint, seed=4)),
        ModelPlaces(identity=write_identity(tmp_path / "linear", weights=checkpoint, form="linear")),
        ModelPlaces(identity=write_identity(tmp_path / "trained", weights=checkpoint, finetuned=True)),
        *(dataclasses.replace(bare, attributes=folder) for folder in (heads, others, renamed, shuffled)),
        dataclasses.replace(bare, attributes=heads, art_attributes=others),
        dataclasses.replace(bare, attributes=others, art_attributes=heads),
        dataclasses.replace(bare, attributes=write_attributes(tmp_path / "far", weights=other)),
    ]
    digests = [open_retrieval_model(places).digest for places in models]
    assert len(set(digests)) == len(models)


def test_loading_draws_no_random_numbers_of_ours(checkpoint, tmp_path):
    places = ModelPlaces(
        identity=write_identity(tmp_path / "id", weights=checkpoint),
        attributes=write_attributes(tmp_path / "at", weights=checkpoint),
    )
    before = torch.get_rng_state()
    open_retrieval_model(places)
    assert torch.get_rng_state().equal(before)


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("places", [ModelPlaces(), ModelPlaces(identity="id", backbone="tiny")])
def test_neither_or_both(places):
    with pytest.raises(InputError, match=r"give either a trained identity model \(--identity.*or a bare network"):
        open_retrieval_model(places)


def test_a_bare_network_needs_weights():
    with pytest.raises(InputError, match=r"give the checkpoint of tiny \(--weights FILE\), or --weights random"):
        open_retrieval_model(ModelPlaces(backbone="tiny"))
    model = open_retrieval_model(ModelPlaces(backbone="tiny", weights="random", seed=7))
    assert weights_digest(model.identity.embedder.network) == weights_digest(tiny_embedder(7).network)


def test_heads_for_art_alone(checkpoint, tmp_path):
    art = write_attributes(tmp_path / "at", weights=checkpoint)
    with pytest.raises(InputError, match="heads for art alone compare with nothing; give heads for photographs"):
        open_retrieval_model(ModelPlaces(backbone="tiny", weights=checkpoint, art_attributes=art))


def test_heads_that_know_different_attributes(checkpoint, tmp_path):
    real = write_attributes(tmp_path / "real", weights=checkpoint, attributes=NAMES)
    art = write_attributes(tmp_path / "art", weights=checkpoint, attributes=NAMES[::-1])
    with pytest.raises(InputError, match=r'"[^"]*real" and "[^"]*art" know different attributes; train both'):
        open_retrieval_model(ModelPlaces(backbone="tiny", weights=checkpoint, attributes=real, art_attributes=art))


def test_the_checkpoint_of_the_heads_has_moved(checkpoint, images, tmp_path):
    other = write_checkpoint(tmp_path / "other.safetensors", seed=8)
    places = ModelPlaces(
        backbone="tiny", weights=checkpoint, attributes=write_attributes(tmp_path / "at", weights=other)
    )
    found = open_retrieval_model(places)
    (tmp_path / "other.safetensors").rename(tmp_path / "moved.safetensors")
    with pytest.raises(InputError, match=r"weights of tiny, which the attributes in .* are not at .*--attribute-wei"):
        open_retrieval_model(places)
    moved = open_retrieval_model(dataclasses.replace(places, attribute_weights=str(tmp_path / "moved.safetensors")))
    assert moved.digest == found.digest
    with pytest.raises(InputError, match="has other weights than those that the attributes in"):
        open_retrieval_model(dataclasses.replace(places, attribute_weights=checkpoint))


def test_the_checkpoint_of_the_identity_has_moved_or_changed(checkpoint, tmp_path):
    folder = write_identity(tmp_path / "id", weights=checkpoint)
    other = write_checkpoint(tmp_path / "other.safetensors", seed=8)
    with pytest.raises(InputError, match="has other weights than those that the model in"):
        open_retrieval_model(ModelPlaces(identity=folder, weights=other))
    (tmp_path / "tiny.safetensors").rename(tmp_path / "moved.safetensors")
    with pytest.raises(InputError, match=r"the weights of tiny are not at .*; say where they are now"):
        open_retrieval_model(ModelPlaces(identity=folder))
    open_retrieval_model(ModelPlaces(identity=folder, weights=str(tmp_path / "moved.safetensors")))


def test_a_trained_network_needs_no_checkpoint(checkpoint, tmp_path):
    folder = write_identity(tmp_path / "id", weights=checkpoint, finetuned=True)
    (tmp_path / "tiny.safetensors").unlink()
    assert open_retrieval_model(ModelPlaces(identity=folder)).title == "tiny, trained, no attributes"


def test_folders_that_are_not_what_they_should_be(checkpoint, tmp_path):
    identity = write_identity(tmp_path / "id", weights=checkpoint)
    attributes = write_attributes(tmp_path / "at", weights=checkpoint)
    with pytest.raises(InputError, match=r'nothing" has no model\.json; give the folder of `stylize train identity`'):
        open_retrieval_model(ModelPlaces(identity=str(tmp_path / "nothing")))
    with pytest.raises(InputError, match="is not an identity model of format 1"):
        open_retrieval_model(ModelPlaces(identity=attributes))
    with pytest.raises(InputError, match="is not an attributes model of format 1"):
        open_retrieval_model(ModelPlaces(identity=identity, attributes=identity))
    (tmp_path / "at" / "best.safetensors").unlink()
    with pytest.raises(InputError, match=r"has no best\.safetensors yet; train it"):
        open_retrieval_model(ModelPlaces(identity=identity, attributes=attributes))
    (tmp_path / "id" / "best.safetensors").write_bytes(b"cut sh")
    with pytest.raises(RunError, match=r"best\.safetensors\" cannot be read"):
        open_retrieval_model(ModelPlaces(identity=identity))


def test_heads_that_do_not_fit_their_document(checkpoint, tmp_path):
    attributes = write_attributes(tmp_path / "at", weights=checkpoint)
    state = load_file(tmp_path / "at" / "best.safetensors")
    save_file({name: tensor[:3].contiguous() for name, tensor in state.items()}, tmp_path / "at" / "best.safetensors")
    with pytest.raises(RunError, match=r"does not fit model\.json beside it"):
        open_retrieval_model(ModelPlaces(backbone="tiny", weights=checkpoint, attributes=attributes))


# --- where the models are ---------------------------------------------------------------------------


def test_places_go_through_json(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    places = ModelPlaces(
        identity="id", weights="~/w.ckpt", attributes="/abs/at", attribute_weights="random", seed=3, crop=CROP
    )
    again = ModelPlaces.from_dict(json.loads(json.dumps(places.as_dict())))
    assert again == ModelPlaces(
        identity=str(tmp_path / "id"),
        weights=str(tmp_path / "home" / "w.ckpt"),
        attributes="/abs/at",
        attribute_weights="random",
        seed=3,
        crop=CROP,
    )
    assert ModelPlaces.from_dict(ModelPlaces(backbone="tiny", weights="random").as_dict()) == ModelPlaces(
        backbone="tiny", weights="random"
    )


def test_the_card_is_the_backbones(checkpoint):
    assert open_retrieval_model(ModelPlaces(backbone="tiny", weights=checkpoint)).identity.embedder.card == CARD


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_says_what_the_cpu_does(checkpoint, images, tmp_path):
    places = ModelPlaces(
        identity=write_identity(tmp_path / "id", weights=checkpoint),
        attributes=write_attributes(tmp_path / "at", weights=checkpoint),
    )
    cpu, cuda = open_retrieval_model(places), open_retrieval_model(places, "cuda")
    for left, right in zip(cpu.real(images), cuda.real(images.cuda()), strict=True):
        torch.testing.assert_close(left, right.cpu(), rtol=1e-4, atol=1e-5)
