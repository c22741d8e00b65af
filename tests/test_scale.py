"""Scale: shapes that must not change as a run grows: counts of files, tasks and messages, bytes and memory per face.

Never how fast anything is: `docs/scale.md` has that.
"""

import dataclasses
import errno
import json
import os
import pickle
import tracemalloc
from multiprocessing import Pipe
from pathlib import Path

import pyarrow as pa
import pytest

from manifests.errors import InputError, RunError
from manifests.faces import FaceCatalogue, read_faces
from manifests.paintings import PaintingCatalogue, read_paintings
from manifests.run import RunDirectory
from manifests.status import read_status
from pipeline import scale_simulation
from pipeline.config import BuildConfig
from pipeline.instant_engine import REJECTED_SHARE, loss_of
from pipeline.network import NetworkReference
from pipeline.plan import Plan, ShardSpec, make_plan
from pipeline.scale_inputs import CELEBA_FACES, CELEBA_SPLITS, write_celeba, write_wikiart
from pipeline.scale_result import BuildMeasure, ScaleResult, Turn, WeakScaling, least_seconds
from pipeline.scale_simulation import BuildJob, Inputs, Weak, fill, simulate
from pipeline.task_timeline import TaskSpan, Timeline

NETWORK = NetworkReference("random", 0, "0" * 64, None)
FACES, PAINTINGS, GROWTH, SHARD = 300, 40, 4, 10


def catalogues(place: Path, faces: int, paintings: int) -> tuple[FaceCatalogue, PaintingCatalogue]:
    return read_faces(write_celeba(place / "celeba", faces)), read_paintings(
        write_wikiart(place / "wikiart", paintings)
    )


@pytest.fixture(scope="module")
def simulated(tmp_path_factory, quick):
    """A size of which a quarter is built and the rest was there; what was told, and what was left."""
    folder = tmp_path_factory.mktemp("simulation")
    told: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        # A process of its own for each would import torch each time.
        patch.setattr(scale_simulation, "_apart", lambda function, *arguments, **rest: function(*arguments))
        result = simulate(
            FACES,
            PAINTINGS,
            growth=(GROWTH,),
            driven=FACES,
            shard_size=SHARD,
            picture_shards=0,
            weak=None,
            folder=folder,
            notify=told.append,
        )
    return result, told, os.listdir(folder)


def test_synthetic_catalogues_are_read_without_a_complaint(tmp_path):
    faces, paintings = catalogues(tmp_path, 2000, 500)
    assert (faces.layout, faces.problems, faces.notes, faces.table.num_rows) == ("celeba", (), (), 2000)
    assert (paintings.layout, paintings.problems, paintings.table.num_rows) == ("wikiart", (), 500)
    table = faces.table
    for split, count in zip(("train", "valid", "test"), CELEBA_SPLITS, strict=True):
        rows = sum(value == split for value in table["split"].to_pylist())
        assert rows == pytest.approx(2000 * count / CELEBA_FACES, abs=1)
    assert table["identity"].null_count == table["Smiling"].null_count == 0
    assert 0.4 < sum(table["Smiling"].to_pylist()) / 2000 < 0.6
    first, last = (faces.source.read(table["locator"][at].as_py()) for at in (0, -1))
    assert first == last
    assert first.startswith(b"\x89PNG")
    assert len({name.partition("/")[0] for name in paintings.table["painting"].to_pylist()}) == 27


def test_pictures_are_copied_where_links_cannot_be_made(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    write_wikiart(tmp_path / "wikiart", 60)
    assert read_paintings(tmp_path / "wikiart").table.num_rows == 60


def test_a_share_of_all_pairs_is_over_the_threshold():
    losses = [loss_of(f"{face:06d}.jpg", f"p{painting}") for face in range(60) for painting in range(60)]
    assert min(losses) >= 0
    assert sum(loss >= 1 for loss in losses) / 3600 == pytest.approx(REJECTED_SHARE, abs=0.03)


def planned(place: Path, faces: int, paintings: int) -> tuple[Plan, int]:
    """Plan a build; return bytes at the peak, of Python's objects and Arrow's buffers."""
    folders = write_celeba(place / "celeba", faces), write_wikiart(place / "wikiart", paintings)
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    tracemalloc.start()
    try:
        plan = make_plan(read_faces(folders[0]), read_paintings(folders[1]), BuildConfig(shard_size=64))
        return plan, tracemalloc.get_traced_memory()[1] + pool.bytes_allocated() - before
    finally:
        tracemalloc.stop()


def test_a_plan_grows_no_faster_than_its_inputs(tmp_path):
    planned(tmp_path / "first", 100, 100)  # what is only imported once
    _, small = planned(tmp_path / "small", 2_000, 800)
    plan, large = planned(tmp_path / "large", 8_000, 3_200)
    assert plan.face_count == 8_000
    assert large < 4.5 * small
    # Of the gigabyte that all of Celeb-A may take, at most a half.
    assert large / 8_000 * CELEBA_FACES < 0.5e9


def test_a_task_is_as_large_as_its_shard_whatever_the_catalogues(tmp_path):
    def largest(place: Path, faces: int, paintings: int) -> tuple[ShardSpec, float]:
        plan = make_plan(*catalogues(place, faces, paintings), BuildConfig(shard_size=64))
        specs = [plan.spec(name, NETWORK, "OUT") for name in plan.shards]
        full = [spec for spec in specs if spec.faces.num_rows == 64]
        return full[-1], max(len(pickle.dumps(spec)) / 64 for spec in full)

    _, of_small = largest(tmp_path / "small", 400, 2_000)
    spec, of_large = largest(tmp_path / "large", 1_600, 8_000)
    # Bytes per face. Names of paintings are most of it: they get longer, and fewer faces have one in common.
    assert of_large < 1.25 * of_small
    assert of_large < 5_000
    # Arrow tables and one array: no object of Python for a face.
    per_face = [value for value in vars(spec).values() if isinstance(value, (list, dict, set)) and len(value) > 60]
    assert not per_face


def test_there_are_two_files_to_a_shard_and_a_handful_besides(simulated):
    result, told, left = simulated
    (size,) = result.sizes
    assert (size.faces, size.paintings) == (GROWTH * FACES, GROWTH * PAINTINGS)
    shards = size.build.shards + size.build.shards_found
    assert shards == -(-964 // SHARD) + -(-117 // SHARD) + -(-119 // SHARD)  # Celeb-A's proportions
    assert size.build.files == {"": 2, "data": shards, "manifest": shards, "events": 1}
    assert f"building {FACES} faces without repainting them" in told
    assert left == []


def test_the_scheduler_gets_a_task_to_a_shard_and_nothing_by_the_face(simulated):
    build = simulated[0].sizes[0].build
    assert build.shards_found > 2 * build.shards > 0
    assert FACES <= build.faces <= FACES + 3 * SHARD  # and the last shard of every split
    assert build.shards <= build.tasks <= build.shards + 5
    assert build.transitions <= 6 * build.tasks
    # A shard's beginning, and totals at most twice a second.
    assert build.shards <= build.messages <= 2 * build.shards + 4 * build.hand_out_seconds


def test_times_fit_together(simulated):
    (size,) = simulated[0].sizes
    build = size.build
    assert 0 < build.engine_seconds < build.worker_seconds < build.seconds
    assert build.worker_seconds + build.gap_seconds == pytest.approx(build.hand_out_seconds, rel=0.01)
    assert build.overhead_seconds == pytest.approx(build.fixed_seconds + build.gap_seconds, rel=0.01)
    assert size.plan.task_seconds > 0
    assert size.plan.task_bytes < 20_000  # of shards of ten faces
    assert size.status.read_seconds > 0


def test_the_report_says_what_is_calculated_and_json_takes_it(simulated):
    result = simulated[0]
    text = "\n".join(result.lines())
    assert "1,200 faces, 160 paintings:" in text
    assert "calculated; nothing ran on CUDA" in text
    document = json.loads(json.dumps(result.as_dict()))
    assert document["sizes"][0]["build"]["overhead_share"] == pytest.approx(result.sizes[0].build.overhead_share)
    assert document["pictures"] is None


def test_filling_leaves_the_last_shard_of_every_split_and_what_is_to_be_driven(tmp_path, quick):
    inputs = Inputs(tmp_path, 200, 20)
    inputs.write()
    for driven, committed in ((60, 11), (0, 17)):
        job = BuildJob(inputs, tmp_path / f"out-{driven}", shard_size=10, driven=driven)
        fill(job)
        run = RunDirectory.open(job.out)
        missing = [name for name in run.planned() if name not in run.committed()]
        assert (len(run.committed()), len(missing)) == (committed, 20 - committed)
        assert {name.split for name in missing if name.index + 1 == name.count} == {"train", "valid", "test"}
        status = read_status(run)
        assert not status.unreadable
        assert sum(sum(counts.values()) for counts in status.faces.values()) == 10 * committed


def example(**changes) -> BuildMeasure:
    plain = BuildMeasure(
        faces=CELEBA_FACES,
        shards=400,
        shards_found=0,
        workers=2,
        picture_bytes=64,
        load=None,
        seconds=70.0,
        client_cpu_seconds=9.0,
        worker_cpu_seconds=80.0,
        memory=None,
        hand_out_seconds=60.0,
        worker_seconds=100.0,
        engine_seconds=60.0,
        gap_seconds=16.0,
        tasks=400,
        transitions=1600,
        messages=400,
        files={"": 2},
    )
    return dataclasses.replace(plain, **changes)


def test_shares_are_of_the_least_time_of_as_many_gpus():
    assert least_seconds(CELEBA_FACES) == pytest.approx(37 * 60, rel=0.02)  # the design's floor
    build = example()
    assert build.overhead_seconds == 20.0  # 70 − 100 / 2
    assert build.fixed_seconds == 10.0
    assert build.around_seconds == 0.1
    assert build.overhead_share == pytest.approx(40 / build.real_seconds)
    assert build.gap_share == pytest.approx(16 / build.real_seconds)
    assert build.client_cpu_share == pytest.approx(18 / build.real_seconds)


def test_two_workers_are_compared_with_one_turn_by_turn():
    turns = [(1.0, 1.9), (2.0, 3.0), (4.0, 8.0)]
    one, two = ([Turn(1.0, 1.0, pair[at]) for pair in turns] for at in (0, 1))
    weak = WeakScaling(2, 16, 20, (48, 56), one, two)
    assert weak.speedup == pytest.approx(1.9)
    result = ScaleResult([], example(picture_bytes=89_249), weak, "abacus", {"Python": "3"})
    text = "\n".join(result.lines())
    assert "1.90 times one worker's" in text
    assert "1.0, 2.0, 4.0 faces/s" in text
    assert "pictures of 89,249 bytes" in text
    assert json.loads(json.dumps(result.as_dict()))["weak_scaling"]["speedup"] == pytest.approx(1.9)


def test_gaps_and_rates_are_of_one_worker_each():
    spans = {
        "a": TaskSpan("w1", 0.0, 2.0),
        "c": TaskSpan("w1", 6.0, 7.0),
        "b": TaskSpan("w2", 1.0, 4.0),
        "d": TaskSpan("w1", 2.5, 5.5),
    }
    timeline = Timeline(tasks=spans)
    assert timeline.gaps() == [0.5, 0.5]
    assert (timeline.span, timeline.busy) == (7.0, 9.0)
    assert timeline.steady_rate() == pytest.approx(2 / 5)
    assert Timeline().span == Timeline().steady_rate() == 0.0


def test_the_death_of_a_measuring_process_is_told():
    with pytest.raises(RunError, match="a measuring process died"):
        scale_simulation._apart(os._exit, 3)


def test_a_measuring_process_sends_what_users_are_told_and_has_an_environment_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("STYLIZE_OF_A_CHILD", "before")
    receiver, sender = Pipe(duplex=False)
    scale_simulation._call(sender, {"STYLIZE_OF_A_CHILD": "1"}, os.getenv, ("STYLIZE_OF_A_CHILD",))
    assert receiver.recv() == ("1", None)
    scale_simulation._call(sender, {}, read_status, (tmp_path,))
    result, error = receiver.recv()
    assert result is None
    assert isinstance(error, InputError)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"faces": 0}, "faces"),
        ({"paintings": 0}, "paintings"),
        ({"driven": 0}, "faces to build"),
        ({"shard_size": 0}, "shard size"),
        ({"workers": 0}, "workers"),
        ({"picture_shards": -1}, "shards with pictures"),
        ({"growth": ()}, "growth"),
        ({"growth": (1, 0)}, "growth"),
        ({"weak": Weak(turns=0)}, "turns"),
        ({"weak": Weak(shards=1)}, "shards per worker"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(tmp_path, wrong, named):
    with pytest.raises(InputError, match=named):
        simulate(folder=tmp_path, **wrong)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(RunError, match="temporary folder cannot be written"):
        simulate(10, 5, folder=tmp_path / "nowhere")
