"""The lazy form against the direct one after ten rounds, for every choice; what it keeps; bad verdicts."""

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.errors import InputError
from pipeline.retrieval.feedback import feedback_rounds, feedback_similarities
from pipeline.retrieval.feedback_session import FeedbackSession
from pipeline.retrieval.feedback_settings import STRATEGIES, FeedbackSettings
from pipeline.retrieval.lazy_feedback import ABSENT, LazyFeedback

CHOICES = list(
    itertools.product(
        ("none", "query", "both"), ("cosine", "dot", "distance"), ("latest", "all"), ("moved", "original")
    )
)


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    vectors = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors, dim=-1)


def with_choices(published, choices):
    renormalise, measure, positives, positions = choices
    return replace(published, renormalise=renormalise, measure=measure, positives=positives, positions=positions)


def ten_rounds(items, seed=1):
    """Rounds of none to three verdicts a side, items that come back, and verdicts that are changed."""
    generator = torch.Generator().manual_seed(seed)
    rounds = []
    for number in range(10):
        drawn = torch.randperm(min(items, 12), generator=generator).tolist()
        rounds.append((drawn[: number % 3 + (number == 0)], drawn[4 : 4 + (number + 2) % 4]))
    return rounds


def largest_difference(gallery, query, rounds, chosen):
    session = FeedbackSession(gallery, query, chosen)
    for liked, unliked in rounds:
        session.judge(liked, unliked)
    moved, warped = feedback_rounds(query.double(), gallery.double(), rounds, chosen)
    expected = feedback_similarities(moved, warped, chosen.measure)
    found = session.similarities()
    assert found.dtype == torch.float64
    return float((found - expected).abs().max())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_lazy_is_direct_after_ten_rounds(strategy):
    gallery, query = unit(200, 24), unit(24, seed=5)
    for choices in CHOICES:
        assert largest_difference(gallery, query, ten_rounds(200), with_choices(STRATEGIES[strategy], choices)) < 1e-10


def test_lazy_is_direct_in_the_papers_dimensions():
    gallery, query = unit(500, 2048), unit(2048, seed=5)
    assert largest_difference(gallery, query, ten_rounds(500), FeedbackSettings()) < 1e-10


def test_lazy_is_direct_for_vectors_that_are_equal_opposite_or_nothing():
    gallery = torch.cat([unit(4, 6), unit(4, 6), -unit(4, 6), torch.zeros(1, 6)])
    for choices in CHOICES:
        chosen = with_choices(FeedbackSettings(), choices)
        assert largest_difference(gallery, gallery[0], ten_rounds(13), chosen) < 1e-6


@st.composite
def sessions(draw):
    items = draw(st.integers(1, 12))
    verdicts = st.dictionaries(st.integers(0, items - 1), st.booleans(), max_size=4)
    rounds = [
        ([item for item, liked in judged.items() if liked], [item for item, liked in judged.items() if not liked])
        for judged in draw(st.lists(verdicts, max_size=10))
    ]
    number = st.floats(0, 1)
    chosen = with_choices(
        FeedbackSettings(draw(number), draw(number), draw(number), draw(number), draw(st.floats(0, 4))),
        draw(st.sampled_from(CHOICES)),
    )
    return items, rounds, chosen, draw(st.integers(0, 1000))


@settings(deadline=None, max_examples=60)
@given(sessions())
def test_lazy_is_direct_for_any_parameters(of):
    items, rounds, chosen, seed = of
    gallery, query = unit(items, 8, seed=seed), unit(8, seed=seed + 1)
    moved, warped = feedback_rounds(query.double(), gallery.double(), rounds, chosen)
    if moved.norm() < 1e-3 or warped.norm(dim=1).min() < 1e-3:
        return  # what is nearly nothing has no direction to agree on
    assert largest_difference(gallery, query, rounds, chosen) < 1e-6


def test_before_any_feedback_it_is_the_plain_similarity():
    gallery, query = unit(50, 16), unit(16, seed=5)
    for measure in ("cosine", "dot", "distance"):
        session = FeedbackSession(gallery, query, FeedbackSettings(measure=measure))
        torch.testing.assert_close(session.similarities().float(), gallery @ query, rtol=0, atol=1e-6)


def test_the_gallery_is_neither_written_to_nor_copied():
    """Ten visitors at once keep scalars: nothing of theirs has the gallery's dimensions."""
    gallery, before = unit(400, 512), unit(400, 512)
    visitors = [FeedbackSession(gallery, unit(512, seed=seed)) for seed in range(10)]
    for number, visitor in enumerate(visitors):
        for turn in range(10):
            visitor.judge([(number + turn) % 400], [(number + 7 * turn + 200) % 400])
    assert torch.equal(gallery, before)
    for visitor in visitors:
        kept = [value for value in vars(visitor._feedback).values() if isinstance(value, torch.Tensor)]
        own = [value for value in kept if value.data_ptr() != gallery.data_ptr()]
        assert len(own) == len(kept) - 1
        per_item = sum(value.numel() for value in own) / len(gallery)
        assert per_item < 2 * 21 + 2 + 2  # dots and offsets, a and |x|², and a little that is not per item
    alone = FeedbackSession(gallery, unit(512, seed=3))
    for turn in range(10):
        alone.judge([(3 + turn) % 400], [(3 + 7 * turn + 200) % 400])
    assert torch.equal(alone.similarities(), visitors[3].similarities())


def test_sessions_side_by_side_are_sessions_alone():
    """Also where one has fewer verdicts in a round, or none."""
    gallery, queries = unit(60, 16), unit(3, 16, seed=5)
    rounds = [
        (torch.tensor([[1, 2], [3, ABSENT], [ABSENT, ABSENT]]), torch.tensor([[9], [8], [7]])),
        (torch.tensor([[4, 5], [ABSENT, ABSENT], [6, 7]]), torch.tensor([[1], [ABSENT], [ABSENT]])),
        (torch.tensor([[ABSENT], [3], [6]]), torch.tensor([[2], [4], [5]])),
    ]
    for choices in CHOICES:
        chosen = with_choices(FeedbackSettings(), choices)
        together = LazyFeedback(gallery, queries, chosen)
        alone = [FeedbackSession(gallery, query, chosen) for query in queries]
        for liked, unliked in rounds:
            together.judge(liked, unliked)
            for number, session in enumerate(alone):
                session.judge(
                    *([item for item in side[number].tolist() if item != ABSENT] for side in (liked, unliked))
                )
        expected = torch.stack([session.similarities() for session in alone])
        torch.testing.assert_close(together.similarities(), expected, rtol=0, atol=1e-12)


def test_judged_items_leave_the_ranking_if_asked_for():
    gallery, query = unit(6, 4), unit(4, seed=5)
    keeps, removes = (FeedbackSession(gallery, query, FeedbackSettings(judged=judged)) for judged in ("keep", "remove"))
    for session in (keeps, removes):
        session.judge([1], [4, 4])
    assert keeps.remaining.tolist() == [True] * 6
    assert removes.remaining.tolist() == [True, False, True, True, False, True]
    assert torch.equal(keeps.similarities(), removes.similarities())


def test_liking_raises_and_unliking_lowers():
    gallery, query = unit(100, 16), unit(16, seed=5)
    session = FeedbackSession(gallery, query)
    before = session.similarities()
    session.judge([17], [42])
    after = session.similarities()
    assert after[17] > before[17]
    assert after[42] < before[42]
    assert session.rounds == 1


def test_bad_verdicts_are_refused_and_change_nothing():
    gallery, query = unit(6, 4), unit(4, seed=5)
    session = FeedbackSession(gallery, query)
    before = session.similarities()
    with pytest.raises(InputError, match="item 3 is both liked and unliked"):
        session.judge([3], [3])
    for item in (-1, 6):
        with pytest.raises(IndexError, match="gallery of 6"):
            session.judge([item], [])
    session.judge([], [])
    assert session.rounds == 0
    assert torch.equal(session.similarities(), before)


def test_a_gallery_of_one():
    session = FeedbackSession(unit(1, 4), unit(4, seed=5))
    session.judge([0], [])
    assert session.similarities().shape == (1,)


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="query of"):
        FeedbackSession(unit(6, 4), unit(5))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda():
    gallery, query = unit(500, 128), unit(128, seed=5)
    here, there = (FeedbackSession(gallery.to(device), query.to(device)) for device in ("cpu", "cuda"))
    for liked, unliked in ten_rounds(500):
        here.judge(liked, unliked)
        there.judge(liked, unliked)
    torch.testing.assert_close(there.similarities().cpu(), here.similarities(), rtol=0, atol=1e-10)
