"""What the evaluation of a test set has come to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.retrieval.evaluate_config import EvaluateConfig
from pipeline.retrieval.evaluation_result import Evaluation
from pipeline.retrieval.feedback_curve import FeedbackCurve
from pipeline.retrieval.result_table import ResultTable


@dataclass(frozen=True, eq=False)
class SetEvaluation:
    """One test set, searched with one model or several.

    Attributes:
        config: what was asked for.
        test_set: its title.
        models: name of every model → hex digest of its weights (see `RetrievalModel.digest`).
        evaluations: name of a model → what searching has come to; of the models that searched.
        curves: name of a model → setting of feedback → its curve; of the models it was simulated with.
        tables: as the paper has them, its rows beside ours.
        notes: what was left out or assumed, a sentence each.
        files: what was written in `config.out`.
    """

    config: EvaluateConfig
    test_set: str
    models: Mapping[str, str]
    evaluations: Mapping[str, Evaluation]
    curves: Mapping[str, Mapping[str, FeedbackCurve]]
    tables: Sequence[ResultTable]
    notes: Sequence[str]
    files: Sequence[str] = ()

    def written(self, files: Sequence[str]) -> "SetEvaluation":
        """Return it with the names of the files that it was written to."""
        return replace(self, files=tuple(files))

    def lines(self) -> list[str]:
        """Return the tables as Markdown, whole where one was asked for, otherwise without the paper's distant rows."""
        lines = []
        for table in self.tables:
            shown = table.shortened() if self.config.everything else table
            lines += [*shown.markdown().splitlines(), ""]
        lines += list(self.notes)
        if self.files:
            lines.append(f"in {self.config.out}: {', '.join(self.files)}")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the rows of single queries, as JSON can hold it."""
        return {
            "test_set": self.test_set,
            "config": self.config.as_dict(),
            "models": dict(self.models),
            "evaluations": {name: evaluation.as_dict() for name, evaluation in self.evaluations.items()},
            "feedback": {
                name: {setting: curve.as_dict() for setting, curve in curves.items()}
                for name, curves in self.curves.items()
            },
            "tables": [table.as_dict() for table in self.tables],
            "notes": list(self.notes),
            "files": list(self.files),
        }
