"""Settings of the style transfer, made from what a user typed or read back from a run."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from manifests.errors import InputError
from stylize.settings import TransferSettings


def from_options(options: Mapping[str, Any]) -> TransferSettings:
    """Make settings from options by name; None stands for the default.

    Raises:
        InputError: a value is out of range or a name unknown.
    """
    try:
        return TransferSettings(**{name: value for name, value in options.items() if value is not None})
    except ValueError as error:
        raise InputError(str(error)) from error


def from_config(config: Mapping[str, Any]) -> TransferSettings:
    """Read settings back out of the config of a run.json, where they stand among others and tuples are lists."""
    names = {field.name for field in dataclasses.fields(TransferSettings)}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in config.items()
    }
    return TransferSettings(**{name: value for name, value in values.items() if name in names})
