"""Loading VGG-19: one digest whatever the container, and a clear refusal of everything else."""

import os
import pickle
import urllib.error
from collections.abc import Mapping
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from stylize.errors import WeightsError
from stylize.weights import CONVOLUTIONS, load_weights
from tests.tiny_transfer import weights


def full_state() -> dict[str, Tensor]:
    state = {f"features.{name}": tensor for name, tensor in weights().tensors.items()}
    return state | {"features.30.weight": torch.ones(2), "classifier.0.bias": torch.ones(3)}


def hollow(network: str) -> dict[str, Tensor]:
    """State dict of a torchvision network whose tensors take no room on disk: one number each, expanded."""
    with torch.device("meta"):
        state = getattr(torchvision.models, network)(weights=None).state_dict()
    return {name: torch.tensor(0.01).expand(tensor.shape) for name, tensor in state.items()}


def refusal(path: Path | str) -> str:
    with pytest.raises(WeightsError) as caught:
        load_weights(str(path))
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_digest_is_that_of_the_tensors_in_every_container(tmp_path):
    bare = dict(weights().tensors)
    containers: dict[str, object] = {
        "full.pth": full_state(),
        "bare.pt": bare,
        "wrapped.pth": {"epoch": 7, "state_dict": full_state()},
        "double.pth": {name: tensor.double() for name, tensor in bare.items()},
        "parameters.pth": {name: torch.nn.Parameter(tensor) for name, tensor in bare.items()},
    }
    digests = set()
    for name, state in containers.items():
        torch.save(state, tmp_path / name)
        digests.add(load_weights(str(tmp_path / name)).digest)
        (tmp_path / name).unlink()
    for name, state in {"full.safetensors": full_state(), "bare.safetensors": bare}.items():
        safetensors.torch.save_file(state, tmp_path / name)
        loaded = load_weights(str(tmp_path / name))
        digests.add(loaded.digest)
        (tmp_path / name).unlink()
    torch.save(bare, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    digests.add(load_weights(str(tmp_path / "legacy.pth")).digest)
    (tmp_path / "legacy.pth").unlink()
    assert len(digests) == 1
    assert set(loaded.tensors) == set(bare)
    for name, tensor in loaded.tensors.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, bare[name])


def test_digest_changes_with_one_number(tmp_path):
    state = hollow("vgg19")
    torch.save(state, tmp_path / "a.pth")
    bias = torch.full((512,), 0.01)
    bias[511] += 1e-6
    torch.save(state | {"features.28.bias": bias}, tmp_path / "b.pth")
    assert load_weights(str(tmp_path / "a.pth")).digest != load_weights(str(tmp_path / "b.pth")).digest


def test_deeper_layers_and_the_classifier_do_not_enter_the_digest(tmp_path):
    state = hollow("vgg19")
    torch.save(state, tmp_path / "full.pth")
    features = {name: tensor for name, tensor in state.items() if name.startswith("features.")}
    features["features.30.weight"] = torch.zeros(1)
    torch.save(features, tmp_path / "features.pth")
    assert load_weights(str(tmp_path / "full.pth")).digest == load_weights(str(tmp_path / "features.pth")).digest


def test_half_precision_safetensors_become_float32(tmp_path):
    state = {name: tensor.half() for name, tensor in weights().tensors.items()}
    safetensors.torch.save_file(state, tmp_path / "half.safetensors")
    loaded = load_weights(str(tmp_path / "half.safetensors"))
    (tmp_path / "half.safetensors").unlink()
    assert all(tensor.dtype == torch.float32 for tensor in loaded.tensors.values())
    assert torch.equal(loaded.tensors["0.weight"], state["0.weight"].float())


def test_random_weights_follow_their_seed_and_nothing_else():
    torch.manual_seed(1)
    first = load_weights("random", seed=5)
    before = torch.random.get_rng_state()
    again = load_weights("random", seed=5)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.digest == again.digest
    assert load_weights("random", seed=6).digest != first.digest
    for _, index, outputs, inputs in CONVOLUTIONS:
        assert first.tensors[f"{index}.weight"].shape == (outputs, inputs, 3, 3)


@pytest.mark.parametrize("network", ["vgg16", "vgg13", "vgg19_bn", "resnet18", "alexnet"])
def test_another_network_is_refused(tmp_path, network):
    torch.save(hollow(network), tmp_path / "other.pth")
    assert "not VGG-19" in refusal(tmp_path / "other.pth")


def test_a_network_of_the_same_names_and_other_shapes_is_refused(tmp_path):
    state = hollow("vgg19")
    torch.save(state | {"features.19.weight": torch.zeros(1).expand(512, 128, 3, 3)}, tmp_path / "wide.pth")
    message = refusal(tmp_path / "wide.pth")
    assert "conv4_1" in message
    assert "[512, 128, 3, 3]" in message


def test_a_missing_layer_is_named(tmp_path):
    state = hollow("vgg19")
    del state["features.28.bias"]
    torch.save(state, tmp_path / "short.pth")
    assert "conv5_1" in refusal(tmp_path / "short.pth")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(tmp_path, number):
    state = hollow("vgg19") | {"features.5.bias": torch.full((1,), number).expand(128)}
    torch.save(state, tmp_path / "nan.pth")
    assert "finite" in refusal(tmp_path / "nan.pth")


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {}, {"features.0.weight": "text"}, {"state_dict": {}}, 7])
def test_checkpoints_of_something_else_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "other.pth")
    refusal(tmp_path / "other.pth")


@pytest.mark.parametrize("name", ["weights.pth", "weights.pt", "weights.safetensors", "weights"])
@pytest.mark.parametrize(
    "content", [b"", b"these are not weights\n", b"\x80\x02", b"PK\x03\x04", bytes(range(256)) * 40, b"\xff" * 64]
)
def test_files_that_are_no_weights_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.999])
def test_truncated_files_are_refused(tmp_path, name, part):
    path = tmp_path / name
    tiny = {"features.0.weight": torch.ones(64, 3, 3, 3), "features.0.bias": torch.ones(64)}
    if name.endswith(".pth"):
        torch.save(tiny, path)
    else:
        safetensors.torch.save_file(tiny, path)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    refusal(path)


def test_missing_paths_folders_and_unknown_homes_are_refused(tmp_path):
    refusal(tmp_path / "nowhere.pth")
    refusal(tmp_path)
    refusal("")
    with pytest.raises(WeightsError):
        load_weights("~nobody-of-this-name/weights.pth")
    with pytest.raises(WeightsError):
        load_weights("x" * 5000)


class _Malicious:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_with_code_in_it_does_not_run(tmp_path):
    trap = tmp_path / "trap"
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(_Malicious(trap)))
    torch.save({"features.0.weight": _Malicious(trap)}, tmp_path / "zip.pth")
    torch.save({"state_dict": _Malicious(trap)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "disguised.safetensors").write_bytes(pickle.dumps(_Malicious(trap)))
    for name in ("plain.pth", "zip.pth", "old.pt", "disguised.safetensors"):
        refusal(tmp_path / name)
        assert not trap.exists(), name
    assert "without running code" in refusal(tmp_path / "zip.pth")


def test_a_whole_pickled_module_is_refused_with_the_remedy(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    assert "state_dict" in refusal(tmp_path / "module.pth")


@pytest.mark.parametrize("error", [urllib.error.URLError("no network"), OSError("disk full"), RuntimeError("bad hash")])
def test_a_failed_download_says_what_to_give_instead(monkeypatch, error):
    def fail(*args: object, **options: object) -> Mapping[str, Tensor]:
        raise error

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(WeightsError, match="--weights") as caught:
        load_weights("imagenet")
    assert str(error) in str(caught.value)


def test_imagenet_weights_are_torchvisions(monkeypatch):
    def deliver(*args: object, **options: object) -> Mapping[str, Tensor]:
        assert options.get("check_hash")
        return full_state()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", deliver)
    loaded = load_weights("imagenet")
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in weights().tensors.items())


@given(
    place=st.floats(0, 1, exclude_max=True),
    patch=st.binary(min_size=1, max_size=6),
    kind=st.sampled_from(["zip", "old", "safetensors"]),
)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files_raise_nothing_but_the_refusal(tmp_path, place, patch, kind):
    state = {"features.0.weight": torch.ones(2), "features.0.bias": torch.ones(1)}
    path = tmp_path / ("damaged.safetensors" if kind == "safetensors" else "damaged.pth")
    if kind == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    data = bytearray(path.read_bytes())
    start = int(place * len(data))
    data[start : start + len(patch)] = patch
    path.write_bytes(data)
    with pytest.raises(WeightsError):
        load_weights(str(path))
