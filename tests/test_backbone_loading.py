"""A backbone by name with the weights of a file: every key format, every wrong file, and what is done to the rest."""

import collections
import dataclasses
import hashlib
import os
import pickle
import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn

from manifests.errors import InputError
from pipeline.backbones import registry, zoo
from pipeline.backbones.card import BackboneCard
from pipeline.backbones.embedder import FaceEmbedder, load_embedder
from pipeline.backbones.loading import fitting_backbones, load_network, weights_digest
from pipeline.backbones.registry import Backbone, backbone_names, find_backbone
from pipeline.backbones.state_dict import read_state_dict

CARD = BackboneCard(
    name="tiny",
    width=8,
    height=10,
    channels="rgb",
    mean=(127.5,) * 3,
    std=(128.0,) * 3,
    crop=(0.1, 0.2, 0.9, 0.8),
    embedding=5,
    parameters=0,
    source="",
    licence="",
)


class Tiny(nn.Module):
    """The smallest network with everything that a state dict can have."""

    def __init__(self, width: int = 4, *, deep: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(0.5)
        self.body = nn.Sequential(*(nn.Conv2d(width, width, 1) for _ in range(2 if deep else 1)))
        self.embed = nn.Linear(width, 5)

    def forward(self, images: Tensor) -> Tensor:
        features = self.body(self.dropout(self.bn(self.conv(images))))
        embedding: Tensor = self.embed(features.mean((2, 3)))
        return embedding


def from_foreign(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """A port that calls the last layer "fc", has a classifier and takes BGR."""
    if "fc.weight" not in state:
        return None
    names = {name: name.replace("fc.", "embed.") for name in state if not name.startswith("classifier.")}
    renamed = {new: state[old] for old, new in names.items()}
    return renamed | {"conv.weight": renamed["conv.weight"].flip(1)}


@pytest.fixture(autouse=True)
def tiny_registry(monkeypatch):
    """Small backbones in the place of the real ones."""
    monkeypatch.setattr(registry, "_REGISTRY", {})
    registry.register(Backbone(CARD, Tiny, (lambda state: None, from_foreign)))
    registry.register(Backbone(dataclasses.replace(CARD, name="tiny-deep"), lambda: Tiny(deep=True)))
    registry.register(Backbone(dataclasses.replace(CARD, name="tiny-wide"), lambda: Tiny(6)))


def trained() -> dict[str, Tensor]:
    """A state dict of Tiny that no initialisation gives."""
    generator = torch.Generator().manual_seed(3)
    return {
        name: torch.rand(tensor.shape, generator=generator) + 0.1 if tensor.is_floating_point() else torch.tensor(77)
        for name, tensor in Tiny().state_dict().items()
    }


def foreign(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {name.replace("embed.", "fc."): tensor for name, tensor in state.items()}
    return renamed | {"conv.weight": state["conv.weight"].flip(1), "classifier.weight": torch.ones(100, 5)}


def prefixed(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def saved(folder: Path, content: object, name: str = "weights.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


def assert_trained(network: nn.Module) -> None:
    loaded = network.state_dict()
    for name, tensor in trained().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(loaded[name], tensor), name


def refusal(name: str, path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_network(name, path)
    message = str(caught.value)
    assert str(path) in message
    assert message.isprintable()
    return message


# What fits


HEAD = {"head.kernel": torch.ones(5, 100), "head.t": torch.zeros(1)}
FORMATS: dict[str, object] = {
    "plain": trained(),
    "DataParallel": prefixed("module.", trained()),
    "Lightning": {"state_dict": prefixed("model.", trained()) | HEAD, "epoch": 3},
    "backbone and head": {"model": prefixed("backbone.", trained()) | HEAD},
    "our embedder": prefixed("network.", trained()),
    "wrapped twice": {"net_state_dict": prefixed("module.model.", trained())},
    "foreign": foreign(trained()),
    "foreign in DataParallel in Lightning": {"state_dict": prefixed("model.module.", foreign(trained()))},
    "double": {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in trained().items()},
    "parameters": collections.OrderedDict(
        (name, nn.Parameter(tensor) if tensor.is_floating_point() else tensor) for name, tensor in trained().items()
    ),
    "without counters": {name: tensor for name, tensor in trained().items() if "num_batches" not in name},
    "counters of another shape": trained() | {"bn.num_batches_tracked": torch.ones(3)},
    "counters of elsewhere": trained() | {"body.num_batches_tracked": torch.tensor(1)},
}


@pytest.mark.parametrize("content", FORMATS.values(), ids=FORMATS)
def test_every_key_format_gives_the_same_network(tmp_path, content):
    loaded = load_network("tiny", saved(tmp_path, content))
    assert_trained(loaded.network)
    assert loaded.digest == load_network("tiny", saved(tmp_path, trained())).digest
    assert loaded.card == CARD
    assert not any(module.training for module in loaded.network.modules())
    assert all(tensor.dtype == torch.float32 for tensor in loaded.network.parameters())
    assert all(parameter.requires_grad for parameter in loaded.network.parameters())


def test_every_container_gives_the_same_digest(tmp_path):
    path = saved(tmp_path, trained())
    digest = load_network("tiny", path).digest
    torch.save(trained(), path, _use_new_zipfile_serialization=False)
    assert load_network("tiny", path).digest == digest
    safetensors.torch.save_file(trained(), tmp_path / "weights.safetensors")
    assert load_network("tiny", tmp_path / "weights.safetensors").digest == digest
    path.write_bytes(pickle.dumps({name: tensor.numpy() for name, tensor in trained().items()}))
    assert load_network("tiny", str(path)).digest == digest


def test_the_digest_is_of_names_shapes_and_values():
    """Recomputed from its description."""
    network = Tiny()
    sha = hashlib.sha256()
    state = network.state_dict()
    for name in sorted(set(state) - {"bn.num_batches_tracked"}):
        sha.update(f"{name} torch.float32 {list(state[name].shape)}\n".encode() + state[name].numpy().tobytes())
    assert weights_digest(network) == sha.hexdigest()
    network.get_buffer("bn.num_batches_tracked").fill_(5)
    assert weights_digest(network) == sha.hexdigest()
    for name in ("bn.running_var", "embed.bias"):
        with torch.no_grad():
            network.state_dict()[name][0] += 1e-6
        assert weights_digest(network) != sha.hexdigest()
    assert weights_digest(network.bfloat16()) != weights_digest(network.float())


def test_halves_are_widened(tmp_path):
    path = saved(tmp_path, {name: tensor.half() for name, tensor in trained().items()})
    weight = load_network("tiny", path).network.get_parameter("conv.weight")
    assert weight.dtype == torch.float32
    assert torch.equal(weight, trained()["conv.weight"].half().float())


def test_the_file_may_go_once_it_is_loaded(tmp_path):
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(trained(), path)
    network = load_network("tiny", path).network
    path.write_bytes(b"\0" * path.stat().st_size)
    assert_trained(network)


# Random weights


def test_random_weights_follow_their_seed_and_leave_every_random_state_alone(monkeypatch):
    cuda_seeds: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", cuda_seeds.append)
    torch.manual_seed(1)
    cuda_seeds.clear()
    before = torch.random.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002
    first = load_network("tiny", "random", seed=5)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert (random.getstate(), str(np.random.get_state())) == before[1:]  # noqa: NPY002
    assert not cuda_seeds
    torch.manual_seed(2)
    assert load_network("tiny", "random", seed=5).digest == first.digest
    assert load_network("tiny", "random", seed=6).digest != first.digest
    assert load_network("tiny", "random").digest == load_network("tiny", "random", seed=0).digest
    assert not first.network.training


def test_loading_a_file_leaves_the_random_state_alone(tmp_path):
    path = saved(tmp_path, trained())
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    load_network("tiny", path)
    assert torch.equal(torch.random.get_rng_state(), before)


# What does not fit


def test_a_checkpoint_of_another_network_is_refused_with_what_does_not_fit(tmp_path):
    path = saved(tmp_path, {f"layer{number}.weight": torch.ones(2) for number in range(9)})
    message = refusal("tiny", path)
    assert "do not fit tiny" in message
    assert "9 keys missing (conv.weight; bn.weight; bn.bias; …)" in message
    assert "9 keys not of this network (layer0.weight; layer1.weight; layer2.weight; …)" in message
    assert "give another file or another backbone" in message


def test_the_backbone_that_does_fit_is_named(tmp_path):
    path = saved(tmp_path, prefixed("module.", Tiny(deep=True).state_dict()))
    message = refusal("tiny", path)
    assert "2 keys not of this network (body.1.weight; body.1.bias)" in message
    assert message.endswith("they fit tiny-deep")
    message = refusal("tiny-deep", saved(tmp_path, trained()))
    assert "2 keys missing (body.1.weight; body.1.bias)" in message
    assert message.endswith("they fit tiny")


def test_other_shapes_are_told(tmp_path):
    message = refusal("tiny", saved(tmp_path, Tiny(6).state_dict()))
    assert (
        "8 keys of another shape (conv.weight [6, 3, 3, 3], expected [4, 3, 3, 3]; bn.weight [6], expected [4]; "
        in message
    )
    assert "missing" not in message
    assert message.endswith("they fit tiny-wide")


def test_the_complaint_is_about_the_nearest_reading(tmp_path):
    state = prefixed("module.", foreign(trained()))
    del state["module.fc.bias"]
    message = refusal("tiny", saved(tmp_path, state))
    assert "1 keys missing (embed.bias)" in message
    assert "not of this network" not in message


def test_a_classifier_is_dropped_by_a_renaming_alone(tmp_path):
    """Loading itself drops nothing: a classifier may be what tells two networks apart."""
    path = saved(tmp_path, trained() | {"classifier.weight": torch.ones(9, 5)})
    assert "1 keys not of this network (classifier.weight)" in refusal("tiny", path)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["embed.weight", "bn.running_var"])
def test_values_that_are_not_finite_are_refused(tmp_path, number, name):
    state = trained()
    state[name].view(-1)[-1] = number
    message = refusal("tiny", saved(tmp_path, foreign(state)))
    assert name in message
    assert "finite" in message


def test_values_too_large_for_float32_are_refused(tmp_path):
    state = {name: tensor.double() for name, tensor in trained().items()}
    state["embed.bias"][0] = 1e300
    assert "finite" in refusal("tiny", saved(tmp_path, state))


def test_bad_files_are_refused_by_name(tmp_path):
    refusal("tiny", tmp_path / "nowhere.pth")
    path = saved(tmp_path, trained())
    path.write_bytes(path.read_bytes()[:-200])
    assert "whole" in refusal("tiny", path)


def test_names_in_a_file_cannot_write_on_the_terminal(tmp_path):
    refusal("tiny", saved(tmp_path, {"\x1b[2J" * 1000: torch.ones(1)}))
    refusal("tiny", saved(tmp_path, {"module." * 5000 + "x": torch.ones(1)}))


def test_an_unknown_backbone_is_refused_before_the_weights_are_read(tmp_path):
    with pytest.raises(InputError, match='did you mean "tiny-deep"'):
        load_network("tiny-dep", tmp_path / "nowhere.pth")


# The embedder


def test_the_embedder_is_the_input_and_the_network(tmp_path):
    embedder = load_embedder("tiny", saved(tmp_path, trained()))
    images = torch.randint(0, 256, (3, 3, 40, 30), dtype=torch.uint8)
    with torch.no_grad():
        embeddings = embedder(images)
        assert torch.equal(embeddings, embedder.network(embedder.face_input(images)))
    assert embeddings.shape == (3, 5)
    assert embeddings.dtype == torch.float32
    assert embedder.card == CARD
    assert embedder.digest == load_network("tiny", tmp_path / "weights.pth").digest
    assert not any(module.training for module in embedder.modules())
    assert embedder.face_input.crop == CARD.crop
    assert load_embedder("tiny", "random", crop=(0, 0, 1, 1)).face_input.crop == (0, 0, 1, 1)


def test_an_embedders_state_dict_is_its_networks_and_loads_again(tmp_path):
    embedder = load_embedder("tiny", "random", seed=9)
    assert set(embedder.state_dict()) == {f"network.{name}" for name in Tiny().state_dict()}
    path = saved(tmp_path, embedder.state_dict())
    assert load_embedder("tiny", path).digest == embedder.digest


def test_embeddings_are_float32_under_autocast_and_differentiable():
    embedder = load_embedder("tiny", "random")
    images = torch.rand(2, 3, 40, 30, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        embeddings = embedder(images)
    assert embeddings.dtype == torch.float32
    embeddings.sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in embedder.network.parameters())


def test_a_network_that_is_not_the_cards_is_noticed():
    embedder = FaceEmbedder(dataclasses.replace(CARD, embedding=6), Tiny())
    with pytest.raises(ValueError, match=r"tiny gave \[2, 5\] instead of \[2, 6\]"):
        embedder(torch.zeros(2, 3, 20, 20, dtype=torch.uint8))


def test_a_bad_crop_is_refused():
    with pytest.raises(InputError, match="fractions"):
        load_embedder("tiny", "random", crop=(35, 54, 142, 178))


# The real ones


REAL = (
    "adaface-ir101",
    "adaface-ir50",
    "arcface-iresnet100",
    "arcface-iresnet50",
    "inception-resnet-v1",
    "lightcnn29",
    "lightcnn9",
    "mobilefacenet",
    "sphereface20",
    "vggface",
    "vggface2-resnet50",
    "vggface2-senet50",
)


@pytest.fixture
def real_registry(monkeypatch):
    monkeypatch.undo()


def hollow(backbone: Backbone) -> dict[str, Tensor]:
    """A state dict of the backbone whose tensors take no room: one number each, expanded."""
    with torch.device("meta"):
        state = backbone.build().state_dict()
    return {name: torch.tensor(0.01).expand(tensor.shape) for name, tensor in state.items()}


@pytest.mark.usefixtures("real_registry")
def test_the_zoo_has_every_architecture():
    assert backbone_names() == REAL
    for name in REAL:
        assert zoo.backbone(name).card.name == name
    with pytest.raises(InputError, match="arcface-iresnet50"):
        zoo.backbone("arcface-iresnet500")


@pytest.mark.usefixtures("real_registry")
@pytest.mark.parametrize("name", ["adaface-ir50", "arcface-iresnet100", "lightcnn29", "vggface", "vggface2-senet50"])
def test_a_state_dict_of_one_real_backbone_fits_that_one_alone(name):
    assert fitting_backbones(prefixed("module.", hollow(find_backbone(name)))) == [name]


@pytest.mark.usefixtures("real_registry")
def test_timm_models_by_name(tmp_path):
    pytest.importorskip("timm")
    embedder = load_embedder("timm:resnet10t", "random")
    images = torch.zeros(1, 3, 50, 40, dtype=torch.uint8)
    with torch.no_grad():
        assert embedder(images).shape == (1, embedder.card.embedding)
    path = saved(
        tmp_path, embedder.network.state_dict() | {"fc.weight": torch.ones(10, 512), "fc.bias": torch.ones(10)}
    )
    assert load_embedder("timm:resnet10t", path).digest == embedder.digest


def area_under_curve(scores: np.ndarray, positive: np.ndarray) -> float:
    """Chance that a positive scores above a negative."""
    negatives = np.sort(scores[~positive])
    return float(np.searchsorted(negatives, scores[positive]).mean() / len(negatives))


@pytest.mark.data
@pytest.mark.usefixtures("real_registry")
def test_the_shared_mobilefacenet_tells_people_apart():
    data = os.environ.get("STYLIZE_TEST_DATA")
    if not data:
        pytest.skip("STYLIZE_TEST_DATA is not set")
    weights = Path(data, "facerec", "mobilefacenet_068.ckpt")
    crop = (69 / 250, 52 / 250, 181 / 250, 182 / 250)  # of deep-funneled LFW
    embedder = load_embedder("mobilefacenet", weights, crop=crop)
    files = [file for person in sorted(Path(data, "lfw").iterdir()) for file in sorted(person.glob("*.jpg"))[:3]]
    images = torch.stack([torch.from_numpy(np.array(Image.open(file).convert("RGB"))) for file in files])
    with torch.inference_mode():
        embeddings = nn.functional.normalize(embedder(images.permute(0, 3, 1, 2)))
    people = np.array([file.parent.name for file in files])
    pairs = np.triu_indices(len(files), 1)
    scores = (embeddings @ embeddings.T).numpy()[pairs]
    assert area_under_curve(scores, (people[:, None] == people)[pairs]) > 0.98
    assert set(read_state_dict(weights)) >= set(embedder.network.state_dict())
