"""The yardstick: it is the package's own objective, spends its evaluations exactly, and leaves its inputs alone."""

from functools import cache

import pytest
import torch
from torch import Tensor

from stylize.convention import CONTENT_LAYER, STYLE_LAYERS
from stylize.objective import Objective, Targets
from stylize.textbook import TextbookLoop
from stylize.vgg import VGG19
from tests.tiny_transfer import picture, scales, to_tensor, weights

ALPHA, UNIT = 0.02, 3000.0
FACE, PAINTING = (to_tensor(picture(seed, 24, 20)).contiguous() for seed in (1, 2))


@cache
def network() -> VGG19:
    """Not shared with other tests: what becomes of it is one of the questions."""
    return VGG19(weights(), scales())


@cache
def loop() -> TextbookLoop:
    return TextbookLoop(network(), ALPHA, STYLE_LAYERS, CONTENT_LAYER, UNIT)


def objective_of(
    style: tuple[str, ...] = STYLE_LAYERS, content: str = CONTENT_LAYER, alpha: float = ALPHA
) -> Objective:
    return Objective(VGG19(weights(), scales()), alpha, style, content, UNIT)


def loss(subject: Objective, image: Tensor) -> Tensor:
    targets = Targets(subject.style_targets(PAINTING[None]), subject.content_target(FACE[None]))
    return subject.losses(image[None], targets).total[0]


@pytest.mark.parametrize("evaluations", [1, 2, 19, 20, 21, 22, 45])
def test_exactly_so_many_evaluations_are_made(monkeypatch, evaluations):
    subject = TextbookLoop(network(), ALPHA, ("conv1_1", "conv2_1"), "conv2_2", UNIT)
    seen = 0
    plain = subject._taps

    def counted(x: Tensor) -> dict[str, Tensor]:
        nonlocal seen
        seen += 1
        return plain(x)

    monkeypatch.setattr(subject, "_taps", counted)
    result = subject.run(FACE, PAINTING, evaluations)
    assert len(result.curve) == evaluations
    assert seen == evaluations + 2  # and one for each target


@pytest.mark.parametrize(
    ("style", "content", "alpha"),
    [(STYLE_LAYERS, CONTENT_LAYER, 0.02), (("conv3_4", "conv1_2"), "conv2_1", 5.0), (("conv4_2",), "conv4_2", 1.0)],
)
def test_its_losses_are_the_objectives(style, content, alpha):
    """At the start and, after the one step that it takes unseen, at the image that it returns."""
    subject = TextbookLoop(network(), alpha, style, content, UNIT)
    reference = objective_of(style, content, alpha)
    (first,) = subject.run(FACE, PAINTING, 1).curve
    assert first == pytest.approx(float(loss(reference, FACE)), rel=1e-5)
    after_one = subject.run(FACE, PAINTING, 1).image
    second = subject.run(FACE, PAINTING, 2).curve[1]
    assert second == pytest.approx(float(loss(reference, after_one)), rel=1e-4)


def test_its_course_is_that_of_torchs_optimiser_on_the_objective():
    reference = objective_of()
    image = FACE.clone().requires_grad_(True)
    optimiser = torch.optim.LBFGS([image], max_iter=6)
    curve = []

    def closure() -> Tensor:
        with torch.no_grad():
            image.clamp_(0, 1)
        optimiser.zero_grad()
        value = loss(reference, image)
        value.backward()
        curve.append(value.item())
        return value

    optimiser.step(closure)  # type: ignore[no-untyped-call,arg-type,unused-ignore]
    assert len(curve) == 6
    assert list(loop().run(FACE, PAINTING, 6).curve) == pytest.approx(curve, rel=0.01)


def test_the_loss_falls_and_the_image_is_an_image():
    result = loop().run(FACE, PAINTING, 25)
    assert result.curve[-1] < 0.5 * result.curve[0]
    assert float(loss(objective_of(), result.image)) < 0.5 * result.curve[0]
    assert result.image.shape == FACE.shape
    assert result.image.dtype == torch.float32
    assert not result.image.requires_grad
    assert 0 <= float(result.image.min()) < float(result.image.max()) <= 1


def test_runs_do_not_depend_on_those_before():
    first, between, second = (loop().run(FACE, painting, 4) for painting in (PAINTING, PAINTING.flip(1), PAINTING))
    assert first.curve == second.curve
    assert torch.equal(first.image, second.image)
    assert between.curve != first.curve


def test_face_and_painting_are_left_as_they_are():
    before = FACE.clone(), PAINTING.clone()
    loop().run(FACE, PAINTING, 3)
    assert torch.equal(FACE, before[0])
    assert torch.equal(PAINTING, before[1])


def test_the_layout_of_the_pictures_in_memory_does_not_matter():
    face, painting = (image.permute(1, 2, 0).contiguous().permute(2, 0, 1) for image in (FACE, PAINTING))
    assert not face.is_contiguous()
    assert loop().run(face, painting, 4).curve == pytest.approx(loop().run(FACE, PAINTING, 4).curve, rel=1e-4)


def test_where_nothing_is_to_be_done_it_stops():
    result = loop().run(FACE, FACE, 50)
    assert result.curve == (0.0,)
    assert torch.equal(result.image, FACE)


def test_the_network_passed_in_is_left_as_it_is_in_values_and_in_layout():
    """Its layers are copied: with another memory layout, everybody else who uses it would become slower."""
    subject = VGG19(weights(), scales())

    def places() -> list[tuple[int, tuple[int, ...]]]:
        return [(tensor.data_ptr(), tensor.stride()) for tensor in subject.parameters()]

    values = [tensor.clone() for tensor in subject.parameters()]
    layers, before = list(subject.features), places()
    TextbookLoop(subject, ALPHA, STYLE_LAYERS, CONTENT_LAYER, UNIT).run(FACE, PAINTING, 2)
    assert all(torch.equal(a, b) for a, b in zip(values, subject.parameters(), strict=True))
    assert list(subject.features) == layers
    assert all(tensor.grad is None and not tensor.requires_grad for tensor in subject.parameters())
    assert places() == before
