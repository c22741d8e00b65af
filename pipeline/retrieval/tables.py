"""Tables 1 to 5 of Cornia et al. (TOMM 2022) with our results in them, and Fig. 7 as a table.

Shares are shown as per cent, as the paper does. All functions are pure; rows of ours come first, in the order given,
then the paper's of the same test set, if it has any.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from pipeline.retrieval import paper_results as paper
from pipeline.retrieval.evaluation_result import Evaluation
from pipeline.retrieval.feedback_curve import FeedbackCurve
from pipeline.retrieval.feedback_settings import STRATEGIES, FeedbackSettings
from pipeline.retrieval.result_table import ResultRow, ResultTable, Value
from pipeline.training.attribute_accuracy import AttributeAccuracy

Trained = Literal["nothing", "projections", "all"]

_TRAINED: Final[Mapping[bool, Trained]] = {False: "projections", True: "all"}
_TRAINING_SETS: Final = {"real": "Real", "art": "Style transfer", "joint": "Joint"}


@dataclass(frozen=True, eq=False)
class EvaluatedModel:
    """One model and what searching with it has come to.

    Attributes:
        name: of the row.
        backbone: name of the network's card.
        dim: D.
        trained: what of it was.
        evaluation: for every λ asked for; λ = 0 among them for Table 1.
        annotated: the same with attributes compared as annotated, where `evaluation` compares predictions and both can
            be done.
        untrained: attributes that had no label when its heads were trained.
    """

    name: str
    backbone: str
    dim: int
    trained: Trained
    evaluation: Evaluation
    annotated: Evaluation | None = None
    untrained: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class EvaluatedHeads:
    """Attribute heads and how well they answer in either domain.

    Attributes:
        name: of the row.
        backbone: name of the network's card.
        train_on: "real", "art" or "joint".
        real, art: accuracy on photographs and on art; None where there are no labels.
    """

    name: str
    backbone: str
    train_on: str
    real: AttributeAccuracy | None
    art: AttributeAccuracy | None


@dataclass(frozen=True, eq=False)
class SimulatedModel:
    """One model and the feedback simulated with it.

    Attributes:
        name: of the row.
        backbone: name of the network's card.
        curves: key of `feedback_settings.STRATEGIES` → curve.
    """

    name: str
    backbone: str
    curves: Mapping[str, FeedbackCurve]


def table_1(test_set: str, models: Sequence[EvaluatedModel]) -> ResultTable:
    """Return Recall@k of the identity branch alone (λ = 0), for what of each model was trained.

    Args:
        test_set: one of the names in `paper_results`; of any other there are no published rows.
        models: at least one.
    """
    rows = [
        ResultRow(
            model.name,
            "ours",
            (
                model.dim,
                model.trained,
                *(_per_cent(model.evaluation.result(0.0).recall.at.get(k)) for k in paper.KS),
                _per_cent(model.evaluation.result(0.0).average_precision),
            ),
        )
        for model in models
    ]
    nearest = _nearest(model.backbone for model in models)
    rows += [
        ResultRow(
            name, "paper", (paper.EMBEDDING_SIZES[name], _TRAINED[finetuned], *recall, None), nearest=name in nearest
        )
        for (name, finetuned), recall in paper.table_1(test_set).items()
    ]
    return ResultTable(
        "Table 1. Face recognition branch (Recall@k, per cent)",
        ("Emb. size", "Trained", *(f"R@{k}" for k in paper.KS), "mAP"),
        tuple(rows),
        _set_notes(models[0].evaluation, test_set),
    )


def table_2(heads: Sequence[EvaluatedHeads], test_set: str = paper.CELEBA) -> ResultTable:
    """Return how accurate attribute heads are on photographs and on art, beside the commoner answer.

    The paper's accuracy says little alone: most of Celeb-A's attributes are rare, and who always gives the answer that
    is commoner in training is right four times out of five. So that rate, and balanced accuracy (50 % for any constant
    answer), stand beside it.

    Args:
        heads: at least one.
        test_set: as of `table_1`.
    """
    rows = [
        ResultRow(
            one.name,
            "ours",
            (
                _TRAINING_SETS.get(one.train_on, one.train_on),
                *(_per_cent(side.mean_accuracy if side else None) for side in (one.real, one.art)),
                *(_per_cent(side.mean_balanced if side else None) for side in (one.real, one.art)),
            ),
        )
        for one in heads
    ]
    first = heads[0]
    commoner = [_per_cent(side.mean_majority if side else None) for side in (first.real, first.art)]
    constant = [None if value is None else 50.0 for value in commoner]
    rows.append(ResultRow("always the commoner answer", "ours", (None, *commoner, *constant)))
    if test_set == paper.CELEBA:
        nearest = _nearest(one.backbone for one in heads)
        rows += [
            ResultRow(name, "paper", (_TRAINING_SETS[on], *accuracy, None, None), nearest=name in nearest)
            for (name, on), accuracy in paper.TABLE_2.items()
        ]
    measured = [side.measured for one in heads for side in (one.real, one.art) if side]
    return ResultTable(
        "Table 2. Facial attribute prediction (accuracy, per cent)",
        ("Training set", "Real photos", "Style transfer", "Real photos, balanced", "Style transfer, balanced"),
        tuple(rows),
        (
            f"Means over the attributes that have labels and were trained ({_range(measured)} of 40). Balanced is the "
            "mean over faces with and without the attribute.",
            *(_gain_note(one) for one in heads),
        ),
        names="Heads",
    )


def table_3(test_set: str, models: Sequence[EvaluatedModel]) -> ResultTable:
    """Return R@1 and attribute agreement of the first item for every λ.

    Args:
        test_set: as of `table_1`.
        models: all evaluated for the same λ; at least one.
    """
    weights = [result.weight for result in models[0].evaluation.results]
    rows = []
    for model in models:
        results = [model.evaluation.result(weight) for weight in weights]
        pairs = [(_per_cent(result.recall.at.get(1)), _per_cent(result.agreement)) for result in results]
        rows.append(ResultRow(model.name, "ours", _flat(pairs)))
        if model.annotated is not None:
            results = [model.annotated.result(weight) for weight in weights]
            pairs = [(_per_cent(result.recall.at.get(1)), _per_cent(result.agreement)) for result in results]
            rows.append(ResultRow(f"{model.name}, Acc. by labels", "ours", _flat(pairs)))
    nearest = _nearest(model.backbone for model in models)
    for name, published in paper.table_3(test_set).items():
        at = dict(zip(paper.WEIGHTS, published, strict=True))
        values = _flat([at.get(weight, (None, None)) for weight in weights])
        rows.append(ResultRow(name, "paper", values, nearest=name in nearest))
    return ResultTable(
        "Table 3. Weighted retrieval: R@1 and attribute agreement of the first item (per cent)",
        tuple(f"λ={weight:g} {what}" for weight in weights for what in ("R@1", "Acc.")),
        tuple(rows),
        (*_set_notes(models[0].evaluation, test_set), *_agreement_notes(models)),
    )


def table_4(test_set: str, models: Sequence[EvaluatedModel]) -> ResultTable:
    """Return attribute agreement of the first item for every λ, where nobody's identity is known.

    Args:
        test_set: as of `table_1`; the paper's is "WikiArt Faces".
        models: as of `table_3`.
    """
    weights = [result.weight for result in models[0].evaluation.results]
    rows = [
        ResultRow(model.name, "ours", tuple(_per_cent(model.evaluation.result(weight).agreement) for weight in weights))
        for model in models
    ]
    if test_set == paper.WIKIART_FACES:
        nearest = _nearest(model.backbone for model in models)
        for name, published in paper.TABLE_4.items():
            at = dict(zip(paper.WEIGHTS, published, strict=True))
            values = tuple(at.get(weight) for weight in weights)
            rows.append(ResultRow(name, "paper", values, nearest=name in nearest))
    return ResultTable(
        "Table 4. Attribute agreement of the first item (per cent)",
        tuple(f"λ={weight:g}" for weight in weights),
        tuple(rows),
        (*_set_notes(models[0].evaluation, test_set), *_agreement_notes(models)),
    )


def table_5(test_set: str, models: Sequence[SimulatedModel]) -> ResultTable:
    """Return average precision of the full ranking after rounds of simulated feedback.

    Args:
        test_set: as of `table_1`.
        models: at least one curve, all with the same number of rounds.
    """
    rounds = _rounds(models, paper.ROUNDS)
    rows = [
        ResultRow(
            f"{setting}, {model.name}",
            "ours",
            (*_parameters(curve.settings), *(_per_cent(float(curve.mean[at])) for at in (0, *rounds))),
        )
        for model in models
        for setting, curve in model.curves.items()
    ]
    nearest = _nearest(model.backbone for model in models)
    for (name, setting, backbone), published in paper.TABLE_5.items():
        if name == test_set:
            at = dict(zip(paper.ROUNDS, published, strict=True))
            values = (*_parameters(STRATEGIES[setting]), None, *(at.get(number) for number in rounds))
            row = f"{setting}, {backbone}"
            rows.append(ResultRow(row, "paper", values, nearest=backbone in nearest))
    return ResultTable(
        "Table 5. Relevance feedback: average precision after rounds (per cent)",
        ("alpha", "beta", "gamma", "eta", "c", "before", *(str(number) for number in rounds)),
        tuple(rows),
        _feedback_notes(models),
        names="Setting",
    )


def figure_7(test_set: str, models: Sequence[SimulatedModel]) -> ResultTable:
    """Return Fig. 7 as a table: average precision after every round, both moves.

    The published rows have what the text on Fig. 7 says of "before", and Table 5's rounds.

    Args:
        test_set: as of `table_1`.
        models: with a curve for "QPM + FSW", all of the same number of rounds.
    """
    rounds = range(1 + min(model.curves[paper.BOTH].rounds for model in models))
    rows = [
        ResultRow(model.name, "ours", tuple(_per_cent(float(model.curves[paper.BOTH].mean[at])) for at in rounds))
        for model in models
    ]
    nearest = _nearest(model.backbone for model in models)
    for (name, backbone), before in paper.FIGURE_7_BEFORE.items():
        if name == test_set:
            at = {0: before, **dict(zip(paper.ROUNDS, paper.TABLE_5[name, paper.BOTH, backbone], strict=True))}
            values = tuple(at.get(number) for number in rounds)
            rows.append(ResultRow(backbone, "paper", values, nearest=backbone in nearest))
    return ResultTable(
        "Figure 7. Relevance feedback: average precision after every round (per cent)",
        tuple("before" if number == 0 else str(number) for number in rounds),
        tuple(rows),
        _feedback_notes(models),
    )


def _rounds(models: Sequence[SimulatedModel], wanted: Sequence[int]) -> list[int]:
    """Return the rounds to show: the wanted ones that there are, and the last."""
    last = min(curve.rounds for model in models for curve in model.curves.values())
    return sorted({number for number in wanted if number <= last} | ({last} if last else set()))


def _nearest(backbones: Iterable[str]) -> set[str]:
    found = {paper.nearest_backbone(name) for name in backbones}
    return {name for name in found if name is not None}


def _per_cent(share: float | None) -> Value:
    return None if share is None or not np.isfinite(share) else 100.0 * share


def _flat(pairs: Sequence[tuple[Value, Value]]) -> tuple[Value, ...]:
    return tuple(value for pair in pairs for value in pair)


def _range(counts: Sequence[int]) -> str:
    if not counts:
        return "0"
    return str(counts[0]) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


def _set_notes(evaluation: Evaluation, test_set: str) -> tuple[str, ...]:
    recall = evaluation.results[0].recall
    ours = f"Ours: {evaluation.query_count:,} queries ({evaluation.queries}), {evaluation.gallery_count:,} items "
    ours += f"({evaluation.gallery})"
    if recall.queries:
        ours += f"; one query is {100 / recall.queries:.2g} points of recall"
    if recall.queries and recall.without_relevant:
        ours += f"; {recall.without_relevant:,} queries have nothing relevant to find and are in no recall"
    published = bool(paper.table_1(test_set)) or test_set == paper.WIKIART_FACES
    theirs = (f"The paper's rows are of its own {test_set}: compare directions, not figures.",) if published else ()
    return (ours + ".", *theirs)


def _agreement_notes(models: Sequence[EvaluatedModel]) -> tuple[str, ...]:
    how = {model.evaluation.agreement_by for model in models} - {None}
    but = " (by labels in rows that say so)" if any(model.annotated for model in models) else ""
    notes = [f"Attributes are compared by {by}{but}." for by in sorted(str(by) for by in how)]
    without = {tuple(model.untrained) for model in models if model.untrained}
    notes += [
        f"{', '.join(names)} had no label when the heads were trained, and count{'s' * (len(names) == 1)} as any other "
        "attribute does: in s_a, and where predictions are compared."
        for names in sorted(without)
    ]
    return tuple(notes)


def _gain_note(heads: EvaluatedHeads) -> str:
    sides = [(side, where) for side, where in ((heads.real, "photographs"), (heads.art, "art")) if side]
    gains = " and ".join(f"{100 * side.gain:+.1f} ± {100 * side.gain_error:.1f} on {where}" for side, where in sides)
    on = _TRAINING_SETS.get(heads.train_on, heads.train_on)
    return f"{heads.name}, {on}: {gains} points over the commoner answer (standard error over people)."


def _feedback_notes(models: Sequence[SimulatedModel]) -> tuple[str, ...]:
    curves = [curve for model in models for curve in model.curves.values()]
    weights = ", ".join(sorted({f"{curve.weight:g}" for curve in curves}))
    queries = _range([curve.queries for curve in curves])
    notes = [f"Ours: {queries} queries, λ = {weights}; each round one relevant and one irrelevant item at random."]
    for curve in curves:
        chosen = ", ".join(f"{name}={value}" for name, value in _choices(curve).items())
        if chosen and (note := f"Choices other than by default: {chosen}.") not in notes:
            notes.append(note)
    errors = [_standard_error(curve.average_precision[:, -1]) for curve in curves]
    if np.isfinite(errors).any():
        notes.append(f"The standard error over queries is {100 * np.nanmax(errors):.1f} points at most after the last.")
    if left_out := max(curve.without_relevant for curve in curves):
        notes.append(f"{left_out:,} queries have nothing relevant to find and were not simulated.")
    return tuple(notes)


def _parameters(settings: FeedbackSettings) -> tuple[float, float, float, float, float]:
    return settings.alpha, settings.beta, settings.gamma, settings.eta, settings.c


def _choices(curve: FeedbackCurve) -> dict[str, str]:
    """Return what was chosen otherwise than by default; the numbers are in the rows of Table 5."""
    default = {**FeedbackSettings().as_dict(), "draws": "independent"}
    chosen = {**curve.settings.as_dict(), "draws": curve.draws}
    return {name: value for name, value in chosen.items() if isinstance(value, str) and value != default[name]}


def _standard_error(values: npt.NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(known.std(ddof=1) / np.sqrt(len(known))) if len(known) > 1 else float("nan")
