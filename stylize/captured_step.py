"""A step on fixed tensors that CUDA, once warm, replays as one graph instead of some hundreds of launches."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch

WARM_UP = 3  # plain steps before the capture: cuDNN chooses algorithms, cuFFT makes plans, the allocator fills up


class CapturedStep:
    """Call a function again and again; on CUDA, after `WARM_UP` calls, by replaying a CUDA graph of it.

    Where a graph cannot be captured, a warning says so once and every call stays a plain one.

    Args:
        device: Where the function works.

    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._plain_calls_left = WARM_UP if device.type == "cuda" else -1
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, step: Callable[[], None]) -> None:
        """Do the step: the same one at every call. It changes tensors in place and never waits for the device."""
        if self._plain_calls_left == 0:
            self._graph = self._capture(step)
        self._plain_calls_left -= 1
        if self._graph is None:
            step()
        else:
            self._graph.replay()

    def _capture(self, step: Callable[[], None]) -> torch.cuda.CUDAGraph | None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.device(self._device):
                torch.cuda.synchronize()
                torch.cuda.empty_cache()  # the graph gets memory of its own
                stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
                # Other threads may wait for pixels meanwhile; that is no business of the capture's.
                with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                    step()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            warnings.warn(f"no CUDA graph could be captured, so steps are launched one by one: {error}", stacklevel=3)
            return None
        return graph
