"""The event log: in order whatever the clock does, never in the way of a run, and nobody's secrets in it."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from distributed import Client, LocalCluster
from hypothesis import given
from hypothesis import strategies as st

from manifests.commit import publish
from manifests.errors import RunError
from manifests.event_log import (
    EXECUTION_ENDED,
    EXECUTION_STARTED,
    FIELDS,
    POISON,
    PROGRESS,
    SEGMENT_BYTES,
    SHARD_COMMITTED,
    SHARD_RETRIED,
    SHARD_STARTED,
    WORKER_JOINED,
    WORKER_LOST,
    WORKER_REFUSED,
    EventLog,
    executions,
    read_events,
    without_places,
)
from manifests.run import RunDirectory
from manifests.status import read_status
from manifests.verify import verify
from pipeline import build as build_module
from pipeline.config import BuildConfig, ExecutionConfig
from pipeline.network import NetworkReference
from pipeline.progress import RESUMED, Progress, Reporter
from stylize.settings import TransferSettings
from tests.small_inputs import write_faces, write_paintings
from tests.small_run import run_content, write_run
from tests.stub_engine import StubEngine

TOKEN = "3fe1a2b4c5d6e7f8"
COUNTS = {"faces": 5, "accepted": 4, "rejected": 0, "failed": 1, "attempts": 7, "retries": 2}


@pytest.fixture
def run(tmp_path):
    return RunDirectory.create(tmp_path / "OUT", run_content({"train": 8}, 4))


def files(run):
    return sorted(Path(run.root, "events").iterdir())


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited for 30 s in vain"
        time.sleep(0.01)


def test_events_come_back_as_they_were_told(run):
    with EventLog(run, TOKEN) as log:
        log.append(EXECUTION_STARTED, command="build", faces=8, shards=2, faces_done=0, shards_done=0)
        log.append(SHARD_STARTED, shard="train-00000-of-00002", worker="127.0.0.1:4000", start=1)
        log.append(SHARD_COMMITTED, shard="train-00000-of-00002", seconds=None, **COUNTS)
    events = read_events(run).events
    assert [event.kind for event in events] == [EXECUTION_STARTED, SHARD_STARTED, SHARD_COMMITTED, EXECUTION_ENDED]
    assert [event.sequence for event in events] == [0, 1, 2, 3]
    assert dict(events[1].fields) == {"shard": "train-00000-of-00002", "worker": "127.0.0.1:4000", "start": 1}
    assert dict(events[2].fields) == {"shard": "train-00000-of-00002", **COUNTS}  # nothing for what is not known
    assert dict(events[3].fields) == {"outcome": "complete"}
    assert {event.execution for event in events} == {TOKEN[:12]}
    assert log.problem is None
    (file,) = files(run)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert list(lines[1])[:5] == ["sequence", "time", "elapsed", "execution", "kind"]
    assert lines[1]["time"].endswith("Z")


def test_a_clock_that_goes_backwards_does_not_change_the_order(run):
    clock = iter([1_795_000_000.25, 1_794_000_000.0, -1.0, 1_795_000_001.0])
    ticks = iter([100.0, 101.5, 101.0, 103.0, 104.0])  # one that falls, too: nobody knows what a hypervisor may do
    with EventLog(run, TOKEN, clock=lambda: next(clock), monotonic=lambda: next(ticks)) as log:
        for faces in range(3):
            log.append(PROGRESS, faces=faces)
    events = read_events(run).events
    assert [event.fields.get("faces") for event in events] == [0, 1, 2, None]
    assert [event.elapsed for event in events] == [1.5, 1.5, 3.0, 4.0]
    assert [event.time[:19] for event in events] == [
        "2026-11-18T11:06:40",
        "2026-11-06T21:20:00",
        "1969-12-31T23:59:59",
        "2026-11-18T11:06:41",
    ]


def test_executions_are_numbered_and_the_names_of_the_files_tell_the_story(run):
    for token, faces in (("ffff", 1), ("0000", 2), ("8888", 3)):
        with EventLog(run, token) as log:
            log.append(PROGRESS, faces=faces)
    assert [file.name for file in files(run)] == [
        "00001-ffff-00000.jsonl",
        "00002-0000-00000.jsonl",
        "00003-8888-00000.jsonl",
    ]
    groups = list(executions(read_events(run).events))
    assert [[event.fields.get("faces") for event in group] for group in groups] == [[1, None], [2, None], [3, None]]
    assert [group[0].number for group in groups] == [1, 2, 3]


def test_a_long_log_is_cut_into_whole_segments_and_full_ones_are_left_alone(run):
    reason = "x" * 300
    with EventLog(run, TOKEN, flush_seconds=0.05) as log:
        for number in range(2000):
            log.append("redraw", shard="train-00000-of-00002", faces=number, reason=reason)
            if number == 1000:
                wait_for(lambda: len(list(Path(run.root).glob("events/*.jsonl"))) > 1)
                first = files(run)[0]
                before = first.stat().st_mtime_ns, first.stat().st_ino
    assert (first.stat().st_mtime_ns, first.stat().st_ino) == before
    assert len(files(run)) >= 3
    for file in files(run):
        assert file.stat().st_size < SEGMENT_BYTES + 1000
        assert all(json.loads(line) for line in file.read_text().splitlines())
    faces = [event.fields.get("faces") for event in read_events(run).events]
    assert faces == [*range(2000), None]


def test_many_threads_may_append(run):
    with EventLog(run, TOKEN, flush_seconds=0) as log:

        def tell(thread):
            for number in range(50):
                log.append(PROGRESS, faces=thread, attempts=number)

        tellers = [threading.Thread(target=tell, args=(number,)) for number in range(8)]
        for teller in tellers:
            teller.start()
        for teller in tellers:
            teller.join()
    events = read_events(run).events
    assert [event.sequence for event in events] == list(range(401))
    for thread in range(8):
        assert [event.fields["attempts"] for event in events[:-1] if event.fields["faces"] == thread] == [*range(50)]


@pytest.mark.parametrize(
    ("error", "fields"),
    [
        (KeyboardInterrupt(), {"outcome": "interrupted"}),
        (RunError("all workers are gone\nsecond line"), {"outcome": "failed", "reason": "all workers are gone"}),
        (ValueError(), {"outcome": "failed", "reason": "ValueError"}),
    ],
)
def test_the_end_tells_how_it_ended(run, error, fields):
    with pytest.raises(type(error)), EventLog(run, TOKEN):
        raise error
    assert dict(read_events(run).events[-1].fields) == fields


def test_nothing_is_told_after_the_end(run):
    log = EventLog(run, TOKEN)
    log.close("interrupted")
    log.append(PROGRESS, faces=1)
    log.close()
    assert [(event.kind, event.fields.get("outcome")) for event in read_events(run).events] == [
        (EXECUTION_ENDED, "interrupted")
    ]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("holiday", {}),
        (PROGRESS, {"image_id": "000001.jpg"}),
        (PROGRESS, {"faces": float("nan")}),
        (PROGRESS, {"faces": [1]}),
    ],
)
def test_events_that_nobody_could_read_are_refused(run, kind, fields):
    with EventLog(run, TOKEN) as log, pytest.raises(ValueError, match="event"):
        log.append(kind, **fields)
    assert len(read_events(run).events) == 1


SECRETS = [
    "AKIAIOSFODNN7EXAMPLE",
    "wJalrXUtnFEMI",
    "hunter2hunter2",
    "deadbeefcafe",
    "alice",
    "holiday",
    "private",
]
LEAKS = [
    "s3://AKIAIOSFODNN7EXAMPLE:wJalrXUtnFEMI@bucket/private/run cannot be reached",
    'cannot read "https://bucket.example/holiday.jpg?X-Amz-Credential=AKIAIOSFODNN7EXAMPLE&X-Amz-Signature=deadbeefcafe"',
    'the folder "/home/alice/my private pictures/x.jpg" is gone',
    "C:\\Users\\alice\\holiday.png cannot be read",
    "face holiday.jpg: truncated",
    "face 'alice 1.JPEG': truncated",
    "login failed: password=hunter2hunter2 was refused",
    "aws_secret_access_key = wJalrXUtnFEMI",
    "token: hunter2hunter2",
    "alice:hunter2hunter2@db.example is down",
    "an object named\nprivate/alice\twas not found",
]


@pytest.mark.parametrize("text", LEAKS)
def test_no_credential_and_no_path_enters_the_log(run, text):
    with EventLog(run, TOKEN) as log:
        log.append("redraw", shard="train-00000-of-00002", faces=1, reason=text)
        log.append(SHARD_STARTED, shard="train-00000-of-00002", worker=text, start=1)
        log.close("failed", text)
    written = b"".join(file.read_bytes() for file in files(run)).decode()
    assert not [secret for secret in SECRETS if secret in written], written


def test_a_secret_of_this_process_is_known_by_its_value(run, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "plain-looking-words")
    assert "plain-looking-words" not in without_places("the store did not like plain-looking-words")


@given(st.text())
def test_no_text_keeps_a_path_and_all_stay_on_one_line(text):
    clean = without_places(text)
    assert not set("/\\@\n\r") & set(clean)
    assert len(clean) <= 400
    assert without_places(clean) == clean


def test_innocent_sentences_are_left_alone():
    for text in (
        "all workers are gone, and none has come back for 60 s",
        "shard train-00003-of-00396 ran out of GPU memory; give a smaller batch size",
        "poison: the process that repainted it died (SIGKILL)",
        "build --retry-failed",
        "127.0.0.1:41231",
    ):
        assert without_places(text) == text


class _Sick:
    """A file system that cannot write for a while."""

    def __init__(self, monkeypatch, failures):
        self.left, self.tried = failures, 0

        def sick(fs, path, data, *, journal, exclusive=False):
            self.tried += 1
            if self.left:
                self.left -= 1
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            publish(fs, path, data, journal=journal, exclusive=exclusive)

        monkeypatch.setattr("manifests.event_log.publish", sick)


def test_storage_that_fails_for_a_while_costs_no_event(run, monkeypatch):
    storage = _Sick(monkeypatch, 2)
    with EventLog(run, TOKEN, flush_seconds=0) as log:
        for number in range(3):
            log.append(PROGRESS, faces=number)
            wait_for(lambda: storage.tried > number)  # noqa: B023
    assert [event.fields.get("faces") for event in read_events(run).events] == [0, 1, 2, None]
    assert log.problem is None


def test_storage_that_fails_for_good_costs_the_log_and_nothing_else(run, monkeypatch):
    _Sick(monkeypatch, 10**6)
    with EventLog(run, TOKEN, flush_seconds=0) as log:
        log.append(PROGRESS, faces=1)
    assert log.problem == "the event log could not be written (No space left on device); the run is not harmed"
    assert read_events(run).events == ()


def test_a_damaged_file_costs_its_damaged_lines_only(run):
    for token in ("aaaa", "bbbb"):
        with EventLog(run, token) as log:
            log.append(PROGRESS, faces=1)
            log.append(PROGRESS, faces=2)
    first = files(run)[0]
    first.write_bytes(first.read_bytes()[:-20] + b'\xff\n[1,2]\n{"sequence":9}\n')
    history = read_events(run)
    assert [event.fields.get("faces") for event in history.events] == [1, 2, 1, 2, None]
    assert history.unreadable == ("events/00001-aaaa-00000.jsonl: 3 of 5 lines are damaged.",)


def test_a_kind_of_a_later_version_is_read(run):
    with EventLog(run, TOKEN):
        pass
    (file,) = files(run)
    file.write_text(file.read_text().replace(EXECUTION_ENDED, "coffee_break"))
    assert [event.kind for event in read_events(run).events] == ["coffee_break"]


def test_the_log_is_in_nobodys_way(tmp_path):
    run = write_run(tmp_path / "OUT", {"train": ["accepted", "failed"]})
    with EventLog(run, TOKEN) as log:
        log.append(PROGRESS, faces=1)
        assert run.finish()
    assert not Path(run.root, "journal").exists()
    assert verify(run.url).clean
    assert RunDirectory.open(run.url).committed() == run.committed()
    assert [file.suffix for file in files(run)] == [".jsonl"]


def test_a_run_without_a_log_reads_as_one_without_events(run):
    assert read_events(run).events == ()


def test_a_store_without_folders_and_renames_will_do():
    run = RunDirectory.create("memory://event-log/OUT", run_content({"train": 8}, 4))
    for token in ("aaaa", "bbbb"):
        with EventLog(run, token, flush_seconds=0) as log:
            log.append(PROGRESS, faces=1)
    assert [(event.number, event.kind) for event in read_events(run).events] == [
        (1, PROGRESS),
        (1, EXECUTION_ENDED),
        (2, PROGRESS),
        (2, EXECUTION_ENDED),
    ]


KILLED = """
import os, signal, sys
from pathlib import Path
from manifests.event_log import EventLog
from manifests.run import RunDirectory
run = RunDirectory.open(sys.argv[1])
log = EventLog(run, "dead", flush_seconds=0)
log.append("progress", faces=7)
while not list(Path(run.root).glob("events/*.jsonl")):
    pass
Path(run.root, "events", "00001-dead-00000.jsonl." + "0" * 32 + ".tmp").write_text("half a li")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_log_of_a_client_that_was_killed_has_no_end_and_leaves_nothing_behind(run):
    died = subprocess.run(
        [sys.executable, "-c", KILLED, run.url], check=False, timeout=60, cwd=Path(__file__).parents[1]
    )
    assert died.returncode == -signal.SIGKILL
    assert len(files(run)) == 2
    with EventLog(run, TOKEN):
        pass
    assert [(event.number, event.kind) for event in read_events(run).events] == [(1, PROGRESS), (2, EXECUTION_ENDED)]
    assert [file.suffix for file in files(run)] == [".jsonl", ".jsonl"]


def message(**changes):
    return {"token": "t", "shard": "a", "execution": "1", "worker": "tcp://h:1", **dict.fromkeys(COUNTS, 0)} | changes


def told(run):
    return [(event.kind, dict(event.fields)) for event in read_events(run).events]


def test_progress_tells_the_log_of_shards(run):
    with (
        EventLog(run, TOKEN) as log,
        contextlib.closing(Progress("t", faces=9, shards=2, quiet=True, events=log)) as bar,
    ):
        bar.on_event((0.0, message()))
        bar.on_event((0.0, message(faces=3)))
        bar.on_event((0.0, message(token="of another build", shard="b")))
        bar.on_event((0.0, message(execution="2", worker="tcp://h:2")))  # begun again on another worker
        bar.on_event((0.0, message(faces=4)))  # late words of the first one
        bar.shard_lost("a")
        bar.on_event((0.0, message(execution="3", worker="tls://h:3", resumed=2, faces=2)))
        bar.shard_done("a", COUNTS, resumed=2, poisoned=1)
        bar.shard_done("a", COUNTS, resumed=2, poisoned=1)
    events = told(run)
    assert all(fields.keys() <= FIELDS[kind] for kind, fields in events)
    committed = next(fields for kind, fields in events if kind == SHARD_COMMITTED)
    assert committed.pop("seconds") >= 0
    assert events == [
        (SHARD_STARTED, {"shard": "a", "worker": "h:1", "start": 1}),
        (SHARD_RETRIED, {"shard": "a", "reason": "its worker died, and another has begun it again"}),
        (SHARD_STARTED, {"shard": "a", "worker": "h:2", "start": 2}),
        (SHARD_RETRIED, {"shard": "a", "reason": "its workers died, and it is submitted again"}),
        (SHARD_STARTED, {"shard": "a", "worker": "h:3", "start": 3}),
        (SHARD_COMMITTED, {"shard": "a", "resumed": 2, **COUNTS}),
        (POISON, {"shard": "a", "faces": 1}),
        (PROGRESS, {"resumed": 2, **COUNTS}),
        (EXECUTION_ENDED, {"outcome": "complete"}),
    ]


def test_progress_tells_the_log_of_workers_once_each(run):
    with (
        EventLog(run, TOKEN) as log,
        contextlib.closing(Progress("t", faces=9, shards=2, quiet=True, events=log)) as bar,
    ):
        for action, worker in (
            ("add", "tcp://h:1"),
            ("add", "tcp://h:2"),
            ("add", "tcp://h:1"),
            ("remove", "tcp://h:1"),
        ):
            bar.on_cluster_event((0.0, {"action": f"{action}-worker", "worker": worker, "expected": False}))
        for noise in ({"action": "remove-worker", "worker": "tcp://h:9"}, {"action": "add-client"}, "words", None):
            bar.on_cluster_event((0.0, noise))
        bar.worker_refused("tcp://h:2", "worker h:2 has stylize 0.0, and this client has stylize 0.1")
    assert told(run)[:-2] == [
        (WORKER_JOINED, {"worker": "h:1", "workers": 1}),
        (WORKER_JOINED, {"worker": "h:2", "workers": 2}),
        (WORKER_LOST, {"worker": "h:1", "workers": 1, "expected": False}),
        (WORKER_REFUSED, {"worker": "h:2", "reason": "worker h:2 has stylize 0.0, and this client has stylize 0.1"}),
    ]


def test_totals_are_logged_now_and_then_not_at_every_message(run, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("pipeline.progress.time.monotonic", lambda: now[0])
    with EventLog(run, TOKEN, monotonic=lambda: now[0]) as log:
        bar = Progress("t", faces=10**6, shards=2, quiet=True, events=log)
        for step in range(1, 9001):
            now[0] = 2.0 * step
            bar.on_event((0.0, message(faces=step)))
        bar.close()
    logged = [event for event in read_events(run).events if event.kind == PROGRESS]
    assert 18_000 / 16 <= len(logged) < 1600
    assert logged[-1].fields["faces"] == 9000


def report(path):
    reporter = Reporter("t", "a")
    reporter.count("faces", "accepted", "attempts", RESUMED)
    return path


def test_a_real_cluster_tells_of_its_workers_and_shards(run):
    cluster = LocalCluster(
        processes=False,
        protocol="tcp",
        n_workers=2,
        threads_per_worker=1,
        dashboard_address="127.0.0.1:0",
        silence_logs=100,
    )
    with cluster, Client(cluster, set_as_default=False) as client, EventLog(run, TOKEN, flush_seconds=0) as log:
        bar = Progress("t", faces=9, shards=2, quiet=True, events=log)
        bar.subscribe(client)
        client.submit(report, 1, pure=False).result(timeout=30)
        wait_for(lambda: SHARD_STARTED in [kind for kind, _ in told(run)])
        cluster.scale(1)
        wait_for(lambda: WORKER_LOST in [kind for kind, _ in told(run)])
    events = told(run)
    joined = [fields for kind, fields in events if kind == WORKER_JOINED]
    assert [fields["workers"] for fields in joined] == [1, 2]
    started = next(fields for kind, fields in events if kind == SHARD_STARTED)
    assert started["shard"] == "a"
    assert started["worker"] in [fields["worker"] for fields in joined]
    lost = next(fields for kind, fields in events if kind == WORKER_LOST)
    assert lost["workers"] == 1
    assert lost["worker"] in [fields["worker"] for fields in joined]


def test_the_log_of_a_build_agrees_with_its_manifests(tmp_path, monkeypatch):
    monkeypatch.setattr(
        build_module, "reference", lambda source, seed, *_: NetworkReference(source, seed, "0" * 64, None)
    )
    faces, paintings = write_faces(tmp_path / "celeba", 12), write_paintings(tmp_path / "wikiart", 12)
    with LocalCluster(
        processes=False,
        protocol="tcp",
        n_workers=2,
        threads_per_worker=1,
        dashboard_address="127.0.0.1:0",
        silence_logs=100,
    ) as cluster:
        build_module.build(
            tmp_path / "OUT",
            faces,
            paintings,
            BuildConfig(transfer=TransferSettings(convention="raw"), shard_size=4),
            ExecutionConfig(scheduler=cluster.scheduler_address),
            weights="random",
            quiet=True,
            engine=StubEngine(),
        )
    run = RunDirectory.open(tmp_path / "OUT")
    events = told(run)
    status = read_status(run)
    committed = [fields for kind, fields in events if kind == SHARD_COMMITTED]
    assert sorted(fields["shard"] for fields in committed) == sorted(map(str, run.planned()))
    for name in ("accepted", "rejected", "failed"):
        assert sum(fields[name] for fields in committed) == status.total(name)
    assert sum(fields["retries"] for fields in committed) == status.retries
    started = [fields["shard"] for kind, fields in events if kind == SHARD_STARTED]
    assert sorted(started) == sorted(map(str, run.planned()))
    assert events[0][0] == EXECUTION_STARTED
    assert (events[0][1]["faces"], events[0][1]["shards"]) == (12, 4)
    assert events[-1] == (EXECUTION_ENDED, {"outcome": "complete"})
    assert not [kind for kind, _ in events if kind in (WORKER_LOST, SHARD_RETRIED, POISON)]
    written = "".join(file.read_text() for file in files(run))
    assert ".jpg" not in written
    assert str(tmp_path) not in written
