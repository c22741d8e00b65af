"""A step on fixed tensors that CUDA, once warm, replays as one graph instead of some hundreds of launches."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch

WARM_UP = 3  # plain steps before the capture: cuDNN tries algorithms, cuFFT makes plans, the allocator fills up


class CapturedStep:
    """Call a function again and again; on CUDA, after `WARM_UP` calls, by replaying a CUDA graph of it.

    Where a graph cannot be captured, a warning says so once and every call stays a plain one.

    Args:
        step: Changes tensors in place, always the same ones, and never waits for the device.
        device: Where it works.

    """

    def __init__(self, step: Callable[[], None], device: torch.device) -> None:
        self._step = step
        self._plain_calls_left = WARM_UP if device.type == "cuda" else -1
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        """Do the step."""
        if self._plain_calls_left == 0:
            self._graph = self._capture()
        self._plain_calls_left -= 1
        if self._graph is None:
            self._step()
        else:
            self._graph.replay()

    def _capture(self) -> torch.cuda.CUDAGraph | None:
        graph = torch.cuda.CUDAGraph()
        try:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()  # the graph gets memory of its own
            with torch.cuda.graph(graph):
                self._step()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            warnings.warn(f"no CUDA graph could be captured, so steps are launched one by one: {error}", stacklevel=3)
            return None
        return graph
