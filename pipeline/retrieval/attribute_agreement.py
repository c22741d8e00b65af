"""Attribute agreement: in which share of the attributes a query and what was found for it are the same.

Cornia et al. (TOMM 2022) report "the attribute accuracy of the first retrieved element with respect to the query"
(Tables 3 and 4) and leave open what the attributes of the two are. There are two readings:

- as annotated: the photograph's labels, and those of the photograph that a proxy was made from. They know nothing of
  the model, so they say whether what it optimises is so. Only Celeb-A has them.
- as predicted, by the bits of Eq. 8. WebCaricature, IIIT-D Sketch, DeviantArt Faces and WikiArt Faces have no labels,
  so there is nothing else. The model judges itself: at large λ the figure says how near the nearest bits of the gallery
  are, and little of faces.

"auto" is predictions where the model has any, and labels otherwise: predictions are what the paper's figures can be
held against, for its Celeb-A rows are not what labels give. At λ = 0 Table 3 has 85.4 for a network that finds a third
of the people and 86.7 for one that finds nine of ten, whereas two photographs of a person share 85 % of their labels
and those of two people 72 % (measured on 250 people of Celeb-A): labels would be further apart, and lower. At λ = 10 it
has 91.8, where nine of ten first items show somebody else: labels then were at 75 % with our model on 283 photographs,
predictions at 97 %. Why the other test sets end at 93.3 to 97.4 and Celeb-A at 91.8, neither reading explains; labels
of the query against predictions of the item, in the score as well, might.
"""

from typing import Literal

import torch
from torch import Tensor

from manifests.errors import InputError
from pipeline.retrieval.described_faces import DescribedFaces
from pipeline.retrieval.evaluation_result import AgreementBy
from pipeline.training.run_faces import UNKNOWN

Agreement = Literal["auto", "labels", "predictions"]


def attribute_agreement(queries: Tensor, items: Tensor) -> Tensor:
    """Return the share of attributes in which pairs agree, among those that are known of both.

    Args:
        queries: int8 [N, n]: 1 yes, 0 no, -1 unknown.
        items: [N, n], what was found for each.

    Returns:
        float64 [N], 0 to 1; NaN where no attribute is known of both.

    Example:
        A query of yes, no, unknown, yes and an item of yes, yes, no, unknown: two are known of both, one agrees: 0.5.

    """
    known = (queries != UNKNOWN) & (items != UNKNOWN)
    return ((queries == items) & known).sum(dim=1).double() / known.sum(dim=1)


def agreement_by(asked: Agreement, queries: DescribedFaces, gallery: DescribedFaces) -> AgreementBy | None:
    """Choose what attributes are compared by.

    Returns:
        what was asked for; for "auto" predictions if the model has any, labels if some attribute is known of a query
        and of an item, None if there is neither.

    Raises:
        InputError: what is asked for is not there.

    """
    labelled = labels_in_common(queries, gallery)
    predicted = queries.probabilities.shape[1] > 0
    if asked == "auto":
        return "predictions" if predicted else "labels" if labelled else None
    if asked == "labels" and not labelled:
        raise InputError(
            "queries and gallery have no attribute labels in common to compare; compare what the model predicts "
            "(agreement predictions)"
        )
    if asked == "predictions" and not predicted:
        raise InputError(
            "the model predicts no attributes to compare; give attribute heads (--attributes), or compare labels"
        )
    return asked


def labels_in_common(queries: DescribedFaces, gallery: DescribedFaces) -> bool:
    """Whether some attribute is annotated of a query and of an item."""
    return bool((_known(queries) & _known(gallery)).any())


def known_attributes(faces: DescribedFaces, by: AgreementBy) -> Tensor:
    """Return the attributes as they are compared: int8 [N, n], 1 yes, 0 no, -1 unknown; no prediction is unknown."""
    return faces.labels if by == "labels" else faces.bits.to(torch.int8)


def _known(faces: DescribedFaces) -> Tensor:
    return (faces.labels != UNKNOWN).any(dim=0)
