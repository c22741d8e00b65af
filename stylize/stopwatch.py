"""Where the engine's time goes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Seconds spent in named sections that do not overlap.

    Args:
        device: A CUDA device to wait for at both ends of a section; without it, a section's time there is that of
            giving the device its orders.

    Attributes:
        seconds: By section.

    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.waits_for = device if device is not None and device.type == "cuda" else None

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Count the time of a block."""
        self._wait()
        start = time.perf_counter()
        try:
            yield
        finally:
            self._wait()
            self.seconds[name] += time.perf_counter() - start

    def _wait(self) -> None:
        if self.waits_for is not None:
            torch.cuda.synchronize(self.waits_for)
