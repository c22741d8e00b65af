"""Ctrl-C and SIGTERM: the client's to handle, once, and nobody else's."""

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def terminate_like_interrupt() -> Iterator[None]:
    """Treat SIGTERM, which batch systems send, as Ctrl-C; give both signals back as they were."""
    if not _in_main_thread():
        yield
        return

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def interrupt_ignored() -> Iterator[None]:
    """Ignore Ctrl-C meanwhile. Processes started here ignore it for good: a terminal sends it to the whole group."""
    if not _in_main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def ignore_interrupts() -> None:
    """Ignore Ctrl-C and SIGTERM from now on: a second one while workers are being closed would leave them behind."""
    if _in_main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def dask_setup(worker: object) -> None:
    """Preload hook of local workers: one that its nanny has restarted ignores Ctrl-C, too."""
    if _in_main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
