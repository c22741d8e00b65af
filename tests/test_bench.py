"""`stylize bench`: what its numbers promise of each other, and what it refuses; never how fast anything is."""

import dataclasses
import math
import statistics
from typing import Any

import numpy as np
import pytest
import torch

from manifests.errors import InputError
from pipeline.bench import bench
from pipeline.bench_report import bench_dict, bench_lines
from pipeline.bench_result import Bench, PrecisionMeasure
from pipeline.sample_pairs import sample_pairs
from pipeline.utilisation import FEWEST, MOST, Utilisation
from stylize.peak import matrix_peak
from stylize.settings import TransferSettings
from stylize.slot_memory import measure_slot_bytes
from tests import tiny_transfer
from tests.command_line import json_of, refuse, succeed

pytestmark = pytest.mark.usefixtures("quick")

SETTINGS = ("--weights", "random", "--precision", "fp32", "--evaluations", 3, "--size", "32x40")
NAMED_BY_THE_ISSUE = (
    *("images_per_second", "textbook_images_per_second", "ratio_equal_evaluations", "ratio_equal_quality"),
    *("loss_over_textbook", "share_of_peak", "precision", "device"),
)


@pytest.fixture(scope="module")
def measured(place):
    inputs = ("--faces", place / "faces", "--paintings", place / "paintings")
    return json_of("bench", *inputs, *SETTINGS, "--pairs", 3, "--batch-size", 2, "--textbook-pairs", 2)


def example(**changes: Any) -> Bench:
    plain = Bench(
        device="abacus",
        cuda=False,
        precision="bf16",
        batch_size=4,
        size=(178, 218),
        threads=2,
        versions={"python": "3", "torch": "2"},
        weights="random",
        evaluations=100,
        seconds=20.0,
        images=4,
        evaluations_done=400,
        textbook_seconds=60.0,
        textbook_images=3,
        textbook_evaluations_done=300,
        textbook_diverged=0,
        losses=(1.0, 4.0, 3.0),
        textbook_losses=(2.0, 4.0, 2.0),
        evaluations_needed=(50.0, 25.0, math.inf),
        peak=1e12,
        flops=25_000_000_000,
        shares={"network": 0.6, "optimiser": 0.2, "input": 0.1},
        precisions=(PrecisionMeasure("bf16", 0.05, 1.01, 0.99, 1.02),),
        slot_bytes=1 << 20,
        default_evaluations=100,
        utilisation=None,
    )
    return dataclasses.replace(plain, **changes)


def test_the_json_has_what_the_issue_names_and_it_fits_together(measured):
    assert set(NAMED_BY_THE_ISSUE) <= measured.keys()
    assert (measured["precision"], measured["size"], measured["images"]) == ("fp32", [32, 40], 3)
    assert (measured["evaluations_done"], measured["textbook_evaluations_done"]) == (9, 6)
    assert len(measured["losses"]) == len(measured["textbook_losses"]) == measured["textbook_images"] == 2
    assert measured["ratio_equal_evaluations"] == pytest.approx(
        measured["images_per_second"] / measured["textbook_images_per_second"]
    )
    ratios = [a / b for a, b in zip(measured["losses"], measured["textbook_losses"], strict=True)]
    assert measured["loss_over_textbook"] == pytest.approx(statistics.median(ratios))
    assert measured["share_of_peak"] > 0
    assert 0 < sum(measured["shares"].values()) <= 1
    assert set(measured["shares"]) == {"input", "network", "optimiser", "output"}
    by_name = {entry["precision"]: entry for entry in measured["precisions"]}
    assert by_name["fp32"]["loss_over_fp32"] == 1


def test_the_first_losses_of_both_sides_are_of_the_same_objective(place):
    """After one evaluation the engine holds the face itself, and the textbook has made its first, tiny step."""
    settings = TransferSettings(evaluations=1, precision="fp32", size=(32, 40))
    inputs = {"faces": place / "faces", "paintings": place / "paintings"}
    result = bench(settings, weights="random", **inputs, pairs=2, batch_size=2)
    assert result.losses == pytest.approx(result.textbook_losses, rel=1e-2)


def test_without_inputs_pictures_are_drawn():
    lines = succeed("bench", *SETTINGS, "--pairs", 1, "--batch-size", 1).stdout
    for word in ("images/s", "textbook", "equal quality", "matrix peak", "Celeb-A"):
        assert word in lines, word


def test_utilisation_counts_what_was_asked_for(place):
    inputs = ("--faces", place / "faces", "--paintings", place / "paintings")
    options = ("--weights", "random", "--precision", "fp32", "--evaluations", 1, "--size", "32x32")
    result = json_of("bench", *inputs, *options, "--pairs", 1, "--batch-size", 1, "--utilisation")["utilisation"]
    assert result["faces"] == 6
    assert 6 * FEWEST <= result["evaluations"] <= 6 * MOST
    assert min(result["steady"], result["in_flight"], result["fixed"]) > 0


@pytest.mark.parametrize(
    ("options", "because"),
    [
        (("--precision", "tf32"), ("tf32", "CUDA")),
        (("--evaluations", 0), ("evaluations",)),
        (("--size", "20x20"), ("32", "--size")),
        (("--size", "8x8"), ("size",)),
        (("--faces", "nowhere"), ("nowhere",)),
        (("--weights", "nowhere.pth"), ("nowhere.pth",)),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_two(options, because):
    refuse(2, "bench", *SETTINGS, *options, because=because)


def test_rates_count_evaluations_that_were_made():
    half = example(evaluations_done=200)
    assert half.images_per_second == example().images_per_second / 2 == 0.1
    assert half.share_of_peak == example().share_of_peak / 2 == 0.25
    assert example(textbook_evaluations_done=150).ratio_equal_evaluations == 2 * example().ratio_equal_evaluations


def test_equal_quality_saves_only_the_time_that_evaluations_take():
    assert example().median_evaluations_needed == 50
    assert example().ratio_equal_evaluations == pytest.approx(4)
    assert example().ratio_equal_quality == pytest.approx(4 / (0.2 + 0.8 * 0.5))
    assert example().loss_over_textbook == 1


def test_what_was_never_reached_is_null_in_json_and_said_in_words():
    never = example(evaluations_needed=(math.inf, math.inf, 3.0))
    assert never.ratio_equal_quality == 0
    document = bench_dict(never)
    assert document["median_evaluations_needed"] is None
    assert document["evaluations_needed"] == [None, None, 3.0]
    assert any("half the pairs do not reach" in line for line in bench_lines(never))
    assert bench_dict(example(losses=(math.nan, 1.0, 1.0)))["losses"] == [None, 1.0, 1.0]


def test_the_report_names_what_only_some_runs_have():
    assert not any("in flight" in line or "diverged" in line for line in bench_lines(example()))
    use = Utilisation(24, 1000, 10.0, 9.5, 6.0)
    lines = "\n".join(bench_lines(example(utilisation=use, textbook_diverged=2, cuda=True)))
    for words in ("95% of the steady", "fixed batches 60%", "diverged on 2", "GPU-hours"):
        assert words in lines, words
    assert "MiB per slot" not in "\n".join(bench_lines(example(slot_bytes=None)))


def test_all_of_celeb_a_takes_its_attempts_at_the_default_evaluations():
    hours = bench_dict(example())["celeba_hours"]
    assert hours == pytest.approx(202_599 * 1.1 * 100 / 20 / 3600)


# Its parts


def test_pairs_are_seeded_and_fitted_and_their_readers_give_the_same_pictures(place):
    inputs = (place / "faces", place / "paintings")
    sample = sample_pairs(*inputs, pairs=4, seed=3, size=(40, 36))
    again = sample_pairs(*inputs, pairs=4, seed=3, size=(40, 36))
    other = sample_pairs(*inputs, pairs=4, seed=4, size=(40, 36))
    names = [(pair.image_id, pair.painting_id) for pair in sample.pairs]
    assert names == [(pair.image_id, pair.painting_id) for pair in again.pairs]
    assert names != [(pair.image_id, pair.painting_id) for pair in other.pairs]
    assert len({name for name, _ in names}) == 4
    for pair in sample.pairs:
        assert pair.face.shape == pair.painting.shape == (36, 40, 3)
        assert pair.read_face().startswith(b"\xff\xd8")
    assert len(sample_pairs(*inputs, pairs=99).pairs) == 12
    assert sample_pairs(*inputs, pairs=1).size == (32, 40)


def test_no_pairs_or_none_readable_is_an_input_error(place, tmp_path):
    with pytest.raises(InputError, match="at least 1"):
        sample_pairs(place / "faces", place / "paintings", pairs=0)
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8torn")
    with pytest.raises(InputError, match="none of the 1 pairs"):
        sample_pairs(tmp_path, place / "paintings", pairs=3)


def test_the_peak_is_a_rate():
    assert 0 < matrix_peak("fp32", torch.device("cpu"), seconds=0.01) < 1e18


def test_a_slot_takes_memory_that_grows_with_the_picture():
    sizes = [measure_slot_bytes(tiny_transfer.transfer(), side, side, slots=3) for side in (64, 256)]
    if None in sizes:
        pytest.skip("this system does not say what the peak of memory was")
    assert np.all(np.diff(np.array(sizes, dtype=float)) > 0)
