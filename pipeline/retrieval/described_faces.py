"""What the model says of a set of faces: embeddings and attributes beside what is known of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor
from tqdm import tqdm

from manifests.attributes import ATTRIBUTES
from manifests.errors import RunError
from pipeline.retrieval.face_set import ID, IDENTITY, SOURCE_ID, FaceSet, Indices
from pipeline.retrieval.retrieval_model import RetrievalModel
from pipeline.training.attribute_heads import binarise
from pipeline.training.run_faces import UNKNOWN
from stylize.precision import convolution_precision
from stylize.prefetch import prefetch

Domain = Literal["real", "art"]


@dataclass(frozen=True, eq=False)
class DescribedFaces:
    """N faces with their descriptions.

    Attributes:
        table: N rows of FACE_SET_SCHEMA.
        embeddings: f, float32 [N, D] on the CPU, unit rows.
        probabilities: of the attributes, float32 [N, n] on the CPU; n is 0 for a model without attributes.
    """

    table: pa.Table
    embeddings: Tensor
    probabilities: Tensor

    def __len__(self) -> int:
        return len(self.embeddings)

    @property
    def bits(self) -> Tensor:
        """γ of Eq. 8: bool [N, n]."""
        return binarise(self.probabilities)

    @property
    def labels(self) -> Tensor:
        """The 40 attributes as annotated: int8 [N, 40], 1 yes, 0 no, -1 unknown."""
        columns = [self.table[name].cast(pa.int8()).fill_null(UNKNOWN).to_numpy() for name in ATTRIBUTES]
        return torch.from_numpy(np.stack(columns, axis=1))

    def take(self, indices: Indices) -> "DescribedFaces":
        """Return some of the faces, in the order given."""
        kept = torch.as_tensor(np.asarray(indices, np.int64))
        return DescribedFaces(self.table.take(pa.array(kept.numpy())), self.embeddings[kept], self.probabilities[kept])


def describe(
    model: RetrievalModel, faces: FaceSet, domain: Domain, *, batch_size: int = 64, quiet: bool = False
) -> DescribedFaces:
    """Describe all faces of a set, without gradients, on the device of the model, in float32.

    Args:
        model: in evaluation mode.
        faces: at least one.
        domain: "real" for f_r and the photographs' attributes, "art" for f_a and the art's.
        batch_size: pictures at a time; it decides nothing of the result beyond rounding.
        quiet: no progress bar (there is none either where stderr is not a terminal).

    Raises:
        InputError: a picture cannot be read.
        RunError: an embedding or a probability is not finite.
    """
    device = next(model.parameters()).device
    forward = model.real if domain == "real" else model.art
    batches = [np.arange(start, min(start + batch_size, len(faces))) for start in range(0, len(faces), batch_size)]
    parts = []
    with (
        torch.no_grad(),
        convolution_precision("fp32"),
        tqdm(total=len(faces), desc=f"describing {domain}", unit="face", disable=quiet or None) as bar,
    ):
        for batch, pictures in prefetch(batches, faces.load, depth=2):
            embeddings, probabilities = forward(pictures.to(device))
            finite = embeddings.isfinite().all(dim=1) & probabilities.isfinite().all(dim=1)
            if not finite.all():
                name = faces.table[ID][int(batch[int((~finite).nonzero()[0])])].as_py()
                raise RunError(f"the description of {name} is not finite; are these the weights of the network?")
            parts.append((embeddings.cpu(), probabilities.cpu()))
            bar.update(len(batch))
    return DescribedFaces(faces.table, *(torch.cat(columns) for columns in zip(*parts, strict=True)))


@dataclass(frozen=True, eq=False)
class Codes:
    """Who and which photograph every query and item is, as numbers that mean the same on both sides.

    Attributes:
        query_identities, gallery_identities: int64 [Q], [G]; -1 is somebody unknown.
        query_sources, gallery_sources: int64 [Q], [G].
    """

    query_identities: Tensor
    gallery_identities: Tensor
    query_sources: Tensor
    gallery_sources: Tensor

    @classmethod
    def of(cls, queries: pa.Table, gallery: pa.Table) -> "Codes":
        """Code two tables of FACE_SET_SCHEMA."""
        people = _codes([queries[IDENTITY], gallery[IDENTITY]])
        sources = _codes([queries[SOURCE_ID], gallery[SOURCE_ID]])
        return cls(people[0], people[1], sources[0], sources[1])


def _codes(columns: Sequence[pa.ChunkedArray]) -> list[Tensor]:
    values = pc.unique(pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string()))
    found = [pc.index_in(column, value_set=values.drop_null()).fill_null(UNKNOWN) for column in columns]
    return [torch.from_numpy(column.cast(pa.int64()).to_numpy().copy()) for column in found]
