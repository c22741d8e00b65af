"""The rate at which this machine multiplies large matrices: the ceiling for everything that convolves."""

from __future__ import annotations

import time

import torch

from stylize.precision import DTYPES, convolution_precision


def matrix_peak(precision: str, device: torch.device, seconds: float = 1.0) -> float:
    """Measure the best rate of a square matrix product in FLOP/s, on random numbers, over about so many seconds."""
    side = 8192 if device.type == "cuda" else 2048
    generator = torch.Generator(device).manual_seed(0)
    left, right = (torch.randn(side, side, generator=generator, device=device).to(DTYPES[precision]) for _ in range(2))
    best, spent = float("inf"), 0.0
    with torch.inference_mode(), convolution_precision(precision):
        out = left @ right  # the first call chooses a kernel
        while spent < seconds:
            took = _time(left, right, out)
            best, spent = min(best, took), spent + took
    return 2 * side**3 / best


def _time(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> float:
    _wait(left.device)
    start = time.perf_counter()
    torch.mm(left, right, out=out)
    _wait(left.device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
