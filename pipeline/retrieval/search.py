"""Find the look-alikes of a photograph in an index: what `stylize search` does."""

import dataclasses
import difflib
import math
import os
from collections.abc import Sequence
from typing import Final, Literal, get_args

import pyarrow.compute as pc
import torch
from torch import Tensor

from manifests.errors import InputError, RunError
from pipeline.retrieval import explanation, scoring
from pipeline.retrieval.attribute_filter import allowed_items
from pipeline.retrieval.exact_search import ExactSearch
from pipeline.retrieval.explanation import Explanation
from pipeline.retrieval.face_set import ID
from pipeline.retrieval.faiss_search import FaissSearch
from pipeline.retrieval.feedback_session import FeedbackSession
from pipeline.retrieval.feedback_settings import FeedbackSettings
from pipeline.retrieval.index import Index, open_index
from pipeline.retrieval.query_photo import read_photo
from pipeline.retrieval.ranking import attribute_names, ranked_hits
from pipeline.retrieval.retrieval_model import Crop, Description, ModelPlaces, RetrievalModel, open_retrieval_model
from pipeline.retrieval.scoring import WEIGHT
from pipeline.retrieval.search_result import SearchResult
from pipeline.training.attribute_heads import binarise
from pipeline.training.device import training_device
from stylize.precision import convolution_precision

Engine = Literal["exact", "flat", "ivf", "hnsw"]
ENGINES: Final[tuple[Engine, ...]] = get_args(Engine)

_SUGGESTED: Final = 3
_COMPARED: Final = 50_000  # ids that are compared with one that is unknown: seconds, in a gallery of millions


def search(
    photo: str | os.PathLike[str],
    index_dir: str | os.PathLike[str],
    *,
    k: int = 12,
    weight: float | None = None,
    with_: Sequence[str] = (),
    without: Sequence[str] = (),
    like: Sequence[str] = (),
    unlike: Sequence[str] = (),
    feedback: FeedbackSettings | None = None,
    explain: int = 0,
    engine: Engine = "exact",
    places: ModelPlaces | None = None,
    head: Crop | None = None,
    device: str | None = None,
) -> SearchResult:
    """Find the k faces of a gallery with the highest score (Eq. 9) for a photograph.

    With `like` or `unlike` the ranking is that after one round of relevance feedback in which all of them were judged
    (Eq. 10 and 11); it compares every item, whatever the engine. Attributes stay out of feedback, as in the paper (Sec.
    3.4). What ranks is rounded to float32, so that equal items are equal, and they come in the order of the index; the
    scores themselves are float64.

    Args:
        photo: an image file that shows one head, as for `read_photo`.
        index_dir: folder of the index.
        k: at most so many; fewer if the gallery, or what the filters leave of it, is smaller.
        weight: λ; None is 0.2, or 0 where the index has no attributes.
        with_, without: names of attributes that the faces found have and lack, as the model sees them.
        like, unlike: ids of items that the visitor likes and does not.
        feedback: how they count; None is the default settings.
        explain: for so many of the first hits, say which pixels speak for them (Eq. 12), by the score before feedback.
        engine: "exact", or one of faiss: "flat" finds the same, "ivf" and "hnsw" nearly. What those two are built of
            is kept in the folder of the index, where that can be written to, until there are new faces.
        places: where the model is now; what is None in it is where it was when the index was made. Another model than
            that one is refused.
        head: the part of the photograph that shows the head, as for `read_photo`.
        device: of the networks, as for `training_device`. The gallery is searched on the CPU.

    Raises:
        InputError: the photograph, the index, its model or a number is not what is said above; an attribute or an id is
            unknown (the nearest are suggested); an id is liked and unliked; nothing is left to search.
        RunError: a file of the index or the model is damaged, or the photograph's embedding is not finite.
    """
    if k < 1:
        raise InputError(f"the number of faces to find must be at least 1, not {k}")
    if explain < 0:
        raise InputError(f"the number of hits to explain must be at least 0, not {explain}")
    if engine not in ENGINES:
        raise InputError(f'there is no engine of search "{engine}"; choose from {", ".join(ENGINES)}')
    chosen = training_device(device)
    index = open_index(index_dir)
    gallery = index.gallery
    weight = (WEIGHT if index.attributes else 0.0) if weight is None else float(weight)
    scoring.check_weight(weight, len(index.attributes))
    allowed = torch.ones(len(gallery), dtype=torch.bool)
    if with_ or without:
        allowed = allowed_items(gallery.bits, index.attributes, tuple(with_), tuple(without), index.untrained)
    liked, unliked = (tuple(_item(index, name) for name in dict.fromkeys(names)) for names in (like, unlike))
    if both := sorted({*liked} & {*unliked}):
        raise InputError(f"{_id(index, both[0])} is both liked and unliked; leave it out of one of the two")
    photograph = read_photo(photo, index.size, head=head)
    model = open_model_of(index, places, chosen)
    query = describe_photo(model, photograph, os.fspath(photo))
    bits = binarise(query.probabilities)

    settings: FeedbackSettings | None = None
    session: FeedbackSession | None = None
    searcher: ExactSearch | FaissSearch | None = None
    if liked or unliked:
        settings, engine = feedback or FeedbackSettings(), "exact"
        session = FeedbackSession(gallery.embeddings, query.embeddings[0], settings)
        session.judge(liked, unliked)
        allowed &= session.remaining
        if not allowed.any():
            raise InputError("every face that is left was judged; keep judged faces in the ranking, or judge fewer")
    else:
        vectors = scoring.gallery_vectors(gallery.embeddings, gallery.bits)
        searcher = _searcher(vectors, engine, bits.shape[1], weight, index.path)
    hits = ranked_hits(index, query, k=k, weight=weight, allowed=allowed, searcher=searcher, session=session)
    for at, hit in enumerate(hits[:explain]):
        hits[at] = dataclasses.replace(hit, explanation=_explained(model, photograph, index, hit.item, weight))
    return SearchResult(
        photo=os.fspath(photo),
        picture=photograph.permute(1, 2, 0).contiguous().numpy(),
        index=index.path,
        gallery="; ".join(index.contents),
        model=model.title,
        items=len(gallery),
        searched=int(allowed.sum()),
        weight=weight,
        engine=engine,
        with_=tuple(with_),
        without=tuple(without),
        liked=tuple(_id(index, item) for item in liked),
        unliked=tuple(_id(index, item) for item in unliked),
        feedback=settings,
        attributes=index.attributes,
        seen=attribute_names(index, bits[0]),
        untrained=index.untrained,
        hits=tuple(hits),
        thumbnail=index.thumbnail,
    )


def _item(index: Index, name: str) -> int:
    """Return the index of an id; InputError suggests others."""
    ids = index.gallery.table[ID]
    at: int = pc.index(ids, name).as_py()
    if at >= 0:
        return at
    near = pc.filter(ids, pc.match_substring(ids, name, ignore_case=True)).to_pylist()[:_SUGGESTED] if name else []
    near = near or difflib.get_close_matches(name, ids[:_COMPARED].to_pylist(), n=_SUGGESTED)
    hint = f"did you mean {' or '.join(near)}?" if near else f'its ids are such as "{_id(index, 0)}"'
    raise InputError(f'the index "{index.path}" has no face "{name}"; {hint}')


def _id(index: Index, item: int) -> str:
    name: str = index.gallery.table[ID][item].as_py()
    return name


def open_model_of(index: Index, places: ModelPlaces | None, device: torch.device) -> RetrievalModel:
    """Load the model of an index.

    Args:
        index: which remembers where its model was.
        places: where the model is now, as for `search`.
        device: where to.

    Raises:
        InputError: it is another model, or not where it was.
        RunError: a file of it is damaged.
    """
    known = index.places
    given = {} if places is None else dataclasses.asdict(places)
    moved = {name: value for name, value in given.items() if value is not None and name != "seed"}
    if "identity" in moved or "backbone" in moved:  # one of them stands in for whichever it was
        known = dataclasses.replace(known, identity=None, backbone=None)
    for name, what in (("identity", "identity"), ("attributes", "attributes"), ("art_attributes", "attributes")):
        folder = getattr(known, name)
        if folder is not None and name not in moved and not os.path.exists(folder):
            raise InputError(
                f'the {what} model that "{index.path}" was made with is not at "{folder}" any more; say where it is '
                f"now with --{name.replace('_', '-')}"
            )
    model = open_retrieval_model(dataclasses.replace(known, **moved), device)
    index.check_model(model)
    return model


def describe_photo(model: RetrievalModel, photograph: Tensor, name: str) -> Description:
    """Describe one photograph, onto the CPU.

    Args:
        model: in evaluation mode.
        photograph: uint8 [3, H, W], RGB.
        name: of it, for the error.

    Raises:
        RunError: the embedding is not finite.
    """
    device = next(model.parameters()).device
    with torch.no_grad(), convolution_precision("fp32"):
        embeddings, probabilities = (part.cpu() for part in model.real(photograph[None].to(device)))
    if not (embeddings.isfinite().all() and probabilities.isfinite().all()):
        raise RunError(f'the embedding of "{name}" is not finite; are these the weights of the network?')
    return Description(embeddings, probabilities)


def _searcher(vectors: Tensor, engine: Engine, n: int, weight: float, folder: str) -> ExactSearch | FaissSearch:
    if engine == "exact":
        return ExactSearch(vectors)
    return FaissSearch(vectors, engine, bits=n, weight=built_for(weight), folder=folder)


def built_for(weight: float) -> float:
    """Return the λ that lists and graphs are built for, so that few of them serve every λ: 0.2 to 1, then 10, 100, ….

    What is built for one λ misses no more with another one near it (tests/test_faiss_search.py: 0.2 serves 0 to 1).
    """
    return WEIGHT if weight <= 1 else float(10 ** math.ceil(math.log10(weight)))


def _explained(model: RetrievalModel, photograph: Tensor, index: Index, item: int, weight: float) -> Explanation:
    painting = torch.from_numpy(index.thumbnail(item).copy()).permute(2, 0, 1).contiguous()  # it may be read-only
    return explanation.explain(model, photograph, painting, weight=weight)
