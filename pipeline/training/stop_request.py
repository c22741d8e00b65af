"""Ctrl-C and SIGTERM while training: the first is a request that the loop meets at its next step, the second aborts."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class StopRequest:
    """Context in which a first Ctrl-C or SIGTERM sets ``requested`` and a second one raises KeyboardInterrupt.

    Both signals are given back as they were. Outside of the main thread, where Python has no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
