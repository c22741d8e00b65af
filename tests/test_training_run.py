"""The directory of a training run: what is refused, what is kept, and what a damaged state leads to."""

import json
import math
import random
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.errors import InputError, RunError
from pipeline.training import loop, ranks
from pipeline.training.best_checkpoint import read_best
from pipeline.training.checkpoint import Progress, load_state, readable, save_state
from pipeline.training.metric_log import json_lines, metric_names, parquet
from pipeline.training.rng_state import restore_rng_state, rng_state
from pipeline.training.training_run import TrainingRun
from tests.toy_trainer import CONFIG, DATA, ToyTrainer, equal, train


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    monkeypatch.setattr(loop, "plot_curves", lambda *arguments: b"")


def create(out, config=CONFIG, data=DATA, **options):
    return TrainingRun.create_or_resume(out, config, data, **options)


def test_creates_and_opens_the_same_run(tmp_path):
    out = tmp_path / "deep" / "run"
    run = create(out)
    again = create(out, dict(reversed(CONFIG.items())))  # order is nothing, and a tuple is a list
    assert again.content == run.content == TrainingRun.open(out).content
    assert again.fingerprint == run.fingerprint
    assert run.config["sizes"] == [5, 8, 1]
    content = json.loads((out / "config.json").read_text())
    assert content["data"] == DATA
    assert content["processes"] == 1
    assert content["versions"]["torch"] == torch.__version__


def test_every_changed_field_is_named(tmp_path):
    out = tmp_path / "run"
    create(out)
    config = {"lr": 0.02, "sizes": [5, 8, 1], "optimiser": {"name": "sgd", "betas": [0.9, 0.999]}, "finetune": True}
    with pytest.raises(InputError) as caught:
        create(out, config, {"faces": {"digest": "abd", "count": 7}, "weights": "f00"})
    assert str(caught.value).splitlines() == [
        f'"{out}" holds a training run with other settings; train into another folder, or ask for what it has:',
        "  finetune: this run has none, now it would be true",
        "  lr: this run has 0.01, now it would be 0.02",
        "  optimiser.name: this run has adam, now it would be sgd",
        "  data.faces.digest: this run has abc, now it would be abd",
        "  data.weights: this run has none, now it would be f00",
    ]
    with pytest.raises(InputError, match=r"lr: this run has 0.01, now it would be none"):
        create(out, {name: value for name, value in CONFIG.items() if name != "lr"})


_VALUES = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False) | st.text()
_CONFIGS = st.dictionaries(
    st.text(min_size=1), _VALUES | st.lists(_VALUES) | st.dictionaries(st.text(), _VALUES), max_size=4
)


def _without_none(config):
    """A setting that is none is as good as absent."""
    if not isinstance(config, dict):
        return config
    return {name: _without_none(value) for name, value in config.items() if value is not None}


@settings(max_examples=40, deadline=None)
@given(config=_CONFIGS, other=_CONFIGS)
def test_exactly_equal_settings_are_taken(tmp_path_factory, config, other):
    out = tmp_path_factory.mktemp("runs") / "run"
    create(out, config)
    create(out, config)
    if _without_none(config) == _without_none(other):
        create(out, other)
    else:
        with pytest.raises(InputError, match="other settings"):
            create(out, other)


def test_foreign_folders_are_refused_and_left_alone(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match=r"holds something else \(first entries: holiday.jpg\).*empty or new folder"):
        create(folder)
    assert [path.name for path in folder.iterdir()] == ["holiday.jpg"]
    with pytest.raises(InputError, match="is a file, not a folder"):
        create(folder / "holiday.jpg")
    with pytest.raises(InputError, match=r"no config\.json"):
        TrainingRun.open(folder.parent / "nowhere")
    with pytest.raises(InputError, match="empty name"):
        create("")
    with pytest.raises(InputError, match=r"local folder, not in \"memory://run"):
        create("memory://run")


def test_an_empty_folder_and_what_a_dead_creator_left_are_taken(tmp_path):
    create(tmp_path)
    dead = tmp_path / "dead"
    (dead / "journal").mkdir(parents=True)
    (dead / "journal" / f"config.json.{'0' * 32}.tmp").write_bytes(b"{")
    train(dead, ToyTrainer(), epochs=1)
    assert not (dead / "journal").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": 1', "not readable JSON"),
        ('{"architectures": ["ViTModel"]}', "not the config.json of a training run"),
        ("[]", "not the config.json of a training run"),
        (
            '{"format": 2, "config": {}, "data": {}, "processes": 1}',
            "format 2 and this version of stylize reads format 1",
        ),
    ],
)
def test_a_foreign_or_damaged_config_is_refused(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=message):
        create(tmp_path)
    assert (tmp_path / "config.json").read_text() == text


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match=r"cannot write to .*choose a folder"):
        create(tmp_path / "file" / "run")


def test_another_torch_is_told_and_allowed(tmp_path):
    create(tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    content = json.loads(path.read_text())
    content["versions"]["torch"] = "1.0.0"
    path.write_text(json.dumps(content))
    sentences: list[str] = []
    create(tmp_path / "run", notify=sentences.append)
    assert len(sentences) == 1
    assert f"begun with torch 1.0.0 and this is {torch.__version__}" in sentences[0]


def test_files_are_written_whole_and_replaced(tmp_path):
    run = create(tmp_path / "run")
    run.write("embeddings/real.parquet", b"one")
    run.write("embeddings/real.parquet", b"two")
    run.write_json("results.json", {"R@1": 0.5})
    run.tidy()
    assert run.path("embeddings/real.parquet").read_bytes() == b"two"
    assert json.loads(run.path("results.json").read_text()) == {"R@1": 0.5}
    assert not run.path("journal").exists()
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.write_json("results.json", {"R@1": math.nan})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "plot_curves", lambda *arguments: b"")
        out = tmp_path_factory.mktemp("runs") / "run"
        trainer = ToyTrainer()
        train(out, trainer, epochs=2)
    return out, trainer.state(), (out / "state.pt").read_bytes()


def test_state_is_read_without_running_code(trained):
    out, state, _ = trained
    content = torch.load(out / "state.pt", weights_only=True)
    assert equal(content["trainer"], readable(state, ""))
    assert content["trainer"]["3"]["best"] == max(metrics["valid/score"] for metrics in content["history"])


class _Attack:
    def __reduce__(self):
        return Path.touch, (Path("pwned"),)


def test_a_state_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = create(tmp_path / "run")
    torch.save({"trainer": _Attack()}, run.path("state.pt"))
    with pytest.raises(RunError, match="is damaged"):
        load_state(run, ToyTrainer())
    assert not (tmp_path / "pwned").exists()


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True), flip=st.integers(0, 255))
def test_a_damaged_state_is_told_or_harmless(trained, share, flip):
    """Bytes of alignment and attributes of the archive are nobody's; every other one is noticed."""
    out, state, content = trained
    at = int(share * len(content))
    damaged = content[:at] if flip == 0 else content[:at] + bytes([content[at] ^ flip]) + content[at + 1 :]
    trainer = ToyTrainer(seed=5)
    (out / "state.pt").write_bytes(damaged)
    refusal = ""
    try:
        load_state(TrainingRun.open(out), trainer)
    except RunError as error:
        refusal = str(error)
    finally:
        (out / "state.pt").write_bytes(content)
    if refusal:
        assert str(out / "state.pt") in refusal
        assert "restore it from a copy, or train into another folder" in refusal
        assert "\n" not in refusal
    else:
        assert flip != 0
        assert equal(trainer.state(), state)


def test_the_state_of_another_run_or_another_model_is_refused(tmp_path, trained):
    _, _, content = trained
    other = create(tmp_path / "other", {**CONFIG, "lr": 0.5})
    other.path("state.pt").write_bytes(content)
    with pytest.raises(RunError, match="state of another run"):
        load_state(other, ToyTrainer())
    same = create(tmp_path / "same")
    same.path("state.pt").write_bytes(content)
    trainer = ToyTrainer()
    trainer.network[0] = torch.nn.Linear(5, 9)
    with pytest.raises(RunError, match="does not fit this model") as caught:
        load_state(same, trainer)
    assert "\n" not in str(caught.value)


def test_what_could_not_be_read_back_is_told_when_it_is_written(tmp_path):
    run = create(tmp_path / "run")

    class Wrong(ToyTrainer):
        def state(self):
            return {"best": [1.0, {"path": Path("x")}]}

    with pytest.raises(TypeError, match=r"the trainer's state\['best'\]\[1\]\['path'\] is a PosixPath"):
        save_state(run, Wrong(), Progress())
    assert not run.path("state.pt").exists()


def test_numbers_of_numpy_become_readable():
    got = readable({"a": np.float64(0.5), "b": [np.int64(3), np.bool_(True)], "c": np.arange(3), "d": (None, "x")}, "s")
    assert [type(got["a"]), type(got["b"][0]), type(got["b"][1])] == [float, int, bool]
    assert got["c"].tolist() == [0, 1, 2]
    assert got["d"] == (None, "x")


def test_random_generators_go_on_where_they_were():
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    np.random.normal()  # noqa: NPY002  # leaves the second of a pair behind
    random.gauss(0, 1)

    def draw():
        return torch.rand(4).tolist(), np.random.normal(size=3).tolist(), random.gauss(0, 1), random.random()  # noqa: NPY002

    state = rng_state()
    first = draw()
    draw()
    restore_rng_state(state)
    assert draw() == first


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_random_generator_of_the_gpu_goes_on_where_it_was():
    torch.rand(1, device="cuda")
    state = rng_state()
    first = torch.rand(5, device="cuda")
    restore_rng_state(state)
    assert torch.equal(torch.rand(5, device="cuda"), first)


def test_reading_the_best_of_a_run_that_has_none(tmp_path):
    with pytest.raises(InputError, match=r"no best\.safetensors yet"):
        read_best(create(tmp_path / "run"))


_METRICS = st.dictionaries(st.sampled_from(["a", "b/ü", "valid/R@1"]), st.floats(), min_size=1)


@given(history=st.lists(_METRICS, max_size=4))
def test_both_logs_say_the_same_to_the_bit(tmp_path_factory, history):
    rows = [json.loads(line) for line in json_lines(history).splitlines()]
    path = tmp_path_factory.mktemp("log") / "metrics.parquet"
    path.write_bytes(parquet(history))
    table = pq.read_table(path).to_pylist()
    assert len(rows) == len(table) == len(history)
    for epoch, (metrics, row, record) in enumerate(zip(history, rows, table, strict=True), 1):
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        assert row == {"epoch": epoch, **{name: finite.get(name) for name in metrics}}
        assert record == {"epoch": epoch, **{name: finite.get(name) for name in metric_names(history)}}


def test_alone_there_is_nothing_to_agree_on(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    ranks.initialise()
    assert (ranks.rank(), ranks.world_size(), ranks.local_rank()) == (0, 1, 0)
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.tensor([1.0, 2.0])
    ranks.average_gradients([parameter])
    assert parameter.grad.tolist() == [1.0, 2.0]
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "0")
    ranks.initialise()
    assert ranks.world_size() == 1


@pytest.mark.parametrize(("name", "value"), [("WORLD_SIZE", "two"), ("RANK", None), ("LOCAL_RANK", "")])
def test_a_broken_environment_is_told(monkeypatch, name, value):
    for variable in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.setenv(variable, "2")
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=f"variable {name} is .*torchrun"):
        ranks.initialise()
