"""Eq. 7 against loops in float64: value, gradient, masking, batches without negatives."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.training.triplet_loss import collapse_value, max_violation_hinge


def unit(generator, rows, dim):
    return F.normalize(torch.randn(rows, dim, generator=generator, dtype=torch.float64), dim=1)


def by_definition(real, art, identities, margin):
    """Eq. 7, pair by pair and negative by negative."""
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(real)):
        matching = torch.dot(real[i], art[i])
        others = [j for j in range(len(real)) if identities[j] != identities[i]]
        arts = [margin - matching + torch.dot(real[i], art[j]) for j in others]
        reals = [margin - matching + torch.dot(real[j], art[i]) for j in others]
        for hinges in (arts, reals):
            worst = max(hinges, key=torch.Tensor.item, default=None)
            if worst is not None and worst > 0:
                total = total + worst
    return total / len(real)


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(0, 10**6), st.floats(0.01, 1.5))
def test_value_and_gradient(people, seed, margin):
    generator = torch.Generator().manual_seed(seed)
    real, art = (unit(generator, len(people), 5).requires_grad_() for _ in range(2))
    identities = torch.tensor(people)
    loss = max_violation_hinge(real, art, identities, margin)
    expected = by_definition(real, art, people, margin)
    torch.testing.assert_close(loss, expected)
    found = torch.autograd.grad(loss, (real, art))
    if expected.requires_grad:
        wanted = torch.autograd.grad(expected, (real, art), allow_unused=True)
        for one, two in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, torch.zeros_like(one) if two is None else two)
    else:
        assert loss == 0
        assert all((gradient == 0).all() for gradient in found)


def test_gradient_is_that_of_finite_differences():
    generator = torch.Generator().manual_seed(3)
    real, art = (unit(generator, 6, 4).requires_grad_() for _ in range(2))
    identities = torch.tensor([0, 0, 1, 2, 2, 3])
    assert torch.autograd.gradcheck(lambda r, a: max_violation_hinge(r, a, identities, 0.5), (real, art))


def test_worked_example():
    """Two people in the plane; person 0 twice. Similarities s_ij are cosines of the angles between them."""
    degrees = {"real": [0.0, 60.0, 90.0], "art": [30.0, 0.0, 60.0]}
    real, art = (
        torch.tensor([[np.cos(np.radians(a)), np.sin(np.radians(a))] for a in degrees[name]]) for name in degrees
    )
    cos = {angle: np.cos(np.radians(angle)) for angle in (0, 30, 60, 90)}
    # Row 0 (art 30°): negatives are row 2 alone: art at 60°, real at 90°. Row 1 is the same person, however near.
    pair0 = max(0, 0.1 - cos[30] + cos[60]) + max(0, 0.1 - cos[30] + cos[60])
    pair1 = max(0, 0.1 - cos[60] + cos[0]) + max(0, 0.1 - cos[60] + cos[90])
    # Row 2 (real 90°, art 60°): the nearest of two negatives counts in each direction, not their sum.
    pair2 = max(0, 0.1 - cos[30] + max(cos[60], cos[90])) + max(0, 0.1 - cos[30] + max(cos[60], cos[0]))
    loss = max_violation_hinge(real.float(), art.float(), torch.tensor([0, 0, 1]))
    assert float(loss) == pytest.approx((pair0 + pair1 + pair2) / 3, rel=1e-6)


def test_the_two_directions_are_different():
    generator = torch.Generator().manual_seed(0)
    real, art = unit(generator, 5, 3), unit(generator, 5, 3)
    identities = torch.arange(5)
    similarities = real @ art.T
    negatives = similarities.masked_fill(torch.eye(5, dtype=torch.bool), -9)
    one_way, other = (
        (0.1 - similarities.diagonal() + negatives.max(dim=dim).values).clamp(min=0).mean() for dim in (1, 0)
    )
    assert not torch.isclose(one_way, other)
    torch.testing.assert_close(max_violation_hinge(real, art, identities), one_way + other)
    torch.testing.assert_close(max_violation_hinge(art, real, identities), one_way + other)


def test_collapse_value():
    """Everything in one point: two margins per pair, whatever the batch."""
    for rows in (2, 7):
        same = F.normalize(torch.ones(rows, 4), dim=1)
        loss = max_violation_hinge(same, same, torch.arange(rows), 0.3)
        assert float(loss) == pytest.approx(collapse_value(0.3)) == pytest.approx(0.6)


def test_separated_people_have_no_loss():
    same = torch.eye(4)
    assert max_violation_hinge(same, same, torch.arange(4)) == 0


def test_half_precision_embeddings_are_compared_in_float32():
    generator = torch.Generator().manual_seed(1)
    real, art = unit(generator, 4, 64).bfloat16(), unit(generator, 4, 64).bfloat16()
    loss = max_violation_hinge(real, art, torch.arange(4))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, max_violation_hinge(real.float(), art.float(), torch.arange(4)), rtol=0, atol=0)


def test_order_of_the_batch_does_not_matter():
    generator = torch.Generator().manual_seed(5)
    real, art, identities = unit(generator, 9, 4), unit(generator, 9, 4), torch.tensor([0, 1, 1, 2, 3, 3, 3, 4, 5])
    order = torch.randperm(9, generator=generator)
    torch.testing.assert_close(
        max_violation_hinge(real[order], art[order], identities[order]), max_violation_hinge(real, art, identities)
    )
