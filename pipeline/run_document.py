"""The content of run.json: what a run was made from and with (`pipeline.config` compares two of them)."""

import contextlib
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from manifests.faces import FaceCatalogue
from manifests.paintings import PaintingCatalogue
from manifests.redaction import redact
from manifests.remote_path import is_url
from pipeline.config import fingerprint
from pipeline.network import SOURCES, NetworkReference
from pipeline.plan import Plan
from stylize.convention import CONVENTIONS

_VERSIONED = ("stylize", "torch", "torchvision", "pyarrow", "distributed", "pillow")


def run_document(plan: Plan, network: NetworkReference, paths: Mapping[str, str]) -> dict[str, Any]:
    """Return what run.json says: everything that decides the result, its fingerprint, the layout, paths, versions."""
    document = {
        **plan_document(plan),
        "weights": {"source": os.path.basename(network.source), "seed": network.seed, "digest": network.digest},
        "objective": {
            "scales": None if network.scales is None else list(network.scales),
            "loss_unit": CONVENTIONS[plan.config.transfer.convention].loss_unit,
        },
    }
    return {"fingerprint": fingerprint(document), **document, "paths": dict(paths), "versions": _versions()}


def input_paths(**paths: str | os.PathLike[str] | None) -> dict[str, str]:
    """Return where the inputs lie, absolute, for commands that look at them again; not part of the fingerprint.

    URLs without their credentials: run.json goes wherever the data set goes.
    """
    return {name: _absolute(path) for name, path in paths.items() if path is not None}


def _absolute(path: str | os.PathLike[str]) -> str:
    if is_url(path):
        return redact(os.fspath(path))
    return os.fspath(path) if path in SOURCES else os.path.abspath(path)


def plan_document(plan: Plan) -> dict[str, Any]:
    """Return the parts of run.json that the plan decides."""
    catalogues: dict[str, FaceCatalogue | PaintingCatalogue] = {"faces": plan.faces, "paintings": plan.paintings}
    return {
        "config": plan.config.document(),
        "inputs": {
            name: {"count": catalogue.table.num_rows, "digest": catalogue.digest, "layout": catalogue.layout}
            for name, catalogue in catalogues.items()
        },
        **plan.layout(),
    }


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _VERSIONED:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions
