"""The run on disk: created once, opened for ever, and never laid over somebody's files."""

import json
import os
import pickle
import threading

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.errors import InputError, RunError
from manifests.run import RunDirectory
from manifests.shard import write_shard
from manifests.shard_name import ShardName, planned_shards
from tests.small_run import MIXED, row, run_content, write_run

CONTENT = run_content({"train": 10, "valid": 3}, 4)


def test_create_then_open(tmp_path):
    made = RunDirectory.create(tmp_path / "new" / "out", CONTENT)
    opened = RunDirectory.open(tmp_path / "new" / "out")
    assert made.content == opened.content == {"format": 1, **CONTENT}
    assert list(map(str, opened.planned())) == [
        "train-00000-of-00003",
        "train-00001-of-00003",
        "train-00002-of-00003",
        "valid-00000-of-00001",
    ]
    assert opened.committed() == set()
    assert pickle.loads(pickle.dumps(opened)).content == opened.content


def test_relative_folder_and_empty_folder(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    assert RunDirectory.create("out", CONTENT).url == str(tmp_path / "out")


def test_second_creator_gets_the_first_ones_content(tmp_path):
    RunDirectory.create(tmp_path, CONTENT)
    second = RunDirectory.create(tmp_path, {**CONTENT, "fingerprint": "other"})
    assert second.content["fingerprint"] == "f00d"


def test_creators_at_once_agree(tmp_path):
    start = threading.Barrier(6)
    seen = []

    def creator(number):
        start.wait()
        seen.append(
            RunDirectory.create(tmp_path / "out", {**CONTENT, "fingerprint": str(number)}).content["fingerprint"]
        )

    threads = [threading.Thread(target=creator, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 6
    assert len(set(seen)) == 1


def test_refuses_a_folder_with_something_else(tmp_path):
    for name in ("thesis.tex", "photos", "zebra", "zoo"):
        (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=r"something else \(first entries: photos, thesis.tex, zebra\).*empty or new"):
        RunDirectory.create(tmp_path, CONTENT)


def test_refuses_a_foreign_journal_but_not_a_dead_creators(tmp_path):
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / f"run.json.{'0' * 32}.tmp").write_bytes(b"{")
    assert RunDirectory.find(tmp_path) is None
    (tmp_path / "journal" / "1999-12-31.md").write_text("Dear diary")
    with pytest.raises(InputError, match="something else"):
        RunDirectory.create(tmp_path, CONTENT)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not readable JSON"),
        ("\xff\x00", "not readable JSON"),
        ("[]", "format None"),
        ('{"format": 99}', "format 99"),
        ("{}", "format None"),
    ],
)
def test_refuses_a_foreign_run_file(tmp_path, text, message):
    (tmp_path / "run.json").write_bytes(text.encode("latin-1"))
    for action in (RunDirectory.open, lambda url: RunDirectory.create(url, CONTENT)):
        with pytest.raises(InputError, match=message):
            action(tmp_path)


def test_opening_nothing(tmp_path):
    assert RunDirectory.find(tmp_path / "no") is None
    with pytest.raises(InputError, match=r"no run\.json"):
        RunDirectory.open(tmp_path / "no")
    with pytest.raises(InputError, match="empty name"):
        RunDirectory.open("")
    with pytest.raises(InputError, match="cannot open quux://a"):
        RunDirectory.open("quux://a")


def test_out_is_a_file(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="is a file"):
        RunDirectory.create(tmp_path / "out", CONTENT)
    with pytest.raises(RunError, match=r"cannot write to .*Not a directory"):
        RunDirectory.create(tmp_path / "out" / "below", CONTENT)


def test_out_not_writable(tmp_path, monkeypatch):
    def refused(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "makedirs", refused)
    with pytest.raises(RunError, match=r"cannot write to .*Permission denied"):
        RunDirectory.create(tmp_path / "out", CONTENT)


def test_impossible_plans_are_refused(tmp_path):
    for change in (
        {"shards": {"train": {"faces": 10, "shards": 2}}},
        {"shard_size": 0},
        {"shards": {"train": {"faces": -1, "shards": 0}}},
    ):
        with pytest.raises(InputError, match=r"cannot be|plan"):
            RunDirectory.create(tmp_path, {**CONTENT, **change})
    with pytest.raises(InputError, match="plan"):
        planned_shards({"shards": {"train": 3}, "shard_size": 4})
    with pytest.raises(InputError, match="plan"):
        planned_shards({})


def test_only_the_manifest_commits(tmp_path):
    run = RunDirectory.create(tmp_path, CONTENT)
    first = next(iter(run.planned()))
    run.publish(first.data_file, b"left by a worker that died before the manifest")
    assert run.committed() == set()
    assert not run.finish()
    write_shard(run, first, [row(number) for number in range(4)])
    assert run.committed() == {first}
    with run.parquet(first.data_file) as file:
        assert file.metadata.num_rows == 4
    (tmp_path / "manifest" / "notes.txt").write_text("")
    (tmp_path / "manifest" / "train-00001-of-00003.parquet.bak").write_text("")
    assert run.committed() == {first}


def test_finish_removes_the_journal_once_whole(tmp_path):
    run = write_run(tmp_path, MIXED, skip={"train-00001-of-00003"})
    (tmp_path / "journal" / "left-over.tmp").write_text("")
    assert not run.finish()
    assert (tmp_path / "journal").is_dir()
    missing = ShardName("train", 1, 3)
    write_shard(run, missing, [row(at, "train", MIXED["train"][at]) for at in run.planned()[missing]])
    assert run.finish()
    assert run.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "data", "manifest", "run.json"]


def test_run_in_an_object_store():
    url = "memory://run-test/out"
    try:
        run = write_run(url, MIXED)
        again = RunDirectory.create(url, {**CONTENT, "fingerprint": "other"})
        assert again.content["fingerprint"] == "f00d"
        assert again.committed() == set(run.planned())
        with pytest.raises(InputError, match="something else"):
            RunDirectory.create("memory://run-test", CONTENT)
    finally:
        fsspec.filesystem("memory").rm("/run-test", recursive=True)


def test_run_json_is_plain_json(tmp_path):
    RunDirectory.create(tmp_path, {**CONTENT, "config": {"artist": "Dürer"}})
    assert json.loads((tmp_path / "run.json").read_text("utf-8"))["config"] == {"artist": "Dürer"}


@given(st.sampled_from(["train", "valid", "test"]), st.integers(1, 300_000), st.data())
def test_shard_names_are_read_back(split, count, data):
    index = data.draw(st.integers(0, count - 1))
    name = ShardName.parse(f"{ShardName(split, index, count)}.parquet")
    assert name == ShardName(split, index, count)
    assert name is not None
    assert name.data_file == f"data/{split}-{index:05d}-of-{count:05d}.parquet"


@pytest.mark.parametrize(
    "text", ["train-00002-of-00002", "train-0-of-00002", "train-000001-of-00002", ".x.tmp", "a/train-00000-of-00001"]
)
def test_other_names_are_no_shards(text):
    assert ShardName.parse(text) is None


@given(st.dictionaries(st.sampled_from(["test", "train", "valid"]), st.integers(0, 200)), st.integers(1, 50))
def test_plan_covers_every_face_once_in_order(faces, size):
    planned = planned_shards(run_content(faces, size))
    for split, count in faces.items():
        positions = [position for name, part in planned.items() if name.split == split for position in part]
        assert positions == list(range(count))
    assert all(0 < len(part) <= size for part in planned.values())
    order = [name.split for name in planned]
    assert order == sorted(order, key=["train", "valid", "test"].index)
