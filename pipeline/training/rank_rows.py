"""Rows shared out over the processes of torchrun: process r of k has the rows r, r + k, r + 2k, …"""

import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.training import ranks


def own_rows(count: int) -> slice:
    """Return which of ``count`` rows are this process's; all of them in a single one."""
    return slice(ranks.rank(), count, ranks.world_size())


def all_rows(own: Tensor, count: int) -> Tensor:
    """Put the rows of all processes together, in order, in all of them.

    Gradients reach the own rows alone. With a loss over all rows in every process, the gradients of shared weights
    summed over the processes are those that a single process would have.

    Args:
        own: float [own rows, …], the rows that `own_rows` names.
        count: of all rows.

    Returns:
        float [count, …], equal in all processes.

    """
    if ranks.world_size() == 1:
        return own
    whole = own.new_zeros(count, *own.shape[1:])
    rows = torch.arange(count, device=own.device)[own_rows(count)]
    whole[rows] = own.detach()
    dist.all_reduce(whole)  # sums with zeros, which are exact
    return whole.index_copy(0, rows, own)
