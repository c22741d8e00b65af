"""Independent L-BFGS in a box for every sample of a batch, one function evaluation of all samples per iteration."""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor

from stylize.pair_history import PairHistory, Preconditioner
from stylize.per_sample import dot, expand, where_


class Stop(IntEnum):
    """Why a sample stopped; its lower-case name stands in the manifest."""

    RUNNING = 0
    EVALUATIONS = 1  # the budget is used up
    CONVERGED = 2  # the loss hardly fell over the last `window` evaluations, or the projected gradient is zero
    LINE_SEARCH = 3  # no decrease along the steepest descent either: the function is flat to working precision
    NOT_FINITE = 4  # the function was not finite at the start
    HOPELESS = 5  # what is left of the budget will clearly not bring the value under the target


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
    - History: see `stylize.pair_history`.
    - The reductions are done in an order that does not depend on B, so batchmates never change a sample's bits.

    Args:
        batch: B, the number of samples.
        shape: Of one sample, (…, n); at least two dimensions sum faster.
        history: m ≥ 1, how many pairs.
        lower, upper: The box, for every variable.
        max_evaluations: Per sample, the one at its start included.
        precondition, boldness: Shape and scale of the initial inverse Hessian, see `stylize.pair_history`.
        first_step: Largest change of a variable in the first step and after a restart.
        tolerance: A sample has converged when its value fell by less than this, relatively, over `window` evaluations.
        window: See `tolerance`.
        target: A sample is hopeless when its value would not come under this even if it kept falling, to the end of its
            budget, as fast as over the last `window` evaluations. (What L-BFGS reaches falls ever more slowly;
            docs/optimiser.md has the proof on real pairs.) None gives no sample up.
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
        precondition: Preconditioner | None = None,
        boldness: float = 1.0,
        first_step: float = 0.05,
        tolerance: float = 0.0,
        window: int = 10,
        target: float | None = None,
        slack: float = 0.0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._lower, self._upper = lower, upper
        self._first_step = first_step
        self._tolerance, self._window, self._slack = tolerance, window, slack
        self._target = target
        self._default_budget = max_evaluations

        def zeros(*size: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.zeros(size, dtype=dtype, device=device)

        self.trial = zeros(batch, *shape)  # where to evaluate next
        self.x = zeros(batch, *shape)  # the last point accepted: the best, but for `slack`
        self.value = zeros(batch)
        self.stop = torch.full((batch,), Stop.EVALUATIONS, dtype=torch.int8, device=device)
        self.evaluations = zeros(batch, dtype=torch.int32)
        self._budget = torch.full_like(self.evaluations, max_evaluations)
        self._gradient = zeros(batch, *shape)
        self._direction = zeros(batch, *shape)
        self._step = zeros(batch)
        self._backtracks = zeros(batch, dtype=torch.int32)
        self._steepest = zeros(batch, dtype=torch.bool)
        self._window_value = zeros(batch)
        self._history = PairHistory(
            batch, shape, history, precondition=precondition, boldness=boldness, device=device, dtype=dtype
        )

    def start(self, row: int, x: Tensor, max_evaluations: int | None = None) -> None:
        """Begin anew in one row at x, [*shape], with a fresh history; the other rows are not touched.

        `max_evaluations` is this sample's own budget; None is that of all.
        """
        self.trial[row] = x.clamp(self._lower, self._upper)
        self.x[row] = self.trial[row]
        self.evaluations[row] = 0
        self._budget[row] = self._default_budget if max_evaluations is None else max_evaluations
        self.stop[row] = Stop.RUNNING
        self._history.clear(row)

    def keep(self, rows: list[int]) -> None:
        """Drop all rows but these, in this order."""
        index = torch.tensor(rows, device=self.x.device)
        for name, tensor in vars(self).items():
            if isinstance(tensor, Tensor):
                setattr(self, name, tensor.index_select(0, index))
        self._history.keep(index)

    def tell(self, value: Tensor, gradient: Tensor) -> None:
        """Take the values [B] and gradients [B, *shape] at `trial`, and set the next `trial`.

        Rows that have stopped do not change. The samples' `stop`, `x`, `value` and `evaluations` are up to date
        afterwards. All state is changed in place.
        """
        live = self.stop == Stop.RUNNING
        fresh = live & (self.evaluations == 0)
        self.evaluations += live.int()

        step = self.trial - self.x
        slope = dot(self._gradient, step)
        bound = self.value + 1e-4 * slope + self._slack * self.value.abs()
        finite = torch.isfinite(value) & torch.isfinite(dot(gradient, gradient))
        accept = live & (fresh | (finite & (slope < 0) & (value <= bound)))

        self._history.remember(step, gradient - self._gradient, accept & ~fresh)
        shrink = self._interpolation(value, slope)
        where_(self.x, accept, self.trial)
        where_(self._gradient, accept, gradient)
        where_(self.value, accept, value)

        rejected = live & ~accept
        self._backtracks += rejected.int()
        where_(self._backtracks, accept, 0)
        restart = rejected & (self._backtracks >= 6) & ~self._steepest
        self._history.forget(restart)
        direction, first = self._history.direction(self._gradient, self._free())
        renew = accept | restart
        where_(self._direction, renew, direction)
        where_(self._steepest, renew, first)
        largest = self._direction.flatten(1).abs().amax(1).clamp_min(torch.finfo(value.dtype).tiny)
        self._step *= shrink
        where_(self._step, renew, torch.where(first, self._first_step / largest, 1.0))
        where_(self._backtracks, restart, 0)
        self._update_stop(live, rejected, fresh, finite)

        torch.addcmul(self.x, expand(self._step, self.x), self._direction, out=self.trial)
        self.trial.clamp_(self._lower, self._upper)
        where_(self.trial, self.stop != Stop.RUNNING, self.x)

    def _free(self) -> Tensor:
        """Variables that are not held at a bound by a gradient that points outwards."""
        outward = ((self.x <= self._lower) & (self._gradient > 0)) | ((self.x >= self._upper) & (self._gradient < 0))
        return ~outward

    def _interpolation(self, value: Tensor, slope: Tensor) -> Tensor:
        """Factor on a rejected step: the minimiser of the parabola through what is known, within [0.1, 0.5]."""
        factor = -slope / (2 * (value - self.value - slope))
        return torch.where(torch.isfinite(factor), factor, 0.1).clamp(0.1, 0.5)

    def _update_stop(self, live: Tensor, rejected: Tensor, fresh: Tensor, finite: Tensor) -> None:
        gradient = self._gradient
        projected = (self.x - gradient).clamp(self._lower, self._upper) - self.x
        stationary = live & (projected.flatten(1).abs().amax(1) == 0)
        window_ends = live & (self.evaluations % self._window == 0)
        judged = window_ends & (self.evaluations > self._window)
        fall = self._window_value - self.value
        converged = judged & (fall <= self._tolerance * self.value.abs())
        # A sample in the midst of backtracking has not shown that it cannot move on.
        converged &= ~rejected
        where_(self._window_value, window_ends | fresh, self.value)
        stuck = rejected & self._steepest & (self._backtracks >= 12)
        reasons = (
            (live & (self.evaluations >= self._budget), Stop.EVALUATIONS),
            (converged | stationary, Stop.CONVERGED),
            (self._hopeless(judged & ~rejected, fall), Stop.HOPELESS),
            (stuck, Stop.LINE_SEARCH),
            (fresh & ~finite, Stop.NOT_FINITE),
        )
        for mask, reason in reasons:
            where_(self.stop, mask, int(reason))

    def _hopeless(self, judged: Tensor, fall: Tensor) -> Tensor:
        if self._target is None:
            return torch.zeros_like(judged)
        windows_left = (self._budget - self.evaluations) / self._window
        return judged & (windows_left > 0) & (self.value - windows_left * fall >= self._target)
