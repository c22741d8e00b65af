"""What simulated relevance feedback has come to: average precision round by round."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.retrieval.feedback_settings import FeedbackSettings


@dataclass(frozen=True, eq=False)
class FeedbackCurve:
    """One setting.

    Attributes:
        settings: of the feedback.
        weight: λ.
        average_precision: float64 [Q, rounds + 1] of every answerable query before feedback and after every round.
        without_relevant: queries that could not be simulated, as the gallery has nothing relevant to them.
    """

    settings: FeedbackSettings
    weight: float
    average_precision: npt.NDArray[np.float64]
    without_relevant: int

    @property
    def rounds(self) -> int:
        """How many rounds of one positive and one negative item each."""
        return int(self.average_precision.shape[1]) - 1

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """Mean over queries, float64 [rounds + 1]."""
        mean: npt.NDArray[np.float64] = self.average_precision.mean(axis=0)
        return mean
