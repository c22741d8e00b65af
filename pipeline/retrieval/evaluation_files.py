"""The files of an evaluation: tables, pictures, single queries, a report, and all figures as JSON."""

import importlib.metadata
import platform
from collections.abc import Mapping
from typing import Final

import pyarrow as pa

from manifests.errors import RunError
from pipeline.retrieval.evaluation_result import Evaluation
from pipeline.retrieval.paper_curves import feedback_curves, paper_curves
from pipeline.retrieval.plots import Plot, plot_feedback, plot_recall, plot_weights
from pipeline.retrieval.report import write_report
from pipeline.retrieval.report_grids import query_grids
from pipeline.retrieval.result_folder import ResultFolder
from pipeline.retrieval.set_evaluation import SetEvaluation
from pipeline.retrieval.set_search import FIGURE, Described, SetSearch

REPORT_FILE: Final = "report.html"
RESULTS_FILE: Final = "results.json"
PER_QUERY_FILE: Final = "per-query.parquet"
RECALL_FILE: Final = "recall.png"
LAMBDA_FILE: Final = "lambda.png"

_PACKAGES: Final = ("stylize", "torch", "numpy", "pyarrow")


def write_results(search: SetSearch, folder: ResultFolder) -> SetEvaluation:
    """Write everything that a search has come to, the JSON last.

    Args:
        search: of at least one model.
        folder: to write to.

    Returns:
        the result, with the names of its files.

    Raises:
        InputError: a picture for the report cannot be read any more.
        RunError: a file cannot be written.
    """
    result, config = search.result(), search.config
    json_file = RESULTS_FILE if config.everything else f"{min(search.wanted)}.json"
    folder.discard(json_file)  # an earlier one would speak of files that are replaced now
    for name, table in search.tables().items():
        folder.write(f"{name}.md", table.markdown().encode())
    if search.simulated and FIGURE in search.wanted:
        _write_plot(folder, f"{FIGURE}.png", _feedback_plot(search))
    if not config.everything:
        (name,) = search.wanted
        if result.evaluations:
            folder.write_table(f"{name}-{PER_QUERY_FILE}", per_query(result.evaluations))
        return _write_json(result, folder, json_file)
    assert search.first is not None
    if result.evaluations:
        folder.write_table(PER_QUERY_FILE, per_query(result.evaluations))
        first, model = next(iter(result.evaluations.values())), search.first.model
        references = paper_curves(search.sides.published, model.backbone, model.trained)
        _write_plot(folder, RECALL_FILE, plot_recall(first, references.recall))
        _write_plot(folder, LAMBDA_FILE, plot_weights(first, references.weight_recall, references.weight_agreement))
        _write_report(search, search.first, result, first, folder)
    return _write_json(result, folder, json_file)


def per_query(evaluations: Mapping[str, Evaluation]) -> pa.Table:
    """Return PER_QUERY_SCHEMA of all models, with a first column "model" of their titles."""
    return pa.concat_tables(
        evaluation.per_query.add_column(
            0, pa.field("model", pa.string(), nullable=False), [pa.array([title] * evaluation.per_query.num_rows)]
        )
        for title, evaluation in evaluations.items()
    )


def _feedback_plot(search: SetSearch) -> Plot | None:
    """Draw the settings of one model, or the full setting of several."""
    if len(search.simulated) == 1:
        (one,) = search.simulated
        curves = dict(one.curves)
    else:
        curves = {model.name: list(model.curves.values())[-1] for model in search.simulated}
    return plot_feedback(curves, feedback_curves(search.sides.published, search.simulated[0].backbone))


def _write_report(
    search: SetSearch, first: Described, result: SetEvaluation, evaluation: Evaluation, folder: ResultFolder
) -> None:
    grids = query_grids(evaluation, first.queries, first.gallery, search.sides.queries, search.sides.gallery)
    curves = result.curves.get(first.model.title, {})
    remarks = list(result.notes)
    if len(result.evaluations) > 1:
        remarks.append(f"Pictures and curves are of the first model, {first.model.title}; tables are of all.")
    try:
        write_report(
            folder.path / REPORT_FILE,
            title=search.sides.title,
            evaluation=evaluation,
            grids=grids,
            curves=curves,
            tables=result.tables,
            references=paper_curves(search.sides.published, first.model.backbone, first.model.trained),
            remarks=remarks,
            details=_details(result, first),
        )
    except OSError as error:
        raise RunError(
            f'"{folder.path / REPORT_FILE}" cannot be written ({error.strerror or error}); choose another folder'
        ) from error
    folder.files.append(REPORT_FILE)


def _details(result: SetEvaluation, first: Described) -> dict[str, str]:
    places = {name: str(place) for name, place in first.model.places.as_dict().items() if place is not None}
    asked = {"test set": result.config.test_set, "split": result.config.split, "queries": result.config.queries or ""}
    versions = {package: importlib.metadata.version(package) for package in _PACKAGES}
    return {
        **{name: value for name, value in asked.items() if value},
        **places,
        "model digest": result.models[first.model.title],
        "seed": str(result.config.seed),
        "python": platform.python_version(),
        **versions,
    }


def _write_plot(folder: ResultFolder, name: str, plot: Plot | None) -> None:
    if plot is not None:
        folder.write(name, plot.png)


def _write_json(result: SetEvaluation, folder: ResultFolder, name: str) -> SetEvaluation:
    written = result.written([*folder.files, name])
    folder.write_json(name, written.as_dict())
    return written
