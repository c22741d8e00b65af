"""Training with several processes (torchrun): who is who, and what they have to agree on. No-ops in a single one."""

import os
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, Final, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from manifests.errors import InputError, RunError

T = TypeVar("T")

TIMEOUT: Final = timedelta(hours=24)
"""How long a process waits for another. PyTorch's half hour (ten minutes with NCCL) is for steps, and here the first
process may embed or check a whole data set while the others wait. Where one dies, torchrun ends the others."""


def initialise(device: str | None = None) -> None:
    """Join the other processes if torchrun has started this one (RANK, WORLD_SIZE, LOCAL_RANK); else do nothing.

    Tensors on the CPU travel by gloo, those on CUDA devices by NCCL; the CUDA device of number LOCAL_RANK becomes the
    current one. A second call does nothing.

    Args:
        device: what the work is done on, as "cpu" or "cuda"; None is a CUDA device if there is one. For "cpu" GPUs are
            neither counted nor touched, and there is gloo alone.

    Raises:
        InputError: a variable is missing or not a number, or there are more processes than GPUs.
    """
    if dist.is_initialized() or "WORLD_SIZE" not in os.environ:
        return
    processes, local = _number("WORLD_SIZE"), _number("LOCAL_RANK")
    _number("RANK")
    if processes == 1:
        return
    backend = "gloo"
    if (device is None or torch.device(device).type != "cpu") and torch.cuda.is_available():
        if local >= torch.cuda.device_count():
            raise InputError(
                f"torchrun started more than {torch.cuda.device_count()} processes on this machine, one for each GPU; "
                f"give it --nproc-per-node {torch.cuda.device_count()}"
            )
        torch.cuda.set_device(local)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=TIMEOUT)


def finish() -> None:
    """Leave the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """Number of this process among all, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_rank() -> int:
    """Number of this process among those of its machine: which CUDA device is its own."""
    return _number("LOCAL_RANK") if dist.is_initialized() and "LOCAL_RANK" in os.environ else rank()


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes, equal in all of them to the bit.

    Call it in all processes with the same parameters in the same order. A parameter that has a gradient in some
    processes only counts as zero in the others; one that has none anywhere keeps none. It is the mean of the processes'
    own means: over all examples only where their batches are equally large.
    """
    if world_size() == 1:
        return
    groups: dict[tuple[torch.dtype, torch.device], list[nn.Parameter]] = {}
    for parameter in parameters:
        if parameter.requires_grad:
            groups.setdefault((parameter.dtype, parameter.device), []).append(parameter)
    for group in groups.values():
        _average(group)


def _average(parameters: list[nn.Parameter]) -> None:
    """One all-reduce for all of them: the gradients laid end to end, then a number each that says who has one."""
    present = parameters[0].new_tensor([float(p.grad is not None) for p in parameters])
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in parameters] + [present])
    dist.all_reduce(flat)
    flat /= world_size()
    *gradients, present = torch.split(flat, [*(p.numel() for p in parameters), len(parameters)])
    for parameter, gradient, anywhere in zip(parameters, gradients, present.tolist(), strict=True):
        if anywhere:
            parameter.grad = gradient.view_as(parameter).clone()


@torch.no_grad()
def broadcast_weights(module: nn.Module) -> None:
    """Give every process the first one's parameters and buffers."""
    if world_size() > 1:
        for tensor in [*module.parameters(), *module.buffers()]:
            data = tensor.data.contiguous()
            dist.broadcast(data, src=0)
            tensor.data.copy_(data)


def from_first_rank(value: T) -> T:
    """Return the first process's value in all of them; it is pickled."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gathered(value: T) -> list[T]:
    """Return every process's value, in the order of their numbers, in all of them; they are pickled."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def on_first_rank(work: Callable[[], T]) -> T:
    """Do something in the first process alone and return its result in all of them, when it is done.

    Raises:
        InputError, RunError, OSError: raised by the work, in every process.
    """
    if world_size() == 1:
        return work()
    outcome: tuple[T | None, Exception | None] = (None, None)
    failure: Exception | None = None
    if rank() == 0:
        try:
            outcome = (work(), None)
        except (InputError, RunError, OSError) as error:
            failure = error
            outcome = (None, error)
    result, error_there = from_first_rank(outcome)
    if failure is not None:
        raise failure
    if error_there is not None:
        raise error_there
    return result  # type: ignore[return-value]


def any_rank(flags: Mapping[str, bool]) -> dict[str, bool]:
    """Tell for each flag whether any process has raised it; all must name the same flags in the same order."""
    if world_size() == 1:
        return dict(flags)
    raised = torch.tensor([int(flag) for flag in flags.values()], dtype=torch.int32)
    dist.all_reduce(raised, op=dist.ReduceOp.MAX)
    return dict(zip(flags, (bool(flag) for flag in raised.tolist()), strict=True))


def mean_over_ranks(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the mean of each metric over the processes, equal in all; all must have the same names in one order."""
    if world_size() == 1:
        return dict(metrics)
    values: Tensor = torch.tensor(list(metrics.values()), dtype=torch.float64)
    dist.all_reduce(values)
    return dict(zip(metrics, (values / world_size()).tolist(), strict=True))


def _number(name: str) -> int:
    text = os.environ.get(name, "")
    try:
        return int(text)
    except ValueError:
        raise InputError(
            f'the environment variable {name} is "{text}" and should be a number; start several processes with torchrun'
        ) from None
