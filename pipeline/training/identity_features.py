"""Where embeddings φ come from in training: looked up, when the backbone stays as it is, or computed with gradients."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor, nn

from pipeline.backbones.embedder import FaceEmbedder
from pipeline.training.embedding_cache import DOMAINS, Domain, Precision, compute_embeddings
from pipeline.training.rank_rows import all_rows, own_rows
from pipeline.training.run_faces import Indices, RunFaces
from stylize.precision import convolution_precision


class Features(Protocol):
    """φ of photographs ("real") and proxies ("art") by face index.

    Attributes:
        network: what is trained with the projections; None where the backbone stays as it is.
        device: of everything returned.
    """

    @property
    def network(self) -> nn.Module | None: ...  # noqa: D102

    @property
    def device(self) -> torch.device: ...  # noqa: D102

    def batch(self, domain: Domain, indices: Indices) -> Tensor:
        """Return φ [B, D] for a training step, with gradients if the backbone is trained."""
        ...

    def expect(self, real: Indices, art: Indices) -> None:
        """Hear of the batch after this one."""
        ...

    def all(self, domain: Domain, indices: Indices) -> Tensor:
        """Return φ [B, D] of many faces, without gradients; under torchrun in all processes together."""
        ...


class CachedFeatures:
    """Embeddings that were computed once.

    Args:
        embeddings: domain → float32 [N, D].
        device: where to keep them.

    """

    network = None

    def __init__(self, embeddings: Mapping[Domain, Tensor], device: torch.device) -> None:
        self.device = device
        self._embeddings = {domain: values.to(device) for domain, values in embeddings.items()}

    def batch(self, domain: Domain, indices: Indices) -> Tensor:
        """Look rows up."""
        return self._embeddings[domain][torch.from_numpy(indices).to(self.device)]

    def expect(self, real: Indices, art: Indices) -> None:
        """Nothing to prepare."""

    all = batch


class BackboneFeatures:
    """Embeddings of a backbone that is being trained, from pictures that are read for each step.

    The backbone stays in evaluation mode: batch normalisation keeps the statistics that came with the weights. Batches
    of 32 photographs and 32 paintings of them would spoil running statistics that were made from millions of faces, and
    what is trained would not be what is used. For the same reason there is no dropout.

    Args:
        faces: of the run.
        embedder: the backbone.
        precision: "bf16" computes it under autocast; weights and gradients stay float32.

    """

    def __init__(self, faces: RunFaces, embedder: FaceEmbedder, precision: Precision) -> None:
        self._faces = faces
        self._embedder = embedder.eval()
        self._precision: Precision = precision
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="pictures")
        self._ahead: dict[tuple[Domain, bytes], Future[Tensor]] = {}

    @property
    def network(self) -> nn.Module:
        """The backbone."""
        return self._embedder.network

    @property
    def device(self) -> torch.device:
        """The backbone's."""
        return next(self._embedder.parameters()).device

    def batch(self, domain: Domain, indices: Indices) -> Tensor:
        """Read pictures, if they are not there yet, and embed them."""
        waiting = self._ahead.pop((domain, indices.tobytes()), None)
        pictures = (waiting.result() if waiting else self._read(domain, indices)).to(self.device)
        bf16 = self._precision == "bf16"
        with convolution_precision("fp32"), torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            embedded: Tensor = self._embedder(pictures)
        return embedded

    def expect(self, real: Indices, art: Indices) -> None:
        """Read the next batch's pictures while this one is computed."""
        self._ahead = {
            (domain, indices.tobytes()): self._pool.submit(self._read, domain, indices)
            for domain, indices in zip(DOMAINS, (real, art), strict=True)
        }

    def all(self, domain: Domain, indices: Indices) -> Tensor:
        """Embed with the weights of this moment; processes share the work."""
        own = indices[own_rows(len(indices))]
        embedded = compute_embeddings(self._faces, domain, self._embedder, own, precision=self._precision, quiet=True)
        return all_rows(embedded, len(indices)).to(self.device)

    def _read(self, domain: Domain, indices: Indices) -> Tensor:
        return self._faces.photographs(indices) if domain == "real" else self._faces.proxies(indices)
