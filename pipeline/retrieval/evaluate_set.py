"""`stylize evaluate`: a test set searched with trained models, as the paper's tables and figure, and as a report.

Without a table or figure everything is made that the test set and the models allow. In the folder of results are

    report.html                         one page with all of it
    table-1.md … table-5.md             as the paper has them, its rows beside ours
    recall.png, lambda.png, figure-7.png
    per-query.parquet                   PER_QUERY_SCHEMA with the model before it
    results.json                        all figures, and what was asked for; written last

A table alone is table-N.md, table-N.json and table-N-per-query.parquet, figure 7 alone figure-7.png, .md and .json, so
that several may be made in one folder.
"""

from collections.abc import Callable

from manifests.errors import InputError
from pipeline.retrieval.evaluate_config import EvaluateConfig
from pipeline.retrieval.evaluation_files import write_results
from pipeline.retrieval.evaluation_sides import Sides
from pipeline.retrieval.result_folder import ResultFolder
from pipeline.retrieval.searched_models import heads_alone, searched_models
from pipeline.retrieval.set_evaluation import SetEvaluation
from pipeline.retrieval.set_search import SetSearch
from pipeline.training.device import training_device

__all__ = ["EvaluateConfig", "SetEvaluation", "evaluate_set"]


def evaluate_set(
    config: EvaluateConfig, *, quiet: bool = False, notify: Callable[[str], None] = lambda sentence: None
) -> SetEvaluation:
    """Evaluate a test set and write the results to `config.out`, if it is given.

    Args:
        config: what to evaluate.
        quiet: no progress bars.
        notify: called with what is being done.

    Raises:
        InputError: something is not there or cannot be read, or what is asked for has no meaning for this test set.
        RunError: a file is damaged, or results cannot be written.
    """
    device = training_device(config.device)
    sources = [place for place in (config.test_set, config.queries) if place is not None]
    folder = None if config.out is None else ResultFolder(config.out, sources)
    models = heads_alone(config) if config.table == 2 else searched_models(config)
    sides = Sides.open(config)
    search = SetSearch(config, sides, _wanted(config, sides), device, quiet)
    for model in models:
        notify(f"{model.title}: {len(sides.queries):,} queries, {len(sides.gallery):,} items")
        search.add(model)
    return search.result() if folder is None else write_results(search, folder)


def _wanted(config: EvaluateConfig, sides: Sides) -> frozenset[str]:
    """Return which tables and figures to make; InputError for one that the test set cannot give."""
    labelled = sides.majority is not None
    able = {
        "table-1": sides.people and 0.0 in config.search_weights,
        "table-2": labelled and bool(config.attributes),
        "table-3": sides.people and bool(config.attributes),
        "table-4": bool(config.attributes) and (config.table == 4 or not sides.people),
        "table-5": sides.people and config.rounds > 0,
        "figure-7": sides.people and config.rounds > 0,
    }
    if config.everything:
        if not any(able.values()):
            raise InputError(
                f"nobody among the queries is known to be in {sides.title}, so there is nothing to find, and without "
                "attributes nothing to compare; give heads (--attributes)"
            )
        return frozenset(name for name, possible in able.items() if possible)
    name = f"table-{config.table}" if config.table is not None else f"figure-{config.figure}"
    if not able[name]:
        missing = "no attribute labels" if name == "table-2" else "nobody known whom the queries could find"
        raise InputError(f"{sides.title} has {missing}, which {name.replace('-', ' ')} is about")
    return frozenset({name})
