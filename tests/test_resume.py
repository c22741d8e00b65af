"""What survives a death: of the client, of a worker, by signal; each in processes of their own."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from manifests.run import RunDirectory
from manifests.verify import verify
from pipeline.build import build
from pipeline.config import BuildConfig, ExecutionConfig
from pipeline.progress import Progress
from stylize.settings import TransferSettings
from tests.small_inputs import write_faces, write_paintings
from tests.stub_engine import StubEngine

ROOT = Path(__file__).parent.parent
SCRIPT = """
import sys
from pipeline.build import build, Interrupted
from pipeline.config import BuildConfig, ExecutionConfig
from stylize.settings import TransferSettings
from tests.stub_engine import StubEngine

if __name__ == "__main__":
    out, faces, paintings, sleep = sys.argv[1:]
    config = BuildConfig(transfer=TransferSettings(convention="raw"), shard_size=3)
    try:
        build(out, faces, paintings, config, ExecutionConfig(workers=1), weights="random",
              engine=StubEngine(sleep=float(sleep)))
    except Interrupted as stopped:
        print(stopped)
        sys.exit(130)
"""


@pytest.fixture
def inputs(tmp_path):
    return write_faces(tmp_path / "celeba", 24), write_paintings(tmp_path / "wikiart", 12)


def build_here(out, inputs, engine):
    config = BuildConfig(transfer=TransferSettings(convention="raw"), shard_size=3)
    execution = ExecutionConfig(workers=1)
    faces, paintings = inputs
    return build(out, faces, paintings, config, execution, weights="random", engine=engine, quiet=True)


def build_elsewhere(tmp_path, inputs, sleep):
    """Start the build in a process group of its own, as a terminal does, and wait until two shards are there."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, script, tmp_path / "OUT", *inputs, str(sleep)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while len(committed(tmp_path)) < 2:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    return process


def committed(tmp_path):
    return sorted((tmp_path / "OUT" / "manifest").glob("*.parquet"))


def stories(out):
    """Return, of every face, what the data set says about it; twice the same face would show."""
    rows = [row for path in sorted((out / "manifest").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    told = [
        (row["image_id"], row["status"], tuple(attempt["painting"] for attempt in row["attempts"]), row["sha256"])
        for row in rows
    ]
    return sorted(told)


def wait_until_gone(group):
    """Wait until no process of the group is left: workers of a dead client must not linger."""
    for _ in range(600):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.killpg(group, signal.SIGKILL)
    pytest.fail("workers outlived their client")


def test_sigkill_of_the_client_loses_nothing_and_repeats_nothing(tmp_path, inputs):
    process = build_elsewhere(tmp_path, inputs, sleep=0.05)
    process.kill()
    process.communicate()
    wait_until_gone(process.pid)
    before = {path: path.stat().st_mtime_ns for path in committed(tmp_path)}
    assert 2 <= len(before) < 8
    out = tmp_path / "OUT"
    (out / "journal").mkdir(exist_ok=True)
    (out / "journal" / f"train-00009-of-00009.parquet.{'0' * 32}.tmp").write_bytes(b"torn")
    # Of the second run a worker dies, too.
    fuse = tmp_path / "fuse"
    fuse.touch()
    summary = build_here(out, inputs, StubEngine(fuse=str(fuse)))
    assert not fuse.exists()
    assert summary.shards_skipped == len(before)
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    assert verify(out).clean, verify(out).findings
    assert not (out / "journal").exists()
    planned = {f"{name}.parquet" for name in RunDirectory.open(out).planned()}
    for folder in ("data", "manifest"):
        assert {path.name for path in (out / folder).iterdir()} == planned
    faces = [face for face, *_ in stories(out)]
    assert len(faces) == len(set(faces)) == 24


def test_a_stopped_build_says_how_to_resume(tmp_path, inputs):
    process = build_elsewhere(tmp_path, inputs, sleep=0.05)
    os.killpg(process.pid, signal.SIGINT)  # Ctrl-C in a terminal reaches the workers, too
    out, err = process.communicate(timeout=60)
    wait_until_gone(process.pid)
    done = len(committed(tmp_path))
    assert process.returncode == 130
    assert out.strip() == f"Stopped: {done} of 8 shards are complete; run the same command again to resume."
    assert "Traceback" not in err
    assert all("shards)" in line for line in err.splitlines()), err
    assert json.loads((tmp_path / "OUT" / "run.json").read_text())["fingerprint"]
    assert set(RunDirectory.open(tmp_path / "OUT").planned()) > RunDirectory.open(tmp_path / "OUT").committed()


def test_the_bar_begins_where_the_last_run_ended():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    progress = Progress("t", faces=100, shards=10, faces_done=40, shards_done=4, stream=terminal)
    counts = {"faces": 10, "accepted": 8, "rejected": 1, "failed": 1, "attempts": 14, "retries": 4}
    progress.shard_done("train-00004-of-00010", counts)
    progress.close()
    last = terminal.getvalue().replace("\n", "").split("\r")[-1]
    for word in ("50/100", "accepted=8", "retries=4", "rejected=1", "failed=1"):
        assert word in last
