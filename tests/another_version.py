"""Preload of a worker (``dask worker --preload tests.another_version``) that has another version of this package."""

from importlib import metadata

_version = metadata.version


def _another(name: str) -> str:
    return "0.0.1" if name == "stylize" else _version(name)


def dask_setup(worker: object) -> None:
    setattr(metadata, "version", _another)  # noqa: B010  # mypy takes it for a mistake
