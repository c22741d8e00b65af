"""Backbones by name. An architecture registers itself when its file is imported."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from manifests.errors import InputError
from pipeline.backbones.card import BackboneCard

Renaming = Callable[[Mapping[str, Tensor]], dict[str, Tensor] | None]
"""Bring a state dict in one foreign key format into our keys; None if it is not in that format."""


@dataclass(frozen=True)
class Backbone:
    """An architecture.

    Attributes:
        card: what it wants and gives.
        build: makes it with fresh weights: a module from normalised images, float [B, 1 or 3, height, width], to
            embeddings [B, D], not ℓ2-normalised.
        renamings: foreign key formats, tried in order on a state dict that does not fit as it is. Keys of a classifier
            are dropped there.
    """

    card: BackboneCard
    build: Callable[[], nn.Module]
    renamings: tuple[Renaming, ...] = ()


_REGISTRY: dict[str, Backbone] = {}


def register(backbone: Backbone) -> Backbone:
    """Make a backbone known by its card's name."""
    assert backbone.card.name not in _REGISTRY
    _REGISTRY[backbone.card.name] = backbone
    return backbone


def backbone_names() -> tuple[str, ...]:
    """Names of the registered backbones; any "timm:<model>" is one, too."""
    return tuple(sorted(_REGISTRY))


def find_backbone(name: str) -> Backbone:
    """Look a backbone up.

    Raises:
        InputError: there is none of this name, or it needs a package that is not installed.
    """
    if name in _REGISTRY:
        return _REGISTRY[name]
    near = difflib.get_close_matches(name, _REGISTRY, n=1)
    hint = f' (did you mean "{near[0]}"?)' if near else ""
    raise InputError(f'backbone "{name}" is unknown{hint}; choose from {", ".join(backbone_names())}, or timm:<model>')
