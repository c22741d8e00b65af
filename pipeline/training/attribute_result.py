"""What the training of attribute heads came to: Table 2's cells of one model, as lines, JSON and Markdown."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from manifests.attributes import ATTRIBUTES
from pipeline.training.attribute_accuracy import AttributeAccuracy, Labels
from pipeline.training.split_overlap import overlap_remark

PICTURES = {"real": "photographs", "art": "proxies"}
_ANSWERS = {1: "yes", 0: "no", -1: None}


@dataclass(frozen=True)
class AttributesResult:
    """One trained model.

    Attributes:
        title: what was trained on what, for people.
        config: settings that decide the result.
        faces: number of faces of each split.
        epochs: done.
        best_epoch: the one whose weights were scored.
        majority: int8 [40], each attribute's majority class in training; -1 for one without a label there.
        cells: scores by split ("valid", and "test" if the run has it) and domain ("real", "art").
        people_in_several_splits: as `pipeline.training.split_overlap` counts them.
    """

    title: str
    config: Mapping[str, Any]
    faces: Mapping[str, int]
    epochs: int
    best_epoch: int
    majority: Labels
    cells: Mapping[str, Mapping[str, AttributeAccuracy]]
    people_in_several_splits: Mapping[str, int] = field(default_factory=dict)

    @property
    def unlabelled(self) -> tuple[str, ...]:
        """Return the attributes that no face of the training split has a label for; means leave them out."""
        return tuple(name for name, answer in zip(ATTRIBUTES, self.majority, strict=True) if answer < 0)

    def remarks(self) -> list[str]:
        """Return a sentence for every cell that is no result, and about attributes without labels and shared people."""
        remarks = [remark for split, domain, cell in self._cells() if (remark := _remark(split, domain, cell))]
        if self.unlabelled:
            remarks.append(f"Without any label in training, and left out of the means: {', '.join(self.unlabelled)}.")
        if remark := overlap_remark(self.people_in_several_splits, "accuracy"):
            remarks.append(f"{remark[0].upper()}{remark[1:]}.")
        return remarks

    def lines(self) -> list[str]:
        """Return the cells as a short table, and the remarks."""
        return [
            self.title,
            f"{'':12}  accuracy  majority            gain  balanced  above majority",
            *(
                f"{split:5}  {domain:5}  {_percent(cell.mean_accuracy):>8}  {_percent(cell.mean_majority):>8}  "
                f"{_gain(cell):>14}  {_percent(cell.mean_balanced):>8}  {cell.better} of {cell.measured}"
                for split, domain, cell in self._cells()
            ),
            *self.remarks(),
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it; shares of 1, null for what is not defined."""
        return {
            "config": dict(self.config),
            "faces": dict(self.faces),
            "people_in_several_splits": dict(self.people_in_several_splits),
            "epochs": self.epochs,
            "best_epoch": self.best_epoch,
            "cells": {
                split: {domain: _cell_dict(cell) for domain, cell in domains.items()}
                for split, domains in self.cells.items()
            },
            "attributes": {
                name: {
                    "majority": _ANSWERS[int(self.majority[index])],
                    **{
                        split: {domain: _attribute_dict(cell, index) for domain, cell in domains.items()}
                        for split, domains in self.cells.items()
                    },
                }
                for index, name in enumerate(ATTRIBUTES)
            },
            "unlabelled": list(self.unlabelled),
            "remarks": self.remarks(),
        }

    def markdown(self) -> str:
        """Return the cells and every attribute's figures as two tables."""
        cells = [
            f"| {split} | {PICTURES[domain]} | {_percent(cell.mean_accuracy)} | {_percent(cell.mean_majority)} | "
            f"{_gain(cell)} | {_percent(cell.mean_balanced)} | {cell.better} of {cell.measured} |"
            for split, domain, cell in self._cells()
        ]
        columns = [
            f"{split}: {name}"
            for split in self.cells
            for name in ("yes", "majority", "real", "art", "real, balanced", "art, balanced")
        ]
        return "\n".join(
            [
                "# Attributes",
                "",
                f"{self.title}.",
                "",
                "Accuracy is the share of right answers, averaged over attributes. *Majority* is the accuracy of "
                "always giving the answer that is the more frequent one in the training split; *gain* is what the "
                "model has above that, with its standard error over persons. *Balanced* is the mean of the accuracies "
                "among faces with and without the attribute: 50 % for any constant answer. A dash is a figure that is "
                "not defined, because no face, or only one kind of face, has the label.",
                "",
                "| split | pictures | accuracy | majority | gain | balanced | above majority |",
                "|---|---|---:|---:|---:|---:|---:|",
                *cells,
                "",
                *(line for remark in self.remarks() for line in (remark, "")),
                "| attribute | majority in training | " + " | ".join(columns) + " |",
                "|---|---|" + "---:|" * len(columns),
                *(self._row(index) for index in range(len(ATTRIBUTES))),
                "",
            ]
        )

    def _cells(self) -> Iterator[tuple[str, str, AttributeAccuracy]]:
        for split, domains in self.cells.items():
            for domain, cell in domains.items():
                yield split, domain, cell

    def _row(self, index: int) -> str:
        figures: list[float] = []
        for domains in self.cells.values():
            real, art = domains["real"], domains["art"]
            figures += [real.positive[index], real.majority[index], real.accuracy[index], art.accuracy[index]]
            figures += [real.balanced[index], art.balanced[index]]
        answer = _ANSWERS[int(self.majority[index])] or "-"
        return f"| {ATTRIBUTES[index]} | {answer} | " + " | ".join(map(_percent, figures)) + " |"


def _remark(split: str, domain: str, cell: AttributeAccuracy) -> str | None:
    if not math.isfinite(cell.gain):
        return f"No {PICTURES[domain][:-1]} of the {split} split has a label to score."
    figures = (
        f"{_percent(cell.mean_accuracy)} against {_percent(cell.mean_majority)} "
        f"(balanced {_percent(cell.mean_balanced)}, where the majority has 50.0 %)"
    )
    pictures = f"On {PICTURES[domain]} of the {split} split"
    if cell.gain <= 0:
        return f"{pictures} the model is no better than answering each attribute's majority class: {figures}."
    if not cell.gain > 2 * cell.gain_error:
        return (
            f"{pictures} the model is above answering each attribute's majority class by less than two standard "
            f"errors, which may be chance: {figures}."
        )
    return None


def _cell_dict(cell: AttributeAccuracy) -> dict[str, Any]:
    return {
        "accuracy": _finite(cell.mean_accuracy),
        "majority": _finite(cell.mean_majority),
        "gain": _finite(cell.gain),
        "gain_error": _finite(cell.gain_error),
        "balanced": _finite(cell.mean_balanced),
        "attributes": cell.measured,
        "above_majority": cell.better,
    }


def _attribute_dict(cell: AttributeAccuracy, index: int) -> dict[str, Any]:
    return {
        "known": int(cell.known[index]),
        "yes": _finite(cell.positive[index]),
        "majority": _finite(cell.majority[index]),
        "accuracy": _finite(cell.accuracy[index]),
        "balanced": _finite(cell.balanced[index]),
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _percent(share: float) -> str:
    return f"{share:.1%}".replace("%", " %") if math.isfinite(share) else "-"


def _gain(cell: AttributeAccuracy) -> str:
    if not math.isfinite(cell.gain):
        return "-"
    error = f" ± {100 * cell.gain_error:.1f}" if math.isfinite(cell.gain_error) else ""
    return f"{100 * cell.gain:+.1f}{error} %"
