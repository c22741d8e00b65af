"""The shape of the initial inverse Hessian of L-BFGS on images: which frequencies, colours and places move easily."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from stylize.per_sample import dot, expand, where_

PRECONDITIONERS = ("adaptive", "colour", "low-pass", "none")

# Orthonormal: luminance, red against green, yellow against blue.
_OPPONENT = ((3**-0.5, 3**-0.5, 3**-0.5), (2**-0.5, -(2**-0.5), 0.0), (6**-0.5, 6**-0.5, -2 * 6**-0.5))

_CELL = 8  # pixels: side of the cells in which local scales are counted
_MEMORY = 0.97  # share of the past that each new pair leaves
_PAIRS_BEFORE_USE = 3
_SCALE_RANGE = (0.2, 5.0)


class ImagePreconditioner:
    """P = √D · F · √D for B images: a fixed filter F, and a local scale D that each image learns from its own pairs.

    F works by FFT on luminance and two opponent colours. "low-pass" has gain (1 / (f + 0.02))^1.5 at f cycles per pixel
    for all three; "colour" and "adaptive" have 1 + 0.016 / (f² + 0.02²) for luminance and 2.2 + 0.0016 / (f² + 0.02²)
    for the colours, a fit to |s| / |y| by frequency along the way of three real pairs (docs/optimiser.md). The loss
    curves least along low frequencies of luminance, which plain L-BFGS has to discover. Rising gains at the highest
    frequencies were cut off: they gain nothing and put noise into the picture.

    D, for "adaptive", is the ratio of the root mean squares of s and y in cells of 8 pixels, smoothed: where the
    network hardly looks, pixels may move far. It starts at 1, and forgets slowly.

    P is symmetric positive definite, each image has its own, and no image's bits depend on its batchmates. Minimisers
    do not depend on P, only how soon they are reached.

    Args:
        name: "adaptive", "colour" or "low-pass".
        batch: B.
        height, width: Of the images in pixels.
        device: Where they are.
        dtype: Of the images.

    """

    def __init__(
        self,
        name: str,
        batch: int,
        height: int,
        width: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._size = (height, width)
        self._learns = name == "adaptive"
        self._opponent = torch.tensor(_OPPONENT, dtype=dtype, device=device)
        self._gain = _gains(name, height, width).to(device=device, dtype=dtype)
        cells = (batch, 1, -(-height // _CELL), -(-width // _CELL))
        self._s = torch.zeros(cells, dtype=dtype, device=device)
        self._y = torch.zeros_like(self._s)
        self._pairs = torch.zeros(batch, dtype=torch.int32, device=device)
        self._root = torch.ones((batch, 1, height, width), dtype=dtype, device=device)  # √D

    def __call__(self, images: Tensor) -> Tensor:
        """Apply P to images [B, 3, height, width]."""
        if self._learns:
            images = self._root * images
        # On the CPU one by one, since an FFT's last bits depend on the batch.
        parts = images.split(1) if images.device.type == "cpu" else (images,)  # type: ignore[no-untyped-call]
        filtered = torch.cat([self._filter(part) for part in parts])
        return self._root * filtered if self._learns else filtered

    def learn(self, s: Tensor, y: Tensor, usable: Tensor) -> None:
        """Take a pair of each image, [B, 3, height, width] each; those that are not `usable` [B] teach nothing."""
        if not self._learns:
            return
        weight = expand(1 / dot(y, y), s)
        where_(self._s, usable, _MEMORY * self._s + _smooth(s) * weight)
        where_(self._y, usable, _MEMORY * self._y + _smooth(y) * weight)
        self._pairs += usable.int()
        scale = (self._s / self._y).sqrt()
        scale = (scale / scale.mean((2, 3), keepdim=True)).clamp(*_SCALE_RANGE)
        root = F.interpolate(scale.sqrt(), size=self._size, mode="bilinear", align_corners=False)
        # Where y is zero in a whole cell there is no scale to learn.
        sound = torch.isfinite(scale).flatten(1).all(1)
        where_(self._root, usable & sound & (self._pairs >= _PAIRS_BEFORE_USE), root)

    def clear(self, row: int) -> None:
        """Forget what one image has taught."""
        self._s[row] = self._y[row] = 0
        self._pairs[row] = 0
        self._root[row] = 1

    def keep(self, rows: Tensor) -> None:
        """Drop all images but these, [n] indices, in this order."""
        for name in ("_s", "_y", "_pairs", "_root"):
            setattr(self, name, getattr(self, name).index_select(0, rows))

    def _filter(self, images: Tensor) -> Tensor:
        opponent = torch.einsum("ij,bjhw->bihw", self._opponent, images)
        filtered = torch.fft.irfft2(torch.fft.rfft2(opponent) * self._gain, s=self._size)
        return torch.einsum("ji,bjhw->bihw", self._opponent, filtered)


def _gains(name: str, height: int, width: int) -> Tensor:
    """Gains of luminance and the two colours at the frequencies of `rfft2`, float64 [3, height, width // 2 + 1]."""
    rows = torch.fft.fftfreq(height, dtype=torch.float64)[:, None]
    frequency = torch.hypot(rows, torch.fft.rfftfreq(width, dtype=torch.float64)[None, :])
    if name == "low-pass":
        luminance = colour = (frequency + 0.02).pow(-1.5)
    elif name in {"adaptive", "colour"}:
        luminance = 1 + 0.016 / (frequency.square() + 0.02**2)
        colour = 2.2 + 0.0016 / (frequency.square() + 0.02**2)
    else:
        raise ValueError(f'preconditioner "{name}" is unknown; choose from {", ".join(PRECONDITIONERS)}')
    return torch.stack((luminance, colour, colour))


def _smooth(images: Tensor) -> Tensor:
    """Mean squares in cells, blurred over their neighbours twice, [B, 1, cells, cells]."""
    cells = F.avg_pool2d(images.square().mean(1, keepdim=True), _CELL, ceil_mode=True, count_include_pad=False)
    for _ in range(2):
        cells = F.avg_pool2d(cells, 3, stride=1, padding=1, count_include_pad=False)
    return cells
