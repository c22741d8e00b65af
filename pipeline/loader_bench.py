"""Images a second of our data loader beside Hugging Face `datasets` and webdataset, on the pictures of one run.

Fair: the same encoded bytes, decoded by the same library (Pillow) to uint8 tensors, in batches of one size, by as many
DataLoader workers, which stay from epoch to epoch. Each library shuffles as its documentation says. Every contender is
run once before it is timed (so page cache and workers are warm) and compared with the others then: the same number of
pictures with the same sum of all pixels. Timed passes alternate, so that whatever else the machine does hits all.
"""

import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch

from manifests.errors import InputError, RunError
from pipeline.loader_contenders import OURS, THEIRS, Epoch, Mode, Pool, contender, gather, library

_VERSIONS: Final = ("torch", "pyarrow", "pillow", "datasets", "webdataset")


@dataclass(frozen=True)
class ModeMeasure:
    """One mode, every contender.

    Attributes:
        mode: what was asked for.
        seconds: by contender, of each round.
        cpu_seconds: CPU time of each round, which other programs on the machine hardly touch; None with workers, whose
            time is not this process's.
        images: of a round, the same for all contenders.
    """

    mode: Mode
    seconds: dict[str, tuple[float, ...]]
    cpu_seconds: dict[str, tuple[float, ...]] | None
    images: int

    def rate(self, name: str) -> float:
        """Return a contender's images a second: the median of its rounds."""
        return self.images / statistics.median(self.seconds[name])

    def cpu_microseconds(self, name: str) -> float | None:
        """Return the CPU time that an image takes a contender: the median of its rounds; None with workers."""
        return None if self.cpu_seconds is None else statistics.median(self.cpu_seconds[name]) / self.images * 1e6

    def ratio(self, name: str, ours: str = OURS[0]) -> float:
        """Return how many times faster ours was than a contender: the median over the rounds."""
        pairs = zip(self.seconds[name], self.seconds[ours], strict=True)
        return statistics.median(theirs / mine for theirs, mine in pairs)


@dataclass(frozen=True)
class LoaderBench:
    """What was measured.

    Attributes:
        run: folder of the run.
        images, size: of its pictures; width and height.
        batch_size, rounds: as asked for.
        modes: in order, workers and shuffling varied.
        versions: of Python and the libraries.
        cores: of this machine that this process may use.
        load: the machine's load average over one minute, before and after; with nothing else running it ends near the
            number of workers or 1.
    """

    run: str
    images: int
    size: tuple[int, int]
    batch_size: int
    rounds: int
    modes: tuple[ModeMeasure, ...]
    versions: dict[str, str]
    cores: int
    load: tuple[float, float]

    def lines(self) -> list[str]:
        """Return what to print: images a second, and in brackets how many times as fast `ProxyLoader` was."""
        width, height = self.size
        names = list(self.modes[0].seconds)
        table = [["", *names]]
        for measure in self.modes:
            cells = [f"{measure.rate(OURS[0]):,.0f}"]
            cells += [f"{measure.rate(name):,.0f} ({measure.ratio(name):.2f})" for name in names[1:]]
            table.append([measure.mode.name, *cells])
            cpu = [measure.cpu_microseconds(name) for name in names]
            if None not in cpu:
                table.append(["CPU microseconds an image", *(f"{of:.0f}" for of in cpu)])
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        rows = ["  ".join(cell.rjust(wide) for cell, wide in zip(row, widths, strict=True)) for row in table]
        return [
            f"{self.images:,} pictures of {width}x{height}, batches of {self.batch_size}, "
            f"medians of {self.rounds} rounds; {self.cores} cores, "
            f"load {self.load[0]:.1f} before and {self.load[1]:.1f} after",
            ", ".join(f"{name} {number}" for name, number in self.versions.items()),
            "images/s (times as fast as it is stylize)",
            *rows,
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return everything measured, rates and ratios, as JSON can hold it."""
        return {
            "run": self.run,
            "images": self.images,
            "size": list(self.size),
            "batch_size": self.batch_size,
            "rounds": self.rounds,
            "versions": self.versions,
            "cores": self.cores,
            "load": list(self.load),
            "modes": [
                {
                    "shuffled": measure.mode.shuffled,
                    "workers": measure.mode.workers,
                    "images_per_round": measure.images,
                    "contenders": {
                        name: {
                            "seconds": list(seconds),
                            "images_per_second": measure.rate(name),
                            "ratio": measure.ratio(name),
                            "cpu_microseconds_per_image": measure.cpu_microseconds(name),
                        }
                        for name, seconds in measure.seconds.items()
                    },
                }
                for measure in self.modes
            ],
        }


def loader_bench(
    out: str | os.PathLike[str],
    *,
    workers: Sequence[int] = (0, 2),
    batch_size: int = 64,
    rounds: int = 11,
    images_per_round: int = 1000,
    others: bool = True,
    seed: int = 0,
    notify: Callable[[str], None] = lambda sentence: None,
) -> LoaderBench:
    """Measure our loaders and, with ``others``, those of `datasets` and webdataset, in order and shuffled.

    Args:
        out: a finished run on a local disk, with pictures of one size. It is read only; what the other libraries need
            is written into a temporary folder.
        workers: numbers of DataLoader workers to measure with.
        batch_size: pictures of a batch.
        rounds: of every contender in every mode, after one that is not counted.
        images_per_round: passes of a round are as many as it takes to read so many.
        others: also the other libraries.
        seed: of the orders, where a library takes one.
        notify: called with what is being done.

    Raises:
        InputError: a number is out of range, a library is not installed, or the run does not fit.
        RunError: a library has not read the same pictures.
    """
    numbers = (("batch_size", batch_size), ("rounds", rounds), ("images_per_round", images_per_round))
    for name, value in numbers:
        if value < 1:
            raise InputError(f"{name} must be at least 1, not {value}")
    if not workers or min(workers) < 0:
        raise InputError(f"workers are {list(workers)}; give at least one number, from 0 on")
    names = (*OURS, *THEIRS) if others else OURS
    for needed in ("datasets", "webdataset") if others else ():
        library(needed)
    if others:
        library("datasets").disable_progress_bars()
    before = os.getloadavg()[0]
    measures = []
    with tempfile.TemporaryDirectory() as folder:
        notify("writing the same pictures for the other libraries")
        pool = gather(out, Path(folder))
        passes = -(-images_per_round // pool.images)
        for count in workers:
            for shuffled in (False, True):
                mode = Mode(shuffled, count, batch_size, seed)
                notify(mode.name)
                measures.append(_measure(names, pool, mode, rounds, passes))
    return LoaderBench(
        run=pool.run.url,
        images=pool.images,
        size=pool.size,
        batch_size=batch_size,
        rounds=rounds,
        modes=tuple(measures),
        versions={
            "python": platform.python_version(),
            **{name: version(name) for name in _VERSIONS[: 5 if others else 3]},
        },
        cores=len(os.sched_getaffinity(0)),
        load=(before, os.getloadavg()[0]),
    )


def _measure(names: Sequence[str], pool: Pool, mode: Mode, rounds: int, passes: int) -> ModeMeasure:
    epochs = {name: contender(name, pool, mode) for name in names}
    sums = {name: _sum(epoch) for name, epoch in epochs.items()}
    for name, found in sums.items():
        if found != sums[names[0]] or found[0] != pool.images:
            raise RunError(
                f"{name} read {found[0]} pictures ({found[1]}), {names[0]} {sums[names[0]][0]}: not the same"
            )
    seconds: dict[str, list[float]] = {name: [] for name in names}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        # Whoever comes first after a pause is not always the same.
        for name in [*names[turn % len(names) :], *names[: turn % len(names)]]:
            start, cpu_start = time.perf_counter(), time.process_time()
            for _ in range(passes):
                for _ in epochs[name]():
                    pass
            seconds[name].append(time.perf_counter() - start)
            cpu_seconds[name].append(time.process_time() - cpu_start)
    wall, cpu = ({name: tuple(of) for name, of in kind.items()} for kind in (seconds, cpu_seconds))
    return ModeMeasure(mode, wall, None if mode.workers else cpu, passes * pool.images)


def _sum(epoch: Epoch) -> tuple[int, int]:
    """Return the number of pictures and the sum of all their pixels."""
    images = pixels = 0
    for batch in epoch():
        if batch.dtype != torch.uint8 or batch.ndim != 4 or batch.shape[1] != 3:
            raise RunError(f"a batch of {batch.dtype} {list(batch.shape)}, not uint8 [B, 3, H, W]")
        images += len(batch)
        pixels += int(batch.sum(dtype=torch.int64))
    return images, pixels
