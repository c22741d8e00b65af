"""Status: counts from storage alone, at any moment of a run."""

import json

import pytest

from manifests.errors import InputError
from manifests.run import RunDirectory
from manifests.status import read_status
from tests.small_run import MIXED, run_content, write_run


def test_finished_run(tmp_path):
    status = read_status(write_run(tmp_path, MIXED))
    assert status.complete
    assert (status.shards_planned, status.shards_committed) == (5, 5)
    assert status.faces_planned == {"train": 10, "valid": 3, "test": 2}
    assert status.faces["train"] == {"accepted": 7, "rejected": 2, "failed": 1}
    assert status.faces["test"] == {"accepted": 1, "rejected": 0, "failed": 1}
    assert [status.total(name) for name in ("accepted", "rejected", "failed")] == [11, 2, 2]
    assert status.attempts == {1: 4, 2: 11}
    assert status.retries == 11
    assert status.unusable == 2
    assert status.loss["min"] == pytest.approx(10.1)
    assert status.loss["p50"] == pytest.approx(17.1)
    assert status.loss["max"] == pytest.approx(2010.1)
    content = json.loads(json.dumps(status.as_dict()))
    assert content["complete"] is True
    assert content["totals"] == {"accepted": 11, "rejected": 2, "failed": 2}
    assert content["attempts"] == {"1": 4, "2": 11}


def test_unfinished_run(tmp_path):
    write_run(tmp_path, MIXED, skip={"train-00000-of-00003", "valid-00000-of-00001"})
    status = read_status(str(tmp_path))
    assert not status.complete
    assert (status.shards_planned, status.shards_committed) == (5, 3)
    assert status.faces["valid"] == {"accepted": 0, "rejected": 0, "failed": 0}
    assert sum(status.faces["train"].values()) == 6


def test_run_with_nothing_committed(tmp_path):
    status = read_status(RunDirectory.create(tmp_path, run_content({"train": 5}, 2)))
    assert (status.shards_committed, status.attempts, status.loss, status.complete) == (0, {}, {}, False)
    assert json.dumps(status.as_dict())


def test_run_of_no_faces(tmp_path):
    assert read_status(RunDirectory.create(tmp_path, run_content({}, 2))).complete


def test_only_rejected_faces_have_no_quantiles(tmp_path):
    status = read_status(write_run(tmp_path, {"train": ["rejected"]}))
    assert status.loss == {}
    assert status.complete


def test_damaged_manifest_is_named_not_raised(tmp_path):
    write_run(tmp_path, MIXED)
    broken = tmp_path / "manifest" / "valid-00000-of-00001.parquet"
    broken.write_bytes(broken.read_bytes()[:500])
    status = read_status(tmp_path)
    assert len(status.unreadable) == 1
    assert status.unreadable[0].startswith("manifest/valid-00000-of-00001.parquet cannot be read")
    assert not status.complete
    assert status.faces["train"]["accepted"] == 7


def test_no_run(tmp_path):
    with pytest.raises(InputError, match=r"no run\.json"):
        read_status(tmp_path)
