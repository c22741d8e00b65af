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
    return _product(_flatten(features))


def _flatten(features: Tensor) -> Tensor:
    """Features as [B, C, H·W], scaled by 1/√(C·H·W) first: sums of half-precision squares would overflow."""
    flat = features.flatten(2)
    flat = flat if flat.dtype == torch.float64 else flat.float()
    return flat * float((flat.shape[1] * flat.shape[2]) ** -0.5)


def _product(flat: Tensor) -> Tensor:
    if flat.is_cuda:
        return torch.bmm(flat, flat.mT)
    # On the CPU, the order of a batched product's sums depends on the batch size: multiply one image at a time.
    return torch.stack([image @ image.mT for image in flat])


class _StyleLoss(torch.autograd.Function):
    """¼‖G − A‖² per image. Autograd's backward of F Fᵀ takes two products; G − A is symmetric, so one is enough."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, target: Tensor) -> Tensor:
        flat = _flatten(features)
        difference = _product(flat) - target
        ctx.save_for_backward(features, difference)
        return 0.25 * difference.square().sum((1, 2))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        features, difference = ctx.saved_tensors
        channels, positions = features.shape[1], features.shape[2] * features.shape[3]
        weight = difference * (gradients[0] / (channels * positions)).view(-1, 1, 1)
        flat = features.flatten(2).to(weight.dtype)
        if flat.is_cuda:
            product = torch.bmm(weight, flat)
        else:
            product = torch.stack([left @ right for left, right in zip(weight, flat, strict=True)])
        return product.view(features.shape).to(features.dtype), None


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
