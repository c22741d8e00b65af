"""Measure everything but the repainting: whole builds, of any size, with an engine that answers at once."""

import dataclasses
import os
import pickle
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from manifests.errors import InputError, RunError
from manifests.faces import read_faces
from manifests.paintings import read_paintings
from manifests.run import RunDirectory
from manifests.schema import SPLITS
from manifests.status import read_status
from pipeline.build import build
from pipeline.config import BuildConfig, ExecutionConfig
from pipeline.demo.cartoon_faces import draw_celeba
from pipeline.demo.procedural_paintings import draw_wikiart
from pipeline.instant_engine import TOPIC as ENGINE_TOPIC
from pipeline.instant_engine import InstantEngine
from pipeline.network import NetworkReference, reference
from pipeline.plan import Plan, make_plan
from pipeline.progress import TOPIC as PROGRESS_TOPIC
from pipeline.run_document import input_paths, run_document
from pipeline.scale_inputs import CELEBA_FACES, WIKIART_PAINTINGS, write_celeba, write_wikiart
from pipeline.scale_result import (
    REAL_SIZE,
    BuildMeasure,
    PlanMeasure,
    ScaleResult,
    SizeMeasure,
    StatusMeasure,
    Turn,
    WeakScaling,
)
from pipeline.shard_task import run_shard
from pipeline.task_timeline import Timeline, recorded
from stylize.errors import WeightsError
from stylize.resident_memory import peak_growth
from stylize.settings import TransferSettings

GROWTH: Final = (1, 10)
PICTURE_BYTES: Final = round(2.3 * REAL_SIZE[0] * REAL_SIZE[1])  # of a lossless proxy, see `pipeline.estimate`
_FACES, _PAINTINGS, _OUT = "celeba", "wikiart", "out"
_TASKS_SAMPLED = 20
_VERSIONED = ("stylize", "torch", "pyarrow", "dask", "distributed")
# Of the weak scaling: small enough for a minute or two of one core, large enough that repainting is what takes time.
_WEAK = TransferSettings(evaluations=10, size=(48, 56), threshold=1e9, tolerance=0.0, give_up=False, precision="fp32")
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

T = TypeVar("T")


@dataclass(frozen=True)
class Weak:
    """How to measure weak scaling: in how many turns, and how much each worker gets to do in one; two shards at least.

    Every worker's first shard, for which it loads the network, does not count for the rate.
    """

    turns: int = 3
    shards: int = 4
    shard_size: int = 4
    transfer: TransferSettings = _WEAK


@dataclass(frozen=True)
class Inputs:
    """Synthetic catalogues on disk."""

    root: Path
    faces: int
    paintings: int

    @property
    def face_folder(self) -> Path:
        """Where the faces are."""
        return self.root / _FACES

    @property
    def painting_folder(self) -> Path:
        """Where the paintings are."""
        return self.root / _PAINTINGS

    def write(self) -> None:
        """Write them; OSError."""
        write_celeba(self.face_folder, self.faces)
        write_wikiart(self.painting_folder, self.paintings)


@dataclass(frozen=True)
class BuildJob:
    """A build to measure.

    Attributes:
        inputs: its faces and paintings.
        out: where the run goes.
        shard_size, workers: as for `simulate`.
        limit: build this many faces only.
        driven: have at most about this many faces built, and the other shards there before (`fill`).
        picture_bytes: length of every stored picture.
    """

    inputs: Inputs
    out: Path
    shard_size: int
    workers: int = 1
    limit: int | None = None
    driven: int | None = None
    picture_bytes: int = 64

    @property
    def config(self) -> BuildConfig:
        """What `pipeline.build` is asked for."""
        return BuildConfig(shard_size=self.shard_size, limit=self.limit)

    @property
    def engine(self) -> InstantEngine:
        """What takes the place of repainting."""
        return InstantEngine(np.random.default_rng(0).bytes(self.picture_bytes))


def simulate(
    faces: int = CELEBA_FACES,
    paintings: int = WIKIART_PAINTINGS,
    *,
    growth: Sequence[int] = GROWTH,
    driven: int = CELEBA_FACES,
    shard_size: int = 512,
    workers: int = 1,
    picture_shards: int = 8,
    weak: Weak | None = Weak(),
    folder: str | os.PathLike[str] | None = None,
    notify: Callable[[str], None] = lambda sentence: None,
) -> ScaleResult:
    """Measure plan, build and status of synthetic inputs, and weak scaling of the real engine.

    Annotation files, names and folders are Celeb-A's and WikiArt's; every image is a link to one tiny picture. The
    build is the real one, cluster included, with `pipeline.instant_engine` in the place of the engine. Each
    measurement has a process of its own. Everything is written to a temporary folder and removed.

    Args:
        faces, paintings: of the first size.
        growth: the sizes, as multiples of the first.
        driven: build about this many faces of any size; of a larger one the other shards are there before (`fill`).
        shard_size: faces per shard.
        workers: local ones, of one thread each. With one, the build is that of one GPU.
        picture_shards: this many shards are also built with pictures of a real proxy's length; 0 leaves that out.
        weak: None leaves weak scaling out.
        folder: where to make the temporary folder; None is the system's place. Ten times Celeb-A takes 2 GB and, on
            file systems that count files (not links), a few thousand.
        notify: called with what is being done.

    Raises:
        InputError: a number that makes no sense.
        RunError: the folder cannot be written, a build failed, or a measuring process died.
    """
    counts = {"faces": faces, "paintings": paintings, "faces_to_build": driven, "workers": workers}
    _check(growth=growth, picture_shards=picture_shards, weak=weak, shard_size=shard_size, **counts)
    try:
        with tempfile.TemporaryDirectory(prefix="stylize-scale-", dir=folder) as place:
            root = Path(place).resolve()
            sizes: list[SizeMeasure] = []
            pictures = None
            for factor in growth:
                inputs = Inputs(root / f"times-{factor}", faces * factor, paintings * factor)
                notify(f"writing the names of {inputs.faces:,} faces and {inputs.paintings:,} paintings")
                inputs.write()
                sizes.append(_measure_size(inputs, shard_size, workers, driven, notify))
                if picture_shards and pictures is None:
                    notify(f"building {picture_shards} shards with pictures of {PICTURE_BYTES:,} bytes")
                    limit = picture_shards * shard_size
                    out = root / "pictures"
                    job = BuildJob(inputs, out, shard_size, workers, limit=limit, picture_bytes=PICTURE_BYTES)
                    pictures = _apart(measure_build, job)
                    shutil.rmtree(out)
                shutil.rmtree(inputs.root)
            scaling = None if weak is None else _measure_weak(root / "weak", weak, notify)
    except OSError as error:
        raise RunError(f"the temporary folder cannot be written ({error.strerror or error})") from error
    versions = {"Python": platform.python_version(), **{name: metadata.version(name) for name in _VERSIONED}}
    return ScaleResult(sizes, pictures, scaling, _machine(), versions)


def measure_plan(inputs: Inputs, shard_size: int) -> PlanMeasure:
    """Plan a build in this process; what is imported only when it is needed, counts."""
    started, cpu_started = time.perf_counter(), time.process_time()
    plan, memory = peak_growth(lambda: _plan(inputs, shard_size))
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    names = list(plan.shards)
    sample = [names[at] for at in np.unique(np.linspace(0, len(names) - 1, _TASKS_SAMPLED).astype(int))]
    network = NetworkReference("random", 0, "0" * 64, None)
    started = time.perf_counter()
    specs = [plan.spec(name, network, "OUT") for name in sample]
    task_seconds = (time.perf_counter() - started) / len(specs)
    largest = max(len(pickle.dumps(spec)) / spec.faces.num_rows for spec in specs)
    return PlanMeasure(seconds, cpu_seconds, memory, task_seconds, largest)


def _plan(inputs: Inputs, shard_size: int) -> Plan:
    faces, paintings = read_faces(inputs.face_folder), read_paintings(inputs.painting_folder)
    plan = make_plan(faces, paintings, BuildConfig(shard_size=shard_size))
    assert plan.face_count == sum(map(len, plan.shards.values())) == inputs.faces
    return plan


def measure_build(job: BuildJob) -> BuildMeasure:
    """Build in this process, which must not have children of its own, with an engine that answers at once.

    Raises:
        InputError, WeightsError, RunError: as `pipeline.build.build`.
    """
    load = _load()
    if job.driven is not None:
        fill(job)
    children = _children_cpu()
    started, cpu_started = time.perf_counter(), time.process_time()
    with recorded(ENGINE_TOPIC) as timeline:
        summary, memory = peak_growth(
            lambda: build(
                job.out,
                job.inputs.face_folder,
                job.inputs.painting_folder,
                job.config,
                ExecutionConfig(workers=job.workers),
                weights="random",
                quiet=True,
                engine=job.engine,
            )
        )
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    shards = _of_shards(timeline)
    return BuildMeasure(
        faces=sum(told["faces"] for told in timeline.kept),
        shards=summary.shards_done,
        shards_found=summary.shards_skipped,
        workers=job.workers,
        picture_bytes=job.picture_bytes,
        load=load,
        seconds=seconds,
        client_cpu_seconds=cpu_seconds,
        worker_cpu_seconds=_children_cpu() - children,
        memory=memory,
        hand_out_seconds=shards.span,
        worker_seconds=shards.busy,
        engine_seconds=sum(told["ended"] - told["began"] for told in timeline.kept),
        gap_seconds=sum(shards.gaps()),
        tasks=timeline.submitted,
        transitions=timeline.transitions,
        messages=timeline.messages[PROGRESS_TOPIC],
        files=_files(job.out),
    )


def fill(job: BuildJob) -> None:
    """Make the run of a job with all shards but as many as `driven` faces fill, evenly spread, and the splits' last.

    One shard is built here; the others are copies of its files. Their rows are therefore not theirs: what counts files
    and rows does not mind, `stylize verify` would.
    """
    faces, paintings = read_faces(job.inputs.face_folder), read_paintings(job.inputs.painting_folder)
    plan = make_plan(faces, paintings, job.config)
    network = reference("random", job.config.seed, job.config.transfer.convention)
    paths = input_paths(faces=job.inputs.face_folder, paintings=job.inputs.painting_folder, weights=network.source)
    run = RunDirectory.create(job.out, run_document(plan, network, paths))
    whole = [name for name, positions in plan.shards.items() if len(positions) == job.shard_size]
    whole = [name for name in whole if name.index + 1 < name.count]
    there = len(whole) - (job.driven or 0) // job.shard_size
    if there < 1:
        return
    first, *others = (whole[at] for at in np.linspace(0, len(whole) - 1, there).round().astype(int))
    run_shard(plan.spec(first, network, run.url), job.engine)
    for name in others:
        shutil.copyfile(run.path(first.data_file), run.path(name.data_file))
        shutil.copyfile(run.path(first.manifest_file), run.path(name.manifest_file))


def measure_status(out: Path) -> StatusMeasure:
    """Ask for the status of a finished run: from the command line, and in this process."""
    children = _children_cpu()
    started = time.perf_counter()
    # As a user types it. -P: nothing of the current folder is taken for our module.
    command = [sys.executable, "-P", "-m", "cli", "status", str(out)]
    told = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    command_seconds = time.perf_counter() - started
    if told.returncode:
        raise RunError(f"stylize status failed: {told.stderr.strip()}")
    command_cpu = _children_cpu() - children
    started, cpu_started = time.perf_counter(), time.process_time()
    _, memory = peak_growth(lambda: read_status(out))
    return StatusMeasure(
        command_seconds, command_cpu, time.perf_counter() - started, time.process_time() - cpu_started, memory
    )


def measure_turn(place: Path, out: Path, weak: Weak, workers: int) -> Turn:
    """Repaint drawn faces with the real engine, in this process and its workers."""
    faces = workers * weak.shards * weak.shard_size
    config = BuildConfig(weak.transfer, shard_size=weak.shard_size, splits=("train",), limit=faces)
    children = _children_cpu()
    with recorded() as timeline:
        build(
            out,
            place / _FACES,
            place / _PAINTINGS,
            config,
            ExecutionConfig(workers=workers),
            weights="random",
            quiet=True,
        )
    shards = _of_shards(timeline)
    if len(shards.tasks) != workers * weak.shards:
        raise RunError(f"{len(shards.tasks)} shards were made, not {workers * weak.shards}")
    return Turn(shards.span, _children_cpu() - children, weak.shard_size * shards.steady_rate())


def _measure_size(
    inputs: Inputs, shard_size: int, workers: int, driven: int, notify: Callable[[str], None]
) -> SizeMeasure:
    notify("planning")
    plan = _apart(measure_plan, inputs, shard_size)
    notify(f"building {min(inputs.faces, driven):,} faces without repainting them")
    job = BuildJob(inputs, inputs.root / _OUT, shard_size, workers, driven=driven if driven < inputs.faces else None)
    built = _apart(measure_build, job)
    notify("asking for the status")
    return SizeMeasure(inputs.faces, inputs.paintings, plan, built, _apart(measure_status, job.out))


def _measure_weak(place: Path, weak: Weak, notify: Callable[[str], None]) -> WeakScaling:
    assert weak.transfer.size is not None
    faces = 2 * weak.shards * weak.shard_size
    # About 70 % of the identities are in train; one in two is so however few there are, from four on.
    draw_celeba(place / _FACES, identities=max(4, faces), images_per_identity=2, size=weak.transfer.size)
    draw_wikiart(place / _PAINTINGS, size=(96, 120))
    taken: dict[int, list[Turn]] = {1: [], 2: []}
    for turn in range(weak.turns):
        for workers in (1, 2):
            notify(f"weak scaling, turn {turn + 1} of {weak.turns}, workers: {workers}")
            out = place / f"{_OUT}-{turn}-{workers}"
            taken[workers].append(_apart(measure_turn, place, out, weak, workers, environment=_ONE_THREAD))
    return WeakScaling(
        shards=weak.shards,
        faces=weak.shards * weak.shard_size,
        evaluations=weak.transfer.evaluations,
        size=weak.transfer.size,
        one=taken[1],
        two=taken[2],
    )


def _of_shards(timeline: Timeline) -> Timeline:
    """Return the timeline of the shards' tasks alone; a build may send others."""
    shards = {key: span for key, span in timeline.tasks.items() if key.split("-")[0] in SPLITS}
    return dataclasses.replace(timeline, tasks=shards)


def _apart(function: Callable[..., T], *arguments: Any, environment: Mapping[str, str] | None = None) -> T:
    """Call a function of this module in a fresh process: its imports, memory and CPU seconds are its own."""
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(sender, dict(environment or {}), function, arguments))
    process.start()
    sender.close()  # ours: the child's end alone says whether it is alive
    try:
        result, error = receiver.recv()
    except EOFError:
        raise RunError("a measuring process died, most likely for want of memory; measure a smaller size") from None
    finally:
        process.join()
    if error is not None:
        raise error
    answer: T = result
    return answer


def _call(
    sender: Connection, environment: dict[str, str], function: Callable[..., T], arguments: Sequence[Any]
) -> None:
    os.environ.update(environment)
    try:
        sender.send((function(*arguments), None))
    except (InputError, RunError, WeightsError, OSError) as error:
        sender.send((None, error))


def _files(out: Path) -> dict[str, int]:
    """Count the files of a run by folder."""
    return {
        "" if folder == str(out) else os.path.relpath(folder, out): len(names)
        for folder, _, names in os.walk(out)
        if names
    }


def _children_cpu() -> float:
    """CPU seconds of all children of this process that have ended; 0 on Windows."""
    times = os.times()
    return times.children_user + times.children_system


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def _machine() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = {line.split(":", 1)[1].strip() for line in file if line.startswith("model name")}
        name = min(names)
    except (OSError, ValueError):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def _check(*, growth: Sequence[int], picture_shards: int, weak: Weak | None, **counts: int) -> None:
    least = {name.replace("_", " "): (count, 1) for name, count in counts.items()}
    least["multiple in growth"] = (min(growth, default=0), 1)
    least["shards with pictures"] = (picture_shards, 0)
    if weak is not None:
        least |= {"turns": (weak.turns, 1), "shards per worker": (weak.shards, 2)}
    for name, (value, bound) in least.items():
        if value < bound:
            raise InputError(f"{name}: at least {bound}, not {value}")
