"""A test set searched with model after model; what the tables, the figure and the report are made of."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import torch

from pipeline.retrieval import paper_results as paper
from pipeline.retrieval import tables
from pipeline.retrieval.attribute_agreement import Agreement, labels_in_common
from pipeline.retrieval.described_faces import DescribedFaces, describe
from pipeline.retrieval.evaluate_config import EvaluateConfig
from pipeline.retrieval.evaluation import evaluate
from pipeline.retrieval.evaluation_result import Evaluation
from pipeline.retrieval.evaluation_sides import Sides
from pipeline.retrieval.feedback_curve import FeedbackCurve
from pipeline.retrieval.feedback_simulation import simulate_feedback
from pipeline.retrieval.heads_accuracy import heads_accuracy
from pipeline.retrieval.result_table import ResultTable
from pipeline.retrieval.retrieval_model import RetrievalModel, open_retrieval_model
from pipeline.retrieval.searched_models import SearchedModel, heads_trained_on
from pipeline.retrieval.set_evaluation import SetEvaluation

TABLES: Final = ("table-1", "table-2", "table-3", "table-4", "table-5")
FIGURE: Final = "figure-7"

_SEARCHED: Final = {"table-1", "table-3", "table-4"}
_SIMULATED: Final = {"table-5", FIGURE}


@dataclass(frozen=True, eq=False)
class Described:
    """A model and what it said of both sides."""

    model: SearchedModel
    queries: DescribedFaces
    gallery: DescribedFaces


@dataclass(eq=False)
class SetSearch:
    """Results so far. Pictures are described once for each model.

    Attributes:
        config: what was asked for.
        sides: what is searched with and in.
        wanted: which of TABLES and FIGURE are made.
        device: where to compute.
        quiet: no progress bars.
        digests: title of every model so far → its digest.
        searched, simulated, heads: rows of the tables.
        evaluations: title of a model → what searching with it has come to.
        notes: on the models.
        first: the first model, which a report is about; others' descriptions are not kept.
    """

    config: EvaluateConfig
    sides: Sides
    wanted: frozenset[str]
    device: torch.device
    quiet: bool
    digests: dict[str, str] = field(default_factory=dict)
    searched: list[tables.EvaluatedModel] = field(default_factory=list)
    simulated: list[tables.SimulatedModel] = field(default_factory=list)
    heads: list[tables.EvaluatedHeads] = field(default_factory=list)
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    first: Described | None = None

    def add(self, model: SearchedModel) -> None:
        """Search with one more model; raises as `open_retrieval_model`, `describe` and `evaluate`."""
        opened = open_retrieval_model(model.places, self.device)
        size, quiet = self.config.batch_size, self.quiet
        queries = describe(opened, self.sides.queries, "real", batch_size=size, quiet=quiet)
        gallery = describe(opened, self.sides.gallery, "art", batch_size=size, quiet=quiet)
        self.digests[model.title] = opened.digest
        if model.random:
            self.notes.append(f"{model.title}: the network has random weights, so that its figures mean nothing.")
        if self.wanted & _SEARCHED:
            found = self._evaluation(model, opened, queries, gallery, self.config.agreement)
            self.evaluations[model.title] = found
            both = self.config.agreement == "auto" and found.agreement_by == "predictions"
            annotated = (
                self._evaluation(model, opened, queries, gallery, "labels")
                if both and labels_in_common(queries, gallery)
                else None
            )
            self.searched.append(
                tables.EvaluatedModel(
                    model.name, model.backbone, opened.dim, model.trained, found, annotated, opened.untrained
                )
            )
        if self.wanted & _SIMULATED:
            curves = self._curves(queries, gallery)
            self.simulated.append(tables.SimulatedModel(model.title, model.backbone, curves))
        # Heads answer from the network that they were trained on, whichever model searches: once is enough.
        if "table-2" in self.wanted and (self.config.table == 2 or not self.heads):
            self._add_heads(model, opened, queries, gallery)
        if self.first is None:
            self.first = Described(model, queries, gallery)

    def tables(self) -> dict[str, ResultTable]:
        """Return what is wanted, in order; of the figure a table of its curves."""
        published = self.sides.published
        makers: dict[str, Callable[[], ResultTable]] = {
            "table-1": lambda: tables.table_1(published, self.searched),
            "table-2": lambda: tables.table_2(self.heads, published),
            "table-3": lambda: tables.table_3(published, self.searched),
            "table-4": lambda: tables.table_4(published, self.searched),
            "table-5": lambda: tables.table_5(published, self.simulated),
            FIGURE: lambda: tables.figure_7(published, self.simulated),
        }
        return {name: make() for name, make in makers.items() if name in self.wanted}

    def result(self) -> SetEvaluation:
        """Return all of it; at least one model was added."""
        return SetEvaluation(
            config=self.config,
            test_set=self.sides.title,
            models=self.digests,
            evaluations=self.evaluations,
            curves={one.name: one.curves for one in self.simulated},
            tables=list(self.tables().values()),
            notes=[*self.sides.notes, *self.notes],
        )

    def _evaluation(
        self,
        model: SearchedModel,
        opened: RetrievalModel,
        queries: DescribedFaces,
        gallery: DescribedFaces,
        agreement: Agreement,
    ) -> Evaluation:
        return evaluate(
            queries,
            gallery,
            self.config.search_weights,
            query_title=self.sides.queries.title,
            gallery_title=self.sides.gallery.title,
            model_title=opened.title if model.name == model.backbone else f"{model.name}: {opened.title}",
            agreement=agreement,
            device=self.device,
        )

    def _curves(self, queries: DescribedFaces, gallery: DescribedFaces) -> dict[str, FeedbackCurve]:
        strategies = self.config.strategies
        names = list(strategies) if "table-5" in self.wanted else [paper.BOTH]
        return {
            name: simulate_feedback(
                queries,
                gallery,
                strategies[name],
                rounds=self.config.rounds,
                weight=self.config.feedback_weight,
                seed=self.config.seed,
                # "For WebCaricature, we instead perform the experiments on the whole dataset" (Sec. 6.3).
                one_per_identity=self.sides.published != paper.WEBCARICATURE,
                draws=self.config.draws,
                device=self.device,
            )
            for name in names
        }

    def _add_heads(
        self, model: SearchedModel, opened: RetrievalModel, queries: DescribedFaces, gallery: DescribedFaces
    ) -> None:
        assert self.sides.majority is not None  # otherwise the table is not wanted
        on = heads_trained_on(str(model.places.attributes))
        if model.places.art_attributes:
            on = f"{on}, for art {heads_trained_on(model.places.art_attributes)}"
        real, art = (heads_accuracy(opened, faces, self.sides.majority) for faces in (queries, gallery))
        self.heads.append(tables.EvaluatedHeads(model.name, model.backbone, on, real, art))
