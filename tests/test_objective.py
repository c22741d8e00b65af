"""Gram matrices, losses and gradients against a plain float64 reimplementation of PersonArt's Eq. 1–3."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stylize.convention import CONTENT_LAYER, STYLE_LAYERS
from stylize.gram import add_style_gradient_, gram_matrix, style_loss
from stylize.objective import Objective, Targets
from stylize.vgg import VGG19
from stylize.weights import LAYERS
from tests.test_vgg import plain_features
from tests.tiny_transfer import picture, scales, to_tensor, weights

ALPHA, UNIT = 0.02, 3000.0
FACES, PAINTINGS, IMAGES = (
    torch.stack([to_tensor(picture(seed + number, 32, 40)) for number in range(2)]) for seed in (10, 20, 30)
)


def plain_gram(features: Tensor) -> Tensor:
    """One image's F Fᵀ / (C·H·W), features [C, H, W]."""
    channels, height, width = features.shape
    flat = features.reshape(channels, height * width)
    return flat @ flat.T / (channels * height * width)


def plain_losses(
    image: Tensor, face: Tensor, painting: Tensor, divisors: dict[str, float]
) -> tuple[Tensor, list[Tensor], Tensor]:
    """Total, style and content losses of one image [3, H, W] in float64, in loss units."""
    x, f, p = ({k: v[0] / divisors[k] for k, v in plain_features(i[None]).items()} for i in (image, face, painting))
    style = [UNIT * (plain_gram(p[layer]) - plain_gram(x[layer])).square().sum() / 4 for layer in STYLE_LAYERS]
    content = UNIT * (f["conv4_2"] - x["conv4_2"]).square().mean() / 2
    return sum(style, ALPHA * content), style, content


def objective(dtype: torch.dtype = torch.float32, unit_rms: bool = True) -> Objective:
    network = VGG19(weights(), scales() if unit_rms else None, dtype)
    return Objective(network, ALPHA, STYLE_LAYERS, CONTENT_LAYER, UNIT)


def targets_of(subject: Objective, faces: Tensor, paintings: Tensor) -> Targets:
    return Targets(subject.style_targets(paintings), subject.content_target(faces))


def close(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def test_the_papers_layers():
    assert STYLE_LAYERS == ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")
    assert CONTENT_LAYER == "conv4_2"


@pytest.mark.parametrize("unit_rms", [True, False])
def test_losses_and_gradients_agree_with_the_plain_reimplementation(unit_rms):
    divisors = dict(zip(LAYERS, scales() if unit_rms else [1.0] * 13, strict=True))
    subject = objective(unit_rms=unit_rms)
    targets = targets_of(subject, FACES, PAINTINGS)
    losses = subject.losses(IMAGES, targets)
    value, gradient = subject.value_and_gradient(IMAGES, targets)
    assert not value.requires_grad
    assert not gradient.requires_grad
    for row in range(2):
        image = IMAGES[row].double().requires_grad_(True)
        total, style, content = plain_losses(image, FACES[row], PAINTINGS[row], divisors)
        (expected,) = torch.autograd.grad(total, image)
        total = total.detach()
        assert float(value[row]) == pytest.approx(float(total), rel=1e-5)
        assert float(losses.total[row]) == pytest.approx(float(total), rel=1e-5)
        assert losses.style[row].tolist() == pytest.approx([float(loss) for loss in style], rel=1e-5)
        assert float(losses.content[row]) == pytest.approx(float(content), rel=1e-5)
        assert close(gradient[row], expected) < 1e-5


def test_gram_targets_agree_with_the_plain_reimplementation():
    for layer, gram in zip(STYLE_LAYERS, objective(unit_rms=False).style_targets(PAINTINGS), strict=True):
        for row in range(2):
            assert close(gram[row], plain_gram(plain_features(PAINTINGS)[layer][row])) < 1e-5, layer


def test_the_gradient_is_that_of_finite_differences_in_float64():
    subject = objective(torch.float64)
    targets = targets_of(subject, FACES[:1].double(), PAINTINGS[:1].double())
    image = IMAGES[:1].double()
    _, gradient = subject.value_and_gradient(image, targets)
    generator = torch.Generator().manual_seed(2)
    for _ in range(3):
        along = torch.randn(image.shape, generator=generator, dtype=torch.float64)
        h = 1e-7  # small: hardly one of the network's kinks lies within it
        up, down = (subject.losses(image + sign * h * along, targets).total for sign in (1, -1))
        slope = float((up - down) / (2 * h))
        assert float((gradient * along).sum()) == pytest.approx(slope, rel=1e-5, abs=1e-6)


def test_style_vanishes_at_the_painting_and_content_at_the_face():
    subject = objective()
    targets = targets_of(subject, FACES, PAINTINGS)
    at_painting, at_face = subject.losses(PAINTINGS, targets), subject.losses(FACES, targets)
    assert float(at_painting.style.max()) < 1e-9 * float(at_face.style.max())
    assert float(at_face.content.max()) == 0
    assert torch.allclose(at_face.total, at_face.style.sum(1))
    assert torch.allclose(at_painting.total, ALPHA * at_painting.content, rtol=1e-5)


def test_layers_are_settable_and_a_content_layer_may_be_a_style_layer():
    network = VGG19(weights(), scales())
    both = Objective(network, 0.5, ("conv2_2",), "conv2_2", 1.0)
    x = network(IMAGES, ("conv2_2",))["conv2_2"].double()
    f = network(FACES, ("conv2_2",))["conv2_2"].double()
    losses = both.losses(IMAGES, targets_of(both, FACES, PAINTINGS))
    assert losses.style.shape == (2, 1)
    assert losses.content.tolist() == pytest.approx(((x - f).square().mean((1, 2, 3)) / 2).tolist(), rel=1e-5)
    assert losses.total.tolist() == pytest.approx((losses.style[:, 0] + 0.5 * losses.content).tolist(), rel=1e-6)


def test_the_loss_unit_and_alpha_are_plain_factors():
    network = VGG19(weights(), scales())
    one = Objective(network, 0.0, STYLE_LAYERS, CONTENT_LAYER, 1.0)
    targets = targets_of(one, FACES, PAINTINGS)
    seven = Objective(network, 3.0, STYLE_LAYERS, CONTENT_LAYER, 7.0)
    a, b = one.losses(IMAGES, targets), seven.losses(IMAGES, targets)
    assert torch.allclose(b.style, 7 * a.style)
    assert torch.allclose(b.content, 7 * a.content)
    assert torch.allclose(b.total, 7 * (a.style.sum(1) + 3 * a.content), rtol=1e-5)


def test_neither_the_targets_nor_the_images_are_changed():
    subject = objective()
    targets = targets_of(subject, FACES, PAINTINGS)
    before = [tensor.clone() for tensor in (*targets.grams, targets.content, IMAGES)]
    subject.value_and_gradient(IMAGES, targets)
    assert all(torch.equal(a, b) for a, b in zip(before, (*targets.grams, targets.content, IMAGES), strict=True))


@given(
    batch=st.integers(1, 3),
    channels=st.integers(1, 9),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=40, deadline=None)
def test_gram_matrices_are_symmetric_semidefinite_and_independent_of_the_batch(batch, channels, height, width, seed):
    features = torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(seed))
    gram = gram_matrix(features)
    assert gram.dtype == torch.float32
    assert torch.allclose(gram, gram.mT, rtol=1e-6, atol=1e-9)
    assert float(torch.linalg.eigvalsh(gram.double()).min()) > -1e-6
    for row in range(batch):
        assert torch.equal(gram[row], gram_matrix(features[row : row + 1])[0])
        assert float((gram[row].double() - plain_gram(features[row].double())).abs().max()) < 1e-5


def style_gradient(features: Tensor, target: Tensor, factor: float) -> Tensor:
    """What `add_style_gradient_` adds to nothing."""
    gradient = torch.zeros_like(features)
    add_style_gradient_(gradient, features, gram_matrix(features), target, factor)
    return gradient


def channels_last(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    features = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return features.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_overflow_neither_the_gram_matrix_nor_its_gradient(dtype):
    features = torch.full((1, 4, 60, 60), 200.0, dtype=dtype).to(memory_format=torch.channels_last)
    assert gram_matrix(features).flatten().tolist() == pytest.approx([200.0**2 / 4] * 16, rel=1e-5)
    gradient = style_gradient(features, torch.zeros(1, 4, 4), 1.0)
    assert gradient.dtype == dtype
    # (G F)/(C·H·W) at every place: four channels of 10^4 · 200 / 14400
    assert gradient.float().flatten().tolist() == pytest.approx([4 * 1e4 * 200 / 14400] * 14400, rel=0.01)


def test_the_style_loss_is_a_quarter_of_the_squared_distance_of_each_images_own_matrices():
    gram = torch.tensor([[[1.0, 2.0], [2.0, 5.0]], [[0.0, 0.0], [0.0, 3.0]]])
    target = torch.tensor([[[1.0, 0.0], [0.0, 5.0]], [[2.0, 0.0], [0.0, 3.0]]])
    assert style_loss(gram, target).tolist() == [2.0, 1.0]


@given(
    batch=st.integers(1, 3),
    channels=st.integers(1, 9),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    factor=st.floats(-1e4, 1e4).filter(lambda factor: abs(factor) > 1e-3),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=60, deadline=None)
def test_the_style_losss_gradient_is_autograds(*, batch, channels, height, width, factor, seed):
    features = channels_last(batch, channels, height, width, seed=seed, dtype=torch.float64)
    target = gram_matrix(channels_last(batch, channels, height, width, seed=seed + 1, dtype=torch.float64))
    leaf = features.clone().requires_grad_(True)
    plain = sum((plain_gram(image) - gram).square().sum() / 4 for image, gram in zip(leaf, target, strict=True))
    (expected,) = torch.autograd.grad(factor * plain, leaf)
    assert torch.allclose(style_gradient(features, target, factor), expected, rtol=1e-11, atol=1e-13 * abs(factor))


def test_the_style_losss_gradient_is_added_to_what_is_there_and_changes_nothing_else():
    features, before = channels_last(2, 6, 5, 4, seed=1), channels_last(2, 6, 5, 4, seed=2)
    gram, target = gram_matrix(features), gram_matrix(features.flip(0))
    arguments = [tensor.clone() for tensor in (features, gram, target)]
    gradient = before.clone()
    add_style_gradient_(gradient, features, gram, target, 7.0)
    assert torch.allclose(gradient, before + style_gradient(features, target, 7.0), rtol=1e-5, atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(arguments, (features, gram, target), strict=True))


@pytest.mark.parametrize("shape", [(2, 6, 5, 4), (1, 1, 3, 2), (2, 3, 1, 1), (1, 4, 1, 5)])
def test_the_style_losss_gradient_does_not_depend_on_the_layout_in_memory(shape):
    features = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    target = gram_matrix(features.flip(1))
    gradients = []
    for layout in (torch.contiguous_format, torch.channels_last):
        gradients.append(style_gradient(features.clone().to(memory_format=layout), target, 3.0))
    assert float(gradients[0].abs().max()) > 0 or shape[1] == 1
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_images_style_gradient_has_the_same_bits_in_any_batch(dtype):
    features = channels_last(3, 9, 8, 7, seed=4, dtype=dtype)
    target = gram_matrix(features.flip(0))
    together = style_gradient(features, target, 2.0)
    for row in range(3):
        chosen = slice(row, row + 1)
        assert torch.equal(style_gradient(features[chosen], target[chosen], 2.0)[0], together[row])


def test_the_default_loss_unit_is_the_documented_one():
    from stylize.convention import CONVENTIONS  # noqa: PLC0415

    assert CONVENTIONS["raw"].loss_unit == 1
    assert CONVENTIONS["personart"].loss_unit == 3000
