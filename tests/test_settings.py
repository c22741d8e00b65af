"""Settings out of range are refused by name."""

import dataclasses
import math
import re

import pytest

from stylize.settings import TransferSettings

INFINITY, NAN = math.inf, math.nan
BAD: list[tuple[str, object, str]] = [
    ("evaluations", 0, "evaluations"),
    ("evaluations", -3, "evaluations"),
    ("alpha", -0.1, "alpha"),
    ("alpha", NAN, "alpha"),
    ("alpha", INFINITY, "alpha"),
    ("threshold", 0.0, "threshold"),
    ("threshold", -40.0, "threshold"),
    ("threshold", NAN, "threshold"),
    ("max_attempts", 0, "max-attempts"),
    ("convention", "gatys", "gatys"),
    ("precision", "fp16", "fp16"),
    ("precision", "FP32", "FP32"),
    ("image_format", "gif", "gif"),
    ("image_format", "jpg", "jpg"),
    ("size", (15, 64), "15x64"),
    ("size", (64, 15), "64x15"),
    ("size", (0, 0), "0x0"),
    ("size", (64,), "64"),
    ("size", (64, 64, 3), "64x64x3"),
    ("size", (), "size"),
    ("style_layers", (), "style layer"),
    ("style_layers", ("conv1_1", "conv9_9"), "conv9_9"),
    ("content_layer", "conv5_4", "conv5_4"),
    ("content_layer", "", "layer"),
    ("tolerance", -1e-3, "tolerance"),
    ("tolerance", 1.0, "tolerance"),
    ("tolerance", NAN, "tolerance"),
    ("history", 0, "history"),
    ("preconditioner", "pass-low", "preconditioner"),
]


@pytest.mark.parametrize(("name", "value", "mentioned"), BAD)
def test_a_bad_value_is_named(name, value, mentioned):
    with pytest.raises(ValueError, match=re.escape(mentioned)) as caught:
        TransferSettings(**{name: value})
    assert "\n" not in str(caught.value)


def test_the_papers_values_are_the_defaults():
    settings = TransferSettings()
    assert (settings.alpha, settings.threshold, settings.max_attempts) == (0.02, 40.0, 10)
    assert settings.convention == "personart"
    assert settings.image_format == "png"
    assert settings.size is None


def test_edges_are_allowed():
    TransferSettings(evaluations=1, alpha=0.0, max_attempts=1, size=(16, 16), tolerance=0.0, history=1)
    TransferSettings(threshold=INFINITY, preconditioner="none", style_layers=("conv5_1",), content_layer="conv1_1")


def test_settings_are_values():
    assert TransferSettings() == TransferSettings(evaluations=TransferSettings().evaluations)
    assert len({TransferSettings(), TransferSettings(), TransferSettings(alpha=1.0)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        TransferSettings().alpha = 1.0  # type: ignore[misc]


def test_a_working_size_that_no_machine_could_repaint_is_refused():
    with pytest.raises(ValueError, match="99999x99999"):
        TransferSettings(size=(99999, 99999))


def test_a_style_layer_counts_once():
    with pytest.raises(ValueError, match="conv1_1,conv1_1"):
        TransferSettings(style_layers=("conv1_1", "conv1_1"))
