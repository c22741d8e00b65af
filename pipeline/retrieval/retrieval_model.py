"""The model of Cornia et al. (TOMM 2022), Sec. 3: identity and attributes of photographs and of art, for retrieval."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from manifests.attributes import ATTRIBUTES
from manifests.errors import InputError
from pipeline.backbones.embedder import FaceEmbedder, load_embedder
from pipeline.backbones.loading import RANDOM, weights_digest
from pipeline.training.attribute_model import AttributeModel, load_attribute_heads
from pipeline.training.identity_model import IdentityModel, load_identity_model
from pipeline.training.projection import AsymmetricProjections

Crop = tuple[float, float, float, float]


class Description(NamedTuple):
    """What the model says of pictures.

    Attributes:
        embeddings: f, float32 [B, D], unit rows.
        probabilities: of the attributes, float32 [B, n]; n is 0 for a model without attribute heads.
    """

    embeddings: Tensor
    probabilities: Tensor


@dataclass(frozen=True)
class ModelPlaces:
    """Which trained models to search with, as a user says it.

    Attributes:
        identity: folder of `stylize train identity`.
        backbone: instead of it, a bare network: nothing was trained, f is the normalised embedding in both domains.
        weights: its checkpoint, or "random"; for `identity`, where the checkpoint is now.
        attributes: folder of `stylize train attributes`; None is a model without attributes.
        art_attributes: another such folder for art; by default `attributes` serves photographs and art.
        attribute_weights: where the checkpoint of the heads' network is now, if they have a network of their own.
        seed: of random weights of a bare network.
        crop: what the networks see of a picture, instead of what they were trained with.
    """

    identity: str | None = None
    backbone: str | None = None
    weights: str | None = None
    attributes: str | None = None
    art_attributes: str | None = None
    attribute_weights: str | None = None
    seed: int = 0
    crop: Crop | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it, paths absolute."""
        document = asdict(self)
        for name in _PATHS:
            if document[name] not in {None, RANDOM}:
                document[name] = os.path.abspath(os.path.expanduser(document[name]))
        return document

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "ModelPlaces":
        """Return what `as_dict` was made of."""
        crop = document.get("crop")
        return cls(**{**document, "crop": None if crop is None else tuple(crop)})


_PATHS: Final = ("identity", "weights", "attributes", "art_attributes", "attribute_weights")


class RetrievalModel(nn.Module):
    """f_r, f_a and the attributes of both domains; differentiable down to float pixels.

    Args:
        identity: f_r and f_a.
        real, art: attribute branches of photographs and of art, with the same attributes; None for none.
        title: what it is, for people.
        digest: hex SHA-256 of all that decides a description but the crops.

    Attributes:
        title, digest: as given.
        attributes: names of the attributes, in the order of the probabilities.
        untrained: those of them whose answers mean nothing, because they had no label in training.
        dim: D.
        crop: what the identity's network sees of a picture, as fractions.
    """

    def __init__(
        self,
        identity: IdentityModel,
        real: "AttributeBranch | None",
        art: "AttributeBranch | None",
        *,
        title: str,
        digest: str,
    ) -> None:
        super().__init__()
        self.identity = identity
        self.real_attributes = real
        self.art_attributes = art
        self.title = title
        self.digest = digest
        self.attributes: tuple[str, ...] = real.attributes if real else ()
        self.untrained = tuple(sorted({*(real.untrained if real else ()), *(art.untrained if art else ())}))
        self.dim: int = identity.embedder.card.embedding
        self.crop: Crop = identity.embedder.face_input.crop

    def real(self, images: Tensor) -> Description:
        """Describe photographs: [B, 3, H, W], RGB, uint8 or float 0–1."""
        return self._describe(images, self.identity.projections.real, self.real_attributes)

    def art(self, images: Tensor) -> Description:
        """Describe art: as `real`."""
        return self._describe(images, self.identity.projections.art, self.art_attributes)

    def _describe(self, images: Tensor, projection: nn.Module, branch: "AttributeBranch | None") -> Description:
        features = self.identity.embedder(images)
        embeddings = projection(features)
        if branch is None:
            return Description(embeddings, embeddings.new_zeros(len(images), 0))
        return Description(embeddings, branch(images, features))


class AttributeBranch(nn.Module):
    """Probabilities of the attributes from pictures, or from the identity branch's features where they are the same.

    Args:
        model: the heads.
        embedder: the network that the heads were trained on; None where that is the identity branch's, whose features
            then are taken.
    """

    def __init__(self, model: AttributeModel, embedder: FaceEmbedder | None) -> None:
        super().__init__()
        self.heads = model.heads
        self.embedder = embedder
        self.attributes = model.attributes
        self.untrained = model.untrained

    def forward(self, images: Tensor, features: Tensor) -> Tensor:
        """Return float32 [B, n], differentiable."""
        own = features if self.embedder is None else self.embedder(images)
        probabilities: Tensor = self.heads(own).float().softmax(2)[..., 1]
        return probabilities


def open_retrieval_model(places: ModelPlaces, device: torch.device | str | None = None) -> RetrievalModel:
    """Load everything, in evaluation mode, without gradients of weights.

    Args:
        places: which models.
        device: where to; None leaves it on the CPU.

    Raises:
        InputError: neither or both of identity and backbone, a bare backbone without weights, a model that is not
            there, not trained, or of other weights than it was trained with; heads of photographs and art that know
            different attributes.
        RunError: a file is damaged.
    """
    identity, finetuned, name = _identity(places)
    if places.art_attributes and not places.attributes:
        raise InputError("heads for art alone compare with nothing; give heads for photographs, too (--attributes)")
    if places.attributes is None:
        real = art = None
    else:
        real = _branch(places.attributes, places, identity.embedder, finetuned)
        art = (
            real if not places.art_attributes else _branch(places.art_attributes, places, identity.embedder, finetuned)
        )
        if real.attributes != art.attributes:
            raise InputError(
                f'the heads in "{places.attributes}" and "{places.art_attributes}" know different attributes; '
                "train both on the same data set"
            )
    model = RetrievalModel(identity, real, art, title=_title(name, real, art), digest=_digest(identity, real, art))
    return model.to(device).requires_grad_(False).eval()


def _identity(places: ModelPlaces) -> tuple[IdentityModel, bool, str]:
    """Return the identity model, whether its network was trained, and what it is."""
    if (places.identity is None) == (places.backbone is None):
        raise InputError(
            "give either a trained identity model (--identity, the folder of `stylize train identity`) or a bare "
            "network (--backbone and --weights)"
        )
    if places.identity is not None:
        model = load_identity_model(places.identity, weights=places.weights)
        embedder, finetuned = model.embedder, model.finetuned
        if places.crop is not None:
            embedder = FaceEmbedder(embedder.card, embedder.network, places.crop, digest=embedder.digest)
        name = f"{embedder.card.name}, {'trained' if finetuned else 'projections trained'}"
        return IdentityModel(embedder, model.projections, finetuned=finetuned), finetuned, name
    if places.weights is None:
        raise InputError(f"give the checkpoint of {places.backbone} (--weights FILE), or --weights random")
    embedder = load_embedder(str(places.backbone), places.weights, crop=places.crop, seed=places.seed)
    bare = AsymmetricProjections(embedder.card.embedding)  # which start as the identity
    return IdentityModel(embedder, bare), False, f"{embedder.card.name}, bare"


def _branch(folder: str, places: ModelPlaces, identity: FaceEmbedder, finetuned: bool) -> AttributeBranch:
    model = load_attribute_heads(folder)
    crop = places.crop or model.crop
    if not finetuned and (model.digest, tuple(crop)) == (identity.digest, tuple(identity.face_input.crop)):
        return AttributeBranch(model, None)
    source = places.attribute_weights or model.weights
    if source != RANDOM and not os.path.exists(source):
        raise InputError(
            f'the weights of {model.backbone}, which the attributes in "{folder}" need, are not at "{source}"; say '
            "where they are now with --attribute-weights"
        )
    embedder = load_embedder(model.backbone, source, crop=crop, seed=model.seed)
    if embedder.digest != model.digest:
        raise InputError(f'"{source}" has other weights than those that the attributes in "{folder}" were trained on')
    return AttributeBranch(model, embedder)


def _title(name: str, real: AttributeBranch | None, art: AttributeBranch | None) -> str:
    if real is None or art is None:
        return f"{name}, no attributes"
    count = "40 attributes" if len(real.attributes) == len(ATTRIBUTES) else f"{len(real.attributes)} attributes"
    return f"{name}, {count}" + ("" if real is art else ", heads of their own for photographs and art")


def _digest(identity: IdentityModel, real: AttributeBranch | None, art: AttributeBranch | None) -> str:
    card = identity.embedder.card
    parts = {
        "card": [card.name, card.width, card.height, card.channels, card.mean, card.std],
        "network": weights_digest(identity.embedder.network),
        "projections": weights_digest(identity.projections),
        "form": identity.projections.art.form,
        "attributes": [None if branch is None else _branch_digest(branch) for branch in (real, art)],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _branch_digest(branch: AttributeBranch) -> list[str]:
    network = "identity" if branch.embedder is None else weights_digest(branch.embedder.network)
    return [network, weights_digest(branch.heads), *branch.attributes]
