"""The global random generators: PyTorch's on the CPU and on every CUDA device, NumPy's, and Python's.

Kept in types that `torch.load(weights_only=True)` reads.
"""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def rng_state() -> dict[str, Any]:
    """Return the state of all of them; CUDA's are left out where CUDA is not in use."""
    name, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002  # the global one is what is kept
    version, internal, following = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],  # type: ignore[no-untyped-call]
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss],
        "python": [version, list(internal), following],
    }


def restore_rng_state(state: Mapping[str, Any]) -> None:
    """Take over what ``rng_state`` returned. Generators of CUDA devices that are not here are left out."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        for device, generator in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(generator, device)
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    version, internal, following = state["python"]
    random.setstate((version, tuple(internal), following))
