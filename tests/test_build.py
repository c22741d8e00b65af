"""The build on a running cluster, with a stub engine: every face gets a row, and every failure one clear sentence."""

import errno
import json
import signal

import pyarrow.parquet as pq
import pytest
from distributed import LocalCluster

from manifests.errors import InputError, RunError
from manifests.image_source import ImageSource
from manifests.run import RunDirectory
from manifests.verify import verify
from pipeline import build as build_module
from pipeline import shard_task
from pipeline.build import build, dry_run
from pipeline.config import BuildConfig, ExecutionConfig
from pipeline.network import NetworkReference
from pipeline.progress import Progress
from pipeline.signals import terminate_like_interrupt
from stylize.errors import WeightsError
from stylize.settings import TransferSettings
from tests.small_inputs import write_faces, write_paintings
from tests.stub_engine import StubEngine, loss_of


@pytest.fixture(scope="module")
def scheduler():
    # Workers in this process: real ones, which import torch for seconds each, are for test_resume.
    http = "127.0.0.1:0"
    with LocalCluster(
        processes=False, protocol="tcp", n_workers=2, threads_per_worker=1, dashboard_address=http, silence_logs=100
    ) as running:
        yield running.scheduler_address


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def reference(source, seed, convention, recorded):
        return NetworkReference(source, seed, "0" * 64, None)

    monkeypatch.setattr(build_module, "reference", reference)


@pytest.fixture
def inputs(tmp_path):
    return write_faces(tmp_path / "celeba", 12), write_paintings(tmp_path / "wikiart", 12)


@pytest.fixture
def run(tmp_path, inputs, scheduler):
    def call(*, engine=None, out="OUT", **config):
        transfer = {name: config.pop(name) for name in ("threshold", "evaluations", "max_attempts") if name in config}
        settings = BuildConfig(transfer=TransferSettings(convention="raw", **transfer), **({"shard_size": 4} | config))
        return build(
            tmp_path / out,
            inputs[0],
            inputs[1],
            settings,
            ExecutionConfig(scheduler=scheduler),
            weights="random",
            engine=engine or StubEngine(),
        )

    return call


def rows_of(out):
    return [row for path in sorted((out / "manifest").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_every_face_has_a_row_and_the_run_verifies(tmp_path, inputs, run):
    summary = run()
    rows = rows_of(tmp_path / "OUT")
    assert sorted(row["image_id"] for row in rows) == [f"{number:06d}.jpg" for number in range(1, 13)]
    assert {row["split"] for row in rows} == {"train", "valid", "test"}
    assert (summary.shards_done, summary.shards_skipped) == (4, 0)
    assert summary.status.total("accepted") == sum(row["status"] == "accepted" for row in rows) > 0
    for row in rows:
        losses = [loss_of(row["image_id"], attempt["painting"]) for attempt in row["attempts"]]
        assert [attempt["loss"] for attempt in row["attempts"]] == losses
        assert all(loss >= 40 for loss in losses[:-1])
        assert row["identity"] is not None
    assert verify(tmp_path / "OUT").clean
    names = {path.name for path in (tmp_path / "OUT").iterdir()}
    assert names == {"README.md", "run.json", "data", "manifest", "events"}
    paths = json.loads((tmp_path / "OUT" / "run.json").read_text())["paths"]
    assert paths == {"faces": str(inputs[0]), "paintings": str(inputs[1]), "weights": "random"}


def test_the_same_command_again_does_nothing(tmp_path, run):
    run()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "OUT").rglob("*.parquet")}
    summary = run(engine=StubEngine(raises=RuntimeError("must not run")))
    assert (summary.shards_done, summary.shards_skipped) == (0, 4)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "OUT").rglob("*.parquet")} == before


def test_a_missing_shard_alone_is_made_again(tmp_path, run):
    run()
    (tmp_path / "OUT/manifest/train-00001-of-00002.parquet").unlink()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "OUT").rglob("*.parquet")}
    summary = run()
    assert (summary.shards_done, summary.shards_skipped) == (1, 3)
    changed = {
        path.name for path in (tmp_path / "OUT").rglob("*.parquet") if before.get(path) != path.stat().st_mtime_ns
    }
    assert changed == {"train-00001-of-00002.parquet"}
    assert verify(tmp_path / "OUT").clean


def test_the_layout_changes_neither_paintings_nor_statuses(tmp_path, run):
    run(out="A", shard_size=5)
    run(out="B", shard_size=2)

    def story(row):
        return row["image_id"], row["status"], [attempt["painting"] for attempt in row["attempts"]], row["sha256"]

    assert sorted(map(story, rows_of(tmp_path / "A"))) == sorted(map(story, rows_of(tmp_path / "B")))


def test_changed_settings_are_refused_with_the_difference(tmp_path, run):
    run(evaluations=100)
    with pytest.raises(InputError, match=r"(?s)other settings.*evaluations: this run has 100, you asked for 120"):
        run(evaluations=120)
    next((tmp_path / "wikiart").rglob("*.png")).unlink()
    with pytest.raises(InputError, match=r"paintings: this run has 12 images with digest .*, now 11 images"):
        run(evaluations=100)


def test_a_corrupt_face_fails_alone(tmp_path, run):
    (tmp_path / "celeba/img_align_celeba/000003.jpg").write_bytes(b"\xff\xd8 broken")
    (tmp_path / "celeba/img_align_celeba/000004.jpg").write_bytes(b"")
    summary = run()
    failed = {row["image_id"]: row for row in rows_of(tmp_path / "OUT") if row["status"] == "failed"}
    assert failed.keys() == {"000003.jpg", "000004.jpg"}
    assert all(row["error"] and row["attempts"] == [] for row in failed.values())
    assert summary.status.total("accepted") + summary.status.total("rejected") == 10
    assert verify(tmp_path / "OUT").clean


def test_an_unreadable_painting_is_an_attempt_of_its_own_kind(tmp_path, inputs, run):
    write_paintings(inputs[1], 12, corrupt=4)
    run(threshold=60.0, max_attempts=1)
    rows = rows_of(tmp_path / "OUT")
    unusable = [attempt for row in rows for attempt in row["attempts"] if attempt["error"]]
    assert unusable
    assert all(attempt["loss"] is None for attempt in unusable)
    # With one usable attempt each at a threshold nothing misses, only a face that drew two broken ones may go without.
    assert all(row["status"] == "accepted" or len(row["attempts"]) == 2 for row in rows)


def test_no_painting_can_be_read(tmp_path, inputs, run):
    write_paintings(inputs[1], 12, corrupt=12)
    with pytest.raises(InputError, match=r"none of the first 12 paintings sampled from .*wikiart.* could be read \("):
        run()
    assert not (tmp_path / "OUT").exists()


def test_every_face_fails(tmp_path, run):
    for path in (tmp_path / "celeba/img_align_celeba").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(RunError, match="all 12 faces failed"):
        run()


def test_out_holds_something_else(tmp_path, run):
    (tmp_path / "OUT").mkdir()
    (tmp_path / "OUT" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="holds something else"):
        run()


RESUME = r".*\d of 4 shards are complete; run the same command again"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (WeightsError('weights "x" have another digest'), 'weights "x" have another digest'),
        (RuntimeError("CUDA error: unspecified\nlong\ntext"), r"failed unexpectedly \(RuntimeError: CUDA error"),
    ],
    ids=["weights", "unforeseen"],
)
def test_what_concerns_the_whole_run_stops_it_and_it_resumes(tmp_path, run, error, sentence):
    with pytest.raises(RunError, match=sentence + RESUME) as got:
        run(engine=StubEngine(raises=error))
    assert "\n" not in str(got.value)
    run()
    assert verify(tmp_path / "OUT").clean


def test_a_full_disk_stops_the_build_and_it_resumes(tmp_path, run, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shard_task, "write_shard", full)
        with pytest.raises(RunError, match='could not be written to ".*OUT": No space left on device' + RESUME):
            run()
    run()
    assert verify(tmp_path / "OUT").clean


def test_a_volume_that_vanishes_is_not_the_faces_fault(tmp_path, inputs, run, monkeypatch):
    """Without the folder every read fails; rows that say so would be wrong for ever."""
    images = tmp_path / "celeba" / "img_align_celeba"

    def written(*_):
        raise AssertionError("a shard was written")

    def engine(spec, faces, draw, on_attempt):
        images.rename(tmp_path / "gone")
        return StubEngine()(spec, faces, draw, on_attempt)

    monkeypatch.setattr(shard_task, "write_shard", written)
    with pytest.raises(RunError, match=r"img_align_celeba\" cannot be reached from .*; mount it on every worker"):
        run(engine=engine, shard_size=100, splits=("train",))


def test_storage_that_is_unwell_stops_the_build(tmp_path, run, monkeypatch):
    def read(self, locator):
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(build_module, "_check_paintings", lambda *_: None)
    monkeypatch.setattr(ImageSource, "read", read)
    with pytest.raises(RunError, match=r"reading .* failed \(Stale file handle\)" + RESUME):
        run()


def test_terminate_is_treated_like_an_interrupt():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), terminate_like_interrupt():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_limits_and_splits(tmp_path, run):
    run(limit=4)
    assert sorted(row["split"] for row in rows_of(tmp_path / "OUT")) == ["test", "train", "train", "valid"]
    run(out="TEST", splits=("test",))
    assert {row["split"] for row in rows_of(tmp_path / "TEST")} == {"test"}


def test_a_dry_run_writes_nothing_and_counts_what_is_done(tmp_path, inputs, run):
    config = BuildConfig(transfer=TransferSettings(convention="raw"), shard_size=4)
    plan = dry_run(tmp_path / "OUT", inputs[0], inputs[1], config)
    assert (plan.faces, plan.shards, plan.shards_committed, plan.width, plan.height) == (12, 4, 0, 16, 20)
    assert plan.gpu_hours > 0
    json.dumps(plan.as_dict())
    assert not (tmp_path / "OUT").exists()
    run()
    done = dry_run(tmp_path / "OUT", inputs[0], inputs[1], config)
    assert (done.shards_committed, done.gpu_hours) == (4, 0)
    with pytest.raises(InputError, match="seed: this run has 0, you asked for 1"):
        dry_run(tmp_path / "OUT", inputs[0], inputs[1], BuildConfig(transfer=config.transfer, shard_size=4, seed=1))


def test_progress_reaches_the_client(run, capsys):
    run()
    lines = [line for line in capsys.readouterr().err.splitlines() if "shards)" in line]
    assert len(lines) == 4
    assert "(4 of 4 shards)" in lines[-1]


def test_progress_counts_no_face_twice():
    message = {"token": "t", "shard": "a", "execution": "1", "faces": 3, "accepted": 2, "rejected": 0}
    message |= {"failed": 1, "attempts": 5, "retries": 2}
    progress = Progress("t", faces=10, shards=2, quiet=True)
    progress.on_event((0.0, message))
    progress.on_event((0.0, message | {"faces": 4, "accepted": 3}))
    progress.on_event((0.0, message | {"token": "of another build"}))
    assert progress.totals()["faces"] == 4
    progress.on_event((0.0, message | {"execution": "2", "faces": 1}))  # begun again on another worker
    progress.on_event((0.0, message | {"faces": 9}))  # late words of the first execution
    assert progress.totals()["faces"] == 1
    progress.shard_lost("a")
    assert progress.totals()["faces"] == 0
    counts = {"faces": 5, "accepted": 5, "rejected": 0, "failed": 0, "attempts": 6, "retries": 1}
    progress.shard_done("a", counts)
    progress.shard_done("a", counts)
    progress.on_event((0.0, message | {"execution": "3"}))
    assert progress.totals()["faces"] == 5
    progress.close()


def test_of_two_builds_that_start_at_once_the_second_compares(tmp_path, run):
    run()
    document = dict(RunDirectory.open(tmp_path / "OUT").content)
    document["config"] = document["config"] | {"seed": 1}
    with pytest.raises(InputError, match="seed: this run has 0, you asked for 1"):
        build_module._open(tmp_path / "OUT", None, document)
