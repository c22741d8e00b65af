"""Relevance feedback by its definition (Cornia et al., TOMM 2022, Eq. 10 and 11): what moves is moved.

Query-point movement (Eq. 10): q ← α q + β p - γ n. Feature-space warping (Eq. 11), with the new q, for every item:
x ← x + η (e^(-c|x-p|) - e^(-c|x-n|)) (q - x). p and n are f_a of an item judged positive and one judged negative.

This form rewrites the whole gallery at every round and is here to be read and to test with; `lazy_feedback` keeps a few
numbers per item instead and comes to the same.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.retrieval.feedback_settings import FeedbackSettings, Measure

Round = tuple[Sequence[int], Sequence[int]]
"""Indices of the items liked and of those unliked in one round."""


def feedback_round(
    query: Tensor, items: Tensor, liked: Tensor, unliked: Tensor, settings: FeedbackSettings
) -> tuple[Tensor, Tensor]:
    """Return query and items after one round.

    The paper has exactly one liked and one unliked item in a round. With several, p in Eq. 10 is the mean of their
    vectors and the kernel in Eq. 11 the mean of their kernels, so that judging more of them does not move further.
    Without any, their term is left out; and with nothing liked and α = 0, which would leave no query, it stays.

    Args:
        query: float [D].
        items: float [G, D], of the same type and on the same device.
        liked, unliked: [P, D] and [N, D], P and N from 0 on: f_a(I^p) and f_a(I^n).
        settings: parameters and choices; `positives` and `positions` are the caller's, who chooses the vectors.

    Returns:
        [D] and [G, D] of the same type.

    """
    if len(liked) or (len(unliked) and settings.alpha):
        query = settings.alpha * query + settings.beta * _mean(liked) - settings.gamma * _mean(unliked)
        if settings.renormalise != "none":
            query = _unit(query)
    step = settings.eta * (_kernel(items, liked, settings.c) - _kernel(items, unliked, settings.c))
    items = items + step[:, None] * (query - items)
    return query, _unit(items) if settings.renormalise == "both" else items


def feedback_rounds(
    query: Tensor, items: Tensor, rounds: Sequence[Round], settings: FeedbackSettings
) -> tuple[Tensor, Tensor]:
    """Return query and items after several rounds.

    With ``positives="all"`` an item counts once, by its latest verdict. A round without verdicts changes nothing.

    Args:
        query: float [D].
        items: float [G, D].
        rounds: indices of the items judged, round by round.
        settings: parameters and choices.

    Returns:
        [D] and [G, D] of the same type.

    """
    at_first = items
    verdicts: dict[int, bool] = {}
    for liked, unliked in rounds:
        if not liked and not unliked:
            continue
        if settings.positives == "latest":
            verdicts = {}
        verdicts |= dict.fromkeys(liked, True) | dict.fromkeys(unliked, False)
        where = items if settings.positions == "moved" else at_first
        positive = where[[item for item, verdict in verdicts.items() if verdict]]
        negative = where[[item for item, verdict in verdicts.items() if not verdict]]
        query, items = feedback_round(query, items, positive, negative, settings)
    return query, items


def feedback_similarities(query: Tensor, items: Tensor, measure: Measure) -> Tensor:
    """Return what ranks: float [G], larger is more similar; for unit vectors all three measures are s_i of Eq. 6.

    Args:
        query: float [D].
        items: float [G, D].
        measure: "cosine" (0 for a vector of length 0), "dot", or "distance", 1 - |q - x|²/2.

    """
    if measure == "cosine":
        return _unit(items) @ _unit(query)
    if measure == "dot":
        return items @ query
    return 1 - (items - query).square().sum(dim=1) / 2


def _mean(vectors: Tensor) -> Tensor:
    return vectors.sum(dim=0) / max(len(vectors), 1)


def _kernel(items: Tensor, centres: Tensor, c: float) -> Tensor:
    """Return the mean of e^(-c|x - centre|): [G]; 0 without centres."""
    kernels = (
        torch.stack([torch.exp(-c * (items - centre).norm(dim=1)) for centre in centres], dim=1)
        if len(centres)
        else items.new_zeros(len(items), 1)
    )
    return kernels.mean(dim=1)


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1, eps=torch.finfo(vectors.dtype).tiny)
