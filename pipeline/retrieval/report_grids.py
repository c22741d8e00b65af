"""Queries with what the gallery gave for them, some that went well and some that did not, as pictures for a report."""

import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from PIL import Image
from torch import Tensor

from pipeline.retrieval.described_faces import Codes, DescribedFaces
from pipeline.retrieval.evaluation_result import Evaluation
from pipeline.retrieval.face_set import ID, IDENTITY, FaceSet
from pipeline.retrieval.scoring import WEIGHT, all_products, attribute_scores, identity_scores
from pipeline.training.run_faces import UNKNOWN

_MAX_HEIGHT = 218  # Celeb-A's; more would only make the file larger
_JPEG_QUALITY = 88


@dataclass(frozen=True)
class ShownHit:
    """One item of the gallery as it was ranked for a query.

    Attributes:
        id: of the item.
        rank: from 1, in the order of the items; of equals the one that comes first in the gallery is first.
        picture: JPEG.
        relevant: whether it shows the same person as the query; None where either is unknown.
        score: s of Eq. 9, 0 to 1 + λ.
        identity_score: (1 + s_i)/2, 0 to 1.
        attribute_score: s_a, 0 to 1; None without attributes.
    """

    id: str
    rank: int
    picture: bytes
    relevant: bool | None
    score: float
    identity_score: float
    attribute_score: float | None


@dataclass(frozen=True)
class Ranking:
    """One λ of one query.

    Attributes:
        weight: λ.
        hits: the first few.
        first_relevant: the first relevant item, where it is not among them.
    """

    weight: float
    hits: Sequence[ShownHit]
    first_relevant: ShownHit | None


@dataclass(frozen=True)
class QueryGrid:
    """One query and its rankings.

    Attributes:
        id: of the query.
        picture: JPEG.
        found: whether the first item at the evaluation's main λ shows the same person; None where there is nothing
            relevant.
        rankings: one for every λ shown.
    """

    id: str
    picture: bytes
    found: bool | None
    rankings: Sequence[Ranking]


def main_weight(evaluation: Evaluation) -> float:
    """Return the λ that a report speaks of: the paper's 0.2 if it was evaluated, otherwise the first; ValueError."""
    weights = [result.weight for result in evaluation.results]
    if not weights:
        raise ValueError("the evaluation has no λ")
    return WEIGHT if WEIGHT in weights else weights[0]


def query_grids(
    evaluation: Evaluation,
    queries: DescribedFaces,
    gallery: DescribedFaces,
    query_pictures: FaceSet,
    gallery_pictures: FaceSet,
    *,
    weights: Sequence[float] | None = None,
    found: int = 4,
    missed: int = 4,
    k: int = 5,
) -> list[QueryGrid]:
    """Show queries that were found first and queries that were not, with their first k items for a few λ.

    They are drawn by the SHA-256 of their ids among the queries of a kind, nobody twice while there are others: the
    same in every run and nobody's choice. Where no query has a relevant item, found + missed of all are drawn.

    Args:
        evaluation: of these queries in this gallery.
        queries: as they were evaluated.
        gallery: as it was searched.
        query_pictures: row for row the pictures of `queries`.
        gallery_pictures: row for row the pictures of `gallery`.
        weights: λ to show; None takes 0, the main one and 1, as far as they were evaluated.
        found, missed: how many of each kind; fewer where there are fewer.
        k: items of each ranking; fewer in a smaller gallery.

    Returns:
        those found first, then those missed.

    Raises:
        InputError: a picture cannot be read.
        ValueError: the sets and the evaluation do not fit together.
    """
    _check(evaluation, queries, gallery, query_pictures, gallery_pictures)
    main = main_weight(evaluation)
    evaluated = {result.weight for result in evaluation.results}
    shown = sorted({0.0, main, 1.0} & evaluated) if weights is None else list(weights)
    drawn = _draw(evaluation.per_query.filter(pc.equal(evaluation.per_query["lambda"], main)), found, missed)
    if not drawn:
        return []
    codes = Codes.of(queries.table, gallery.table)
    orders = [[_Order.of(queries, gallery, codes, query, weight) for weight in shown] for query in drawn]
    wanted = sorted({item for row in orders for order in row for item in order.wanted(k)})
    pictures = _pictures(gallery_pictures, wanted)
    portraits = _pictures(query_pictures, sorted(drawn))
    return [
        QueryGrid(
            queries.table[ID][query].as_py(),
            portraits[query],
            how,
            [order.ranking(k, gallery.table, pictures) for order in row],
        )
        for (query, how), row in zip(drawn.items(), orders, strict=True)
    ]


def _check(
    evaluation: Evaluation,
    queries: DescribedFaces,
    gallery: DescribedFaces,
    query_pictures: FaceSet,
    gallery_pictures: FaceSet,
) -> None:
    counts = (evaluation.query_count, evaluation.gallery_count)
    for described, pictures, count in zip((queries, gallery), (query_pictures, gallery_pictures), counts, strict=True):
        if not len(described) == len(pictures) == count:
            raise ValueError(
                f"{len(described)} faces, {len(pictures)} pictures and {count} evaluated do not go together"
            )
        if described.table[ID].to_pylist() != pictures.table[ID].to_pylist():
            raise ValueError(f"the pictures of {pictures.title} are in another order than what was evaluated")


def _draw(rows: pa.Table, found: int, missed: int) -> dict[int, bool | None]:
    """Return indices of queries and whether they were found first; rows are those of one λ, one for every query."""
    places: Sequence[int | None] = rows["rank"].to_pylist()
    ids: Sequence[str] = rows["query_id"].to_pylist()
    people: Sequence[str | None] = rows[IDENTITY].to_pylist()
    by_lot = sorted(range(len(ids)), key=lambda query: hashlib.sha256(ids[query].encode()).digest())
    drawn: dict[int, bool | None]
    if not any(place is not None for place in places):
        drawn = dict.fromkeys(_by_turns(by_lot, people, found + missed))
        return drawn
    first = _by_turns([query for query in by_lot if places[query] == 1], people, found)
    others = [query for query in by_lot if (places[query] or 0) > 1]
    drawn = dict.fromkeys(first, True)
    drawn.update(dict.fromkeys(_by_turns(others, people, missed, first), False))
    return drawn


def _by_turns(
    queries: Sequence[int], people: Sequence[str | None], count: int, before: Sequence[int] = ()
) -> list[int]:
    """Return the first `count` such that nobody has a second turn, or one after `before`, while others had none."""
    turns = Counter(people[query] for query in before)
    turn: dict[int, int] = {}
    for query in queries:
        person = people[query]
        turn[query] = 0 if person is None else turns[person]
        turns[person] += 1
    return sorted(queries, key=turn.__getitem__)[:count]


@dataclass(frozen=True, eq=False)
class _Order:
    """The gallery as one query and one λ order it.

    Attributes:
        weight: λ.
        items: int64 [candidates], best first; the query's own proxies are no candidates.
        relevant: bool [G].
        known: whether it is known who the query is, and who each item is: bool [G].
        identity, attributes: parts of the score, float64 [G]; attributes are None where there are none.
    """

    weight: float
    items: Tensor
    relevant: Tensor
    known: Tensor
    identity: Tensor
    attributes: Tensor | None

    @classmethod
    def of(cls, queries: DescribedFaces, gallery: DescribedFaces, codes: Codes, query: int, weight: float) -> "_Order":
        # As the evaluation multiplies. Its rows may round otherwise, as there are more of them, which can change places
        # only of items that are within rounding of each other; equal items are equal in both.
        bits = queries.bits[query]
        products = all_products(queries.embeddings[query : query + 1], gallery.embeddings)[0]
        n = gallery.bits.shape[1]
        attributes = attribute_scores(bits, gallery.bits) if n else None
        if attributes is not None and weight:
            products = torch.add(products, (2 * attributes - 1).float() * n, alpha=weight / n)
        candidates = (codes.gallery_sources != codes.query_sources[query]).nonzero()[:, 0]
        order = products[candidates].argsort(descending=True, stable=True)
        person = codes.query_identities[query]
        known = (codes.gallery_identities != UNKNOWN) & (person != UNKNOWN)
        return cls(
            weight,
            candidates[order],
            known & (codes.gallery_identities == person),
            known,
            identity_scores(queries.embeddings[query].double(), gallery.embeddings.double()),
            attributes,
        )

    @property
    def first_relevant(self) -> int | None:
        """Place of the first relevant item, from 0."""
        places = self.relevant[self.items].nonzero()
        return int(places[0]) if len(places) else None

    def wanted(self, k: int) -> list[int]:
        """Return the items to be shown."""
        first = self.first_relevant
        return [int(item) for item in self.items[:k]] + ([] if first is None else [int(self.items[first])])

    def ranking(self, k: int, table: pa.Table, pictures: Mapping[int, bytes]) -> Ranking:
        """Return what is shown of it."""
        hits = [self._hit(place, table, pictures) for place in range(min(k, len(self.items)))]
        first = self.first_relevant
        late = None if first is None or first < k else self._hit(first, table, pictures)
        return Ranking(self.weight, hits, late)

    def _hit(self, place: int, table: pa.Table, pictures: Mapping[int, bytes]) -> ShownHit:
        item = int(self.items[place])
        identity = float(self.identity[item])
        attributes = None if self.attributes is None else float(self.attributes[item])
        return ShownHit(
            table[ID][item].as_py(),
            place + 1,
            pictures[item],
            bool(self.relevant[item]) if self.known[item] else None,
            identity + self.weight * (attributes or 0.0),
            identity,
            attributes,
        )


def _pictures(faces: FaceSet, wanted: Sequence[int]) -> dict[int, bytes]:
    return {index: _jpeg(pixels) for index, pixels in zip(wanted, faces.load(wanted), strict=True)}


def _jpeg(pixels: Tensor) -> bytes:
    image: Any = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    if image.height > _MAX_HEIGHT:
        size = (max(1, round(image.width * _MAX_HEIGHT / image.height)), _MAX_HEIGHT)
        image = image.resize(size, Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return encoded.getvalue()
