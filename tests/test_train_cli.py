"""`stylize train` and `stylize backbones` on the command line: what they print, and what they refuse."""

import pytest

from tests.command_line import invoke, json_of, refuse, succeed
from tests.labelled_run import write_labelled_run

COUNTS = {"train": [3, 3, 3, 2], "valid": [2, 2, 2], "test": [2, 2]}
RANDOM = ("--backbone", "mobilefacenet", "--weights", "random")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    write_labelled_run(folder, COUNTS)
    return folder


def test_identity_prints_recall_before_and_after_and_the_same_command_trains_no_further(place):
    command = ("train", "identity", place / "run", place / "ID", *RANDOM, "--epochs", 2, "--batch-size", 8)
    first = succeed(*command)
    for split in ("valid", "test"):
        assert f"{split} before" in first.stdout
        assert f"{split} after" in first.stdout
    state = (place / "ID/state.pt").read_bytes()
    second = succeed(*command)
    assert second.stdout == first.stdout
    assert "nothing to train" in second.stderr
    assert (place / "ID/state.pt").read_bytes() == state


def test_a_changed_setting_is_refused_by_name(place):
    command = ("train", "identity", place / "run", place / "CHANGED", *RANDOM, "--epochs", 1, "--batch-size", 8)
    succeed(*command)
    result = invoke(*command, "--margin", 0.3)
    assert result.exit_code == 2
    assert "margin: this run has 0.1, now it would be 0.3" in result.stderr


def test_attributes_print_json(place):
    out = place / "ATTRIBUTES"
    document = json_of("train", "attributes", place / "run", out, *RANDOM, "--train-on", "art", "--epochs", 1)
    assert document["config"]["train_on"] == "art"
    assert (out / "results.json").exists()


def test_fusion_trains_from_a_catalogue_of_faces(place):
    small = ("--min-images", 2, "--size", 32, "--width", 0.1, "--hidden", 8, "--epochs", 1, "--batch-norm")
    result = succeed("train", "fusion", place / "faces", place / "FUSION", "--case", "predicted", *small)
    assert "predicted" in result.stdout


@pytest.mark.parametrize(
    ("options", "because"),
    [
        (("--backbone", "mobilefacenets", "--weights", "random"), ("mobilefacenets", 'did you mean "mobilefacenet"')),
        (("--backbone", "mobilefacenet", "--weights", "nowhere.pth"), ("nowhere.pth",)),
        ((*RANDOM, "--epochs", 0), ("epochs", "0")),
        ((*RANDOM, "--margin", -1), ("margin", "-1")),
        ((*RANDOM, "--form", "cubic"), ("form", "cubic", "residual")),
        ((*RANDOM, "--device", "abacus"), ("abacus",)),
        ((*RANDOM, "--crop", "0.9,0,0.1,1"), ("crop",)),
        ((*RANDOM, "--precision", "fp8"), ("precision", "fp8")),
    ],
)
def test_bad_values_are_refused_and_leave_nothing_behind(place, tmp_path, options, because):
    refuse(2, "train", "identity", place / "run", tmp_path / "OUT", "--batch-size", 8, *options, because=because)
    assert not (tmp_path / "OUT").exists()


def test_a_crop_that_is_no_four_numbers_is_wrong_usage(place, tmp_path):
    result = invoke("train", "identity", place / "run", tmp_path / "OUT", *RANDOM, "--crop", "0,0,1")
    assert result.exit_code == 2
    assert "LEFT,TOP,RIGHT,BOTTOM" in result.stderr


@pytest.mark.parametrize("stage", ["identity", "attributes"])
def test_a_folder_without_a_run_is_refused(tmp_path, stage):
    refuse(2, "train", stage, tmp_path, tmp_path / "OUT", *RANDOM, because=(str(tmp_path),))


def test_backbones_are_listed_with_source_and_licence():
    listed = json_of("backbones")["backbones"]
    assert {"sphereface20", "lightcnn9", "lightcnn29", "vggface", "vggface2-resnet50", "vggface2-senet50"} <= {
        card["name"] for card in listed
    }
    assert all(card["source"] and card["licence"] for card in listed)
    assert all(card["name"] in succeed("backbones").stdout for card in listed)
