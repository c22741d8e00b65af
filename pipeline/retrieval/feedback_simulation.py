"""Relevance feedback as Cornia et al. (TOMM 2022, Sec. 6.3) measure it: a user who judges two items in every round."""

import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manifests.errors import InputError
from pipeline.retrieval import scoring
from pipeline.retrieval.average_precision import average_precisions
from pipeline.retrieval.described_faces import Codes, DescribedFaces
from pipeline.retrieval.face_set import ID
from pipeline.retrieval.feedback_curve import FeedbackCurve
from pipeline.retrieval.feedback_settings import Draws, FeedbackSettings
from pipeline.retrieval.lazy_feedback import ABSENT, LazyFeedback
from pipeline.training.run_faces import UNKNOWN

_CHUNK: Final = 1 << 24  # scalars of all sessions that run side by side: 128 MB, and a few times that while they work

_WIDENED: Final = 1 << 27  # galleries up to so many numbers are held in float64 (1 GB); larger ones in pieces, often

Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def simulate_feedback(
    queries: DescribedFaces,
    gallery: DescribedFaces,
    settings: FeedbackSettings | None = None,
    *,
    rounds: int = 10,
    weight: float = scoring.WEIGHT,
    seed: int = 0,
    one_per_identity: bool = True,
    draws: Draws = "independent",
    device: torch.device | str | None = None,
    chunk: int = _CHUNK,
) -> FeedbackCurve:
    """Measure average precision before feedback and after every round.

    "At each iteration we provide the relevance feedback algorithm with one positive item (randomly selected among
    images which share the same identity with the query) and one negative item (randomly selected among images which do
    not share the same identity with the query)" (Sec. 6.3), for "a single randomly selected image for each identity".
    The ranking is that of Eq. 9: (1 + similarities)/2 + λ s_a, in which feedback moves the first part only.

    The query's own proxy is not in its gallery (Sec. 6.1): it is neither ranked nor judged. Items of unknown identity
    are nobody the query knows, and can be drawn as negatives.

    Which query stands for a person and what is judged depends on the seed, the query's id and the gallery, and not on
    other queries or on the settings, so that settings are compared on equal judgements, and the first rounds of a long
    simulation are those of a short one. Of a person's photographs one is drawn that has something relevant in the
    gallery, if there is one.

    Args:
        queries: photographs.
        gallery: art, described by the same model.
        settings: of the feedback.
        rounds: how many.
        weight: λ.
        seed: of the user's choices.
        one_per_identity: one query for each person; otherwise every photograph is a query.
        draws: "independent" draws every round's items from all, as the text reads, so that for a person with few
            pictures the same one is judged again; "unseen" judges nothing twice, and when the positives have run out,
            a negative only. Where judged items are removed from the ranking, draws are "unseen" in any case.
        device: where to compute; by default where the embeddings are.
        chunk: numbers kept for all queries that are simulated at a time; it decides nothing of the result beyond
            rounding.

    Returns:
        The curve; queries in their order in `queries`. Queries that cannot be simulated are counted: people without a
        query that has something relevant in the gallery (or such queries, with ``one_per_identity`` off), and queries
        of unknown identity.

    Raises:
        InputError: λ is negative, or positive without attributes; rounds is negative; the two sides are of unequal
            dimensions or attributes.
    """
    settings = settings or FeedbackSettings()
    _check(queries, gallery, rounds, weight)
    people = _People.of(queries, gallery)
    chosen, without_relevant = _choose(queries, people, seed, one_per_identity)
    names = queries.table[ID].to_pylist()
    unseen = draws == "unseen" or settings.judged == "remove"
    place = torch.device(device) if device is not None else gallery.embeddings.device
    items, item_bits = gallery.embeddings.to(place), gallery.bits.to(place)
    if items.numel() <= _WIDENED:
        items = items.double()
    step = max(1, chunk // max((4 * rounds + 8) * len(gallery), 1))
    parts = [np.zeros((0, rounds + 1))]
    for start in range(0, len(chosen), step):
        at = chosen[start : start + step]
        judged = torch.from_numpy(
            np.stack([_judgements(people, query, rounds, _number(seed, names[query]), unseen) for query in at])
        )
        faces = queries.take(at)
        feedback = LazyFeedback(items, faces.embeddings.to(place), settings)
        attributes = scoring.all_attribute_scores(faces.bits.to(place), item_bits)
        relevant = torch.from_numpy(np.stack([people.same(query) for query in at])).to(place)
        excluded = torch.from_numpy(np.stack([people.own(query) for query in at])).to(place)
        columns = []
        for number in range(rounds + 1):
            if number:
                now = judged[:, number - 1].to(place)
                feedback.judge(now[:, :1], now[:, 1:])
                if settings.judged == "remove":
                    excluded = excluded | _marked(now, len(gallery))
            found = (1 + feedback.similarities()) / 2 + weight * attributes
            columns.append(average_precisions(found, relevant, excluded).cpu())
        parts.append(torch.stack(columns, dim=1).numpy())
    return FeedbackCurve(
        settings, weight, np.concatenate(parts), without_relevant, "unseen" if unseen else "independent"
    )


@dataclass(frozen=True, eq=False)
class _People:
    """Who is who: `Codes` as NumPy."""

    query_identities: Indices
    gallery_identities: Indices
    query_sources: Indices
    gallery_sources: Indices

    @classmethod
    def of(cls, queries: DescribedFaces, gallery: DescribedFaces) -> "_People":
        codes = Codes.of(queries.table, gallery.table)
        return cls(
            codes.query_identities.numpy(),
            codes.gallery_identities.numpy(),
            codes.query_sources.numpy(),
            codes.gallery_sources.numpy(),
        )

    def same(self, query: int) -> Mask:
        """Which items show the query's person: [G]."""
        person = self.query_identities[query]
        same: Mask = (self.gallery_identities == person) & (person != UNKNOWN)
        return same

    def own(self, query: int) -> Mask:
        """Which items were made from the query: [G]."""
        own: Mask = self.gallery_sources == self.query_sources[query]
        return own


def _check(queries: DescribedFaces, gallery: DescribedFaces, rounds: int, weight: float) -> None:
    for name, ours, theirs in (
        ("embedding", queries.embeddings, gallery.embeddings),
        ("attributes", queries.probabilities, gallery.probabilities),
    ):
        if ours.shape[1] != theirs.shape[1]:
            raise InputError(
                f"{name} of {ours.shape[1]} numbers for queries and of {theirs.shape[1]} for the gallery; describe "
                "both with one model"
            )
    scoring.check_weight(weight, gallery.probabilities.shape[1])
    if rounds < 0:
        raise InputError(f"the number of feedback rounds must be from 0 on, not {rounds}")


def _choose(queries: DescribedFaces, people: _People, seed: int, one_per_identity: bool) -> tuple[list[int], int]:
    """Return the queries to simulate, and how many cannot be."""
    answerable = np.array([(people.same(at) & ~people.own(at)).any() for at in range(len(queries))], np.bool_)
    if not one_per_identity:
        return np.flatnonzero(answerable).tolist(), int((~answerable).sum())
    names = queries.table[ID].to_pylist()
    best: dict[int, tuple[int, int]] = {}
    for at in np.flatnonzero(answerable).tolist():
        ticket = (_number(seed, names[at]), at)
        person = int(people.query_identities[at])
        best[person] = min(best.get(person, ticket), ticket)
    known = people.query_identities[people.query_identities != UNKNOWN]
    nobody = len(people.query_identities) - len(known)
    return sorted(at for _, at in best.values()), len(np.unique(known)) - len(best) + nobody


def _judgements(people: _People, query: int, rounds: int, seed: int, unseen: bool) -> Indices:
    """Return the item liked and the one unliked in every round: [rounds, 2], ABSENT for none."""
    same, own = people.same(query), people.own(query)
    judged = np.full((rounds, 2), ABSENT, np.int64)
    for side, items in enumerate((np.flatnonzero(same & ~own), np.flatnonzero(~same & ~own))):
        generator = np.random.default_rng([seed, side])
        if unseen:
            drawn = generator.permutation(items)[:rounds]
            judged[: len(drawn), side] = drawn
        elif len(items):
            judged[:, side] = items[generator.integers(len(items), size=rounds)]
    return judged


def _marked(items: Tensor, count: int) -> Tensor:
    """Return which items are among [S, n]: bool [S, count]."""
    marks = torch.zeros(len(items), count + 1, dtype=torch.bool, device=items.device)
    return marks.scatter_(1, torch.where(items == ABSENT, count, items), True)[:, :count]


def _number(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big")
