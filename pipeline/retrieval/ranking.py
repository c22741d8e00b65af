"""Rank a gallery for one described photograph: what `search` and the exhibition have in common."""

from typing import Protocol

from torch import Tensor

from pipeline.retrieval import scoring
from pipeline.retrieval.exact_search import TopK
from pipeline.retrieval.face_set import ID, IDENTITY, SOURCE_ID
from pipeline.retrieval.feedback_session import FeedbackSession
from pipeline.retrieval.index import Index
from pipeline.retrieval.retrieval_model import Description
from pipeline.retrieval.search_result import Hit
from pipeline.training.attribute_heads import binarise


class Searcher(Protocol):
    """Finds the items of `gallery_vectors` with the largest inner products: `ExactSearch`, or one of faiss."""

    def top_k(self, queries: Tensor, k: int, allowed: Tensor | None = None) -> TopK:
        """Return the k allowed items with the largest products for every query."""
        ...


def ranked_hits(
    index: Index,
    query: Description,
    *,
    k: int,
    weight: float,
    allowed: Tensor | None = None,
    searcher: Searcher | None = None,
    session: FeedbackSession | None = None,
) -> list[Hit]:
    """Return the k best hits by Eq. 9, best first, without explanations.

    After feedback every item is compared by its similarity as it is now (Eq. 10 and 11), whatever the searcher is. What
    ranks is rounded to float32, so that equal items are equal, and they come in the order of the index; the scores
    themselves are float64.

    Args:
        index: of G faces.
        query: of one photograph, [1, D] and [1, n], on the CPU.
        k: at most so many; fewer if fewer are allowed.
        weight: λ, at least 0; 0 where the index has no attributes.
        allowed: bool [G]: which items are ranked; None is all.
        searcher: over `scoring.gallery_vectors` of this index; asked only where there was no feedback.
        session: relevance feedback on this query; the same as None before its first round. Items that it has taken out
            of the ranking are not in it, whether allowed or not.

    Raises:
        ValueError: there was no feedback, and no searcher is given.
    """
    gallery = index.gallery
    bits = binarise(query.probabilities)
    similarities: Tensor | None = None
    if session is not None and session.rounds:
        similarities = session.similarities().cpu()
        remaining = session.remaining.cpu()
        found = _by_similarity(
            similarities, gallery.bits, bits, weight, remaining if allowed is None else allowed & remaining, k
        )
    elif searcher is None:
        raise ValueError("without feedback a searcher has to find the items")
    else:
        found = searcher.top_k(scoring.query_vectors(query.embeddings, bits, weight), k, allowed).items[0].tolist()
    unit = similarities is None or session is None or session.settings.measure == "cosine"
    hits = []
    for rank, item in enumerate(found, 1):
        if similarities is None:
            similarity = float(query.embeddings[0].double() @ gallery.embeddings[item].double())
        else:
            similarity = float(similarities[item])
        if unit:
            similarity = min(max(similarity, -1.0), 1.0)  # unit rows of float32 are longer than 1 by a rounding
        hits.append(_hit(index, bits[0], rank, item, similarity, weight))
    return hits


def attribute_names(index: Index, chosen: Tensor) -> tuple[str, ...]:
    """Return the names of the attributes that are chosen: bool [n]."""
    return tuple(name for name, yes in zip(index.attributes, chosen.tolist(), strict=True) if yes)


def _by_similarity(  # noqa: PLR0917
    similarities: Tensor, gallery: Tensor, query: Tensor, weight: float, allowed: Tensor, k: int
) -> list[int]:
    """Return the k best items by s_i as it is now.

    As `exact_search` has it, what ranks is rounded to float32, so that equal items are equal, and of equals the lower
    index comes first.
    """
    products = similarities
    if weight:
        products = products + weight * (2 * scoring.attribute_scores(query, gallery) - 1)
    items = allowed.nonzero()[:, 0]
    best = products[items].float().sort(descending=True, stable=True)
    chosen: list[int] = items[best.indices[:k]].tolist()
    return chosen


def _hit(index: Index, bits: Tensor, rank: int, item: int, similarity: float, weight: float) -> Hit:  # noqa: PLR0917
    row = index.gallery.table.slice(item, 1).select([ID, SOURCE_ID, IDENTITY]).to_pylist()[0]
    own = binarise(index.gallery.probabilities[item])
    agreement = float(scoring.attribute_scores(bits, own)) if index.attributes else None
    identity_score = (1 + similarity) / 2
    return Hit(
        rank=rank,
        item=item,
        **row,
        score=identity_score + weight * (agreement or 0.0),
        identity_score=identity_score,
        attribute_score=agreement,
        differing=attribute_names(index, bits != own),
    )
