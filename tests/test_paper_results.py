"""The paper's tables as transcribed: their sizes, values read off the page once more, and what holds within them."""

import math

import pytest

from pipeline.backbones import zoo
from pipeline.backbones.registry import backbone_names
from pipeline.retrieval import paper_results as paper
from pipeline.retrieval.feedback_settings import STRATEGIES, FeedbackSettings
from pipeline.retrieval.paper_curves import feedback_curves, paper_curves

PAIRED = (paper.CELEBA, paper.WEBCARICATURE, paper.IIITD_SKETCH, paper.DEVIANTART_FACES)


def test_counts():
    assert len(paper.EMBEDDING_SIZES) == 6
    assert [len(paper.table_1(name)) for name in PAIRED] == [12] * 4
    assert [len(paper.table_3(name)) for name in PAIRED] == [6] * 4
    assert all(len(row) == 7 for name in PAIRED for row in paper.table_3(name).values())
    assert (len(paper.TABLE_2), len(paper.TABLE_4), len(paper.TABLE_5)) == (9, 6, 12)
    assert all(len(row) == 7 for row in paper.TABLE_4.values())
    assert paper.table_1(paper.WIKIART_FACES) == {} == paper.table_3("something else")


def test_values_at_the_corners_of_the_tables():
    assert paper.table_1(paper.CELEBA)[paper.SPHEREFACE, False] == (30.2, 44.0, 50.4)
    assert paper.table_1(paper.DEVIANTART_FACES)[paper.VGGFACE2_SENET, True] == (47.9, 67.1, 74.8)
    assert paper.table_1(paper.IIITD_SKETCH)[paper.VGGFACE, True] == (61.5, 87.2, 90.2)
    assert paper.TABLE_2[paper.VGGFACE, "real"] == (88.9, 85.2)
    assert paper.TABLE_2[paper.VGGFACE2_SENET, "joint"] == (87.4, 86.4)
    assert paper.table_3(paper.CELEBA)[paper.LIGHTCNN_9][2] == (69.5, 88.1)
    assert paper.table_3(paper.WEBCARICATURE)[paper.SPHEREFACE][-1] == (10.9, 97.4)
    assert paper.table_3(paper.IIITD_SKETCH)[paper.SPHEREFACE][3] == (31.6, 80.6)
    assert paper.TABLE_4[paper.VGGFACE] == (83.7, 86.4, 88.4, 92.1, 94.5, 96.6, 96.7)
    assert paper.TABLE_5[paper.CELEBA, paper.BOTH, paper.VGGFACE2_RESNET] == (56.56, 73.63, 82.23)
    assert paper.TABLE_5[paper.WEBCARICATURE, paper.QPM, paper.VGGFACE2_SENET] == (50.17, 50.36, 50.72)


@pytest.mark.parametrize("test_set", PAIRED)
def test_finetuned_models_are_those_of_table_3_without_attributes(test_set):
    """Every R@1 of the finetuned rows is printed twice, so that a slip in either table would show."""
    weighted = paper.table_3(test_set)
    for (name, finetuned), recall in paper.table_1(test_set).items():
        assert list(recall) == sorted(recall)
        if finetuned:
            assert weighted[name][0][0] == recall[0]


@pytest.mark.parametrize("test_set", PAIRED)
def test_attribute_accuracy_rises_with_lambda_but_for_the_misprint(test_set):
    for name, pairs in paper.table_3(test_set).items():
        accuracies = [accuracy for _, accuracy in pairs]
        falls = [at for at in range(1, 7) if accuracies[at] < accuracies[at - 1]]
        assert falls == ([3] if (test_set, name) == (paper.IIITD_SKETCH, paper.SPHEREFACE) else [])


def test_the_strategies_are_those_of_table_5():
    found = {name: (s.alpha, s.beta, s.gamma, s.eta, s.c) for name, s in STRATEGIES.items()}
    assert list(found) == list(paper.FEEDBACK_PARAMETERS)
    assert found == {"QPM": (0, 1, 0, 0, 0), "FSW": (1, 0, 0, 0.5, 0.8), "QPM + FSW": (0.8, 0.1, 0.1, 0.5, 0.8)}
    assert FeedbackSettings() == STRATEGIES[paper.BOTH]


def test_every_backbone_of_ours_is_placed_and_the_papers_own_are_beside_themselves():
    for name in backbone_names():
        if name == "tiny":  # another test's
            continue
        nearest = paper.nearest_backbone(name)
        assert nearest in paper.EMBEDDING_SIZES
        if name in {"sphereface20", "lightcnn9", "lightcnn29", "vggface", "vggface2-resnet50", "vggface2-senet50"}:
            assert zoo.backbone(name).card.embedding == paper.EMBEDDING_SIZES[str(nearest)]
    assert paper.nearest_backbone("timm:resnet18") is None


@pytest.mark.parametrize("test_set", [*PAIRED, paper.WIKIART_FACES, "mine"])
@pytest.mark.parametrize("backbone", ["mobilefacenet", "vggface2-senet50", "timm:resnet18"])
def test_curves_are_shares(test_set, backbone):
    curves = paper_curves(test_set, backbone, "all")
    drawn = [*curves.recall, *curves.feedback]
    drawn += [curve for curve in (curves.weight_recall, curves.weight_agreement) if curve is not None]
    assert bool(curves.recall) == (test_set in PAIRED and not backbone.startswith("timm:"))
    for curve in drawn:
        assert len(curve.x) == len(curve.y)
        assert list(curve.x) == sorted(set(curve.x))
        assert all(0 < y < 1 for y in curve.y)


def test_curves_of_the_same_backbone_and_of_one_that_the_paper_has_not():
    (curve,) = feedback_curves(paper.CELEBA, "vggface2-senet50")
    assert tuple(curve.x) == (0, 1, 5, 10)
    assert all(math.isclose(a, b) for a, b in zip(curve.y, (0.486, 0.5668, 0.73, 0.8153), strict=True))
    assert len(feedback_curves(paper.CELEBA, "mobilefacenet")) == 2
    assert feedback_curves(paper.DEVIANTART_FACES, "vggface2-senet50") == ()
    bare = paper_curves(paper.CELEBA, "mobilefacenet", "nothing")
    assert tuple(round(100 * y, 1) for y in bare.recall[0].y) == (69.2, 80.7, 83.8)
    trained = paper_curves(paper.CELEBA, "mobilefacenet", "all")
    assert tuple(round(100 * y, 1) for y in trained.recall[0].y) == (69.6, 80.8, 84.2)
