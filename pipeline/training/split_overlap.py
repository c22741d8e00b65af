"""People who are in more than one split of a run: scores on such splits are partly of people that were trained on."""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from pipeline.training.run_faces import UNKNOWN, Indices


def people_in_several_splits(identities: Indices, splits: Mapping[str, Indices]) -> dict[str, int]:
    """Count known people by the splits they are in, those of a single split left out.

    Args:
        identities: int64 [N], -1 unknown.
        splits: name → indices of its faces.

    Returns:
        names of splits, joined by ", " in their order → how many people are in these and no others. Nobody is counted
        twice; empty where the splits share nobody.
    """
    present = {name: set(np.unique(identities[indices]).tolist()) - {UNKNOWN} for name, indices in splits.items()}
    everybody = set().union(*present.values())
    places = (tuple(name for name, people in present.items() if person in people) for person in everybody)
    counts = Counter(names for names in places if len(names) > 1)
    return {", ".join(names): counts[names] for names in sorted(counts, key=lambda names: (len(names), names))}


def overlap_remark(shared: Mapping[str, int], score: str) -> str | None:
    """Return a sentence about the result of `people_in_several_splits`; None where nobody is in several.

    Args:
        shared: that result.
        score: what is scored: "recall", "accuracy".
    """
    if not shared:
        return None
    counted = "; ".join(f"{names}: {count:,}" for names, count in shared.items())
    with_train = {name for names in shared if "train" in (both := names.split(", ")) for name in both}
    told = [name for name in ("valid", "test") if name in with_train]
    meaning = (
        f"{score} on {' and '.join(told)} is then partly of people that were trained on"
        if told
        else "the best epoch is then chosen on people that are tested"
    )
    return (
        f"known people in more than one split: {sum(shared.values()):,} ({counted}); {meaning}; "
        "build from faces whose splits share nobody to know how it is with strangers"
    )
