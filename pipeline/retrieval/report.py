"""The report of an evaluation: one HTML file that needs nothing else."""

import base64
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

from fsspec.implementations.local import LocalFileSystem
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from manifests.commit import publish
from pipeline.retrieval.evaluation_result import Evaluation, WeightResult
from pipeline.retrieval.feedback_curve import FeedbackCurve
from pipeline.retrieval.plots import Reference, plot_feedback, plot_recall, plot_weights, random_recall
from pipeline.retrieval.report_grids import QueryGrid, ShownHit, main_weight
from pipeline.retrieval.result_table import NOTHING, ResultTable

TEMPLATE_FILE: Final = "report.html.jinja"

_SCORE: Final = "(1\u00a0+\u00a0sᵢ)/2"


@dataclass(frozen=True)
class References:
    """What the paper has beside our curves, dashed. All in fractions, 0 to 1 (not per cent).

    Attributes:
        recall: R@k against k.
        weight_recall: R@1 against λ.
        weight_agreement: agreement of the first item against λ.
        feedback: average precision against rounds.
    """

    recall: Sequence[Reference] = ()
    weight_recall: Reference | None = None
    weight_agreement: Reference | None = None
    feedback: Sequence[Reference] = ()


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    evaluation: Evaluation,
    grids: Sequence[QueryGrid] = (),
    curves: Mapping[str, FeedbackCurve] | None = None,
    tables: Sequence[ResultTable] = (),
    references: References | None = None,
    remarks: Sequence[str] = (),
    details: Mapping[str, str] | None = None,
) -> None:
    """Write one self-contained HTML file: it asks no host for anything, and it is replaced whole or not at all.

    Args:
        path: local file; its folder is made.
        title: of the page; plain text, as everything here (nothing is taken for HTML).
        evaluation: queries, gallery and model are named by their titles in it.
        grids: of `query_grids`; without any the part is left out, as are the others.
        curves: simulated feedback, by the name of the setting; the last is the one that the headline speaks of.
        tables: ours beside the paper's.
        references: the paper's curves.
        remarks: sentences to read before the figures, such as that an untrained network's mean nothing.
        details: what the figures were made with, name → value: paths, digests, versions, the command.

    Raises:
        OSError: it cannot be written.
    """
    page = render_report(
        title=title,
        evaluation=evaluation,
        grids=grids,
        curves=curves,
        tables=tables,
        references=references,
        remarks=remarks,
        details=details,
    )
    place = os.path.abspath(path)
    publish(LocalFileSystem(), place, page.encode(), journal=os.path.dirname(place))


def render_report(
    *,
    title: str,
    evaluation: Evaluation,
    grids: Sequence[QueryGrid] = (),
    curves: Mapping[str, FeedbackCurve] | None = None,
    tables: Sequence[ResultTable] = (),
    references: References | None = None,
    remarks: Sequence[str] = (),
    details: Mapping[str, str] | None = None,
) -> str:
    """Return the page that `write_report` writes; the same for the same arguments."""
    curves, references = curves or {}, references or References()
    plots = (
        plot_recall(evaluation, references.recall),
        plot_weights(evaluation, references.weight_recall, references.weight_agreement),
        plot_feedback(curves, references.feedback),
    )
    return (
        _template_environment()
        .from_string(_template())
        .render(
            title=title,
            evaluation=evaluation,
            headlines=headlines(evaluation, curves),
            grids=grids,
            drawn_how=_drawn_how(evaluation, grids),
            plots=[plot for plot in plots if plot is not None],
            weight_table=_weight_table(evaluation),
            tables=tables,
            remarks=remarks,
            terms=_terms(evaluation, curves),
            details=details or {},
        )
    )


@dataclass(frozen=True)
class Headline:
    """One figure in words.

    Attributes:
        value: per cent, as text.
        sentence: what it is the share of.
        before: what `value` started from; None where it is no change.
    """

    value: str
    sentence: str
    before: str | None = None


def headlines(evaluation: Evaluation, curves: Mapping[str, FeedbackCurve]) -> list[Headline]:
    """Return up to three figures: who is found first, whether attributes agree, and what feedback adds.

    All at the main λ. Without feedback the third is about the first ten; what was not measured is left out.
    """
    result = evaluation.result(main_weight(evaluation))
    recall = result.recall
    at = _at(result.weight)
    found = []
    if recall.queries and 1 in recall.at:
        chance = _percent(random_recall(evaluation, 1))
        found.append(
            Headline(
                _number(recall.at[1]),
                f"of {recall.queries:,} queries have the same person as their first hit, at {at}. A random order would "
                f"come to {chance}.",
            )
        )
    if result.agreement is not None:
        sentence = f"of the attributes agree between a query and its first hit, at {at}."
        found.append(Headline(_number(result.agreement), f"{sentence}{_price(evaluation, result)}"))
    simulated = [(name, curve) for name, curve in curves.items() if len(curve.average_precision)]
    if simulated:
        name, curve = simulated[-1]
        rounds = "one round" if curve.rounds == 1 else f"{curve.rounds} rounds"
        found.append(
            Headline(
                _number(curve.mean[-1], 0),
                f"average precision before and after {rounds} of simulated feedback ({name}): in each, one item is "
                "liked and one is not.",
                before=_number(curve.mean[0], 0),
            )
        )
    elif recall.queries and len(recall.at) > 1:
        k = max(recall.at)
        found.append(
            Headline(
                _number(recall.at[k]),
                f"have the same person among the first {k}. Mean average precision of the full ranking is "
                f"{_percent(result.average_precision)}.",
            )
        )
    return found


def _price(evaluation: Evaluation, result: WeightResult) -> str:
    """Say what λ changes against identity alone."""
    alone = next((other for other in evaluation.results if other.weight == 0), None)
    if alone is None or alone is result or alone.agreement is None:
        return ""
    sentence = f" By identity alone (λ\u00a0=\u00a00) it is {_percent(alone.agreement)}"
    if 1 in result.recall.at and result.recall.queries:
        sentence += f", and {_percent(alone.recall.at[1])} are found first"
    return f"{sentence}."


def _drawn_how(evaluation: Evaluation, grids: Sequence[QueryGrid]) -> str:
    lot = "drawn by lot (by the SHA-256 of their ids, so the same in every run), nobody twice while there are others"
    found, missed = (sum(grid.found is kind for grid in grids) for kind in (True, False))
    if not found + missed:
        return f"{_counted(len(grids), 'query', 'queries')}, {lot}."
    weight = main_weight(evaluation)
    rows = evaluation.per_query.to_pylist()
    ranks = [row["rank"] for row in rows if row["lambda"] == weight and row["rank"] is not None]
    first = sum(rank == 1 for rank in ranks)
    return (
        f"{found} of the {_counted(first, 'query', 'queries')} whose first hit at {_at(weight)} shows the same person, "
        f"and {missed} of the {len(ranks) - first:,} whose first hit does not, {lot}."
    )


@dataclass(frozen=True)
class _WeightRow:
    cells: Sequence[str]
    main: bool


@dataclass(frozen=True)
class _WeightTable:
    header: Sequence[str]
    rows: Sequence[_WeightRow]


def _weight_table(evaluation: Evaluation) -> _WeightTable:
    main = main_weight(evaluation)
    ks = sorted({k for result in evaluation.results for k in result.recall.at})
    rows = []
    for result in evaluation.results:
        values = [*(result.recall.at.get(k) for k in ks), result.average_precision, result.agreement]
        cells = [f"{result.weight:g}", *(NOTHING if _missing(value) else _number(value) for value in values)]
        rows.append(_WeightRow(cells, result.weight == main and len(evaluation.results) > 1))
    return _WeightTable(["λ", *(f"R@{k}" for k in ks), "mAP", "agreement"], rows)


def _terms(evaluation: Evaluation, curves: Mapping[str, FeedbackCurve]) -> list[tuple[str, str]]:
    """Return what a reader has to know, term by term; only of what is on the page."""
    result = evaluation.result(main_weight(evaluation))
    recall = result.recall
    terms = [
        (
            "Query and item",
            "A query is a photograph, an item a picture of the gallery. What was made from the very photograph that is "
            "searched with is no item for it, in any figure here.",
        )
    ]
    if recall.queries:
        missing = _counted(recall.without_relevant, "query has", "queries have")
        without = f" {missing} nothing to find and {'is' if recall.without_relevant == 1 else 'are'} not counted."
        terms += [
            (
                "R@k",
                "The share of queries with at least one picture of the same person among the first k items. Ties count "
                f"against the model.{without if recall.without_relevant else ''}",
            ),
            (
                "mAP",
                "Average precision of the full ranking, averaged over queries: 100 % if all pictures of the person "
                "come before all others.",
            ),
            (
                "Random order",
                "What R@k would be on average if the gallery were shuffled. In a small gallery that is a lot.",
            ),
        ]
    if evaluation.agreement_by is not None:
        how = (
            "as they were annotated, for both"
            if evaluation.agreement_by == "labels"
            else "as the model predicts them, for both: nobody annotated them, so this is about what the model sees"
        )
        terms.append(("Agreement", f"The share of attributes that a query and its first item have in common, {how}."))
    if any(other.weight for other in evaluation.results):
        terms.append(
            (
                "λ",
                f"The weight of the attributes in the score, {_SCORE} + λ sₐ: sᵢ is the cosine of the two embeddings, "
                f"and sₐ the share of predicted attributes in common. With {_at(0)} only the face counts. A bar that "
                "fills its track would be the best possible score, 1 + λ.",
            )
        )
    else:
        terms.append(("Score", f"{_SCORE}, where sᵢ is the cosine of the two embeddings: from 0 to 1."))
    if curves:
        kept = {curve.settings.judged for curve in curves.values()} == {"keep"}
        terms.append(
            (
                "Feedback",
                "A simulated visitor who in each round likes one item of the right person and dislikes one of somebody "
                "else, both drawn by lot. QPM moves the query, FSW moves the items, and the method of the paper is to "
                f"do both. What was judged {'stays in' if kept else 'leaves'} the ranking.",
            )
        )
    return terms


def _template() -> str:
    return files("pipeline.retrieval").joinpath(TEMPLATE_FILE).read_text(encoding="utf-8")


def _template_environment() -> Environment:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"base64": _base64, "explained": _explained, "svg": _trusted}
    return environment


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _explained(hit: ShownHit, weight: float) -> str:
    """Return a hit in words, for a pointer that rests on it and for people who cannot see it."""
    who = {True: ", the same person", False: ", somebody else", None: ""}[hit.relevant]
    split = f"identity {hit.identity_score:.3f}"
    if hit.attribute_score is not None:
        split += f", attributes {weight:g} · {hit.attribute_score:.3f}"
    return f"no. {hit.rank:,}: {hit.id}{who}; score {hit.score:.3f} ({split})"


def _trusted(svg: str) -> Markup:
    return Markup(svg)  # of `plots`, which escapes what it is given


def _missing(value: Any) -> bool:
    return value is None or math.isnan(value)


def _number(share: float | None, decimals: int = 1) -> str:
    return f"{100 * (share or 0.0):.{decimals}f}"


def _percent(share: float) -> str:
    return f"{_number(share)}\u00a0%"  # which no line may be broken at


def _at(weight: float) -> str:
    return f"λ\u00a0=\u00a0{weight:g}"


def _counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"
