"""The metrics of a run for TensorBoard, where its package is installed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from manifests.errors import InputError
from pipeline.training.metric_log import History, finite_or_none

TENSORBOARD_FOLDER: Final = "tensorboard"


class TensorBoardLog:
    """Writer of one run's scalars, with the epoch as the step.

    Args:
        folder: where TensorBoard's files are; made if need be.
        history: epochs that are done. They are written if the folder is new; what the folder has of later epochs, of an
            attempt that died before it was saved, is marked as superseded.

    Raises:
        InputError: tensorboard is not installed.
    """

    def __init__(self, folder: Path, history: History) -> None:
        require_tensorboard()
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  # an extra

        begun = folder.exists()
        self._writer: Any = SummaryWriter(str(folder), purge_step=len(history) + 1 if begun else None)
        if not begun:
            for epoch, metrics in enumerate(history, 1):
                self.add(epoch, metrics)

    def add(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Write the metrics of an epoch."""
        for name, value in finite_or_none(metrics).items():
            if value is not None:
                self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def close(self) -> None:
        """Close the files."""
        self._writer.close()


def require_tensorboard() -> None:
    """Refuse to go on without the package; InputError."""
    try:
        import tensorboard  # noqa: F401, PLC0415
    except ImportError as error:
        raise InputError(
            "TensorBoard is not installed; install stylize[tensorboard], or train without it "
            "(metrics.parquet and curves.png have the same numbers)"
        ) from error
