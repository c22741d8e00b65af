"""Relevance feedback by its definition: Eq. 10 and 11 by hand, several and no verdicts, the choices, bad settings."""

import math

import pytest
import torch

from manifests.errors import InputError
from pipeline.retrieval.feedback import feedback_round, feedback_rounds, feedback_similarities
from pipeline.retrieval.feedback_settings import STRATEGIES, FeedbackSettings, simulation_choices, with_choices


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    vectors = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors, dim=-1)


def by_hand(query, items, liked, unliked, settings):
    """Eq. 10 and 11 as they are written, number by number, for one liked and one unliked item."""
    moved = [
        settings.alpha * q + settings.beta * p - settings.gamma * n
        for q, p, n in zip(query, liked, unliked, strict=True)
    ]
    if settings.renormalise != "none":
        length = math.sqrt(sum(value**2 for value in moved))
        moved = [value / length for value in moved]
    warped = []
    for item in items:
        closer = settings.eta * math.exp(-settings.c * math.dist(item, liked))
        farther = settings.eta * math.exp(-settings.c * math.dist(item, unliked))
        new = [x + closer * (q - x) - farther * (q - x) for x, q in zip(item, moved, strict=True)]
        if settings.renormalise == "both":
            length = math.sqrt(sum(value**2 for value in new))
            new = [value / length for value in new]
        warped.append(new)
    return moved, warped


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("renormalise", ["none", "query", "both"])
def test_one_round_by_hand(strategy, renormalise):
    published = STRATEGIES[strategy]
    settings = FeedbackSettings(
        published.alpha, published.beta, published.gamma, published.eta, published.c, renormalise=renormalise
    )
    items, query = unit(6, 5), unit(5, seed=1)
    found = feedback_round(query, items, items[2:3], items[4:5], settings)
    expected = by_hand(query.tolist(), items.tolist(), items[2].tolist(), items[4].tolist(), settings)
    torch.testing.assert_close(found[0], torch.tensor(expected[0], dtype=torch.float64), rtol=0, atol=1e-14)
    torch.testing.assert_close(found[1], torch.tensor(expected[1], dtype=torch.float64), rtol=0, atol=1e-14)


def test_table_5_has_the_papers_parameters():
    rows = {name: (s.alpha, s.beta, s.gamma, s.eta, s.c) for name, s in STRATEGIES.items()}
    assert rows == {
        "QPM": (0.0, 1.0, 0.0, 0.0, 0.0),
        "FSW": (1.0, 0.0, 0.0, 0.5, 0.8),
        "QPM + FSW": (0.8, 0.1, 0.1, 0.5, 0.8),
    }


def test_query_point_movement_alone_replaces_the_query_and_leaves_the_gallery():
    items, query = unit(6, 5), unit(5, seed=1)
    moved, warped = feedback_round(query, items, items[:3], items[3:4], STRATEGIES["QPM"])
    mean = items[:3].mean(dim=0)
    torch.testing.assert_close(moved, mean / mean.norm(), rtol=0, atol=1e-15)
    torch.testing.assert_close(warped, items, rtol=0, atol=1e-15)


def test_feature_space_warping_alone_leaves_the_query():
    items, query = unit(6, 5), unit(5, seed=1)
    moved, warped = feedback_round(query, items, items[:1], items[1:2], STRATEGIES["FSW"])
    torch.testing.assert_close(moved, query, rtol=0, atol=1e-15)
    before, after = (feedback_similarities(query, where, "cosine") for where in (items, warped))
    assert after[0] > before[0]
    assert after[1] < before[1]


def test_equals_count_like_one():
    """Means, not sums: the same item liked three times moves no further than once."""
    items, query, settings = unit(6, 5), unit(5, seed=1), FeedbackSettings()
    once = feedback_round(query, items, items[:1], items[1:2], settings)
    often = feedback_round(query, items, items[[0, 0, 0]], items[[1, 1]], settings)
    torch.testing.assert_close(often, once, rtol=0, atol=1e-15)


def test_a_missing_side_is_left_out():
    items, query, nothing = unit(6, 5), unit(5, seed=1), unit(0, 5)
    settings = FeedbackSettings(renormalise="none")
    moved, warped = feedback_round(query, items, items[:1], nothing, settings)
    torch.testing.assert_close(moved, 0.8 * query + 0.1 * items[0], rtol=0, atol=1e-15)
    step = 0.5 * torch.exp(-0.8 * (items - items[0]).norm(dim=1))[:, None]
    torch.testing.assert_close(warped, items + step * (moved - items), rtol=0, atol=1e-15)
    moved, warped = feedback_round(query, items, nothing, items[:1], settings)
    torch.testing.assert_close(moved, 0.8 * query - 0.1 * items[0], rtol=0, atol=1e-15)
    torch.testing.assert_close(warped, items - step * (moved - items), rtol=0, atol=1e-15)


def test_without_anything_liked_a_query_made_of_likes_stays():
    items, query = unit(6, 5), unit(5, seed=1)
    moved, _ = feedback_round(query, items, unit(0, 5), items[:1], STRATEGIES["QPM"])
    assert torch.equal(moved, query)


def test_rounds_without_verdicts_change_nothing():
    items, query = unit(6, 5), unit(5, seed=1)
    for positives in ("latest", "all"):
        settings = FeedbackSettings(positives=positives)
        once = feedback_rounds(query, items, [([0], [1])], settings)
        padded = feedback_rounds(query, items, [([], []), ([0], [1]), ([], [])], settings)
        assert torch.equal(padded[0], once[0])
        assert torch.equal(padded[1], once[1])


def test_all_verdicts_so_far_and_the_latest_of_them():
    items, query = unit(6, 5), unit(5, seed=1)
    settings = FeedbackSettings(beta=1.0, alpha=0.0, gamma=0.0, eta=0.0, positives="all")
    moved, _ = feedback_rounds(query, items, [([0], []), ([1], []), ([2], [0])], settings)
    mean = items[1:3].mean(dim=0)  # 0 was liked, and is not any more
    torch.testing.assert_close(moved, mean / mean.norm(), rtol=0, atol=1e-15)


def test_where_a_judged_item_is():
    items, query, rounds = unit(6, 5), unit(5, seed=1), [([0], [1]), ([0], [2])]
    first_query, first_items = feedback_rounds(query, items, rounds[:1], FeedbackSettings())
    for chosen, where in (
        (FeedbackSettings(positions="moved"), first_items),
        (FeedbackSettings(positions="original"), items),
    ):
        expected = feedback_round(first_query, first_items, where[[0]], where[[2]], FeedbackSettings())
        found = feedback_rounds(query, items, rounds, chosen)
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])


def test_measures_agree_for_unit_vectors_and_only_for_them():
    items, query = unit(6, 5), unit(5, seed=1)
    cosine = feedback_similarities(query, items, "cosine")
    for measure in ("dot", "distance"):
        torch.testing.assert_close(feedback_similarities(query, items, measure), cosine, rtol=0, atol=1e-14)
    assert (feedback_similarities(3 * query, items, "dot") - 3 * cosine).abs().max() < 1e-14
    torch.testing.assert_close(feedback_similarities(3 * query, 2 * items, "cosine"), cosine, rtol=0, atol=1e-14)
    distances = (3 * query - items).norm(dim=1)
    assert feedback_similarities(3 * query, items, "distance").argsort().tolist() == (-distances).argsort().tolist()
    assert feedback_similarities(0 * query, items, "cosine").tolist() == [0] * 6


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"alpha": -0.1}, "alpha"),
        ({"beta": math.nan}, "beta"),
        ({"gamma": math.inf}, "gamma"),
        ({"c": -1.0}, "c of relevance feedback"),
        ({"eta": 1.5}, "at most 1"),
        ({"renormalise": "items"}, "none, query, both"),
        ({"measure": "euclid"}, "cosine, dot, distance"),
        ({"judged": "hide"}, "keep, remove"),
        ({"positives": "last"}, "latest, all"),
        ({"positions": "first"}, "moved, original"),
    ],
)
def test_wrong_settings_are_refused(wrong, said):
    with pytest.raises(InputError, match=said):
        FeedbackSettings(**wrong)


def test_choices_replace_fields_and_the_last_of_a_name_counts():
    found = with_choices(STRATEGIES["QPM"], ["judged=remove", " c = 2 ", "c=3"])
    assert found == FeedbackSettings(alpha=0, beta=1, gamma=0, eta=0, c=3, judged="remove")
    assert with_choices(found, []) == found
    with pytest.raises(InputError, match='no choice "draws"'):  # nobody draws for a visitor
        with_choices(found, ["draws=unseen"])
    assert simulation_choices(["draws=unseen", "c=2"]) == (["c=2"], "unseen")
    assert simulation_choices([]) == ([], "independent")
