"""From face images to a network's input: against Pillow, PyTorch's own resizing, and arithmetic by hand."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from manifests.errors import InputError
from pipeline.backbones.card import BackboneCard
from pipeline.backbones.face_input import WHOLE_IMAGE, FaceInput

PLAIN = BackboneCard(
    name="plain",
    width=32,
    height=40,
    channels="rgb",
    mean=(0.0, 0.0, 0.0),
    std=(255.0, 255.0, 255.0),
    crop=None,
    embedding=8,
    parameters=0,
    source="",
    licence="",
)
SIDES = st.integers(1, 60)


def pictures(height: int, width: int, *, count: int = 2, seed: int = 0) -> Tensor:
    """Smooth pictures with sharp edges and noise, uint8 [count, 3, height, width]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, max(height // 8, 1), max(width // 8, 1), generator=generator)
    smooth = F.interpolate(coarse, (height, width), mode="bilinear")
    noise = 0.2 * torch.rand(count, 3, height, width, generator=generator)
    return ((smooth * 0.8 + noise) * 255).round().to(torch.uint8)


def by_pillow(image: Tensor, width: int, height: int, box: tuple[float, float, float, float]) -> Tensor:
    """Resize each channel of a uint8 image [3, H, W] as Pillow does in floating point, to [3, height, width]."""
    channels = (Image.fromarray(channel.numpy().astype(np.float32)) for channel in image)
    resized = [channel.resize((width, height), Image.Resampling.BILINEAR, box=box) for channel in channels]
    return torch.stack([torch.from_numpy(np.array(channel)) for channel in resized])


@given(height=SIDES, width=SIDES, to_height=SIDES, to_width=SIDES, edges=st.tuples(*[st.floats(0, 1)] * 4))
@settings(max_examples=80, deadline=None)
def test_crop_and_size_are_pillows(height, width, to_height, to_width, edges):
    (left, right), (top, bottom) = sorted(edges[:2]), sorted(edges[2:])
    if (right - left) * width < 0.5 or (bottom - top) * height < 0.5:  # Pillow rounds so small a box to nothing
        left, top, right, bottom = WHOLE_IMAGE
    images = pictures(height, width)
    card = dataclasses.replace(PLAIN, width=to_width, height=to_height)
    output = FaceInput(card, (left, top, right, bottom))(images)
    assert output.shape == (2, 3, to_height, to_width)
    assert output.dtype == torch.float32
    box = (left * width, top * height, right * width, bottom * height)
    for image, resized in zip(images, output, strict=True):
        torch.testing.assert_close(resized * 255, by_pillow(image, to_width, to_height, box), atol=0.02, rtol=0)


@pytest.mark.parametrize("size", [(218, 178), (109, 89), (250, 250), (20, 16), (40, 32)])
def test_a_whole_image_is_resized_as_pytorch_does_it(size):
    images = pictures(*size)
    expected = F.interpolate(images.double(), (40, 32), mode="bilinear", antialias=True, align_corners=False)
    torch.testing.assert_close(FaceInput(PLAIN)(images) * 255, expected.float(), atol=1e-3, rtol=0)


def test_a_crop_at_whole_pixels_of_the_right_size_is_the_slice():
    images = pictures(60, 50)
    crop = (7 / 50, 11 / 60, 39 / 50, 51 / 60)
    output = FaceInput(PLAIN, crop)(images)
    torch.testing.assert_close(output * 255, images[:, :, 11:51, 7:39].float(), atol=1e-3, rtol=0)


def test_the_cards_crop_is_used_unless_another_is_given():
    images = pictures(60, 50)
    cropping = dataclasses.replace(PLAIN, crop=(0.25, 0.1, 0.75, 0.6))
    assert FaceInput(cropping).crop == (0.25, 0.1, 0.75, 0.6)
    assert torch.equal(FaceInput(cropping)(images), FaceInput(PLAIN, cropping.crop)(images))
    assert torch.equal(FaceInput(cropping, WHOLE_IMAGE)(images), FaceInput(PLAIN)(images))
    assert not torch.equal(FaceInput(cropping)(images), FaceInput(PLAIN)(images))


def test_half_pixels_of_a_crop_count():
    """A ramp moves by what its crop moves by; with the crop rounded to whole pixels it would move by 0 or by 1."""
    ramp = torch.arange(100, dtype=torch.float32).expand(1, 3, 90, 100) / 255
    left = FaceInput(PLAIN, (0.20, 0.2, 0.60, 0.8))(ramp)
    right = FaceInput(PLAIN, (0.205, 0.2, 0.605, 0.8))(ramp)
    torch.testing.assert_close((right - left) * 255, torch.full((1, 3, 40, 32), 0.5), atol=0.1, rtol=0)


def test_channels_in_their_order():
    image = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 9, 7)

    def constant(card: BackboneCard) -> list[float]:
        output = FaceInput(card)(image)
        first = output[..., :1, :1]
        torch.testing.assert_close(output, first.expand_as(output))
        return [round(value, 4) for value in first.flatten().tolist()]

    unit = dataclasses.replace(PLAIN, mean=(0.0,) * 3, std=(1.0,) * 3)
    assert constant(unit) == [10, 20, 30]
    assert constant(dataclasses.replace(unit, channels="bgr")) == [30, 20, 10]
    grey = dataclasses.replace(unit, channels="grey", mean=(0.0,), std=(1.0,))
    assert constant(grey) == [round(0.299 * 10 + 0.587 * 20 + 0.114 * 30, 4)]


def test_mean_and_deviation_are_of_pixels_up_to_255_in_the_networks_channel_order():
    image = torch.tensor([0, 100, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 5, 5)
    card = dataclasses.replace(PLAIN, channels="bgr", mean=(91.0, 103.0, 131.0), std=(1.0, 2.0, 4.0))
    values = FaceInput(card)(image)[0, :, 0, 0]
    torch.testing.assert_close(values, torch.tensor([255 - 91.0, (100 - 103) / 2, (0 - 131) / 4]))
    grey = dataclasses.replace(PLAIN, channels="grey", mean=(127.5,), std=(128.0,))
    values = FaceInput(grey)(image)[0, :, 0, 0]
    torch.testing.assert_close(values, torch.tensor([(0.587 * 100 + 0.114 * 255 - 127.5) / 128]))


def test_grey_is_pillows():
    images = pictures(50, 40)
    grey = dataclasses.replace(PLAIN, channels="grey", mean=(0.0,), std=(1.0,), width=40, height=50)
    for image, output in zip(images, FaceInput(grey)(images), strict=True):
        expected = torch.from_numpy(np.array(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L")))
        assert output.shape == (1, 50, 40)
        assert (output[0] - expected.float()).abs().max() <= 1  # Pillow rounds


@pytest.mark.parametrize("channels", ["rgb", "bgr", "grey"])
def test_bytes_and_floats_of_the_same_picture_give_the_same(channels):
    count = 1 if channels == "grey" else 3
    card = dataclasses.replace(PLAIN, channels=channels, mean=(127.5,) * count, std=(128.0,) * count)
    images = pictures(109, 89)
    prepare = FaceInput(card, (0.2, 0.25, 0.8, 0.8))
    expected = prepare(images)
    for dtype, tolerance in ((torch.float32, 2e-6), (torch.float64, 2e-6), (torch.float16, 2e-3)):
        output = prepare((images.double() / 255).to(dtype))
        assert output.dtype == torch.float32
        torch.testing.assert_close(output, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("channels", ["rgb", "grey"])
def test_gradients_reach_float_images(channels):
    """Every step is linear: the gradient of ⟨g, f(x)⟩ is the same for any x and gives differences exactly."""
    count = 1 if channels == "grey" else 3
    card = dataclasses.replace(PLAIN, channels=channels, mean=(100.0,) * count, std=(50.0,) * count)
    prepare = FaceInput(card, (0.1, 0.2, 0.93, 0.81))
    direction = torch.randn(2, count, 40, 32, generator=torch.Generator().manual_seed(1))
    image = (pictures(70, 60).float() / 255).requires_grad_()
    black = torch.zeros_like(image)
    (gradient,) = torch.autograd.grad((direction * prepare(image)).sum(), image)
    change = (direction * (prepare(image.detach()) - prepare(black))).sum()
    torch.testing.assert_close((gradient * image.detach()).sum(), change, rtol=1e-4, atol=1e-3)
    assert (gradient.abs().sum((0, 1))[20:50, 10:50] > 0).all()


def test_gradients_after_an_evaluation_in_inference_mode():
    """The resampling weights are kept from call to call, and inference tensors could not be differentiated through."""
    prepare = FaceInput(dataclasses.replace(PLAIN, width=31, height=37))
    with torch.inference_mode():
        prepare(pictures(43, 41))
    image = torch.rand(1, 3, 43, 41, requires_grad=True)
    prepare(image).sum().backward()
    assert image.grad is not None


def test_under_autocast_the_input_stays_exact():
    images = pictures(109, 89)
    prepare = FaceInput(PLAIN, (0.2, 0.2, 0.8, 0.8))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = prepare(images)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, prepare(images))


def test_images_do_not_depend_on_their_batchmates():
    images = pictures(109, 89, count=5)
    prepare = FaceInput(PLAIN, (0.2, 0.2, 0.8, 0.8))
    together = prepare(images)
    torch.testing.assert_close(together, torch.cat([prepare(image[None]) for image in images]), atol=1e-6, rtol=0)
    assert prepare(images[:0]).shape == (0, 3, 40, 32)


def test_nothing_of_it_is_part_of_a_state_dict():
    assert not FaceInput(PLAIN).state_dict()


@pytest.mark.parametrize(
    "crop",
    [
        (0.5, 0.0, 0.5, 1.0),
        (0.6, 0.0, 0.5, 1.0),
        (0.0, 1.0, 1.0, 0.0),
        (-0.1, 0.0, 1.0, 1.0),
        (0.0, 0.0, 178.0, 218.0),
        (0.0, 0.0, 1.0, math.nan),
        (0.0, 0.0, 1.0),
        (),
    ],
)
def test_crops_outside_the_image_are_refused(crop):
    with pytest.raises(InputError, match="fractions"):
        FaceInput(PLAIN, crop)


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(3, 10, 10),
        torch.zeros(1, 1, 10, 10),
        torch.zeros(1, 10, 10, 3),
        torch.zeros(1, 3, 0, 10),
        torch.zeros(1, 3, 10, 10, dtype=torch.int64),
        torch.zeros(1, 3, 10, 10, dtype=torch.bool),
    ],
)
def test_what_is_not_a_batch_of_images_is_refused(images):
    with pytest.raises(ValueError, match="images must be"):
        FaceInput(PLAIN)(images)


def test_a_card_whose_numbers_do_not_match_its_channels_is_refused():
    with pytest.raises(ValueError, match="plain"):
        FaceInput(dataclasses.replace(PLAIN, channels="grey"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_the_gpu_it_is_the_same():
    images = pictures(218, 178)
    prepare = FaceInput(PLAIN, (0.2, 0.25, 0.8, 0.8))
    expected = prepare(images)
    torch.testing.assert_close(prepare.to("cuda")(images.to("cuda")).cpu(), expected, atol=1e-5, rtol=0)
