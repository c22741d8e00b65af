"""What a simulation of scale measured, and what follows from it."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from stylize.flops import evaluation_flops
from stylize.settings import TransferSettings

REAL_TFLOPS: Final = 790.0  # bf16 matrix product of one H200
REAL_EVALUATIONS: Final = 150
REAL_SIZE: Final = (178, 218)

_MIB = 2**20


@dataclass(frozen=True)
class PlanMeasure:
    """What planning a build takes, from files to shards, in a process of its own.

    Attributes:
        seconds, cpu_seconds: of reading both catalogues and laying out the shards.
        memory: growth of the resident memory at its peak, bytes; None where the system does not say.
        task_seconds: to make the task of one shard, mean of a sample.
        task_bytes: of the largest pickled task of the sample, per face.
    """

    seconds: float
    cpu_seconds: float
    memory: int | None
    task_seconds: float
    task_bytes: float


@dataclass(frozen=True)
class BuildMeasure:
    """What a complete build takes that repaints nothing; the command's process holds client, scheduler and nannies.

    Attributes:
        faces, shards: that this execution made.
        shards_found: that it found committed.
        workers: how many.
        picture_bytes: length of every stored picture.
        load: of the machine over the minute before, as the system has it.
        seconds: from the call to its end: plan, weights, start of the cluster, shards, status, end of the cluster.
        client_cpu_seconds, worker_cpu_seconds: of the command's process and of all workers, imports included.
        memory: growth of the command's process at its peak, bytes; None where the system does not say.
        hand_out_seconds: from the first task's start to the last one's end.
        worker_seconds: that workers spent within tasks, all together: reading, recording, writing.
        engine_seconds: of these, those from an engine's beginning to its end: where a real one would repaint.
        gap_seconds: that workers waited between one task and the next, all together.
        tasks: that clients have sent to the scheduler.
        transitions: of tasks between states, on the scheduler.
        messages: by workers about their progress.
        files: of the run, by folder; "" is its root.
    """

    faces: int
    shards: int
    shards_found: int
    workers: int
    picture_bytes: int
    load: float | None
    seconds: float
    client_cpu_seconds: float
    worker_cpu_seconds: float
    memory: int | None
    hand_out_seconds: float
    worker_seconds: float
    engine_seconds: float
    gap_seconds: float
    tasks: int
    transitions: int
    messages: int
    files: Mapping[str, int]

    @property
    def overhead_seconds(self) -> float:
        """Wall time of the build in which a worker was not within a task, on average: start, end and all waiting."""
        return self.seconds - self.worker_seconds / self.workers

    @property
    def fixed_seconds(self) -> float:
        """Of the overhead, what comes before the first task and after the last one."""
        return self.seconds - self.hand_out_seconds

    @property
    def around_seconds(self) -> float:
        """Seconds per shard within its task before and after the engine: opening the run, writing the shard."""
        return (self.worker_seconds - self.engine_seconds) / self.shards

    @property
    def real_seconds(self) -> float:
        """How long these faces take one H200 at the least, see `least_seconds`."""
        return least_seconds(self.faces)

    @property
    def overhead_share(self) -> float:
        """Overhead over the least time of a real run on as many H200s as there were workers."""
        return self.overhead_seconds / (self.real_seconds / self.workers)

    @property
    def client_cpu_share(self) -> float:
        """CPU seconds of the command's process over the same: other work on the machine changes it little."""
        return self.client_cpu_seconds / (self.real_seconds / self.workers)

    @property
    def gap_share(self) -> float:
        """Waiting between tasks over the same."""
        return self.gap_seconds / self.real_seconds


@dataclass(frozen=True)
class StatusMeasure:
    """What `stylize status` on the finished run takes.

    Attributes:
        command_seconds, command_cpu_seconds: of the command in a process of its own, imports included.
        read_seconds, read_cpu_seconds: of the reading itself, first call in a process of its own.
        memory: growth of that process's resident memory at its peak, bytes; None where the system does not say.
    """

    command_seconds: float
    command_cpu_seconds: float
    read_seconds: float
    read_cpu_seconds: float
    memory: int | None


@dataclass(frozen=True)
class SizeMeasure:
    """One size of input: what planning, building and asking for the status take."""

    faces: int
    paintings: int
    plan: PlanMeasure
    build: BuildMeasure
    status: StatusMeasure


@dataclass(frozen=True)
class Turn:
    """One build with the real engine.

    Attributes:
        seconds: from the first task's start to the last one's end, loading of the network included.
        worker_cpu_seconds: of all workers, imports included.
        rate: faces per second of all workers together, each one's first shard left out.
    """

    seconds: float
    worker_cpu_seconds: float
    rate: float


@dataclass(frozen=True)
class WeakScaling:
    """The real engine with one worker and with two that have twice the shards, by turns; one thread per worker.

    Attributes:
        shards, faces: per worker.
        evaluations, size: of the style transfer of every face.
        one, two: the turns.
    """

    shards: int
    faces: int
    evaluations: int
    size: tuple[int, int]
    one: Sequence[Turn]
    two: Sequence[Turn]

    @property
    def speedup(self) -> float:
        """Rate of two workers over that of one: median of the turns; 2 is perfect."""
        return statistics.median(two.rate / one.rate for one, two in zip(self.one, self.two, strict=True))


@dataclass(frozen=True)
class ScaleResult:
    """Everything that was measured.

    Attributes:
        sizes: the size asked for first, then its multiples.
        pictures: a few shards with pictures of real length, for what writing takes; None if left out.
        weak_scaling: None if left out.
        machine: its processor.
        versions: of what matters.
    """

    sizes: Sequence[SizeMeasure]
    pictures: BuildMeasure | None
    weak_scaling: WeakScaling | None
    machine: str
    versions: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it, with what follows from it."""
        document = asdict(self)
        for entry, size in zip(document["sizes"], self.sizes, strict=True):
            entry["build"] |= _derived(size.build)
        if self.pictures is not None:
            document["pictures"] |= _derived(self.pictures)
        if self.weak_scaling is not None:
            document["weak_scaling"]["speedup"] = self.weak_scaling.speedup
        return document

    def lines(self) -> list[str]:
        """Return the report."""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        lines = [f"{self.machine}; {versions}; nothing is repainted, the engine answers at once"]
        for size in self.sizes:
            lines += _size_lines(size)
        if self.pictures is not None:
            lines += ["", f"pictures of {self.pictures.picture_bytes:,} bytes:", *_build_lines(self.pictures)]
        if (weak := self.weak_scaling) is not None:
            lines += [
                "",
                f"weak scaling, real engine, {weak.faces} faces in {weak.shards} shards per worker, "
                f"{weak.evaluations} evaluations at {weak.size[0]}x{weak.size[1]}, one thread per worker:",
                *(_turns_line(name, turns) for name, turns in (("one worker", weak.one), ("two workers", weak.two))),
                f"  throughput    {weak.speedup:.2f} times one worker's, median of the turns (2 is perfect)",
            ]
        return lines


def least_seconds(faces: int) -> float:
    """Return how long one H200 needs for this many faces at the least: calculated, not measured.

    `REAL_EVALUATIONS` evaluations of each at `REAL_SIZE` at the full rate of its matrix product, one attempt per face.
    A real run takes longer, so that shares of this time are rather too large. For all of Celeb-A, 37 minutes.
    """
    width, height = REAL_SIZE
    settings = TransferSettings()
    flops = evaluation_flops(height, width, settings.style_layers, settings.content_layer)
    return faces * REAL_EVALUATIONS * flops / (REAL_TFLOPS * 1e12)


def _derived(build: BuildMeasure) -> dict[str, float]:
    names = (
        "overhead_seconds",
        "fixed_seconds",
        "around_seconds",
        "real_seconds",
        "overhead_share",
        "gap_share",
        "client_cpu_share",
    )
    return {name: getattr(build, name) for name in names}


def _size_lines(size: SizeMeasure) -> list[str]:
    plan, status = size.plan, size.status
    return [
        "",
        f"{size.faces:,} faces, {size.paintings:,} paintings:",
        f"  plan          {plan.seconds:.2f} s (CPU {plan.cpu_seconds:.2f} s), {_mib(plan.memory)}",
        f"  a task        {1e3 * plan.task_seconds:.1f} ms to make, {plan.task_bytes:,.0f} bytes per face",
        *_build_lines(size.build),
        f"  status        {status.command_seconds:.2f} s (CPU {status.command_cpu_seconds:.2f} s), the whole command",
        f"  reading it    {status.read_seconds:.2f} s (CPU {status.read_cpu_seconds:.2f} s), {_mib(status.memory)}",
    ]


def _build_lines(build: BuildMeasure) -> list[str]:
    load = "" if build.load is None else f", load {build.load:.1f}"
    found = f", {build.shards_found:,} found committed" if build.shards_found else ""
    files = ", ".join(f"{count:,} in {folder or 'the root'}" for folder, count in sorted(build.files.items()))
    return [
        f"  build         {build.seconds:.1f} s in all with {build.workers} workers: {build.faces:,} faces in "
        f"{build.shards:,} shards{found}; CPU of the command {build.client_cpu_seconds:.1f} s, of workers "
        f"{build.worker_cpu_seconds:.1f} s, "
        f"{_mib(build.memory)} in the command{load}",
        f"  in tasks      {build.worker_seconds:.1f} s, {1e3 * build.worker_seconds / build.shards:.0f} ms per shard, "
        f"of which {1e3 * build.around_seconds:.0f} ms before and after the engine",
        f"  waiting       {build.gap_seconds:.1f} s between tasks, {1e3 * build.gap_seconds / build.shards:.0f} ms per "
        f"shard; {build.fixed_seconds:.1f} s before the first task and after the last",
        f"  scheduler     {build.tasks:,} tasks, {build.transitions:,} transitions, {build.messages:,} messages",
        f"  files         {files}",
        f"  overhead      {build.overhead_seconds:.1f} s, {build.overhead_share:.2%} of the least time of a real run, "
        f"{build.real_seconds:,.0f} s of one H200 (calculated; nothing ran on CUDA)",
        f"                waiting between tasks alone is {build.gap_share:.2%}, CPU of the command "
        f"{build.client_cpu_share:.2%}",
    ]


def _mib(count: int | None) -> str:
    return "memory not measured" if count is None else f"{count / _MIB:,.0f} MiB"


def _turns_line(name: str, turns: Sequence[Turn]) -> str:
    rates, seconds, cpu = (
        ", ".join(f"{getattr(turn, field):.1f}" for turn in turns)
        for field in ("rate", "seconds", "worker_cpu_seconds")
    )
    return f"  {name:13} {rates} faces/s; {seconds} s in all, CPU {cpu} s"
