"""The bench of loaders: that all contenders read the same pictures, what it says, what it refuses; never seconds."""

import json
import sys
import warnings
from typing import Any

import fsspec
import pytest
import torch

from manifests.errors import InputError, RunError
from manifests.run import RunDirectory
from manifests.shard import write_shard
from pipeline import loader_bench as module
from pipeline import loader_contenders
from pipeline.loader_bench import loader_bench
from pipeline.loader_contenders import OURS, THEIRS
from tests.small_run import picture, row, run_content, write_run

SMALL: dict[str, Any] = {"batch_size": 4, "rounds": 2, "images_per_round": 1}
ALONE: dict[str, Any] = {**SMALL, "others": False, "workers": (0,)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with a shard that is empty, another that is not full, and two splits."""
    folder = tmp_path_factory.mktemp("loaders")
    statuses = ["accepted"] * 9 + ["rejected"] * 3 + ["accepted"] * 2
    write_run(folder, {"train": statuses, "test": ["accepted"] * 2}, shard_size=3)
    return folder


def test_all_contenders_read_the_same_pictures(run):
    pytest.importorskip("datasets")
    pytest.importorskip("webdataset")
    notices: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the other libraries use
        bench = loader_bench(run, workers=(0, 1), **SMALL, notify=notices.append)
    assert (bench.images, bench.size, bench.batch_size) == (13, (7, 9), 4)
    assert [(measure.mode.workers, measure.mode.shuffled) for measure in bench.modes] == [
        (0, False),
        (0, True),
        (1, False),
        (1, True),
    ]
    for measure in bench.modes:
        assert tuple(measure.seconds) == (*OURS, *THEIRS)
        assert {len(seconds) for seconds in measure.seconds.values()} == {2}
        assert measure.images == 13
        assert (measure.cpu_microseconds("webdataset") is None) == (measure.mode.workers > 0)
        assert measure.ratio(OURS[0]) == 1
        pairs = [a / b for a, b in zip(measure.seconds["webdataset"], measure.seconds["stylize"], strict=True)]
        assert measure.ratio("webdataset") == pytest.approx(sum(pairs) / 2)
    document = json.loads(json.dumps(bench.as_dict(), allow_nan=False))
    contenders = document["modes"][1]["contenders"]
    assert contenders["datasets map-style"]["ratio"] == bench.modes[1].ratio("datasets map-style")
    assert set(document["versions"]) == {"python", "torch", "pyarrow", "pillow", "datasets", "webdataset"}
    text = "\n".join(bench.lines())
    assert "13 pictures of 7x9, batches of 4, medians of 2 rounds" in text
    assert "shuffled, 1 workers" in text
    assert text.count("CPU microseconds an image") == 2
    assert f"({bench.modes[0].ratio('webdataset'):.2f})" in text
    assert notices[-1] == "shuffled, 1 workers"


def test_ours_alone_and_libraries_that_are_not_there(run, monkeypatch):
    bench = loader_bench(run, **{**ALONE, "images_per_round": 14})
    assert [tuple(measure.seconds) for measure in bench.modes] == [OURS, OURS]
    assert bench.modes[0].images == 26
    assert "webdataset" not in bench.versions
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(InputError, match="needs webdataset, which is not installed"):
        loader_bench(run, **SMALL)


def test_other_pictures_are_noticed(run, monkeypatch):
    real = loader_contenders.contender

    def forgetful(name, pool, mode):
        epoch = real(name, pool, mode)
        return epoch if name == OURS[0] else lambda: iter(list(epoch())[1:])

    monkeypatch.setattr(module, "contender", forgetful)
    with pytest.raises(RunError, match=r"map-style read 9 pictures .* not the same"):
        loader_bench(run, **ALONE)
    monkeypatch.setattr(module, "contender", lambda name, pool, mode: lambda: iter([torch.zeros(13, 3, 9, 7)]))
    with pytest.raises(RunError, match=r"torch.float32 .* not uint8"):
        loader_bench(run, **ALONE)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"images_per_round": -1}, "images_per_round must be at least 1"),
        ({"workers": ()}, "workers are"),
        ({"workers": (0, -1)}, "workers are"),
    ],
)
def test_numbers_out_of_range(run, wrong, sentence):
    with pytest.raises(InputError, match=sentence):
        loader_bench(run, **{**ALONE, **wrong})


def test_runs_that_do_not_fit(tmp_path):
    write_run(tmp_path / "part", {"train": ["accepted"] * 6}, skip={"train-00001-of-00002"})
    with pytest.raises(InputError, match="not finished"):
        loader_bench(tmp_path / "part", **ALONE)
    write_run(tmp_path / "none", {"train": ["rejected"] * 2})
    with pytest.raises(InputError, match="no accepted proxy"):
        loader_bench(tmp_path / "none", **ALONE)
    write_run("memory://loader-bench", {"train": ["accepted"]})
    try:
        with pytest.raises(InputError, match="not a local folder"):
            loader_bench("memory://loader-bench", **ALONE)
    finally:
        fsspec.filesystem("memory").rm("/loader-bench", recursive=True)


def test_pictures_of_several_sizes(tmp_path):

    run = RunDirectory.create(tmp_path, run_content({"train": 2}, 2))
    (name,) = run.planned()
    write_shard(run, name, [row(0), row(1, image=picture(1, 8, 9), width=8)])
    with pytest.raises(InputError, match="several sizes"):
        loader_bench(tmp_path, **ALONE)
