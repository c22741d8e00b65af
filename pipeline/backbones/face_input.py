"""From face images to the input of a network: crop, resize, channels, normalisation."""

import functools

import torch
from torch import Tensor, nn

from manifests.errors import InputError
from pipeline.backbones.card import BackboneCard

WHOLE_IMAGE = (0.0, 0.0, 1.0, 1.0)
"""The crop that crops nothing."""

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, the luma of JPEG, of Pillow's "L" and of OpenCV's grey


class FaceInput(nn.Module):
    """Images [B, 3, H, W], RGB, as the network wants them: float32 [B, 1 or 3, height, width], normalised.

    The crop is resized as Pillow's ``resize(…, BILINEAR, box=crop)`` does it: antialiased, and exact where the crop
    begins or ends within a pixel, which matters at Celeb-A's half size. Rounding it to whole pixels would move it by
    up to half a pixel. Differentiable with respect to float images.

    Args:
        card: of the backbone.
        crop: left, top, right, bottom as fractions of width and height, instead of the card's; `WHOLE_IMAGE` for
            images that are cropped already.

    Attributes:
        crop: the one in use.

    Raises:
        InputError: a crop that is not within the image or has no area.
    """

    def __init__(self, card: BackboneCard, crop: tuple[float, float, float, float] | None = None) -> None:
        super().__init__()
        self.card = card
        self.crop = _checked(crop if crop is not None else card.crop if card.crop is not None else WHOLE_IMAGE)
        channels = 1 if card.channels == "grey" else 3
        if len(card.mean) != channels or len(card.std) != channels:
            raise ValueError(f"{card.name}: mean and std must have {channels} values")
        # Not part of the state dict: they are the card's.
        self.register_buffer("mean", torch.tensor(card.mean).view(channels, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(card.std).view(channels, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Prepare images: uint8 0–255, or float 0–1; the same picture gives the same input up to rounding.

        Always computed in float32, under autocast, too.

        Raises:
            ValueError: of another shape or type.
        """
        if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
            raise ValueError(f"images must be [B, 3, H, W], not {list(images.shape)}")
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise ValueError(f"images must be uint8 or float, not {images.dtype}")
        with torch.autocast(images.device.type, enabled=False):
            pixels = images.float() if images.dtype == torch.uint8 else images.float() * 255
            if self.card.channels == "grey":
                pixels = torch.einsum("bchw,c->bhw", pixels, pixels.new_tensor(_LUMA)).unsqueeze(1)
            elif self.card.channels == "bgr":
                pixels = pixels.flip(1)
            left, top, right, bottom = self.crop
            rows = _resampling(images.shape[2], top, bottom, self.card.height, images.device)
            columns = _resampling(images.shape[3], left, right, self.card.width, images.device)
            return (rows @ pixels @ columns.T - self.mean) / self.std


def _checked(crop: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    match crop:
        case (left, top, right, bottom) if 0 <= left < right <= 1 and 0 <= top < bottom <= 1:
            return float(left), float(top), float(right), float(bottom)
        case _:
            raise InputError(
                f"crop {crop} is not within the image; give left, top, right and bottom as fractions of its width and "
                "height, 0 to 1, left before right and top before bottom"
            )


@functools.lru_cache(maxsize=64)
def _resampling(pixels: int, start: float, stop: float, outputs: int, device: torch.device) -> Tensor:
    """Weights [outputs, pixels], float32, of antialiased bilinear resampling along one axis.

    Output i is centred at c = start + (i + ½)·s, s = (stop - start) / outputs, all in input pixels, and weighs input
    pixel j, centred at j + ½, by the triangle max(0, 1 - |j + ½ - c| / max(s, 1)), normalised. Pixels just outside the
    crop count where the triangle reaches them, as they do for Pillow.

    As a matrix, because ``torch.nn.functional.interpolate`` crops at whole pixels only, and because its gradient on a
    GPU adds in an order that changes from run to run.

    Args:
        pixels, outputs: sizes of the input and the output.
        start, stop: of the crop, as fractions of the input.
        device: of the result.
    """
    with torch.inference_mode(False):  # a cached inference tensor could not take part in a later gradient
        scale = (stop - start) * pixels / outputs
        centres = start * pixels + (torch.arange(outputs, dtype=torch.float64) + 0.5) * scale
        distances = (torch.arange(pixels, dtype=torch.float64) + 0.5 - centres[:, None]).abs()
        weights = (1 - distances / max(scale, 1.0)).clamp(min=0)
        return (weights / weights.sum(1, keepdim=True)).float().to(device)
