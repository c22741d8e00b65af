"""Shards: two files from one list of rows, in step, deterministic, and in the layout that readers want."""

import dataclasses
import hashlib
import io
import math

import pyarrow.parquet as pq
import pytest

from manifests import shard
from manifests.attributes import ATTRIBUTES
from manifests.run import RunDirectory
from manifests.schema import DATA_SCHEMA, MANIFEST_SCHEMA
from manifests.shard import AttemptRecord, ShardName, data_file, manifest_file, write_shard
from tests.small_run import picture, row, run_content

NAME = ShardName("train", 0, 2)
ROWS = [row(1), row(2, status="rejected"), row(3), row(4, status="failed"), row(5)]


def opened(content):
    return pq.ParquetFile(io.BytesIO(content))


def test_manifest_has_every_face_in_order_and_data_the_accepted():
    manifest = opened(manifest_file(NAME, ROWS)).read().to_pylist()
    data = opened(data_file(NAME, ROWS)).read().to_pylist()
    assert [face["image_id"] for face in manifest] == [face.image_id for face in ROWS]
    assert [face["status"] for face in manifest] == ["accepted", "rejected", "accepted", "failed", "accepted"]
    assert [face["data_row"] for face in manifest] == [0, None, 1, None, 2]
    for face, given in zip(manifest, ROWS, strict=True):
        assert tuple(face[name] for name in ATTRIBUTES) == given.attributes
        assert [
            AttemptRecord(**(a | {"style_losses": a["style_losses"] and tuple(a["style_losses"])}))
            for a in face["attempts"]
        ] == list(given.attempts)
        if given.image is None:
            assert face["data_file"] is face["sha256"] is face["painting"] is face["loss"] is face["width"] is None
            continue
        proxy = data[face["data_row"]]
        assert face["data_file"] == "data/train-00000-of-00002.parquet"
        assert proxy["image"] == {"bytes": given.image, "path": f"{given.image_id[:-4]}.png"}
        assert face["sha256"] == hashlib.sha256(given.image).hexdigest()
        assert proxy["identity"] == face["identity"] == given.identity
        assert face["loss"] == given.loss
        assert math.isclose(proxy["loss"], given.loss, rel_tol=1e-6)


def test_schemas_are_the_declared_ones():
    for content, declared in ((data_file(NAME, ROWS), DATA_SCHEMA), (manifest_file(NAME, ROWS), MANIFEST_SCHEMA)):
        assert opened(content).schema_arrow.equals(declared)
        assert opened(content).schema_arrow.metadata == declared.metadata


def test_no_accepted_face_still_makes_both_files(tmp_path):
    run = RunDirectory.create(tmp_path, run_content({"train": 2}, 1))
    write_shard(run, NAME, [row(1, status="rejected")])
    with run.parquet(NAME.data_file) as file:
        assert file.metadata.num_rows == 0
        assert file.schema_arrow.equals(DATA_SCHEMA, check_metadata=True)
    assert run.committed() == {NAME}


def test_same_rows_same_bytes(tmp_path):
    run = RunDirectory.create(tmp_path, run_content({"train": 9}, 5))
    write_shard(run, NAME, ROWS)
    first = [(tmp_path / file).read_bytes() for file in (NAME.data_file, NAME.manifest_file)]
    write_shard(run, NAME, [dataclasses.replace(face) for face in ROWS])
    assert [(tmp_path / file).read_bytes() for file in (NAME.data_file, NAME.manifest_file)] == first


def test_data_goes_first_and_manifest_last(tmp_path, monkeypatch):
    run = RunDirectory.create(tmp_path, run_content({"train": 9}, 5))
    order = []
    monkeypatch.setattr(RunDirectory, "publish", lambda self, relative, data: order.append(relative))
    write_shard(run, NAME, ROWS)
    assert order == [NAME.data_file, NAME.manifest_file]


def test_nothing_is_written_when_rows_are_wrong(tmp_path):
    run = RunDirectory.create(tmp_path, run_content({"train": 9}, 5))
    with pytest.raises(ValueError, match="comes twice"):
        write_shard(run, NAME, [row(1), row(1)])
    assert not (tmp_path / "data").exists()


def test_layout():
    file = opened(data_file(NAME, [row(number) for number in range(205)]))
    groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    assert [group.num_rows for group in groups] == [100, 100, 5]
    for column in map(groups[0].column, range(groups[0].num_columns)):
        picture_bytes = column.path_in_schema == "image.bytes"
        assert column.compression == ("UNCOMPRESSED" if picture_bytes else "ZSTD")
        assert column.is_stats_set is not picture_bytes
        assert column.has_offset_index
        assert not (picture_bytes and column.has_dictionary_page)
    assert groups[0].column(0).statistics is None
    assert picture(7) in data_file(NAME, [row(7)])


def test_row_groups_stay_under_the_byte_limit(monkeypatch):
    size = len(picture(1))
    monkeypatch.setattr(shard, "ROW_GROUP_BYTES", 3 * size)
    file = opened(data_file(NAME, [row(number, image=b"x" * size) for number in range(7)]))
    assert [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)] == [3, 3, 1]
    single = opened(data_file(NAME, [row(number, image=b"x" * 10 * size) for number in range(2)]))
    assert single.num_row_groups == 2


def test_path_keeps_the_folder_of_the_face():
    data = opened(data_file(NAME, [row(1, image_id="Ann Lee/portrait.v2.jpeg")])).read().to_pylist()
    assert data[0]["image"]["path"] == "Ann Lee/portrait.v2.png"


ACCEPTED, REJECTED = row(1), row(1, status="rejected")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(1), row(2), row(1, status="failed")], "comes twice"),
        ([dataclasses.replace(ACCEPTED, image=None)], "accepted without image"),
        ([dataclasses.replace(ACCEPTED, image=b"", width=None)], "accepted without image, width"),
        ([dataclasses.replace(ACCEPTED, loss=None)], "accepted with loss None"),
        ([dataclasses.replace(ACCEPTED, loss=math.nan)], "accepted with loss nan"),
        ([dataclasses.replace(ACCEPTED, painting="Dada/other.jpg")], "not those of the last attempt"),
        ([dataclasses.replace(ACCEPTED, attempts=())], "not those of the last attempt"),
        ([dataclasses.replace(ACCEPTED, status="failed", error="x")], "failed, yet painting, genre, style"),
        ([dataclasses.replace(REJECTED, loss=50.0)], "rejected, yet loss given"),
        ([dataclasses.replace(REJECTED, status="failed")], "failed without an error"),
        ([dataclasses.replace(REJECTED, status="skipped")], "unknown status 'skipped'"),
        ([dataclasses.replace(REJECTED, split="test")], "its split is 'test'"),
        ([dataclasses.replace(REJECTED, attributes=(True,))], "1 attributes, not 40"),
        ([dataclasses.replace(REJECTED, image_id="")], "must not be empty"),
    ],
)
def test_inconsistent_rows_are_refused(rows, message):
    for build in (data_file, manifest_file):
        with pytest.raises(ValueError, match=message):
            build(NAME, rows)


def test_a_loss_of_zero_is_a_loss():
    attempt = AttemptRecord("p", 0.0, (0.0,) * 5, 0.0, 1, "converged")
    assert manifest_file(NAME, [row(1, painting="p", loss=0.0, attempts=(attempt,))])
