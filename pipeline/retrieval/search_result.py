"""What a search has found: the look-alikes of one photograph, best first, with what speaks for each of them."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.retrieval.explanation import Explanation, SideExplanation
from pipeline.retrieval.feedback_settings import FeedbackSettings

Pixels = npt.NDArray[np.uint8]

_SHOWN_ID = 40


@dataclass(frozen=True, eq=False)
class Hit:
    """A face of the gallery that was found.

    Attributes:
        rank: from 1.
        item: its index in the gallery.
        id, source_id, identity: as of `face_set.FACE_SET_SCHEMA`; identity is None where it is unknown.
        score: s of Eq. 9; the sum of the next and λ times the one after.
        identity_score: (1 + s_i)/2, 0 to 1. After feedback that of the embeddings where they have been moved to.
        attribute_score: s_a (Eq. 8), 0 to 1; None where there are no attributes.
        differing: attributes that the model sees in the photograph and not here, or here and not there, in the order
            of the model's. In all others they agree.
        explanation: which pixels speak for it, where that was asked for.
    """

    rank: int
    item: int
    id: str
    source_id: str
    identity: str | None
    score: float
    identity_score: float
    attribute_score: float | None
    differing: tuple[str, ...]
    explanation: Explanation | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return everything but `item` as JSON can hold it.

        The explanation's `soft_score` and `soft_baseline_score` are of s̃_a, which has gradients and counts
        probabilities where s_a counts bits (`explanation.soft_agreement`), so it is not `score`; its part of identity
        is the same in both.
        """
        return {
            "rank": self.rank,
            "id": self.id,
            "source_id": self.source_id,
            "identity": self.identity,
            "score": self.score,
            "identity_score": self.identity_score,
            "attribute_score": self.attribute_score,
            "differing": list(self.differing),
            "explanation": None if self.explanation is None else _named(self.explanation.as_dict()),
        }


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The look-alikes of a photograph.

    Attributes:
        photo: path of the photograph, as it was given.
        picture: it as the networks see it, uint8 [H, W, 3], RGB.
        index, gallery, model: path of the index, and what it and its model are, for people.
        items: faces in the gallery.
        searched: of them, those that the filters and the feedback leave.
        weight: λ.
        engine: that ranked: "exact", "flat", "ivf" or "hnsw".
        with_, without: attributes asked for and ruled out.
        liked, unliked: ids that were judged; with any, `feedback` says how they count.
        feedback: None where nothing was judged.
        attributes: names of all that the model knows.
        seen: those of them that it sees in the photograph.
        untrained: those that it has not learned.
        hits: best first.
        thumbnail: item of a hit → its picture as the networks saw it, uint8 [H, W, 3], RGB; InputError if it is not
            where it was.
    """

    photo: str
    picture: Pixels
    index: str
    gallery: str
    model: str
    items: int
    searched: int
    weight: float
    engine: str
    with_: tuple[str, ...]
    without: tuple[str, ...]
    liked: tuple[str, ...]
    unliked: tuple[str, ...]
    feedback: FeedbackSettings | None
    attributes: tuple[str, ...]
    seen: tuple[str, ...]
    untrained: tuple[str, ...]
    hits: tuple[Hit, ...]
    thumbnail: Callable[[int], Pixels]

    def agreeing(self, hit: Hit) -> int:
        """Return in how many attributes the photograph and a hit agree."""
        return len(self.attributes) - len(hit.differing)

    def learned(self) -> list[str]:
        """Return what the model sees in the photograph, without what it has not learned to see."""
        return [name for name in self.seen if name not in self.untrained]

    def searched_phrase(self) -> str:
        """Say how many faces were searched, and which."""
        if self.searched == self.items:
            count = f"{self.items:,} face{'' if self.items == 1 else 's'}"
        else:
            count = f"{self.searched:,} of {self.items:,} faces"
        asked = (("with", self.with_), ("without", self.without))
        return ", ".join([count, *(f"{word} {' and '.join(names)}" for word, names in asked if names)])

    def lines(self) -> list[str]:
        """Return what to print."""
        lines = [
            f'Look-alikes of "{self.photo}"',
            f"Searched: {self.searched_phrase()}",
            f"Gallery:  {self.gallery}",
            f"Model:    {self.model}; lambda {self.weight:g}",
        ]
        if self.liked or self.unliked:
            judged = (("liked", self.liked), ("unliked", self.unliked))
            lines.append("Feedback: " + "; ".join(f"{verb} {', '.join(ids)}" for verb, ids in judged if ids))
        if self.attributes:
            lines.append(f"Seen in the photograph: {', '.join(self.learned()) or 'none of the attributes'}")
        return [*lines, "", *self._table(), *self._gaps()]

    def as_dict(self) -> dict[str, Any]:
        """Return everything but pictures, as JSON can hold it."""
        return {
            "photo": self.photo,
            "index": self.index,
            "gallery": {"title": self.gallery, "items": self.items, "searched": self.searched},
            "model": self.model,
            "lambda": self.weight,
            "engine": self.engine,
            "with": list(self.with_),
            "without": list(self.without),
            "liked": list(self.liked),
            "unliked": list(self.unliked),
            "feedback": None if self.feedback is None else asdict(self.feedback),
            "seen": list(self.seen),
            "untrained": list(self.untrained),
            "hits": [hit.as_dict() for hit in self.hits],
        }

    def _table(self) -> list[str]:
        width = max(len("id"), *(len(_shortened(hit.id)) for hit in self.hits))
        person = any(hit.identity is not None for hit in self.hits)
        people = max(len("person"), *(len(hit.identity or "") for hit in self.hits))
        header = f"{'':>4}  {'id':<{width}}" + (f"  {'person':<{people}}" if person else "")
        lines = [header + "   score  identity" + ("  attributes" if self.attributes else "")]
        for hit in self.hits:
            line = f"{hit.rank:>4}  {_shortened(hit.id):<{width}}"
            if person:
                line += f"  {hit.identity or '':<{people}}"
            line += f"  {hit.score:.4f}    {hit.identity_score:.4f}"
            if hit.attribute_score is not None:
                line += f"      {hit.attribute_score:.4f}  ({self.agreeing(hit)} of {len(self.attributes)})"
            lines.append(line)
        return lines

    def _gaps(self) -> list[str]:
        explained = [hit for hit in self.hits if hit.explanation is not None]
        if not explained:
            return []
        lines = ["", "Completeness gaps of the saliency maps, in units of the score"]
        for hit in explained:
            assert hit.explanation is not None
            sides = (("photograph", hit.explanation.photograph), ("painting", hit.explanation.painting))
            gaps = "  ".join(f"{name} {_gap(side)}" for name, side in sides)
            lines.append(f"{hit.rank:>4}  {_shortened(hit.id)}  {gaps}")
        return lines


def _shortened(name: str) -> str:
    return name if len(name) <= _SHOWN_ID else "…" + name[1 - _SHOWN_ID :]


def _gap(side: SideExplanation) -> str:
    return f"{side.total.plain_gap:.4f} ({side.total.gap:.4f} after calibration)"


def _named(explanation: dict[str, Any]) -> dict[str, Any]:
    """Name the scores of an explanation for what they are, where attributes take part in them."""
    soft = {"score": "soft_score", "baseline_score": "soft_baseline_score"}

    def side(parts: dict[str, Any]) -> dict[str, Any]:
        return {
            part: values
            if values is None or part == "identity"
            else {soft.get(name, name): value for name, value in values.items()}
            for part, values in parts.items()
        }

    return {name: side(value) if isinstance(value, dict) else value for name, value in explanation.items()}
