"""What an evaluation searches with, and what it searches in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from manifests.errors import InputError
from pipeline.retrieval import paper_results as paper
from pipeline.retrieval.evaluate_config import EvaluateConfig
from pipeline.retrieval.face_set import IDENTITY, FaceSet
from pipeline.retrieval.run_sets import photographs_of_run
from pipeline.retrieval.test_set import RUN, TestSet, open_test_set
from pipeline.training.attribute_accuracy import Labels, majority_class
from pipeline.training.run_faces import UNKNOWN, RunFaces

_PUBLISHED: Final[Mapping[str, str]] = {
    RUN: paper.CELEBA,
    "webcaricature": paper.WEBCARICATURE,
    "iiitd-sketch": paper.IIITD_SKETCH,
    "deviantart-faces": paper.DEVIANTART_FACES,
    "wikiart-faces": paper.WIKIART_FACES,
}
_TRAIN: Final = "train"


@dataclass(frozen=True, eq=False)
class Sides:
    """What is searched with and in.

    Attributes:
        title: of the test set.
        published: its name in the paper's tables.
        queries, gallery: photographs and art.
        people: whether somebody among the queries is known to be in the gallery.
        majority: int8 [40], the commoner answer of training to every attribute, -1 unknown; None where nothing is
            labelled, or nobody asks.
        notes: what was left out or assumed, a sentence each.
    """

    title: str
    published: str
    queries: FaceSet
    gallery: FaceSet
    people: bool
    majority: Labels | None
    notes: tuple[str, ...]

    @classmethod
    def open(cls, config: EvaluateConfig) -> "Sides":
        """Open the test set and, for one that has no photographs, the run that has; InputError if they cannot be."""
        faces = config.faces if config.queries is None else None  # they are of the run with the photographs
        found = open_test_set(config.test_set, layout=config.layout, split=config.split, faces=faces)
        queries, notes = _queries(config, found), list(found.notes)
        known = [set(side.table[IDENTITY].to_pylist()) - {None} for side in (queries, found.gallery)]
        majority = None
        if found.name == RUN and config.attributes:
            majority, sentence = _majority(config)
            notes += [sentence] if sentence else []
        people = bool(known[0] & known[1])
        return cls(found.title, _PUBLISHED[found.name], queries, found.gallery, people, majority, tuple(notes))


def _queries(config: EvaluateConfig, found: TestSet) -> FaceSet:
    if found.queries is not None:
        if config.queries is not None:
            raise InputError(f"{found.title} has photographs of its own to search with; leave --queries out")
        return found.queries
    if config.queries is None:
        raise InputError(f"{found.title} has no photographs to search with; name a run that has (--queries RUN)")
    run = RunFaces.open(config.queries, faces=config.faces)
    return photographs_of_run(run, run.indices(config.split))


def _majority(config: EvaluateConfig) -> tuple[Labels | None, str | None]:
    """Return the commoner answers in the run's training split, or in the one evaluated, and what to say of it."""
    run = RunFaces.open(config.test_set, faces=config.faces)
    split = _TRAIN if _TRAIN in run.splits else config.split
    labels = run.attributes[run.indices(split)]
    if not (labels != UNKNOWN).any():
        return None, None
    sentence = f"The run has no training split: the commoner answers are those of {split} itself."
    return majority_class(labels), None if split == _TRAIN else sentence
