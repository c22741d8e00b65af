"""VGG-19's features against a plain float64 loop over torchvision's layers."""

import pytest
import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F

from stylize.vgg import VGG19
from stylize.weights import CONVOLUTIONS, LAYERS, VGGWeights
from tests.tiny_transfer import picture, scales, to_tensor, weights

IMAGES = torch.stack([to_tensor(picture(seed, 34, 46)) for seed in (1, 2)])


def plain_features(images: Tensor) -> dict[str, Tensor]:
    """Features after ReLU in float64, layer by layer, named by counting pools and convolutions."""
    with torch.device("meta"):
        modules = torchvision.models.vgg19(weights=None).features
    x = images.double()
    x = (x - torch.tensor([0.485, 0.456, 0.406]).double().view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).double().view(3, 1, 1)
    found: dict[str, Tensor] = {}
    block, position = 1, 0
    for index, module in enumerate(modules):
        if isinstance(module, torch.nn.Conv2d):
            position += 1
            kernel, bias = weights().tensors[f"{index}.weight"], weights().tensors[f"{index}.bias"]
            x = F.conv2d(x, kernel.double(), bias.double(), padding=1)
        elif isinstance(module, torch.nn.ReLU):
            x = x.clamp_min(0)
            found[f"conv{block}_{position}"] = x
            if (block, position) == (5, 1):
                return found
        else:
            x = F.max_pool2d(x, 2, 2)
            block, position = block + 1, 0
    raise AssertionError("conv5_1 was not reached")


def distance(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def test_every_layer_agrees_with_torchvisions():
    expected = plain_features(IMAGES)
    features = VGG19(weights())(IMAGES, LAYERS)
    assert list(expected) == list(LAYERS)
    for layer in LAYERS:
        assert features[layer].shape == expected[layer].shape
        assert distance(features[layer], expected[layer]) < 1e-5, layer


def test_folded_scales_are_a_division_of_features():
    expected = plain_features(IMAGES)
    features = VGG19(weights(), scales())(IMAGES, LAYERS)
    for layer, scale in zip(LAYERS, scales(), strict=True):
        assert distance(features[layer], expected[layer] / scale) < 1e-5, layer


def test_folding_leaves_the_weights_as_they_came():
    before = {name: tensor.clone() for name, tensor in weights().tensors.items()}
    VGG19(weights(), [2.0] * 13)
    VGG19(weights(), None, torch.bfloat16)
    assert all(torch.equal(before[name], tensor) for name, tensor in weights().tensors.items())


def test_one_network_in_other_units_has_the_same_scaled_features():
    """Every layer rescaled, as Caffe's copy of VGG-19 is: positive homogeneity."""
    factors = [0.3 + 0.2 * number for number in range(13)]
    tensors: dict[str, Tensor] = {}
    before = 1.0
    for (_, index, _, _), factor in zip(CONVOLUTIONS, factors, strict=True):
        tensors[f"{index}.weight"] = weights().tensors[f"{index}.weight"] * factor / before
        tensors[f"{index}.bias"] = weights().tensors[f"{index}.bias"] * factor
        before = factor
    rescaled = [scale * factor for scale, factor in zip(scales(), factors, strict=True)]
    a = VGG19(weights(), scales())(IMAGES, LAYERS)
    b = VGG19(VGGWeights(tensors, ""), rescaled)(IMAGES, LAYERS)
    for layer in LAYERS:
        assert distance(a[layer], b[layer]) < 1e-5, layer


def test_taps_are_those_asked_for_and_not_overwritten_by_later_layers():
    network = VGG19(weights())
    every = network(IMAGES, LAYERS)
    for wanted in (("conv1_1",), ("conv4_2", "conv1_1"), ("conv5_1", "conv2_1", "conv2_1")):
        some = network(IMAGES, wanted)
        assert set(some) == set(wanted)
        for layer in wanted:
            assert torch.equal(some[layer], every[layer])
            assert float(some[layer].min()) >= 0
    images = IMAGES.clone()
    network(images, LAYERS)
    assert torch.equal(images, IMAGES)


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        [1.0] * 12,
        [1.0] * 14,
        [1.0] * 12 + [0.0],
        [-1.0] + [1.0] * 12,
        [float("nan")] + [1.0] * 12,
        [1.0] * 12 + [float("nan")],
        [1.0] * 12 + [float("inf")],
    ],
)
def test_scales_must_be_thirteen_positive_numbers(wrong):
    with pytest.raises(ValueError, match="13 positive"):
        VGG19(weights(), wrong)


def test_nothing_is_trained_and_the_smallest_image_passes():
    network = VGG19(weights())
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert network(torch.rand(1, 3, 16, 16), ("conv5_1",))["conv5_1"].shape == (1, 512, 1, 1)


def test_bfloat16_is_near_and_comes_back_as_bfloat16():
    expected = VGG19(weights(), scales())(IMAGES, LAYERS)
    features = VGG19(weights(), scales(), torch.bfloat16)(IMAGES, LAYERS)
    for layer in LAYERS:
        assert features[layer].dtype == torch.bfloat16
        assert distance(features[layer], expected[layer]) < 0.03, layer


def test_odd_sides_lose_their_last_row_in_pooling_as_in_torchvision():
    images = torch.rand(1, 3, 33, 47)
    assert distance(VGG19(weights())(images, ("conv5_1",))["conv5_1"], plain_features(images)["conv5_1"]) < 1e-5
