"""The collection that visitors are compared with: an index, its model, and the library's own ranking."""

import io
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.exhibition.photo import Pixels
from pipeline.retrieval import scoring
from pipeline.retrieval.attribute_filter import allowed_items
from pipeline.retrieval.exact_search import ExactSearch
from pipeline.retrieval.explanation import explain
from pipeline.retrieval.face_set import ID, SOURCE_ID
from pipeline.retrieval.feedback_session import FeedbackSession
from pipeline.retrieval.index import Index
from pipeline.retrieval.ranking import attribute_names, ranked_hits
from pipeline.retrieval.retrieval_model import Description, RetrievalModel
from pipeline.retrieval.saliency import overlay
from pipeline.retrieval.search import describe_photo
from pipeline.retrieval.search_result import Hit
from pipeline.training.attribute_heads import binarise

_BATCH = 8  # pictures of an explanation at a time: after each, searches get their turn


class Gallery:
    """An opened index with its model; any number of threads may use it at once.

    Args:
        index: of G faces.
        model: the one that described it (`Index.check_model`), in evaluation mode.

    Attributes:
        index, model: as given.
        faces: id → item.
        trained: names of the attributes whose answers mean something.
    """

    def __init__(self, index: Index, model: RetrievalModel) -> None:
        self.index, self.model = index, model
        self.faces: dict[str, int] = {name: at for at, name in enumerate(index.gallery.table[ID].to_pylist())}
        self.trained = tuple(name for name in index.attributes if name not in index.untrained)
        self._bits = index.gallery.bits
        self._searcher = ExactSearch(scoring.gallery_vectors(index.gallery.embeddings, self._bits))

    def __len__(self) -> int:
        return len(self.index)

    @property
    def weight(self) -> float:
        """λ where nobody chooses one: 0.2, or 0 without attributes."""
        return scoring.WEIGHT if self.index.attributes else 0.0

    def ids(self, item: int) -> tuple[str, str]:
        """Return `id` and `source_id` of an item."""
        table = self.index.gallery.table
        return table[ID][item].as_py(), table[SOURCE_ID][item].as_py()

    def describe(self, head: Tensor) -> Description:
        """Describe a visitor's head, uint8 [3, H, W] as `frame_head` cuts it; RunError if it is not finite."""
        return describe_photo(self.model, head, "the photograph")

    def session(self, query: Description) -> FeedbackSession:
        """Return relevance feedback on a description, with the settings that are the library's default."""
        return FeedbackSession(self.index.gallery.embeddings, query.embeddings[0])

    def allowed(self, with_: Sequence[str], without: Sequence[str]) -> Tensor:
        """Return which items have and lack attributes, bool [G]; InputError as `allowed_items`."""
        return allowed_items(self._bits, self.index.attributes, with_, without, self.index.untrained)

    def rank(
        self, query: Description, *, k: int, weight: float, allowed: Tensor, session: FeedbackSession | None = None
    ) -> list[Hit]:
        """Return the k best hits, as `search` would."""
        return ranked_hits(
            self.index, query, k=k, weight=weight, allowed=allowed, searcher=self._searcher, session=session
        )

    def seen(self, query: Description) -> tuple[str, ...]:
        """Return the attributes, trained ones only, that the model sees in a photograph."""
        return tuple(name for name in self._names(query) if name in self.trained)

    def agreeing(self, query: Description, hit: Hit) -> tuple[str, ...]:
        """Return the trained attributes that a photograph and a hit both have or both lack."""
        return tuple(name for name in self.trained if name not in hit.differing)

    def explain(
        self, head: Tensor, item: int, *, weight: float, steps: int, pause: Callable[[], None]
    ) -> tuple[bytes, bytes]:
        """Return photograph and painting with the regions coloured that speak for their match (Eq. 12), as PNG.

        Args:
            head: as for `describe`.
            item: index of a face.
            weight: λ.
            steps: of integrated gradients.
            pause: called before every part of the work, from where it may wait or raise.
        """
        painting = torch.from_numpy(self.index.thumbnail(item).copy()).permute(2, 0, 1).contiguous()
        model = _PausingModel(self.model, pause)
        found = explain(model, head, painting, weight=weight, steps=steps, batch_size=_BATCH)
        sides = ((head, found.photograph), (painting, found.painting))
        return tuple(_png(overlay(_rows(picture), side.total.saliency)) for picture, side in sides)  # type: ignore[return-value]

    def _names(self, query: Description) -> tuple[str, ...]:
        return attribute_names(self.index, binarise(query.probabilities)[0])


class _PausingModel(RetrievalModel):
    """A model that asks for leave before every batch; its networks are those of the other."""

    def __init__(self, model: RetrievalModel, pause: Callable[[], None]) -> None:
        super().__init__(
            model.identity, model.real_attributes, model.art_attributes, title=model.title, digest=model.digest
        )
        self.training = False
        self._pause = pause

    def real(self, images: Tensor) -> Description:
        self._pause()
        return super().real(images)

    def art(self, images: Tensor) -> Description:
        self._pause()
        return super().art(images)


def _rows(picture: Tensor) -> Pixels:
    pixels: Pixels = picture.permute(1, 2, 0).contiguous().numpy()
    return pixels


def _png(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG")
    return buffer.getvalue()
