"""Small inputs for the tests of `stylize`: random weights made once, pictures of a few dozen pixels."""

import io
from functools import cache

import numpy as np
import torch
from PIL import Image

from stylize.settings import TransferSettings
from stylize.transfer import StyleTransfer
from stylize.unit_rms import feature_scales
from stylize.weights import CONVOLUTIONS, VGGWeights, load_weights

# Two threads for pictures of this size cost more than they save.
torch.set_num_threads(1)


@cache
def weights() -> VGGWeights:
    """Random VGG-19 weights with biases, which He initialisation lacks and a trained network has."""
    generator = torch.Generator().manual_seed(11)
    tensors = dict(load_weights("random", seed=3).tensors)
    for _, index, outputs, _ in CONVOLUTIONS:
        tensors[f"{index}.bias"] = 0.1 * torch.randn(outputs, generator=generator)
    return VGGWeights(tensors, "0" * 64)


@cache
def scales() -> tuple[float, ...]:
    images = torch.stack([to_tensor(picture(seed, 48, 48)) for seed in range(2)])
    return feature_scales(weights(), images)


@cache
def transfer(
    *,
    evaluations: int = 3,
    threshold: float = float("inf"),
    max_attempts: int = 3,
    convention: str = "personart",
    precision: str = "fp32",
    size: tuple[int, int] | None = None,
    image_format: str = "png",
    device: str = "cpu",
) -> StyleTransfer:
    settings = TransferSettings(
        evaluations=evaluations,
        threshold=threshold,
        max_attempts=max_attempts,
        convention=convention,
        precision=precision,
        size=size,
        image_format=image_format,
    )
    return StyleTransfer(weights(), scales() if convention == "personart" else None, settings, device)


def picture(seed: int, height: int, width: int) -> np.ndarray:
    """Draw a smooth colour picture with some noise, uint8 [height, width, 3]."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (5, 4, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64)
    return (smooth + random.normal(0, 12, smooth.shape)).clip(0, 255).astype(np.uint8)


def to_tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)


def encoded(image: Image.Image | np.ndarray, image_format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(buffer, image_format, **options)
    return buffer.getvalue()
