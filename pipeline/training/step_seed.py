"""Random numbers of a training step that follow from the step alone, so that a resumed run draws the same."""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def step_seed(device: torch.device, *numbers: int) -> Iterator[None]:
    """Let the global generators begin from these numbers, and be afterwards as they were before.

    Args:
        device: whose generator is needed besides the CPU's.
        numbers: at least 0, such as seed, epoch, step and process. Zeros at the end make no difference.
    """
    seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
