"""How well attributes are predicted, beside what predicting the majority class would score.

Accuracy is that of PersonArt's Table 2: per attribute the share of right answers, then the mean over attributes. On
Celeb-A most attributes are rare, so a model that has learned nothing scores about 80 %: every accuracy here comes with
the rate of the majority class, and with balanced accuracy, which is 50 % for any constant answer.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int8]
Floats = npt.NDArray[np.float64]


def majority_class(labels: Labels) -> Labels:
    """Return the more frequent class of every attribute.

    Args:
        labels: [N, n] of the training split: 1 yes, 0 no, -1 unknown.

    Returns:
        [n]: 1 or 0 (also where both are equally frequent), -1 where no label is known.
    """
    yes, no = (labels == 1).sum(0), (labels == 0).sum(0)
    return np.where(yes + no == 0, -1, yes > no).astype(np.int8)


@dataclass(frozen=True)
class AttributeAccuracy:
    """Of one set of images, per attribute [n] and as means over attributes. Shares of 1; NaN is "not defined".

    Attributes:
        known: how many images have a label.
        positive: share of "yes" among them; NaN where none is known, as all that follow.
        accuracy: share of right answers. NaN also for attributes without a label in training.
        majority: share of right answers of the constant answer that is the more frequent one *in training*.
        balanced: mean of the shares of right answers among "yes" and among "no"; NaN also where one does not occur.
        gain_error: standard error of `gain`, over the groups (persons) of the images; NaN for less than two groups.
    """

    known: npt.NDArray[np.int64]
    positive: Floats
    accuracy: Floats
    majority: Floats
    balanced: Floats
    gain_error: float

    @property
    def mean_accuracy(self) -> float:
        """Return the mean over the attributes that have one; Table 2's figure."""
        return _mean(self.accuracy)

    @property
    def mean_majority(self) -> float:
        """Return the mean over the same attributes."""
        return _mean(self.majority)

    @property
    def mean_balanced(self) -> float:
        """Return the mean over the attributes of which both classes occur."""
        return _mean(self.balanced)

    @property
    def gain(self) -> float:
        """Return by how much the mean accuracy is above that of the constant answers."""
        return self.mean_accuracy - self.mean_majority

    @property
    def better(self) -> int:
        """Return how many attributes are predicted better than by the constant answer."""
        return int((self.accuracy > self.majority).sum())

    @property
    def measured(self) -> int:
        """Return how many attributes the means are over."""
        return int(np.isfinite(self.accuracy).sum())


def attribute_accuracy(
    predicted: npt.NDArray[np.bool_],
    labels: Labels,
    majority: Labels,
    groups: npt.NDArray[np.int64] | None = None,
) -> AttributeAccuracy:
    """Score predictions.

    Args:
        predicted: [N, n]; N may be 0.
        labels: [N, n]: 1 yes, 0 no, -1 unknown.
        majority: [n] of the *training* labels, as `majority_class` gives it; attributes with -1 are left out of all but
            `known` and `positive`.
        groups: [N], the person of every image. Images of one person are not independent, so the standard error is one
            of persons; None takes every image for a person of its own.
    """
    yes, no = labels == 1, labels == 0
    known = (yes | no).sum(0)
    trained = majority >= 0
    right = np.where(predicted, yes, no)
    right_majority = np.where(majority == 1, yes, no)
    accuracy, constant = (np.where(trained, _share(hits.sum(0), known), np.nan) for hits in (right, right_majority))
    recall_yes, recall_no = _share((right & yes).sum(0), yes.sum(0)), _share((right & no).sum(0), no.sum(0))
    balanced = np.where(trained, (recall_yes + recall_no) / 2, np.nan)
    used = trained & (known > 0)
    # Each image's part of the gain: parts of all images add up to it.
    parts = (right.astype(np.int8) - right_majority)[:, used] / (known[used] * max(1, used.sum()))
    return AttributeAccuracy(
        known=known,
        positive=_share(yes.sum(0), known),
        accuracy=accuracy,
        majority=constant,
        balanced=balanced,
        gain_error=_error_of_sum(parts.sum(1), groups) if used.any() else float("nan"),
    )


def _error_of_sum(parts: Floats, groups: npt.NDArray[np.int64] | None) -> float:
    """Return the standard error of a sum of parts that are independent between groups."""
    sums = parts
    if groups is not None:
        _, group = np.unique(groups, return_inverse=True)
        sums = np.bincount(group, weights=parts).astype(np.float64)
    if len(sums) < 2:
        return float("nan")
    return float(np.sqrt(len(sums) * sums.var(ddof=1)))


def _share(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> Floats:
    shares: Floats = np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    return shares


def _mean(values: Floats) -> float:
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if defined.size else float("nan")
