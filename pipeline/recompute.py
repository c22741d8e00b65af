"""Recompute recorded losses from the stored pixels and compare: the strongest check of a finished run."""

import dataclasses
import os

from manifests import schema
from manifests.errors import InputError
from manifests.run import RunDirectory
from pipeline.run_inputs import open_inputs
from pipeline.transfer_settings import from_config
from pipeline.triples import NothingAccepted, sample_triples
from stylize.transfer import StyleTransfer
from stylize.weights import load_weights

# Machines differ in the order of fp32 sums; anything else (pixels, weights, scales, pairing) differs by far more.
TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True)
class Recomputation:
    """What came of recomputing.

    Attributes:
        checked: how many proxies.
        largest_difference: relative, between the recorded and the recomputed loss.
        findings: one sentence for each proxy whose loss is another.
    """

    checked: int
    largest_difference: float
    findings: tuple[str, ...]


def recompute(
    url: str | os.PathLike[str],
    *,
    count: int = 16,
    seed: int = 0,
    faces: str | os.PathLike[str] | None = None,
    paintings: str | os.PathLike[str] | None = None,
    paintings_csv: str | os.PathLike[str] | None = None,
    weights: str | None = None,
) -> Recomputation:
    """Recompute the losses of a seeded sample of accepted proxies, in fp32, and compare with the manifest.

    Args:
        url: of the run.
        count: how many proxies at most.
        seed: of the sample.
        faces, paintings, paintings_csv, weights: where the inputs are now, if not where run.json says.

    Raises:
        InputError: no run, damage in it, or other inputs than the run's.
        WeightsError: the weights cannot be loaded.
    """
    run = RunDirectory.open(url)
    transfer = _load(run, weights)
    findings, largest = [], 0.0
    try:
        triples = sample_triples(run, open_inputs(run, faces, paintings, paintings_csv), count, seed)
    except NothingAccepted:
        triples = []
    for triple in triples:
        recorded = float(triple.row[schema.LOSS])
        loss = float(transfer.losses(triple.proxy, triple.face, triple.painting).total[0])
        difference = abs(loss - recorded) / max(abs(recorded), 1e-12)
        largest = max(largest, difference)
        if not difference <= TOLERANCE:
            findings.append(
                f"{triple.row[schema.DATA_FILE]}, row {triple.row[schema.DATA_ROW]}: {triple.row[schema.IMAGE_ID]} as "
                f"stored has loss {loss:.4f}, and {recorded:.4f} is recorded."
            )
    return Recomputation(len(triples), largest, tuple(findings))


def _load(run: RunDirectory, source: str | None) -> StyleTransfer:
    recorded = run.content["weights"]
    source = source or run.content.get("paths", {}).get("weights") or recorded["source"]
    weights = load_weights(source, seed=recorded["seed"])
    if weights.digest != recorded["digest"]:
        raise InputError(f'weights "{source}" are not those of this run; give its file with --weights')
    # Only the fp32 judge is used, so the working precision need not be to be had here.
    settings = dataclasses.replace(from_config(run.content["config"]), precision="fp32")
    return StyleTransfer(weights, run.content["objective"]["scales"], settings)
