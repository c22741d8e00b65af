"""The Gram matrix of a layer's features, the style loss of one layer, and its gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from stylize.per_sample import add_matmul_, matmul


def gram_matrix(features: Tensor) -> Tensor:
    """Gram matrix G = F Fᵀ / (C·H·W) of each image (PersonArt Eq. 2; the divisor is our reading, docs/objective.md).

    Args:
        features: [B, C, H, W] in any floating type.

    Returns:
        float32 (float64 for float64 features) [B, C, C], symmetric. On the CPU each image's result is the same bits
        whatever else is in the batch.

    """
    positions = _positions(features)
    if positions.is_cuda and positions.dtype == torch.bfloat16:
        # Exact products of the numbers as they are, summed and returned in fp32, at the speed of bf16.
        products = torch.bmm(positions.mT, positions, out_dtype=torch.float32)
    else:
        exact = positions if positions.dtype == torch.float64 else positions.float()
        products = matmul(exact.mT, exact)
    return products / features[0].numel()


def style_loss(gram: Tensor, target: Tensor) -> Tensor:
    """Style loss of one layer, E_s = ¼ ‖G − A‖²_F (PersonArt Eq. 2), [B] from Gram matrices [B, C, C]."""
    return 0.25 * (gram - target).square().sum((1, 2))


def add_style_gradient_(gradient: Tensor, features: Tensor, gram: Tensor, target: Tensor, factor: float) -> None:
    """Add the gradient of `factor` · E_s with respect to the features, in place.

    ∂E_s/∂F = (G − A) F / (C·H·W): one product, since G − A is symmetric, where autograd would take two.

    Args:
        gradient: [B, C, H, W], fastest in channels last, in the features' type: the product's sum is over channels
            alone, and its result would be rounded to that type anyway.
        features: [B, C, H, W], channels last.
        gram, target: [B, C, C].
        factor: Weight of the loss.

    """
    weight = ((gram - target) * (factor / features[0].numel())).to(features.dtype)
    if gradient.is_contiguous(memory_format=torch.channels_last):
        add_matmul_(_positions(gradient), _positions(features), weight)
    else:  # its positions would be a copy
        gradient += matmul(_positions(features), weight).mT.reshape(gradient.shape)


def _positions(features: Tensor) -> Tensor:
    """Features as [B, H·W, C]: for channels-last memory a view, so that no layout is ever converted."""
    return features.permute(0, 2, 3, 1).flatten(1, 2)
