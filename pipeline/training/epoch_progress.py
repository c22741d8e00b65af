"""What the user sees while training: a tqdm bar over the steps of the epoch, and a line per epoch, on stderr."""

import sys
from collections.abc import Mapping
from typing import Any, TextIO

from tqdm import tqdm

_SHOWN_METRICS = 6


class EpochProgress:
    """Bar on a terminal, lines wherever stderr goes.

    Args:
        epochs: how many there will be at most.
        quiet: show nothing.
        stream: where to write.
    """

    def __init__(self, epochs: int, *, quiet: bool, stream: TextIO | None = None) -> None:
        self._epochs = epochs
        self._quiet = quiet
        self._stream = sys.stderr if stream is None else stream
        self._bar: tqdm[Any] | None = None

    def begin(self, epoch: int, steps: int, done: int) -> None:
        """Begin an epoch of so many steps, of which some are done."""
        if self._quiet or not self._stream.isatty():
            return
        self._bar = tqdm(
            total=steps,
            initial=done,
            unit="step",
            desc=f"epoch {epoch}/{self._epochs}",
            file=self._stream,
            dynamic_ncols=True,
            leave=False,
        )

    def step(self, loss: float) -> None:
        """Count a step."""
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{loss:.4g}", refresh=False)
            self._bar.update()

    def end(self, epoch: int, metrics: Mapping[str, float], monitor: str, best: bool) -> None:
        """End an epoch."""
        self.close()
        if self._quiet:
            return
        first = [name for name in ("train/loss", monitor) if name in metrics]
        names = list(dict.fromkeys([*first, *metrics]))[:_SHOWN_METRICS]
        numbers = "  ".join(f"{name} {metrics[name]:.4g}" for name in names)
        print(f"epoch {epoch}/{self._epochs}: {numbers}{'  (best)' if best else ''}", file=self._stream, flush=True)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
