"""Training by Algorithm 1: steps against its formulas, batches that are pure, test photographs that are never seen."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.training import ranks
from pipeline.training.fusion_data import FusionFaces
from pipeline.training.fusion_network import CASES, FusionNetwork, attribute_loss, identity_loss
from pipeline.training.fusion_trainer import FusionTrainer
from tests.toy_trainer import equal

PEOPLE, EACH, T, SIZE = 3, 7, 4, 32
TRAIN = PEOPLE * (EACH - 2)


def photographs(case="predicted", seed=0, unknown=()):
    random = np.random.default_rng(seed)
    count = PEOPLE * EACH
    labels = random.integers(0, 2, (count, T)).astype(np.int8)
    labels[list(unknown)] = -1
    is_test = np.arange(count) % EACH < 2
    return FusionFaces(
        people=tuple("abc"),
        image_ids=tuple(f"{number:02d}.png" for number in range(count)),
        images=torch.from_numpy(random.integers(0, 256, (count, 3, SIZE, SIZE), dtype=np.uint8)),
        classes=torch.arange(count) // EACH,
        attributes=torch.from_numpy(labels[:, : 0 if case == "none" else T]),
        train=torch.from_numpy(np.flatnonzero(~is_test)),
        test=torch.from_numpy(np.flatnonzero(is_test)),
        digest="0",
        notes=(),
    )


def network(case, **options):
    options = {"size": SIZE, "width": 1 / 32, "hidden": 8} | options
    return FusionNetwork(people=PEOPLE, attributes=T, case=case, **options)


def trainer(case="predicted", faces=None, net=None, dropout=0.0, batch_norm=False, **options):
    return FusionTrainer(
        network(case, dropout=dropout, batch_norm=batch_norm) if net is None else net,
        photographs(case) if faces is None else faces,
        **({"batch_size": 6} | options),
    )


def run(built, epochs=2):
    for epoch in range(1, epochs + 1):
        for index in range(built.steps(epoch)):
            built.step(epoch, index)
        built.validate(epoch)


# --- steps ----------------------------------------------------------------------------------------


class Literal:
    """AdaMax of one step of Algorithm 1, in float64 on float32 weights, |g| + 1e-8 as PyTorch has it."""

    def __init__(self, parameters):
        self.parameters = list(parameters)
        self.m = [torch.zeros_like(p, dtype=torch.float64) for p in self.parameters]
        self.u = [torch.zeros_like(p, dtype=torch.float64) for p in self.parameters]
        self.t = 0

    def descend(self, loss):
        self.t += 1
        gradients: tuple[torch.Tensor | None, ...] = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        for index, (parameter, g) in enumerate(zip(self.parameters, gradients, strict=True)):
            if g is None:
                continue
            self.m[index] = 0.9 * self.m[index] + 0.1 * g.double()
            self.u[index] = torch.maximum(0.999 * self.u[index], g.double().abs() + 1e-8)
            with torch.no_grad():
                parameter.sub_((0.002 / (1 - 0.9**self.t) * self.m[index] / self.u[index]).float())


@pytest.mark.parametrize("case", CASES)
def test_steps_follow_the_algorithm(case):
    faces = photographs(case, unknown=(3, 9))
    built = trainer(case, faces)
    net = network(case)
    branch = [] if net.attributes is None else list(net.attributes.parameters())
    first = Literal([*net.features.parameters(), *branch])
    second = Literal(net.parameters())
    for epoch in (1, 2):
        for index in range(built.steps(epoch)):
            rows, flips = built.batch(epoch, index)
            assert not flips.any()
            labels = faces.attributes[rows]
            if case != "none":
                loss = attribute_loss(net.attribute_logits(net.pooled(faces.images[rows])), labels)
                loss1 = loss * (1 / int((labels >= 0).sum()))
                first.descend(loss1)
            logits = net.identity_logits(net.pooled(faces.images[rows]), labels)
            loss2 = identity_loss(logits, faces.classes[rows]) * (1 / len(rows))
            second.descend(loss2)
            metrics = built.step(epoch, index)
            assert metrics["identity_loss"] == pytest.approx(loss2.item(), rel=1e-4)
            if case == "none":
                assert metrics.keys() == {"loss", "identity_loss"}
            else:
                assert metrics["attribute_loss"] == pytest.approx(loss1.item(), rel=1e-4)
                assert metrics["loss"] == metrics["identity_loss"] + metrics["attribute_loss"]
    for name, value in built.weights().items():
        torch.testing.assert_close(value, net.state_dict()[name], rtol=0, atol=2e-6, msg=name)
    moved = {
        name.split(".")[0]
        for name, value in built.weights().items()
        if not equal(value, network(case).state_dict()[name])
    }
    assert moved == {"features", "identities"} | (set() if case == "none" else {"attributes"})


def test_a_batch_without_labels_takes_the_second_step_alone():
    built = trainer("ground-truth", photographs(unknown=range(PEOPLE * EACH)))
    before = copy.deepcopy(built.weights())
    assert built.step(1, 0).keys() == {"loss", "identity_loss"}
    after = built.weights()
    assert equal(after["attributes.0.weight"], before["attributes.0.weight"])
    assert not equal(after["features.0.weight"], before["features.0.weight"])
    assert "train/attribute_accuracy" not in built.validate(1)


def test_bf16_keeps_float32_weights():
    pairs = [trainer(precision=precision) for precision in ("fp32", "bf16")]
    losses = [built.step(1, 0)["loss"] for built in pairs]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert all(value.dtype == torch.float32 for value in pairs[1].weights().values())


# --- batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 4, 6, TRAIN, 100])
def test_an_epoch_has_every_training_photograph_once(batch_size):
    faces = photographs()
    built = trainer(faces=faces, batch_size=batch_size)
    batches = [built.batch(3, index)[0] for index in range(built.steps(3))]
    assert sorted(torch.cat(batches).tolist()) == faces.train.tolist()
    sizes = {len(batch) for batch in batches}
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert len(batches) == math.ceil(TRAIN / batch_size)


def test_a_batch_follows_from_seed_epoch_and_index():
    one, other = trainer(flip=True), trainer(flip=True)
    run(one, 1)  # which must not change anything
    assert equal(list(one.batch(2, 1)), list(other.batch(2, 1)))
    elsewhere = [trainer(flip=True, seed=1).batch(2, 1), one.batch(3, 1), one.batch(2, 0)]
    assert all(not torch.equal(rows, one.batch(2, 1)[0]) for rows, _ in elsewhere)


def test_half_of_the_photographs_are_mirrored():
    built = trainer(flip=True, batch_size=TRAIN)
    flips = torch.cat([built.batch(epoch, 0)[1] for epoch in range(1, 101)])
    assert flips.float().mean() == pytest.approx(0.5, abs=0.06)
    faces = photographs()
    mirrored = FusionFaces(**{**vars(faces), "images": faces.images.flip(3)})
    plain = {
        name: trainer(faces=shown, flip=False).step(1, 0)["loss"] for name, shown in (("", faces), ("m", mirrored))
    }
    assert plain[""] != plain["m"]
    both = copy.deepcopy(faces.images)
    rows, flips = built.batch(1, 0)
    both[rows[flips]] = both[rows[flips]].flip(3)
    shown = FusionFaces(**{**vars(faces), "images": both})
    flipped = trainer(faces=shown, flip=False, batch_size=TRAIN).step(1, 0)["loss"]
    assert built.step(1, 0)["loss"] == flipped


@pytest.mark.parametrize("case", CASES)
def test_test_photographs_are_not_seen(case):
    faces, other = photographs(case), photographs(case)
    other.images[other.test] = 0
    other.classes[other.test] = 0
    other.attributes[other.test] = -1
    pair = [trainer(case, shown, batch_norm=True) for shown in (faces, other)]
    for built in pair:
        run(built, 1)
    assert equal(pair[0].weights(), pair[1].weights())
    assert pair[0].validate(1) == pair[1].validate(1)


# --- state ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_going_on_from_a_state_equals_not_stopping(case, tmp_path):
    options: dict[str, Any] = {"dropout": 0.5, "batch_norm": True, "flip": True}
    whole = trainer(case, **options)
    run(whole, 2)
    cut = trainer(case, **options)
    run(cut, 1)
    cut.step(2, 0)
    torch.save(cut.state(), tmp_path / "state.pt")
    torch.manual_seed(1)  # dropout does not draw from here
    following = trainer(case, **options)
    following.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    for index in range(1, following.steps(2)):
        following.step(2, index)
    following.validate(2)
    assert equal(following.state(), whole.state())


def test_the_global_generators_are_left_alone():
    torch.manual_seed(4)
    np.random.seed(4)  # noqa: NPY002
    before = torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    run(trainer(dropout=0.5, flip=True), 1)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert str(np.random.get_state()) == before[1]  # noqa: NPY002


def test_dropout_differs_between_steps():
    built = trainer(dropout=0.5, batch_size=TRAIN, lr=1e-30, net=network("none", dropout=0.5, hidden=64))
    assert len({built.step(epoch, 0)["loss"] for epoch in range(1, 6)}) == 5


# --- scores ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_scores(case):
    faces = photographs(case)
    net = network(case, dropout=0.5, batch_norm=True)
    built = trainer(case, faces, net)
    run(built, 1)
    with torch.no_grad():
        net.eval()
        pooled = net.pooled(faces.images[faces.test])
        probabilities = net.identity_logits(pooled, faces.attributes[faces.test]).double().softmax(1)
    people = faces.classes[faces.test]
    scores = built.scores(faces.test, batch_size=4)
    assert scores.right.tolist() == (probabilities.argmax(1) == people).tolist()
    assert scores.accuracy == pytest.approx(scores.right.sum() / len(people))
    expected = float(probabilities[torch.arange(len(people)), people].log().mean())
    assert scores.log_likelihood == pytest.approx(expected, rel=1e-5)
    if case == "none":
        assert scores.predicted is None
    else:
        logits = net.attribute_logits(pooled)
        assert scores.predicted is not None
        assert scores.predicted.tolist() == (logits[..., 1] > logits[..., 0]).tolist()


def test_ground_truth_is_used_in_testing_too():
    faces = photographs("ground-truth")
    built = trainer("ground-truth", faces)
    before = built.scores(faces.test).log_likelihood
    faces.attributes[faces.test] = 1 - faces.attributes[faces.test]
    assert built.scores(faces.test).log_likelihood != before


def test_validation_is_on_training_photographs():
    faces = photographs()
    faces.attributes[faces.train[0], 0] = -1
    built = trainer(faces=faces)
    run(built, 1)
    scores = built.scores(faces.train)
    labels = faces.attributes[faces.train].numpy()
    assert scores.predicted is not None
    assert built.validate(2) == {
        "train/log_likelihood": scores.log_likelihood,
        "train/accuracy": scores.accuracy,
        "train/attribute_accuracy": pytest.approx(
            ((scores.predicted == labels) & (labels >= 0)).sum() / (labels >= 0).sum()
        ),
    }
    assert built.monitor in built.validate(2)


def test_a_network_that_has_learned_nothing_is_told():
    built = trainer()
    guess = {"train/log_likelihood": -math.log(PEOPLE) * 0.99}
    assert built.warning(2, guess) is None
    assert "a guess among 3 people" in (built.warning(3, guess) or "")
    assert built.warning(3, {"train/log_likelihood": -0.9 * math.log(PEOPLE)}) is None
    assert built.warning(3, {"train/log_likelihood": -1.1 * math.log(PEOPLE)}) is None


# --- several processes ----------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["none", "ground-truth"])
def test_processes_share_a_batch(case, monkeypatch):
    """The mean over two processes of the first step's gradients and losses is that of the whole batch."""
    faces = photographs(case, unknown=(2, 4, 5, 11))

    def first_gradients(rank, size):
        monkeypatch.setattr(ranks, "rank", lambda: rank)
        monkeypatch.setattr(ranks, "world_size", lambda: size)
        monkeypatch.setattr(ranks, "broadcast_weights", lambda module: None)
        seen = []
        monkeypatch.setattr(
            ranks,
            "average_gradients",
            lambda parameters: seen.append([p.grad.clone() for p in parameters if p.grad is not None]),
        )
        built = trainer(case, faces, batch_size=5)
        metrics = built.step(1, 0)
        return seen[0], metrics["identity_loss" if case == "none" else "attribute_loss"]

    whole, loss = first_gradients(0, 1)
    parts = [first_gradients(rank, 2) for rank in range(2)]
    assert parts[0][1] != parts[1][1]
    assert (parts[0][1] + parts[1][1]) / 2 == pytest.approx(loss, rel=1e-5)
    for expected, one, other in zip(whole, parts[0][0], parts[1][0], strict=True):
        torch.testing.assert_close((one + other) / 2, expected, rtol=1e-3, atol=1e-6)
