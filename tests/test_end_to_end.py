"""From the command to the data set with the real engine: the layout of the work decides nothing, sizes, formats."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.command_line import json_of, succeed
from tests.real_run import SIZE, THRESHOLD, build, draw_inputs, images_of, local_cluster, rows_of

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def scheduler():
    with local_cluster() as running:
        yield running.scheduler_address


@pytest.fixture(scope="module")
def one_worker(place, scheduler):
    return build(place, "ONE", "--scheduler", scheduler, "--shard-size", 16, "--batch-size", 1)


def test_two_workers_and_other_shards_make_the_same_data_set(place, one_worker):
    """Processes of their own, batches of three, and shards of seven faces, against one thread and one at a time."""
    two = build(place, "TWO", "--workers", 2, "--shard-size", 7, "--batch-size", 3)
    first, second = ({row["image_id"]: row for row in rows_of(out)} for out in (one_worker, two))
    assert first.keys() == second.keys()
    assert len(first) == 12
    assert {row["status"] for row in first.values()} == {"accepted", "rejected"}
    assert {len(row["attempts"]) for row in first.values()} == {1, 2, 3}
    for image_id, one in first.items():
        other = second[image_id]
        assert (one["status"], one["painting"]) == (other["status"], other["painting"])
        assert [attempt["painting"] for attempt in one["attempts"]] == [a["painting"] for a in other["attempts"]]
        for mine, theirs in zip(one["attempts"], other["attempts"], strict=True):
            assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
            assert mine["style_losses"] == pytest.approx(theirs["style_losses"], rel=1e-5)
            assert mine["content_loss"] == pytest.approx(theirs["content_loss"], rel=1e-5)
    mine, theirs = images_of(one_worker), images_of(two)
    for image_id in mine:
        difference = pixels(mine[image_id]).astype(int) - pixels(theirs[image_id]).astype(int)
        assert np.abs(difference).max() <= 1
    succeed("verify", two, "--recompute")


def pixels(encoded):
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image)


def test_recorded_losses_obey_the_retry_rule_and_add_up(one_worker):
    settings = json_of("status", one_worker)
    assert settings["complete"]
    for row in rows_of(one_worker):
        losses = [attempt["loss"] for attempt in row["attempts"]]
        assert all(loss >= THRESHOLD for loss in losses[:-1])
        assert (losses[-1] < THRESHOLD) == (row["status"] == "accepted")
        assert row["loss"] == (losses[-1] if row["status"] == "accepted" else None)
        assert (row["convention"], row["precision"]) == ("personart", "fp32")
        for attempt in row["attempts"]:
            total = sum(attempt["style_losses"]) + 0.02 * attempt["content_loss"]
            assert total == pytest.approx(attempt["loss"], rel=1e-4)
            assert 1 <= attempt["evaluations"] <= 3
            assert attempt["stop_reason"] in {"evaluations", "converged", "line_search"}


def test_labels_arrive_with_the_images(place, one_worker):
    lines = (place / "faces/list_attr_celeba.txt").read_text().splitlines()
    names = lines[1].split()
    drawn = {line.split()[0]: [value == "1" for value in line.split()[1:]] for line in lines[2:]}
    identities = dict(line.split() for line in (place / "faces/identity_CelebA.txt").read_text().splitlines())
    for row in rows_of(one_worker):
        assert [row[name] for name in names] == drawn[row["image_id"]]
        assert row["identity"] == int(identities[row["image_id"]])
        assert row["status"] != "accepted" or (row["width"], row["height"]) == SIZE
    assert {row["split"] for row in rows_of(one_worker)} == {"train", "valid", "test"}


@pytest.mark.parametrize(("image_format", "suffix"), [("webp", ".webp"), ("jpeg", ".jpg")])
def test_other_image_formats(place, scheduler, image_format, suffix):
    out = build(
        place, image_format, "--scheduler", scheduler, "--image-format", image_format, "--limit", 3, "--threshold", 1e9
    )
    for encoded in images_of(out).values():
        with Image.open(io.BytesIO(encoded)) as image:
            assert (image.format, image.size) == (image_format.upper(), SIZE)
    rows = rows_of(out)
    assert len(rows) == len(images_of(out)) == 3
    assert json_of("verify", out, "--recompute")["recomputed"]["largest_relative_difference"] < 1e-4


@pytest.fixture(scope="module")
def two_sizes(place):
    """A plain folder, its faces twice as large in one of two sub-folders."""
    for number, path in enumerate(sorted((place / "faces/img_align_celeba").iterdir())[:4]):
        target = place / "plain" / ("large" if number % 2 else "small") / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image.resize((48, 44) if number % 2 else SIZE).save(target.with_suffix(".png"))
    return "plain"


def test_faces_keep_their_own_sizes(place, scheduler, two_sizes):
    out = build(place, "SIZES", "--scheduler", scheduler, "--threshold", 1e9, faces=two_sizes)
    rows = rows_of(out)
    assert {row["image_id"].split("/")[0]: (row["width"], row["height"]) for row in rows} == {
        "large": (48, 44),
        "small": SIZE,
    }
    assert {row["split"] for row in rows} == {"train"}
    assert {row["identity"] for row in rows} == {None}
    succeed("verify", out, "--recompute")
    succeed("preview", out, "-o", place / "sizes.png")


def test_a_working_size_crops_all(place, scheduler, two_sizes):
    options = ("--scheduler", scheduler, "--threshold", 1e9, "--size", "36x32")
    out = build(place, "CROPPED", *options, faces=two_sizes)
    assert {(row["width"], row["height"]) for row in rows_of(out)} == {(36, 32)}
    assert {pixels(encoded).shape for encoded in images_of(out).values()} == {(32, 36, 3)}
    succeed("verify", out, "--recompute")


def test_a_corrupt_face_and_a_corrupt_painting(place, scheduler):
    bad = place / "bad"
    draw_inputs(bad, identities=3)
    (bad / "faces/img_align_celeba/000002.jpg").write_bytes(b"\xff\xd8 broken")
    broken = sorted((bad / "paintings").rglob("*.jpg"))[:3]
    for path in broken:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    out = build(bad, "OUT", "--scheduler", scheduler, "--threshold", 1e9)
    rows = {row["image_id"]: row for row in rows_of(out)}
    assert {name for name, row in rows.items() if row["status"] == "failed"} == {"000002.jpg"}
    names = {path.relative_to(bad / "paintings").as_posix() for path in broken}
    attempts = [attempt for row in rows.values() for attempt in row["attempts"]]
    assert {attempt["painting"] for attempt in attempts if attempt["stop_reason"] == "unreadable_painting"} <= names
    assert any(attempt["stop_reason"] == "unreadable_painting" for attempt in attempts)
    assert not {row["painting"] for row in rows.values()} & names
    succeed("verify", out, "--recompute")
