"""A face embedder small enough for tests, with random weights."""

import torch
from torch import Tensor, nn

from pipeline.backbones.card import BackboneCard
from pipeline.backbones.embedder import FaceEmbedder
from pipeline.backbones.loading import weights_digest

CARD = BackboneCard(
    name="tiny",
    width=4,
    height=5,
    channels="rgb",
    mean=(127.5,) * 3,
    std=(128.0,) * 3,
    crop=None,
    embedding=8,
    parameters=1144,
    source="tests",
    licence="MIT",
)


class TinyNetwork(nn.Module):
    """Linear → batch norm → linear; counts its pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.embedded = 0
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(60, 16), nn.BatchNorm1d(16), nn.Linear(16, 8))
        self.layers[2].register_buffer("running_mean", torch.randn(16) / 4)

    def forward(self, images: Tensor) -> Tensor:
        self.embedded += len(images)
        embedded: Tensor = self.layers(images)
        return embedded


def tiny_embedder(
    seed: int = 0, card: BackboneCard = CARD, crop: tuple[float, float, float, float] | None = None
) -> FaceEmbedder:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = TinyNetwork()
    return FaceEmbedder(card, network, crop, digest=weights_digest(network)).eval()
