"""`dask scheduler` and `dask worker` as processes of their own, on the loopback interface, ended with the block."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from distributed import Client

ROOT = Path(__file__).resolve().parents[1]
LOOPBACK = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0", "--no-dashboard")
WAIT_SECONDS = 60.0
Process = contextlib.AbstractContextManager[subprocess.Popen[bytes]]


@contextlib.contextmanager
def process(*command: object, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command of `dask`, or anything else of Python's `-m`; ended like a machine that is switched off."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("DASK_SCHEDULER_ADDRESS", None)
    with log.open("ab") as output:
        started = subprocess.Popen(
            [sys.executable, "-m", *map(str, command)], cwd=ROOT, env=environment, stdout=output, stderr=output
        )
    try:
        yield started
    finally:
        started.kill()
        started.wait()


@contextlib.contextmanager
def scheduler(folder: Path, *options: object) -> Iterator[Path]:
    """Run a scheduler; yield its scheduler file, which is there."""
    file = folder / "scheduler.json"
    command = ("dask", "scheduler", *LOOPBACK, "--port", 0, "--scheduler-file", file, *options)
    with process(*command, log=folder / "scheduler.log") as started:
        deadline = time.monotonic() + WAIT_SECONDS
        while not (file.is_file() and file.read_text().endswith("}")):
            assert started.poll() is None, (folder / "scheduler.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield file


def worker(address: object, folder: Path, *options: object) -> Process:
    """Run a worker of one thread without a nanny, whose process is the worker."""
    spill = ("--local-directory", folder / "spill")
    command = ("dask", "worker", address, *LOOPBACK, *spill, "--nthreads", 1, "--no-nanny", *options)
    return process(*command, log=folder / "worker.log")


def wait_for_workers(client: Client, count: int) -> None:
    client.wait_for_workers(count, timeout=WAIT_SECONDS)
