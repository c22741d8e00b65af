"""What simulated relevance feedback has come to: average precision round by round."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.retrieval.feedback_settings import Draws, FeedbackSettings


@dataclass(frozen=True, eq=False)
class FeedbackCurve:
    """One setting.

    Attributes:
        settings: of the feedback.
        weight: λ.
        average_precision: float64 [Q, rounds + 1] of every answerable query before feedback and after every round;
            NaN where nothing relevant is left in the ranking, which happens only where judged items are removed.
        without_relevant: queries that could not be simulated, as the gallery has nothing relevant to them.
        draws: how the items judged were drawn, see `simulate_feedback`.
    """

    settings: FeedbackSettings
    weight: float
    average_precision: npt.NDArray[np.float64]
    without_relevant: int
    draws: Draws = "independent"

    @property
    def rounds(self) -> int:
        """How many rounds of one positive and one negative item each."""
        return int(self.average_precision.shape[1]) - 1

    @property
    def queries(self) -> int:
        """How many queries were simulated."""
        return len(self.average_precision)

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """Mean over the queries that have something relevant left, float64 [rounds + 1]; NaN where none has."""
        known = ~np.isnan(self.average_precision)
        count = known.sum(axis=0)
        total = np.where(known, self.average_precision, 0).sum(axis=0)
        mean: npt.NDArray[np.float64] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        return mean

    def as_dict(self) -> dict[str, Any]:
        """Return all but the single queries, with None for NaN, as JSON can hold it."""
        return {
            "settings": self.settings.as_dict(),
            "draws": self.draws,
            "lambda": self.weight,
            "queries": self.queries,
            "without_relevant": self.without_relevant,
            "mAP": [None if np.isnan(value) else float(value) for value in self.mean],
        }
