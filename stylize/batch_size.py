"""How many slots fit: what one takes of memory, and how many of them are worth having."""

from __future__ import annotations

import math
import os

import torch

from stylize.transfer import StyleTransfer

# Our choices. On the CPU the network's time per image is the same from four images on. On CUDA, at Celeb-A's size, so
# many fill the chip; more only lengthens the end of a shard, when slots run dry.
_MOST_CPU, _MOST_CUDA = 4, 64
_CELEBA_PIXELS = 178 * 218
_SHARE = 0.6  # of the free memory


def slot_bytes(precision: str, history: int, height: int, width: int) -> int:
    """Memory of one slot in bytes, an upper estimate; docs/benchmarks.md compares it with measurements.

    Per pixel, in elements of the convolutions' type: the activations kept for the backward pass (about 230 up to
    conv5_1), gradients and their workspace at the widest layer (about 370), the positions of the maxima; then, in fp32,
    the optimiser's pairs, masked pairs and vectors of three channels, and Gram input.
    """
    element = 2 if precision == "bf16" else 4
    network = 600 * element + 8 * 30 + 4 * 130
    optimiser = 3 * 4 * (3 * history + 24)
    return (network + optimiser) * height * width


def choose_batch_size(transfer: StyleTransfer, height: int, width: int) -> int:
    """Slots for images of this size: as many as are worth having and take at most 60 % of the free memory."""
    one = slot_bytes(transfer.precision, transfer.settings.history, height, width)
    if transfer.device.type == "cuda":
        device = transfer.device
        free, _ = torch.cuda.mem_get_info(device)
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # PyTorch's own, unused
        most = _MOST_CUDA * max(1, _CELEBA_PIXELS // (height * width))
    else:
        # Workers beside this one have their threads, and take their memory, at the same time.
        share = min(1.0, torch.get_num_threads() / (os.cpu_count() or 1))
        free, most = int(free_memory() * share), _MOST_CPU
    return max(1, min(most, int(_SHARE * free // one)))


def free_memory() -> float:
    """Memory in bytes that is free now, within the container's limit; of a machine that does not say, 4 GiB."""
    return min(_free_physical_memory(), _container_limit())


def _container_limit() -> float:
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):  # no container, or "max"
        return math.inf


def _free_physical_memory() -> int:
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            fields = dict(line.split(":", 1) for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        try:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
        except (AttributeError, OSError, ValueError):
            return 4 << 30
