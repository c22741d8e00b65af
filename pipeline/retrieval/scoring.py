"""The retrieval score of Cornia et al. (TOMM 2022), Eq. 6, 8 and 9, as one inner product.

s = (1 + s_i)/2 + λ s_a with s_i = ⟨f_r, f_a⟩ (Eq. 6) and s_a = 1 - H(γ_r, γ_a)/n (Eq. 8). With bits b of ±1,
⟨b_q, b_g⟩ = n - 2H, so s = ½⟨[f_q; (λ/n) b_q], [f_g; b_g]⟩ + (1 + λ)/2: λ is in the query alone, and one gallery
serves every λ. A ranking needs the inner product only.

All n attributes count in Eq. 8, those too that had no label when the heads were trained (`RetrievalModel.untrained`):
an index keeps all bits, n is what Eq. 8 divides by, and a gallery is to rank alike in a search and in an evaluation.
What such bits say means nothing, so Tables 3 and 4 name them in a note.
"""

import math
from typing import Final

import torch
from torch import Tensor

from manifests.errors import InputError

WEIGHT: Final = 0.2
"""λ of the paper's Fig. 7 and 8: most agreement for hardly any recall (Sec. 6.2)."""

MAX_WEIGHT: Final = 1e6
"""Above it float32 has hardly a digit left for (1 + s_i)/2 beside λ s_a."""

_ROWS: Final = 32


def check_weight(weight: float, n: int) -> None:
    """Refuse a λ below 0, above `MAX_WEIGHT`, not finite, or above 0 without attributes (n is 0); InputError."""
    if not math.isfinite(weight) or weight < 0:
        raise InputError(f"the weight of the attributes (lambda) must be a number from 0 on, not {weight}")
    if weight > MAX_WEIGHT:
        raise InputError(f"the weight of the attributes (lambda) must be at most {MAX_WEIGHT:,.0f}, not {weight}")
    if weight and not n:
        raise InputError("there are no attributes to weigh; give attribute heads (--attributes), or lambda 0")


def gallery_vectors(embeddings: Tensor, bits: Tensor) -> Tensor:
    """Return [f_g; b_g] of every item.

    Args:
        embeddings: float [G, D], unit rows.
        bits: bool [G, n].

    Returns:
        [G, D + n] of the embeddings' type, bits as ±1.
    """
    return torch.cat([embeddings, _signs(bits, embeddings)], dim=1)


def query_vectors(embeddings: Tensor, bits: Tensor, weight: float) -> Tensor:
    """Return [f_q; (λ/n) b_q] of every query.

    Args:
        embeddings: float [Q, D], unit rows.
        bits: bool [Q, n].
        weight: λ, at least 0.

    Returns:
        [Q, D + n] of the embeddings' type.
    """
    n = bits.shape[1]
    return torch.cat([embeddings, _signs(bits, embeddings) * (weight / n if n else 0.0)], dim=1)


def scores(products: Tensor, weight: float) -> Tensor:
    """Return s of Eq. 9, 0 to 1 + λ, from inner products of `query_vectors` and `gallery_vectors`, any shape."""
    return products / 2 + (1 + weight) / 2


def identity_scores(queries: Tensor, items: Tensor) -> Tensor:
    """Return (1 + s_i)/2, 0 to 1, of pairs: embeddings [..., D] and [..., D] → [...]."""
    return (1 + (queries * items).sum(dim=-1)) / 2


def attribute_scores(queries: Tensor, items: Tensor) -> Tensor:
    """Return s_a (Eq. 8), 0 to 1, of pairs: bits [..., n] and [..., n], n at least 1 → float64 [...]."""
    return (queries == items).double().mean(dim=-1)


def all_products(queries: Tensor, items: Tensor) -> Tensor:
    """Return inner products of all pairs: [Q, W] and [G, W] → [Q, G]; equal items have equal products in every row.

    A library's product of one row with a matrix, and of a few rows with the last columns of one, adds up in another
    order from column to column, so that equal items come out unequal and their ties are broken by rounding. A few
    queries are therefore multiplied as the first of 32 rows (measured with MKL: from 16 rows on columns are treated
    alike, at 1 to 4 threads).
    """
    missing = max(0, _ROWS - len(queries))
    rows = torch.nn.functional.pad(queries, (0, 0, 0, missing)) if missing else queries
    return (rows @ items.T)[: len(queries)]


def all_attribute_scores(queries: Tensor, items: Tensor) -> Tensor:
    """Return s_a (Eq. 8) of all pairs, 0 to 1: bool [Q, n] and [G, n] → float64 [Q, G]; 0 without attributes."""
    n = queries.shape[1]
    products = (queries.double() * 2 - 1) @ (items.double() * 2 - 1).T
    return (products / n + 1) / 2 if n else products


def _signs(bits: Tensor, like: Tensor) -> Tensor:
    return bits.to(like.dtype) * 2 - 1
