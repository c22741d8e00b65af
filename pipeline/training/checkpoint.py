"""state.pt: how far a run has got, the trainer's state and the random generators; everything needed to go on exactly.

It is written whole or not at all, and read without running code (`weights_only`). PyTorch's reader does not look at the
checksums of the archive that it writes, so they are checked here first.
"""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from manifests.errors import InputError, RunError
from pipeline.training import ranks
from pipeline.training.rng_state import restore_rng_state, rng_state
from pipeline.training.trainer import Trainer
from pipeline.training.training_run import STATE_FILE, TrainingRun


@dataclass
class Progress:
    """How far a run has got.

    Attributes:
        epoch: in progress, from 1.
        step: how many of its steps are done.
        sums: of each metric over those steps, and over how many; this process's own.
        history: metrics of the epochs that are complete.
        best: the best of them; 0 if there is none.
    """

    epoch: int = 1
    step: int = 0
    sums: dict[str, tuple[float, int]] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    best: int = 0


def save_state(run: TrainingRun, trainer: Trainer, progress: Progress) -> None:
    """Write state.pt; all processes must call it, the first one writes.

    Raises:
        OSError: it cannot be written; the earlier one is as it was.
        TypeError: the trainer's state holds something that could not be read back.
    """
    own = ranks.gathered({"rng": rng_state(), "sums": {name: list(pair) for name, pair in progress.sums.items()}})

    def write() -> None:
        state = {
            "run": run.fingerprint,
            "epoch": progress.epoch,
            "step": progress.step,
            "history": progress.history,
            "best": progress.best,
            "processes": own,
            "trainer": readable(trainer.state(), "the trainer's state"),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        run.write(STATE_FILE, buffer.getvalue())

    ranks.on_first_rank(write)


def load_state(run: TrainingRun, trainer: Trainer) -> Progress | None:
    """Bring the trainer and the random generators to where state.pt was written; None if there is none.

    All processes must call it, and see the folder.

    Raises:
        RunError: the file is damaged, belongs to another run, or does not fit the trainer.
    """
    path = run.path(STATE_FILE)
    if not ranks.from_first_rank(path.exists()):
        return None
    content = path.read_bytes()
    try:
        _check_archive(content)
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        fingerprint, own = state["run"], state["processes"]
        progress = Progress(epoch=state["epoch"], step=state["step"], history=state["history"], best=state["best"])
    except MemoryError:
        raise
    except Exception as error:  # there is no telling where reading a damaged file goes wrong
        raise RunError(
            f'"{path}" is damaged ({_first_line(error)}); restore it from a copy, or train into another folder'
        ) from error
    if fingerprint != run.fingerprint or len(own) != ranks.world_size():
        raise RunError(f'"{path}" is the state of another run; put its own back, or train into another folder')
    try:
        trainer.restore(state["trainer"])
    except (InputError, RunError):
        raise
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f'"{path}" does not fit this model ({_first_line(error)}); was it written by another version of stylize? '
            "Train into another folder"
        ) from error
    mine = own[ranks.rank()]
    progress.sums = {name: (total, count) for name, (total, count) in mine["sums"].items()}
    restore_rng_state(mine["rng"])
    return progress


def first_not_finite(weights: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first tensor with a number that is not finite."""
    return next(
        (name for name, tensor in weights.items() if tensor.is_floating_point() and not tensor.isfinite().all()), None
    )


def readable(value: object, where: str) -> Any:
    """Return a state as `torch.load(weights_only=True)` can read it back: NumPy's numbers become Python's.

    A metric that came from NumPy hides in a scheduler's state and would be refused only when the run is resumed.

    Raises:
        TypeError: naming the place of something else than tensors, numbers, strings, None, dicts, lists and tuples.
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    if isinstance(value, Tensor):
        return value.detach()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {readable(key, where): readable(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [readable(item, f"{where}[{index}]") for index, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    raise TypeError(
        f"{where} is a {type(value).__name__}; a training run keeps tensors, numbers, strings, dicts, lists"
    )


def _check_archive(content: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if (name := archive.testzip()) is not None:
            raise ValueError(f"checksum of {name}")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
