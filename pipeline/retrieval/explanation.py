"""Why a photograph and a work of art were matched: PersonArt's Sec. 3.5, by integrated gradients (Eq. 12)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.retrieval.integrated_gradients import SPACING, Attribution, Quadrature, integrated_gradients_of_terms
from pipeline.retrieval.retrieval_model import Description, RetrievalModel
from pipeline.retrieval.scoring import check_weight
from pipeline.training.attribute_heads import binarise
from stylize.precision import convolution_precision


@dataclass(frozen=True, eq=False)
class SideExplanation:
    """What the pixels of one of the two pictures contributed to the score, the other picture fixed.

    Attributes:
        identity: to (1 + s_i)/2.
        attributes: to λ s̃_a, see `soft_agreement`; None without attributes or with λ = 0.
    """

    identity: Attribution
    attributes: Attribution | None

    @property
    def total(self) -> Attribution:
        """To the whole score, through both branches: the sum of the parts."""
        return self.identity if self.attributes is None else self.identity + self.attributes

    def as_dict(self) -> dict[str, Any]:
        """Return scores and gaps, as JSON can hold them, without the maps."""
        parts = {"total": self.total, "identity": self.identity, "attributes": self.attributes}
        return {name: None if part is None else part.as_dict() for name, part in parts.items()}


@dataclass(frozen=True, eq=False)
class Explanation:
    """Both sides of a match.

    Attributes:
        photograph: contributions of the query's pixels, [3, H, W] of its own size; the painting's description fixed.
        painting: contributions of the painting's pixels; the query's description fixed.
        weight: λ.
    """

    photograph: SideExplanation
    painting: SideExplanation
    weight: float

    def as_dict(self) -> dict[str, Any]:
        """Return scores and completeness gaps, as JSON can hold them, without the maps."""
        return {
            "lambda": self.weight,
            "photograph": self.photograph.as_dict(),
            "painting": self.painting.as_dict(),
        }


def explain(
    model: RetrievalModel,
    photograph: Tensor,
    painting: Tensor,
    *,
    weight: float,
    steps: int = 50,
    quadrature: Quadrature = "midpoint",
    spacing: float = SPACING,
    calibrate: bool = True,
    batch_size: int = 16,
) -> Explanation:
    """Say which pixels speak for a match: integrated gradients of Eq. 9 through both branches, on both sides.

    The path begins at black pixels, as the paper's does; networks normalise inside, so black is black and not grey.
    Black pixels of a picture thus contribute nothing, whatever the networks make of them. The paper explains the query
    alone.

    Args:
        model: in evaluation mode, on any device.
        photograph: uint8 [3, H, W], RGB, as `RetrievalModel.real` takes it.
        painting: likewise, for `RetrievalModel.art`; its size may differ.
        weight: λ.
        steps, quadrature, spacing, calibrate, batch_size: as for `integrated_gradients`.

    Raises:
        InputError: λ is negative, not a number, or above 0 without attributes.
        ValueError: the model is in training mode, or a picture of another shape.
    """
    check_weight(weight, len(model.attributes))
    if model.training:
        raise ValueError(
            "the model must be in evaluation mode: dropout and batch statistics have no gradient to explain"
        )
    device = next(model.parameters()).device
    query, item = photograph.to(device), painting.to(device)
    # Outside inference mode, whose tensors cannot take part in a gradient, and in float32, whatever the caller has on.
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        torch.autocast(device.type, enabled=False),
        convolution_precision("fp32"),
    ):
        query_side, item_side = model.real(query[None]), model.art(item[None])

    def side(image: Tensor, forward: Callable[[Tensor], Description], fixed: Description) -> SideExplanation:
        terms = integrated_gradients_of_terms(
            lambda images: soft_terms(forward(images), fixed, weight),
            image,
            steps=steps,
            quadrature=quadrature,
            spacing=spacing,
            calibrate=calibrate,
            batch_size=batch_size,
        )
        return SideExplanation(terms[0], terms[1] if len(terms) > 1 else None)

    return Explanation(side(query, model.real, item_side), side(item, model.art, query_side), weight)


def soft_terms(moving: Description, fixed: Description, weight: float) -> Tensor:
    """Return the terms of Eq. 9 in a form that has gradients: float [S, 2], or [S, 1] where λ is 0.

    Args:
        moving: of S pictures.
        fixed: of one picture of the other domain.
        weight: λ.
    """
    identity = (1 + moving.embeddings @ fixed.embeddings[0]) / 2
    if not weight:
        return identity[:, None]
    agreement = soft_agreement(moving.probabilities, binarise(fixed.probabilities)[0])
    return torch.stack([identity, weight * agreement], dim=1)


def soft_agreement(probabilities: Tensor, bits: Tensor) -> Tensor:
    """Return s̃_a: the share of attributes in which two pictures agree, as expected from the probabilities of one.

    Eq. 8 compares thresholded bits, whose gradient is 0 nearly everywhere. Here one side keeps its probabilities p:
    mean(p b + (1 - p)(1 - b)). It is s_a itself where all p are 0 or 1, and elsewhere differs from it.

    Args:
        probabilities: float [S, n].
        bits: bool [n].

    Returns:
        [S], 0 to 1.
    """
    return torch.where(bits, probabilities, 1 - probabilities).mean(dim=1)
