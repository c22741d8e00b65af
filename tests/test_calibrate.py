"""`stylize calibrate`: its numbers follow from the losses it lists, and those from the seed."""

import numpy as np
import pytest
from PIL import Image

from pipeline import calibrate as calibrate_module
from pipeline.pairing import draws
from tests.command_line import invoke, json_of, refuse, succeed
from tests.real_run import SIZE, draw_inputs

pytestmark = pytest.mark.usefixtures("quick")

SETTINGS = ("--weights", "random", "--precision", "fp32", "--evaluations", 3)


@pytest.fixture(scope="module")
def measured(place):
    return json_of(*command(place), "--pairs", 5)


def command(place, *options):
    inputs = ("--faces", place / "faces", "--paintings", place / "paintings")
    return ("calibrate", *inputs, *SETTINGS, "-o", place / "calibration.png", *options)


def test_the_numbers_follow_from_the_losses(measured):
    losses = np.array([pair["loss"] for pair in measured["losses"]])
    assert measured["pairs"] == len(losses) == 5
    assert len({pair["image_id"] for pair in measured["losses"]}) == 5
    for quantile, value in measured["quantiles"].items():
        assert value == pytest.approx(np.quantile(losses, float(quantile)))
    assert len(measured["acceptance"]) >= 5
    for threshold, share in measured["acceptance"].items():
        assert share == pytest.approx(np.mean(losses < float(threshold)), abs=1e-9), threshold
    assert measured["acceptance"]["40"] == np.mean(losses < 40)
    assert measured["suggested_threshold"] == pytest.approx(np.quantile(losses, 0.9))
    assert sum(measured["shares"].values()) == pytest.approx(1, rel=1e-4)
    assert list(measured["shares"]) == ["conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1", "content"]
    assert measured["size"] == list(SIZE)
    assert (measured["evaluations"], measured["precision"], measured["convention"]) == (3, "fp32", "personart")
    assert measured["unreadable"] == []
    # The curve is of the working precision, the losses of the stored image: close to one another, not equal.
    assert measured["curve"]["3"]["median"] == pytest.approx(np.median(losses), rel=0.05)


def test_pairs_are_those_a_build_would_draw_first(place, measured):
    files = sorted(path.relative_to(place / "paintings").as_posix() for path in (place / "paintings").rglob("*.jpg"))
    for pair in measured["losses"]:
        assert pair["painting"] == files[draws(0, pair["image_id"], len(files), 1)[0]]


def test_the_same_seed_gives_the_same_losses_and_another_does_not(place, measured):
    again = json_of(*command(place), "--pairs", 5)
    assert [pair["image_id"] for pair in again["losses"]] == [pair["image_id"] for pair in measured["losses"]]
    for one, other in zip(again["losses"], measured["losses"], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
    another = json_of(*command(place), "--pairs", 5, "--seed", 1)
    assert another["losses"] != measured["losses"]


def test_the_report_and_its_picture(place):
    (place / "calibration.png").unlink(missing_ok=True)
    result = succeed(*command(place), "--pairs", 2)
    assert "2 pairs at 32x40, 3 evaluations, fp32, convention personart" in result.stdout
    assert "suggested: --threshold " in result.stdout
    assert "calibration.png" in result.stderr
    with Image.open(place / "calibration.png") as image:
        image.load()
        assert image.format == "PNG"
        assert min(image.size) > 300


def test_the_suggestion_as_printed_accepts_what_it_says(place):
    """The user copies what is printed, so its rounding must not change what it accepts."""
    losses = np.array([pair["loss"] for pair in json_of(*command(place), "--pairs", 10, "--evaluations", 1)["losses"]])
    text = succeed(*command(place), "--pairs", 10, "--evaluations", 1).stdout
    printed = float(text.split("suggested: --threshold ")[1].split()[0])
    assert np.mean(losses < printed) == 0.9


def test_more_pairs_than_faces_and_broken_ones(tmp_path):
    draw_inputs(tmp_path, identities=3)
    (tmp_path / "faces/img_align_celeba/000002.jpg").write_bytes(b"\xff\xd8 broken")
    files = sorted((tmp_path / "paintings").rglob("*.jpg"))
    names = [path.relative_to(tmp_path / "paintings").as_posix() for path in files]
    of_first = draws(0, "000001.jpg", len(files), 1)[0]
    files[of_first].write_bytes(b"")
    document = json_of(*command(tmp_path), "--pairs", 1000)
    broken = {f"{number:06d}.jpg" for number in range(1, 7)} - {pair["image_id"] for pair in document["losses"]}
    assert {"000001.jpg", "000002.jpg"} <= broken
    assert document["pairs"] == len(document["losses"]) == 6 - len(broken)
    assert len(document["unreadable"]) == len(broken)
    assert any("000002.jpg" in sentence for sentence in document["unreadable"])
    assert any(names[of_first] in sentence for sentence in document["unreadable"])
    text = succeed(*command(tmp_path), "--pairs", 1000).stdout
    assert f"{len(broken)} pairs were left out" in text


def test_nothing_can_be_read(tmp_path):
    draw_inputs(tmp_path, identities=3)
    for path in (tmp_path / "paintings").rglob("*.jpg"):
        path.write_bytes(b"")
    result = invoke(*command(tmp_path))
    assert result.exit_code == 2
    assert "none of the 6 pairs sampled could be read" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "calibration.png").exists()


@pytest.mark.parametrize(
    ("options", "because"),
    [
        (("--pairs", 0), ("pairs", "at least 1")),
        (("--evaluations", 0), ("evaluations", "at least 1")),
        (("--precision", "tf32"), ("tf32", "fp32")),
        (("--size", "9x9"), ("9x9",)),
        (("--seed", -1), ("seed",)),
    ],
    ids=["pairs", "evaluations", "tf32", "size", "seed"],
)
def test_bad_values(place, options, because):
    result = invoke(*command(place, *options))
    assert result.exit_code == 2, result.output
    sentence = result.stderr.splitlines()[-1]
    assert "Error: " in sentence
    assert all(word in sentence for word in because)


@pytest.mark.parametrize("output", ["nowhere/calibration.png", "faces"])
def test_a_place_that_cannot_be_written_is_told_before_the_work(place, monkeypatch, output):
    def measure(*_, **__):
        raise AssertionError("measured for nothing")

    monkeypatch.setattr(calibrate_module, "trace", measure)
    sentence = refuse(1, *command(place, "-o", place / output), because=(output, "cannot be written"))
    assert "[Errno" not in sentence


def test_faces_too_small_for_the_network(tmp_path):
    draw_inputs(tmp_path, identities=3)
    plain = tmp_path / "small"
    plain.mkdir()
    Image.new("RGB", (12, 12), (90, 80, 70)).save(plain / "face.png")
    inputs = ("--faces", plain, "--paintings", tmp_path / "paintings")
    result = invoke("calibrate", *inputs, *SETTINGS, "-o", tmp_path / "c.png")
    assert result.exit_code == 2
    assert "12x12" in result.stderr
