"""A build on a machine that fails it: one sentence, and the same command again makes what a calm machine had made.

Driven through the command line in this process, with workers in this process, too, and an engine that does something
bad to the machine in mid-shard.
"""

import ast
import contextlib
import errno
import os
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from distributed import LocalCluster

from manifests import commit
from manifests.event_log import EventLog, read_events
from manifests.run import RunDirectory
from pipeline import build as build_module
from pipeline import shard_task
from pipeline.network import NetworkReference
from pipeline.run_history import read_executions, throughput
from tests.command_line import invoke, json_of, succeed
from tests.small_inputs import write_faces, write_paintings
from tests.stub_engine import StubEngine

ROOT = Path(__file__).parent.parent
FACES = 24
SHARDS = 8
LIMIT = 4096  # bytes
RESUME = "run the same command again to resume"
# The second measures a simulation, and is no part of a build.
MAY_LOOK = {"manifests/event_log.py", "pipeline/instant_engine.py"}


class Interfering:
    """The stub engine; does something once, when so many faces have been asked for in all."""

    def __init__(self, after: int = 10**9, act: Callable[[], object] = lambda: None) -> None:
        self.after, self.act = after, act
        self._lock = threading.Lock()

    def __call__(self, spec: Any, faces: Sequence[Any], draw: Any, on_attempt: Any) -> Iterator[Any]:
        for face in faces:
            with self._lock:
                self.after -= 1
                if self.after == 0:
                    self.act()
            yield from StubEngine()(spec, [face], draw, on_attempt)


def no_network(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(build_module, "reference", lambda source, seed, *_: NetworkReference(source, seed, "0" * 64, None))
    patch.setattr(shard_task, "repaint_shard", Interfering())


def workers() -> LocalCluster:
    http = "127.0.0.1:0"
    return LocalCluster(
        processes=False, protocol="tcp", n_workers=1, threads_per_worker=1, dashboard_address=http, silence_logs=100
    )


class Machine:
    """A folder with inputs, a run in it, and what a user would type."""

    def __init__(self, place: Path, scheduler: str, patch: pytest.MonkeyPatch) -> None:
        self.place, self.scheduler, self.patch = place, scheduler, patch
        self.faces, self.paintings, self.out = place / "celeba", place / "wikiart", place / "OUT"

    @property
    def command(self) -> tuple[object, ...]:
        inputs = ("--faces", self.faces, "--paintings", self.paintings, "--weights", "random")
        return "build", self.out, *inputs, "--shard-size", FACES // SHARDS, "--scheduler", self.scheduler

    def meanwhile(self, after: int, act: Callable[[], object]) -> None:
        """Do this to the machine after so many faces."""
        self.patch.setattr(shard_task, "repaint_shard", Interfering(after, act))

    def calm(self) -> None:
        self.patch.setattr(shard_task, "repaint_shard", Interfering())

    def picture(self, number: int) -> Path:
        return self.faces / "img_align_celeba" / f"{number:06d}.jpg"


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    with workers() as running:
        yield running.scheduler_address


@pytest.fixture
def machine(tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch) -> Machine:
    no_network(monkeypatch)
    write_faces(tmp_path / "celeba", FACES)
    write_paintings(tmp_path / "wikiart", 12)
    return Machine(tmp_path, scheduler, monkeypatch)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> dict[str, bytes]:
    """The files of a calm run."""
    place = tmp_path_factory.mktemp("calm")
    with pytest.MonkeyPatch.context() as patch:
        no_network(patch)
        write_faces(place / "celeba", FACES)
        write_paintings(place / "wikiart", 12)
        calm = Machine(place, scheduler, patch)
        succeed(*calm.command)
    return files(calm.out)


def files(out: Path) -> dict[str, bytes]:
    """Every file of the data set; run.json and the events tell of paths, times and executions."""
    found = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if name != "run.json" and not name.startswith("events/")}


def rows(out: Path) -> dict[str, dict[str, Any]]:
    return {row["image_id"]: row for path in (out / "manifest").iterdir() for row in pq.read_table(path).to_pylist()}


def committed(out: Path) -> int:
    return len(list((out / "manifest").glob("*.parquet"))) if (out / "manifest").exists() else 0


def complete_and_equal(machine: Machine, expected: dict[str, bytes], *options: object) -> None:
    """Type the same command again."""
    machine.calm()
    succeed(*machine.command, *options)
    succeed("verify", machine.out)
    assert json_of("status", machine.out)["complete"]
    assert files(machine.out) == expected


# Disks that are full, or cannot be written.


@pytest.fixture
def volume(machine: Machine) -> Iterator[Callable[..., None]]:
    """A file system of its own for OUT; call it with mount options to change them."""
    place = machine.place / "volume"
    place.mkdir()
    done = (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=10m", "tmpfs", place], capture_output=True, text=True, check=False
        )
        if shutil.which("mount")
        else None
    )
    if done is None or done.returncode:
        pytest.skip(f"no file system can be mounted here ({done.stderr.strip() if done else 'there is no mount'})")
    machine.out = place / "OUT"

    def remount(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", place], check=True)

    try:
        yield remount
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def fill(folder: Path) -> Path:
    """Write until there is no room left; returns what to delete."""
    path = folder / "filling"
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return path


@pytest.mark.parametrize("after", [1, 24])
def test_a_disk_that_fills_up(machine, expected, volume, after):
    machine.meanwhile(after, lambda: fill(machine.place / "volume"))
    sentence = refuse_after_work(machine)
    assert "could not be written to" in sentence
    assert "No space left on device" in sentence
    assert RESUME in sentence
    done = committed(machine.out)
    assert f"{done} of {SHARDS} shards are complete" in sentence
    invoke("status", machine.out)  # reads, and a full disk can be read
    again = refuse_after_work(machine)  # nothing is lost by trying too early
    assert "No space left on device" in again
    assert committed(machine.out) == done
    (machine.place / "volume" / "filling").unlink()
    complete_and_equal(machine, expected)


def refuse_after_work(machine: Machine, code: int = 1) -> str:
    """The command must end with this code and one sentence; lines of progress may come before it."""
    result = invoke(*machine.command)
    assert result.exit_code == code, result.output
    sentences = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(sentences) == 1, result.stderr
    assert result.stderr.splitlines()[-1] == sentences[0]
    assert "[Errno" not in sentences[0]
    return sentences[0]


def test_a_disk_that_is_full_from_the_beginning(machine, expected, volume):
    filling = fill(machine.place / "volume")
    sentence = refuse_after_work(machine)
    assert "No space left on device" in sentence
    assert str(machine.out) in sentence
    filling.unlink()
    complete_and_equal(machine, expected)


def test_a_volume_that_becomes_read_only(machine, expected, volume):
    """As Linux makes them after an error of the disk."""
    # Nothing may be open for writing in this moment.
    machine.meanwhile(11, lambda: _until_done(lambda: volume("ro")))
    sentence = refuse_after_work(machine)
    assert "Read-only file system" in sentence
    assert RESUME in sentence
    assert "Read-only file system" in refuse_after_work(machine)
    volume("rw")
    complete_and_equal(machine, expected)


def _until_done(act: Callable[[], None]) -> None:
    for _ in range(200):
        with contextlib.suppress(subprocess.CalledProcessError):
            return act()
        time.sleep(0.02)
    return act()


def test_a_read_only_volume(machine, expected, volume):
    volume("ro")
    sentence = refuse_after_work(machine)
    assert "Read-only file system" in sentence
    assert str(machine.out) in sentence
    volume("rw")
    complete_and_equal(machine, expected)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EDQUOT])
def test_any_reason_not_to_write(machine, expected, number):
    """Without a file system to mount: the system's answer to every writing from the eleventh face on."""
    broken = threading.Event()
    write = commit._write_durably

    def refusing(path: str, data: bytes) -> None:
        if broken.is_set():
            raise OSError(number, os.strerror(number), path)
        write(path, data)

    machine.patch.setattr(commit, "_write_durably", refusing)
    machine.meanwhile(11, broken.set)
    sentence = refuse_after_work(machine)
    assert os.strerror(number) in sentence
    assert RESUME in sentence
    broken.clear()
    complete_and_equal(machine, expected)


def test_a_limit_of_the_size_of_files(machine, expected):
    """As `ulimit -f` sets it: from the eleventh face on no file may be larger than a shard."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    machine.meanwhile(11, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1])))
    try:
        sentence = refuse_after_work(machine)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "File too large" in sentence
    assert RESUME in sentence
    complete_and_equal(machine, expected)


# Inputs that do not stay as they were.


@pytest.mark.parametrize("number", [2, 24])
def test_a_face_that_vanishes_in_mid_run_fails_alone_and_can_be_mended(machine, expected, number):
    picture = machine.picture(number)
    content = picture.read_bytes()
    machine.meanwhile(1, picture.unlink)
    result = succeed(*machine.command)
    assert "Traceback" not in result.output
    now = rows(machine.out)
    failed = {face: row for face, row in now.items() if row["status"] == "failed"}
    assert list(failed) == [picture.name]
    assert "has vanished" in failed[picture.name]["error"]
    assert failed[picture.name]["attempts"] == []
    assert len(now) == FACES
    succeed("verify", machine.out)
    # The plan is of all faces; while one is missing, the input is another.
    machine.calm()
    sentence = refuse_with_difference(machine, "--retry-failed")
    assert f"faces: this run has {FACES} images" in sentence
    assert f"now {FACES - 1} images" in sentence
    picture.write_bytes(content)
    complete_and_equal(machine, expected, "--retry-failed")


def refuse_with_difference(machine: Machine, *options: object) -> str:
    """The command must end with 2, and say which settings or inputs differ, each in a line."""
    before = files(machine.out)
    result = invoke(*machine.command, *options)
    assert result.exit_code == 2, result.output
    assert result.stderr.count("Error: ") == 1
    assert files(machine.out) == before
    return result.stderr[result.stderr.index("Error: ") :]


def test_a_painting_folder_that_loses_files_between_runs(machine, expected):
    stop_after(machine, 11)
    gone = sorted(machine.paintings.rglob("*.png"))[:3]
    kept = {path: path.read_bytes() for path in gone}
    for path in gone:
        path.unlink()
    machine.calm()
    sentence = refuse_with_difference(machine)
    assert "paintings: this run has 12 images" in sentence
    assert "now 9 images" in sentence
    for path, content in kept.items():
        path.write_bytes(content)
    complete_and_equal(machine, expected)


def stop_after(machine: Machine, count: int) -> None:
    """Have the run fail for a reason of its own."""

    def fail() -> None:
        raise RuntimeError("the machine is going down")

    machine.meanwhile(count, fail)
    assert "the machine is going down" in refuse_after_work(machine)


def test_a_painting_that_vanishes_in_mid_run_is_an_attempt_without_a_loss(machine):
    """It does not fail the face, which draws the next one: as for a painting that was damaged from the beginning."""
    for path in (gone := sorted(machine.paintings.rglob("*.png"))[:3]):
        assert path.exists()
    machine.meanwhile(1, lambda: [path.unlink() for path in gone])
    succeed(*machine.command)
    attempts = [attempt for row in rows(machine.out).values() for attempt in row["attempts"]]
    lost = [attempt for attempt in attempts if attempt["stop_reason"] == "unreadable_painting"]
    assert lost
    assert all("has vanished" in attempt["error"] and attempt["loss"] is None for attempt in lost)
    assert all(row["status"] != "failed" for row in rows(machine.out).values())
    succeed("verify", machine.out)


def test_out_that_is_deleted_in_mid_run(machine, expected):
    machine.meanwhile(11, lambda: shutil.rmtree(machine.out))
    sentence = refuse_after_work(machine)
    assert str(machine.out) in sentence
    complete_and_equal(machine, expected)


def test_out_that_is_deleted_while_its_last_shard_is_made(machine, expected):
    machine.meanwhile(FACES, lambda: shutil.rmtree(machine.out))
    refuse_after_work(machine)
    complete_and_equal(machine, expected)


@pytest.mark.parametrize("folder", ["data", "journal", "events", "manifest"])
def test_a_folder_of_the_run_that_is_deleted_in_mid_run(machine, expected, folder):
    """What was committed is made again, by this command or the next."""
    machine.meanwhile(11, lambda: shutil.rmtree(machine.out / folder, ignore_errors=True))
    invoke(*machine.command)
    for path in (machine.out / "manifest").glob("*.parquet") if folder == "data" else ():
        if not (machine.out / "data" / path.name).exists():
            path.unlink()  # as `verify` advises
    complete_and_equal(machine, expected)


# The clock.


def test_a_clock_that_goes_backwards(machine, expected):
    """By an hour at each look: no number falls, and nothing is decided by it.

    Of all that runs here only the event log looks at the clock (see the next test), and it is the log's that falls.
    """
    looks: list[float] = []

    def falling() -> float:
        looks.append(time.time() - 3600.0 * len(looks))
        return looks[-1]

    defaults = EventLog.__init__.__kwdefaults__
    assert defaults is not None
    machine.patch.setitem(defaults, "clock", falling)  # bound when the class was made
    stop_after(machine, 11)
    complete_and_equal(machine, expected)
    assert len(looks) > 10
    events = read_events(RunDirectory.open(machine.out))
    assert not events.unreadable
    executions = sorted({event.number for event in events.events})
    assert executions == [1, 2]
    for number in executions:
        told = [event for event in events.events if event.number == number]
        assert [event.sequence for event in told] == list(range(len(told)))
        elapsed = [event.elapsed for event in told]
        assert elapsed == sorted(elapsed)
        assert elapsed[0] >= 0
        assert all(value >= 0 for event in told for value in event.fields.values() if isinstance(value, float))
    times = [event.time for event in events.events]
    assert times != sorted(times)  # the log does say what the clock said
    found = throughput(read_executions(events.events))
    assert found is not None
    assert found.seconds > 0
    assert 0 < found.faces <= FACES  # what was done between the last report and the failure is not told
    assert (found.rates >= 0).all()
    page = machine.place / "status.html"
    succeed("status", machine.out, "--html", page)
    assert page.stat().st_size


def test_only_the_event_log_and_stopwatches_look_at_the_clock():
    """Rates, timeouts and decisions are by clocks that do not go backwards."""
    clocks = {"time.time", "time.time_ns", "time.localtime", "time.gmtime", "datetime.now", "datetime.utcnow"}
    found = {
        path.relative_to(ROOT).as_posix()
        for room in ("stylize", "manifests", "pipeline")
        for path in (ROOT / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in clocks
    }
    assert found <= MAY_LOOK
