"""What an identity training has come to: recall before and after, side by side."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.retrieval.recall import KS, Recall
from pipeline.training.split_overlap import overlap_remark


@dataclass(frozen=True)
class IdentityResult:
    """Recall of photographs in the proxies of their split, their own proxies left out.

    Attributes:
        title: what was trained, in a line.
        config: the settings that decided it.
        faces: faces of each split.
        people: known people of each split.
        pairs: training pairs in an epoch.
        left_out: training photographs without a partner, and of how many people they are.
        epochs: trained.
        best_epoch: whose model is kept, from 1.
        before: split → recall of the bare backbone.
        after: split → recall of the kept model.
        people_in_several_splits: as `pipeline.training.split_overlap` counts them.
    """

    title: str
    config: Mapping[str, Any]
    faces: Mapping[str, int]
    people: Mapping[str, int]
    pairs: int
    left_out: tuple[int, int]
    epochs: int
    best_epoch: int
    before: Mapping[str, Recall]
    after: Mapping[str, Recall]
    people_in_several_splits: Mapping[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return {
            "config": dict(self.config),
            "faces": dict(self.faces),
            "people": dict(self.people),
            "people_in_several_splits": dict(self.people_in_several_splits),
            "pairs": self.pairs,
            "left_out": {"photographs": self.left_out[0], "people": self.left_out[1]},
            "epochs": self.epochs,
            "best_epoch": self.best_epoch,
            "before": {split: recall.as_dict() for split, recall in self.before.items()},
            "after": {split: recall.as_dict() for split, recall in self.after.items()},
        }

    def lines(self) -> list[str]:
        """Return a table in per cent, and what should be known of it."""
        lines = [self.title, f"{'':<14}{'queries':>8}" + "".join(f"{f'R@{k}':>8}" for k in KS)]
        for split in self.before:
            for name, recalls in (("before", self.before), ("after", self.after)):
                recall = recalls[split]
                cells = "".join(f"{100 * recall.at[k]:8.1f}" for k in KS)
                lines.append(f"{f'{split} {name}':<14}{recall.queries:8,}{cells}")
        for split, recall in self.before.items():
            if recall.without_relevant:
                lines.append(
                    f"photographs of {split} that are no queries, because there is no proxy of another photograph of "
                    f"the person: {recall.without_relevant:,}"
                )
        if remark := overlap_remark(self.people_in_several_splits, "recall"):
            lines.append(remark)
        if self.after["valid"].at[1] < self.before["valid"].at[1]:
            lines.append("on the validation split, training has made R@1 worse than the bare backbone's")
        return lines
