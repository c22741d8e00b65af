"""`train_fusion` from photographs on disk to results.json."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from manifests.errors import InputError, RunError
from pipeline.errors import Interrupted
from pipeline.training import loop
from pipeline.training.fusion import FusionConfig, train_fusion
from pipeline.training.fusion_data import read_fusion_faces
from pipeline.training.fusion_network import CASES, FusionNetwork, identity_loss
from pipeline.training.fusion_trainer import FusionTrainer
from tests.test_fusion_data import write_celeba, write_people
from tests.toy_trainer import kill_at

NAMES = ("Male", "Bald", "Young")
SMALL = {
    "attributes": NAMES,
    "min_images": 3,
    "size": 32,
    "width": 1 / 16,
    "hidden": 16,
    "batch_norm": True,
    "batch_size": 8,
    "epochs": 2,
    "device": "cpu",
}


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    monkeypatch.setattr(loop, "plot_curves", lambda *arguments: b"")


@pytest.fixture(scope="module")
def celeba(tmp_path_factory):
    folder = tmp_path_factory.mktemp("celeba")
    write_celeba(folder, {20: 6, 120: 6, 220: 5})
    return folder


def config(faces, out, **options):
    return FusionConfig(**{"faces": str(faces), "out": str(out), "case": "predicted", **SMALL, **options})


def train(faces, out, notify=lambda sentence: None, **options):
    return train_fusion(config(faces, out, **options), quiet=True, notify=notify)


def files(out):
    names = ("metrics.jsonl", "metrics.parquet", "best.safetensors", "best.json", "results.json")
    return {name: (out / name).read_bytes() for name in names}


# --- what it gives --------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_people_of_different_colours_are_told_apart(case, tmp_path):
    faces = tmp_path / "faces"
    random = np.random.default_rng(0)
    write_celeba(faces, {1: 10, 2: 10, 3: 10})
    for number, path in enumerate(sorted((faces / "img_align_celeba").iterdir())):
        pixels = random.integers(0, 100, (20, 16, 3), dtype=np.uint8)
        pixels[..., number // 10] += 120
        Image.fromarray(pixels).save(path, quality=95)
    result = train(faces, tmp_path / "out", case=case, epochs=8, lr=0.005, flip=True)
    assert (result.train_images, result.test_images) == (24, 6)
    assert result.accuracy == 1
    assert result.chance == pytest.approx(1 / 3)
    assert len(result.curve) == 8
    assert result.curve[-1] == 1
    assert result.as_dict() == json.loads((tmp_path / "out" / "results.json").read_text())
    assert result.people == ("1", "2", "3")
    lines = result.lines()
    assert lines[0] == (
        f"Case {case}, seed 0: 3 people, 24 photographs to train on, 6 to test; "
        f"epoch {result.best_epoch} of 8 is tested."
    )
    assert "Identity: 100.0% of the test photographs" in lines[1]
    assert len(lines) == (2 if case == "none" else 3)


def test_results_are_those_of_the_kept_network(celeba, tmp_path):
    result = train(celeba, tmp_path, case="ground-truth", epochs=3)
    summary = json.loads((tmp_path / "best.json").read_text())
    assert summary["monitor"] == "train/log_likelihood"
    assert summary["epoch"] == result.best_epoch
    log_likelihoods = [json.loads(line)["train/log_likelihood"] for line in (tmp_path / "metrics.jsonl").open()]
    assert result.best_epoch == 1 + log_likelihoods.index(max(log_likelihoods))
    faces = fusion_faces(celeba)
    network = FusionNetwork(
        people=3, attributes=3, case="ground-truth", size=32, width=1 / 16, hidden=16, batch_norm=True
    )
    network.load_state_dict(load_file(tmp_path / "best.safetensors"))
    network.eval()
    with torch.no_grad():
        pooled = network.pooled(faces.images[faces.test])
        people = network.identity_logits(pooled, faces.attributes[faces.test]).argmax(1)
        attributes = network.attribute_logits(pooled).argmax(2)
    assert result.accuracy == float((people == faces.classes[faces.test]).double().mean())
    each = (attributes == faces.attributes[faces.test]).double().mean(0)
    document = result.as_dict()["attributes"]
    assert [document["each"][name]["accuracy"] for name in NAMES] == pytest.approx(each.tolist())
    assert document["mean_accuracy"] == pytest.approx(float(each.mean()))
    majority = (faces.attributes[faces.train].double().mean(0) > 0.5).to(torch.int8)
    right = (faces.attributes[faces.test] == majority).double().mean(0)
    assert document["mean_majority"] == pytest.approx(float(right.mean()))


def fusion_faces(celeba):
    return read_fusion_faces(celeba, attributes=NAMES, min_images=3, identities=20, test_share=0.2, seed=0, size=32)


def test_a_folder_of_people(tmp_path):
    write_people(tmp_path / "lfw", {"Ann": 4, "Bob": 4})
    told: list[str] = []
    result = train(tmp_path / "lfw", tmp_path / "out", notify=told.append, case="none")
    assert result.people == ("Ann", "Bob")
    assert result.as_dict()["attributes"] is None
    assert told == ["2 people have at least 3 photographs; 20 were asked for"]
    with pytest.raises(InputError, match="no attribute labels"):
        train(tmp_path / "lfw", tmp_path / "other")
    assert not (tmp_path / "other").exists()


# --- runs -----------------------------------------------------------------------------------------


def test_the_same_command_again(celeba, tmp_path, monkeypatch):
    first = train(celeba, tmp_path)
    before = files(tmp_path)
    monkeypatch.setattr(FusionTrainer, "step", None)
    assert train(celeba, tmp_path).as_dict() == first.as_dict()
    assert files(tmp_path) == before


@pytest.mark.parametrize("case", CASES)
def test_an_interrupted_run_ends_as_a_whole_one(case, celeba, tmp_path, monkeypatch):
    options = {"case": case, "dropout": 0.5, "flip": True}
    train(celeba, tmp_path / "whole", **options)
    step, kill = FusionTrainer.step, kill_at(2, 0)

    def interrupted(self, epoch, index):
        kill(epoch, index)
        return step(self, epoch, index)

    with monkeypatch.context() as patch:
        patch.setattr(FusionTrainer, "step", interrupted)
        with pytest.raises(Interrupted, match="epoch 2 after 1 of 2 steps"):
            train(celeba, tmp_path / "cut", **options)
    told: list[str] = []
    train(celeba, tmp_path / "cut", notify=told.append, **options)
    assert any("Going on" in sentence for sentence in told)
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_more_epochs_go_on(celeba, tmp_path):
    train(celeba, tmp_path / "whole", epochs=3)
    train(celeba, tmp_path / "parts", epochs=1)
    assert len(train(celeba, tmp_path / "parts", epochs=3).curve) == 3
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


def test_other_settings_or_data_are_refused(celeba, tmp_path):
    train(celeba, tmp_path / "out", epochs=1)
    with pytest.raises(InputError, match=r"case: this run has predicted, now it would be none"):
        train(celeba, tmp_path / "out", epochs=1, case="none")
    with pytest.raises(InputError, match=r"seed: this run has 0, now it would be 1"):
        train(celeba, tmp_path / "out", epochs=1, seed=1)
    other = tmp_path / "faces"
    write_celeba(other, {20: 6, 120: 6, 221: 5})
    with pytest.raises(InputError, match=r"data\.faces: this run has"):
        train(other, tmp_path / "out", epochs=1)
    trunk = FusionNetwork(people=2, attributes=1, case="none", size=32, width=1 / 16, batch_norm=True, seed=5).features
    save_file({f"features.{name}": tensor for name, tensor in trunk.state_dict().items()}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"data\.trunk: this run has"):
        train(celeba, tmp_path / "out", epochs=1, weights=str(tmp_path / "w.safetensors"))


def test_a_diverging_run_keeps_its_last_good_state(celeba, tmp_path, monkeypatch):
    calls = 0

    def sometimes(logits, people):
        nonlocal calls
        calls += 1
        return identity_loss(logits, people) * (math.nan if calls == 4 else 1)  # two steps and a validation come before

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.training.fusion_trainer.identity_loss", sometimes)
        with pytest.raises(RunError, match=r"the loss is nan in epoch 2, step 1 of 2"):
            train(celeba, tmp_path / "out", epochs=2)
    train(celeba, tmp_path / "whole", epochs=2)
    train(celeba, tmp_path / "out", epochs=2)
    assert files(tmp_path / "out") == files(tmp_path / "whole")


# --- weights --------------------------------------------------------------------------------------


def test_a_trunk_that_was_trained_before(celeba, tmp_path, monkeypatch):
    write_people(tmp_path / "lfw", {"Ann": 4, "Bob": 4})
    train(tmp_path / "lfw", tmp_path / "first", case="none")
    best = tmp_path / "first" / "best.safetensors"
    begun = []
    fit = loop.fit

    def spy(trainer, run, **options):
        begun.append({name: tensor.clone() for name, tensor in trainer.weights().items()})
        return fit(trainer, run, **options)

    monkeypatch.setattr("pipeline.training.fusion.fit", spy)
    train(celeba, tmp_path / "second", weights=str(best), epochs=1)
    trunk = {name: tensor for name, tensor in load_file(best).items() if name.startswith("features.")}
    assert trunk
    assert all(torch.equal(begun[0][name], tensor) for name, tensor in trunk.items())


def test_weights_of_something_else(celeba, tmp_path):
    (tmp_path / "bad.pth").write_bytes(b"nothing")
    for path, message in (("bad.pth", "known format"), ("none.pth", "do not exist")):
        with pytest.raises(InputError, match=message):
            train(celeba, tmp_path / "out", weights=str(tmp_path / path))
    torch.save({"conv.weight": torch.ones(2)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"no features\.0\.weight .*vgg16_bn"):
        train(celeba, tmp_path / "out", weights=str(tmp_path / "other.pth"))
    assert not (tmp_path / "out").exists()


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"case": "both"}, 'case "both" is unknown; choose from none, ground-truth, predicted'),
        ({"precision": "fp16"}, "choose from fp32, bf16"),
        ({"seed": -1}, "seed must lie in"),
        ({"min_images": 1}, "photographs per person must be at least 2, not 1"),
        ({"identities": 1}, "identities must be at least 2"),
        ({"size": 31}, "size must be at least 32"),
        ({"hidden": 0}, "hidden width must be at least 1"),
        ({"batch_size": 0}, "batch size must be at least 1"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"test_share": 0.0}, "share of test photographs must lie between 0 and 1"),
        ({"test_share": math.nan}, "share of test photographs must lie between 0 and 1"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\)"),
        ({"width": 0.0}, "width must be above 0"),
        ({"lr": math.inf}, "learning rate must be above 0 and at most 1"),
        ({"crop": (0.5, 0, 0.5, 1)}, "crop must be left, top, right, bottom as fractions"),
        ({"crop": (0, 0, 2, 1)}, "crop must be left, top, right, bottom as fractions"),
        ({"attributes": ()}, "name at least one attribute"),
        ({"attributes": ("Male", "Male")}, "each of them once"),
        ({"attributes": ("Tall",)}, 'attribute "Tall" is unknown; choose from 5_o_Clock_Shadow'),
    ],
)
def test_settings_out_of_range(setting, message, tmp_path):
    with pytest.raises(InputError, match=message):
        config("faces", tmp_path, **setting)


def test_devices(celeba, tmp_path):
    with pytest.raises(InputError, match='device "abacus" is none that training runs on'):
        train(celeba, tmp_path / "out", device="abacus")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match='device "cuda" is asked for'):
            train(celeba, tmp_path / "out", device="cuda")


def test_defaults_are_the_papers():
    paper = FusionConfig("faces", "out", "predicted")
    assert (paper.identities, paper.min_images, paper.test_share, len(paper.attributes)) == (20, 31, 0.2, 21)
    assert (paper.lr, paper.hidden, paper.width, paper.size) == (0.002, 4096, 1.0, 224)
    assert {"faces", "out", "weights", "epochs", "patience", "device"}.isdisjoint(paper.document())


def test_a_batch_for_every_process(celeba, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.training.ranks.world_size", lambda: 3)
    message = r"a batch has 2 of 14 .* shared by 3 processes; give a batch size of at least 6"
    with pytest.raises(InputError, match=message):
        train(celeba, tmp_path / "out", batch_size=2)
