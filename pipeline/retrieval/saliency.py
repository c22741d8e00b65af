"""A saliency map over the picture that it explains."""

from typing import Final

import numpy as np
import numpy.typing as npt

SMOOTHING: Final = 0.04
PERCENTILE: Final = 99.0
_GROUND: Final = 0.8  # so that the bright end of the colours stands out from white skin, too
_LUMA: Final = (0.299, 0.587, 0.114)


def overlay(
    picture: npt.NDArray[np.uint8],
    contributions: npt.NDArray[np.float32],
    *,
    smoothing: float = SMOOTHING,
    percentile: float = PERCENTILE,
    opacity: float = 0.9,
) -> npt.NDArray[np.uint8]:
    """Colour the regions that speak for a match, from violet to yellow; the rest of the picture is grey and dimmed.

    The colours are matplotlib's "plasma", whose brightness rises steadily, so that they can be told apart without
    colour vision, too. What speaks against the match is not coloured. A map is scaled by itself: of two pictures, equal
    colours do not say equal contributions.

    Args:
        picture: uint8 [H, W, 3], RGB.
        contributions: of the pixels, signed, [H, W]; `Attribution.saliency`.
        smoothing: standard deviation of a Gaussian, as a fraction of the width. Single pixels of integrated gradients
            are noise to the eye.
        percentile: of the positive contributions; it and all above get the full colour.
        opacity: of the full colour, 0 to 1.

    Returns:
        uint8 [H, W, 3].

    Raises:
        ValueError: an argument of another shape or range, or a contribution that is not finite.
    """
    from matplotlib import colormaps  # noqa: PLC0415 - takes a second to import

    if contributions.ndim != 2:
        raise ValueError(f"contributions must be [H, W], not {list(contributions.shape)}")
    if picture.shape != (*contributions.shape, 3):
        raise ValueError(f"a map {list(contributions.shape)} does not fit a picture {list(picture.shape)}")
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must be from 0 to 1, not {opacity}")
    strength = relative_strength(contributions, smoothing=smoothing, percentile=percentile)
    colours = colormaps["plasma"](0.2 + 0.8 * strength)[..., :3] * 255
    ground = _GROUND * (picture @ np.array(_LUMA))[..., None]
    share = opacity * np.sqrt(strength)[..., None]  # the root: half of the strength is still plain to see
    drawn: npt.NDArray[np.uint8] = np.rint((1 - share) * ground + share * colours).clip(0, 255).astype(np.uint8)
    return drawn


def relative_strength(
    contributions: npt.NDArray[np.float32], *, smoothing: float = SMOOTHING, percentile: float = PERCENTILE
) -> npt.NDArray[np.float64]:
    """Return the positive part of a smoothed map, 0 to 1 at a percentile of it: [H, W]."""
    if contributions.ndim != 2 or not np.isfinite(contributions).all():
        raise ValueError(f"contributions must be finite, [H, W], not {list(contributions.shape)}")
    if not smoothing >= 0:
        raise ValueError(f"smoothing must be at least 0, not {smoothing}")
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile must be over 0 and at most 100, not {percentile}")
    height, width = contributions.shape
    sigma = smoothing * width
    smooth = contributions.astype(np.float64)
    if sigma > 0:
        smooth = _gaussian(height, sigma) @ smooth @ _gaussian(width, sigma).T
    positive = smooth.clip(min=0)
    if not positive.any():
        return positive
    top = np.percentile(positive[positive > 0], percentile)
    strength: npt.NDArray[np.float64] = (positive / top).clip(max=1)
    return strength


def _gaussian(n: int, sigma: float) -> npt.NDArray[np.float64]:
    at = np.arange(n)
    kernel: npt.NDArray[np.float64] = np.exp(-((at[:, None] - at) ** 2) / (2 * sigma**2))
    kernel /= kernel.sum(axis=1, keepdims=True)
    return kernel
