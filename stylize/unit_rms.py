"""The thirteen scales that give VGG-19's features unit root mean square, over a fixed reference batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from stylize.errors import WeightsError
from stylize.vgg import VGG19
from stylize.weights import LAYERS, VGGWeights

REFERENCE_IMAGES = 8
REFERENCE_SIDE = 224


def reference_images(count: int = REFERENCE_IMAGES, side: int = REFERENCE_SIDE, seed: int = 0) -> Tensor:
    """Draw colour noise images whose amplitude spectrum falls as 1/f^1.6.

    Our choices: luminance and two much weaker opponent colour channels (natural colours are correlated), mean 0.45 and
    standard deviation 0.5 per image, then clipped, which makes edges. Of the noises tried, VGG's features on this one
    have the RMS nearest to that on real pictures, within 1.14 times at every layer (docs/objective.md).

    Returns:
        float32 [count, 3, side, side] in [0, 1].

    """
    # RandomState's stream is frozen for ever; a Generator's may change between NumPy versions, and the loss with it.
    random = np.random.RandomState(seed)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
    frequency[0, 0] = np.inf  # no mean: it is set below
    noise = random.standard_normal((count, 3, side, side))
    opponent = np.fft.irfft2(np.fft.rfft2(noise) / frequency**1.6, s=(side, side))
    opponent /= opponent.std(axis=(2, 3), keepdims=True)
    luminance, red_green, blue_yellow = (opponent[:, channel] for channel in range(3))
    images = np.stack(
        (
            luminance + 0.15 * red_green + 0.1 * blue_yellow,
            luminance - 0.15 * red_green + 0.1 * blue_yellow,
            luminance - 0.2 * blue_yellow,
        ),
        axis=1,
    )
    images = 0.45 + 0.5 * images / images.std(axis=(1, 2, 3), keepdims=True)
    return torch.from_numpy(np.clip(images, 0.0, 1.0).astype(np.float32))


def feature_scales(weights: VGGWeights, images: Tensor | None = None) -> tuple[float, ...]:
    """Measure the RMS of every layer's features after ReLU.

    Args:
        weights: The thirteen convolutions.
        images: float32 [B, 3, H, W] in [0, 1]; by default the reference batch.

    Returns:
        Thirteen positive numbers in the order of `LAYERS`. Divided by them (`VGG19(weights, scales)`), every layer's
        features have RMS 1 on these images, whatever the source of the weights.

    Raises:
        WeightsError: A layer's features are all zero: the weights are not a trained or initialised network.

    """
    if images is None:
        images = reference_images()
    network = VGG19(weights)
    squares = torch.zeros(len(LAYERS), dtype=torch.float64)
    with torch.inference_mode():
        for image in images:  # one at a time: the activations of a batch would take gigabytes
            features = network(image[None], LAYERS)
            squares += torch.stack([features[layer].double().square().mean() for layer in LAYERS])
    scales = tuple((squares / len(images)).sqrt().tolist())
    if min(scales) <= 0:
        layer = LAYERS[scales.index(min(scales))]
        raise WeightsError(f"the weights are not a usable VGG-19: the features of {layer} are all zero")
    return scales
