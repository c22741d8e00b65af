"""Recall@k: for how many queries something relevant is among the first k of the gallery (Cornia et al., Sec. 6.1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from pipeline.retrieval.scoring import all_products
from pipeline.training.run_faces import UNKNOWN

KS: Final = (1, 5, 10)
"""The cut-offs of the paper's Table 1."""

NOTHING_RELEVANT: Final = 0
"""Stands for the rank of a query that has nothing to find."""

_CHUNK = 1 << 25  # similarities at a time: 128 MB of float32


@dataclass(frozen=True)
class Recall:
    """What became of a set of queries.

    Attributes:
        at: k → fraction of the answerable queries with a relevant item among the first k; NaN if none is answerable.
        queries: how many could be answered.
        without_relevant: how many could not, since the gallery has nothing relevant to them; they are in no fraction.
    """

    at: dict[int, float]
    queries: int
    without_relevant: int

    def as_dict(self) -> dict[str, Any]:
        """Return {"R@1": …, "queries": …, "without_relevant": …} with None for NaN, as JSON can hold it."""
        found = {f"R@{k}": value if self.queries else None for k, value in self.at.items()}
        return {**found, "queries": self.queries, "without_relevant": self.without_relevant}


def recall_at_k(ranks: Tensor, ks: Sequence[int] = KS) -> Recall:
    """Sum ranks of first relevant items up.

    This is the retrieval literature's "hit rate": a query counts as found with one relevant item, however many there
    are. It is not the fraction of the relevant items that were found.

    Args:
        ranks: as `first_relevant_ranks` returns them, int64 [Q].
        ks: cut-offs, at least 1.

    """
    answerable = ranks[ranks != NOTHING_RELEVANT]
    at = {k: float((answerable <= k).double().mean()) for k in ks}
    return Recall(at, len(answerable), len(ranks) - len(answerable))


def first_relevant_ranks(similarities: Tensor, relevant: Tensor, excluded: Tensor | None = None) -> Tensor:
    """Return the rank of each query's best relevant item, from 1; 0 for a query without any.

    rank = 1 + number of irrelevant items at least as similar as the best relevant one. Ties thus count against the
    model, wherever in the gallery they are: one that maps everybody to one point finds nobody, instead of whoever comes
    first, and the result does not depend on the gallery's order.

    Args:
        similarities: float [Q, G], larger is more similar.
        relevant: bool [Q, G].
        excluded: bool [Q, G]: items that are not in this query's gallery, relevant or not; None excludes nothing.

    Raises:
        ValueError: a similarity is NaN, which has no rank.

    Example:
        A query's similarities .9 .8 .8 .1, of which the second and the last are relevant: rank 3.

    """
    if similarities.isnan().any():
        raise ValueError("similarities that are not numbers cannot be ranked")
    irrelevant = ~relevant
    if excluded is not None:
        relevant, irrelevant = relevant & ~excluded, irrelevant & ~excluded
    if not similarities.shape[1]:
        return torch.zeros(len(similarities), dtype=torch.int64)
    best = similarities.masked_fill(~relevant, -torch.inf).amax(dim=1, keepdim=True)
    ranks = 1 + (irrelevant & (similarities >= best)).sum(dim=1)
    return torch.where(relevant.any(dim=1), ranks, NOTHING_RELEVANT)


def ranks_of_people(
    queries: Tensor,
    gallery: Tensor,
    *,
    query_identities: Tensor,
    gallery_identities: Tensor,
    query_sources: Tensor,
    gallery_sources: Tensor,
    chunk: int = _CHUNK,
) -> Tensor:
    """Return for each query the rank of the first gallery item that shows the same person, its own proxy left out.

    "For fairness, in the case of Celeb-A we remove the style-transferred version of the query from the set of
    retrievable elements" (Sec. 6.1): items made from the query's own photograph are not in its gallery. Similarity is
    the dot product (Eq. 6); anything that is an inner product of vectors can be ranked (Eq. 9 is one).

    Args:
        queries: float [Q, D].
        gallery: float [G, D].
        query_identities: int64 [Q]; -1 is somebody unknown, the same as nobody.
        gallery_identities: int64 [G].
        query_sources: int64 [Q]: which photograph each query is.
        gallery_sources: int64 [G]: which photograph each item was made from, in the same numbers.
        chunk: similarities in memory at a time; the result does not depend on it but for the rounding of products.

    Returns:
        int64 [Q] on the CPU, as `first_relevant_ranks`.

    """
    step = max(1, chunk // max(len(gallery), 1))
    parts = [torch.zeros(0, dtype=torch.int64)]
    for start in range(0, len(queries), step):
        people, sources = (column[start : start + step, None] for column in (query_identities, query_sources))
        relevant = (people == gallery_identities) & (people != UNKNOWN)
        similarities = all_products(queries[start : start + step], gallery)
        parts.append(first_relevant_ranks(similarities, relevant, sources == gallery_sources).cpu())
    return torch.cat(parts)
