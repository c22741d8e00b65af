"""Training of the identity space: steps against loops, both regimes end to end, resuming, unusable inputs."""

import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from manifests.errors import InputError, RunError
from pipeline.backbones import registry
from pipeline.backbones.loading import load_network
from pipeline.errors import Interrupted
from pipeline.retrieval.recall import Recall
from pipeline.training import loop
from pipeline.training.identity import IdentityConfig, train_identity
from pipeline.training.identity_data import identity_data
from pipeline.training.identity_features import BackboneFeatures, CachedFeatures
from pipeline.training.identity_model import load_identity_model
from pipeline.training.identity_result import IdentityResult
from pipeline.training.identity_trainer import IdentityTrainer
from pipeline.training.projection import AsymmetricProjections
from pipeline.training.run_faces import RunFaces
from tests.labelled_run import write_labelled_run
from tests.tiny_embedder import CARD, TinyNetwork, tiny_embedder

ROOT = Path(__file__).parent.parent
COUNTS = {"train": [4] * 8 + [1], "valid": [3] * 5, "test": [3, 3, 3, 1]}
PAIRS = 32
WAIT = 300  # seconds for processes that take ten


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return write_labelled_run(tmp_path_factory.mktemp("identity"), COUNTS).parent


@pytest.fixture(scope="module")
def faces(place):
    return RunFaces.open(place / "run")


@pytest.fixture(autouse=True)
def tiny(request, monkeypatch):
    """The backbone "tiny" on the CPU, and no curves, which take longer than all the rest."""
    monkeypatch.setitem(registry._REGISTRY, "tiny", registry.Backbone(CARD, TinyNetwork))
    monkeypatch.setattr(loop, "plot_curves", lambda *arguments: b"")
    if "gpu" not in request.keywords:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def config(place, out, **changes):
    settings = {"lr": 3e-3, "batch_size": 8, "epochs": 3, "seed": 1} | changes
    return IdentityConfig(str(place / "run"), str(out), "tiny", settings.pop("weights", "random"), **settings)


def train(place, out, **changes):
    return train_identity(config(place, out, **changes), quiet=True)


def trainer_of(faces, features, **changes):
    settings: dict[str, Any] = {"margin": 0.2, "lr": 1e-2, "batch_size": 8, "plateau": 2, "positives": "other"}
    settings |= {"seed": 4} | changes
    data = identity_data(faces, settings["positives"], settings["batch_size"], settings["seed"], lambda sentence: None)
    return IdentityTrainer(data, features, AsymmetricProjections(8), **settings)


def cached(faces, embedder):
    with torch.no_grad():
        everybody = range(len(faces))
        real, art = embedder(faces.photographs(everybody)), embedder(faces.proxies(everybody))
    return CachedFeatures({"real": real, "art": art}, torch.device("cpu"))


def by_definition(real, art, identities, margin):
    """Eq. 7 in loops, mean over pairs."""
    losses = []
    for i, person in enumerate(identities):
        others = [j for j, other in enumerate(identities) if other != person]
        for worst in (max(real[i] @ art[j] for j in others), max(real[j] @ art[i] for j in others)):
            losses.append(F.relu(margin - real[i] @ art[i] + worst))
    return torch.stack(losses).sum() / len(identities)


def recall_by_definition(model, faces, split):
    """Fraction of photographs whose most similar proxies, their own left out, show the same person."""
    indices = faces.indices(split).tolist()
    with torch.no_grad():
        real, art = model.embed_real(faces.photographs(indices)), model.embed_art(faces.proxies(indices))
    places = []
    for query, face in enumerate(indices):
        others = [item for item in range(len(indices)) if item != query]
        ranked = sorted(others, key=lambda item: -float(real[query] @ art[item]))
        hits = [
            place for place, item in enumerate(ranked, 1) if faces.identities[indices[item]] == faces.identities[face]
        ]
        places += hits[:1]
    return {k: float(np.mean([place <= k for place in places])) for k in (1, 5, 10)}, len(places)


# --- steps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("finetune", [False, True])
def test_steps_are_those_of_loops_and_a_plain_adam(faces, finetune):
    """Two epochs: the same losses and the same weights as Eq. 7 pair by pair, and one Adam for all weights."""
    ours, theirs = tiny_embedder(), tiny_embedder()
    features = BackboneFeatures(faces, ours, "fp32") if finetune else cached(faces, ours)
    trainer = trainer_of(faces, features)
    network = theirs.network.requires_grad_(finetune)
    w_real, w_art = (torch.zeros(8, 8, requires_grad=True) for _ in range(2))
    optimiser = torch.optim.Adam([w_real, w_art, *(network.parameters() if finetune else [])], lr=1e-2)
    seen = []
    for epoch in (1, 2):
        for index in range(trainer.steps(epoch)):
            pairs = trainer.batch(epoch, index)
            seen += pairs[:, 0].tolist()
            phi_real, phi_art = theirs(faces.photographs(pairs[:, 0])), theirs(faces.proxies(pairs[:, 1]))
            real, art = F.normalize(phi_real + phi_real @ w_real, dim=1), F.normalize(phi_art + phi_art @ w_art, dim=1)
            loss = by_definition(real, art, faces.identities[pairs[:, 0]].tolist(), 0.2)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            assert trainer.step(epoch, index)["loss"] == pytest.approx(loss.item(), rel=1e-4)
    assert sorted(seen) == sorted([*range(PAIRS)] * 2)  # the 33rd face is alone
    torch.testing.assert_close(trainer.projections.real.weight, w_real, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(trainer.projections.art.weight, w_art, rtol=1e-3, atol=1e-5)
    for name, value in ours.network.state_dict().items():
        torch.testing.assert_close(value, network.state_dict()[name], rtol=1e-3, atol=1e-5)
        unchanged = torch.equal(value, tiny_embedder().network.state_dict()[name])
        assert unchanged == (not finetune or "running" in name or "num_batches" in name)


def test_the_bare_recall_is_that_of_the_embeddings(faces):
    trainer = trainer_of(faces, cached(faces, tiny_embedder()))
    assert trainer.recall("test", bare=True) == trainer.recall("test")  # residual projections begin at zero
    literal = IdentityTrainer(
        trainer._data,
        trainer._features,
        AsymmetricProjections(8, "literal"),
        margin=0.1,
        lr=1e-3,
        batch_size=8,
        plateau=2,
        positives="other",
        seed=0,
    )
    assert literal.recall("test", bare=True) == trainer.recall("test")


def test_the_learning_rate_falls_on_a_plateau_of_recall(faces, monkeypatch):
    trainer = trainer_of(faces, cached(faces, tiny_embedder()), plateau=2)
    scores = iter([0.2, 0.3, 0.3, 0.2, 0.3, 0.4, 0.1, 0.4, 0.1])
    monkeypatch.setattr(trainer, "recall", lambda split: Recall({1: next(scores), 5: 0.5, 10: 0.5}, 1, 0))
    rates = [trainer.validate(epoch)["lr"] for epoch in range(1, 10)]
    # The lr of an epoch is the one it was trained with: the second without a better one is the 4th, then the 8th.
    assert rates == pytest.approx([1e-2] * 4 + [1e-3] * 4 + [1e-4])


def test_collapse_is_warned_of(faces):
    trainer = trainer_of(faces, cached(faces, tiny_embedder()), margin=0.25)
    for loss, share, warned in (
        (0.5, 1.0, True),
        (0.4951, 0.6, True),
        (0.5049, 1.0, True),
        (0.494, 1.0, False),
        (0.506, 1.0, False),
        (0.5, 0.3, False),  # on its way down
    ):
        sentence = trainer.warning(3, {"train/loss": loss, "train/collapsed": share})
        assert (sentence is not None) == warned
    assert "epoch 3 is 0.5000 per pair" in (trainer.warning(3, {"train/loss": 0.5, "train/collapsed": 1.0}) or "")
    # What it is when a network maps everybody to one point, in a real step.
    embedder = tiny_embedder()
    with torch.no_grad():
        for parameter in embedder.network.parameters():
            parameter.fill_(0.5)
        embedder.network.layers[1].weight.zero_()  # type: ignore[index, union-attr]
    collapsed = trainer_of(faces, cached(faces, embedder), margin=0.25)
    assert collapsed.step(1, 0) == pytest.approx({"loss": 0.5, "collapsed": 1.0})


def test_pictures_read_ahead_are_those_of_the_step(faces, monkeypatch):
    """With and without the thread that reads ahead, and with steps out of order, as after a resume."""

    def losses(order, ahead):
        features = BackboneFeatures(faces, tiny_embedder(), "fp32")
        if not ahead:
            monkeypatch.setattr(features, "expect", lambda real, art: None)
        trainer = trainer_of(faces, features)
        return [trainer.step(*step)["loss"] for step in order]

    order = [(1, 0), (1, 1), (1, 3), (2, 0), (1, 2)]
    assert losses(order, ahead=True) == losses(order, ahead=False)


def test_bf16_trains_float32_weights(faces):
    embedder = tiny_embedder()
    trainer = trainer_of(faces, BackboneFeatures(faces, embedder, "bf16"))
    exact = trainer_of(faces, BackboneFeatures(faces, tiny_embedder(), "fp32"))
    one, two = trainer.step(1, 0)["loss"], exact.step(1, 0)["loss"]
    assert one != two
    assert one == pytest.approx(two, rel=0.1)
    assert {parameter.dtype for parameter in embedder.parameters()} == {torch.float32}


# --- runs -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(place, tmp_path_factory):
    """Projections, until they know that proxies are negatives."""
    out = tmp_path_factory.mktemp("trained") / "OUT"
    sentences: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry._REGISTRY, "tiny", registry.Backbone(CARD, TinyNetwork))
        patch.setattr(loop, "plot_curves", lambda *arguments: b"")
        patch.setattr(torch.cuda, "is_available", lambda: False)
        settings = config(place, out, lr=3e-2, epochs=25)
        result = train_identity(settings, quiet=True, notify=sentences.append)
    return out, result, sentences


def test_training_finds_people(trained):
    _, result, _ = trained
    assert result.after["valid"].at[1] > result.before["valid"].at[1] + 0.2
    assert result.after["test"].at[1] >= result.before["test"].at[1]
    assert (result.after["test"].queries, result.after["test"].without_relevant) == (9, 1)


def test_a_run_leaves_what_it_promises(trained, faces):
    out, result, sentences = trained
    names = {path.name for path in out.iterdir()}
    assert names >= {"config.json", "metrics.parquet", "best.safetensors", "model.json", "results.json", "embeddings"}
    assert "journal" not in names
    assert len(list((out / "embeddings").iterdir())) == 2
    written = json.loads((out / "results.json").read_text())
    assert written == json.loads(json.dumps(result.as_dict()))
    assert written["after"]["valid"] == result.after["valid"].as_dict()
    assert written["pairs"] == PAIRS
    assert written["left_out"] == {"photographs": 1, "people": 1}
    assert written["people"] == {"train": 9, "valid": 5, "test": 4}
    assert sentences[0].endswith("no proxy of another photograph of the person: 1 (of 1 people)")
    metrics = pq.read_table(out / "metrics.parquet").to_pylist()
    assert len(metrics) == result.epochs == 25
    best = max(metrics, key=lambda row: row["valid/R@1"])
    assert best["valid/R@1"] == result.after["valid"].at[1]


def test_the_saved_model_is_the_one_that_was_scored(trained, faces):
    out, result, _ = trained
    model = load_identity_model(out)
    for split in ("valid", "test"):
        found, queries = recall_by_definition(model, faces, split)
        assert found == pytest.approx(result.after[split].at)
        assert queries == result.after[split].queries
    pictures = faces.proxies([0, 1]).float() / 255
    pictures.requires_grad_()
    model.embed_art(pictures)[:, 0].sum().backward()
    assert pictures.grad is not None
    assert pictures.grad.abs().sum() > 0


def test_a_finetuned_model_needs_no_other_file(place, faces, tmp_path):
    save_file(load_network("tiny", "random", seed=5).network.state_dict(), tmp_path / "tiny.safetensors")
    weights = str(tmp_path / "tiny.safetensors")
    result = train(place, tmp_path / "OUT", weights=weights, finetune=True, epochs=2, crop=(0.0, 0.1, 1.0, 0.9))
    Path(weights).unlink()
    model = load_identity_model(tmp_path / "OUT")
    assert model.embedder.face_input.crop == (0.0, 0.1, 1.0, 0.9)
    found, _ = recall_by_definition(model, faces, "test")
    assert found == pytest.approx(result.after["test"].at)
    start = load_network("tiny", "random", seed=5).network.state_dict()
    kept = load_file(tmp_path / "OUT/best.safetensors")
    assert not torch.equal(kept["network.layers.1.weight"], start["layers.1.weight"])
    assert torch.equal(kept["network.layers.2.running_mean"], start["layers.2.running_mean"])


def files(out):
    names = ("metrics.jsonl", "results.json", "best.json", "model.json")
    return {name: (out / name).read_bytes() for name in names}, load_file(out / "best.safetensors")


def interrupt_at(monkeypatch, step):
    """Press Ctrl-C in the n-th step."""
    original, calls = IdentityTrainer.step, []

    def stepping(self, epoch, index):
        calls.append((epoch, index))
        if len(calls) == step:
            signal.raise_signal(signal.SIGINT)
        return original(self, epoch, index)

    monkeypatch.setattr(IdentityTrainer, "step", stepping)


@pytest.mark.parametrize("finetune", [False, True])
@pytest.mark.parametrize("step", [3, 8, 10])
def test_a_resumed_run_equals_an_uninterrupted_one(place, tmp_path, monkeypatch, finetune, step):
    """Stopped mid-epoch, at the end of the second epoch (of four steps), and in the third."""
    changes = {"finetune": finetune, "positives": "own" if step == 8 else "other", "plateau": 1}
    train(place, tmp_path / "whole", **changes)
    with monkeypatch.context() as patch:
        interrupt_at(patch, step)
        with pytest.raises(Interrupted, match="same command"):
            train(place, tmp_path / "OUT", **changes)
    assert not (tmp_path / "OUT/results.json").exists()
    train(place, tmp_path / "OUT", **changes)
    (texts, weights), (other_texts, other_weights) = files(tmp_path / "whole"), files(tmp_path / "OUT")
    assert texts == other_texts
    assert weights.keys() == other_weights.keys()
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)


def test_a_trained_run_may_be_trained_further_but_not_otherwise(place, tmp_path):
    train(place, tmp_path / "OUT", epochs=2)
    longer = train(place, tmp_path / "OUT", epochs=3)
    assert longer.epochs == 3
    for changes, named in (
        ({"margin": 0.3}, "margin"),
        ({"form": "linear"}, "form"),
        ({"positives": "own"}, "positives"),
        ({"lr": 0.1}, "lr"),
        ({"batch_size": 4}, "batch_size"),
        ({"seed": 2}, "seed"),
        ({"finetune": True}, "finetune"),
        ({"crop": (0.0, 0.0, 0.5, 1.0)}, "crop"),
    ):
        with pytest.raises(InputError, match=named):
            train(place, tmp_path / "OUT", **changes)


@pytest.mark.parametrize("form", ["literal", "linear"])
def test_the_other_forms_train_too(place, faces, tmp_path, form):
    result = train(place, tmp_path / "OUT", form=form, epochs=2)
    found, _ = recall_by_definition(load_identity_model(tmp_path / "OUT"), faces, "valid")
    assert found == pytest.approx(result.after["valid"].at)


@pytest.mark.parametrize(
    "case",
    [
        (1e30, 8, "the loss is nan in epoch 1, step 2 of 4"),
        (1e20, 8, "the loss is nan in epoch 1, step 2 of 4"),
        (1e20, PAIRS, "validation after epoch 1 failed"),  # its one step left finite weights and endless embeddings
    ],
)
def test_a_diverged_training_stops_and_says_where(place, tmp_path, monkeypatch, case):
    lr, batch_size, where = case
    monkeypatch.setattr(IdentityConfig, "learning_rate", lr)  # far more than may be set, so that it does diverge
    with pytest.raises(RunError) as caught:
        train(place, tmp_path / "OUT", finetune=True, batch_size=batch_size)
    for part in (where, str(tmp_path / "OUT/state.pt"), "before the first step", "lower learning rate"):
        assert part in str(caught.value)
    assert (tmp_path / "OUT/state.pt").exists()
    assert not (tmp_path / "OUT/results.json").exists()


# --- data -----------------------------------------------------------------------------------------


def data_of(tmp_path, counts, positives="other", batch_size=2, seed=0, **options):
    sentences: list[str] = []
    run = RunFaces.open(write_labelled_run(tmp_path, counts, **options))
    return run, identity_data(run, positives, batch_size, seed, sentences.append), sentences


def test_people_are_held_out_where_there_is_no_validation(tmp_path):
    run, data, sentences = data_of(tmp_path, {"train": [3] * 30 + [1] * 5, "test": [2, 2]})
    train, valid = data.splits["train"], data.splits["valid"]
    assert sorted([*train, *valid]) == run.indices("train").tolist()
    people = set(run.identities[valid].tolist())
    assert not people & set(run.identities[train].tolist())
    assert len(people) == 3
    assert valid.size == 9  # nobody with a single photograph, who could not be found
    assert "3 of the people in train are held out (9 photographs, seed 0)" in sentences[0]
    again, other = (identity_data(run, "other", 2, seed, lambda sentence: None) for seed in (0, 1))
    assert np.array_equal(again.splits["valid"], valid)
    assert not np.array_equal(other.splits["valid"], valid)


def test_a_run_without_test_is_trained_without(tmp_path):
    _, data, _ = data_of(tmp_path, {"train": [2, 2], "valid": [2, 2]})
    assert list(data.splits) == ["train", "valid"]
    settings = IdentityConfig(str(tmp_path / "run"), str(tmp_path / "OUT"), "tiny", "random", batch_size=4, epochs=1)
    assert list(train_identity(settings, quiet=True).after) == ["valid"]


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        ({"valid": [2, 2], "test": [2, 2]}, {}, "no accepted proxy in split train; it has valid, test"),
        ({"train": [2, 2], "valid": [2, 2]}, {"identities": False}, r"split train of .* has no identities"),
        ({"train": [4], "valid": [2, 2]}, {}, r"split train of .* has one identity alone"),
        ({"train": [2, 2], "valid": [4]}, {}, r"split valid of .* has one identity alone"),
        ({"train": [2, 2], "valid": [2, 2], "test": [3]}, {}, r"split test of .* has one identity alone"),
        ({"train": [2, 2], "valid": [1, 1, 1]}, {}, r"split valid of .* has no person with two photographs"),
        ({"train": [2, 2], "valid": [2, 2], "test": [1, 1]}, {}, r"split test of .* has no person with two"),
        ({"train": [3, 1, 1], "valid": [2, 2]}, {}, r"fewer than two people with two photographs.*positives own"),
        ({"train": [2, 2], "valid": [2, 2]}, {"batch_size": 5}, r"batch of 5 is more than the 4 pairs of split train"),
        ({"train": [2, 2, 2, 1]}, {}, r"has no split valid, and too few people with two photographs in train \(3\)"),
    ],
)
def test_data_that_cannot_be_used_is_refused(tmp_path, counts, options, message):
    with pytest.raises(InputError, match=message):
        data_of(tmp_path, counts, **options)


def test_own_proxies_need_no_second_photograph_in_training(tmp_path):
    _, data, sentences = data_of(tmp_path, {"train": [1, 1, 1], "valid": [2, 2]}, positives="own")
    assert (data.pairs, data.left_out, sentences) == (3, (0, 0), [])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"form": "cubic"}, "form is one of residual, literal, linear"),
        ({"positives": "any"}, "positives is one of other, own"),
        ({"precision": "fp16"}, "precision is one of fp32, bf16"),
        ({"margin": 0.0}, "margin must be a number above 0"),
        ({"margin": float("nan")}, "margin must be"),
        ({"lr": -1e-5}, "lr must be"),
        ({"lr": float("inf")}, "lr must be"),
        ({"batch_size": 1}, "batch_size must be at least 2"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"plateau": 0}, "plateau must be at least 1"),
        ({"seed": -1}, "seed must lie in"),
        ({"seed": 2**63}, "seed must lie in"),
        ({"device": "gpu"}, 'device "gpu" is none'),
    ],
)
def test_wrong_settings_are_named(changes, named):
    with pytest.raises(InputError, match=named):
        IdentityConfig("run", "OUT", "tiny", "random", **changes)


@pytest.mark.parametrize(("steps", "plateau"), [(5087, 2), (2500, 2), (2000, 3), (22, 228), (1, 5000)])
def test_a_plateau_is_five_thousand_steps_and_two_epochs_at_least(steps, plateau):
    settings = IdentityConfig("run", "OUT", "tiny", "random")
    assert settings.plateau_epochs(steps) == plateau
    assert dataclasses.replace(settings, plateau=7).plateau_epochs(steps) == 7


def test_the_papers_learning_rates():
    settings = IdentityConfig("run", "OUT", "tiny", "random")
    assert (settings.learning_rate, settings.margin, settings.batch_size) == (1e-5, 0.1, 32)
    assert dataclasses.replace(settings, finetune=True).learning_rate == 1e-6
    assert dataclasses.replace(settings, finetune=True, lr=0.5).learning_rate == 0.5


# --- the saved model ------------------------------------------------------------------------------


def test_a_model_that_cannot_be_used_is_refused(trained, tmp_path):
    out, _, _ = trained
    with pytest.raises(InputError, match=r"has no model\.json"):
        load_identity_model(tmp_path)
    shutil.copy(out / "model.json", tmp_path)
    with pytest.raises(InputError, match="train it for an epoch"):
        load_identity_model(tmp_path)
    data = (out / "best.safetensors").read_bytes()
    (tmp_path / "best.safetensors").write_bytes(data[:-9])
    with pytest.raises(RunError, match=r"best\.safetensors.* cannot be read"):
        load_identity_model(tmp_path)
    save_file({"projections.real.weight": torch.zeros(8, 8)}, tmp_path / "best.safetensors")
    with pytest.raises(RunError, match=r"does not fit model\.json"):
        load_identity_model(tmp_path)
    (tmp_path / "best.safetensors").write_bytes(data)
    document = json.loads((out / "model.json").read_text())
    save_file(load_network("tiny", "random", seed=9).network.state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="other weights than those"):
        load_identity_model(tmp_path, weights=tmp_path / "other.safetensors")
    for changes, error, message in (
        ({"weights": "/nowhere/x.pt"}, InputError, 'not at "/nowhere/x.pt"; say where'),
        ({"format": 9}, InputError, "format 1"),
        ({"kind": "attributes"}, InputError, "not an identity model"),
        ({"form": "cubic"}, RunError, "incomplete"),
    ):
        (tmp_path / "model.json").write_text(json.dumps(document | changes))
        with pytest.raises(error, match=message):
            load_identity_model(tmp_path)
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(RunError, match=r"model\.json.* cannot be read"):
        load_identity_model(tmp_path)


def test_the_table():
    before, after = Recall({1: 0.25, 5: 0.5, 10: 1.0}, 1200, 3), Recall({1: 0.2, 5: 0.75, 10: 1.0}, 1200, 3)
    result = IdentityResult(
        title="t",
        config={},
        faces={},
        people={},
        pairs=1,
        left_out=(0, 0),
        epochs=3,
        best_epoch=2,
        before={"valid": before, "test": before},
        after={"valid": after, "test": after},
    )
    lines = result.lines()
    assert lines[1:4] == [
        "               queries     R@1     R@5    R@10",
        "valid before     1,200    25.0    50.0   100.0",
        "valid after      1,200    20.0    75.0   100.0",
    ]
    assert lines[6].startswith("photographs of valid that are no queries")
    assert lines[6].endswith(": 3")
    assert "worse than the bare backbone" in lines[-1]


# --- several processes ----------------------------------------------------------------------------

DISTRIBUTED = """
import sys
from pipeline.backbones import registry
from pipeline.training import loop, ranks
from pipeline.training.identity import IdentityConfig, train_identity
from tests.tiny_embedder import CARD, TinyNetwork

registry._REGISTRY["tiny"] = registry.Backbone(CARD, TinyNetwork)
loop.plot_curves = lambda *arguments: b""
place, out = sys.argv[1:]
for finetune in (False, True):
    settings = {"lr": 3e-3, "batch_size": 8, "epochs": 3, "seed": 1, "finetune": finetune}
    train_identity(IdentityConfig(f"{place}/run", f"{out}/{finetune}", "tiny", "random", **settings), quiet=True)
ranks.finish()
"""


def test_two_processes_train_what_one_does(place, tmp_path):
    """Half of each batch in either, and yet the same negatives: the same model but for the order of sums."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", DISTRIBUTED, str(place), str(tmp_path)],
            cwd=ROOT,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    try:
        codes = [process.wait(timeout=WAIT) for process in processes]
    finally:  # where one has died, the other may wait for it
        for process in processes:
            process.kill()
            process.wait()
    assert codes == [0, 0]
    for finetune in (False, True):
        train(place, tmp_path / "alone", finetune=finetune)
        alone, together = (load_file(tmp_path / name / "best.safetensors") for name in ("alone", str(finetune)))
        one, two = ((tmp_path / name / "metrics.jsonl").read_text() for name in ("alone", str(finetune)))
        for single, double in zip(one.splitlines(), two.splitlines(), strict=True):
            assert json.loads(single) == pytest.approx(json.loads(double), rel=1e-3)
        for name, value in alone.items():
            torch.testing.assert_close(together[name], value, rtol=1e-3, atol=1e-5)
        shutil.rmtree(tmp_path / "alone")


# --- a GPU, and the research data ----------------------------------------------------------------------------

DATA = os.environ.get("STYLIZE_TEST_DATA")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("finetune", [False, True])
def test_a_gpu_trains_what_the_cpu_does(place, tmp_path, finetune):
    results = [
        train(place, tmp_path / device, finetune=finetune, epochs=2, device=device) for device in ("cpu", "cuda")
    ]
    cpu, cuda = (load_file(tmp_path / device / "best.safetensors") for device in ("cpu", "cuda"))
    assert results[0].before == results[1].before
    one, two = ((tmp_path / device / "metrics.jsonl").read_text().splitlines() for device in ("cpu", "cuda"))
    for left, right in zip(one, two, strict=True):
        assert json.loads(left)["train/loss"] == pytest.approx(json.loads(right)["train/loss"], rel=1e-2)
    assert cpu.keys() == cuda.keys()


@pytest.mark.data
@pytest.mark.skipif(DATA is None, reason="STYLIZE_TEST_DATA is not set")
def test_mobilefacenet_trains_and_is_loaded_again(place, faces, tmp_path):
    """Drawn pictures, real weights: that it runs, not what it finds."""
    weights = str(Path(DATA or "") / "facerec/mobilefacenet_068.ckpt")
    settings = dataclasses.replace(config(place, tmp_path / "OUT", epochs=1), backbone="mobilefacenet", weights=weights)
    result = train_identity(settings, quiet=True)
    found, _ = recall_by_definition(load_identity_model(tmp_path / "OUT"), faces, "test")
    assert found == pytest.approx(result.after["test"].at)
