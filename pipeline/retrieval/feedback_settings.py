"""Settings of relevance feedback: the published parameters, and the choices that Eq. 10 and 11 leave open."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

from manifests.errors import InputError

Renormalise = Literal["none", "query", "both"]
Measure = Literal["cosine", "dot", "distance"]
Judged = Literal["keep", "remove"]
Positives = Literal["latest", "all"]
Positions = Literal["moved", "original"]


@dataclass(frozen=True)
class FeedbackSettings:
    """Of Cornia et al. (TOMM 2022), Sec. 3.4 and 5.

    Attributes:
        alpha, beta, gamma: of query-point movement (Eq. 10), from 0 on.
        eta, c: of feature-space warping (Eq. 11), from 0 on; eta is at most 1, so that no item jumps over the query.
        renormalise: whether the moved query (before items are warped towards it), or query and warped items, are
            brought back to unit length. The default, both, keeps s_i what Eq. 6 and 9 take it for, a cosine, and fits
            the order of the paper's Table 5 best (docs/feedback.md). With "none" a query loses a fifth of its length
            in every round, and the judged pictures take it over.
        measure: what ranks after a round: cosine, dot product, or negative Euclidean distance. The last one is given
            as 1 - d²/2, which ranks alike and equals the other two for unit vectors, so that λ keeps its meaning.
        judged: whether items that were judged stay in the ranking.
        positives: what I^p and I^n of a round are: the items judged in it, or all judged so far. With all of them,
            query-point movement alone improves with rounds; in the paper it does not.
        positions: whether f_a of a judged item is where it was moved to, or where it was at first.

    Raises:
        InputError: a parameter is out of range, or a choice has another name.
    """

    alpha: float = 0.8
    beta: float = 0.1
    gamma: float = 0.1
    eta: float = 0.5
    c: float = 0.8
    renormalise: Renormalise = "both"
    measure: Measure = "cosine"
    judged: Judged = "keep"
    positives: Positives = "latest"
    positions: Positions = "moved"

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "gamma", "eta", "c"):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0:
                raise InputError(f"{name} of relevance feedback must be a number from 0 on, not {value}")
        if self.eta > 1:
            raise InputError(f"eta of relevance feedback must be at most 1, not {self.eta}")
        for field in fields(self):
            choices = get_args(field.type)
            if choices and getattr(self, field.name) not in choices:
                raise InputError(
                    f"{field.name} of relevance feedback must be one of {', '.join(choices)}, not "
                    f'"{getattr(self, field.name)}"'
                )

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return asdict(self)


STRATEGIES: Final[Mapping[str, FeedbackSettings]] = MappingProxyType(
    {
        "QPM": FeedbackSettings(alpha=0.0, beta=1.0, gamma=0.0, eta=0.0, c=0.0),
        "FSW": FeedbackSettings(alpha=1.0, beta=0.0, gamma=0.0),
        "QPM + FSW": FeedbackSettings(),
    }
)
"""The rows of the paper's Table 5: query-point movement, feature-space warping, and both, which it calls "Ours"."""
