"""The epoch loop: steps, validation, best checkpoint, early stopping; saving, and going on exactly where it was."""

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from manifests.errors import InputError, RunError
from pipeline.errors import Interrupted
from pipeline.training import ranks
from pipeline.training.best_checkpoint import settle, write_pending
from pipeline.training.checkpoint import Progress, first_not_finite, load_state, save_state
from pipeline.training.curves import plot_curves
from pipeline.training.epoch_progress import EpochProgress
from pipeline.training.metric_log import best_epoch, json_lines, parquet
from pipeline.training.stop_request import StopRequest
from pipeline.training.tensorboard_log import TENSORBOARD_FOLDER, TensorBoardLog, require_tensorboard
from pipeline.training.trainer import Trainer
from pipeline.training.training_run import STATE_FILE, TrainingRun

StopReason = Literal["epochs", "patience"]

METRICS_FILE = "metrics.jsonl"
METRICS_TABLE = "metrics.parquet"
CURVES_FILE = "curves.png"
_CURVES_SECONDS = 30.0  # between two drawings while training; drawing takes longer than an epoch on cached embeddings


@dataclass(frozen=True)
class FitResult:
    """A run that has been trained.

    Attributes:
        best_epoch: from 1.
        best_score: the monitored metric of that epoch.
        metrics: of all epochs, the first one first.
        stopped: why training ended: all epochs asked for are done, or the monitored metric did not rise any more.
    """

    best_epoch: int
    best_score: float
    metrics: tuple[Mapping[str, float], ...]
    stopped: StopReason


def fit(
    trainer: Trainer,
    run: TrainingRun,
    *,
    epochs: int,
    patience: int | None = None,
    quiet: bool = False,
    tensorboard: bool = False,
    notify: Callable[[str], None] = lambda sentence: None,
) -> FitResult:
    """Train, or go on training, and leave the trainer as it is after the last step.

    A run that was stopped goes on where its state was saved (at the end of an epoch, or at the step at which it was
    interrupted) and ends, on the CPU, with the bits of one that was not stopped. The state is saved before the first
    step, too. A run that has all the epochs asked for, or more, is not trained further: what it recorded is returned.
    To train it further, ask for more epochs, or for more patience.

    Use `pipeline.training.best_checkpoint.read_best` for the best epoch's weights.

    Args:
        trainer: what is trained.
        run: where it is recorded. Under torchrun all processes must see its folder; only the first one writes.
        epochs: train until so many are done in all, at least 1.
        patience: stop after so many epochs in a row that were no better than the best before them; None never does.
        quiet: show no progress.
        tensorboard: write metrics for TensorBoard, too.
        notify: called with sentences the user should see: that a run goes on or is done, the trainer's warnings.

    Raises:
        InputError: wrong arguments, an epoch without steps, or TensorBoard is not installed.
        RunError: the loss, the monitored metric or a weight is not finite, or validation failed (the state before is
            kept); the state cannot be used; another process is training here; out of memory on the device.
        Interrupted: Ctrl-C or SIGTERM: the state has been saved, unless a second one aborted it.
        OSError: a file cannot be written; the state before is kept.
    """
    if epochs < 1:
        raise InputError(f"the number of epochs must be at least 1, not {epochs}")
    if patience is not None and patience < 1:
        raise InputError(f"the patience must be at least 1 epoch, not {patience}")
    if tensorboard:
        require_tensorboard()
    first = ranks.rank() == 0
    with run.locked(), StopRequest() as stop, contextlib.ExitStack() as closing:
        try:
            progress = _begin(trainer, run)
        except KeyboardInterrupt:
            raise Interrupted("Stopped before the first step; run the same command again.") from None
        display = EpochProgress(epochs, quiet=quiet or not first)
        closing.callback(display.close)
        loop = _Loop(
            trainer=trainer, run=run, progress=progress, stop=stop, display=display, notify=notify if first else _ignore
        )
        if tensorboard and first and _stop_reason(progress, trainer.monitor, epochs, patience) is None:
            loop.board = TensorBoardLog(run.path(TENSORBOARD_FOLDER), progress.history)
            closing.callback(loop.board.close)
        return loop.run_until(epochs, patience)


def _ignore(sentence: str) -> None:
    pass


def _begin(trainer: Trainer, run: TrainingRun) -> Progress:
    """Bring the trainer to where the run is, and the run's other files to what its state says."""
    if ranks.rank() == 0:
        run.tidy()
    progress = load_state(run, trainer)
    if progress is None:
        progress = Progress()
        save_state(run, trainer, progress)

    def agree() -> None:
        settle(run, progress.best)
        _write_metrics(run, progress)

    ranks.on_first_rank(agree)
    return progress


def _stop_reason(progress: Progress, monitor: str, epochs: int, patience: int | None) -> StopReason | None:
    """Whether a run with this history is done; of nothing else, so that a resumed run ends where it would have."""
    done = len(progress.history)
    if done >= epochs:
        return "epochs"
    if patience is not None and done - best_epoch(progress.history, monitor) >= patience:
        return "patience"
    return None


class _Loop:
    def __init__(
        self,
        *,
        trainer: Trainer,
        run: TrainingRun,
        progress: Progress,
        stop: StopRequest,
        display: EpochProgress,
        notify: Callable[[str], None],
    ) -> None:
        self.board: TensorBoardLog | None = None
        self._trainer = trainer
        self._run = run
        self._progress = progress
        self._stop = stop
        self._display = display
        self._notify = notify
        self._saved = self._where()
        self._trained = False
        self._warned = False
        self._drawn = time.monotonic()

    def run_until(self, epochs: int, patience: int | None) -> FitResult:
        progress, monitor = self._progress, self._trainer.monitor
        self._tell_beginning(epochs, patience)
        try:
            while (reason := _stop_reason(progress, monitor, epochs, patience)) is None:
                self._epoch()
            ranks.on_first_rank(self._finish)
        except KeyboardInterrupt:
            raise Interrupted(
                f'Stopped at once; "{self._run.path(STATE_FILE)}" has the state {self._saved}. '
                "Run the same command again to go on from there."
            ) from None
        except RunError:
            if ranks.rank() == 0:
                with contextlib.suppress(OSError):
                    self._draw()
            raise
        if self._should_stop():
            raise Interrupted(f'Stopped; "{self._run.out}" is trained. Run the same command again for its results.')
        best = progress.history[progress.best - 1]
        return FitResult(progress.best, best[monitor], tuple(progress.history), reason)

    def _epoch(self) -> None:
        progress = self._progress
        steps = self._trainer.steps(progress.epoch)
        if steps < 1:
            raise InputError(f"there is nothing to train on: epoch {progress.epoch} has no steps; check the data")
        self._display.begin(progress.epoch, steps, progress.step)
        while progress.step < steps:
            self._step(steps)
        self._check_weights()  # first: validation with weights that are no numbers fails in some other way
        metrics = {**self._means(), **self._validate()}
        self._check_monitor(metrics)
        self._commit(metrics)
        self._trained = True
        if self._should_stop():
            raise Interrupted(
                f'Stopped after epoch {len(progress.history)}; "{self._run.path(STATE_FILE)}" has everything. '
                "Run the same command again to go on."
            )

    def _step(self, steps: int) -> None:
        progress = self._progress
        try:
            metrics = self._trainer.step(progress.epoch, progress.step)
        except torch.OutOfMemoryError as error:
            raise _out_of_memory(f"epoch {progress.epoch}, step {progress.step + 1} of {steps}", error) from error
        loss = float(metrics["loss"])
        agreed = ranks.any_rank({"stop": self._stop.requested, "broken": not math.isfinite(loss)})
        if agreed["broken"]:
            value = loss if not math.isfinite(loss) else "not finite in another process"
            self._fail(f"the loss is {value} in epoch {progress.epoch}, step {progress.step + 1} of {steps}")
        for name, value in metrics.items():
            total, count = progress.sums.get(name, (0.0, 0))
            progress.sums[name] = (total + float(value), count + 1)
        progress.step += 1
        self._display.step(loss)
        if agreed["stop"]:
            self._check_weights()
            self._save()
            raise Interrupted(
                f"Stopped in epoch {progress.epoch} after {progress.step} of {steps} steps; "
                f'"{self._run.path(STATE_FILE)}" has everything. Run the same command again to go on.'
            )

    def _means(self) -> dict[str, float]:
        means = {f"train/{name}": total / count for name, (total, count) in self._progress.sums.items()}
        return ranks.mean_over_ranks(means)

    def _validate(self) -> dict[str, float]:
        epoch = self._progress.epoch
        try:
            return {name: float(value) for name, value in self._trainer.validate(epoch).items()}
        except torch.OutOfMemoryError as error:
            raise _out_of_memory(f"the validation after epoch {epoch}", error) from error
        except (Interrupted, InputError):  # they say what to do, and are of the two kinds below
            raise
        except (RunError, ValueError) as error:  # as of embeddings that overflow, of weights that are finite still
            raise RunError(
                f'validation after epoch {epoch} failed; "{self._run.path(STATE_FILE)}" keeps the last good state, '
                f"{self._saved}, and if training has diverged, train into another folder with a lower learning rate: "
                f"{error}"
            ) from error

    def _check_monitor(self, metrics: Mapping[str, float]) -> None:
        monitor, epoch = self._trainer.monitor, self._progress.epoch
        if monitor not in metrics:
            raise KeyError(f'the trainer monitors "{monitor}" and its validation has {", ".join(metrics)}')
        if ranks.any_rank({"broken": not math.isfinite(metrics[monitor])})["broken"]:
            self._fail(f"{monitor} is {metrics[monitor]} after epoch {epoch}")

    def _check_weights(self) -> None:
        # In every process: they agree on the result, and running statistics are each one's own.
        broken = [name for name in ranks.gathered(first_not_finite(self._trainer.weights())) if name is not None]
        if broken:
            self._fail(f'the weights "{broken[0]}" are not finite in epoch {self._progress.epoch}')

    def _fail(self, what: str) -> None:
        raise RunError(
            f'{what}, so training cannot go on. "{self._run.path(STATE_FILE)}" keeps the last good state, '
            f"{self._saved}. Look for values in the data that are not numbers, or train into another folder with a "
            "lower learning rate"
        )

    def _commit(self, metrics: dict[str, float]) -> None:
        """End an epoch: the new best weights wait in the journal, the state makes it so, the other files follow."""
        progress, trainer, run = self._progress, self._trainer, self._run
        metrics = ranks.from_first_rank(metrics)
        progress.history.append(metrics)
        epoch = len(progress.history)
        improved = best_epoch(progress.history, trainer.monitor) == epoch
        if improved:
            progress.best = epoch
            ranks.on_first_rank(lambda: write_pending(run, epoch, trainer.monitor, metrics, trainer.weights()))
        progress.epoch, progress.step, progress.sums = epoch + 1, 0, {}
        self._save()

        def follow() -> None:
            settle(run, progress.best)
            _write_metrics(run, progress)
            if time.monotonic() - self._drawn > _CURVES_SECONDS:
                self._draw()

        ranks.on_first_rank(follow)
        self._display.end(epoch, metrics, trainer.monitor, improved)
        if self.board is not None:
            self.board.add(epoch, metrics)
        warning = trainer.warning(epoch, metrics)
        if warning is not None and not self._warned:  # once, not in every epoch that it lasts
            self._notify(warning)
        self._warned = warning is not None

    def _save(self) -> None:
        save_state(self._run, self._trainer, self._progress)
        self._saved = self._where()

    def _where(self) -> str:
        progress = self._progress
        if progress.step:
            return f"of epoch {progress.epoch} after {progress.step} step{'s' if progress.step > 1 else ''}"
        return f"after epoch {progress.epoch - 1}" if progress.epoch > 1 else "before the first step"

    def _finish(self) -> None:
        if self._trained or not self._run.path(CURVES_FILE).exists():
            self._draw()
        self._run.tidy()

    def _draw(self) -> None:
        if self._progress.history:
            picture = plot_curves(self._progress.history, self._trainer.monitor, self._progress.best)
            self._run.write(CURVES_FILE, picture)
        self._drawn = time.monotonic()

    def _should_stop(self) -> bool:
        return ranks.any_rank({"stop": self._stop.requested})["stop"]

    def _tell_beginning(self, epochs: int, patience: int | None) -> None:
        done = len(self._progress.history)
        if _stop_reason(self._progress, self._trainer.monitor, epochs, patience) is not None:
            self._notify(f'"{self._run.out}" has its {done} epoch{"s" if done > 1 else ""} already; nothing to train')
        elif done or self._progress.step:
            self._notify(f'Going on with "{self._run.out}", from the state {self._saved}')


def _out_of_memory(where: str, error: torch.OutOfMemoryError) -> RunError:
    return RunError(
        f"the device ran out of memory in {where}; give it smaller batches, and free it of other programs "
        f"({next(iter(str(error).splitlines()), 'no details')})"
    )


def _write_metrics(run: TrainingRun, progress: Progress) -> None:
    """Write what the state says; metrics.jsonl last, so that it being right means that all are."""
    lines = json_lines(progress.history)
    path = run.path(METRICS_FILE)
    if progress.history and not (path.exists() and path.read_bytes() == lines):
        run.write(METRICS_TABLE, parquet(progress.history))
        run.write(METRICS_FILE, lines)
