"""Trained attribute heads, to be used: what retrieval needs, from the two files of their training run.

model.json          which backbone with which weights and crop their embeddings come from, which attributes
best.safetensors    the heads
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from manifests.errors import InputError, RunError
from pipeline.backbones.embedder import FaceEmbedder
from pipeline.backbones.loading import RANDOM
from pipeline.training.attribute_heads import CLASSES, AttributeHeads, probabilities
from pipeline.training.best_checkpoint import BEST_FILE

MODEL_FILE: Final = "model.json"
FORMAT: Final = 1
KIND: Final = "attributes"

_FIELDS: Final = ("backbone", "weights", "seed", "digest", "crop", "dim", "attributes", "untrained", "train_on")


@dataclass(frozen=True, eq=False)
class AttributeModel:
    """Heads of the best epoch, and which embeddings they understand.

    Attributes:
        heads: on the CPU, in evaluation mode.
        attributes: names of the heads, in their order.
        untrained: those of them that had no label in training; their answers mean nothing.
        train_on: "real", "art" or "joint".
        backbone: name of the network whose embeddings they take.
        weights: where its checkpoint was, or "random".
        seed: of random weights.
        digest: of its weights, as `FaceEmbedder.digest`.
        crop: what it saw of a picture, as `FaceInput.crop`.
    """

    heads: AttributeHeads
    attributes: tuple[str, ...]
    untrained: tuple[str, ...]
    train_on: str
    backbone: str
    weights: str
    seed: int
    digest: str
    crop: tuple[float, float, float, float]

    def probabilities(self, embeddings: Tensor) -> Tensor:
        """Return how probable each attribute is: float32 [N, n] from embeddings [N, D] of that network."""
        return probabilities(self.heads, embeddings)


def model_document(
    embedder: FaceEmbedder,
    *,
    weights: str,
    seed: int,
    train_on: str,
    attributes: Sequence[str],
    untrained: Sequence[str],
) -> dict[str, Any]:
    """Return what model.json says.

    Args:
        embedder: the backbone.
        weights: path of its checkpoint, or "random".
        seed: of random weights.
        train_on, attributes, untrained: as of `AttributeModel`.
    """
    return {
        "format": FORMAT,
        "kind": KIND,
        "backbone": embedder.card.name,
        "weights": weights if weights == RANDOM else os.path.abspath(weights),
        "seed": seed,
        "digest": embedder.digest,
        "crop": list(embedder.face_input.crop),
        "dim": embedder.card.embedding,
        "train_on": train_on,
        "attributes": list(attributes),
        "untrained": list(untrained),
    }


def load_attribute_heads(folder: str | os.PathLike[str]) -> AttributeModel:
    """Load the best heads of a training run, finished or not.

    Args:
        folder: of the training run, or any that holds the two files.

    Raises:
        InputError: there is no such model, or it is not trained yet.
        RunError: a file is damaged.
    """
    place = Path(folder)
    document = _document(place)
    weights = _weights(place)
    try:
        heads = _heads(weights)
        if (heads.dim, heads.n) != (document["dim"], len(document["attributes"])):
            raise ValueError(f"{heads.n} heads for embeddings of {heads.dim}")
    except (KeyError, ValueError, RuntimeError, IndexError) as error:
        raise RunError(
            f'"{place / BEST_FILE}" does not fit {MODEL_FILE} beside it; restore both from a copy, or train again'
        ) from error
    return AttributeModel(
        heads,
        attributes=tuple(document["attributes"]),
        untrained=tuple(document["untrained"]),
        train_on=document["train_on"],
        backbone=document["backbone"],
        weights=document["weights"],
        seed=document["seed"],
        digest=document["digest"],
        crop=tuple(document["crop"]),
    )


def _heads(weights: Mapping[str, Tensor]) -> AttributeHeads:
    """Make heads of the widths that the weights have."""
    n, first, second = weights["second.weight"].shape
    third, classes = weights["fourth.weight"].shape[1:]
    if classes != CLASSES:
        raise ValueError(f"{classes} classes")
    with torch.device("meta"):  # no random numbers are drawn for weights that are there
        heads = AttributeHeads(weights["first.weight"].shape[1], n, widths=(first, second, third))
    heads.load_state_dict(dict(weights), assign=True)
    return heads.requires_grad_(False).eval()


def _document(place: Path) -> dict[str, Any]:
    path = place / MODEL_FILE
    try:
        document = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f'"{place}" has no {MODEL_FILE}; give the folder of `stylize train attributes`') from None
    except (OSError, ValueError) as error:
        raise RunError(f'"{path}" cannot be read ({error}); restore it from a copy, or train again') from error
    if not isinstance(document, dict) or (document.get("format"), document.get("kind")) != (FORMAT, KIND):
        raise InputError(f'"{path}" is not a model of attributes of format {FORMAT}, which is all that is read here')
    if any(name not in document for name in _FIELDS):
        raise RunError(f'"{path}" is incomplete; restore it from a copy, or train again')
    return document


def _weights(place: Path) -> dict[str, Tensor]:
    path = place / BEST_FILE
    if not path.exists():
        raise InputError(f'"{place}" has no {BEST_FILE} yet; train it for an epoch at least')
    try:
        return load_file(path)  # type: ignore[no-any-return]
    except (SafetensorError, OSError) as error:
        raise RunError(f'"{path}" cannot be read ({error}); restore it from a copy, or train again') from error
