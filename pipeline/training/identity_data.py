"""Which faces of a run identity is trained, chosen and tested on, and what cannot be used."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from manifests.errors import InputError
from manifests.schema import SPLITS
from pipeline.training.pair_sampler import Positives, eligible
from pipeline.training.run_faces import UNKNOWN, Indices, RunFaces

HELD_OUT: Final = 0.1
"""Share of the training people that are held out where the run has no split for validation."""


@dataclass(frozen=True)
class IdentityData:
    """Labels of a run's faces, and the faces of each split by index.

    Attributes:
        identities: int64 [N], -1 unknown.
        sources: int64 [N], equal for proxies of one photograph.
        splits: "train", "valid" and, where the run has it, "test" → int64 indices. Faces of unknown people are in
            no training pair, but in the galleries.
        pairs: training pairs in an epoch.
        left_out: training photographs of known people that have no partner, and of how many people they are.
    """

    identities: Indices
    sources: Indices
    splits: Mapping[str, Indices]
    pairs: int
    left_out: tuple[int, int]


def identity_data(
    faces: RunFaces, positives: Positives, batch_size: int, seed: int, notify: Callable[[str], None]
) -> IdentityData:
    """Check that people can be learned and told apart in every split, and hold some out if there is no validation.

    Args:
        faces: of the run.
        positives: what training pairs are.
        batch_size: of training.
        seed: of the people held out.
        notify: called with sentences the user should see.

    Raises:
        InputError: no identities, a split of one person or without two pictures of anybody, or fewer training pairs
            than a batch has.

    """
    splits: dict[str, Indices] = {name: faces.indices(name) for name in SPLITS if name in faces.splits}
    for name in ("train", *splits):
        faces.labelled(name)
    if "valid" not in splits:
        splits["train"], splits["valid"] = _held_out(faces, splits["train"], seed)
        people = np.unique(faces.identities[splits["valid"]]).size
        notify(
            f'"{faces.url}" has no split for validation: {people} of the people in train are held out '
            f"({splits['valid'].size} photographs, seed {seed})"
        )
    for name, indices in splits.items():
        if name != "train" and not _answerable(faces, indices).size:
            raise InputError(
                f'split {name} of "{faces.url}" has no person with two photographs, so nobody can be found in it; '
                "build it from more photographs"
            )
    train = splits["train"]
    identities, sources = faces.identities[train], faces.sources[train]
    paired = eligible(identities, sources, positives)
    if np.unique(identities[paired]).size < 2:
        raise InputError(
            f'split train of "{faces.url}" has fewer than two people with two photographs; build it from more '
            "photographs, or take each photograph's own proxy (positives own)"
        )
    if paired.sum() < batch_size:
        raise InputError(
            f'a batch of {batch_size} is more than the {paired.sum()} pairs of split train of "{faces.url}"; '
            f"give a batch size of {paired.sum()} at most"
        )
    alone = (identities != UNKNOWN) & ~paired
    left_out = int(alone.sum()), np.unique(identities[alone]).size
    if left_out[0]:
        notify(
            "photographs that no training pair has, because there is no proxy of another photograph of the person: "
            f"{left_out[0]:,} (of {left_out[1]:,} people)"
        )
    return IdentityData(faces.identities, faces.sources, splits, int(paired.sum()), left_out)


def _answerable(faces: RunFaces, indices: Indices) -> Indices:
    """Faces whose person has a proxy of another photograph among them."""
    found: Indices = indices[eligible(faces.identities[indices], faces.sources[indices])]
    return found


def _held_out(faces: RunFaces, train: Indices, seed: int) -> tuple[Indices, Indices]:
    people = np.unique(faces.identities[_answerable(faces, train)])
    if people.size < 4:
        raise InputError(
            f'"{faces.url}" has no split valid, and too few people with two photographs in train ({people.size}) to '
            "hold some out; build it with a split valid, or from more people"
        )
    count = max(2, round(HELD_OUT * people.size))
    chosen = np.random.default_rng([seed, 1]).choice(people, count, replace=False)
    held_out = np.isin(faces.identities[train], chosen)
    return train[~held_out], train[held_out]
