"""Trained attribute heads, to be used: what retrieval needs, from the two files of their training run.

model.json          which backbone with which weights and crop their embeddings come from, which attributes
best.safetensors    the heads
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from manifests.errors import RunError
from pipeline.backbones.embedder import FaceEmbedder
from pipeline.training.attribute_heads import CLASSES, AttributeHeads, probabilities
from pipeline.training.best_checkpoint import BEST_FILE
from pipeline.training.model_file import MODEL_FILE, backbone_document, read_document, read_weights

KIND: Final = "attributes"

_FIELDS: Final = ("attributes", "untrained", "train_on")


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
    return backbone_document(KIND, embedder, weights=weights, seed=seed) | {
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
    document = read_document(place, KIND, _FIELDS)
    weights = read_weights(place)
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
        crop=document["crop"],
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
