"""What came of training Izadi's network: his tables' numbers for one case and one seed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.training.attribute_accuracy import AttributeAccuracy
from pipeline.training.metric_log import finite_or_none


@dataclass(frozen=True)
class FusionResult:
    """A trained network's score on the photographs that it has not seen.

    Attributes:
        config: the settings that decided it (`pipeline.training.fusion.FusionConfig.document`).
        people: their names; most photographs first.
        train_images, test_images: how many photographs.
        accuracy: share of test photographs whose most probable person is the right one: the paper's Table 2.
        chance: what the answer would score that is always the person with most training photographs.
        curve: share of training photographs recognised after each epoch: the paper's Figure 3.
        best_epoch: the one that is tested, from 1.
        attributes: names, in the order of ``attribute_accuracy``; empty in case "none".
        attribute_accuracy: on the test photographs; None in case "none".
    """

    config: Mapping[str, Any]
    people: tuple[str, ...]
    train_images: int
    test_images: int
    accuracy: float
    chance: float
    curve: tuple[float, ...]
    best_epoch: int
    attributes: tuple[str, ...]
    attribute_accuracy: AttributeAccuracy | None

    def lines(self) -> list[str]:
        """The result in sentences."""
        lines = [
            f"Case {self.config['case']}, seed {self.config['seed']}: {len(self.people)} people, {self.train_images} "
            f"photographs to train on, {self.test_images} to test; epoch {self.best_epoch} of {len(self.curve)} is "
            "tested.",
            f"Identity: {self.accuracy:.1%} of the test photographs are recognised (the same answer for all of them: "
            f"{self.chance:.1%}; training photographs: {self.curve[self.best_epoch - 1]:.1%}).",
        ]
        scores = self.attribute_accuracy
        if scores is not None:
            lines.append(
                f"Attributes: {scores.mean_accuracy:.1%} right on the test photographs, the mean of "
                f"{scores.measured} (always the majority: {scores.mean_majority:.1%}; balanced: "
                f"{scores.mean_balanced:.1%})."
            )
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON has it; what is not defined is None."""
        scores = self.attribute_accuracy
        return {
            "config": dict(self.config),
            "people": list(self.people),
            "train_images": self.train_images,
            "test_images": self.test_images,
            "identity": {
                "test_accuracy": self.accuracy,
                "chance": self.chance,
                "train_accuracy": self.curve[self.best_epoch - 1],
            },
            "attributes": None if scores is None else _attributes(self.attributes, scores),
            "train_accuracy_by_epoch": list(self.curve),
            "epochs": len(self.curve),
            "best_epoch": self.best_epoch,
        }


def _attributes(names: tuple[str, ...], scores: AttributeAccuracy) -> dict[str, Any]:
    means = {
        "mean_accuracy": scores.mean_accuracy,
        "mean_majority": scores.mean_majority,
        "mean_balanced": scores.mean_balanced,
    }
    columns: Mapping[str, Any] = {
        "accuracy": scores.accuracy,
        "majority": scores.majority,
        "balanced": scores.balanced,
    }
    each = {
        name: finite_or_none({column: float(values[index]) for column, values in columns.items()})
        for index, name in enumerate(names)
    }
    return {**finite_or_none(means), "each": each}
