"""The loaded transfer: recorded losses against the plain float64 formulas, and the optimiser on the real objective."""

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stylize.decode import decode_image
from stylize.lbfgs import Stop
from stylize.objective import Targets
from stylize.settings import TransferSettings
from stylize.slots import make_optimiser
from stylize.trajectory import trace
from stylize.transfer import StyleTransfer
from stylize.unit_rms import feature_scales
from stylize.weights import LAYERS, load_weights
from tests import tiny_transfer
from tests.test_objective import plain_losses
from tests.tiny_transfer import picture, scales, to_tensor, transfer, weights

FACES = [picture(seed, 32, 40) for seed in (1, 2, 3)]
PAINTINGS = [picture(seed, 32, 40) for seed in (11, 12, 13)]
IMAGE = picture(21, 32, 40)


def targets_of(subject: StyleTransfer, faces: list[np.ndarray], paintings: list[np.ndarray]) -> Targets:
    return Targets(
        subject.objective.style_targets(torch.stack([subject.to_device(image) for image in paintings])),
        subject.objective.content_target(torch.stack([subject.to_device(image) for image in faces])),
    )


@pytest.mark.parametrize("convention", ["personart", "raw"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_recorded_losses_are_the_papers_formulas_whatever_the_working_precision(convention, precision):
    losses = transfer(convention=convention, precision=precision).losses(IMAGE, FACES[0], PAINTINGS[0])
    divisors = dict(zip(LAYERS, scales() if convention == "personart" else [1.0] * 13, strict=True))
    image, face, painting = (to_tensor(pixels) for pixels in (IMAGE, FACES[0], PAINTINGS[0]))
    total, style, content = plain_losses(image, face, painting, divisors)
    unit = 1.0 if convention == "personart" else 1 / 3000.0  # plain_losses speaks in personart's loss units
    assert losses.total.shape == (1,)
    assert losses.style.shape == (1, 5)
    assert losses.total.device.type == "cpu"
    assert float(losses.total) == pytest.approx(unit * float(total), rel=1e-5)
    assert losses.style[0].tolist() == pytest.approx([unit * float(loss) for loss in style], rel=1e-5)
    assert float(losses.content) == pytest.approx(unit * float(content), rel=1e-5)


def test_pixels_survive_the_way_to_the_device_and_back():
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    subject = transfer()
    on_device = subject.to_device(every)
    assert on_device.dtype == torch.float32
    assert on_device.shape == (3, 16, 16)
    assert 0 <= float(on_device.min()) < float(on_device.max()) <= 1
    assert np.array_equal(subject.fetch_pixels(on_device)(), every)
    every.flags.writeable = False
    subject.to_device(every)


def test_scales_belong_to_conventions_that_have_them():
    with pytest.raises(ValueError, match="personart"):
        StyleTransfer(weights(), None, TransferSettings(precision="fp32"), "cpu")
    with pytest.raises(ValueError, match="raw"):
        StyleTransfer(weights(), scales(), TransferSettings(convention="raw", precision="fp32"), "cpu")


def test_tf32_on_the_cpu_is_refused():
    with pytest.raises(ValueError, match="tf32"):
        StyleTransfer(weights(), scales(), TransferSettings(precision="tf32"), "cpu")


def test_an_images_value_and_gradient_have_the_same_bits_in_any_batch():
    subject = transfer()
    images = torch.stack([subject.to_device(picture(seed, 32, 40)) for seed in (5, 6, 7)])
    targets = targets_of(subject, FACES, PAINTINGS)
    together = subject.value_and_gradient(images, targets)
    for row in range(3):
        chosen = slice(row, row + 1)
        part = Targets(tuple(gram[chosen] for gram in targets.grams), targets.content[chosen])
        alone = subject.value_and_gradient(images[chosen], part)
        assert torch.equal(together[0][chosen], alone[0])
        assert torch.equal(together[1][chosen], alone[1])


@pytest.mark.parametrize(
    ("convention", "precision", "slack"),
    [
        ("personart", "fp32", 1e-6),
        ("raw", "fp32", 1e-6),
        ("personart", "bf16", 1e-4),
    ],
)
def test_clamping_does_not_make_the_loss_explode(convention, precision, slack):
    """pytorch/tutorials #143: there, L-BFGS with clamped images ends in a loss of 10^10 or not a number."""
    subject = transfer(convention=convention, precision=precision, evaluations=60)
    # Black, white and saturated areas, where clamping is at work from the first step.
    hard = np.where(picture(1, 24, 20) > 128, np.uint8(255), np.uint8(0))
    painting = picture(11, 24, 20)
    targets = targets_of(subject, [hard], [painting])
    optimiser = make_optimiser(subject, 1, (24, 20))
    optimiser.start(0, subject.to_device(hard))
    values = []
    for _ in range(60):
        assert float(optimiser.trial.min()) >= 0
        assert float(optimiser.trial.max()) <= 1
        optimiser.tell(*subject.value_and_gradient(optimiser.trial, targets))
        values.append(float(optimiser.value))
        if optimiser.stop[0] != Stop.RUNNING:
            break
    assert np.isfinite(values).all()
    assert all(after <= before * (1 + 1.01 * slack) for before, after in itertools.pairwise(values))
    assert values[-1] < 0.3 * values[0]
    final = subject.losses(subject.fetch_pixels(optimiser.x[0])(), hard, painting)
    assert float(final.total) == pytest.approx(values[-1], rel=0.2)


def test_trajectories_fall_and_end_in_the_recorded_loss_and_do_not_depend_on_the_batch():
    subject = transfer(evaluations=5)
    together = list(trace(subject, FACES, PAINTINGS, batch_size=2))
    assert len(together) == 3
    for face, painting, trajectory in zip(FACES[1:], PAINTINGS[1:], together[1:], strict=True):
        assert trajectory.curve.shape == (5,)
        assert (np.diff(trajectory.curve) <= 1e-6 * trajectory.curve[:-1]).all()
        assert float(trajectory.final.total) == float(subject.losses(trajectory.image, face, painting).total)
        (alone,) = trace(subject, [face], [painting])
        assert np.abs(alone.image.astype(int) - trajectory.image).max() <= 1
        assert alone.curve.tolist() == pytest.approx(trajectory.curve.tolist(), rel=1e-4)


def test_bfloat16_ends_near_float32():
    ends = {
        precision: [
            float(t.final.total) for t in trace(transfer(precision=precision, evaluations=8), FACES[:2], PAINTINGS[:2])
        ]
        for precision in ("fp32", "bf16")
    }
    assert ends["bf16"] == pytest.approx(ends["fp32"], rel=0.15)


def data_folder() -> Path:
    folder = os.environ.get("STYLIZE_TEST_DATA")
    if not folder:
        pytest.skip("STYLIZE_TEST_DATA is not set")
    return Path(folder)


@pytest.mark.data
def test_on_a_real_pair_bfloat16_ends_no_more_than_three_percent_above_float32():
    folder = data_folder()
    loaded = load_weights(str(folder / "vgg19" / "vgg19_imagenet_features.safetensors"))
    measured = feature_scales(loaded)
    face = decode_image(sorted((folder / "celeba").rglob("*.jpg"))[0].read_bytes())
    assert face.shape == (109, 89, 3)
    with Image.open(sorted((folder / "wikiart").rglob("*.jpg"))[5]) as opened:
        painting = np.asarray(opened.convert("RGB").resize((89, 109), Image.Resampling.LANCZOS))
    ends = []
    for precision in ("fp32", "bf16"):
        settings = TransferSettings(precision=precision, evaluations=30, tolerance=0.0)
        (trajectory,) = trace(StyleTransfer(loaded, measured, settings, "cpu"), [face], [painting])
        ends.append(float(trajectory.final.total))
        assert trajectory.curve[-1] < 0.3 * trajectory.curve[0]
    assert 0.9 * ends[0] < ends[1] < 1.03 * ends[0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_on_cuda_losses_and_trajectories_are_near_the_cpus(precision):
    cpu, cuda = transfer(evaluations=20), tiny_transfer.transfer(evaluations=20, precision=precision, device="cuda")
    a, b = (float(subject.losses(IMAGE, FACES[0], PAINTINGS[0]).total) for subject in (cpu, cuda))
    assert b == pytest.approx(a, rel=1e-4)
    ends = [[float(t.final.total) for t in trace(subject, FACES, PAINTINGS)] for subject in (cpu, cuda)]
    assert ends[1] == pytest.approx(ends[0], rel=0.05)
