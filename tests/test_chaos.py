"""Chaos: workers killed all the time, the client twice, one shard executed twice at once; nothing is lost."""

import contextlib
import io
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from distributed import LocalCluster
from PIL import Image

from manifests.faces import read_faces
from manifests.paintings import read_paintings
from manifests.run import RunDirectory
from manifests.verify import verify
from pipeline import build as build_module
from pipeline.build import build
from pipeline.config import ExecutionConfig
from pipeline.plan import make_plan
from pipeline.shard_task import run_shard
from tests.chaos_client import CONFIG, NETWORK, ChaosEngine, marks
from tests.small_inputs import write_faces, write_paintings
from tests.test_resume import wait_until_gone

ROOT = Path(__file__).parent.parent
FACES = 140
KILL_SECONDS = 1.0
EXECUTIONS = 6  # two are killed, one ends; the rest is for a machine on which three workers die before they begin


class Chaos:
    """Starts clients, and kills."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.out = place / "OUT"
        self.inputs = (place / "celeba", place / "wikiart")
        self.random = random.Random(0)
        self.workers_killed = self.clients_killed = self.executions = 0

    def start(self) -> subprocess.Popen[str]:
        self.executions += 1
        return subprocess.Popen(
            [sys.executable, "-m", "tests.chaos_client", self.out, *self.inputs, self.place],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finished(self) -> int:
        return len(marks(self.place, "faces"))

    def kill_a_worker(self, since: int) -> bool:
        """Kill one that has finished a face since then; none, unless there is one at work."""
        busy = {int(pid) for pid in marks(self.place, "faces")[since:] if pid != "-"}
        for pid in self.random.sample(sorted(busy), len(busy)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.workers_killed += 1
                return True
        return False

    def kill_client(self, client: subprocess.Popen[str]) -> None:
        client.kill()
        client.communicate()
        self.clients_killed += 1
        wait_until_gone(client.pid)


@pytest.fixture
def chaos(tmp_path):
    write_faces(tmp_path / "celeba", FACES)
    write_paintings(tmp_path / "wikiart", 12)
    return Chaos(tmp_path)


def test_nothing_is_lost_whatever_is_killed(chaos, monkeypatch):
    clients_to_kill = [FACES // 5, FACES // 2]  # when so many faces have been finished, by whomever
    second: threading.Thread | None = None
    client = chaos.start()
    since = 0
    while True:
        assert chaos.executions <= EXECUTIONS
        time.sleep(KILL_SECONDS)
        if second is None and chaos.workers_killed >= 1:
            second = execute_a_second_time(chaos)
        if clients_to_kill and chaos.finished() >= clients_to_kill[0]:
            del clients_to_kill[0]
            chaos.kill_client(client)
            client = chaos.start()
        elif chaos.kill_a_worker(since):
            since = chaos.finished()
        if client.poll() is not None:
            _, err = client.communicate()
            if client.returncode == 0:
                break
            assert "run the same command again to resume" in err, err
            print(err)
            wait_until_gone(client.pid)
            client = chaos.start()
    wait_until_gone(client.pid)
    assert second is not None
    second.join(60)
    assert not second.is_alive()
    assert chaos.clients_killed == 2
    assert chaos.workers_killed >= 3

    out = chaos.out
    assert verify(out).clean, verify(out).findings
    planned = {f"{name}.parquet" for name in RunDirectory.open(out).planned()}
    for folder in ("data", "manifest"):
        assert {path.name for path in (out / folder).iterdir()} == planned
    assert not (out / "journal").exists()
    calm = build_calmly(chaos, monkeypatch)
    for folder in ("data", "manifest"):
        for name in planned:
            assert rows(out / folder / name) == rows(calm / folder / name)
    # A worker's death costs one more execution of its shard, and that of a client two at most.
    trials = chaos.workers_killed + 2 * chaos.clients_killed
    starts = marks(chaos.place, "starts")
    assert len(starts) <= len(planned) + 1 + 3 * trials
    print(
        f"{chaos.workers_killed} workers and {chaos.clients_killed} clients killed, {chaos.executions} executions, "
        f"{len(starts)} starts for {len(planned)} shards, {chaos.finished()} faces done for {FACES}"
    )


def execute_a_second_time(chaos: Chaos) -> threading.Thread | None:
    """Execute, here and slowly, a shard that a worker is at; None if there is none at this moment."""
    run = RunDirectory.open(chaos.out)
    committed = {str(name) for name in run.committed()}
    at_work = [name for name in marks(chaos.place, "starts")[-2:] if name not in committed]
    if not at_work:
        return None
    faces, paintings = chaos.inputs
    plan = make_plan(read_faces(faces), read_paintings(paintings), CONFIG)
    spec = plan.spec(next(name for name in plan.shards if str(name) == at_work[-1]), NETWORK, run.url, token="second")
    thread = threading.Thread(target=run_shard, args=(spec, ChaosEngine(str(chaos.place), sleep=0.1)))
    thread.start()
    return thread


def build_calmly(chaos: Chaos, monkeypatch: pytest.MonkeyPatch) -> Path:
    calm = chaos.place / "CALM"
    monkeypatch.setattr(build_module, "reference", lambda *arguments: NETWORK)
    with LocalCluster(
        processes=False, protocol="tcp", n_workers=1, dashboard_address="127.0.0.1:0", silence_logs=100
    ) as cluster:
        execution = ExecutionConfig(scheduler=cluster.scheduler_address)
        engine = ChaosEngine(str(chaos.place / "wikiart"), sleep=0)
        build(calm, *chaos.inputs, CONFIG, execution, weights="random", engine=engine, quiet=True)
    return calm


def rows(path: Path) -> list[dict[str, Any]]:
    """All that a file says, its pictures decoded."""
    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    for row in found:
        if "image" in row:
            with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
                row["image"] = (image.mode, image.size, image.tobytes())
    return found
