"""Simulated feedback against a simulation in plain Python; who asks, what is judged, what is never ranked."""

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from manifests.attributes import ATTRIBUTES
from manifests.errors import InputError
from pipeline.retrieval import feedback_simulation
from pipeline.retrieval.described_faces import DescribedFaces
from pipeline.retrieval.face_set import FACE_SET_SCHEMA
from pipeline.retrieval.feedback import feedback_rounds, feedback_similarities
from pipeline.retrieval.feedback_curve import FeedbackCurve
from pipeline.retrieval.feedback_settings import STRATEGIES, FeedbackSettings
from pipeline.retrieval.feedback_simulation import simulate_feedback

SOME_CHOICES = [
    FeedbackSettings(),
    STRATEGIES["QPM"],
    STRATEGIES["FSW"],
    FeedbackSettings(renormalise="none", measure="distance", positives="all"),
    FeedbackSettings(renormalise="both", measure="dot", positions="original"),
    FeedbackSettings(judged="remove"),
]


def faces(identities, *, seed, sources=None, spread=0.6, n=8, prefix="p"):
    """Faces near their person's direction; identity None is somebody unknown."""
    own = torch.Generator().manual_seed(seed)
    centres = torch.randn(50, 12, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(len(identities), 12, generator=own)
    strange = torch.randn(len(identities), 12, generator=own)
    rows = [strange[at] if who is None else centres[who] for at, who in enumerate(identities)]
    ids = [f"{prefix}{at}" for at in range(len(identities))]
    photographs = [f"p{at}" for at in (range(len(identities)) if sources is None else sources)]
    columns = {
        "id": ids,
        "source_id": photographs,
        "identity": [None if who is None else str(who) for who in identities],
    }
    columns |= {"locator": ids, "version": ids} | {name: pa.nulls(len(ids), pa.bool_()) for name in ATTRIBUTES}
    embeddings = torch.nn.functional.normalize(torch.stack(rows) + spread * noise, dim=1)
    return DescribedFaces(pa.table(columns).cast(FACE_SET_SCHEMA), embeddings, torch.rand(len(ids), n, generator=own))


PEOPLE = [0] * 5 + [1] * 4 + [2] * 2 + [3] + [None] * 2 + [4] * 12


@pytest.fixture
def sides():
    return faces(PEOPLE, seed=1), faces(PEOPLE, seed=2, prefix="a")


def precision(similarities, relevant):
    """Average precision by sorting; of equals, the irrelevant ones first."""
    ranked = sorted(zip((-value for value in similarities), relevant, strict=True))
    hits, total = 0, 0.0
    for place, (_, hit) in enumerate(ranked, 1):
        if hit:
            hits += 1
            total += hits / place
    return total / hits if hits else math.nan


def simulated_by_hand(queries, gallery, settings, judgements, weight):
    """One query after another, the direct form from the start for every round, sorting."""
    curves = []
    for query, rounds in judgements.items():
        person, photograph = queries.table["identity"][query].as_py(), queries.table["source_id"][query].as_py()
        relevant = [who == person for who in gallery.table["identity"].to_pylist()]
        out = {at for at, source in enumerate(gallery.table["source_id"].to_pylist()) if source == photograph}
        agreement = (queries.bits[query] == gallery.bits).double().mean(dim=1)
        curve = []
        for number in range(len(rounds) + 1):
            done = [([p] if p >= 0 else [], [n] if n >= 0 else []) for p, n in rounds[:number]]
            if settings.judged == "remove":
                out |= {item for pair in rounds[:number] for item in pair}
            moved, warped = feedback_rounds(
                queries.embeddings[query].double(), gallery.embeddings.double(), done, settings
            )
            found = (1 + feedback_similarities(moved, warped, settings.measure)) / 2 + weight * agreement
            kept = [at for at in range(len(gallery)) if at not in out]
            curve.append(precision([float(found[at]) for at in kept], [relevant[at] for at in kept]))
        curves.append(curve)
    return np.array(curves)


@pytest.fixture
def judgements(monkeypatch):
    """What the simulated users judged, as it happens: {query: rounds of (positive, negative)}."""
    seen: dict[int, list[tuple[int, int]]] = {}
    real = feedback_simulation._judgements

    def watch(people, query, *rest):
        judged = real(people, query, *rest)
        seen[query] = [tuple(pair) for pair in judged.tolist()]
        return judged

    monkeypatch.setattr(feedback_simulation, "_judgements", watch)
    return seen


@pytest.mark.parametrize("settings", SOME_CHOICES)
@pytest.mark.parametrize("draws", ["independent", "unseen"])
def test_against_plain_python(sides, judgements, settings, draws):
    queries, gallery = sides
    curve = simulate_feedback(queries, gallery, settings, rounds=6, weight=0.3, seed=4, draws=draws)
    expected = simulated_by_hand(queries, gallery, settings, judgements, 0.3)
    assert curve.average_precision.shape == (4, 7)
    np.testing.assert_allclose(curve.average_precision, expected, rtol=0, atol=1e-12)


def test_one_photograph_of_every_person_who_can_be_found(sides, judgements):
    queries, gallery = sides
    curve = simulate_feedback(queries, gallery, rounds=1)
    assert sorted(PEOPLE[query] for query in judgements) == [0, 1, 2, 4]
    assert curve.without_relevant == 3  # person 3 has one photograph and its own proxy; two are unknown
    chosen = set()
    for seed in range(12):
        judgements.clear()
        simulate_feedback(queries, gallery, rounds=0, seed=seed)
        chosen |= judgements.keys()
    assert len(chosen) > 12  # not always the same one


def test_every_photograph(sides):
    queries, gallery = sides
    curve = simulate_feedback(queries, gallery, rounds=1, one_per_identity=False)
    assert (curve.queries, curve.without_relevant) == (23, 3)


def test_a_photograph_that_has_something_to_find_is_preferred(judgements):
    """Of person 0's three photographs only the second one's proxy was accepted: it cannot be the query."""
    queries, gallery = faces([0, 0, 0, 1], seed=1), faces([0, 1], seed=2, sources=[1, 3], prefix="a")
    for seed in range(10):
        judgements.clear()
        assert simulate_feedback(queries, gallery, rounds=1, seed=seed).without_relevant == 1
        assert judgements.keys() <= {0, 2}


def test_what_is_judged(sides, judgements):
    queries, gallery = sides
    for draws in ("independent", "unseen"):
        judgements.clear()
        simulate_feedback(queries, gallery, rounds=10, one_per_identity=False, draws=draws)
        for query, rounds in judgements.items():
            positives, negatives = ([item for item in side if item >= 0] for side in zip(*rounds, strict=True))
            assert all(PEOPLE[item] == PEOPLE[query] and item != query for item in positives)  # never the own proxy
            assert all(PEOPLE[item] != PEOPLE[query] for item in negatives)
            if draws == "unseen":
                assert len(set(positives)) == len(positives) == min(10, PEOPLE.count(PEOPLE[query]) - 1)
                assert len(set(negatives)) == 10
            else:
                assert len(positives) == len(negatives) == 10


def test_deterministic_in_the_seed_alone(sides):
    queries, gallery = sides
    curve = simulate_feedback(queries, gallery, rounds=5, seed=3, one_per_identity=False)
    again = simulate_feedback(queries, gallery, rounds=5, seed=3, one_per_identity=False, chunk=1)
    np.testing.assert_allclose(again.average_precision, curve.average_precision, rtol=0, atol=1e-12)
    shorter = simulate_feedback(queries, gallery, rounds=2, seed=3, one_per_identity=False)
    np.testing.assert_allclose(shorter.average_precision, curve.average_precision[:, :3], rtol=0, atol=1e-12)
    other = simulate_feedback(queries, gallery, rounds=5, seed=4, one_per_identity=False)
    assert (other.average_precision != curve.average_precision).any()
    backwards = queries.take(range(len(queries) - 1, -1, -1))
    turned = simulate_feedback(backwards, gallery, rounds=5, seed=3, one_per_identity=False)
    np.testing.assert_allclose(turned.average_precision[::-1], curve.average_precision, rtol=0, atol=1e-12)


def test_settings_are_compared_on_equal_judgements(sides, judgements):
    queries, gallery = sides
    simulate_feedback(queries, gallery, STRATEGIES["QPM"], rounds=5)
    first = dict(judgements)
    judgements.clear()
    simulate_feedback(queries, gallery, STRATEGIES["FSW"], rounds=5)
    assert judgements == first


def test_without_feedback_it_is_the_plain_ranking(sides):
    queries, gallery = sides
    curve = simulate_feedback(queries, gallery, rounds=0)
    assert (curve.rounds, curve.average_precision.shape) == (0, (4, 1))


def test_feedback_helps_where_people_have_many_pictures():
    identities = [who for who in range(30) for _ in range(10)]
    queries, gallery = faces(identities, seed=1, spread=1.6), faces(identities, seed=2, spread=1.6, prefix="a")
    curves = {name: simulate_feedback(queries, gallery, strategy).mean for name, strategy in STRATEGIES.items()}
    for curve in curves.values():
        assert curve[0] == curves["QPM"][0]
    for name in ("FSW", "QPM + FSW"):
        assert curves[name][10] > curves[name][5] > curves[name][1] > curves[name][0]
        assert curves[name][10] > curves["QPM"][10]


def test_removing_what_was_judged_leaves_nothing_in_the_end(sides):
    queries, gallery = sides
    curve = simulate_feedback(queries, gallery, replace(FeedbackSettings(), judged="remove"), rounds=11)
    assert np.isnan(curve.average_precision[:, -1]).all()
    assert np.isnan(curve.mean[-1])
    assert curve.as_dict()["mAP"][-1] is None
    assert not np.isnan(curve.mean[:11]).any()  # of the person with eleven to find


def test_a_gallery_of_one_person_has_no_negatives(judgements):
    curve = simulate_feedback(faces([0, 0, 0], seed=1), faces([0, 0, 0], seed=2, prefix="a"), rounds=3)
    assert all(negative == -1 for rounds in judgements.values() for _, negative in rounds)
    assert (curve.average_precision == 1).all()


def test_nobody_to_find():
    curve = simulate_feedback(faces([0, None], seed=1), faces([1], seed=2, sources=[7], prefix="a"))
    assert (curve.queries, curve.without_relevant, curve.rounds) == (0, 2, 10)
    assert np.isnan(curve.mean).all()


def test_without_attributes(sides):
    queries, gallery = (DescribedFaces(side.table, side.embeddings, side.probabilities[:, :0]) for side in sides)
    assert simulate_feedback(queries, gallery, rounds=1, weight=0).queries == 4
    with pytest.raises(InputError, match="no attributes"):
        simulate_feedback(queries, gallery, rounds=1, weight=0.2)


def test_bad_input(sides):
    queries, gallery = sides
    with pytest.raises(InputError, match="from 0 on, not -0"):
        simulate_feedback(queries, gallery, weight=-0.1)
    with pytest.raises(InputError, match="rounds"):
        simulate_feedback(queries, gallery, rounds=-1)
    narrow = DescribedFaces(gallery.table, gallery.embeddings[:, :5], gallery.probabilities)
    with pytest.raises(InputError, match="one model"):
        simulate_feedback(queries, narrow)


def test_the_mean_is_over_what_is_known():
    curve = FeedbackCurve(FeedbackSettings(), 0.2, np.array([[0.5, 1.0], [0.1, np.nan]]), 0)
    assert curve.mean.tolist() == [0.3, 1.0]
    assert curve.as_dict()["mAP"] == [0.3, 1.0]
