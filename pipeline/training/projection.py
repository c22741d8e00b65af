"""The non-symmetric linear projections f_a, f_r of Cornia et al. (TOMM 2022, Eq. 4 and 5)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Form = Literal["residual", "literal", "linear"]


class Projection(nn.Module):
    """f(φ) for one domain, W of D×D.

    residual: ℓ2norm(φ + Wᵀφ), W zero at the start. The paper says in words that the projection has "a residual
        connection", and this is the reading of its equations that has one: at the start f is the bare backbone.
    literal: ℓ2norm(Wᵀ(1 + φ)), the equations as printed, W the identity at the start. The one shifts all pictures by
        the same Wᵀ1, so that f depends on the scale of φ; it is not the bare backbone at the start either.
    linear: ℓ2norm(Wᵀφ), W the identity at the start. Its W is the residual's plus the identity: the same functions
        and, without weight decay, the same training but for rounding.

    Args:
        dim: D.
        form: of the projection.

    """

    def __init__(self, dim: int, form: Form = "residual") -> None:
        super().__init__()
        self.form = form
        self.weight = nn.Parameter(torch.zeros(dim, dim) if form == "residual" else torch.eye(dim))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Project.

        Args:
            embeddings: φ, float [B, D], not normalised.

        Returns:
            float [B, D] of unit rows; a row of zeros stays one.

        """
        if self.form == "literal":
            return F.normalize((1 + embeddings) @ self.weight, dim=1)
        projected = embeddings @ self.weight
        return F.normalize(embeddings + projected if self.form == "residual" else projected, dim=1)


class AsymmetricProjections(nn.Module):
    """f_r for photographs and f_a for art: weights of their own in one joint space (Eq. 6 is their dot product)."""

    def __init__(self, dim: int, form: Form = "residual") -> None:
        super().__init__()
        self.real = Projection(dim, form)
        self.art = Projection(dim, form)
