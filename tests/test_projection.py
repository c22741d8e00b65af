"""The three readings of Eq. 4 and 5, and where they start."""

from typing import get_args

import pytest
import torch
import torch.nn.functional as F

from pipeline.training.projection import AsymmetricProjections, Form, Projection

FORMS = get_args(Form)

DIM = 6


@pytest.fixture
def phi():
    return 7 * torch.randn(5, DIM, generator=torch.Generator().manual_seed(0))


def by_definition(form, weight, phi):
    """Row by row, in float64, with the transpose written out."""
    rows = []
    for row in phi.double():
        w = weight.detach().double()
        value = {"residual": row + w.T @ row, "literal": w.T @ (1 + row), "linear": w.T @ row}[form]
        rows.append(value / value.norm())
    return torch.stack(rows)


@pytest.mark.parametrize("form", FORMS)
def test_formula(form, phi):
    projection = Projection(DIM, form)
    torch.nn.init.normal_(projection.weight, generator=torch.Generator().manual_seed(1))
    found = projection(phi)
    torch.testing.assert_close(found.double(), by_definition(form, projection.weight, phi), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(5))


@pytest.mark.parametrize("form", ["residual", "linear"])
def test_the_start_is_the_bare_backbone(form, phi):
    torch.testing.assert_close(Projection(DIM, form)(phi), F.normalize(phi, dim=1))


def test_the_literal_form_starts_at_a_shift_by_one(phi):
    torch.testing.assert_close(Projection(DIM, "literal")(phi), F.normalize(phi + 1, dim=1))


@pytest.mark.parametrize("form", FORMS)
def test_a_projection_at_its_start_can_learn(form, phi):
    projection = Projection(DIM, form)
    projection(phi)[:, 0].sum().backward()
    assert projection.weight.grad is not None
    assert (projection.weight.grad != 0).all(dim=1).all()


def test_residual_and_linear_are_the_same_function(phi):
    residual, linear = Projection(DIM), Projection(DIM, "linear")
    torch.nn.init.normal_(residual.weight, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        linear.weight.copy_(residual.weight + torch.eye(DIM))
    torch.testing.assert_close(residual(phi), linear(phi))


def test_scale_of_the_embedding_matters_to_the_literal_form_alone(phi):
    for form in FORMS:
        projection = Projection(DIM, form)
        torch.nn.init.normal_(projection.weight, generator=torch.Generator().manual_seed(2))
        assert torch.allclose(projection(phi), projection(3 * phi), atol=1e-5) == (form != "literal")


def test_an_embedding_of_zeros_gives_no_nan():
    projection = Projection(DIM)
    zero = torch.zeros(1, DIM, requires_grad=True)
    projection(zero).sum().backward()
    assert zero.grad is not None
    assert zero.grad.isfinite().all()


def test_the_two_domains_have_weights_of_their_own():
    both = AsymmetricProjections(DIM)
    assert {name for name, _ in both.named_parameters()} == {"real.weight", "art.weight"}
    assert both.real.weight is not both.art.weight
    assert sum(parameter.numel() for parameter in both.parameters()) == 2 * DIM**2
