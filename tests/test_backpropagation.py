"""The written-out backward pass against autograd, at taps before and after poolings, at ties and at dead neurons."""

from collections.abc import Sequence
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stylize.backpropagation import ForwardPass
from stylize.convention import CONTENT_LAYER, STYLE_LAYERS
from stylize.objective import Objective, Targets
from stylize.vgg import VGG19
from stylize.weights import LAYERS, VGGWeights
from tests.tiny_transfer import picture, scales, to_tensor, weights

# (style layers, content layer)
CHOICES: list[tuple[tuple[str, ...], str]] = [
    (STYLE_LAYERS, CONTENT_LAYER),
    (("conv1_1",), "conv1_1"),
    (("conv1_2", "conv2_2", "conv3_4"), "conv4_4"),  # each tapped just before a pooling; the last one ends the pass
    (("conv1_2", "conv4_4"), "conv5_1"),
    (("conv4_2", "conv2_1"), "conv4_2"),  # shared, and not in the order of depth
    (("conv3_1", "conv1_1"), "conv2_2"),
    (("conv5_1",), "conv1_1"),
    (LAYERS, "conv3_3"),
]
SIZES = [(16, 16), (33, 27), (17, 31)]


@cache
def network(dtype: torch.dtype, bias_shift: float = 0.0) -> VGG19:
    """The tiny tests' network; with a shift of all biases, many of its neurons are dead."""
    if not bias_shift:
        return VGG19(weights(), scales(), dtype)
    tensors = {key: t - bias_shift if key.endswith("bias") else t for key, t in weights().tensors.items()}
    return VGG19(VGGWeights(tensors, "1" * 64), None, dtype)


def objective(
    style: Sequence[str], content: str, dtype: torch.dtype, alpha: float = 0.02, bias_shift: float = 0.0
) -> Objective:
    return Objective(network(dtype, bias_shift), alpha, style, content, 3000.0)


def images(first_seed: int, count: int, size: tuple[int, int]) -> Tensor:
    return torch.stack([to_tensor(picture(first_seed + number, *size)) for number in range(count)])


def targets_of(subject: Objective, faces: Tensor, paintings: Tensor) -> Targets:
    return Targets(subject.style_targets(paintings), subject.content_target(faces))


def by_autograd(subject: Objective, x: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    leaf = x.clone().requires_grad_(True)
    total = subject.losses(leaf, targets).total
    (gradient,) = torch.autograd.grad(total.sum(), leaf)
    return total.detach(), gradient


def error(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


@pytest.mark.parametrize(("style", "content"), CHOICES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch", [1, 3])
def test_in_float64_value_and_gradient_are_autograds(style, content, size, batch):
    subject = objective(style, content, torch.float64)
    x, faces, paintings = (images(seed, batch, size).double() for seed in (10, 20, 30))
    targets = targets_of(subject, faces, paintings)
    value, gradient = subject.value_and_gradient(x, targets)
    expected_value, expected = by_autograd(subject, x, targets)
    assert gradient.dtype == torch.float64
    assert gradient.is_contiguous()
    assert not value.requires_grad
    assert not gradient.requires_grad
    assert value.tolist() == pytest.approx(expected_value.tolist(), rel=1e-12)
    for row in range(batch):
        assert error(gradient[row], expected[row]) < 1e-12


@pytest.mark.parametrize(("style", "content"), CHOICES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_in_shorter_formats_the_gradient_is_autograds_but_for_rounding(style, content, dtype, tolerance):
    subject = objective(style, content, dtype)
    x, faces, paintings = (images(seed, 2, (27, 33)) for seed in (10, 20, 30))
    targets = targets_of(subject, faces, paintings)
    value, gradient = subject.value_and_gradient(x, targets)
    expected_value, expected = by_autograd(subject, x, targets)
    assert value.dtype == gradient.dtype == torch.float32
    assert value.tolist() == pytest.approx(expected_value.tolist(), rel=1e-6)
    for row in range(2):
        assert error(gradient[row], expected[row]) < tolerance


def test_bfloat16_points_the_way_of_float64():
    x, faces, paintings = (images(seed, 2, (32, 40)) for seed in (10, 20, 30))
    gradients = []
    for dtype in (torch.float64, torch.bfloat16):
        subject = objective(STYLE_LAYERS, CONTENT_LAYER, dtype)
        exact = [tensor.double() if dtype == torch.float64 else tensor for tensor in (x, faces, paintings)]
        gradients.append(subject.value_and_gradient(exact[0], targets_of(subject, exact[1], exact[2]))[1].double())
    for a, b in zip(*gradients, strict=True):
        assert float(torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0)) > 0.95


@pytest.mark.parametrize("alpha", [0.0, 5.0])
@pytest.mark.parametrize(("style", "content"), CHOICES[:5])
def test_the_weight_of_the_content_reaches_the_gradient(style, content, alpha):
    subject = objective(style, content, torch.float64, alpha)
    x, faces, paintings = (images(seed, 1, (20, 24)).double() for seed in (10, 20, 30))
    targets = targets_of(subject, faces, paintings)
    assert error(subject.value_and_gradient(x, targets)[1], by_autograd(subject, x, targets)[1]) < 1e-12


def test_the_border_that_poolings_leave_out_is_still_seen_by_the_layers_before_them():
    """31 columns: the pooling drops the last one, conv1_1 and conv1_2 do not."""
    x, faces, paintings = (images(seed, 1, (17, 31)).double() for seed in (10, 20, 30))
    subject = objective(("conv1_1",), "conv2_1", torch.float64)
    gradient = subject.value_and_gradient(x, targets_of(subject, faces, paintings))[1]
    assert bool((gradient[..., -1] != 0).any())
    assert bool((gradient[..., -1, :] != 0).any())


# Pooling before ReLU


@pytest.mark.parametrize("layers", [LAYERS, *((*style, content) for style, content in CHOICES)])
@pytest.mark.parametrize("bias_shift", [0.0, 1.0])
def test_features_are_those_of_the_plain_forward_pass(layers, bias_shift):
    subject = network(torch.float32, bias_shift)
    x = images(1, 2, (33, 27))
    passed, plain = ForwardPass(subject, x, layers), subject(x, layers)
    assert set(passed.features) == set(plain) == set(layers)
    for layer in layers:
        features = passed.features[layer]
        assert torch.equal(features, plain[layer]), layer
        assert features.is_contiguous(memory_format=torch.channels_last)


def flat_picture(level: float) -> Tensor:
    """Every window of every layer, but at the border, is a tie."""
    return torch.full((1, 3, 24, 20), level, dtype=torch.float64)


@pytest.mark.parametrize("level", [0.0, 0.45, 1.0])
@pytest.mark.parametrize("bias_shift", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("style", "content"), CHOICES[:4])
def test_ties_and_dead_windows_pass_the_gradient_as_relu_before_pooling_does(style, content, bias_shift, level):
    subject = objective(style, content, torch.float64, bias_shift=bias_shift)
    targets = targets_of(subject, images(20, 1, (24, 20)).double(), images(30, 1, (24, 20)).double())
    x = flat_picture(level)
    value, gradient = subject.value_and_gradient(x, targets)
    expected_value, expected = by_autograd(subject, x, targets)
    assert value.tolist() == pytest.approx(expected_value.tolist(), rel=1e-12)
    assert float(expected.norm()) > 0 or bias_shift  # a network that is dead throughout has no gradient
    assert float((gradient - expected).norm()) <= 1e-12 * float(expected.norm())


def test_the_shifted_network_has_ties_and_windows_without_a_positive_value():
    """What the tests beside it rely on."""
    features = network(torch.float64, 1.0)(images(10, 1, (24, 20)).double(), ("conv1_2",))["conv1_2"]
    windows = torch.nn.functional.unfold(features.transpose(0, 1), 2, stride=2)
    dead = (windows == 0).all(1)
    assert 0.1 < float(dead.double().mean()) < 0.9
    flat = network(torch.float64)(flat_picture(0.45), ("conv1_2",))["conv1_2"][..., 2:-2, 2:-2]
    assert float((flat - flat[..., :1, :1]).abs().max()) < 1e-12


@given(
    levels=st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=9, max_size=9),
    bias_shift=st.sampled_from([0.0, 1.0]),
    choice=st.sampled_from(CHOICES),
    size=st.sampled_from([(16, 16), (19, 23)]),
)
@settings(max_examples=15, deadline=None)
def test_pictures_of_a_few_flat_patches_have_autograds_gradient(levels, bias_shift, choice, size):
    style, content = choice
    subject = objective(style, content, torch.float64, bias_shift=bias_shift)
    targets = targets_of(subject, images(20, 1, size).double(), images(30, 1, size).double())
    patches = torch.tensor(levels, dtype=torch.float64).view(1, 1, 3, 3).expand(1, 3, 3, 3)
    x = torch.nn.functional.interpolate(patches, size=size, mode="nearest").contiguous()
    gradient, expected = subject.value_and_gradient(x, targets)[1], by_autograd(subject, x, targets)[1]
    assert float((gradient - expected).norm()) <= 1e-12 * float(expected.norm())


# The contract of ForwardPass


def test_each_tapped_layer_is_asked_for_its_gradient_once_and_the_last_one_first():
    asked: list[tuple[str, torch.Size]] = []
    layers = ("conv3_1", "conv1_1", "conv2_2", "conv2_1")
    passed = ForwardPass(network(torch.float32), images(1, 2, (20, 24)), layers)
    gradient = passed.backward(lambda layer, gradient: asked.append((layer, gradient.shape)))
    assert [layer for layer, _ in asked] == ["conv3_1", "conv2_2", "conv2_1", "conv1_1"]
    assert all(shape == passed.features[layer].shape for layer, shape in asked)
    assert gradient.shape == (2, 3, 20, 24)
    assert float(gradient.abs().max()) == 0  # nobody added anything


def test_a_linear_function_of_one_layer_has_autograds_gradient():
    """For each layer: it alone is tapped, so every other one is pooled before ReLU."""
    x = images(1, 1, (19, 22)).double()
    subject = network(torch.float64)
    for layer in LAYERS:
        passed = ForwardPass(subject, x, (layer,))
        generator = torch.Generator().manual_seed(3)
        weight = torch.randn(passed.features[layer].shape, generator=generator, dtype=torch.float64)

        def add_gradient(_: str, gradient: Tensor, weight: Tensor = weight) -> None:
            gradient.add_(weight)

        gradient = passed.backward(add_gradient)
        leaf = x.clone().requires_grad_(True)
        (expected,) = torch.autograd.grad((subject(leaf, (layer,))[layer] * weight).sum(), leaf)
        assert error(gradient, expected) < 1e-12, layer


def test_images_weights_and_features_are_left_as_they_are():
    subject = objective(*CHOICES[2], torch.float32)
    x = images(10, 2, (20, 24))
    targets = targets_of(subject, images(20, 2, (20, 24)), images(30, 2, (20, 24)))
    kept = [x, *targets.grams, targets.content, *subject.network.parameters()]
    before = [tensor.detach().clone() for tensor in kept]
    first = subject.value_and_gradient(x, targets)
    assert all(torch.equal(a, b) for a, b in zip(before, kept, strict=True))
    second = subject.value_and_gradient(x, targets)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    passed = ForwardPass(subject.network, x, ("conv1_2", "conv3_1"))
    features = {layer: tensor.clone() for layer, tensor in passed.features.items()}
    passed.backward(lambda layer, gradient: gradient.fill_(1.0))  # type: ignore[arg-type,return-value,unused-ignore]
    assert all(torch.equal(features[layer], tensor) for layer, tensor in passed.features.items())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize(("style", "content"), CHOICES)
def test_on_cuda_the_gradient_is_the_cpus(style, content, dtype, tolerance):
    from stylize.precision import convolution_precision  # noqa: PLC0415

    x, faces, paintings = (images(seed, 2, (33, 27)) for seed in (10, 20, 30))
    expected = objective(style, content, torch.float64)
    wanted = expected.value_and_gradient(x.double(), targets_of(expected, faces.double(), paintings.double()))
    on_cuda = Objective(VGG19(weights(), scales(), dtype).cuda(), 0.02, style, content, 3000.0)
    with convolution_precision("fp32"):
        value, gradient = on_cuda.value_and_gradient(x.cuda(), targets_of(on_cuda, faces.cuda(), paintings.cuda()))
    assert value.tolist() == pytest.approx(wanted[0].tolist(), rel=max(tolerance, 1e-3))
    if dtype == torch.float32:
        assert error(gradient.cpu(), wanted[1]) < tolerance
    else:
        a, b = gradient.cpu().double().flatten(), wanted[1].flatten()
        assert float(torch.nn.functional.cosine_similarity(a, b, dim=0)) > 1 - tolerance
