"""A trained identity model, to be used: photographs and art into one space, by the two files of its training run.

model.json          which backbone with which weights and crop, which form of projection
best.safetensors    the projections, and the backbone if it was trained, too
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from manifests.errors import InputError, RunError
from pipeline.backbones.embedder import FaceEmbedder, load_embedder
from pipeline.backbones.loading import RANDOM
from pipeline.training.best_checkpoint import BEST_FILE
from pipeline.training.identity_trainer import NETWORK, PROJECTIONS
from pipeline.training.projection import AsymmetricProjections, Form

MODEL_FILE: Final = "model.json"
FORMAT: Final = 1
KIND: Final = "identity"


class IdentityModel(nn.Module):
    """f_r and f_a over one backbone (Eq. 4 and 5), differentiable down to float pixels.

    Attributes:
        embedder: φ.
        projections: of φ.

    """

    def __init__(self, embedder: FaceEmbedder, projections: AsymmetricProjections) -> None:
        super().__init__()
        self.embedder = embedder
        self.projections = projections

    def embed_real(self, images: Tensor) -> Tensor:
        """Embed photographs: [B, 3, H, W], RGB, uint8 or float 0–1 → float32 [B, D], unit rows."""
        embedded: Tensor = self.projections.real(self.embedder(images))
        return embedded

    def embed_art(self, images: Tensor) -> Tensor:
        """Embed art: as `embed_real`."""
        embedded: Tensor = self.projections.art(self.embedder(images))
        return embedded


def model_document(
    embedder: FaceEmbedder, *, weights: str, seed: int, form: Form, finetuned: bool, margin: float
) -> dict[str, Any]:
    """Return what model.json says.

    Args:
        embedder: the backbone, before training.
        weights: path of its checkpoint, or "random".
        seed: of random weights.
        form: of the projections.
        finetuned: whether the backbone is trained, so that its weights are in best.safetensors.
        margin: α, for whoever looks.

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
        "form": form,
        "finetuned": finetuned,
        "margin": margin,
    }


def load_identity_model(
    folder: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    device: torch.device | str | None = None,
) -> IdentityModel:
    """Load the best model of a training run, in evaluation mode.

    Args:
        folder: of the training run, or any that holds the two files.
        weights: where the backbone's checkpoint is now, if not where it was; not needed for a trained backbone.
        device: where to; None leaves it on the CPU.

    Raises:
        InputError: no such model, one that is not trained yet, or a checkpoint that is not the one it was trained with.
        RunError: a file is damaged.

    """
    place = Path(folder)
    document = _document(place)
    trained = _weights(place)
    finetuned, source = document["finetuned"], weights or document["weights"]
    if not finetuned and source != RANDOM and not os.path.exists(source):
        raise InputError(f'the weights of {document["backbone"]} are not at "{source}"; say where they are now')
    embedder = load_embedder(
        document["backbone"],
        RANDOM if finetuned else source,
        crop=document["crop"],
        seed=document["seed"],
    )
    if not finetuned and embedder.digest != document["digest"]:
        raise InputError(f'"{source}" has other weights than those that the model in "{place}" was trained on')
    projections = AsymmetricProjections(document["dim"], document["form"])
    try:
        projections.load_state_dict(_part(trained, PROJECTIONS))
        if finetuned:
            embedder.network.load_state_dict(_part(trained, NETWORK))
    except RuntimeError as error:
        raise RunError(
            f'"{place / BEST_FILE}" does not fit {MODEL_FILE} beside it; restore both from a copy, or train again'
        ) from error
    return IdentityModel(embedder, projections).to(device).eval()


def _document(place: Path) -> dict[str, Any]:
    path = place / MODEL_FILE
    try:
        document = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f'"{place}" has no {MODEL_FILE}; give the folder of `stylize train identity`') from None
    except (OSError, ValueError) as error:
        raise RunError(f'"{path}" cannot be read ({error}); restore it from a copy, or train again') from error
    if not isinstance(document, dict) or (document.get("format"), document.get("kind")) != (FORMAT, KIND):
        raise InputError(f'"{path}" is not an identity model of format {FORMAT}, which is all that is read here')
    lacking = [name for name in ("backbone", "weights", "seed", "digest", "dim", "finetuned") if name not in document]
    crop = document.get("crop")
    if lacking or document.get("form") not in get_args(Form) or not isinstance(crop, list):
        raise RunError(f'"{path}" is incomplete; restore it from a copy, or train again')
    return document | {"crop": tuple(crop)}


def _weights(place: Path) -> dict[str, Tensor]:
    path = place / BEST_FILE
    if not path.exists():
        raise InputError(f'"{place}" has no {BEST_FILE} yet; train it for an epoch at least')
    try:
        return load_file(path)  # type: ignore[no-any-return]
    except (SafetensorError, OSError) as error:
        raise RunError(f'"{path}" cannot be read ({error}); restore it from a copy, or train again') from error


def _part(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
