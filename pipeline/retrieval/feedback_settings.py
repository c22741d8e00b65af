"""Settings of relevance feedback: the published parameters, and the choices that Eq. 10 and 11 leave open."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

from manifests.errors import InputError
from pipeline.retrieval.paper_results import FEEDBACK_PARAMETERS

Renormalise = Literal["none", "query", "both"]
Measure = Literal["cosine", "dot", "distance"]
Judged = Literal["keep", "remove"]
Positives = Literal["latest", "all"]
Positions = Literal["moved", "original"]
Draws = Literal["independent", "unseen"]

_NUMBERS: Final = ("alpha", "beta", "gamma", "eta", "c")


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
        for name in _NUMBERS:
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
    {name: FeedbackSettings(*parameters) for name, parameters in FEEDBACK_PARAMETERS.items()}
)
"""The rows of the paper's Table 5: query-point movement, feature-space warping, and both, which it calls "Ours"."""


def with_choices(settings: FeedbackSettings, choices: Sequence[str]) -> FeedbackSettings:
    """Return settings with some fields replaced.

    Args:
        settings: to begin with.
        choices: "NAME=VALUE" each, NAME a field of FeedbackSettings; of several with one name the last counts.

    Raises:
        InputError: a choice is not of this form, there is no such field, or it does not take such a value.
    """
    names = [field.name for field in fields(settings)]
    return replace(settings, **{name: _value(name, text) for name, text in _parsed(choices, names)})


def simulation_choices(choices: Sequence[str]) -> tuple[list[str], Draws]:
    """Take "draws=VALUE", a choice of the simulated user, out of the others.

    Args:
        choices: as of `with_choices`, and draws.

    Returns:
        the others, and draws, "independent" unless given.

    Raises:
        InputError: as `with_choices`.
    """
    names = [*(field.name for field in fields(FeedbackSettings)), "draws"]
    parsed = _parsed(choices, names)
    draws: Draws = "independent"
    for _, text in (one for one in parsed if one[0] == "draws"):
        if text not in get_args(Draws):
            raise InputError(f'draws of relevance feedback must be one of {", ".join(get_args(Draws))}, not "{text}"')
        draws = "unseen" if text == "unseen" else "independent"
    return [f"{name}={text}" for name, text in parsed if name != "draws"], draws


def _parsed(choices: Sequence[str], names: Sequence[str]) -> list[tuple[str, str]]:
    parsed = []
    for choice in choices:
        name, equals, text = (part.strip() for part in choice.partition("="))
        if not equals:
            raise InputError(f'"{choice}" is no choice of relevance feedback; give NAME=VALUE, such as judged=remove')
        if name not in names:
            raise InputError(f'relevance feedback has no choice "{name}"; it has {", ".join(names)}')
        parsed.append((name, text))
    return parsed


def _value(name: str, text: str) -> Any:
    if name not in _NUMBERS:
        return text
    try:
        return float(text)
    except ValueError:
        raise InputError(f'{name} of relevance feedback must be a number, not "{text}"') from None
