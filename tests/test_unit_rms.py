"""The unit-RMS scales and the reference batch that they are measured on."""

import numpy as np
import pytest
import torch

from stylize import unit_rms
from stylize.unit_rms import feature_scales, reference_images
from stylize.vgg import VGG19
from stylize.weights import LAYERS, VGGWeights
from tests.tiny_transfer import weights

# Four values and the mean of the default reference batch.
PROBE = [0.190823, 0.230875, 0.939764, 0.113415]
MEAN = 0.46575979


def small_batch() -> torch.Tensor:
    return reference_images(3, 48, seed=4)


def test_scaled_features_have_root_mean_square_one():
    images = small_batch()
    features = VGG19(weights(), feature_scales(weights(), images))(images, LAYERS)
    for layer in LAYERS:
        assert float(features[layer].double().square().mean().sqrt()) == pytest.approx(1, rel=1e-5), layer


def test_scales_are_the_plain_root_mean_squares():
    images = small_batch()
    features = VGG19(weights())(images, LAYERS)
    expected = [float(features[layer].double().square().mean().sqrt()) for layer in LAYERS]
    assert feature_scales(weights(), images) == pytest.approx(expected, rel=1e-5)


def test_the_reference_batch_is_the_default(monkeypatch):
    monkeypatch.setattr(unit_rms, "reference_images", small_batch)
    assert feature_scales(weights()) == feature_scales(weights(), small_batch())


def test_a_layer_without_output_is_named():
    tensors = dict(weights().tensors)
    tensors["14.weight"] = torch.zeros_like(tensors["14.weight"])
    tensors["14.bias"] = -torch.ones_like(tensors["14.bias"])
    with pytest.raises(ValueError, match="conv3_3"):
        feature_scales(VGGWeights(tensors, ""), small_batch())


def test_the_reference_batch_never_changes():
    """The scales, the loss unit and every recorded loss hang on these numbers."""
    images = reference_images()
    assert images.shape == (8, 3, 224, 224)
    assert images.dtype == torch.float32
    probe = images[[0, 3, 7, 7], [0, 1, 2, 0], [10, 100, 200, 17], [10, 60, 120, 200]]
    assert probe.tolist() == pytest.approx(PROBE, abs=2e-6)
    assert float(images.double().mean()) == pytest.approx(MEAN, abs=1e-7)
    assert torch.equal(images, reference_images())
    assert not torch.equal(images[0], images[1])


def test_the_reference_batch_has_the_documented_statistics():
    images = reference_images(4, 128, seed=2).double().numpy()
    assert images.min() >= 0
    assert images.max() <= 1
    # Of mean 0.45 and deviation 0.5 before they are clipped.
    assert images.mean() == pytest.approx(0.47, abs=0.03)
    assert images.std() == pytest.approx(0.36, abs=0.03)
    frequency = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(128)[None, :])
    amplitude = np.abs(np.fft.fft2(images - images.mean((2, 3), keepdims=True))).mean((0, 1))
    band = (frequency > 0.03) & (frequency < 0.3)
    slope = np.polyfit(np.log(frequency[band]), np.log(amplitude[band]), 1)[0]
    assert -1.8 < slope < -1.3
    red, green, blue = images.transpose(1, 0, 2, 3).reshape(3, -1)
    assert np.corrcoef([red, green, blue]).min() > 0.9
