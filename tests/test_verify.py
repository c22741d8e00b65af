"""Verify: every kind of damage is a finding that names the file and the row, and none raises."""

import hashlib
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.errors import InputError
from manifests.shard_name import ShardName
from manifests.verify import FINDINGS_PER_SHARD, verify
from tests.small_run import MIXED, picture, write_run

TRAIN = "train-00000-of-00003.parquet"


@pytest.fixture
def run(tmp_path):
    write_run(tmp_path, MIXED)
    return tmp_path


def rewrite(path, change):
    """Write a shard's file again with one column or row changed and everything else as it was."""
    table = pq.read_table(path)
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), path)


def with_value(column, row, value):
    def change(table):
        values = table[column].to_pylist()
        values[row] = value
        at = table.schema.get_field_index(column)
        return table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))

    return change


def only_finding(run):
    findings = verify(run).findings
    assert len(findings) == 1, findings
    return findings[0]


def test_clean_run(run):
    seen: list[ShardName] = []
    result = verify(run, on_shard=seen.append)
    assert result.findings == ()
    assert result.clean
    assert result.counts == {"shards": 5, "faces": 15, "images": 11}
    assert len(seen) == 5
    assert json.loads(json.dumps(result.as_dict()))["clean"] is True


def test_clean_run_in_an_object_store():
    write_run("memory://verify-test", MIXED)
    assert verify("memory://verify-test").clean


def test_flipped_byte_in_an_image(run):
    path = run / "data" / TRAIN
    content = bytearray(path.read_bytes())
    content[content.index(picture(2)) + 60] ^= 1
    path.write_bytes(content)
    assert only_finding(run).startswith(f"data/{TRAIN}, row 1: image has SHA-256 ")


def test_image_that_matches_its_digest_but_does_not_decode(run):
    junk = b"not a picture"
    rewrite(run / "data" / TRAIN, with_value("image", 0, {"bytes": junk, "path": "000000.png"}))
    rewrite(run / "manifest" / TRAIN, with_value("sha256", 0, hashlib.sha256(junk).hexdigest()))
    assert only_finding(run).startswith(f"data/{TRAIN}, row 0: image cannot be decoded")


def test_image_of_another_size(run):
    rewrite(run / "manifest" / TRAIN, with_value("width", 0, 8))
    assert only_finding(run) == f"data/{TRAIN}, row 0: image is 7x9 instead of 8x9."


def test_no_image(run):
    rewrite(run / "data" / TRAIN, with_value("image", 0, None))
    assert only_finding(run) == f"data/{TRAIN}, row 0: has no image."


@pytest.mark.parametrize("folder", ["data", "manifest"])
def test_deleted_file(run, folder):
    (run / folder / TRAIN).unlink()
    findings = verify(run).findings
    remedy = f"delete manifest/{TRAIN} and run" if folder == "data" else "run"
    assert f"{folder}/{TRAIN} is missing; {remedy} the build again." in findings
    if folder == "manifest":
        assert any("has no manifest, so the shard is not committed" in finding for finding in findings)


@pytest.mark.parametrize("folder", ["data", "manifest"])
@pytest.mark.parametrize("keep", [0, 3, 700, -1])
def test_truncated_file(run, folder, keep):
    path = run / folder / TRAIN
    path.write_bytes(path.read_bytes()[:keep])
    assert only_finding(run).startswith(f"{folder}/{TRAIN} cannot be read (")


def test_duplicated_manifest_row(run):
    rewrite(run / "manifest" / TRAIN, lambda table: pa.concat_tables([table, table.slice(0, 1)]))
    findings = verify(run).findings
    assert f"manifest/{TRAIN} has 5 rows and the plan 4 faces." in findings
    assert f"manifest/{TRAIN}, row 4: '000000.jpg' is also in manifest/{TRAIN}, row 0." in findings


def test_face_in_two_shards(run):
    rewrite(run / "manifest" / "train-00001-of-00003.parquet", with_value("image_id", 0, "000001.jpg"))
    findings = verify(run).findings
    assert f"manifest/train-00001-of-00003.parquet, row 0: '000001.jpg' is also in manifest/{TRAIN}, row 1." in findings


def test_missing_manifest_row(run):
    rewrite(run / "manifest" / TRAIN, lambda table: table.slice(0, 2))
    findings = verify(run).findings
    assert f"manifest/{TRAIN} has 2 rows and the plan 4 faces." in findings
    assert f"data/{TRAIN}, row 1: no manifest row points here." in findings


def test_missing_data_row(run):
    rewrite(run / "data" / TRAIN, lambda table: table.slice(0, 1))
    assert only_finding(run) == f"data/{TRAIN} has 1 rows and the manifest points to 2."


def test_orphans(run):
    (run / "data" / "train-00000-of-00002.parquet").write_bytes(b"of another plan")
    (run / "manifest" / "notes.txt").write_text("")
    findings = verify(run).findings
    assert findings == (
        "data/train-00000-of-00002.parquet is no shard of this run; move it away.",
        "manifest/notes.txt is no shard of this run; move it away.",
    )


@pytest.mark.parametrize(
    ("column", "value"),
    [("identity", 77), ("identity", None), ("Smiling", None), ("artist", "Somebody"), ("loss", 11.0), ("style", None)],
)
def test_changed_label(run, column, value):
    rewrite(run / "data" / TRAIN, with_value(column, 1, value))
    assert only_finding(run).startswith(f"data/{TRAIN}, row 1: {column} is {value!r} and ")


def test_manifest_against_itself(run):
    path = run / "manifest" / TRAIN
    rewrite(path, with_value("status", 1, "lost"))
    rewrite(path, with_value("loss", 1, 3.0))
    rewrite(path, with_value("split", 2, "test"))
    rewrite(path, with_value("height", 0, None))
    rewrite(path, with_value("error", 3, None))
    findings = "\n".join(verify(run).findings)
    assert f"manifest/{TRAIN}, row 1: unknown status 'lost'." in findings
    assert f"manifest/{TRAIN}, row 1: lost, yet loss given." in findings
    assert f"manifest/{TRAIN}, row 2: split is 'test'." in findings
    assert f"manifest/{TRAIN}, row 0: accepted without height." in findings
    assert f"manifest/{TRAIN}, row 3: failed without an error." in findings


def test_wrong_pointer(run):
    rewrite(run / "manifest" / TRAIN, with_value("data_file", 0, "data/elsewhere.parquet"))
    assert only_finding(run).startswith(
        f"manifest/{TRAIN}, row 0: points to row 0 of data/elsewhere.parquet instead of"
    )


def test_other_schema_and_lost_footer(run):
    path = run / "data" / TRAIN
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata(None), path)
    assert only_finding(run) == f"data/{TRAIN} lacks the footer that tells Hugging Face its features."
    pq.write_table(table.drop_columns(["Young"]), path)
    assert only_finding(run) == f"data/{TRAIN} has other columns than this version of stylize writes."


def test_findings_of_one_shard_are_capped(tmp_path):
    write_run(tmp_path, {"train": ["accepted"] * 30}, shard_size=30)
    path = tmp_path / "data" / "train-00000-of-00001.parquet"
    rewrite(path, lambda table: with_value("style", 0, "x")(table).take(list(reversed(range(30)))))
    findings = verify(tmp_path).findings
    assert len(findings) == FINDINGS_PER_SHARD + 1
    assert findings[-1].startswith("data/train-00000-of-00001.parquet: ")
    assert findings[-1].endswith("more findings in this shard.")


def test_unfinished_run(tmp_path):
    write_run(tmp_path, MIXED, skip={"valid-00000-of-00001"})
    assert verify(tmp_path).findings == (
        "manifest/valid-00000-of-00001.parquet is missing; run the build again.",
        "data/valid-00000-of-00001.parquet is missing; run the build again.",
    )


def test_run_json(run):
    content = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({key: value for key, value in content.items() if key != "objective"}))
    assert only_finding(run) == "run.json lacks 'objective'."
    (run / "run.json").write_text(json.dumps(content | {"shards": {}})[:-20])
    assert "not readable JSON" in only_finding(run)
    (run / "run.json").write_text(json.dumps(content | {"shard_size": "many"}))
    assert "plan" in only_finding(run)


def test_no_run_at_all(tmp_path):
    with pytest.raises(InputError, match="no run to verify"):
        verify(tmp_path / "nothing")


def test_random_damage_is_found_and_never_raises(run):
    generator = random.Random(0)
    for folder in ("data", "manifest"):
        path = run / folder / TRAIN
        whole = path.read_bytes()
        for _ in range(25):
            content = bytearray(whole)
            for _ in range(generator.choice([1, 1, 20])):
                content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
            path.write_bytes(content)
            verify(run, threads=1)
        path.write_bytes(whole)
    assert verify(run).clean
