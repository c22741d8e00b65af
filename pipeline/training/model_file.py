"""The two files of a trained model: model.json, which says what it is, and best.safetensors, its weights."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from manifests.errors import InputError, RunError
from pipeline.backbones.embedder import FaceEmbedder
from pipeline.backbones.loading import RANDOM
from pipeline.training.best_checkpoint import BEST_FILE

MODEL_FILE: Final = "model.json"
FORMAT: Final = 1

_BACKBONE: Final = ("backbone", "weights", "seed", "digest", "crop", "dim")


def backbone_document(kind: str, embedder: FaceEmbedder, *, weights: str, seed: int) -> dict[str, Any]:
    """Return what model.json says of the embeddings that a model takes.

    Args:
        kind: of the model, "identity" or "attributes".
        embedder: the backbone, before training.
        weights: path of its checkpoint, or "random"; recorded absolute, "~" replaced.
        seed: of random weights.
    """
    return {
        "format": FORMAT,
        "kind": kind,
        "backbone": embedder.card.name,
        "weights": weights if weights == RANDOM else os.path.abspath(os.path.expanduser(weights)),
        "seed": seed,
        "digest": embedder.digest,
        "crop": list(embedder.face_input.crop),
        "dim": embedder.card.embedding,
    }


def read_document(place: Path, kind: str, fields: Iterable[str]) -> dict[str, Any]:
    """Read the model.json of a folder.

    Args:
        place: the folder.
        kind: that it has to be of.
        fields: what it has to have besides the backbone's.

    Returns:
        the document, its crop a tuple.

    Raises:
        InputError: there is none, or it is of another kind or format.
        RunError: it is damaged.
    """
    path = place / MODEL_FILE
    try:
        document = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f'"{place}" has no {MODEL_FILE}; give the folder of `stylize train {kind}`') from None
    except (OSError, ValueError) as error:
        raise RunError(f'"{path}" cannot be read ({error}); restore it from a copy, or train again') from error
    if not isinstance(document, dict) or (document.get("format"), document.get("kind")) != (FORMAT, kind):
        raise InputError(f'"{path}" is not an {kind} model of format {FORMAT}, which is all that is read here')
    if any(name not in document for name in (*_BACKBONE, *fields)) or not isinstance(document["crop"], list):
        raise RunError(f'"{path}" is incomplete; restore it from a copy, or train again')
    return document | {"crop": tuple(document["crop"])}


def read_weights(place: Path) -> dict[str, Tensor]:
    """Read the weights of a folder, onto the CPU.

    Raises:
        InputError: there are none yet.
        RunError: the file is damaged.
    """
    path = place / BEST_FILE
    if not path.exists():
        raise InputError(f'"{place}" has no {BEST_FILE} yet; train it for an epoch at least')
    try:
        return load_file(path)  # type: ignore[no-any-return]
    except (SafetensorError, OSError) as error:
        raise RunError(f'"{path}" cannot be read ({error}); restore it from a copy, or train again') from error
