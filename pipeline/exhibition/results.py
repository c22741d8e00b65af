"""What was found, as the page is told it."""

from typing import Any

from pipeline.exhibition.gallery import Gallery
from pipeline.exhibition.museum import Museum, Work
from pipeline.exhibition.visit import Visit
from pipeline.retrieval.retrieval_model import Description
from pipeline.retrieval.search_result import Hit


def results_document(visit: Visit, gallery: Gallery, museum: Museum) -> dict[str, Any]:
    """Return what a visitor is shown; the visit has to be ready.

    Of every item: `agreeing` are the trained attributes that both pictures have or both lack, `shared` those of them
    that both have, `differing` the trained ones that one has and the other lacks; `attributesAgree` is s_a of Eq. 8,
    over all attributes.
    """
    query, session = visit.query, visit.session
    assert query is not None
    assert session is not None
    return {
        "round": session.rounds,
        "weight": visit.choice.weight,
        "with": [*visit.choice.with_],
        "without": [*visit.choice.without],
        "seen": [*gallery.seen(query)],
        "searched": visit.searched,
        "items": [_item(hit, query, visit.verdicts, gallery, museum) for hit in visit.hits],
    }


def _item(hit: Hit, query: Description, verdicts: dict[int, bool], gallery: Gallery, museum: Museum) -> dict[str, Any]:
    seen, agreeing, box = gallery.seen(query), gallery.agreeing(query, hit), museum.boxes.get(hit.id)
    return {
        "rank": hit.rank,
        "item": hit.item,
        "face": hit.id,
        "picture": f"/pictures/{hit.item}.jpg",
        "whole": f"/works/{hit.item}.jpg",
        "box": None if box is None else {"x": box.x, "y": box.y, "w": box.width, "h": box.height},
        "score": hit.score,
        "identity": hit.identity_score,
        "attributesAgree": hit.attribute_score,
        "agreeing": [*agreeing],
        "shared": [name for name in agreeing if name in seen],
        "differing": [name for name in hit.differing if name in gallery.trained],
        "liked": verdicts.get(hit.item) is True,
        "unliked": verdicts.get(hit.item) is False,
        "work": work_document(museum.work_of(hit.id, hit.source_id), museum),
    }


def work_document(work: Work, museum: Museum) -> dict[str, Any]:
    """Return what is known of a work, and where it hangs."""
    room, place = museum.room_of(work), museum.place_of(work)
    return {
        "id": work.id,
        "title": dict(work.title),
        "artist": work.artist,
        "year": work.year,
        "room": None if room is None else dict(room.name),
        "x": None if place is None else place.x,
        "y": None if place is None else place.y,
        "text": None if work.text is None else dict(work.text),
        "credit": work.credit,
    }
