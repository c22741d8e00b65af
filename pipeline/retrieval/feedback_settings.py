"""Settings of relevance feedback: the published parameters, and the choices that Eq. 10 and 11 leave open."""

from dataclasses import dataclass
from typing import Literal

Renormalise = Literal["none", "query", "both"]
Measure = Literal["cosine", "dot", "distance"]
Judged = Literal["keep", "remove"]
Positives = Literal["latest", "all"]
Positions = Literal["moved", "original"]


@dataclass(frozen=True)
class FeedbackSettings:
    """Of Cornia et al. (TOMM 2022), Sec. 3.4 and 5.

    Attributes:
        alpha, beta, gamma: of query-point movement (Eq. 10).
        eta, c: of feature-space warping (Eq. 11).
        renormalise: whether the moved query, or query and warped items, are brought back to unit length after a round.
        measure: what ranks after a round: cosine, dot product, or negative Euclidean distance.
        judged: whether items that were judged stay in the ranking.
        positives: what I^p and I^n of a round are: the items judged in it, or all judged so far.
        positions: whether f_a of a judged item is where it was moved to, or where it was at first.
    """

    alpha: float = 0.8
    beta: float = 0.1
    gamma: float = 0.1
    eta: float = 0.5
    c: float = 0.8
    renormalise: Renormalise = "query"
    measure: Measure = "cosine"
    judged: Judged = "keep"
    positives: Positives = "latest"
    positions: Positions = "moved"
