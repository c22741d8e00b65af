"""The published figures to draw beside our curves."""

from pipeline.retrieval import paper_results as paper
from pipeline.retrieval.plots import Reference
from pipeline.retrieval.report import References
from pipeline.retrieval.tables import Trained


def paper_curves(test_set: str, backbone: str, trained: Trained) -> References:
    """Return what the paper has for one of our models: its nearest backbone's curves, and of feedback those it has.

    Args:
        test_set: one of the names in `paper_results`; of any other there is nothing.
        backbone: name of our network's card.
        trained: what of our model was; a bare network stands beside the paper's projections.
    """
    name = paper.nearest_backbone(backbone)
    if name is None:
        return References(feedback=feedback_curves(test_set, backbone))
    finetuned = trained == "all"
    recall: list[Reference] = []
    if published := paper.table_1(test_set).get((name, finetuned)):
        what = "all trained" if finetuned else "projections trained"
        recall.append(_reference(f"{name}, {what}, {test_set} (paper)", paper.KS, published))
    of_weights: list[Reference] = []
    if pairs := paper.table_3(test_set).get(name):
        title = f"{name}, {test_set} (paper)"
        of_weights = [_reference(title, paper.WEIGHTS, values) for values in zip(*pairs, strict=True)]
    return References(
        recall=recall,
        weight_recall=of_weights[0] if of_weights else None,
        weight_agreement=of_weights[1] if of_weights else None,
        feedback=feedback_curves(test_set, backbone),
    )


def feedback_curves(test_set: str, backbone: str) -> tuple[Reference, ...]:
    """Return average precision before and after 1, 5 and 10 rounds of both moves, of the nearest backbone or of both.

    "Before" is from the text on Fig. 7, the rounds are Table 5's (see `paper_results`).
    """
    known = [name for of, name in paper.FIGURE_7_BEFORE if of == test_set]
    nearest = [name for name in known if name == paper.nearest_backbone(backbone)]
    return tuple(
        _reference(
            f"{name}, {test_set} (paper)",
            (0, *paper.ROUNDS),
            (paper.FIGURE_7_BEFORE[test_set, name], *paper.TABLE_5[test_set, paper.BOTH, name]),
        )
        for name in nearest or known
    )


def _reference(name: str, x: tuple[float, ...], per_cent: tuple[float, ...]) -> Reference:
    return Reference(name, x, tuple(value / 100 for value in per_cent))
