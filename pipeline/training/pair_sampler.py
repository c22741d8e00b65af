"""Training pairs (photograph, proxy of the same person): which ones make an epoch, and in which batches."""

from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.training.run_faces import UNKNOWN, Indices

Positives = Literal["other", "own"]


def eligible(identities: Indices, sources: Indices, positives: Positives = "other") -> npt.NDArray[np.bool_]:
    """Tell which photographs can be paired: bool [N].

    Args:
        identities: of N faces, -1 unknown.
        sources: which photograph each proxy was made from, in any numbers.
        positives: "other": the person needs a proxy of another photograph; "own": everybody with an identity can.

    """
    known: npt.NDArray[np.bool_] = np.asarray(identities) != UNKNOWN
    if positives == "own":
        return known
    order, group_start, group_end, own_start, own_end = _groups(identities, sources)
    others = np.empty(len(identities), np.int64)
    others[order] = (group_end - group_start) - (own_end - own_start)
    paired: npt.NDArray[np.bool_] = known & (others > 0)
    return paired


def epoch_pairs(
    identities: Indices,
    sources: Indices,
    *,
    seed: int,
    epoch: int,
    positives: Positives = "other",
    batch_size: int = 32,
) -> Indices:
    """Return the pairs of one epoch in the order of training; cut them with `batch_bounds`.

    Every eligible photograph (see `eligible`) is in exactly one pair. With "other" its partner is drawn uniformly from
    the proxies of the same person that were made from another photograph, for each photograph and epoch anew; with
    "own" it is the photograph's own proxy (face i's). The order is a random permutation; then, as long as a batch is of
    one person alone and would give no gradient, one of its pairs changes places with another person's pair of the first
    batch that can spare it. Batches of one person remain only where a person has so many of the pairs that it cannot be
    helped (or where ``batch_size`` is 2 and an odd number of pairs leaves one alone).

    Args:
        identities: of N faces, -1 unknown.
        sources: which photograph each proxy was made from.
        seed, epoch: the result depends on the arguments alone; both at least 0.
        positives: "other" or "own".
        batch_size: at least 2, since a batch of one pair has no negatives.

    Returns:
        int64 [n, 2]: face index of the photograph, face index of the proxy.

    Raises:
        ValueError: ``batch_size`` below 2.

    """
    if batch_size < 2:
        raise ValueError(f"batch_size must be at least 2, not {batch_size}")
    identities, sources = np.asarray(identities), np.asarray(sources)
    generator = np.random.default_rng([seed, epoch])
    photographs = np.flatnonzero(eligible(identities, sources, positives))
    partners = photographs if positives == "own" else _other_proxies(identities, sources, generator)[photographs]
    pairs = np.stack([photographs, partners], axis=1)[generator.permutation(len(photographs))]
    return pairs[_mixed(identities[pairs[:, 0]], batch_bounds(len(pairs), batch_size))]


def batch_bounds(pairs: int, batch_size: int) -> Indices:
    """Return where batches begin and end: batch i holds the pairs bounds[i] … bounds[i + 1] - 1.

    As few batches as hold them all, of sizes that differ by one at most: a last batch of a handful of pairs would have
    few negatives to choose from and weigh as much as a full one.
    """
    count = -(-pairs // batch_size)
    return np.arange(count + 1, dtype=np.int64) * pairs // max(count, 1)


def _groups(identities: Indices, sources: Indices) -> tuple[Indices, Indices, Indices, Indices, Indices]:
    """Sort faces by person and photograph.

    Returns the order, and for each place in it where the person's places begin and end, and the own photograph's.
    """
    order = np.lexsort((sources, identities))
    people, photographs = np.asarray(identities)[order], np.asarray(sources)[order]
    new_person = np.ones(len(order), np.bool_)
    new_person[1:] = people[1:] != people[:-1]
    new_photograph = new_person.copy()
    new_photograph[1:] |= photographs[1:] != photographs[:-1]
    return (order, *_runs(new_person), *_runs(new_photograph))


def _runs(first: npt.NDArray[np.bool_]) -> tuple[Indices, Indices]:
    """Return for every place where its run of equals begins and ends, given which places begin one."""
    starts = np.flatnonzero(first)
    lengths = np.diff(np.append(starts, len(first)))
    return np.repeat(starts, lengths), np.repeat(starts + lengths, lengths)


def _other_proxies(identities: Indices, sources: Indices, generator: np.random.Generator) -> Indices:
    """Draw for every face a proxy of the same person from another photograph; anything where there is none."""
    order, group_start, group_end, own_start, own_end = _groups(identities, sources)
    others = (group_end - group_start) - (own_end - own_start)
    drawn = group_start + generator.integers(0, np.maximum(others, 1))
    drawn += np.where(drawn >= own_start, own_end - own_start, 0)  # past the own photograph's proxies
    partners = np.empty(len(order), np.int64)
    partners[order] = order[np.minimum(drawn, len(order) - 1)]
    return partners


def _mixed(people: Indices, bounds: Indices) -> Indices:
    """Return an order in which batches of one person have been mixed with others, as far as it goes."""
    order = np.arange(len(people))
    sizes = np.diff(bounds)
    for batch, (start, end) in enumerate(pairwise(bounds)):
        person = people[order[start]]
        if end - start < 2 or (people[order[start:end]] != person).any():
            continue
        strangers = people[order] != person
        counts = np.add.reduceat(strangers, bounds[:-1])
        # A batch that has one stranger among others of this person would be of one person itself without it.
        spare = (counts >= 2) | ((counts == 1) & (sizes == 1))
        spare[batch] = False
        if not spare.any():
            continue
        donor = int(np.argmax(spare))
        at = bounds[donor] + int(np.argmax(strangers[bounds[donor] : bounds[donor + 1]]))
        order[[start, at]] = order[[at, start]]
    return order
