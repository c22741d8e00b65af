"""Attribute heads: batched branches against forty networks of their own, masked cross-entropy, probabilities."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipeline.training.attribute_heads import AttributeHeads, binarise, probabilities
from pipeline.training.attribute_loss import attribute_cross_entropy, balancing_weights, label_weights

DIM = 6
NARROW = (16, 8, 4)


def paper_branch(dim, widths=(1024, 512, 64), dropout=(0.2, 0.4)):
    """One branch as the paper describes it, written out."""
    return nn.Sequential(
        nn.Linear(dim, widths[0]),
        nn.ReLU(),
        nn.Dropout(dropout[0]),
        nn.Linear(widths[0], widths[1]),
        nn.ReLU(),
        nn.Dropout(dropout[1]),
        nn.Linear(widths[1], widths[2]),
        nn.ReLU(),
        nn.Linear(widths[2], 2),
    )


def gradients_of_branches(branches):
    """Return the gradients of all branches as heads hold them."""
    grads, biases = (
        [[getattr(layer, kind).grad for layer in branch if isinstance(layer, nn.Linear)] for branch in branches]
        for kind in ("weight", "bias")
    )
    gathered = {"first.weight": torch.cat([of[0] for of in grads]), "first.bias": torch.cat([of[0] for of in biases])}
    for at, name in enumerate(("second", "third", "fourth"), start=1):
        gathered[f"{name}.weight"] = torch.stack([of[at].T for of in grads])
        gathered[f"{name}.bias"] = torch.stack([of[at][None] for of in biases])
    return gathered


@pytest.mark.parametrize(
    ("n", "widths", "mode", "dropout"),
    [
        (4, (1024, 512, 64), "eval", (0.2, 0.4)),
        (40, NARROW, "eval", (0.2, 0.4)),
        (40, NARROW, "train", (0.0, 0.0)),
        (1, NARROW, "eval", (0.2, 0.4)),
    ],
)
def test_equal_to_sequentials(n, widths, mode, dropout):
    torch.manual_seed(0)
    branches = [paper_branch(DIM, widths, dropout).double().train(mode == "train") for _ in range(n)]
    heads = AttributeHeads.from_branches(branches)
    assert heads.training == (mode == "train")
    ours, theirs = (torch.randn(5, DIM, dtype=torch.float64).requires_grad_() for _ in range(2))
    theirs.data.copy_(ours.data)
    logits = heads(ours)
    expected = torch.stack([branch(theirs) for branch in branches], dim=1)
    assert logits.shape == (5, n, 2)
    torch.testing.assert_close(logits, expected, rtol=1e-12, atol=1e-12)
    slope = torch.randn_like(expected)
    (logits * slope).sum().backward()
    (expected * slope).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-12)
    wanted = gradients_of_branches(branches)
    assert {name for name, _ in heads.named_parameters()} == set(wanted)
    for name, parameter in heads.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-10, atol=1e-12)


def test_adam_steps_equal_those_of_sequentials():
    """Adam works on each number alone, so training the batched form is training forty networks."""
    torch.manual_seed(0)
    branches = [paper_branch(DIM, NARROW, (0.0, 0.0)).double() for _ in range(3)]
    heads = AttributeHeads.from_branches(branches)
    inputs, labels = torch.randn(7, DIM, dtype=torch.float64), torch.randint(0, 2, (7, 3))
    theirs = [parameter for branch in branches for parameter in branch.parameters()]
    module: Any
    for module, parameters in ((heads, list(heads.parameters())), (None, theirs)):
        optimiser = torch.optim.Adam(parameters, lr=1e-2)
        for _ in range(5):
            optimiser.zero_grad()
            logits = module(inputs) if module else torch.stack([branch(inputs) for branch in branches], dim=1)
            F.cross_entropy(logits.flatten(0, 1), labels.flatten()).backward()
            optimiser.step()
    torch.testing.assert_close(heads.eval()(inputs), torch.stack([branch.eval()(inputs) for branch in branches], 1))


def test_conversion_both_ways():
    torch.manual_seed(0)
    heads: Any = AttributeHeads(DIM, 5, widths=NARROW, dropout=(0.1, 0.3)).double().eval()
    before = torch.get_rng_state()
    branches = heads.branches()
    again = AttributeHeads.from_branches(branches)
    assert torch.equal(torch.get_rng_state(), before)
    assert [str(branch) for branch in branches] == [str(paper_branch(DIM, NARROW, (0.1, 0.3)))] * 5
    assert not again.training
    assert not any(branch.training for branch in branches)
    assert (again.dim, again.n, again.widths, again.dropout) == (DIM, 5, NARROW, (0.1, 0.3))
    assert again.state_dict().keys() == heads.state_dict().keys()
    assert all(torch.equal(again.state_dict()[name], value) for name, value in heads.state_dict().items())
    inputs = torch.randn(3, DIM, dtype=torch.float64)
    torch.testing.assert_close(torch.stack([branch(inputs) for branch in branches], dim=1), heads(inputs))
    branches[0][0].weight.data.zero_()
    assert heads.first.weight.abs().min() > 0  # copies


def test_foreign_branches_are_refused():
    good = paper_branch(DIM, NARROW)
    bare, wide = paper_branch(DIM, NARROW), paper_branch(DIM, NARROW)
    bare[0] = nn.Linear(DIM, NARROW[0], bias=False)
    wide[8] = nn.Linear(NARROW[2], 3)
    for branches in ([], [good, paper_branch(DIM, NARROW, (0.2, 0.2))], [good[:-1]], [bare], [wide]):
        with pytest.raises(ValueError, match="branch"):
            AttributeHeads.from_branches(branches)


def test_parameter_count():
    dim = 128
    with torch.device("meta"):
        heads, branch = AttributeHeads(dim), paper_branch(dim)
    count = sum(parameter.numel() for parameter in heads.parameters())
    assert count == 40 * sum(parameter.numel() for parameter in branch.parameters())
    assert count == 40 * (129 * 1024 + 1025 * 512 + 513 * 64 + 65 * 2)


def test_start_is_that_of_linear():
    """Every branch's layer is uniform within ±1/√fan-in of its own, as ``nn.Linear`` starts."""
    torch.manual_seed(0)
    heads, branch = AttributeHeads(DIM, 40, widths=(64, 32, 16)), paper_branch(DIM, (64, 32, 16))
    mine: list[Any] = [heads.first, heads.second, heads.third, heads.fourth]
    for layer, reference in zip(mine, [layer for layer in branch if isinstance(layer, nn.Linear)], strict=True):
        bound = 1 / math.sqrt(reference.in_features)
        assert reference.weight.abs().max() <= bound
        for parameter in (layer.weight, layer.bias):
            assert parameter.abs().max() <= bound
            # Of n uniform numbers the variance is bound²/3 within a relative 0.9/√n (one standard error).
            error = 4 * 0.9 / math.sqrt(parameter.numel())
            assert parameter.var().item() == pytest.approx(bound**2 / 3, rel=error)
            assert abs(parameter.mean()) < 4 * bound / math.sqrt(3 * parameter.numel())


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    heads = AttributeHeads(DIM, 3, widths=(4096, 8, 4), dropout=(0.2, 0.0))
    seen = []
    heads.second.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    inputs = torch.randn(4, DIM)
    heads.eval()(inputs)
    heads.train()(inputs)
    plain, dropped = seen
    alive = plain > 0
    gone = (dropped == 0)[alive].float().mean().item()
    assert gone == pytest.approx(0.2, abs=0.02)
    torch.testing.assert_close(dropped[dropped != 0], plain[dropped != 0] / 0.8)
    assert not torch.equal((dropped == 0)[0], (dropped == 0)[1])  # each branch draws for itself


# --- cross-entropy --------------------------------------------------------------------------------


def mean_loss(logits, labels, classes=None):
    return attribute_cross_entropy(logits, labels, label_weights(labels, classes))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 5))
def test_loss_is_the_mean_over_known_labels(seed, batch, n):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, n, 2, generator=generator, requires_grad=True)
    labels = torch.randint(-1, 2, (batch, n), generator=generator, dtype=torch.int8)
    loss = mean_loss(logits, labels)
    known = [(row, column) for row in range(batch) for column in range(n) if labels[row, column] >= 0]
    logarithms = [logits[place].log_softmax(0)[int(labels[place])].item() for place in known]
    assert loss.item() == pytest.approx(-sum(logarithms) / max(1, len(known)), rel=1e-5)
    (slope,) = torch.autograd.grad(loss, logits)
    assert torch.equal((slope != 0).any(2), labels >= 0)


def test_attribute_wholly_unknown_trains_the_others():
    heads = AttributeHeads(DIM, 3, widths=NARROW)
    labels = torch.tensor([[1, -1, 0], [0, -1, -1]], dtype=torch.int8)
    mean_loss(heads(torch.randn(2, DIM)), labels).backward()
    assert heads.fourth.bias.grad is not None
    slope = heads.fourth.bias.grad.flatten(1).abs().sum(1)
    assert slope[1] == 0
    assert (slope[[0, 2]] > 0).all()


def test_batch_wholly_unknown_has_no_gradient():
    heads = AttributeHeads(DIM, 3, widths=NARROW)
    loss = mean_loss(heads(torch.randn(2, DIM)), torch.full((2, 3), -1, dtype=torch.int8))
    assert loss.item() == 0
    loss.backward()
    assert not any(parameter.grad.any() for parameter in heads.parameters() if parameter.grad is not None)


def test_balancing_weights():
    labels = torch.tensor([[1, 0, -1], [0, 0, -1], [0, -1, -1], [0, 0, -1]], dtype=torch.int8)
    classes = balancing_weights(labels)
    torch.testing.assert_close(classes, torch.tensor([[4 / 6, 4 / 2], [1 / 2, 0], [0, 0]]))
    # Under them a constant answer costs the same whichever class it favours.
    logits = torch.tensor([[2.0, 0.0]]).expand(4, 1, 2)
    loss = mean_loss(logits, labels[:, :1], classes[:1])
    torch.testing.assert_close(loss, mean_loss(logits.flip(2), labels[:, :1], classes[:1]))
    torch.testing.assert_close(loss, F.cross_entropy(logits[:, 0], labels[:, 0].long(), weight=classes[0]))


# --- probabilities --------------------------------------------------------------------------------


def test_probabilities():
    torch.manual_seed(0)
    heads = AttributeHeads(DIM, 3, widths=NARROW)
    embeddings = torch.randn(600, DIM)
    yes = probabilities(heads, embeddings)
    assert heads.training  # left as it was
    assert (yes.shape, yes.dtype, yes.requires_grad) == ((600, 3), torch.float32, False)
    torch.testing.assert_close(yes, heads.eval()(embeddings).softmax(2)[..., 1])
    assert torch.equal(binarise(yes), heads(embeddings).argmax(2) == 1)
    assert probabilities(heads, embeddings[:0]).shape == (0, 3)
    assert (yes.clone().requires_grad_() * 2).sum().requires_grad  # not an inference tensor


def test_binarise_says_no_on_a_tie():
    assert binarise(torch.tensor([[0.5, 0.500001, 0.1]])).tolist() == [[False, True, False]]
    assert binarise(torch.tensor([[0.5, 0.6]]), threshold=0.4).tolist() == [[True, True]]
