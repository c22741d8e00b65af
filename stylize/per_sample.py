"""Arithmetic of batches in which, on the CPU, no sample's bits depend on the size of the batch."""

from __future__ import annotations

import torch
from torch import Tensor


def matmul(left: Tensor, right: Tensor) -> Tensor:
    """Multiply matrices, [B, n, k] · [B, k, m] → [B, n, m].

    On the CPU the order of a batched product's sums depends on B, so samples are multiplied one at a time there.
    """
    if left.is_cuda:
        return torch.bmm(left, right)
    return torch.stack([one @ other for one, other in zip(left, right, strict=True)])


def add_matmul_(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left · right to `total` in place, each sum rounded once; shapes and bits as for `matmul`."""
    if left.is_cuda:
        total.baddbmm_(left, right)
        return
    for added, one, other in zip(total, left, right, strict=True):
        added.addmm_(one, other)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products per sample, [B]; in two stages, so that the order of sums is the same for every B."""
    lines = (a * b).sum(-1)
    return lines if lines.dim() == 1 else lines.flatten(1).sum(1)


def expand(scalars: Tensor, like: Tensor) -> Tensor:
    """View one scalar per sample, [B], as [B, 1, …, 1] of the dimensions of `like`."""
    return scalars.view(-1, *[1] * (like.dim() - 1))


def where_(target: Tensor, mask: Tensor, value: Tensor | float) -> None:
    """Overwrite in place the samples of `target`, [B, …], that `mask` [B] names."""
    if isinstance(value, Tensor):
        torch.where(expand(mask, target), value, target, out=target)
    else:
        target.masked_fill_(expand(mask, target), value)
