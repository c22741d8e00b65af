"""`verify --recompute`: clean on a good run, and every kind of change is caught, with the real engine."""

import hashlib
import io
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.torch import save_file

from pipeline.recompute import TOLERANCE
from stylize.encode import encode_image
from stylize.weights import load_weights
from tests.command_line import invoke, json_of, refuse, succeed
from tests.real_run import build, draw_inputs, local_cluster, rows_of

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A good run of six faces, with labels of the paintings from a CSV; tests work on copies."""
    place = tmp_path_factory.mktemp("recompute")
    draw_inputs(place, identities=3)
    paintings = sorted(path.relative_to(place / "paintings") for path in (place / "paintings").rglob("*.jpg"))
    rows = "".join(f"{path.as_posix()},portrait\n" for path in paintings)
    (place / "labels.csv").write_text("file,genre\n" + rows)
    save_file(dict(load_weights("random", seed=5).tensors), place / "weights.safetensors")
    with local_cluster() as cluster:
        scheduler = ("--scheduler", cluster.scheduler_address, "--threshold", 1e9)
        build(place, "OUT", *scheduler, "--weights", place / "weights.safetensors")
        build(place, "RANDOM", *scheduler, "--limit", 2)
        build(place, "LABELS", *scheduler, "--limit", 2, "--paintings-csv", place / "labels.csv")
    return place


@pytest.fixture
def run(made, tmp_path):
    shutil.copytree(made / "OUT", tmp_path / "OUT")
    return tmp_path / "OUT"


@pytest.fixture
def moved(made, tmp_path):
    """Copies of the inputs, to be changed or passed with --faces and --paintings."""
    for name in ("faces", "paintings"):
        shutil.copytree(made / name, tmp_path / name)
    return ("--faces", tmp_path / "faces", "--paintings", tmp_path / "paintings")


def test_a_good_run_is_clean(made):
    document = json_of("verify", made / "OUT", "--recompute")
    assert document["clean"] is True
    assert document["recomputed"]["proxies"] == 6
    assert document["recomputed"]["largest_relative_difference"] < 1e-5
    assert json_of("verify", made / "OUT", "--recompute", "--sample", 2)["recomputed"]["proxies"] == 2
    assert "recomputed the loss of 6 proxies" in succeed("verify", made / "OUT", "--recompute").stdout


def test_random_weights_need_no_file(made):
    assert json_of("verify", made / "RANDOM", "--recompute")["recomputed"]["largest_relative_difference"] < 1e-5


def test_a_run_made_with_a_painting_csv(made):
    assert {row["genre"] for row in rows_of(made / "LABELS")} == {"portrait"}
    assert json_of("verify", made / "LABELS", "--recompute")["clean"] is True


def test_a_changed_stored_image_is_caught_even_with_its_digest(run):
    """Only recomputing sees an image that was replaced together with its SHA-256."""
    data = next(path for path in sorted((run / "data").iterdir()) if pq.read_metadata(path).num_rows > 1)
    manifest = run / "manifest" / data.name
    table, record = pq.read_table(data), pq.read_table(manifest)
    images = table["image"].to_pylist()
    with Image.open(io.BytesIO(images[1]["bytes"])) as image:
        changed = encode_image(255 - np.asarray(image), "png")
    images[1]["bytes"] = changed
    digests = [
        hashlib.sha256(changed).hexdigest() if row == 1 else digest
        for row, digest in zip(record["data_row"].to_pylist(), record["sha256"].to_pylist(), strict=True)
    ]
    for path, content, column, values in (
        (data, table, "image", images),
        (manifest, record, "sha256", digests),
    ):
        at = content.schema.get_field_index(column)
        field = content.schema.field(at)
        pq.write_table(content.set_column(at, field, pa.array(values, field.type)), path)
    assert invoke("verify", run).exit_code == 0
    (finding,) = json_of("verify", run, "--recompute", code=1)["findings"]
    assert table["image_id"][1].as_py() in finding
    assert "is recorded" in finding
    # A script that reads findings must be able to find the row, as with all other findings.
    assert f"manifest/{manifest.name}, row" in finding or f"data/{data.name}, row" in finding


def test_other_weights_are_refused(made, run, tmp_path):
    save_file(dict(load_weights("random", seed=6).tensors), tmp_path / "other.safetensors")
    other = tmp_path / "other.safetensors"
    refuse(2, "verify", run, "--recompute", "--weights", other, because=(str(other), "not those of this run"))
    refuse(2, "verify", run, "--recompute", "--weights", "random", because=("random", "not those of this run"))
    shutil.copy(made / "weights.safetensors", tmp_path / "moved.safetensors")
    succeed("verify", run, "--recompute", "--weights", tmp_path / "moved.safetensors")


def test_weights_that_are_gone(run, made):
    weights = made / "weights.safetensors"
    weights.rename(made / "elsewhere.safetensors")
    try:
        refuse(2, "verify", run, "--recompute", because=(str(weights), "do not exist"))
        succeed("verify", run, "--recompute", "--weights", made / "elsewhere.safetensors")
    finally:
        (made / "elsewhere.safetensors").rename(weights)


def test_inputs_that_moved(made, run, moved):
    assert json_of("verify", run, "--recompute", *moved)["clean"] is True
    (made / "paintings").rename(made / "hidden")
    try:
        refuse(2, "verify", run, "--recompute", because=(str(made / "paintings"), "--paintings"))
        succeed("verify", run, "--recompute", *moved)
    finally:
        (made / "hidden").rename(made / "paintings")
    refuse(2, "verify", run, "--recompute", "--faces", "nowhere", because=("nowhere", "--faces"))


def test_a_painting_replaced_by_one_of_another_length_is_refused(run, moved, tmp_path):
    used = next(row["painting"] for row in rows_of(run) if row["painting"])
    Image.new("RGB", (64, 64), (200, 30, 30)).save(tmp_path / "paintings" / used)
    refuse(2, "verify", run, "--recompute", *moved, because=(str(tmp_path / "paintings"), "not those"))


@pytest.mark.parametrize("kind", ["paintings", "faces"])
def test_an_input_replaced_by_one_of_the_same_length_is_found(run, moved, tmp_path, kind):
    """Catalogues know names and lengths only; the losses know the pixels."""
    painted = [row for row in rows_of(run) if row["painting"]]
    row = max(painted, key=lambda row: row["attempts"][-1]["content_loss"] / row["loss"])  # where the face tells most
    file = row["painting"] if kind == "paintings" else f"img_align_celeba/{row['image_id']}"
    path = tmp_path / kind / file
    length = path.stat().st_size
    with Image.open(path) as image:
        Image.new("RGB", image.size, (230, 10, 200)).save(path)
    assert path.stat().st_size < length
    path.write_bytes(path.read_bytes().ljust(length, b"\0"))
    findings = json_of("verify", run, "--recompute", *moved, code=1)["findings"]
    touched = {r["image_id"] for r in rows_of(run) if r["painting"] == row["painting"]}
    expected = touched if kind == "paintings" else {row["image_id"]}
    assert len(findings) == len(expected)
    assert all(any(image_id in finding for finding in findings) for image_id in expected)


def test_a_changed_record_of_the_loss_is_found(run):
    path = next(path for path in sorted((run / "manifest").iterdir()) if pq.read_metadata(path).num_rows > 1)
    for file in (path, run / "data" / path.name):
        table = pq.read_table(file)
        at = table.schema.get_field_index("loss")
        field = table.schema.field(at)
        values = [loss * (1 + 4 * TOLERANCE) for loss in table["loss"].to_pylist()]
        pq.write_table(table.set_column(at, field, pa.array(values, field.type)), file)
    assert invoke("verify", run).exit_code == 0
    document = json_of("verify", run, "--recompute", code=1)
    assert len(document["findings"]) == pq.read_metadata(path).num_rows
    assert document["recomputed"]["largest_relative_difference"] == pytest.approx(4 * TOLERANCE, rel=0.1)


def test_changed_scales_are_found(run):
    """run.json holds the numbers that losses were computed with; other numbers give other losses."""
    content = json.loads((run / "run.json").read_text())
    content["objective"]["scales"][4] *= 1.1
    (run / "run.json").write_text(json.dumps(content))
    assert len(json_of("verify", run, "--recompute", code=1)["findings"]) == 6
