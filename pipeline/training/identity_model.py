"""A trained identity model, to be used: photographs and art into one space, by the two files of its training run.

model.json          which backbone with which weights and crop, which form of projection
best.safetensors    the projections, and the backbone if it was trained, too
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, get_args

import torch
from torch import Tensor, nn

from manifests.errors import InputError, RunError
from pipeline.backbones.embedder import FaceEmbedder, load_embedder
from pipeline.backbones.loading import RANDOM
from pipeline.training.best_checkpoint import BEST_FILE
from pipeline.training.identity_trainer import NETWORK, PROJECTIONS
from pipeline.training.model_file import MODEL_FILE, backbone_document, read_document, read_weights
from pipeline.training.projection import AsymmetricProjections, Form

KIND: Final = "identity"


class IdentityModel(nn.Module):
    """f_r and f_a over one backbone (Eq. 4 and 5), differentiable down to float pixels.

    Attributes:
        embedder: φ.
        projections: of φ.
        finetuned: whether φ's weights are others than those that `embedder.digest` names.

    """

    def __init__(self, embedder: FaceEmbedder, projections: AsymmetricProjections, *, finetuned: bool = False) -> None:
        super().__init__()
        self.embedder = embedder
        self.projections = projections
        self.finetuned = finetuned

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
    return backbone_document(KIND, embedder, weights=weights, seed=seed) | {
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
    document = read_document(place, KIND, ("form", "finetuned"))
    if document["form"] not in get_args(Form):
        raise RunError(
            f'"{place / MODEL_FILE}" is incomplete: it names no form of projection; restore it, or train again'
        )
    trained = read_weights(place)
    finetuned, source = document["finetuned"], os.path.expanduser(weights or document["weights"])
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
    return IdentityModel(embedder, projections, finetuned=bool(finetuned)).to(device).eval()


def _part(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
