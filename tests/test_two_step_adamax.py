"""Izadi's Algorithm 1 against its own lines 10-22, written out in float64."""

import copy

import pytest
import torch
from torch import nn

from pipeline.training.two_step_adamax import TwoStepAdamax

ALPHA, BETA1, BETA2 = 0.002, 0.9, 0.999
STEPS = 8


class TinyFusion(nn.Module):
    """Trunk, two branches, the upper one's soft-max fed to the lower one; smooth, so that no gradient is exactly 0."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.trunk = nn.Linear(4, 5)
            self.upper = nn.Linear(5, 2)
            self.lower = nn.Linear(7, 3)
        self.double()

    def attributes(self, x):
        return self.upper(self.trunk(x).tanh()).softmax(1)

    def loss1(self, x, label, _):
        return -self.attributes(x).log()[torch.arange(len(x)), label].sum()

    def loss2(self, x, _, person):
        identities = self.lower(torch.cat([self.trunk(x).tanh(), self.attributes(x)], 1)).softmax(1)
        return -identities.log()[torch.arange(len(x)), person].sum()


def batches():
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        yield (
            torch.randn(6, 4, generator=generator, dtype=torch.float64),
            torch.randint(2, (6,), generator=generator),
            torch.randint(3, (6,), generator=generator),
        )


def gradient(network, loss, names):
    """By autograd of the loss alone; everything after it is the algorithm's text."""
    parameters = dict(network.named_parameters())
    return dict(zip(names, torch.autograd.grad(loss(), [parameters[name] for name in names]), strict=True))


def algorithm1(network, *, eps=0.0, fresh=True, shared=False):
    """Lines 7-23. `fresh`: line 17 sees what line 16 did; `shared`: one m and u for both steps (not our readings)."""
    names = [name for name, _ in network.named_parameters()]
    theta1 = [name for name in names if not name.startswith("lower")]
    theta2 = names
    zeros = {name: torch.zeros_like(value) for name, value in network.named_parameters()}
    m = {1: copy.deepcopy(zeros), 2: copy.deepcopy(zeros)}
    u = {1: copy.deepcopy(zeros), 2: copy.deepcopy(zeros)}
    if shared:
        m[2], u[2] = m[1], u[1]
    trace = []
    for t, batch in enumerate(batches(), 1):
        early = gradient(network, lambda: network.loss2(*batch), theta2)  # noqa: B023
        for step, theta, loss in ((1, theta1, network.loss1), (2, theta2, network.loss2)):
            g = early if step == 2 and not fresh else gradient(network, lambda: loss(*batch), theta)  # noqa: B023
            for name in theta:
                m[step][name] = BETA1 * m[step][name] + (1 - BETA1) * g[name]
                u[step][name] = torch.maximum(BETA2 * u[step][name], g[name].abs() + eps)
                update = ALPHA / (1 - BETA1**t) * m[step][name] / u[step][name]
                with torch.no_grad():
                    network.get_parameter(name).sub_(update)
        trace.append({name: value.detach().clone() for name, value in network.named_parameters()})
    return trace


def ours(network, **options):
    optimiser = TwoStepAdamax(
        network.trunk.parameters(), network.upper.parameters(), network.lower.parameters(), lr=ALPHA, **options
    )
    trace, losses = [], []
    for batch in batches():
        losses.append(optimiser.step(lambda: network.loss1(*batch), lambda: network.loss2(*batch)))  # noqa: B023
        trace.append({name: value.detach().clone() for name, value in network.named_parameters()})
    return trace, losses


def difference(left, right):
    return max(float((one[name] - two[name]).abs().max()) for one, two in zip(left, right, strict=True) for name in one)


def test_every_parameter_follows_the_algorithm():
    trace, _ = ours(TinyFusion(), eps=0.0)
    assert difference(trace, algorithm1(TinyFusion())) < 1e-14
    for name, value in trace[-1].items():
        assert (value != TinyFusion().get_parameter(name)).all(), name


def test_where_eps_enters():
    trace, _ = ours(TinyFusion())
    assert difference(trace, algorithm1(TinyFusion(), eps=1e-8)) < 1e-14
    assert 1e-14 < difference(trace, algorithm1(TinyFusion())) < 1e-6
    large, _ = ours(TinyFusion(), eps=0.1)
    assert difference(large, algorithm1(TinyFusion(), eps=0.1)) < 1e-14


@pytest.mark.parametrize("reading", [{"fresh": False}, {"shared": True}])
def test_other_readings_are_told_apart(reading):
    trace, _ = ours(TinyFusion(), eps=0.0)
    assert difference(trace, algorithm1(TinyFusion(), **reading)) > 1e-5


def test_the_losses_are_those_before_each_step():
    network = TinyFusion()
    batch = next(batches())
    before = float(network.loss1(*batch).detach())
    stale = float(network.loss2(*batch).detach())
    _, losses = ours(network)
    first, second = losses[0]
    assert float(first) == before
    assert float(second) != stale
    assert not first.requires_grad
    assert not second.requires_grad


def test_a_loss_that_misses_a_weight_leaves_it_alone():
    network = TinyFusion()
    optimiser = TwoStepAdamax(network.trunk.parameters(), network.upper.parameters(), network.lower.parameters())
    batch = next(batches())

    def without_upper():
        return network.lower(torch.cat([network.trunk(batch[0]).tanh(), torch.zeros(6, 2)], 1)).square().sum()

    optimiser.step(lambda: network.loss1(*batch), lambda: network.loss2(*batch))  # gives every weight its moments
    upper, trunk = copy.deepcopy(network.upper), copy.deepcopy(network.trunk)
    optimiser.step(None, without_upper)
    assert torch.equal(network.upper.weight, upper.weight)
    assert not torch.equal(network.trunk.weight, trunk.weight)


def test_one_step_without_an_upper_branch():
    network, oracle = TinyFusion(), TinyFusion()
    optimiser = TwoStepAdamax(network.trunk.parameters(), [], network.lower.parameters())
    reference = torch.optim.Adamax([*oracle.trunk.parameters(), *oracle.lower.parameters()], lr=0.002)
    for batch in batches():
        first, _ = optimiser.step(lambda: network.loss1(*batch), lambda: network.loss2(*batch))  # noqa: B023
        assert first is None
        reference.zero_grad()
        oracle.loss2(*batch).backward()
        reference.step()
    for name, value in network.named_parameters():
        assert torch.equal(value, oracle.get_parameter(name)), name


def test_gradients_are_reduced_before_each_update():
    network = TinyFusion()
    optimiser = TwoStepAdamax(network.trunk.parameters(), network.upper.parameters(), network.lower.parameters())
    batch, seen = next(batches()), []

    def reduce(parameters):
        listed = list(parameters)
        seen.append([tuple(parameter.shape) for parameter in listed])
        for parameter in listed:
            parameter.grad.zero_()

    before = copy.deepcopy(network.state_dict())
    optimiser.step(lambda: network.loss1(*batch), lambda: network.loss2(*batch), reduce=reduce)
    assert seen == [[(5, 4), (5,), (2, 5), (2,)], [(5, 4), (5,), (2, 5), (2,), (3, 7), (3,)]]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_state_goes_on(tmp_path):
    whole, cut = TinyFusion(), TinyFusion()

    def optimiser(network):
        return TwoStepAdamax(network.trunk.parameters(), network.upper.parameters(), network.lower.parameters())

    def train(network, optimise, stretch):
        for batch in list(batches())[stretch]:
            optimise.step(lambda: network.loss1(*batch), lambda: network.loss2(*batch))  # noqa: B023

    train(whole, optimiser(whole), slice(None))
    first = optimiser(cut)
    train(cut, first, slice(0, 3))
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = optimiser(cut)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    train(cut, second, slice(3, None))
    for name, value in cut.named_parameters():
        assert torch.equal(value, whole.get_parameter(name)), name
    single = TwoStepAdamax(cut.trunk.parameters(), [], cut.lower.parameters())
    with pytest.raises(ValueError, match="another number of steps"):
        single.load_state_dict(first.state_dict())
