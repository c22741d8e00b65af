"""The Gram matrix of a layer's features, and the style loss of one layer with its own backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def gram_matrix(features: Tensor) -> Tensor:
    """Gram matrix G = F Fᵀ / (C·H·W) of each image (PersonArt Eq. 2; the divisor is our reading, docs/objective.md).

    Args:
        features: [B, C, H, W] in any floating type.

    Returns:
        float32 (float64 for float64 features) [B, C, C], symmetric. Each image's result is the same bits whatever
        else is in the batch.

    """
    return _gram(_positions(features))


def _positions(features: Tensor) -> Tensor:
    """Features as [B, H·W, C]: for channels-last memory a view, so that no layout is ever converted."""
    return features.permute(0, 2, 3, 1).flatten(1, 2)


def _gram(positions: Tensor) -> Tensor:
    """Gram matrices of [B, H·W, C]; in fp32 or better, where sums of squares neither overflow nor lose digits."""
    exact = positions if positions.dtype == torch.float64 else positions.float()
    return _products(exact.mT, exact) / (positions.shape[1] * positions.shape[2])


def _products(left: Tensor, right: Tensor) -> Tensor:
    """Batched matrix products [B, n, k] · [B, k, m]."""
    if left.is_cuda:
        return torch.bmm(left, right)
    # On the CPU, the order of a batched product's sums depends on the batch size: multiply one image at a time.
    products = left.new_empty(len(left), left.shape[1], right.shape[2])
    for product, one, other in zip(products, left, right, strict=True):
        torch.mm(one, other, out=product)
    return products


class _StyleLoss(torch.autograd.Function):
    """¼‖G − A‖² per image. Autograd's backward of F Fᵀ takes two products; G − A is symmetric, so one is enough."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, target: Tensor) -> Tensor:
        difference = _gram(_positions(features)) - target
        ctx.save_for_backward(features, difference)
        return 0.25 * difference.square().sum((1, 2))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        features, difference = ctx.saved_tensors
        positions = _positions(features)
        weight = difference * (gradients[0] / (positions.shape[1] * positions.shape[2])).view(-1, 1, 1)
        # In the features' own precision: the sum is over channels alone, and the result is rounded to it anyway.
        product = _products(positions, weight.to(positions.dtype))
        return product.view(*product.shape[:1], *features.shape[2:], -1).permute(0, 3, 1, 2), None


def style_loss(features: Tensor, target: Tensor) -> Tensor:
    """Style loss of one layer, E_s = ¼ ‖G(features) − target‖²_F (PersonArt Eq. 2).

    Args:
        features: [B, C, H, W] of the generated images.
        target: [B, C, C], the Gram matrices of their paintings at this layer, from `gram_matrix`.

    Returns:
        [B] in the target's type, differentiable with respect to `features` once.

    """
    loss: Tensor = _StyleLoss.apply(features, target)
    return loss
