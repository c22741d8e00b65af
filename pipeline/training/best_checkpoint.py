"""The best epoch's weights, best.safetensors, and the same without the weights for people, best.json.

The weights of a new best epoch wait in the journal until state.pt says that it is the best, and are moved into place
then. The state is the one commit: whenever a process dies, the next one finds in the journal what the state speaks of,
or drops what it does not. best.safetensors says itself, in its header, what best.json says, so a reader of that file
alone never sees one epoch's weights with another's score.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from manifests.errors import InputError, RunError
from pipeline.training.metric_log import finite_or_none
from pipeline.training.training_run import JOURNAL_FOLDER, TrainingRun

BEST_FILE: Final = "best.safetensors"
SUMMARY_FILE: Final = "best.json"
_PENDING: Final = f"{JOURNAL_FOLDER}/{BEST_FILE}"
_HEADER: Final = "best"  # the one key of the header: several would be written in no fixed order


@dataclass(frozen=True, eq=False)
class BestCheckpoint:
    """The best epoch of a run.

    Attributes:
        epoch: from 1.
        monitor: name of the metric that made it the best.
        score: its value.
        metrics: all of that epoch's; None for one that was not finite.
        weights: what the trainer wanted kept, on the CPU.
    """

    epoch: int
    monitor: str
    score: float
    metrics: Mapping[str, float | None]
    weights: Mapping[str, Tensor]


def read_best(run: TrainingRun) -> BestCheckpoint:
    """Read the best checkpoint of a run.

    Raises:
        InputError: the run has none yet.
        RunError: the file is damaged.
    """
    path = run.path(BEST_FILE)
    if not path.exists():
        raise InputError(f'"{run.out}" has no {BEST_FILE} yet; train it for an epoch at least')
    summary = _summary(path)
    try:
        with safe_open(path, "pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error
    return BestCheckpoint(**summary, weights=weights)


def write_pending(
    run: TrainingRun, epoch: int, monitor: str, metrics: Mapping[str, float], weights: Mapping[str, Tensor]
) -> None:
    """Put the weights of a new best epoch into the journal; OSError."""
    summary = {"epoch": epoch, "monitor": monitor, "score": metrics[monitor], "metrics": finite_or_none(metrics)}
    header = {_HEADER: json.dumps(summary, ensure_ascii=False, allow_nan=False)}
    own = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in weights.items()}
    run.write(_PENDING, save(own, header))


def settle(run: TrainingRun, epoch: int) -> None:
    """Make the best checkpoint the one of this epoch, which the state calls the best; 0 is none.

    Raises:
        RunError: the weights of that epoch are gone, or damaged.
        OSError: the folder cannot be written.
    """
    pending, final = run.path(_PENDING), run.path(BEST_FILE)
    if pending.exists():
        if _epoch(pending) == epoch:
            os.replace(pending, final)
        else:
            pending.unlink()
    if epoch == 0:
        return
    if _epoch(final) != epoch:
        raise RunError(
            f'"{final}" should hold the weights of epoch {epoch}, the best so far, and does not; '
            "restore the file from a copy, or train into another folder"
        )
    summary = _summary(final)
    with contextlib.suppress(OSError, ValueError):
        if json.loads(run.path(SUMMARY_FILE).read_bytes()) == summary:
            return
    run.write_json(SUMMARY_FILE, summary)


def _epoch(path: Path) -> int | None:
    """Epoch of a checkpoint; None if there is none, or one that cannot be read."""
    try:
        return int(_summary(path)["epoch"])
    except (RunError, KeyError):
        return None


def _summary(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
        summary: dict[str, Any] = json.loads(header[_HEADER])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise _damaged(path, error) from error
    return summary


def _damaged(path: Path, error: Exception) -> RunError:
    return RunError(
        f'"{path}" cannot be read as the best checkpoint of a training run ({error}); restore it from a copy, '
        "or train into another folder"
    )
