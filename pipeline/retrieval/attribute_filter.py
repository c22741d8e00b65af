"""Items that have some attributes and lack others, by the bits of Eq. 8 (Cornia et al., TOMM 2022, Sec. 3.3)."""

import difflib
from collections.abc import Sequence
from typing import Final

from torch import Tensor

from manifests.errors import InputError

_NEAREST: Final = 3


def allowed_items(
    bits: Tensor,
    attributes: Sequence[str],
    with_: Sequence[str] = (),
    without: Sequence[str] = (),
    untrained: Sequence[str] = (),
) -> Tensor:
    """Return which items have all attributes of ``with_`` and none of ``without``.

    Args:
        bits: γ of the items as the model has it, bool [G, n].
        attributes: their n names, in order.
        with_, without: names, in any case; a name twice in one of them counts once.
        untrained: names whose bits mean nothing, as the model had no label of them in training.

    Returns:
        bool [G] on the device of the bits, true somewhere if G is not 0.

    Raises:
        InputError: there are no attributes to filter by; a name is unknown (the nearest are suggested), untrained or in
            both lists; no item is left.
    """
    wanted = [_column(name, attributes, untrained) for name in with_]
    unwanted = [_column(name, attributes, untrained) for name in without]
    if both := sorted({*wanted} & {*unwanted}):
        raise InputError(f"{attributes[both[0]]} is both asked for and ruled out; leave it out of one of the two")
    allowed = bits[:, wanted].all(dim=1) & ~bits[:, unwanted].any(dim=1)
    if len(bits) and not allowed.any():
        asked = _phrase(bits, attributes, wanted, unwanted)
        raise InputError(f"of {len(bits):,} faces none is {asked}; ask for fewer attributes")
    return allowed


def _column(name: str, attributes: Sequence[str], untrained: Sequence[str]) -> int:
    if not attributes:
        raise InputError(
            f'there are no attributes to choose "{name}" from; describe the gallery with attribute heads (--attributes)'
        )
    found = {known.lower(): at for at, known in enumerate(attributes)}
    at = found.get(_plain(name))
    if at is None:
        raise InputError(f'there is no attribute "{name}"; {_suggestion(_plain(name), attributes)}')
    if attributes[at] in untrained:
        raise InputError(
            f"the model has not learned {attributes[at]}, since no face that it was trained on is labelled with it; "
            "choose another attribute"
        )
    return at


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _suggestion(name: str, attributes: Sequence[str]) -> str:
    by_plain = {known.lower(): known for known in attributes}
    near = difflib.get_close_matches(name, by_plain, n=_NEAREST)
    near = [known for known in by_plain if name and name in known][:_NEAREST] or near  # "hat" is in Wearing_Hat
    if not near:
        return f"the attributes are {', '.join(attributes)}"
    return f"did you mean {' or '.join(by_plain[known] for known in near)}?"


def _phrase(bits: Tensor, attributes: Sequence[str], wanted: Sequence[int], unwanted: Sequence[int]) -> str:
    """Say what was asked for, and how many faces have each part of it."""
    parts = [f"{attributes[at]} ({int(bits[:, at].sum())})" for at in dict.fromkeys(wanted)]
    parts += [f"not {attributes[at]} ({int((~bits[:, at]).sum())})" for at in dict.fromkeys(unwanted)]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]} at once"
