"""Folders of trained models over the tiny backbone, for the tests of what loads them; no training has happened."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from manifests.attributes import ATTRIBUTES
from pipeline.backbones import registry
from pipeline.backbones.embedder import load_embedder
from pipeline.training import attribute_model, identity_model
from pipeline.training.attribute_heads import AttributeHeads
from pipeline.training.identity_trainer import NETWORK, PROJECTIONS
from pipeline.training.projection import AsymmetricProjections, Form
from tests.tiny_embedder import CARD, TinyNetwork, tiny_embedder

Crop = tuple[float, float, float, float]
WIDTHS = (6, 5, 4)


def register_tiny(patch: pytest.MonkeyPatch) -> None:
    """Make "tiny" a backbone as all others are, until the patch is undone."""
    patch.setitem(registry._REGISTRY, CARD.name, registry.Backbone(CARD, TinyNetwork))


def write_checkpoint(path: Path, seed: int) -> str:
    save_file(tiny_embedder(seed).network.state_dict(), path)
    return str(path)


def write_identity(
    folder: Path,
    *,
    weights: str = "random",
    crop: Crop | None = None,
    form: Form = "residual",
    finetuned: bool = False,
    seed: int = 1,
) -> str:
    """Write a model whose projections (and network, if finetuned) are drawn by the seed."""
    embedder = load_embedder(CARD.name, weights, crop=crop)
    projections = AsymmetricProjections(CARD.embedding, form)
    _draw(projections, seed, scale=0.3)
    state = _prefixed(projections, PROJECTIONS)
    if finetuned:
        state |= _prefixed(tiny_embedder(seed + 100).network, NETWORK)
    document = identity_model.model_document(
        embedder, weights=weights, seed=0, form=form, finetuned=finetuned, margin=0.1
    )
    return _write(folder, document, state)


def write_attributes(
    folder: Path,
    *,
    weights: str = "random",
    crop: Crop | None = None,
    attributes: Sequence[str] = ATTRIBUTES,
    untrained: Sequence[str] = (),
    seed: int = 2,
) -> str:
    """Write heads that are drawn by the seed; some of their answers are yes and some no."""
    embedder = load_embedder(CARD.name, weights, crop=crop)
    heads = AttributeHeads(CARD.embedding, len(attributes), widths=WIDTHS)
    _draw(heads, seed, scale=1.0)
    document = attribute_model.model_document(
        embedder, weights=weights, seed=0, train_on="joint", attributes=attributes, untrained=untrained
    )
    return _write(folder, document, dict(heads.state_dict()))


def _draw(module: nn.Module, seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=scale, generator=generator)


def _prefixed(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in module.state_dict().items()}


def _write(folder: Path, document: dict[str, object], state: dict[str, Tensor]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").write_text(json.dumps(document))
    save_file(
        {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}, folder / "best.safetensors"
    )
    return str(folder)
