"""Evaluation of retrieval: queries searched in a gallery for every λ (Cornia et al., TOMM 2022, Sec. 6.1 and 6.2).

The product of Eq. 9 is taken apart, since λ scales one part only: ⟨f_q, f_g⟩ and ⟨b_q, b_g⟩ are computed once for some
queries, and each λ costs one addition of the two instead of a product of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from manifests.errors import InputError
from pipeline.retrieval.attribute_agreement import Agreement, agreement_by, attribute_agreement, known_attributes
from pipeline.retrieval.average_precision import average_precisions_of_ranks, ranks_of_values
from pipeline.retrieval.described_faces import Codes, DescribedFaces
from pipeline.retrieval.evaluation_result import PER_QUERY_SCHEMA, AgreementBy, Evaluation, WeightResult
from pipeline.retrieval.face_set import ID, IDENTITY
from pipeline.retrieval.recall import KS, NOTHING_RELEVANT, recall_at_k
from pipeline.retrieval.scoring import all_products, attribute_scores, check_weight, identity_scores
from pipeline.training.run_faces import UNKNOWN

_CHUNK: Final = 1 << 24  # similarities at a time: 64 MB of float32, and three such tables
_NOTHING: Final = -1


def evaluate(
    queries: DescribedFaces,
    gallery: DescribedFaces,
    weights: Sequence[float],
    *,
    query_title: str = "queries",
    gallery_title: str = "gallery",
    model_title: str = "model",
    agreement: Agreement = "auto",
    ks: Sequence[int] = KS,
    chunk: int = _CHUNK,
    device: torch.device | str | None = None,
) -> Evaluation:
    """Search all queries in the gallery, for every λ.

    Relevant to a query is what shows the same person, but for the query's own proxy: "for fairness, in the case of
    Celeb-A we remove the style-transferred version of the query from the set of retrievable elements" (Sec. 6.1), so
    items with the query's source_id are not in its gallery, for no measure. Queries without a relevant item, because
    the person is unknown or has no other picture in the gallery, are in no recall and no average precision, and are
    counted; their first item counts for attribute agreement all the same.

    In recall and average precision ties count against the model (`recall`, `average_precision`). The first item, whose
    scores and attributes are reported, is of equals the one that comes first in the gallery.

    Args:
        queries: Q photographs, described as "real"; at least one.
        gallery: G items, described as "art" by the same model; at least one.
        weights: every λ once, from 0 on; a λ that is given again is left out.
        query_title, gallery_title, model_title: what they are, for the result.
        agreement: whether attributes are compared as annotated or as predicted; see `attribute_agreement`.
        ks: cut-offs of recall, from 1 on.
        chunk: similarities in memory at a time; memory does not grow with Q * G. The result does not depend on it but
            for the rounding of products.
        device: where products are computed and sorted; None is the CPU.

    Raises:
        InputError: no queries, no items, no λ, a λ below 0, or above 0 for a model without attributes; a cut-off below
            1; labels or predictions to compare that are not there.
        ValueError: queries and items were described by different models, or an embedding is not finite.

    """
    weights = tuple(dict.fromkeys(float(weight) for weight in weights))
    _check(queries, gallery, weights, ks)
    by = agreement_by(agreement, queries, gallery)
    search = _Search.of(queries, gallery, torch.device(device or "cpu"))
    step = max(1, chunk // len(gallery))
    parts = [search.chunk(slice(start, start + step), weights) for start in range(0, len(queries), step)]
    relevant = torch.cat([part.relevant for part in parts])
    ranks, precisions, top = (
        torch.cat(columns, dim=1)
        for columns in zip(*((part.ranks, part.average_precisions, part.top) for part in parts), strict=True)
    )
    agreements = torch.stack([_agreements(queries, gallery, items, by) for items in top])
    columns = list(zip(weights, ranks, precisions, top, agreements, strict=True))
    results = [
        WeightResult(weight, recall_at_k(rank, ks), float(precision[relevant > 0].mean()), _mean(agreement))
        for weight, rank, precision, _, agreement in columns
    ]
    tables = [_rows(queries, gallery, relevant, *of_weight) for of_weight in columns]
    return Evaluation(
        query_title,
        gallery_title,
        model_title,
        len(queries),
        len(gallery),
        results,
        by,
        pa.concat_tables(tables),
    )


def _check(queries: DescribedFaces, gallery: DescribedFaces, weights: Sequence[float], ks: Sequence[int]) -> None:
    if not len(queries):
        raise InputError("there are no queries to search with")
    if not len(gallery):
        raise InputError("the gallery is empty, so there is nothing to search in")
    if not weights:
        raise InputError("give at least one weight of the attributes (lambda)")
    if any(k < 1 for k in ks):
        raise InputError(f"recall is of the first 1 or more items, not of the first {min(ks)}")
    for name in ("embeddings", "probabilities"):
        widths = [getattr(faces, name).shape[1] for faces in (queries, gallery)]
        if widths[0] != widths[1]:
            raise ValueError(f"{name} of queries and gallery are of {widths[0]} and {widths[1]} numbers")
    for weight in weights:
        check_weight(weight, queries.probabilities.shape[1])
    if not (queries.embeddings.isfinite().all() and gallery.embeddings.isfinite().all()):
        raise ValueError("embeddings that are not finite cannot be ranked")


@dataclass(frozen=True, eq=False)
class _Found:
    """Of a chunk of q queries, for each of L weights; on the CPU.

    Attributes:
        relevant: int64 [q].
        ranks: int64 [L, q], of the first relevant item.
        average_precisions: float64 [L, q].
        top: int64 [L, q], index of the first item; -1 where the query's gallery is empty.
    """

    relevant: Tensor
    ranks: Tensor
    average_precisions: Tensor
    top: Tensor


@dataclass(frozen=True, eq=False)
class _Search:
    """Both sides, and which items belong to which query.

    Attributes:
        query_embeddings, query_signs: [Q, D] and ±1 [Q, n], on the CPU.
        gallery_embeddings, gallery_signs: [G, D], [G, n], on the device.
        people, sources: items by the person they show, and by the photograph they were made from.
        codes: of both.
    """

    query_embeddings: Tensor
    query_signs: Tensor
    gallery_embeddings: Tensor
    gallery_signs: Tensor
    people: "_Members"
    sources: "_Members"
    codes: Codes

    @classmethod
    def of(cls, queries: DescribedFaces, gallery: DescribedFaces, device: torch.device) -> "_Search":
        codes = Codes.of(queries.table, gallery.table)
        return cls(
            queries.embeddings,
            queries.bits.float() * 2 - 1,
            gallery.embeddings.to(device),
            (gallery.bits.float() * 2 - 1).to(device),
            _Members.by(codes.gallery_identities),
            _Members.by(codes.gallery_sources),
            codes,
        )

    def chunk(self, rows: slice, weights: Sequence[float]) -> _Found:
        """Search some of the queries."""
        device = self.gallery_embeddings.device
        sources = self.codes.query_sources[rows]
        own = self.sources.of(sources)
        own_rows, own_slots = (own != _NOTHING).nonzero(as_tuple=True)
        own_places = own_rows.to(device), own[own_rows, own_slots].to(device)
        sizes = (len(self.gallery_embeddings) - (own != _NOTHING).sum(dim=1)).to(device)
        relevant, counts = (values.to(device) for values in self._relevant(rows))
        identity = all_products(self.query_embeddings[rows].to(device), self.gallery_embeddings)
        attributes = self.query_signs[rows].to(device) @ self.gallery_signs.T if any(weights) else None
        n = self.gallery_signs.shape[1]
        products = torch.empty_like(identity)  # one for all weights: fresh memory costs more than the addition
        found = []
        for weight in weights:
            if attributes is None:
                products.copy_(identity)
            else:
                torch.add(identity, attributes, alpha=weight / n, out=products)
            products[own_places] = -torch.inf
            top = _first_of_equals(products)
            top = top.masked_fill(products.gather(1, top[:, None])[:, 0] == -torch.inf, _NOTHING)
            ranks = ranks_of_values(products, products.gather(1, relevant), counts, sizes)
            best = ranks[:, 0] if ranks.shape[1] else torch.full_like(top, NOTHING_RELEVANT)
            found.append((best, average_precisions_of_ranks(ranks), top))
        return _Found(counts.cpu(), *(torch.stack(columns).cpu() for columns in zip(*found, strict=True)))

    def _relevant(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Return the relevant items of each query, int64 [q, R], followed by any others, and how many they are, [q]."""
        people = self.people.of(self.codes.query_identities[rows])
        others = self.codes.gallery_sources[people] != self.codes.query_sources[rows, None]
        relevant = (people != _NOTHING) & others
        counts = relevant.sum(dim=1)
        order = relevant.to(torch.int8).sort(dim=1, descending=True, stable=True).indices
        return people.gather(1, order)[:, : int(counts.max())].clamp(min=0), counts


@dataclass(frozen=True, eq=False)
class _Members:
    """Which items have a number, found without a look at all of them.

    Attributes:
        numbers: int64 [G], rising.
        items: int64 [G], the item that has each.
    """

    numbers: Tensor
    items: Tensor

    @classmethod
    def by(cls, numbers: Tensor) -> "_Members":
        found = numbers.sort(stable=True)
        return cls(found.values, found.indices)

    def of(self, numbers: Tensor) -> Tensor:
        """Return the items that have each of the numbers: int64 [q, …], rows end in -1; none has the number -1."""
        starts = torch.searchsorted(self.numbers, numbers)
        ends = torch.searchsorted(self.numbers, numbers, right=True)
        counts = torch.where(numbers == UNKNOWN, 0, ends - starts)
        slots = torch.arange(int(counts.max()))
        places = (starts[:, None] + slots).clamp(max=len(self.items) - 1)
        return torch.where(slots < counts[:, None], self.items[places], _NOTHING)


def _first_of_equals(products: Tensor) -> Tensor:
    """Return the index of each row's largest number, the lowest of several: what both libraries promise of argmax."""
    if products.device.type == "cpu":  # a fifth of PyTorch's time
        return torch.from_numpy(products.numpy().argmax(axis=1))
    return products.argmax(dim=1)


def _agreements(queries: DescribedFaces, gallery: DescribedFaces, top: Tensor, by: AgreementBy | None) -> Tensor:
    """Return float64 [Q]; NaN where there is no first item, or no attribute is known of both."""
    agreements = torch.full((len(queries),), torch.nan, dtype=torch.float64)
    if by is not None:
        rows = (top != _NOTHING).nonzero()[:, 0]
        sides = known_attributes(queries, by)[rows], known_attributes(gallery, by)[top[rows]]
        agreements[rows] = attribute_agreement(*sides)
    return agreements


def _mean(agreements: Tensor) -> float | None:
    known = agreements[~agreements.isnan()]
    return float(known.mean()) if len(known) else None


def _rows(  # noqa: PLR0917  # a row's columns, as they were computed
    queries: DescribedFaces,
    gallery: DescribedFaces,
    relevant: Tensor,
    weight: float,
    ranks: Tensor,
    precisions: Tensor,
    top: Tensor,
    agreements: Tensor,
) -> pa.Table:
    """Return one weight's rows of PER_QUERY_SCHEMA."""
    nothing = top == _NOTHING
    items = top.clamp(min=0)
    # Two numbers at a time, in double precision: what is reported of an item depends on no chunk and no device.
    identity = identity_scores(queries.embeddings.double(), gallery.embeddings[items].double())
    without = torch.full_like(identity, torch.nan)
    attributes = attribute_scores(queries.bits, gallery.bits[items]) if queries.bits.shape[1] else without
    columns = {
        "lambda": pa.array(np.full(len(queries), weight)),
        "query_id": queries.table[ID],
        "identity": queries.table[IDENTITY],
        "relevant": pa.array(relevant.numpy()),
        "rank": _column(ranks, ranks == NOTHING_RELEVANT),
        "average_precision": _column(precisions, precisions.isnan()),
        "top_id": gallery.table[ID].take(_column(top, nothing)),
        "top_score": _column(identity + weight * attributes if weight else identity, nothing),
        "top_identity_score": _column(identity, nothing),
        "top_attribute_score": _column(attributes, nothing | attributes.isnan()),
        "agreement": _column(agreements, agreements.isnan()),
    }
    return pa.table(columns).cast(PER_QUERY_SCHEMA)


def _column(values: Tensor, null: Tensor) -> pa.Array:
    return pa.array(values.numpy(), mask=null.numpy())
