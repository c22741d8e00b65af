"""Faces that kill the process that repaints them, and innocents that only were near when a process died."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from manifests import shard_journal
from manifests.attributes import ATTRIBUTES
from manifests.errors import RunError
from manifests.image_source import ImageSource
from manifests.run import RunDirectory
from manifests.shard_journal import ShardJournal, journal_key, read_journal
from manifests.shard_name import ShardName
from manifests.shard_rewrite import read_shard
from manifests.verify import verify
from pipeline import shard_task
from pipeline.network import NetworkReference
from pipeline.plan import ShardSpec
from pipeline.quarantine import POISON_DEATHS, SUSPICIOUS_DEATHS, Quarantine, _Trial, repaint_apart
from pipeline.shard_inputs import face_jobs, painting_draws, part_of
from pipeline.shard_task import Stopped, run_shard, stop
from stylize.errors import WeightsError
from stylize.settings import TransferSettings
from tests.deadly_engine import DeadlyEngine
from tests.small_inputs import write_faces, write_paintings
from tests.small_run import run_content
from tests.stub_engine import StubEngine

COUNT = 12
NAME = ShardName("train", 0, 1)


@pytest.fixture
def spec(tmp_path):
    write_faces(tmp_path / "celeba", COUNT)
    write_paintings(tmp_path / "wikiart", 6)
    run = RunDirectory.create(tmp_path / "OUT", run_content({"train": COUNT}, COUNT))
    faces = [
        {"image_id": f"{number:06d}.jpg", "split": "train", "identity": 1, "locator": f"{number:06d}.jpg"}
        | dict.fromkeys(ATTRIBUTES, True)
        for number in range(1, COUNT + 1)
    ]
    root = tmp_path / "wikiart"
    locators = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    paintings = [
        {"painting": locator, "locator": locator, "artist": "A", "genre": None, "style": "S"} for locator in locators
    ]
    return ShardSpec(
        name=NAME,
        faces=pa.Table.from_pylist(faces),
        paintings=pa.Table.from_pylist(paintings),
        draws=np.stack([np.roll(np.arange(6), shift) for shift in range(COUNT)]).astype(np.int32),
        face_source=ImageSource("folder", str(tmp_path / "celeba" / "img_align_celeba")),
        painting_source=ImageSource("folder", str(root)),
        settings=TransferSettings(convention="raw"),
        network=NetworkReference("random", 0, "0" * 64, None),
        root=run.url,
        token=str(tmp_path),
    )


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(shard_journal, "FLUSH_SECONDS", 0.001)


def faces_of(spec):
    return spec.faces["image_id"].to_pylist()


def starts(log):
    """The faces of every start of the engine in another process than this one."""
    lines = [line.split() for line in log.read_text().splitlines()]
    return [faces for pid, *faces in lines if int(pid) != os.getpid()]


@pytest.fixture(scope="module")
def quarantine():
    """One for all tests: it takes seconds to load what it needs."""
    with Quarantine() as shared:
        yield shared


@pytest.fixture
def apart(spec, quarantine):
    def call(engine, faces=None, on_attempt=lambda face, attempt: None):
        results = repaint_apart(spec, faces or faces_of(spec), engine, on_attempt, quarantine)
        return {result.key: result for result in results}

    return call


def test_innocents_are_tried_in_one_process_and_count_like_any_other(spec, apart, log):
    attempts = []
    results = apart(DeadlyEngine(str(log)), on_attempt=lambda face, attempt: attempts.append((face, attempt)))
    calm = {result.key: result for result in _calm(spec)}
    assert results == calm
    assert sorted(attempts, key=str) == sorted(
        ((face, attempt) for face, result in calm.items() for attempt in result.attempts), key=str
    )
    assert starts(log) == [faces_of(spec)]


def _calm(spec):
    jobs = face_jobs(spec, lambda face: None)
    return StubEngine()(spec, jobs, painting_draws(spec), lambda face, attempt: None)


@pytest.mark.parametrize(
    ("how", "sentence"), [("SIGSEGV", "was killed by SIGSEGV"), ("exit", "ended with exit code 7")]
)
def test_a_face_that_kills_its_process_alone_is_poison_and_nothing_else_is(spec, apart, log, how, sentence):
    guilty = faces_of(spec)[2]
    results = apart(DeadlyEngine(str(log), (guilty,), how), faces_of(spec)[:4])
    assert len(results) == 4
    assert results[guilty].status == "failed"
    assert (
        results[guilty].error == f"poison: a process that repainted nothing but this face {sentence}, 2 times in a row"
    )
    assert all(result.status != "failed" for face, result in results.items() if face != guilty)
    assert starts(log).count([guilty]) == POISON_DEATHS


def test_a_lone_child_that_dies_once_is_given_another_chance(spec, apart, log, tmp_path):
    fuse = tmp_path / "fuse"
    fuse.touch()
    face = faces_of(spec)[0]
    results = apart(DeadlyEngine(str(log), fuse=str(fuse)), [face])
    assert results[face].status != "failed"
    assert starts(log) == [[face], [face]]


def test_what_had_been_begun_is_halved_and_the_rest_stays_together():
    trial = _Trial(["a", "b", "c", "d", "e", "f"])
    del trial.left["a"]
    trial.begun = {"a", "b", "c", "d"}
    assert trial.smaller() == [["b", "c"], ["d"], ["e", "f"]]
    trial.begun = {"a"}  # died between two faces
    assert trial.smaller() == [["b", "c", "d"], ["e", "f"]]
    trial.left.clear()
    assert trial.smaller() == []
    assert _Trial(["a", "b"]).smaller() == [["a", "b"]]  # not begun: try again as they are


def test_an_exception_in_the_child_is_raised_here(spec, apart, log):
    with pytest.raises(WeightsError, match="of another network"):
        apart(DeadlyEngine(str(log), (faces_of(spec)[0],), "raise"))


def test_a_child_that_cannot_begin_condemns_nobody(spec, log, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with Quarantine() as quarantine, pytest.raises(RunError, match=r"of its own, .* ended with exit code 1 before"):
        list(repaint_apart(spec, faces_of(spec), DeadlyEngine(str(log)), lambda face, attempt: None, quarantine))


def test_a_stop_ends_the_trial_and_the_next_one_begins_anew(spec, apart, log):
    def stopped(face, attempt):
        raise Stopped

    with pytest.raises(Stopped):
        apart(DeadlyEngine(str(log)), on_attempt=stopped)
    assert len(apart(DeadlyEngine(str(log)))) == COUNT


def test_a_trial_ends_when_its_worker_is_gone(spec, quarantine, log, tmp_path):
    """The worker may be killed in the middle of one; nobody else would end the processes."""
    pid = tmp_path / "pid"
    messages = quarantine.messages(spec, DeadlyEngine(str(log), hangs=str(pid)))
    assert next(messages) == ("begun", faces_of(spec)[0])
    _wait(lambda: pid.exists() and pid.read_text())
    server = quarantine._process
    assert server is not None
    server.stdin.close()  # as the death of this process does
    assert server.wait(60) == 1
    _wait(lambda: not _alive(int(pid.read_text())))
    messages.close()


def _alive(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def _wait(condition):
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("waited in vain")


def deaths(spec, count, faces):
    """Leave what executions leave that die with these faces in progress."""
    run = RunDirectory.open(spec.root)
    for _ in range(count):
        journal = ShardJournal(run, NAME, journal_key(run, NAME, faces_of(spec)), list(faces))
        for face in faces:
            journal.begin(face)


def test_a_worker_that_dies_of_a_face_dies_twice_and_the_shard_is_made(spec, log):
    """The whole story, each execution in a process of its own: two deaths, then the face is tried apart."""
    guilty = faces_of(spec)[3]
    engine = DeadlyEngine(str(log), (guilty,))
    executions = 0
    while NAME not in RunDirectory.open(spec.root).committed():
        executions += 1
        code = _run_elsewhere(spec, engine)
        assert (code == -signal.SIGKILL) == (executions <= SUSPICIOUS_DEATHS), code
        assert executions <= SUSPICIOUS_DEATHS + 1
    rows = {row.image_id: row for row in read_shard(RunDirectory.open(spec.root), NAME).rows}
    assert list(rows) == faces_of(spec)
    assert {face for face, row in rows.items() if row.status == "failed"} == {guilty}
    assert (rows[guilty].error or "").startswith("poison: ")
    assert not (Path(spec.root) / "journal").exists()
    begun = [face for faces in starts(log) for face in faces]
    assert begun.count(guilty) == SUSPICIOUS_DEATHS + POISON_DEATHS + 1  # once in a group


def _run_elsewhere(spec, engine):
    """A copy of this process, which need not load everything again."""
    process = multiprocessing.get_context("fork").Process(target=run_shard, args=(spec, engine))
    process.start()
    process.join()
    return process.exitcode


def test_one_death_makes_no_suspect(spec, log):
    deaths(spec, SUSPICIOUS_DEATHS - 1, faces_of(spec)[:3])
    run_shard(spec, DeadlyEngine(str(log)))
    assert starts(log) == []


def test_suspects_come_last_and_the_summary_names_the_guilty(spec, log, quarantine, monkeypatch):
    monkeypatch.setattr(shard_task, "Quarantine", lambda environment: contextlib.nullcontext(quarantine))
    suspects = faces_of(spec)[1:4]
    deaths(spec, SUSPICIOUS_DEATHS, suspects)
    summary = run_shard(spec, DeadlyEngine(str(log), (suspects[1],)))
    assert summary.poisoned == (suspects[1],)
    assert summary.counts["faces"] == COUNT
    assert summary.counts["failed"] == 1
    first, *later = [line.split()[1:] for line in log.read_text().splitlines()]
    assert first == [face for face in faces_of(spec) if face not in suspects]
    assert later[0] == suspects
    assert [row.image_id for row in read_shard(RunDirectory.open(spec.root), NAME).rows] == faces_of(spec)


def test_faces_of_the_journal_are_not_done_again_and_the_files_are_the_same(spec, log, tmp_path):
    run_shard(spec, StubEngine())
    calm = {path: path.read_bytes() for path in Path(spec.root).rglob("*.parquet")}
    for path in calm:
        path.unlink()
    done = faces_of(spec)[5:9]
    run = RunDirectory.open(spec.root)
    journal = ShardJournal(run, NAME, journal_key(run, NAME, faces_of(spec)), faces_of(spec))
    described = shard_task.Description(spec)
    for result in _calm(part_of(spec, done)):
        journal.finish(described.row(result))
    journal.close()
    summary = run_shard(spec, DeadlyEngine(str(log)))
    assert summary.resumed == len(done)
    assert summary.counts["faces"] == COUNT
    assert log.read_text().split()[1:] == [face for face in faces_of(spec) if face not in done]
    assert {path: path.read_bytes() for path in Path(spec.root).rglob("*.parquet")} == calm
    assert verify(spec.root).counts["shards"] == 1


def test_a_shard_that_needs_nothing_but_its_commit_starts_no_engine(spec):
    run = RunDirectory.open(spec.root)
    journal = ShardJournal(run, NAME, journal_key(run, NAME, faces_of(spec)), faces_of(spec))
    described = shard_task.Description(spec)
    kept = [described.row(result) for result in _calm(spec)]
    for row in kept:
        journal.finish(row)
    journal.close()
    summary = run_shard(spec, StubEngine(raises=RuntimeError("must not run")))
    assert summary.resumed == COUNT
    assert list(read_shard(run, NAME).rows) == kept[::-1]  # the stub finishes the last face first


class Pausing:
    """Hands over a few faces, then does something."""

    def __init__(self, then):
        self.then = then

    def __call__(self, spec, faces, draw, on_attempt):
        for number, face in enumerate(faces):
            if number == 3:
                self.then()
            face.read()
            yield from StubEngine()(spec, [face], draw, on_attempt)


def state(spec):
    run = RunDirectory.open(spec.root)
    return read_journal(run, NAME, journal_key(run, NAME, faces_of(spec)))


@pytest.mark.parametrize("error", [RuntimeError("no"), WeightsError("no"), KeyboardInterrupt()])
def test_an_end_that_python_saw_is_no_death_and_keeps_what_is_finished(spec, error):
    def fail():
        raise error

    with pytest.raises(type(error)):
        run_shard(spec, Pausing(fail))
    found = state(spec)
    assert list(found.rows) == faces_of(spec)[:3]
    assert found.deaths == {}


def test_a_stop_closes_the_journal_at_once_before_the_process_may_be_gone(spec):
    seen = []

    def pressed():
        stop(spec.token)
        seen.append(state(spec))

    with pytest.raises(Stopped):
        run_shard(spec, Pausing(pressed))
    assert list(seen[0].rows) == faces_of(spec)[:3]
    assert seen[0].deaths == state(spec).deaths == {}


def test_a_second_execution_that_comes_too_late_writes_nothing(spec):
    """The other one commits while this one is at work."""
    before = {}

    def commit():
        run_shard(spec, StubEngine())
        before.update({path: path.stat().st_mtime_ns for path in Path(spec.root).rglob("*.parquet")})

    summary = run_shard(spec, Pausing(commit))
    assert not summary.executed
    assert {path: path.stat().st_mtime_ns for path in Path(spec.root).rglob("*.parquet")} == before
    assert not (Path(spec.root) / "journal").exists()


def test_a_journal_that_cannot_be_written_stops_the_shard_with_the_reason(spec, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shard_journal, "publish", full)
    before = _writers()
    engine = Pausing(lambda: _wait(lambda: not _writers() - before))
    with pytest.raises(RunError, match=r"could not be written to .*OUT.*: No space left on device"):
        run_shard(spec, engine)
    assert NAME not in RunDirectory.open(spec.root).committed()


def _writers():
    return {thread for thread in threading.enumerate() if thread.name.startswith("journal-")}
