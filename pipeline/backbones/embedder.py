"""Face images in, embeddings out: a backbone together with the preparation of its input."""

import os

import torch
from torch import Tensor, nn

from pipeline.backbones.card import BackboneCard
from pipeline.backbones.face_input import FaceInput
from pipeline.backbones.loading import load_network


class FaceEmbedder(nn.Module):
    """φ of the paper (Sec. 3.2): images [B, 3, H, W], RGB, uint8 or float 0–1, to embeddings [B, D].

    Normalisation happens inside, so that integrated gradients may start from black pixels. The state dict holds the
    network alone, under "network.".

    Args:
        card: of the backbone.
        network: from normalised input to [B, D].
        crop: instead of the card's, as for `FaceInput`.
        digest: of the network's weights, where known.

    Attributes:
        card, network, digest: as given.
        face_input: the preparation, with `crop`.
    """

    def __init__(
        self,
        card: BackboneCard,
        network: nn.Module,
        crop: tuple[float, float, float, float] | None = None,
        *,
        digest: str = "",
    ) -> None:
        super().__init__()
        self.card = card
        self.digest = digest
        self.face_input = FaceInput(card, crop)
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Embed images: float32 [B, D], not ℓ2-normalised.

        Raises:
            ValueError: images of another shape or type, as for `FaceInput`, or a network that is not the card's.
        """
        embeddings: Tensor = self.network(self.face_input(images))
        if embeddings.shape != (len(images), self.card.embedding):
            raise ValueError(
                f"{self.card.name} gave {list(embeddings.shape)} instead of {[len(images), self.card.embedding]}"
            )
        return embeddings.float()  # under autocast it is bfloat16


def load_embedder(
    name: str,
    weights: str | os.PathLike[str],
    *,
    crop: tuple[float, float, float, float] | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> FaceEmbedder:
    """Load a backbone by name, in evaluation mode.

    Args:
        name, weights, seed: as for `load_network`.
        crop: as for `FaceInput`.
        device: where to; None leaves it on the CPU.

    Raises:
        InputError: as for `load_network` and `FaceInput`.
    """
    loaded = load_network(name, weights, seed=seed)
    return FaceEmbedder(loaded.card, loaded.network, crop, digest=loaded.digest).to(device).eval()
