"""Measure what a slot takes of memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from stylize.resident_memory import peak_growth
from stylize.slots import Slots
from stylize.transfer import StyleTransfer


def measure_slot_bytes(transfer: StyleTransfer, height: int, width: int, slots: int = 4) -> int | None:
    """Measure the memory that each further slot takes at its peak, in bytes, by working with one slot and with several.

    Returns:
        None where the system does not say what the peak was (the CPU elsewhere than on Linux).

    """
    peak = partial(_cuda_peak, transfer.device) if transfer.device.type == "cuda" else _resident_peak
    face, painting = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)

    def work(count: int) -> None:
        batch = Slots(transfer, count, (height, width))
        batch.start(range(count), [face] * count, [painting] * count, [None] * count, [None] * count)
        batch.advance(3)
        batch.stops()  # waits

    work(1)  # what is only taken once: kernels, plans
    one, several = peak(lambda: work(1)), peak(lambda: work(slots))
    return None if one is None or several is None else max(0, several - one) // (slots - 1)


def _cuda_peak(device: torch.device, work: Callable[[], None]) -> int | None:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return torch.cuda.max_memory_reserved(device)


def _resident_peak(work: Callable[[], None]) -> int | None:
    return peak_growth(work)[1]
