"""The check of a fast number format, and what is taken where it fails."""

import math
import os
from functools import cache
from pathlib import Path

import pytest
import torch

import stylize.transfer
from stylize import precision
from stylize.convention import CONTENT_LAYER, STYLE_LAYERS
from stylize.drift import GRADIENT_TOLERANCE, LOSS_TOLERANCE, drift, is_faithful
from stylize.objective import Objective
from stylize.settings import TransferSettings
from stylize.transfer import StyleTransfer
from stylize.unit_rms import feature_scales, reference_images
from stylize.vgg import VGG19
from stylize.weights import LAYERS, VGGWeights, load_weights
from tests.tiny_transfer import picture, scales, to_tensor, weights

CPU = torch.device("cpu")


def wrapped(network: VGG19) -> Objective:
    return Objective(network, 0.02, STYLE_LAYERS, CONTENT_LAYER, 3000.0)


@cache
def objective(dtype: torch.dtype = torch.float32) -> Objective:
    return wrapped(VGG19(weights(), scales(), dtype))


def broken(layer: str, factor: float, dtype: torch.dtype = torch.bfloat16) -> Objective:
    """An objective whose convolution of one layer computes something else."""
    network = VGG19(weights(), scales(), dtype)
    _, convolution, _ = next(stage for stage in network.stages() if stage[0] == layer)
    convolution.weight.mul_(factor)
    return wrapped(network)


def test_fp32_does_not_drift_from_itself():
    assert drift(objective(), objective(), "fp32", CPU) == (0.0, 0.0)
    assert drift(wrapped(VGG19(weights(), scales())), objective(), "fp32", CPU) == (0.0, 0.0)
    assert is_faithful(objective(), objective(), "fp32", CPU)


def test_bfloat16_drifts_a_little_and_within_tolerance():
    loss, gradient = drift(objective(torch.bfloat16), objective(), "bf16", CPU)
    assert 0 < loss < LOSS_TOLERANCE
    assert 0 < gradient < GRADIENT_TOLERANCE
    assert is_faithful(objective(torch.bfloat16), objective(), "bf16", CPU)


# Random weights with the other sign are as good, and in the last layer they give nearly the same losses.
LAST = ("conv5_1", -1.0)


@pytest.mark.parametrize(
    ("layer", "factor"),
    [(layer, factor) for layer in LAYERS[::3] for factor in (-1.0, 0.0, math.nan, math.inf) if (layer, factor) != LAST],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_convolution_that_computes_something_else_is_noticed_in_any_layer(layer, factor, dtype):
    assert not is_faithful(broken(layer, factor, dtype), objective(), "fp32", CPU)


@pytest.mark.data
def test_with_a_trained_network_bfloat16_is_faithful_and_a_wrong_sign_is_noticed_in_every_layer():
    folder = os.environ.get("STYLIZE_TEST_DATA")
    if not folder:
        pytest.skip("STYLIZE_TEST_DATA is not set")
    loaded = load_weights(str(Path(folder, "vgg19", "vgg19_imagenet_features.safetensors")))
    measured = feature_scales(loaded, reference_images(2, 64))
    exact = wrapped(VGG19(loaded, measured))
    assert is_faithful(wrapped(VGG19(loaded, measured, torch.bfloat16)), exact, "bf16", CPU)
    wrong = VGG19(loaded, measured)
    for layer, convolution, _ in wrong.stages():
        convolution.weight.neg_()
        assert not is_faithful(wrapped(wrong), exact, "fp32", CPU), layer
        convolution.weight.neg_()
    assert drift(wrapped(wrong), exact, "fp32", CPU) == (0.0, 0.0)


def test_a_gradient_that_is_wrong_is_noticed_even_where_the_loss_is_right(monkeypatch):
    subject = wrapped(objective().network)
    plain = subject.value_and_gradient
    for change in (torch.neg, torch.zeros_like, lambda g: g.flip(-1), lambda g: g * torch.nan, lambda g: 2 * g):
        monkeypatch.setattr(
            subject, "value_and_gradient", lambda *a, change=change: (plain(*a)[0], change(plain(*a)[1]))
        )
        assert drift(subject, objective(), "fp32", CPU)[0] == 0
        assert not is_faithful(subject, objective(), "fp32", CPU)


def test_the_check_is_the_same_every_time_and_leaves_the_random_state_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    assert len({drift(objective(torch.bfloat16), objective(), "bf16", CPU) for _ in range(2)}) == 1
    assert torch.equal(torch.random.get_rng_state(), before)


# What "auto" takes


def make(name: str = "auto") -> StyleTransfer:
    return StyleTransfer(weights(), scales(), TransferSettings(precision=name), "cpu")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Formats whose accuracy was checked; on this machine bf16 is said to be native."""
    asked: list[str] = []
    monkeypatch.setattr(precision, "native_precisions", lambda device: ("bf16", "fp32"))
    return asked


def answering(monkeypatch: pytest.MonkeyPatch, answer: bool, asked: list[str]) -> None:
    def checked(working: Objective, exact: Objective, name: str, device: torch.device) -> bool:
        assert working is not exact
        asked.append(name)
        return answer

    monkeypatch.setattr(stylize.transfer, "is_faithful", checked)


def test_auto_takes_the_fast_format_where_it_is_faithful(monkeypatch, asked):
    answering(monkeypatch, True, asked)
    subject = make()
    assert subject.precision == "bf16"
    assert subject.objective.network.dtype == torch.bfloat16
    assert asked == ["bf16"]


def test_auto_falls_back_to_fp32_where_it_is_not_and_is_fp32_throughout(monkeypatch, asked):
    answering(monkeypatch, False, asked)
    subject, plain = make(), make("fp32")
    assert subject.precision == "fp32"
    assert subject.objective.network is subject.exact_network
    assert asked == ["bf16"]
    images = torch.stack([to_tensor(picture(seed, 20, 24)) for seed in range(3)])
    for method in ("style_targets", "content_target"):
        a, b = (getattr(transfer, method)(images) for transfer in (subject, plain))
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    # One image at a time, as in fp32: no image's bits depend on its batchmates.
    assert torch.equal(subject.content_target(images)[1], subject.content_target(images[1:2])[0])


def test_every_faster_format_is_tried_in_turn(monkeypatch, asked):
    monkeypatch.setattr(precision, "native_precisions", lambda device: ("bf16", "tf32", "fp32"))
    answering(monkeypatch, False, asked)
    assert make().precision == "fp32"
    assert asked == ["bf16", "tf32"]


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_a_format_asked_for_by_name_is_taken_unchecked(monkeypatch, asked, name):
    answering(monkeypatch, False, asked)
    assert make(name).precision == name
    assert not asked


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize("works", [True, False])
def test_a_machine_whose_bfloat16_computes_something_else_works_in_fp32(monkeypatch, works):
    def made(weights: VGGWeights, scales: tuple[float, ...], dtype: torch.dtype = torch.float32) -> VGG19:
        network = VGG19(weights, scales, dtype)
        if dtype == torch.bfloat16 and not works:
            next(network.stages())[1].weight.neg_()
        return network

    monkeypatch.setattr(stylize.transfer, "VGG19", made)
    assert make().precision == ("bf16" if works else "fp32")
