"""Checks that settings of several kinds of training have in common; each raises InputError naming the setting."""

from collections.abc import Mapping
from typing import get_args

from manifests.errors import InputError
from pipeline.training.device import check_device


def check_choices(settings: object, kinds: Mapping[str, object]) -> None:
    """Refuse a setting that is none of its Literal type's values; `kinds` is name → type."""
    for name, kind in kinds.items():
        if getattr(settings, name) not in get_args(kind):
            raise InputError(f'{name} is one of {", ".join(get_args(kind))}, not "{getattr(settings, name)}"')


def check_least(settings: object, least: Mapping[str, int]) -> None:
    """Refuse a setting below its least value; None is allowed."""
    for name, bound in least.items():
        value = getattr(settings, name)
        if value is not None and value < bound:
            raise InputError(f"{name} must be at least {bound}, not {value}")


def check_optimisation(lr: float | None, seed: int, device: str | None) -> None:
    """Refuse a learning rate outside (0, 1], a seed outside [0, 2^63), and a device that cannot be; None is allowed."""
    if lr is not None and not 0 < lr <= 1:
        raise InputError(f"lr must be a number above 0 and at most 1, not {lr}")
    if not 0 <= seed < 2**63:
        raise InputError(f"seed must lie in [0, 2^63), not {seed}")
    check_device(device)
