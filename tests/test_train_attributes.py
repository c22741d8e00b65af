"""Training of attribute heads: batches, steps against plain networks, resuming, results beside the majority class."""

import dataclasses
import functools
import json
import math
import signal
import sys
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from manifests.attributes import ATTRIBUTES
from manifests.errors import InputError, RunError
from pipeline.errors import Interrupted
from pipeline.training import attribute_trainer, attributes, ranks
from pipeline.training.attribute_accuracy import AttributeAccuracy, attribute_accuracy
from pipeline.training.attribute_heads import AttributeHeads
from pipeline.training.attribute_model import load_attribute_heads
from pipeline.training.attribute_result import AttributesResult
from pipeline.training.attribute_trainer import AttributeData, AttributeTrainer
from pipeline.training.attributes import AttributesConfig, train_attributes
from pipeline.training.best_checkpoint import read_best
from pipeline.training.run_faces import RunFaces
from pipeline.training.training_run import TrainingRun
from tests.labelled_run import write_labelled_run
from tests.tiny_embedder import tiny_embedder

NARROW = (32, 16, 8)
DIM = 8


@pytest.fixture(autouse=True)
def narrow_heads(monkeypatch):
    """Forty branches of the paper's width take a quarter of a second per step."""
    monkeypatch.setattr(attribute_trainer, "AttributeHeads", functools.partial(AttributeHeads, widths=NARROW))


def drawn(faces=90, attributes=4, *, seed=0, noise=0.3, unknown=0.1):
    """Faces whose attributes are signs of directions of their embedding; proxies are the same, turned and noisier."""
    rng = np.random.default_rng(seed)
    real = rng.standard_normal((faces, DIM)).astype(np.float32)
    labels = (real @ rng.standard_normal((DIM, attributes)) > 0).astype(np.int8)
    labels[rng.random(labels.shape) < unknown] = -1
    art = np.roll(real, 1, axis=1) + noise * rng.standard_normal((faces, DIM)).astype(np.float32)
    cuts = [faces * 2 // 3, faces * 5 // 6]
    train, valid, test = np.split(np.arange(faces), cuts)
    return AttributeData(
        {"real": torch.from_numpy(real), "art": torch.from_numpy(art.astype(np.float32))},
        labels,
        np.arange(faces) // 2,
        {"train": train, "valid": valid, "test": test},
    )


def trained(data, epochs, **options):
    """Train without a run directory."""
    trainer = AttributeTrainer(data, **options)
    for epoch in range(1, epochs + 1):
        for index in range(trainer.steps(epoch)):
            loss = trainer.step(epoch, index)["loss"]
        metrics = trainer.validate(epoch)
    return trainer, loss, metrics


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


# --- trainer --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("train_on", "rows"), [("real", 60), ("art", 60), ("joint", 120)])
def test_an_epoch_has_every_picture_once(train_on, rows):
    trainer = AttributeTrainer(drawn(), train_on=train_on, batch_size=32, seed=3)
    assert trainer.steps(1) == math.ceil(rows / 32)
    orders = [torch.cat([trainer.batch(epoch, index) for index in range(trainer.steps(epoch))]) for epoch in (1, 2)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(rows))
    assert not torch.equal(*orders)
    other = AttributeTrainer(drawn(), train_on=train_on, batch_size=32, seed=3)
    assert torch.equal(other.batch(2, 1), trainer.batch(2, 1))  # asked for alone, in no order
    assert not torch.equal(
        AttributeTrainer(drawn(), train_on=train_on, batch_size=32, seed=4).batch(2, 1), trainer.batch(2, 1)
    )


@pytest.mark.parametrize(("train_on", "domains"), [("real", ["real"]), ("art", ["art"]), ("joint", ["real", "art"])])
def test_training_is_that_of_plain_networks(train_on, domains, monkeypatch):
    """Four epochs against separate networks, a plain Adam and a loop over known labels."""
    monkeypatch.setattr(
        attribute_trainer, "AttributeHeads", functools.partial(AttributeHeads, widths=NARROW, dropout=(0.0, 0.0))
    )
    data = drawn()
    trainer = AttributeTrainer(data, train_on=train_on, batch_size=16, lr=1e-2, seed=1)
    branches = trainer.heads.branches()
    pictures = [(domain, face) for domain in domains for face in data.indices["train"]]
    optimiser = torch.optim.Adam([p for branch in branches for p in branch.parameters()], lr=1e-2, foreach=False)
    for epoch in range(1, 5):
        for group in optimiser.param_groups:
            group["lr"] = 1e-2 if epoch <= 3 else 0.8e-2
        for index in range(trainer.steps(epoch)):
            batch = [pictures[row] for row in trainer.batch(epoch, index).tolist()]
            losses = []
            for domain, face in batch:
                logits = torch.stack([branch(data.embeddings[domain][face]) for branch in branches])
                labels = torch.from_numpy(data.labels[face]).long()
                losses.append(F.cross_entropy(logits[labels >= 0], labels[labels >= 0], reduction="none"))
            loss = torch.cat(losses).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            assert trainer.step(epoch, index)["loss"] == pytest.approx(loss.item(), rel=1e-3)
        trainer.validate(epoch)
    ours = trainer.heads.eval()(data.embeddings["real"])
    theirs = torch.stack([branch(data.embeddings["real"]) for branch in branches], dim=1)
    torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-2)


def test_what_is_learned_is_seen_in_the_metrics():
    data = drawn(600)
    _, _, metrics = trained(data, 12, train_on="joint", lr=3e-3)
    assert metrics["valid/accuracy"] > 0.75
    assert metrics["valid/accuracy"] == pytest.approx(
        (metrics["valid/accuracy/real"] + metrics["valid/accuracy/art"]) / 2
    )
    assert metrics["valid/accuracy/majority"] < 0.6
    trainer, loss, metrics = trained(data, 12, train_on="real", lr=3e-3)
    assert loss < 0.2
    assert metrics["valid/accuracy"] == metrics["valid/accuracy/real"] > metrics["valid/accuracy/art"] + 0.1
    assert trainer.warning(12, metrics) is None
    # What the trainer says of the validation split is what the scorer says of it.
    assert metrics["valid/balanced/art"] == data.accuracy(trainer.heads, "valid", "art").mean_balanced


def test_constant_answers_are_warned_of():
    data = drawn(200)
    rng = np.random.default_rng(0)
    labels = (rng.random(data.labels.shape) < 0.1).astype(np.int8)  # rare, and nothing to do with the embeddings
    data = AttributeData(data.embeddings, labels, data.persons, data.indices)
    trainer, _, metrics = trained(data, 5, train_on="real", lr=3e-3)
    assert metrics["valid/accuracy"] == metrics["valid/accuracy/majority"] > 0.8
    warning = trainer.warning(5, metrics)
    assert warning is not None
    assert "majority class" in warning
    assert trainer.warning(1, metrics) is None  # too early to tell


def test_balanced_training_finds_a_rare_attribute():
    data = drawn(900, attributes=1, unknown=0)
    rng = np.random.default_rng(1)
    score = data.embeddings["real"][:, 0].numpy() + rng.standard_normal(900)
    labels = (score > np.quantile(score, 0.9)).astype(np.int8)[:, None]
    data = AttributeData(data.embeddings, labels, data.persons, data.indices)
    options = {"train_on": "real", "lr": 3e-3}
    plain, _, unweighted = trained(data, 10, **options)
    balanced, _, weighted = trained(data, 10, optimise_for="balanced", **options)
    assert (plain.monitor, balanced.monitor) == ("valid/accuracy", "valid/balanced")
    assert weighted["valid/balanced"] > unweighted["valid/balanced"] + 0.1
    assert weighted["valid/accuracy"] < unweighted["valid/accuracy"]


def test_steps_ignore_the_global_generator():
    data = drawn()
    trainers = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        trainer = AttributeTrainer(data, train_on="real", seed=5)
        trainer.step(1, 0)
        after = torch.rand(())
        torch.manual_seed(seed)
        assert after == torch.rand(())
        trainers.append(trainer.weights())
    assert same(*trainers)
    assert not same(AttributeTrainer(data, train_on="real", seed=6).weights(), trainers[0])


def test_state_is_all_that_is_needed(tmp_path):
    """Whole and interrupted in the middle of an epoch, after the first drop of the learning rate."""
    data = drawn()
    whole, _, _ = trained(data, 5, train_on="joint")
    half, _, _ = trained(data, 3, train_on="joint")
    half.step(4, 0)
    torch.save(half.state(), tmp_path / "state.pt")
    other = AttributeTrainer(data, train_on="joint", lr=0.5)
    other.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    for epoch in (4, 5):
        for index in range(1 if epoch == 4 else 0, other.steps(epoch)):
            other.step(epoch, index)
        metrics = other.validate(epoch)
    assert same(other.weights(), whole.weights())
    assert metrics["valid/accuracy"] == whole.validate(6)["valid/accuracy"]


def test_two_processes_have_the_gradient_of_one(monkeypatch):
    """A batch of 3, so that they have 2 and 1 rows, with unknown labels spread unevenly."""
    monkeypatch.setattr(
        attribute_trainer, "AttributeHeads", functools.partial(AttributeHeads, widths=NARROW, dropout=(0.0, 0.0))
    )
    data = drawn(unknown=0.5)

    def gradients(rank, processes):
        monkeypatch.setattr(ranks, "rank", lambda: rank)
        monkeypatch.setattr(ranks, "world_size", lambda: processes)
        monkeypatch.setattr(ranks, "broadcast_weights", lambda module: None)
        kept: list[torch.Tensor] = []
        monkeypatch.setattr(ranks, "average_gradients", lambda parameters: kept.extend(p.grad for p in parameters))
        loss = AttributeTrainer(data, train_on="joint", batch_size=3).step(1, 0)["loss"]
        return loss, kept

    (loss, whole), *parts = gradients(0, 1), gradients(0, 2), gradients(1, 2)
    assert loss == pytest.approx(sum(part[0] for part in parts) / 2)
    for own, first, second in zip(whole, parts[0][1], parts[1][1], strict=True):
        torch.testing.assert_close(own, (first + second) / 2, rtol=1e-4, atol=1e-7)
    (_, whole), *parts = (gradients(rank, 4) for rank in (0, 1, 2, 3))
    assert not any(gradient.any() for gradient in parts[-1][1])  # the fourth has no row, and must not fail


def test_bf16_learns_too():
    _, _, metrics = trained(drawn(300), 10, train_on="real", lr=3e-3, precision="bf16")
    assert metrics["valid/accuracy"] > metrics["valid/accuracy/majority"] + 0.1


# --- train_attributes -----------------------------------------------------------------------------

COUNTS = {"train": [3] * 8, "valid": [3] * 3, "test": [2] * 3}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return write_labelled_run(tmp_path_factory.mktemp("attributes"), COUNTS)


@pytest.fixture
def embedder(monkeypatch):
    """Stands in for every backbone."""
    tiny = tiny_embedder()
    monkeypatch.setattr(attributes, "load_embedder", lambda *args, **options: tiny)
    return tiny


@pytest.fixture
def relabelled(monkeypatch):
    """Let every run that is opened have its labels changed."""

    def use(change):
        monkeypatch.setattr(RunFaces, "open", functools.partial(_opened, RunFaces.open, change))

    return use


def _opened(real, change, *args, **options):
    faces = real(*args, **options)
    change(faces)
    return faces


def settings(run, out, **changes):
    options: dict[str, Any] = {"epochs": 3, "lr": 1e-2, "batch_size": 8, "device": "cpu", "train_on": "joint"}
    return AttributesConfig(str(run), str(out), "tiny", "random", **(options | changes))


def test_results(built, embedder, tmp_path):
    result = train_attributes(settings(built, tmp_path / "out"), quiet=True)
    assert result.faces == {"train": 24, "valid": 9, "test": 6}
    assert (result.epochs, list(result.cells)) == (3, ["valid", "test"])
    faces = RunFaces.open(built)
    model = load_attribute_heads(tmp_path / "out")
    assert (model.backbone, model.digest, model.crop, model.train_on) == (
        "tiny",
        embedder.digest,
        (0.0, 0.0, 1.0, 1.0),
        "joint",
    )
    assert (model.attributes, model.untrained, model.weights) == (ATTRIBUTES, (), "random")
    train = faces.attributes[faces.indices("train")]
    for split, domains in result.cells.items():
        rows = faces.indices(split)
        for domain, cell in domains.items():
            pictures = (faces.photographs if domain == "real" else faces.proxies)(rows)
            with torch.no_grad():
                yes = model.probabilities(embedder(pictures)).numpy() > 0.5
            labels = faces.attributes[rows] == 1
            np.testing.assert_allclose(cell.accuracy, (yes == labels).mean(0))
            np.testing.assert_allclose(cell.majority, (labels == (train.mean(0) > 0.5)).mean(0))
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert written == json.loads(json.dumps(result.as_dict()))
    assert written["cells"]["test"]["art"]["accuracy"] == result.cells["test"]["art"].mean_accuracy
    assert list(written["attributes"]) == list(ATTRIBUTES)
    smiling = ATTRIBUTES.index("Smiling")
    assert (
        written["attributes"]["Smiling"]["valid"]["real"]["accuracy"] == result.cells["valid"]["real"].accuracy[smiling]
    )
    table = (tmp_path / "out" / "attributes.md").read_text()
    (line,) = [line for line in table.splitlines() if line.startswith("| Smiling |")]
    accuracy = result.cells["valid"]["real"].accuracy[smiling]
    assert line.split(" | ")[4] == f"{accuracy:.1%}".replace("%", " %")
    columns = {line.count("|") for line in table.splitlines() if line.startswith("| ")}
    assert len(columns) == 2
    assert len(result.lines()) >= 6


def test_best_epoch_is_the_one_that_is_scored(built, embedder, tmp_path):
    result = train_attributes(settings(built, tmp_path / "out", epochs=6), quiet=True)
    best = read_best(TrainingRun.open(tmp_path / "out"))
    assert best.epoch == result.best_epoch
    cells = result.cells["valid"]
    assert best.metrics["valid/accuracy/real"] == cells["real"].mean_accuracy
    assert best.score == pytest.approx((cells["real"].mean_accuracy + cells["art"].mean_accuracy) / 2)
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert max(line["valid/accuracy"] for line in lines) == best.score


def test_the_same_command_again(built, embedder, tmp_path):
    first = train_attributes(settings(built, tmp_path / "out"), quiet=True)
    embedder.network.embedded = 0
    said: list[str] = []
    again = train_attributes(settings(built, tmp_path / "out"), quiet=True, notify=said.append)
    assert embedder.network.embedded == 0
    assert any("nothing to train" in sentence for sentence in said)
    assert again.as_dict() == first.as_dict()
    further = train_attributes(settings(built, tmp_path / "out", epochs=4), quiet=True)
    straight = train_attributes(settings(built, tmp_path / "other", epochs=4), quiet=True)
    assert further.as_dict() == straight.as_dict()
    with pytest.raises(InputError, match=r"\n  lr: this run has 0\.01, now it would be 0\.02"):
        train_attributes(settings(built, tmp_path / "out", lr=0.02), quiet=True)
    with pytest.raises(InputError, match=r"train_on: this run has joint, now it would be art"):
        train_attributes(settings(built, tmp_path / "out", train_on="art"), quiet=True)
    embedder.digest = "other weights"
    with pytest.raises(InputError, match=r"data\.weights: .* now it would be other weights"):
        train_attributes(settings(built, tmp_path / "out"), quiet=True)


def test_interrupted_and_resumed(built, embedder, tmp_path, monkeypatch):
    whole = train_attributes(settings(built, tmp_path / "whole"), quiet=True)
    real = AttributeTrainer.step

    def pressed(self, epoch, index):
        if (epoch, index) == (2, 1):
            signal.raise_signal(signal.SIGINT)
        return real(self, epoch, index)

    with monkeypatch.context() as patch:
        patch.setattr(AttributeTrainer, "step", pressed)
        with pytest.raises(Interrupted, match="Stopped in epoch 2 after 2 of 6 steps"):
            train_attributes(settings(built, tmp_path / "cut"), quiet=True)
    assert not (tmp_path / "cut" / "results.json").exists()
    assert load_attribute_heads(tmp_path / "cut").heads.n == 40  # the best so far can be used already
    resumed = train_attributes(settings(built, tmp_path / "cut"), quiet=True)
    assert resumed.as_dict() == whole.as_dict()
    for name in ("metrics.jsonl", "best.safetensors", "attributes.md"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_attribute_without_labels(built, embedder, tmp_path, relabelled):
    bald, hat = ATTRIBUTES.index("Bald"), ATTRIBUTES.index("Wearing_Hat")

    def change(faces):
        faces.attributes[faces.indices("train"), bald] = -1
        faces.attributes[:, hat] = -1
        faces.attributes[faces.indices("test"), ATTRIBUTES.index("Young")] = -1

    relabelled(change)
    said: list[str] = []
    result = train_attributes(settings(built, tmp_path / "out"), quiet=True, notify=said.append)
    assert any("Bald, Wearing_Hat" in sentence for sentence in said)
    assert result.unlabelled == ("Bald", "Wearing_Hat")
    assert result.cells["valid"]["real"].measured == 38
    assert result.cells["test"]["art"].measured == 37
    assert math.isfinite(result.cells["valid"]["real"].mean_accuracy)
    document = result.as_dict()
    assert document["attributes"]["Bald"]["majority"] is None
    assert document["attributes"]["Bald"]["valid"]["real"]["accuracy"] is None
    assert document["attributes"]["Bald"]["valid"]["real"]["known"] == 9
    assert "Bald, Wearing_Hat" in result.lines()[-1]
    json.dumps(document, allow_nan=False)
    assert load_attribute_heads(tmp_path / "out").untrained == ("Bald", "Wearing_Hat")


@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        (("train", "accuracy", -1), "split train of .* has no attribute labels; .*list_attr_celeba"),
        (("valid", "accuracy", -1), "split valid of .* has no attribute labels to choose the best epoch by"),
        (("valid", "balanced", 1), "split valid of .* has no attribute with both answers"),
    ],
)
def test_runs_without_labels(case, sentence, built, embedder, tmp_path, relabelled):  # noqa: PLR0917
    split, criterion, value = case

    def change(faces):
        faces.attributes[faces.indices(split)] = value

    relabelled(change)
    with pytest.raises(InputError, match=sentence):
        train_attributes(settings(built, tmp_path / "out", optimise_for=criterion), quiet=True)
    assert not (tmp_path / "out").exists()


def test_runs_without_a_split(embedder, tmp_path):
    untested = write_labelled_run(tmp_path / "untested", {"train": [2, 2, 2], "valid": [2, 2]})
    result = train_attributes(settings(untested, tmp_path / "out", epochs=1), quiet=True)
    assert list(result.cells) == ["valid"]
    assert "test" not in result.markdown().split("| split |")[1]
    blind = write_labelled_run(tmp_path / "blind", {"train": [2, 2], "test": [2, 2]})
    with pytest.raises(
        InputError, match=r"no accepted proxy in split valid, .* \(it has train, test\); build it with split valid"
    ):
        train_attributes(settings(blind, tmp_path / "other"), quiet=True)


def test_diverged_training_stops(built, embedder, tmp_path):
    config = settings(built, tmp_path / "out")
    object.__setattr__(config, "lr", 1e38)  # a learning rate that nobody can ask for
    with pytest.raises(RunError, match=r"is (nan|inf) in epoch|are not finite in epoch"):
        train_attributes(config, quiet=True)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"train_on": "both"}, 'train_on is one of real, art, joint, not "both"'),
        ({"optimise_for": "loss"}, "optimise_for is one of"),
        ({"precision": "fp16"}, "precision is one of fp32, bf16"),
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"batch_size": -1}, "batch_size must be at least 1"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"lr": 0.0}, "lr must be a number above 0"),
        ({"lr": math.nan}, "lr must be a number above 0"),
        ({"lr": 1.5}, "lr must be a number above 0 and at most 1, not 1.5"),
        ({"seed": -1}, r"seed must lie in \[0, 2\^63\), not -1"),
        ({"device": "mps"}, 'device "mps" is none'),
    ],
)
def test_impossible_settings(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        settings("run", "out", **changes)


def test_people_in_several_splits_are_told_of(built, embedder, tmp_path, relabelled):
    def change(faces):
        faces.identities[faces.indices("test")[:4]] = faces.identities[faces.indices("train")[[0, 0, 3, 3]]]

    relabelled(change)
    said: list[str] = []
    result = train_attributes(settings(built, tmp_path / "out", epochs=1), quiet=True, notify=said.append)
    assert result.people_in_several_splits == {"train, test": 2}
    assert json.loads((tmp_path / "out/results.json").read_text())["people_in_several_splits"] == {"train, test": 2}
    assert any("accuracy on test is then partly of people that were trained on" in sentence for sentence in said)
    assert result.remarks()[-1].startswith("Known people in more than one split: 2 (train, test: 2)")


def test_refused_before_any_work(built, embedder, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="lies inside the run"):
        train_attributes(settings(built, built / "training"), quiet=True)
    assert not (built / "training").exists()
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(InputError, match="TensorBoard is not installed"):
        train_attributes(settings(built, tmp_path / "out"), quiet=True, tensorboard=True)
    assert embedder.network.embedded == 0
    assert not (tmp_path / "out").exists()


def test_where_the_weights_were_is_recorded_in_full(built, embedder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = dataclasses.replace(settings(built, tmp_path / "out", epochs=1), weights="~/w.pt")
    train_attributes(config, quiet=True)
    assert load_attribute_heads(tmp_path / "out").weights == str(tmp_path / "w.pt")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(built, embedder, tmp_path):
    with pytest.raises(InputError, match='device "cuda" is asked for'):
        train_attributes(settings(built, tmp_path / "out", device="cuda"), quiet=True)


def test_loading_what_is_no_attribute_model(built, embedder, tmp_path):
    with pytest.raises(InputError, match=r"no model\.json; give the folder of `stylize train attributes`"):
        load_attribute_heads(tmp_path)
    out = tmp_path / "out"
    train_attributes(settings(built, out, epochs=1), quiet=True)
    document = json.loads((out / "model.json").read_text())

    def place(name, weights=True, **changes):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "model.json").write_text(json.dumps(document | changes))
        if weights:
            (folder / "best.safetensors").write_bytes((out / "best.safetensors").read_bytes())
        return folder

    assert load_attribute_heads(place("copy")).train_on == "joint"
    with pytest.raises(InputError, match="train it for an epoch"):
        load_attribute_heads(place("fresh", weights=False))
    with pytest.raises(InputError, match="not an attributes model"):
        load_attribute_heads(place("identity", kind="identity"))
    with pytest.raises(RunError, match=r"does not fit model\.json"):
        load_attribute_heads(place("narrow", dim=512))
    with pytest.raises(RunError, match=r"does not fit model\.json"):
        load_attribute_heads(place("four", attributes=["a", "b", "c", "d"]))
    broken = place("broken")
    (broken / "best.safetensors").write_bytes((out / "best.safetensors").read_bytes()[:-1])
    with pytest.raises(RunError, match=r"best\.safetensors. cannot be read"):
        load_attribute_heads(broken)
    (broken / "model.json").write_text("{")
    with pytest.raises(RunError, match=r"model\.json. cannot be read"):
        load_attribute_heads(broken)
    (broken / "model.json").write_text('{"format": 1, "kind": "attributes"}')
    with pytest.raises(RunError, match="incomplete"):
        load_attribute_heads(broken)


# --- result ---------------------------------------------------------------------------------------


def result_of(cell: AttributeAccuracy) -> AttributesResult:
    majority = np.zeros(40, np.int8)
    return AttributesResult("heads", {}, {"train": 1}, 1, 1, majority, {"valid": {"real": cell, "art": cell}})


def cell_of(right: float, faces: int = 400) -> AttributeAccuracy:
    """Score answers of which each attribute has a share of right ones, where the majority class has 80 %."""
    rng = np.random.default_rng(0)
    labels = np.zeros((faces, 40), np.int8)
    labels[: faces // 5] = 1
    predicted = np.where(rng.random(labels.shape) < right, labels, 1 - labels).astype(bool)
    return attribute_accuracy(predicted, labels, np.zeros(40, np.int8), rng.permutation(faces))


def test_no_result_is_called_none():
    worse = result_of(cell_of(0.7)).remarks()
    assert worse[0].startswith("On photographs of the valid split the model is no better than answering each")
    assert worse[1].startswith("On proxies")
    assert result_of(cell_of(0.9)).remarks() == []
    few = cell_of(0.83, faces=10)
    assert 0 < few.gain < 2 * few.gain_error
    assert "which may be chance" in result_of(few).remarks()[0]
    constant = attribute_accuracy(np.zeros((10, 40), bool), np.eye(10, 40, dtype=np.int8), np.zeros(40, np.int8))
    assert "no better than" in result_of(constant).remarks()[0]
    empty = attribute_accuracy(np.zeros((0, 40), bool), np.zeros((0, 40), np.int8), np.zeros(40, np.int8))
    assert result_of(empty).remarks()[0] == "No photograph of the valid split has a label to score."
