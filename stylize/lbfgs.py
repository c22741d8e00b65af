"""Independent L-BFGS in a box for every sample of a batch, one function evaluation of all samples per iteration."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

import torch
from torch import Tensor


class Stop(IntEnum):
    """Why a sample stopped; its lower-case name stands in the manifest."""

    RUNNING = 0
    EVALUATIONS = 1  # the budget is used up
    CONVERGED = 2  # the loss hardly fell over the last `window` evaluations, or the projected gradient is zero
    LINE_SEARCH = 3  # no decrease along the steepest descent either: the function is flat to working precision
    NOT_FINITE = 4  # the function was not finite at the start


class BatchedLBFGS:
    """Projected L-BFGS (Nocedal & Wright, Alg. 7.4 and 7.5) for B samples at once, in ask-and-tell form.

    Each sample has its own history, step length, acceptance and restart; the caller evaluates `trial` for all of them
    and hands values and gradients to `tell`. Nothing here waits for the device: every decision is a mask.

    - Bounds: the trial is the projection of x + t·d; variables at a bound whose gradient points outwards are held for
      the iteration (two-metric projection, Bertsekas 1982), in the two-loop recursion too.
    - Pairs: s is the difference of projected points and y that of the gradients there, and a pair enters only if
      sᵀy > 0 clearly. (Keeping s = t·d while clamping makes the update explode: pytorch/tutorials #143.)
    - Line search: backtracking with the Armijo condition on the projected step and quadratic interpolation. A
      backtracking sample costs the others nothing: each trial is one evaluation of the batch.
    - History: a ring over the last `history` evaluations, at one position for all samples, so no sample's pairs need
      gathering; an evaluation that a sample rejected leaves its place in the ring unused.
    - The reductions are done in an order that does not depend on B, so batchmates never change a sample's bits.

    Args:
        batch: B, the number of samples.
        shape: Of one sample, (…, n); at least two dimensions sum faster.
        history: m ≥ 1, how many pairs.
        lower, upper: The box, for every variable.
        max_evaluations: Per sample, the one at its start included.
        precondition: Symmetric positive definite linear map of [B, *shape], the shape of the initial inverse Hessian.
        first_step: Largest change of a variable in the first step and after a restart.
        tolerance: A sample has converged when its value fell by less than this, relatively, over `window` evaluations.
        window: See `tolerance`.
        slack: Relative increase that the line search takes for rounding; larger for values computed in bfloat16.
        device: Where everything is.
        dtype: Of the state.

    """

    def __init__(
        self,
        batch: int,
        shape: tuple[int, ...],
        *,
        history: int = 10,
        lower: float = 0.0,
        upper: float = 1.0,
        max_evaluations: int,
        precondition: Callable[[Tensor], Tensor] | None = None,
        first_step: float = 0.05,
        tolerance: float = 0.0,
        window: int = 10,
        slack: float = 0.0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._history = history
        self._lower, self._upper = lower, upper
        self._max_evaluations = max_evaluations
        self._precondition = precondition
        self._first_step = first_step
        self._tolerance, self._window, self._slack = tolerance, window, slack
        self._position = 0  # of the next pair in the ring

        def zeros(*size: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.zeros(size, dtype=dtype, device=device)

        self.trial = zeros(batch, *shape)  # where to evaluate next
        self.x = zeros(batch, *shape)  # the last point accepted: the best, but for `slack`
        self.value = zeros(batch)
        self.stop = torch.full((batch,), Stop.EVALUATIONS, dtype=torch.int8, device=device)
        self.evaluations = zeros(batch, dtype=torch.int32)
        self._gradient = zeros(batch, *shape)
        self._direction = zeros(batch, *shape)
        self._step = zeros(batch)
        self._S = zeros(history, batch, *shape)
        self._Y = zeros(history, batch, *shape)
        self._usable = zeros(history, batch, dtype=torch.bool)
        self._gamma = zeros(batch)
        self._backtracks = zeros(batch, dtype=torch.int32)
        self._steepest = zeros(batch, dtype=torch.bool)
        self._window_value = zeros(batch)

    def start(self, row: int, x: Tensor) -> None:
        """Begin anew in one row at x, [*shape], with a fresh history; the other rows are not touched."""
        self.trial[row] = x.clamp(self._lower, self._upper)
        self.x[row] = self.trial[row]
        self.evaluations[row] = 0
        self.stop[row] = Stop.RUNNING
        self._usable[:, row] = False

    def keep(self, rows: list[int]) -> None:
        """Drop all rows but these, in this order."""
        index = torch.tensor(rows, device=self.x.device)
        for name, tensor in vars(self).items():
            if isinstance(tensor, Tensor):
                setattr(self, name, tensor.index_select(1 if name in {"_S", "_Y", "_usable"} else 0, index))

    def tell(self, value: Tensor, gradient: Tensor) -> None:
        """Take the values [B] and gradients [B, *shape] at `trial`, and set the next `trial`.

        Rows that have stopped do not change. The samples' `stop`, `x`, `value` and `evaluations` are up to date
        afterwards.
        """
        live = self.stop == Stop.RUNNING
        fresh = live & (self.evaluations == 0)
        self.evaluations += live.int()

        step = self.trial - self.x
        slope = _dot(self._gradient, step)
        bound = self.value + 1e-4 * slope + self._slack * self.value.abs()
        finite = torch.isfinite(value) & torch.isfinite(_dot(gradient, gradient))
        accept = live & (fresh | (finite & (slope < 0) & (value <= bound)))

        self._remember(step, gradient - self._gradient, accept & ~fresh)
        shrink = self._interpolation(value, slope)
        self.x = _where(accept, self.trial, self.x)
        self._gradient = _where(accept, gradient, self._gradient)
        self.value = torch.where(accept, value, self.value)

        rejected = live & ~accept
        self._backtracks = torch.where(accept, 0, self._backtracks + rejected.int())
        restart = rejected & (self._backtracks >= 6) & ~self._steepest
        self._usable &= ~restart
        direction, first = self._two_loop()
        renew = accept | restart
        self._direction = _where(renew, direction, self._direction)
        self._steepest = torch.where(renew, first, self._steepest)
        largest = self._direction.flatten(1).abs().amax(1).clamp_min(torch.finfo(value.dtype).tiny)
        fresh_step = torch.where(first, self._first_step / largest, 1.0)
        self._step = torch.where(renew, fresh_step, self._step * shrink)
        self._backtracks = torch.where(restart, 0, self._backtracks)
        self._update_stop(live, rejected, fresh, finite)

        trial = self.x + _expand(self._step, self.x) * self._direction
        running = self.stop == Stop.RUNNING
        self.trial = _where(running, trial.clamp(self._lower, self._upper), self.x)

    def _remember(self, s: Tensor, y: Tensor, accepted: Tensor) -> None:
        """Put the pair into the ring, and rescale the initial inverse Hessian by γ = sᵀy / yᵀPy."""
        sy, ss, yy = _dot(s, y), _dot(s, s), _dot(y, y)
        usable = accepted & (sy > 1e-10 * (ss * yy).sqrt()) & (yy > 0)
        # Zeros where there is no pair: what is not a number, times 0, would reach the direction in the two-loop.
        self._S[self._position] = _where(usable, s, torch.zeros_like(s))
        self._Y[self._position] = _where(usable, y, torch.zeros_like(y))
        self._usable[self._position] = usable
        self._position = (self._position + 1) % self._history
        gamma = sy / _dot(y, self._filtered(y))
        self._gamma = torch.where(usable, gamma, self._gamma)

    def _two_loop(self) -> tuple[Tensor, Tensor]:
        """Direction −H·g on the variables that are free, and which samples have no pair: theirs is −P·g."""
        outward = ((self.x <= self._lower) & (self._gradient > 0)) | ((self.x >= self._upper) & (self._gradient < 0))
        free = (~outward).to(self.x.dtype)
        newest_first = [(self._position - 1 - age) % self._history for age in range(self._history)]
        q = self._gradient * free
        alphas: list[Tensor] = []
        rhos: list[Tensor] = []
        for index in newest_first:
            s, y = self._S[index], self._Y[index] * free
            # Curvature on the free variables alone: the update must be positive definite there.
            sy = _dot(s, y)
            usable = self._usable[index] & (sy > 0)
            rho = torch.where(usable, 1 / sy, 0.0)
            alpha = rho * _dot(s, q)
            q = q - _expand(alpha, q) * y
            alphas.append(alpha)
            rhos.append(rho)
        without_pair = ~self._usable.any(0)
        r = self._filtered(q) * free * _expand(torch.where(without_pair, 1.0, self._gamma), q)
        for index, alpha, rho in zip(reversed(newest_first), reversed(alphas), reversed(rhos), strict=True):
            beta = rho * _dot(self._Y[index], r)
            r = r + _expand(alpha - beta, r) * self._S[index] * free
        return -r, without_pair

    def _filtered(self, images: Tensor) -> Tensor:
        return images if self._precondition is None else self._precondition(images)

    def _interpolation(self, value: Tensor, slope: Tensor) -> Tensor:
        """Factor on a rejected step: the minimiser of the parabola through what is known, within [0.1, 0.5]."""
        factor = -slope / (2 * (value - self.value - slope))
        return torch.where(torch.isfinite(factor), factor, 0.1).clamp(0.1, 0.5)

    def _update_stop(self, live: Tensor, rejected: Tensor, fresh: Tensor, finite: Tensor) -> None:
        gradient = self._gradient
        projected = (self.x - gradient).clamp(self._lower, self._upper) - self.x
        stationary = live & (projected.flatten(1).abs().amax(1) == 0)
        judged = live & (self.evaluations % self._window == 0)
        fall = self._window_value - self.value
        converged = judged & (self.evaluations > self._window) & (fall <= self._tolerance * self.value.abs())
        # A sample in the midst of backtracking has not shown that it cannot move on.
        converged &= ~rejected
        self._window_value = torch.where(judged | fresh, self.value, self._window_value)
        stuck = rejected & self._steepest & (self._backtracks >= 12)
        reasons = (
            (live & (self.evaluations >= self._max_evaluations), Stop.EVALUATIONS),
            (converged | stationary, Stop.CONVERGED),
            (stuck, Stop.LINE_SEARCH),
            (fresh & ~finite, Stop.NOT_FINITE),
        )
        for mask, reason in reasons:
            self.stop = torch.where(mask, int(reason), self.stop).to(torch.int8)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products per sample [B]; in two stages, so that the order of sums is the same for every B."""
    lines = (a * b).sum(-1)
    return lines if lines.dim() == 1 else lines.flatten(1).sum(1)


def _expand(scalars: Tensor, like: Tensor) -> Tensor:
    return scalars.view(-1, *[1] * (like.dim() - 1))


def _where(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(_expand(mask, yes), yes, no)
