"""A fixed low-pass filter as the initial inverse Hessian of L-BFGS."""

from __future__ import annotations

import torch
from torch import Tensor


class LowPassPreconditioner:
    """Symmetric positive definite filter of images, by FFT per channel.

    Gain (1 / (|f| + f0))^p at frequency f in cycles per pixel, scaled to mean 1. The style loss curves least along
    low frequencies, which plain L-BFGS has to discover; see docs/objective.md for what it saves.

    Args:
        height, width: Of the images in pixels.
        exponent: p ≥ 0; 0 is the identity.
        corner: f0 > 0, in cycles per pixel.
        device: Where images are.

    """

    def __init__(
        self,
        height: int,
        width: int,
        *,
        exponent: float = 1.5,
        corner: float = 0.02,
        device: torch.device | str = "cpu",
    ) -> None:
        rows = torch.fft.fftfreq(height, dtype=torch.float64)[:, None]
        full = torch.fft.fftfreq(width, dtype=torch.float64)[None, :]
        mean = (torch.hypot(rows, full) + corner).pow(-exponent).mean()
        half = torch.fft.rfftfreq(width, dtype=torch.float64)[None, :]
        self._gain = ((torch.hypot(rows, half) + corner).pow(-exponent) / mean).float().to(device)
        self._size = (height, width)

    def __call__(self, images: Tensor) -> Tensor:
        """Filter images [B, C, height, width]; on the CPU one by one, since an FFT's last bits depend on the batch."""
        if images.device.type == "cpu":
            return torch.stack([self._filter(image) for image in images])
        return self._filter(images)

    def _filter(self, images: Tensor) -> Tensor:
        filtered: Tensor = torch.fft.irfft2(torch.fft.rfft2(images) * self._gain, s=self._size)
        return filtered
