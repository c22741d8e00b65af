"""Failed faces tried again: their rows change and no others, and an interruption leaves old or new."""

import dataclasses

import pyarrow.parquet as pq
import pytest
from distributed import LocalCluster

from manifests import redo_log
from manifests.commit import publish
from manifests.errors import RunError
from manifests.failed_faces import failed_faces
from manifests.run import RunDirectory
from manifests.shard import AttemptRecord
from manifests.shard_rewrite import read_shard, replace_shard
from manifests.verify import verify
from pipeline import build as build_module
from pipeline import shard_task
from pipeline.build import build
from pipeline.config import BuildConfig, ExecutionConfig
from pipeline.network import NetworkReference
from stylize.settings import TransferSettings
from tests.deadly_engine import DeadlyEngine
from tests.small_inputs import write_faces, write_paintings
from tests.small_run import row
from tests.stub_engine import StubEngine

BROKEN = ["000003.jpg", "000004.jpg", "000007.jpg"]


@pytest.fixture(scope="module")
def scheduler():
    http = "127.0.0.1:0"
    with LocalCluster(
        processes=False, protocol="tcp", n_workers=2, threads_per_worker=1, dashboard_address=http, silence_logs=100
    ) as running:
        yield running.scheduler_address


@pytest.fixture
def place(tmp_path, monkeypatch):
    def reference(source, seed, convention, recorded):
        return NetworkReference(source, seed, "0" * 64, None)

    monkeypatch.setattr(build_module, "reference", reference)
    write_faces(tmp_path / "celeba", 12)
    write_paintings(tmp_path / "wikiart", 12)
    return tmp_path


@pytest.fixture
def run(place, scheduler):
    def call(out="OUT", engine=None, **options):
        settings = BuildConfig(transfer=TransferSettings(convention="raw"), shard_size=3)
        execution = ExecutionConfig(scheduler=scheduler)
        inputs = (place / "celeba", place / "wikiart")
        return build(
            place / out, *inputs, settings, execution, weights="random", engine=engine or StubEngine(), **options
        )

    return call


@pytest.fixture
def broken(place, run):
    """A run in which three faces of two shards have failed, mended since."""
    run(out="CALM")
    images = place / "celeba" / "img_align_celeba"
    kept = {name: (images / name).read_bytes() for name in BROKEN}
    for name in BROKEN:
        (images / name).write_bytes(damaged(kept[name]))
    assert run().status.total("failed") == len(BROKEN)
    for name, data in kept.items():
        (images / name).write_bytes(data)
    return place / "OUT"


def damaged(data):
    """Of the same length: a file of another one would make the run another run."""
    return bytes(len(data))


def files(out):
    return {
        f"{path.parent.name}/{path.name}": path.read_bytes()
        for folder in ("data", "manifest")
        for path in (out / folder).iterdir()
    }


def rows(out):
    return {row["image_id"]: row for path in (out / "manifest").iterdir() for row in pq.read_table(path).to_pylist()}


def test_the_run_becomes_what_it_would_have_been(place, run, broken):
    before = files(broken)
    summary = run(retry_failed=True)
    assert summary.retried == len(BROKEN)
    assert summary.status.total("failed") == 0
    after = files(broken)
    assert after == files(place / "CALM")
    changed = {name for name in before if before[name] != after[name]}
    assert {name.partition("/")[2][:11] for name in changed} == {"train-00000", "train-00001", "valid-00000"}
    assert verify(broken).clean
    assert not (broken / "journal").exists()
    assert (broken / "README.md").read_bytes() == (place / "CALM" / "README.md").read_bytes()


def test_without_the_option_failed_faces_stay_failed(run, broken):
    before = files(broken)
    assert run().retried == 0
    assert files(broken) == before


def test_what_fails_again_changes_nothing_and_may_be_tried_as_often_as_one_likes(place, run, broken):
    path = place / "celeba" / "img_align_celeba" / BROKEN[0]
    path.write_bytes(damaged(path.read_bytes()))
    assert run(retry_failed=True).status.total("failed") == 1
    before = {path: path.stat().st_mtime_ns for path in broken.rglob("*.parquet")}
    again = run(retry_failed=True)
    assert (again.retried, again.status.total("failed")) == (1, 1)
    assert {path: path.stat().st_mtime_ns for path in broken.rglob("*.parquet")} == before
    assert run(out="CALM", retry_failed=True, engine=StubEngine(raises=RuntimeError("must not run"))).retried == 0


def test_missing_shards_and_failed_faces_in_one_go(place, run, broken, capsys):
    (broken / "manifest" / "test-00000-of-00001.parquet").unlink()
    capsys.readouterr()
    summary = run(retry_failed=True)
    assert (summary.shards_done, summary.shards_skipped, summary.retried) == (1, 3, len(BROKEN))
    assert files(broken) == files(place / "CALM")
    lines = [line for line in capsys.readouterr().err.splitlines() if "shards)" in line]
    assert "(4 of 4 shards)" in lines[-1]


def test_only_failed_faces_are_given_to_the_engine(place, run, broken):
    run(retry_failed=True, engine=DeadlyEngine(str(place / "log")))
    assert sorted(name for name in (place / "log").read_text().split() if name.endswith(".jpg")) == BROKEN


def test_an_interruption_between_the_two_files_leaves_a_whole_shard(place, run, broken, monkeypatch):
    """The new data file is there, the old manifest, too: whoever opens the run next brings it to its end."""
    with monkeypatch.context() as patch:

        def dying(fs, path, data, **options):
            if "/manifest/" in path:
                raise OSError(5, "the machine is going down")
            publish(fs, path, data, **options)

        patch.setattr(redo_log, "publish", dying)
        with pytest.raises(RunError, match="the machine is going down"):
            run(retry_failed=True)
    assert verify(broken).clean, verify(broken).findings
    assert run(retry_failed=True).status.total("failed") == 0
    assert files(broken) == files(place / "CALM")


def test_a_curators_change_in_the_meantime_is_kept(place, run, broken):
    """Somebody rewrites another row of the shard while its failed face is repainted."""
    opened = RunDirectory.open(broken)
    name = next(name for name in opened.planned() if str(name).startswith("train-00001"))

    def engine(spec, faces, draw, on_attempt):
        if spec.name == name:
            shard = read_shard(opened, name)
            changed = [
                dataclasses.replace(row, genre="curated") if row.status == "accepted" else row for row in shard.rows
            ]
            replace_shard(opened, shard, changed)
        return StubEngine()(spec, faces, draw, on_attempt)

    run(retry_failed=True, engine=engine)
    now = {row.image_id: row for row in read_shard(opened, name).rows}
    curated = {face for face, row in now.items() if row.genre == "curated"}
    assert curated
    assert not curated & set(BROKEN)
    assert all(row.status != "failed" for row in now.values())
    assert verify(broken).clean


def test_a_face_that_a_curator_has_struck_is_left_to_the_curator():
    failed = row(0, status="failed")
    assert shard_task.may_be_retried(failed)
    struck = AttemptRecord("Dada/p.jpg", 1.0, (1.0,) * 5, 1.0, 9, "evaluations", "struck: two noses")
    assert not shard_task.may_be_retried(dataclasses.replace(failed, attempts=(struck, *failed.attempts)))
    assert not shard_task.may_be_retried(row(0))


def test_counting_failed_faces_reads_manifests_alone(broken):
    for path in (broken / "data").iterdir():
        path.unlink()
    opened = RunDirectory.open(broken)
    found = failed_faces(opened, opened.planned())
    assert sum(found.values()) == len(BROKEN)
    assert list(found) == [name for name in opened.planned() if name in found]
    next((broken / "manifest").iterdir()).write_bytes(b"PAR1")
    with pytest.raises(RunError, match=r"cannot be read .*; delete it and run the build again"):
        failed_faces(opened, opened.planned())
