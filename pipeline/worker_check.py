"""What a worker looks for before it takes a shard: the client's OUT, faces, paintings and weights, and its GPU.

Sent to workers by reference, so only after `pipeline.preflight` knows that they have this version of the package.
Importing it imports no PyTorch: that can take a new worker longer than a user waits for an answer.
"""

import asyncio
import contextlib
import hashlib
import os
import uuid
from dataclasses import dataclass

from manifests.commit import publish
from manifests.errors import InputError, RunError
from manifests.image_source import ImageSource
from manifests.redaction import redact
from manifests.remote_path import is_url
from manifests.run import JOURNAL_FOLDER, RUN_FILE, open_filesystem
from pipeline.file_digest import file_digest


@dataclass(frozen=True)
class Sample:
    """One image that the client can read: a folder of the same name may be empty, or another, on a worker.

    Attributes:
        kind: "faces" or "paintings".
        source: where they lie.
        locator: of the image; None where the client could read none.
        digest: SHA-256 (hex) of its bytes.
    """

    kind: str
    source: ImageSource
    locator: str | None = None
    digest: str = ""


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights.

    Attributes:
        path: of the file.
        file_digest: SHA-256 (hex) of its bytes, here.
        digest: of the weights in it, as `stylize.weights.VGGWeights` has it: another file may hold the same.
    """

    path: str
    file_digest: str
    digest: str


@dataclass(frozen=True)
class Requirements:
    """What a worker must have. Picklable.

    Attributes:
        token: of the execution.
        root: the run's folder or URL.
        marker: a file in it that the client has just written, with the token in it.
        samples: of faces and paintings.
        weights: None where there is no file to compare.
    """

    token: str
    root: str
    marker: str
    samples: tuple[Sample, ...]
    weights: WeightsFile | None = None


_passed: set[tuple[str, bool]] = set()  # (token, thorough), of this process


def problem(needs: Requirements, thorough: bool, gpu: bool) -> str | None:
    """Return what this process lacks and what to do about it, in words that go on from "worker X …"; None if nothing.

    Args:
        needs: what it should have.
        thorough: look at weights and GPU, too, which reads much and imports PyTorch.
        gpu: this worker says that it has one.
    """
    if (needs.token, thorough) in _passed:
        return None
    try:
        found = _run_problem(needs) or next(filter(None, map(_sample_problem, needs.samples)), None)
        found = found or _weights_file_problem(needs.weights)
        if found is None and thorough:
            found = _weights_problem(needs.weights) or (_gpu_problem() if gpu else None)
    except (OSError, InputError, RunError) as error:
        return f"cannot see what it needs ({_reason(error)})"
    if found is None:
        _passed.update({(needs.token, False), (needs.token, thorough)})
    return found


async def answer(needs: Requirements, thorough: bool, gpu: bool) -> str | None:
    """Do `problem` in a thread: storage that hangs must not take the worker's event loop with it."""
    return await asyncio.to_thread(problem, needs, thorough, gpu)


def _run_problem(needs: Requirements) -> str | None:
    shown = redact(needs.root)
    fs, root, _ = open_filesystem(needs.root)
    try:
        there = fs.cat_file(f"{root}/{needs.marker}") == needs.token.encode()
    except FileNotFoundError:
        there = False
    except OSError as error:
        return f'cannot read OUT, "{shown}" ({_reason(error)}); {_remedy(needs.root)}'
    if not there:
        what = "has another folder than this client at" if fs.exists(f"{root}/{RUN_FILE}") else "does not find OUT at"
        return f'{what} "{shown}"; {_remedy(needs.root)}'
    name = f"preflight.{uuid.uuid4().hex}.tmp"
    journal = f"{root}/{JOURNAL_FOLDER}"
    try:
        publish(fs, f"{journal}/{name}", b"", journal=journal)
    except OSError as error:
        return f'cannot write to OUT, "{shown}" ({_reason(error)}); let its user write there'
    with contextlib.suppress(OSError):
        fs.rm_file(f"{journal}/{name}")
    return None


def _sample_problem(sample: Sample) -> str | None:
    source, kind = sample.source, sample.kind
    if (reason := source.unreachable()) is not None:
        why = f" ({reason})" if is_url(source.root) else ""
        return f'does not find the {kind} at "{source.root}"{why}; {_remedy(source.root)}'
    if sample.locator is None:
        return None
    try:
        digest = hashlib.sha256(source.read(sample.locator)).hexdigest()
    except (OSError, InputError, RunError) as error:
        reason = "it is not there" if isinstance(error, FileNotFoundError) else _reason(error)
        return f'cannot read the {kind} at "{source.root}" ({sample.locator}: {reason}); {_remedy(source.root)}'
    if digest != sample.digest:
        return (
            f'has other {kind} than this client at "{source.root}" ({sample.locator} differs); {_remedy(source.root)}'
        )
    return None


def _weights_file_problem(weights: WeightsFile | None) -> str | None:
    if weights is None or os.path.isfile(weights.path):
        return None
    return f'does not find the weights "{weights.path}"; put the file there on every worker'


def _weights_problem(weights: WeightsFile | None) -> str | None:
    if weights is None or file_digest(weights.path) == weights.file_digest:
        return None
    from stylize.errors import WeightsError  # noqa: PLC0415  # PyTorch, see above
    from stylize.weights import load_weights  # noqa: PLC0415

    try:
        digest = load_weights(weights.path).digest
    except WeightsError as error:
        return f"cannot use the weights ({error})"
    if digest == weights.digest:
        return None
    return f'has other weights than this client at "{weights.path}"; give all machines the same file'


def _gpu_problem() -> str | None:
    import torch  # noqa: PLC0415

    if torch.cuda.is_available():
        return None
    return "declares a GPU, but its PyTorch sees none; mend its driver, or install a CUDA build of PyTorch there"


def _remedy(place: str) -> str:
    if is_url(place):
        return "give every worker the same endpoint, and credentials for it"
    return "mount it under the same path on every worker"


def _reason(error: Exception) -> str:
    strerror = error.strerror if isinstance(error, OSError) else None
    return redact(strerror or (str(error).splitlines() or [type(error).__name__])[0])
