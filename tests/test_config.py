"""Fingerprint and difference: what makes two builds the same data set, and what the user is told when they are not."""

import copy
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.errors import InputError
from pipeline.config import BuildConfig, ExecutionConfig, canonical_json, difference, fingerprint, refuse_changes
from stylize.settings import TransferSettings


def document(**transfer):
    return {
        "config": BuildConfig(transfer=TransferSettings(**transfer)).document(),
        "inputs": {
            "faces": {"count": 1094, "digest": "ab12" * 16, "layout": "celeba"},
            "paintings": {"count": 30, "digest": "cd34" * 16, "layout": "wikiart"},
        },
        "weights": {"source": "imagenet", "digest": "ef56" * 16},
        "objective": {"scales": [0.5] * 13, "loss_unit": 5000.0},
        "versions": {"torch": "2.15"},
    }


def test_same_settings_same_fingerprint_whatever_the_order_of_keys():
    shuffled = {key: document()[key] for key in reversed(document())}
    assert fingerprint(shuffled) == fingerprint(document())
    assert difference(document(), shuffled) == []


def test_every_setting_enters_the_fingerprint():
    config = document()["config"]
    seen = {fingerprint(document())}
    for name in config:
        changed = document()
        changed["config"][name] = "something else"
        seen.add(fingerprint(changed))
    assert len(seen) == 1 + len(config)
    fields = {field.name for field in dataclasses.fields(BuildConfig)} - {"transfer"}
    fields |= {field.name for field in dataclasses.fields(TransferSettings)}
    assert set(config) == fields


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("inputs", "faces", "digest"), "0" * 64),
        (("inputs", "paintings", "count"), 31),
        (("weights", "digest"), "0" * 64),
        (("objective", "scales"), [0.25] * 13),
        (("objective", "loss_unit"), 1.0),
    ],
)
def test_inputs_weights_and_objective_enter_it(path, value):
    changed = document()
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert fingerprint(changed) != fingerprint(document())
    assert len(difference(document(), changed)) == 1


def test_names_layouts_and_versions_do_not_enter_it():
    changed = document()
    changed["weights"]["source"] = "vgg19.safetensors"
    changed["inputs"]["faces"]["layout"] = "celeba-zip"
    changed["versions"] = {}
    assert fingerprint(changed) == fingerprint(document())


def test_the_difference_names_every_changed_field():
    new = document(evaluations=120, size=(64, 80))
    new["inputs"]["faces"] = {"count": 1093, "digest": "9999" * 16, "layout": "celeba"}
    old = document(evaluations=100)
    assert difference(old, new) == [
        "evaluations: this run has 100, you asked for 120",
        "size: this run has none, you asked for 64,80",
        "faces: this run has 1,094 images with digest ab12ab12ab12…, now 1,093 images with digest 999999999999…",
    ]
    with pytest.raises(InputError, match=r"(?s)OUT.*another directory.*evaluations: .*\n.*size: .*\n.*faces: "):
        refuse_changes(old, new, "OUT")


def test_a_difference_survives_the_way_through_json():
    """run.json is read back: lists for tuples, and floats by their shortest text."""
    import json  # noqa: PLC0415

    old = json.loads(json.dumps(document(alpha=0.1 + 0.2, size=(178, 218))))
    refuse_changes(old, document(alpha=0.1 + 0.2, size=(178, 218)), "OUT")


@given(st.permutations(["train", "valid", "test"]))
def test_the_order_of_splits_says_nothing(splits):
    assert BuildConfig(splits=tuple(splits)).document() == BuildConfig(splits=("train", "valid", "test")).document()


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(1, 10**9))
def test_numbers_survive_canonical_json(number, size):
    import json  # noqa: PLC0415

    assert json.loads(canonical_json({"a": number, "b": size})) == {"a": number, "b": size}


@pytest.mark.parametrize(
    "wrong", [{"shard_size": 0}, {"limit": 0}, {"splits": ()}, {"splits": ("train", "dev")}], ids=str
)
def test_build_settings_out_of_range(wrong):
    with pytest.raises(InputError):
        BuildConfig(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"workers": 0},
        {"batch_size": 0},
        {"scheduler": "tcp://a:1", "scheduler_file": "b"},
        {"scheduler": "tcp://a:1", "workers": 2},
    ],
    ids=str,
)
def test_execution_settings_out_of_range(wrong):
    with pytest.raises(InputError):
        ExecutionConfig(**wrong)


def test_a_missing_part_of_an_old_document_is_a_difference_not_a_crash():
    old = copy.deepcopy(document())
    del old["config"]["alpha"], old["inputs"]["paintings"]
    assert [line.split(":")[0] for line in difference(old, document())] == ["alpha", "paintings"]
