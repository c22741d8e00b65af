"""The one network of a run: what the client measures once and every worker must reproduce."""

import functools
import os
from dataclasses import dataclass

from manifests.errors import InputError, RunError
from stylize.convention import CONVENTIONS
from stylize.errors import WeightsError
from stylize.settings import TransferSettings
from stylize.transfer import StyleTransfer
from stylize.unit_rms import feature_scales
from stylize.weights import load_weights

SOURCES = ("imagenet", "random")  # names that are no paths


@dataclass(frozen=True)
class NetworkReference:
    """The network every worker must load: the same numbers everywhere, whatever the machine.

    Attributes:
        source: as `stylize.weights.load_weights` takes it; a path must be readable by the workers.
        seed: of "random" weights.
        digest: SHA-256 (hex) of the weights that the client loaded; a worker that finds others refuses to work.
        scales: the thirteen unit-RMS scales that the client computed; None where the convention has none.
    """

    source: str
    seed: int
    digest: str
    scales: tuple[float, ...] | None


def reference(
    source: str, seed: int, convention: str, recorded: tuple[str, tuple[float, ...] | None] | None = None
) -> NetworkReference:
    """Compute, in the client and on its CPU, what all workers must agree on.

    Args:
        source: of the weights.
        seed: of "random" weights.
        convention: its name; the unit-RMS scales are computed where it has them.
        recorded: weights digest and scales of an existing run. For the same weights its scales are taken over, because
            another machine's arithmetic would give others in the last digit.

    Raises:
        WeightsError: the weights cannot be loaded.
    """
    if source not in SOURCES:
        source = os.path.abspath(os.path.expanduser(source))  # workers may have another working directory
    weights = load_weights(source, seed=seed)
    if not CONVENTIONS[convention].unit_rms:
        scales = None
    elif recorded is not None and recorded[0] == weights.digest and recorded[1] is not None:
        scales = recorded[1]
    else:
        scales = tuple(feature_scales(weights))
    return NetworkReference(source, seed, weights.digest, scales)


@functools.lru_cache(maxsize=1)
def load_transfer(reference: NetworkReference, settings: TransferSettings) -> StyleTransfer:
    """Load the network of a run onto this worker's device, once per process.

    Raises:
        WeightsError: the weights cannot be loaded here, or differ from those the client has.
        RunError: the device cannot do what the settings ask for.
    """
    weights = load_weights(reference.source, seed=reference.seed)
    if weights.digest != reference.digest:
        raise WeightsError(
            f'weights "{reference.source}" on this worker have digest {weights.digest[:12]}…, the run has '
            f"{reference.digest[:12]}…; give all machines the same file"
        )
    try:
        return StyleTransfer(weights, reference.scales, settings)
    except ValueError as error:
        raise RunError(str(error)) from error


def load_local_transfer(source: str, seed: int, settings: TransferSettings) -> StyleTransfer:
    """Load a network in this process, outside of any run.

    Raises:
        WeightsError: the weights cannot be loaded.
        InputError: the device cannot do what the settings ask for.
    """
    network = reference(source, seed, settings.convention)
    weights = load_weights(network.source, seed=seed)
    try:
        return StyleTransfer(weights, network.scales, settings)
    except ValueError as error:
        raise InputError(str(error)) from error
