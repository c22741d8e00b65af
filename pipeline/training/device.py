"""Which device a training runs on: the CPU, or a CUDA device that is there."""

import re

import torch

from manifests.errors import InputError
from pipeline.training import ranks

_CUDA = re.compile(r"cuda(:(0|[1-9][0-9]{0,3}))?")


def check_device(name: str | None) -> None:
    """Refuse a name that is none of None, "cpu", "cuda" and "cuda:N", without a look at the hardware; InputError."""
    if name is not None and name != "cpu" and not _CUDA.fullmatch(name):
        raise InputError(f'device "{name}" is none that training runs on; give cpu or cuda')


def training_device(name: str | None) -> torch.device:
    """Return the device of this process; call it after `ranks.initialise`.

    Args:
        name: "cpu", "cuda", "cuda:N", or None for CUDA if there is any and the CPU if not. Under torchrun CUDA without
            a number is the device of the process's number on its machine.

    Returns:
        the device; with its number, if it is a CUDA device.

    Raises:
        InputError: another name, a CUDA device that is not there, or one number for several processes.
    """
    check_device(name)
    several = ranks.world_size() > 1
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name is None and not found):
        return torch.device("cpu")
    if not found:
        raise InputError(f'device "{name}" is asked for and PyTorch finds no GPU; give cpu')
    _, _, number = (name or "cuda").partition(":")
    if number and several:
        raise InputError(f'device "{name}" is one for all {ranks.world_size()} processes of torchrun; give cuda')
    index = int(number) if number else ranks.local_rank() if several else torch.cuda.current_device()
    if index >= found:
        raise InputError(
            f'device "cuda:{index}" is asked for and PyTorch counts {found} GPUs from cuda:0 on; give cuda'
        )
    return torch.device("cuda", index)
