"""The pairs that L-BFGS remembers of each sample, and the direction that they give."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from stylize.per_sample import dot, expand, matmul, where_


class Preconditioner(Protocol):
    """Symmetric positive definite linear maps P of the samples of a batch, which may learn from their pairs."""

    def __call__(self, batch: Tensor, /) -> Tensor:
        """Apply each sample's P, [B, *shape]."""

    def learn(self, s: Tensor, y: Tensor, usable: Tensor) -> None:
        """Take a pair of each sample, [B, *shape], those that are `usable` [B]."""

    def clear(self, row: int) -> None:
        """Forget what one sample has taught."""

    def keep(self, rows: Tensor) -> None:
        """Drop all samples but these, [n] indices, in this order."""


class PairHistory:
    """For each of B samples a ring of up to m pairs (s, y), and the inverse Hessian approximation that they define.

    The direction is that of the two-loop recursion (Nocedal & Wright, Alg. 7.4), restricted to the free variables. It
    is not computed loop by loop: with A_ij = s_iᵀ y_j both loops are triangular systems of m unknowns, so that the
    pairs are read by four matrix products instead of 4·m dot products and sums.

    An evaluation that gave a sample no pair leaves its place in the ring unused. A sample's place begins at 0 when it
    forgets, so that the order of its sums, and with it every bit, is its own affair. All state stays where it is in
    memory, and nothing waits for the device.

    Args:
        batch: B.
        shape: Of one sample.
        pairs: m ≥ 1.
        precondition: P; the initial inverse Hessian is γP. None is the identity.
        boldness: γ = boldness · sᵀy / yᵀPy of the newest pair. 1 is the textbook's choice, an underestimate in all
            directions that curve less than the last step's.
        device: Where everything is.
        dtype: Of the state.

    """

    def __init__(
        self,
        batch: int,
        shape: tuple[int, ...],
        pairs: int,
        *,
        precondition: Preconditioner | None,
        boldness: float,
        device: torch.device | str,
        dtype: torch.dtype,
    ) -> None:
        def zeros(*size: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.zeros(size, dtype=dtype, device=device)

        self._precondition = precondition
        self._boldness = boldness
        size = int(torch.Size(shape).numel())
        self._s = zeros(batch, pairs, size)
        # One row more than pairs: the gradient is masked and multiplied together with the y.
        self._y = zeros(batch, pairs + 1, size)
        self._masked = zeros(batch, pairs + 1, size)
        self._usable = zeros(batch, pairs, dtype=torch.bool)
        self._gamma = zeros(batch)
        self._position = zeros(batch, dtype=torch.int64)  # of the next pair
        self._samples = torch.arange(batch, device=device)
        self._ages = torch.arange(pairs, device=device)

    def clear(self, row: int) -> None:
        """Begin anew for one sample."""
        self._usable[row] = False
        self._position[row] = 0
        if self._precondition is not None:
            self._precondition.clear(row)

    def forget(self, mask: Tensor) -> None:
        """Drop the pairs of the samples of a mask [B]."""
        self._usable &= ~mask[:, None]

    def keep(self, rows: Tensor) -> None:
        """Drop all samples but these, [n] indices, in this order."""
        for name in ("_s", "_y", "_masked", "_usable", "_gamma", "_position"):
            setattr(self, name, getattr(self, name).index_select(0, rows))
        self._samples = self._samples[: len(rows)]
        if self._precondition is not None:
            self._precondition.keep(rows)

    def remember(self, s: Tensor, y: Tensor, accepted: Tensor) -> None:
        """Put a pair of each sample, [B, *shape], into the ring where `accepted` [B] and its curvature is positive."""
        sy, ss, yy = dot(s, y), dot(s, s), dot(y, y)
        usable = accepted & (sy > 1e-10 * (ss * yy).sqrt()) & (yy > 0)
        chosen = expand(usable, s)
        # Zeros where there is no pair: what is not a number, times 0, would reach the direction.
        place = (self._samples, self._position)
        self._s[place] = torch.where(chosen, s, 0).flatten(1)
        self._y[place] = torch.where(chosen, y, 0).flatten(1)
        self._usable[place] = usable
        self._position.add_(1).remainder_(len(self._ages))
        if self._precondition is not None:
            self._precondition.learn(s, y, usable)
        where_(self._gamma, usable, self._boldness * sy / dot(y, self._filtered(y)))

    def direction(self, gradient: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
        """Compute −H·gradient on the free variables.

        Args:
            gradient: [B, *shape].
            free: [B, *shape], bool: the others do not move.

        Returns:
            The direction [B, *shape], and which samples have no pair [B]: theirs is −P·gradient.

        """
        free = free.to(gradient.dtype)
        self._y[:, -1] = gradient.flatten(1)
        y = torch.mul(self._y, free.flatten(1)[:, None], out=self._masked)
        newest_first = (self._position[:, None] - 1 - self._ages).remainder(len(self._ages))

        products = matmul(self._s, y.mT)
        curvatures = _take(_take(products, newest_first), newest_first, dim=2)
        diagonal = curvatures.diagonal(dim1=1, dim2=2)[..., None]
        # Curvature on the free variables alone: the update must be positive definite there.
        usable = self._usable.gather(1, newest_first)[..., None] & (diagonal > 0)
        system = torch.where(usable & usable.mT, curvatures, 0).tril()
        system += torch.diag_embed((~usable[..., 0]).to(system.dtype))
        first_loop = torch.where(usable, _take(products[:, :, -1:], newest_first), 0)
        alpha = torch.linalg.solve_triangular(system, first_loop, upper=False)

        # q = g − Σ α_i y_i
        coefficients = torch.ones_like(y[:, :, 0])  # in the order of the ring; the last one is the gradient's
        coefficients.scatter_(1, newest_first, -alpha[..., 0])
        q = matmul(coefficients[:, None], y).view_as(gradient)
        without_pair = ~self._usable.any(1)
        r = self._filtered(q) * free * expand(torch.where(without_pair, 1.0, self._gamma), q)

        # r + Σ (α_i − β_i) s_i
        beta = _take(matmul(y[:, :-1], r.flatten(1)[..., None]), newest_first)
        second_loop = torch.where(usable, diagonal * alpha - beta, 0)
        difference = torch.linalg.solve_triangular(system.mT, second_loop, upper=True)
        weights = torch.zeros_like(coefficients[:, :-1]).scatter_(1, newest_first, difference[..., 0])
        r += matmul(weights[:, None], self._s).view_as(r) * free
        return r.neg_(), without_pair

    def _filtered(self, images: Tensor) -> Tensor:
        return images if self._precondition is None else self._precondition(images)


def _take(matrices: Tensor, order: Tensor, dim: int = 1) -> Tensor:
    """Put the rows (or columns) of [B, n, k] into an order [B, m] of its own for each sample."""
    index = order[:, :, None] if dim == 1 else order[:, None, :]
    shape = (-1, -1, matrices.shape[2]) if dim == 1 else (-1, matrices.shape[1], -1)
    return matrices.gather(dim, index.expand(*shape))
