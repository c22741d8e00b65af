"""The batched optimiser against PyTorch's and SciPy's, its independence of batchmates, and its ends."""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stylize.lbfgs import BatchedLBFGS, Stop
from stylize.preconditioner import ImagePreconditioner
from tests import tiny_transfer  # noqa: F401  # one thread

Function = Callable[[Tensor], tuple[Tensor, Tensor]]


class ImagesFunction(Protocol):
    """A function of images, each row with its problem; `rows` says which problems the given images are of."""

    def __call__(self, x: Tensor, rows: slice | list[int] = ...) -> tuple[Tensor, Tensor]: ...


INFINITE: dict[str, Any] = {"lower": -float("inf"), "upper": float("inf"), "dtype": torch.float64}


def started(x: Tensor, **options: Any) -> BatchedLBFGS:
    """An optimiser with a row per row of x, all started."""
    optimiser = BatchedLBFGS(len(x), tuple(x.shape[1:]), **{"dtype": x.dtype, **options})
    for row, start in enumerate(x):
        optimiser.start(row, start)
    return optimiser


def drive(optimiser: BatchedLBFGS, function: Function, limit: int = 10_000) -> BatchedLBFGS:
    for _ in range(limit):
        if bool((optimiser.stop != Stop.RUNNING).all()):
            break
        optimiser.tell(*function(optimiser.trial))
    return optimiser


def differentiated(value: Callable[[Tensor], Tensor]) -> Function:
    def function(x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_(True)
        values = value(x)
        (gradient,) = torch.autograd.grad(values.sum(), x)
        return values.detach(), gradient

    return function


def in_a_row(function: Function) -> Function:
    """A function of vectors [B, n] as one of images [B, 1, n]."""

    def wrapped(x: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = function(x[:, 0])
        return value, gradient[:, None]

    return wrapped


def rosenbrock(x: Tensor) -> Tensor:
    a, b = x[..., :-1], x[..., 1:]
    return (100 * (b - a * a).square() + (1 - a).square()).flatten(1).sum(1)


def quadratics(batch: int, n: int, condition: float, seed: int) -> tuple[Tensor, Tensor]:
    """Symmetric positive definite matrices [batch, n, n] and their unconstrained minimisers [batch, n]."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(batch, n, n, generator=generator, dtype=torch.float64)).Q
    spectrum = torch.logspace(0, float(np.log10(condition)), n, dtype=torch.float64)
    # Away from the unit box in about half of the coordinates.
    centre = 0.5 + torch.randn(batch, n, generator=generator, dtype=torch.float64)
    return basis @ (spectrum[:, None] * basis.mT), centre


def images_function(count: int, shape: tuple[int, ...], seed: int = 0) -> tuple[ImagesFunction, Tensor]:
    """A cheap elementwise, non-convex float32 function per row, whose bits cannot depend on batchmates, and starts.

    The sums are made a row at a time; rows know their problem by order.
    """
    generator = torch.Generator().manual_seed(seed)
    target, weight, start = (torch.rand(count, *shape, generator=generator) for _ in range(3))
    target = 1.6 * target - 0.3  # some of the minimisers lie outside the box

    def function(x: Tensor, rows: slice | list[int] = slice(None)) -> tuple[Tensor, Tensor]:
        d = x - target[rows]
        terms = (0.05 + weight[rows]) * d * d + 0.1 * (5 * d).cos()
        gradient = 2 * (0.05 + weight[rows]) * d - 0.5 * (5 * d).sin()
        return torch.stack([row.sum() for row in terms]), gradient

    return function, start


# Against PyTorch


@pytest.mark.parametrize("condition", [1.0, 100.0, 10_000.0])
def test_unclamped_quadratics_are_solved_within_the_budget_that_torch_needs(condition):
    a, centre = quadratics(3, 20, condition, seed=1)

    def value(x: Tensor, row: int) -> Tensor:
        d = x - centre[row]
        return d @ a[row] @ d

    start = torch.zeros(3, 20, dtype=torch.float64)
    budget = 400
    optimiser = started(start[:, None], max_evaluations=budget, first_step=1.0, **INFINITE)
    drive(optimiser, in_a_row(differentiated(lambda x: torch.stack([value(x[row], row) for row in range(3)]))))
    for row in range(3):
        x = start[row].clone().requires_grad_(True)
        torchs = torch.optim.LBFGS(
            [x],
            max_iter=budget,
            max_eval=budget,
            history_size=10,
            line_search_fn="strong_wolfe",
            tolerance_grad=0,
            tolerance_change=0,
        )

        def closure(x: Tensor = x, row: int = row, torchs: torch.optim.Optimizer = torchs) -> Tensor:
            torchs.zero_grad()
            loss = value(x, row)
            loss.backward()
            return loss

        torchs.step(closure)
        scale = float(value(start[row], row))
        theirs = float(value(x.detach(), row)) / scale
        assert float(optimiser.value[row]) / scale < max(1e-10, 10 * theirs)


def test_rosenbrock_reaches_the_minimum_as_torch_does():
    start = torch.stack([torch.full((10,), -1.2), torch.zeros(10), torch.full((10,), 1.7)]).double()
    optimiser = drive(started(start[:, None], max_evaluations=400, **INFINITE), differentiated(rosenbrock))
    for row in range(3):
        x = start[row].clone().requires_grad_(True)
        torchs = torch.optim.LBFGS([x], max_iter=400, max_eval=400, line_search_fn="strong_wolfe", tolerance_change=0)

        def closure(x: Tensor = x, torchs: torch.optim.Optimizer = torchs) -> Tensor:
            torchs.zero_grad()
            loss = rosenbrock(x[None])[0]
            loss.backward()
            return loss

        torchs.step(closure)
        assert float(optimiser.value[row]) < float(rosenbrock(x.detach()[None])[0]) + 1e-8
        assert optimiser.x[row, 0].tolist() == pytest.approx(x.detach().tolist(), abs=1e-4)


# Against SciPy, in boxes


def scipys_minimum(value: Callable[[np.ndarray], tuple[float, np.ndarray]], start: np.ndarray) -> float:
    found = scipy.optimize.minimize(
        value,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, 1)] * start.size,
        options={"maxiter": 5000, "maxfun": 20_000, "ftol": 1e-15, "gtol": 1e-12, "maxcor": 10},
    )
    return float(found.fun)


def quadratic(x: np.ndarray, matrix: np.ndarray, centre: np.ndarray) -> tuple[float, np.ndarray]:
    return (x - centre) @ matrix @ (x - centre), 2 * matrix @ (x - centre)


@pytest.mark.parametrize("condition", [3.0, 100.0, 10_000.0])
@pytest.mark.parametrize("seed", range(3))
def test_boxed_quadratics_reach_scipys_minimum(condition, seed):
    batch, n = 4, 24
    a, centre = quadratics(batch, n, condition, seed)

    def function(x: Tensor) -> tuple[Tensor, Tensor]:
        d = x - centre
        return torch.einsum("bi,bij,bj->b", d, a, d), 2 * torch.einsum("bij,bj->bi", a, d)

    start = torch.full((batch, n), 0.5, dtype=torch.float64)
    optimiser = drive(started(start[:, None], max_evaluations=500), in_a_row(function))
    for row in range(batch):
        expected = scipys_minimum(
            partial(quadratic, matrix=a[row].numpy(), centre=centre[row].numpy()), start[row].numpy()
        )
        at_bounds = int(((optimiser.x[row] == 0) | (optimiser.x[row] == 1)).sum())
        assert at_bounds >= 3
        assert float(optimiser.value[row]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("start", [0.0, 0.3, 1.0])
def test_rosenbrock_in_a_box_reaches_scipys_minimum(start):
    """The minimiser (1, …, 1) is put outside: the function is shifted by 0.4."""
    x0 = torch.full((1, 6), start, dtype=torch.float64)
    function = differentiated(lambda x: rosenbrock(x + 0.4))
    optimiser = drive(started(x0[:, None], max_evaluations=1000), in_a_row(function))

    def value(x: np.ndarray) -> tuple[float, np.ndarray]:
        f, g = function(torch.from_numpy(x)[None])
        return float(f), g[0].numpy()

    assert float(optimiser.value) == pytest.approx(scipys_minimum(value, x0[0].numpy()), rel=1e-6, abs=1e-9)


def test_vectors_are_a_shape_too():
    start = torch.zeros(2, 5)
    optimiser = drive(started(start, max_evaluations=50), lambda x: ((x - 0.5).square().sum(1), 2 * (x - 0.5)))
    assert optimiser.x.flatten().tolist() == pytest.approx([0.5] * 10, abs=1e-4)


def test_a_preconditioner_changes_the_way_and_not_the_end():
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(2, 3, 8, 9, generator=generator, dtype=torch.float64) * 1.4 - 0.2
    gain = torch.hypot(torch.fft.fftfreq(8)[:, None], torch.fft.rfftfreq(9)[None, :]).double() + 0.02

    def roughness(images: Tensor) -> Tensor:
        """Apply a Hessian that the preconditioner roughly inverts."""
        rough: Tensor = torch.fft.irfft2(torch.fft.rfft2(images) * gain, s=(8, 9))
        return rough

    def function(x: Tensor) -> tuple[Tensor, Tensor]:
        d = x - target
        return (d * roughness(d)).flatten(1).sum(1) / 2, roughness(d)

    start = torch.full_like(target, 0.5)
    ends, counts = [], []
    for name in (None, "low-pass", "colour", "adaptive"):
        precondition = ImagePreconditioner(name, 2, 8, 9, dtype=torch.float64) if name else None
        optimiser = drive(started(start, max_evaluations=600, precondition=precondition), function)
        ends.append(optimiser.value)
        counts.append(int(optimiser.evaluations.max()))
    for end in ends[1:]:
        assert ends[0].tolist() == pytest.approx(end.tolist(), rel=1e-6)


def test_the_scale_of_the_preconditioner_does_not_matter():
    """γ = sᵀy / yᵀPy takes it out again, and the first step has a length of its own."""
    function, start = images_function(2, (3, 16, 12))

    class Louder(ImagePreconditioner):
        def __call__(self, images: Tensor) -> Tensor:
            return 8 * super().__call__(images)

    plain, scaled = (
        drive(started(start, max_evaluations=25, precondition=kind("adaptive", 2, 16, 12)), function)
        for kind in (ImagePreconditioner, Louder)
    )
    assert torch.equal(plain.x, scaled.x)  # 8 is a power of two: no rounding


# Batchmates


@pytest.mark.parametrize(
    ("shape", "batches", "evaluations"), [((3, 16, 12), (2, 5), 30), ((2, 5, 7), (4,), 40), ((3, 218, 178), (3,), 8)]
)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_batchs_samples_are_their_solo_runs_bit_for_bit(shape, batches, evaluations, threads):
    torch.set_num_threads(threads)
    try:

        def options(rows: int) -> dict[str, Any]:
            own = ImagePreconditioner("adaptive", rows, *shape[1:]) if shape[1] == 16 else None
            return {"max_evaluations": evaluations, "precondition": own, "tolerance": 1e-4, "boldness": 2.0}

        function, start = images_function(max(batches), shape)
        solo = [
            drive(started(start[row : row + 1], **options(1)), partial(function, rows=[row]))
            for row in range(max(batches))
        ]
        for batch in batches:
            together = drive(started(start[:batch], **options(batch)), partial(function, rows=slice(batch)))
            for row in range(batch):
                assert torch.equal(together.x[row], solo[row].x[0])
                assert torch.equal(together.value[row], solo[row].value[0])
                assert together.evaluations[row] == solo[row].evaluations[0]
                assert together.stop[row] == solo[row].stop[0]
    finally:
        torch.set_num_threads(1)


def test_gradients_in_another_memory_layout_change_nothing_but_rounding():
    function, start = images_function(3, (3, 16, 12))

    def channels_last(x: Tensor, rows: slice | list[int] = slice(None)) -> tuple[Tensor, Tensor]:
        value, gradient = function(x, rows)
        return value, gradient.to(memory_format=torch.channels_last)

    a = drive(started(start, max_evaluations=30), function)
    b = drive(started(start, max_evaluations=30), channels_last)
    solo = drive(started(start[1:2], max_evaluations=30), partial(channels_last, rows=[1]))
    assert torch.allclose(a.value, b.value, rtol=1e-3)
    assert torch.equal(b.x[1], solo.x[0])


def test_a_neighbour_that_starts_anew_half_way_changes_nothing():
    function, start = images_function(3, (3, 16, 12))
    undisturbed = drive(started(start, max_evaluations=30), function)
    optimiser = started(start, max_evaluations=30)
    for number in range(30):
        if number in {3, 14}:
            optimiser.start(1, start[0])
        optimiser.tell(*function(optimiser.trial))
    for row in (0, 2):
        assert torch.equal(optimiser.x[row], undisturbed.x[row])


def test_a_row_started_anew_forgets_its_past():
    """Whatever the row did before, even if it was not a number, and wherever the ring stands."""
    function, start = images_function(2, (3, 8, 6))
    fresh = drive(started(start, max_evaluations=25), function)
    for poison in (1.0, float("nan"), float("inf")):
        optimiser = started(start.flip(0), max_evaluations=25)
        for number in range(17):
            value, gradient = function(optimiser.trial)
            optimiser.tell(value * poison if number == 16 else value, gradient * poison if number == 16 else gradient)
        for row in range(2):
            optimiser.start(row, start[row])
        drive(optimiser, function)
        assert torch.equal(optimiser.x, fresh.x), poison
        assert torch.equal(optimiser.stop, fresh.stop), poison


def test_a_row_whose_start_was_not_finite_can_be_started_anew():
    function, start = images_function(1, (3, 8, 6))
    fresh = drive(started(start, max_evaluations=25), function)
    optimiser = started(start, max_evaluations=25)
    optimiser.tell(torch.tensor([float("nan")]), torch.full_like(start, float("nan")))
    assert optimiser.stop.tolist() == [Stop.NOT_FINITE]
    optimiser.start(0, start[0])
    drive(optimiser, function)
    assert torch.equal(optimiser.x, fresh.x)


def test_dropping_rows_changes_nothing_for_those_kept():
    function, start = images_function(4, (3, 16, 12))
    undisturbed = drive(started(start, max_evaluations=30), function)
    optimiser = started(start, max_evaluations=30)
    rows = [0, 1, 2, 3]
    for number in range(30):
        if number == 7:
            rows = [3, 1]
            optimiser.keep(rows)
        elif number == 19:
            rows = [1]
            optimiser.keep([1])
        optimiser.tell(*function(optimiser.trial, rows))
    assert torch.equal(optimiser.x[0], undisturbed.x[1])
    assert optimiser.evaluations.tolist() == [30]


# Invariants


@given(
    seed=st.integers(0, 10**6),
    history=st.integers(1, 5),
    bounds=st.sampled_from([(0.0, 1.0), (-0.5, 0.25)]),
    first_step=st.sampled_from([0.001, 0.05, 10.0]),
    noise=st.sampled_from([0.0, 0.0, 1.0]),
)
@settings(max_examples=40, deadline=None)
def test_points_stay_in_the_box_and_values_never_rise(seed, history, bounds, first_step, noise):
    function, start = images_function(3, (2, 4, 3), seed)
    random = torch.Generator().manual_seed(seed)
    start = 3 * start - 1  # outside, too
    lower, upper = bounds
    optimiser = started(start, max_evaluations=20, history=history, lower=lower, upper=upper, first_step=first_step)
    previous = torch.full((3,), float("inf"))
    for number in range(24):
        assert bool(((optimiser.trial >= lower) & (optimiser.trial <= upper)).all())
        assert optimiser.evaluations.tolist() == [min(number, 20)] * 3 or bool((optimiser.stop != Stop.RUNNING).any())
        stopped, before = optimiser.stop != Stop.RUNNING, optimiser.x.clone()
        value, gradient = function(optimiser.trial)
        optimiser.tell(value, gradient + noise * torch.randn(gradient.shape, generator=random))
        assert bool((optimiser.value <= previous).all())
        assert torch.equal(optimiser.x[stopped], before[stopped])
        previous = optimiser.value.clone()
    assert bool((optimiser.stop != Stop.RUNNING).all())
    assert optimiser.evaluations.max() <= 20
    assert torch.equal(function(optimiser.x)[0], optimiser.value)


def test_slack_bounds_every_rise():
    function, start = images_function(2, (3, 8, 6))
    random = torch.Generator().manual_seed(3)
    optimiser = started(start, max_evaluations=80, slack=1e-2)
    previous = torch.full((2,), float("inf"))
    for _ in range(80):
        value, gradient = function(optimiser.trial)
        optimiser.tell(value * (1 + 5e-3 * torch.randn(2, generator=random)), gradient)
        assert bool((optimiser.value <= previous + 1.0001e-2 * previous.abs()).all())
        previous = optimiser.value.clone()


# Ends


def test_the_budget_counts_every_evaluation_and_the_first_one_too():
    function, start = images_function(2, (3, 8, 6))
    for budget in (1, 2, 7):
        calls = 0

        def counted(x: Tensor) -> tuple[Tensor, Tensor]:
            nonlocal calls
            calls += 1
            return function(x)

        optimiser = drive(started(start, max_evaluations=budget), counted)
        assert calls == budget
        assert optimiser.evaluations.tolist() == [budget] * 2
        assert optimiser.stop.tolist() == [Stop.EVALUATIONS] * 2
    assert torch.equal(drive(started(start, max_evaluations=1), function).x, start)


def test_rows_that_were_never_started_do_nothing():
    optimiser = BatchedLBFGS(2, (2, 3), max_evaluations=5)
    optimiser.start(1, torch.full((2, 3), 0.5))
    before = optimiser.x[0].clone()
    for _ in range(5):
        optimiser.tell(torch.tensor([float("nan"), 1.0]), torch.rand(2, 2, 3))
    assert optimiser.evaluations.tolist() == [0, 5]
    assert torch.equal(optimiser.x[0], before)
    assert bool(torch.isfinite(optimiser.trial).all())


def test_a_flat_function_has_converged_at_once():
    optimiser = drive(started(torch.rand(2, 3, 4), max_evaluations=50), lambda x: (torch.ones(2), torch.zeros_like(x)))
    assert optimiser.stop.tolist() == [Stop.CONVERGED] * 2
    assert optimiser.evaluations.tolist() == [1, 1]


def test_a_corner_that_holds_every_variable_is_converged():
    start = torch.zeros(1, 2, 3)
    optimiser = drive(started(start, max_evaluations=50), lambda x: (x.flatten(1).sum(1), torch.ones_like(x)))
    assert optimiser.stop.tolist() == [Stop.CONVERGED]
    assert torch.equal(optimiser.x, start)


def test_a_value_that_hardly_falls_has_converged():
    start = torch.rand(1, 4, 5, generator=torch.Generator().manual_seed(0))
    optimiser = started(start, max_evaluations=500, tolerance=1e-3)
    weight = torch.logspace(0, 4, 20).view(4, 5)
    drive(optimiser, lambda x: (1000 + (weight * (x - 0.4).square()).flatten(1).sum(1), 2 * weight * (x - 0.4)))
    assert optimiser.stop.tolist() == [Stop.CONVERGED]
    assert 20 <= int(optimiser.evaluations) < 60


def test_a_gradient_of_the_wrong_sign_ends_in_the_line_search():
    start = torch.full((1, 3, 4), 0.5)
    optimiser = drive(started(start, max_evaluations=500), lambda x: (x.flatten(1).sum(1), -torch.ones_like(x)))
    assert optimiser.stop.tolist() == [Stop.LINE_SEARCH]
    assert torch.equal(optimiser.x, start)
    assert int(optimiser.evaluations) < 50


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_start_that_is_not_finite_stops_its_row_alone(number):
    function, start = images_function(2, (3, 8, 6))
    fresh = drive(started(start[1:], max_evaluations=15), lambda x: function(x, [1]))

    def broken(x: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = function(x)
        value[0], gradient[0] = number, number
        return value, gradient

    optimiser = drive(started(start, max_evaluations=15), broken)
    assert optimiser.stop.tolist() == [Stop.NOT_FINITE, Stop.EVALUATIONS]
    assert torch.equal(optimiser.x[0], start[0])
    assert torch.equal(optimiser.x[1], fresh.x[0])


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("gradient_too", [True, False])
@pytest.mark.parametrize("at", [1, 2, 5, 9])
def test_a_value_that_is_not_finite_in_mid_run_is_backtracked_from(number, gradient_too, at):
    function, start = images_function(2, (3, 8, 6))
    undisturbed = drive(started(start, max_evaluations=40), function)
    optimiser = started(start, max_evaluations=40)
    for evaluation in range(40):
        value, gradient = function(optimiser.trial)
        if evaluation == at:
            value[0] = number
            if gradient_too:
                gradient[0] = number
        before = optimiser.value.clone()
        optimiser.tell(value, gradient)
        if evaluation == at:
            assert optimiser.value[0] == before[0]
        assert bool(torch.isfinite(optimiser.trial).all())
    assert float(optimiser.value[0]) <= float(undisturbed.value[0]) + 0.05 * abs(float(undisturbed.value[0]))
    assert torch.equal(optimiser.x[1], undisturbed.x[1])


def test_a_finite_value_with_a_broken_gradient_keeps_points_finite_and_in_the_box():
    function, start = images_function(1, (3, 8, 6))
    optimiser = started(start, max_evaluations=60)
    for evaluation in range(60):
        value, gradient = function(optimiser.trial)
        optimiser.tell(value, gradient * float("nan") if evaluation == 4 else gradient)
        assert bool(torch.isfinite(optimiser.trial).all())
        assert bool(torch.isfinite(optimiser.x).all())


def test_a_wall_is_backtracked_from_until_inside():
    """Infinite beyond 0.6, as a model that overflows there: the minimiser lies at 0.55."""
    start = torch.full((1, 2, 3), 0.1)

    def function(x: Tensor) -> tuple[Tensor, Tensor]:
        d = x - 0.55
        outside = bool((x > 0.6).any())
        return (d.square().flatten(1).sum(1) / 0 if outside else d.square().flatten(1).sum(1)), 2 * d

    optimiser = drive(started(start, max_evaluations=60, first_step=5.0), function)
    assert optimiser.x.flatten().tolist() == pytest.approx([0.55] * 6, abs=1e-3)
