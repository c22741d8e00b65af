"""A client with its workers for the chaos test, in processes that may be killed: ``python -m tests.chaos_client …``."""

import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dask
import distributed
from distributed.utils import get_mp_context

from manifests.errors import RunError
from pipeline import build as build_module
from pipeline.config import BuildConfig, ExecutionConfig
from pipeline.network import NetworkReference
from stylize.settings import TransferSettings
from tests.stub_engine import StubEngine

CONFIG = BuildConfig(transfer=TransferSettings(convention="raw", max_attempts=3), shard_size=20)
NETWORK = NetworkReference("random", 0, "0" * 64, None)


@dataclass(frozen=True)
class ChaosEngine:
    """Takes one face after the other, a few milliseconds each; leaves marks in a folder of which workers are at it."""

    folder: str
    sleep: float = 0.08

    def __call__(self, spec, faces, draw, on_attempt):
        self._mark("starts", str(spec.name))
        for face in faces:
            time.sleep(self.sleep)
            yield from StubEngine()(spec, [face], draw, on_attempt)
            try:
                distributed.get_worker()
            except ValueError:  # in quarantine, or in the test's own process: not to be killed
                self._mark("faces", "-")
            else:
                self._mark("faces", str(os.getpid()))

    def _mark(self, name, line):
        with open(Path(self.folder) / name, "a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def marks(folder: Path, name: str) -> list[str]:
    try:
        return (folder / name).read_text(encoding="utf-8").split()
    except FileNotFoundError:
        return []


def main(out: str, faces: str, paintings: str, folder: str) -> Iterator[str]:
    setattr(build_module, "reference", lambda *arguments: NETWORK)  # noqa: B010  # mypy takes it for private
    # Workers are copies of a process that has torch loaded already: a dozen of them, and seconds of CPU each otherwise.
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        get_mp_context()  # which sets a list of its own, once
        multiprocessing.set_forkserver_preload(["pipeline.shard_task", "tests.chaos_client"])
        try:
            build_module.build(
                out,
                faces,
                paintings,
                CONFIG,
                ExecutionConfig(workers=2),
                weights="random",
                engine=ChaosEngine(folder),
                quiet=True,
            )
        except RunError as error:
            yield str(error)


if __name__ == "__main__":
    for sentence in main(*sys.argv[1:]):
        sys.exit(sentence)
