"""The epoch loop: a run that was stopped, in whatever way, ends with the bits of one that was not."""

import errno
import json
import math
import os
import signal
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from manifests.errors import InputError, RunError
from pipeline.errors import Interrupted
from pipeline.training import curves, loop, ranks, tensorboard_log
from pipeline.training.best_checkpoint import read_best
from pipeline.training.curves import families
from pipeline.training.metric_log import best_epoch
from pipeline.training.training_run import TrainingRun
from tests.toy_trainer import CONFIG, DATA, STEPS, ToyTrainer, equal, kill_at, snapshot, train

ROOT = Path(__file__).parent.parent
EPOCHS = 3
WAIT = 300  # seconds for processes that take ten


@pytest.fixture(autouse=True)
def _no_pictures(request, monkeypatch):
    if "curves" not in request.node.name:
        monkeypatch.setattr(loop, "plot_curves", lambda *arguments: b"")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    trainer = ToyTrainer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "plot_curves", lambda *arguments: b"")
        result = train(out, trainer)
    return out, result, snapshot(out, trainer)


def lines(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_what_it_promises(uninterrupted):
    out, result, _ = uninterrupted
    assert sorted(path.name for path in out.iterdir()) == [
        "best.json",
        "best.safetensors",
        "config.json",
        "curves.png",
        "metrics.jsonl",
        "metrics.parquet",
        "state.pt",
    ]
    assert result.stopped == "epochs"
    rows = lines(out)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[0].keys() == {"epoch", "train/loss", "train/noise", "valid/score", "valid/error", "valid/none"}
    assert [row["valid/none"] for row in rows] == [None] * 3
    assert pq.read_table(out / "metrics.parquet").to_pylist() == rows
    assert [row["train/loss"] for row in rows] == [metrics["train/loss"] for metrics in result.metrics]
    best = json.loads((out / "best.json").read_text())
    assert best["epoch"] == result.best_epoch
    assert best["score"] == result.best_score == max(row["valid/score"] for row in rows)
    assert best["metrics"] == {name: value for name, value in rows[best["epoch"] - 1].items() if name != "epoch"}


def test_logged_training_metrics_are_means_over_the_steps(tmp_path):
    losses = iter([1.0, 2.0, 4.0, 9.0])
    result = train(tmp_path / "run", ToyTrainer(on_step=lambda *where: next(losses)), epochs=1)
    assert result.metrics[0]["train/loss"] == 4.0


def test_loss_falls(uninterrupted):
    _, result, _ = uninterrupted
    assert result.metrics[-1]["valid/error"] < result.metrics[0]["valid/error"]


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler")  # PyTorch's, of a run that goes on to validate
@settings(max_examples=12, deadline=None)
@given(stops=st.sets(st.tuples(st.integers(1, EPOCHS), st.integers(0, STEPS - 1)), min_size=1, max_size=3))
def test_interrupted_after_any_steps_and_resumed_equals_uninterrupted(tmp_path_factory, uninterrupted, stops):
    out = tmp_path_factory.mktemp("runs") / "run"
    sentences: list[str] = []
    for number, (epoch, index) in enumerate(sorted(stops)):
        # A resumed process is a new one: another seed shows that nothing is left to the trainer's construction.
        trainer = ToyTrainer(seed=number, on_step=kill_at(epoch, index, (signal.SIGTERM, signal.SIGINT)[number % 2]))
        with pytest.raises(Interrupted, match=rf"epoch {epoch} after {index + 1} of {STEPS} steps.*same command"):
            train(out, trainer)
    trainer = ToyTrainer(seed=99)
    result = train(out, trainer, notify=sentences.append)
    assert equal(snapshot(out, trainer), uninterrupted[2])
    assert equal(result.metrics, uninterrupted[1].metrics)
    assert trainer.steps_made == EPOCHS * STEPS - (epoch - 1) * STEPS - index - 1
    assert any(f"epoch {epoch} after {index + 1} step" in sentence for sentence in sentences)


@pytest.mark.parametrize("epoch", [1, EPOCHS])
def test_interrupted_between_epochs(tmp_path, uninterrupted, epoch):
    def on_validate(now):
        if now == epoch:
            os.kill(os.getpid(), signal.SIGTERM)

    out = tmp_path / "run"
    with pytest.raises(Interrupted, match=f"after epoch {epoch}"):
        train(out, ToyTrainer(on_validate=on_validate))
    assert len(lines(out)) == epoch
    trainer = ToyTrainer(seed=5)
    train(out, trainer)
    assert trainer.steps_made == (EPOCHS - epoch) * STEPS
    assert equal(snapshot(out, trainer), uninterrupted[2])


@pytest.mark.parametrize(("at", "kept"), [(1, "before the first step"), (2, "after epoch 1")])
def test_a_second_signal_aborts_at_once(tmp_path, uninterrupted, at, kept):
    def on_step(epoch, index):
        if (epoch, index) == (at, 1):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("the second signal did nothing")

    out = tmp_path / "run"
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Interrupted, match=kept):
        train(out, ToyTrainer(on_step=on_step))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    trainer = ToyTrainer(seed=5)
    train(out, trainer)
    assert trainer.steps_made == (EPOCHS - at + 1) * STEPS
    assert equal(snapshot(out, trainer), uninterrupted[2])


def test_killed_in_mid_epoch_resumes_from_the_last_save(tmp_path, uninterrupted):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "tests.toy_trainer", str(out), "3", "1"]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    trainer = ToyTrainer(seed=5)
    train(out, trainer)
    assert trainer.steps_made == STEPS
    assert equal(snapshot(out, trainer), uninterrupted[2])


WRITES = [
    "state.pt",  # before the first step
    *[
        name
        for _ in range(2)
        for name in ("journal/best.safetensors", "state.pt", "best.json", "metrics.parquet", "metrics.jsonl")
    ],
]


@pytest.mark.parametrize("fatal", range(len(WRITES)))
def test_a_full_disk_at_any_write_leaves_a_run_that_goes_on(tmp_path, monkeypatch, fatal):
    whole, out = tmp_path / "whole", tmp_path / "run"
    trainer = ToyTrainer(scores=[0.1, 0.2])
    train(whole, trainer, epochs=2)
    expected = snapshot(whole, trainer)
    written = []
    write = TrainingRun.write

    def failing(run, name, data):
        written.append(name)
        if len(written) == fatal + 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(run, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingRun, "write", failing)
        with pytest.raises(OSError, match="No space left"):
            train(out, ToyTrainer(scores=[0.1, 0.2]), epochs=2)
    assert written == WRITES[: fatal + 1]
    if (out / "best.safetensors").exists():  # what there is belongs together already now, not only when resumed
        best = read_best(TrainingRun.open(out))
        assert best.score == [0.1, 0.2][best.epoch - 1]
    trainer = ToyTrainer(seed=5 if fatal else 0, scores=[0.1, 0.2])  # the first one would have saved where it begins
    train(out, trainer, epochs=2)
    assert equal(snapshot(out, trainer), expected)
    assert not (out / "journal").exists()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(tmp_path, uninterrupted, value):
    out = tmp_path / "run"

    def on_step(epoch, index):
        return value if (epoch, index) == (2, 1) else None

    with pytest.raises(RunError) as caught:
        train(out, ToyTrainer(on_step=on_step))
    message = str(caught.value)
    assert not isinstance(caught.value, Interrupted)
    for part in (f"loss is {value}", "epoch 2, step 2 of 4", f"{out / 'state.pt'}", "after epoch 1", "learning rate"):
        assert part in message
    assert len(lines(out)) == 1
    trainer = ToyTrainer(seed=5)
    train(out, trainer)
    assert equal(snapshot(out, trainer), uninterrupted[2])


def test_weights_gone_bad_in_the_last_step_are_not_saved(tmp_path):
    out = tmp_path / "run"
    trainer = ToyTrainer()

    def on_step(epoch, index):
        if (epoch, index) == (2, STEPS - 1):
            next(trainer.network.parameters()).data[0, 0] = math.inf

    trainer.on_step = on_step
    trainer.scores = [0.1, 0.2, 0.3]  # as a recall, which is a number whatever the weights are
    with pytest.raises(RunError, match=r'weights "0.weight" are not finite in epoch 2.*after epoch 1'):
        train(out, trainer)
    later = ToyTrainer(scores=[0.1, 0.2, 0.3])
    train(out, later)
    assert later.steps_made == 2 * STEPS


def test_a_monitor_that_is_not_finite_stops(tmp_path):
    with pytest.raises(RunError, match="valid/score is nan after epoch 1"):
        train(tmp_path / "run", ToyTrainer(scores=[math.nan]))


def test_best_is_the_earliest_of_equals_and_its_weights_are_that_epochs(tmp_path):
    kept: dict[int, dict[str, torch.Tensor]] = {}

    def on_validate(epoch):
        kept[epoch] = {name: value.clone() for name, value in trainer.weights().items()}

    trainer = ToyTrainer(scores=[0.1, 0.5, 0.5, 0.2], on_validate=on_validate)
    result = train(tmp_path / "run", trainer, epochs=4)
    assert (result.best_epoch, result.best_score) == (2, 0.5)
    best = read_best(TrainingRun.open(tmp_path / "run"))
    assert (best.epoch, best.score, best.monitor) == (2, 0.5, "valid/score")
    assert equal(dict(best.weights), kept[2])
    assert equal(load_file(tmp_path / "run" / "best.safetensors"), kept[2])


@given(scores=st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3]), min_size=1, max_size=12), patience=st.integers(1, 4))
def test_early_stopping_is_what_counting_by_hand_says(scores, patience):
    best, bad, ended = -1.0, 0, None
    for epoch, score in enumerate(scores, 1):
        bad = 0 if score > best else bad + 1
        best = max(best, score)
        if bad == patience:
            ended = epoch
            break
    history = [{"s": score} for score in scores]
    stopped = next(
        (epoch for epoch in range(1, len(scores) + 1) if epoch - best_epoch(history[:epoch], "s") >= patience),
        None,
    )
    assert stopped == ended


def test_patience_ends_a_run_and_more_patience_goes_on(tmp_path):
    scores = [0.3, 0.1, 0.2, 0.4, 0.1]
    result = train(tmp_path / "run", ToyTrainer(scores=scores), epochs=5, patience=2)
    assert (len(result.metrics), result.stopped, result.best_epoch) == (3, "patience", 1)
    again = ToyTrainer(scores=scores)
    assert equal(train(tmp_path / "run", again, epochs=5, patience=2).metrics, result.metrics)
    assert again.steps_made == 0
    result = train(tmp_path / "run", ToyTrainer(scores=scores), epochs=5, patience=3)
    assert (len(result.metrics), result.stopped, result.best_epoch) == (5, "epochs", 4)


def test_a_finished_run_is_returned_without_training_or_writing(tmp_path):
    out = tmp_path / "run"
    sentences: list[str] = []
    first = train(out, ToyTrainer())
    files = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in out.iterdir()}
    trainer = ToyTrainer(seed=5)
    again = train(out, trainer, notify=sentences.append)
    assert trainer.steps_made == 0
    assert equal(again.metrics, first.metrics)
    assert (again.best_epoch, again.best_score, again.stopped) == (first.best_epoch, first.best_score, first.stopped)
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in out.iterdir()} == files
    assert any("nothing to train" in sentence for sentence in sentences)
    fewer = train(out, ToyTrainer(), epochs=1)
    assert len(fewer.metrics) == EPOCHS


def test_more_epochs_go_on_as_if_asked_for_at_once(tmp_path, uninterrupted):
    train(tmp_path / "run", ToyTrainer(), epochs=1)
    trainer = ToyTrainer(seed=5)
    train(tmp_path / "run", trainer, epochs=EPOCHS)
    assert trainer.steps_made == (EPOCHS - 1) * STEPS
    assert equal(snapshot(tmp_path / "run", trainer), uninterrupted[2])


def test_files_that_the_state_decides_are_made_again(tmp_path, uninterrupted):
    out = tmp_path / "run"
    train(out, ToyTrainer())
    for name in ("metrics.parquet", "metrics.jsonl", "best.json", "curves.png"):
        (out / name).unlink()
    trainer = ToyTrainer(seed=5)
    train(out, trainer)
    assert equal(snapshot(out, trainer), uninterrupted[2])
    assert (out / "curves.png").exists()


@pytest.mark.parametrize("damage", ["gone", "truncated", "foreign"])
def test_best_weights_that_are_not_the_states_are_told(tmp_path, damage):
    out = tmp_path / "run"
    train(out, ToyTrainer(), epochs=1)
    path = out / "best.safetensors"
    if damage == "gone":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:100])
    else:
        other = tmp_path / "other"
        train(other, ToyTrainer(scores=[0.1, 0.2]), epochs=2)
        path.write_bytes((other / "best.safetensors").read_bytes())
    with pytest.raises(RunError, match=r"best.safetensors.*epoch 1.*restore"):
        train(out, ToyTrainer(), epochs=2)


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    out = tmp_path / "run"

    def on_step(epoch, index):
        with pytest.raises(RunError, match="another process is training"):
            train(out, ToyTrainer())

    train(out, ToyTrainer(on_step=on_step, steps=1), epochs=1)
    train(out, ToyTrainer(steps=1), epochs=2)  # the lock is gone


@pytest.mark.parametrize(
    ("options", "message"),
    [({"epochs": 0}, "epochs must be at least 1, not 0"), ({"patience": 0}, "patience must be at least 1")],
)
def test_wrong_arguments(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        train(tmp_path / "run", ToyTrainer(), **options)


def test_an_epoch_without_steps_is_told(tmp_path):
    with pytest.raises(InputError, match="epoch 1 has no steps"):
        train(tmp_path / "run", ToyTrainer(steps=0))


def test_out_of_memory_says_where(tmp_path):
    def on_step(epoch, index):
        if index == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    with pytest.raises(RunError, match=r"out of memory in epoch 1, step 3 of 4; .*smaller batches"):
        train(tmp_path / "run", ToyTrainer(on_step=on_step))


@pytest.mark.parametrize(
    ("error", "kind", "parts"),
    [
        (ValueError("cannot be ranked"), RunError, ["validation after epoch 2 failed", "cannot be ranked"]),
        (RunError("a picture is gone"), RunError, ["validation after epoch 2 failed", "a picture is gone"]),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
            RunError,
            ["out of memory in the validation after epoch 2; give it smaller batches", "2 GiB"],
        ),
        (InputError("give another folder"), InputError, ["give another folder"]),
    ],
)
def test_a_validation_that_fails_says_where_and_keeps_the_state(tmp_path, uninterrupted, error, kind, parts):
    out = tmp_path / "run"

    def on_validate(epoch):
        if epoch == 2:
            raise error

    with pytest.raises(kind) as caught:
        train(out, ToyTrainer(on_validate=on_validate))
    assert all(part in str(caught.value) for part in parts)
    if "failed" in parts[0]:
        assert f'"{out / "state.pt"}" keeps the last good state, after epoch 1' in str(caught.value)
    trainer = ToyTrainer(seed=5)
    train(out, trainer)
    assert equal(snapshot(out, trainer), uninterrupted[2])


def test_nothing_is_validated_with_weights_that_are_not_finite(tmp_path):
    def on_step(epoch, index):
        if index == STEPS - 1:
            next(trainer.network.parameters()).data[0, 0] = math.nan

    def on_validate(epoch):
        raise ValueError("misleading")

    trainer = ToyTrainer(on_step=on_step, on_validate=on_validate)
    with pytest.raises(RunError, match=r'weights "0.weight" are not finite in epoch 1.*before the first step'):
        train(tmp_path / "run", trainer)


def test_processes_on_the_cpu_need_no_gpu_each(monkeypatch):
    joined: list[Any] = []
    for variable, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", joined.append)
    monkeypatch.setattr(
        torch.distributed, "init_process_group", lambda backend, timeout: joined.append((backend, timeout))
    )
    for device in (None, "cuda"):
        with pytest.raises(InputError, match="more than 1 processes"):
            ranks.initialise(device)
    assert joined == []
    ranks.initialise("cpu")
    monkeypatch.setenv("LOCAL_RANK", "0")
    ranks.initialise()
    (cpu, cpu_timeout), number, (cuda, cuda_timeout) = joined
    assert (cpu, number, cuda) == ("gloo", 0, "cpu:gloo,cuda:nccl")
    assert min(cpu_timeout, cuda_timeout) >= timedelta(hours=6)  # the first process embeds while the others wait


def test_warnings_are_told_when_they_begin(tmp_path):
    class Warned(ToyTrainer):
        def warning(self, epoch, metrics):
            return None if epoch == 3 else f"warning of epoch {epoch}"

    sentences: list[str] = []
    train(tmp_path / "run", Warned(), epochs=5, notify=sentences.append)
    assert sentences == ["warning of epoch 1", "warning of epoch 4"]


def test_progress_on_stderr_unless_quiet(tmp_path, capsys):
    train(tmp_path / "run", ToyTrainer(), epochs=1)
    assert capsys.readouterr() == ("", "")
    train(tmp_path / "run", ToyTrainer(), epochs=2, quiet=False)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("epoch 2/2: train/loss ")
    assert "valid/score" in captured.err


def test_tensorboard_has_the_same_numbers_also_of_epochs_before_it_was_asked_for(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415

    out = tmp_path / "run"
    train(out, ToyTrainer(), epochs=1)
    train(out, ToyTrainer(), epochs=2, tensorboard=True)
    with pytest.raises(Interrupted):
        train(out, ToyTrainer(on_step=kill_at(3, 1)), epochs=3, tensorboard=True)
    result = train(out, ToyTrainer(), epochs=3, tensorboard=True)
    events = EventAccumulator(str(out / "tensorboard")).Reload()
    read = {event.step: event.value for event in events.Scalars("valid/score")}
    assert read == {
        epoch: pytest.approx(metrics["valid/score"], rel=1e-6) for epoch, metrics in enumerate(result.metrics, 1)
    }


def test_tensorboard_that_is_not_installed_is_told_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(InputError, match=r"stylize\[tensorboard\]"):
        tensorboard_log.require_tensorboard()
    trainer = ToyTrainer()
    with pytest.raises(InputError, match="TensorBoard is not installed"):
        train(tmp_path / "run", trainer, tensorboard=True)
    assert trainer.steps_made == 0


def test_curves_are_a_picture_of_every_family(tmp_path):
    train(tmp_path / "run", ToyTrainer(), epochs=2)
    assert (tmp_path / "run" / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("families_shown", [1, 2, 3, 4, 5, 6])
def test_curves_leave_no_panel_empty(monkeypatch, families_shown):
    visible: list[Any] = []

    def savefig(figure, *arguments, **options):
        visible.extend(panel for panel in figure.axes if panel.get_visible())

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", savefig)
    history = [{"train/loss": 1.0, **{f"valid/m{number}": 0.5 for number in range(families_shown - 1)}}]
    curves.plot_curves(history, "train/loss", 1)
    assert len(visible) == families_shown
    assert all(panel.lines for panel in visible)


def test_curves_group_metrics_with_the_loss_first():
    history = [
        {"valid/accuracy/Smiling": 0.1, "valid/R@5": 0.2, "train/loss": 1.0},
        {"valid/R@1": 0.1, "test/loss": 2.0},
    ]
    assert families(history, "valid/R@1") == {
        "loss": ["train/loss", "test/loss"],
        "R": ["valid/R@5", "valid/R@1"],
        "accuracy": ["valid/accuracy/Smiling"],
    }


DISTRIBUTED = """
import json, signal, sys
from pathlib import Path
import torch
from pipeline.errors import Interrupted
from manifests.errors import InputError, RunError
from pipeline.training import ranks, loop
from pipeline.training.training_run import TrainingRun
from tests.toy_trainer import DATA, ToyTrainer, equal, kill_at, snapshot, train

loop.plot_curves = lambda *arguments: b"picture"
out = Path(sys.argv[1])
ranks.initialise()
me = ranks.rank()
verdict = {"rank": me, "world": ranks.world_size(), "local": ranks.local_rank()}

a, b, c = (torch.nn.Parameter(torch.zeros(shape)) for shape in ((2, 3), (2,), (1,)))
a.grad = torch.full((2, 3), float(me))
if me == 1:
    b.grad = torch.tensor([4.0, 8.0])
ranks.average_gradients([a, b, c])
verdict["averaged"] = [a.grad.tolist(), b.grad.tolist(), c.grad]

writes = []
write = TrainingRun.write
def counted(run, name, data):
    writes.append(name)
    write(run, name, data)

whole = ToyTrainer(seed=me)  # broadcast makes them one
result = train(out / "whole", whole)
verdict["parameters"] = [value.tolist() for value in whole.network.parameters()]
verdict["metrics"] = [metrics["train/loss"] for metrics in result.metrics]
expected = snapshot(out / "whole", whole)

stopped = ToyTrainer(seed=me, on_step=kill_at(2, 1) if me == 1 else None)  # one process is told, both must stop
try:
    train(out / "run", stopped)
    verdict["stopped"] = None
except Interrupted as error:
    verdict["stopped"] = str(error)
resumed = ToyTrainer(seed=9)
train(out / "run", resumed)
verdict["steps"] = resumed.steps_made
# Running statistics are each process's own, and a resumed run begins with the first one's.
verdict["equal"] = equal(snapshot(out / "run", resumed)[1:], expected[1:]) if me == 0 else all(
    map(torch.equal, whole.network.parameters(), resumed.network.parameters()))

nan = ToyTrainer(on_step=lambda epoch, index: float("nan") if me == 1 and index == 1 else None)
try:
    train(out / "nan", nan)
except RunError as error:
    verdict["nan"] = str(error)

def spoil(epoch, index):
    if me == 1 and index == 3:
        bad.network[1].running_mean[0] = float("inf")  # of this process alone
bad = ToyTrainer(on_step=spoil)
try:
    train(out / "bad", bad)
except RunError as error:
    verdict["bad"] = str(error)
try:
    train(out / "run", resumed, data={**DATA, "faces": 1})
except InputError as error:
    verdict["refused"] = str(error)
ranks.finish()
print(json.dumps(verdict))
"""


def test_two_processes_end_with_the_same_weights_and_resume_exactly(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", DISTRIBUTED, str(tmp_path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "CUDA_VISIBLE_DEVICES": "",
                "OMP_NUM_THREADS": "1",
            },
        )
        for rank in range(2)
    ]
    try:
        printed = [process.communicate(timeout=WAIT)[0] for process in processes]
    finally:  # where one has died, the other may wait for it
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0, 0]
    first, second = (json.loads(lines.splitlines()[-1]) for lines in printed)
    assert (first["rank"], second["rank"], second["world"], second["local"]) == (0, 1, 2, 1)
    for verdict in (first, second):
        assert verdict["averaged"] == [[[0.5] * 3] * 2, [2.0, 4.0], None]
        assert "epoch 2 after 2 of 4 steps" in verdict["stopped"]
        assert verdict["steps"] == 6
        assert verdict["equal"]
        assert "epoch 1, step 2 of 4" in verdict["nan"]
        assert 'weights "1.running_mean" are not finite in epoch 1' in verdict["bad"]
        assert "data.faces: this run has" in verdict["refused"]
    assert first["parameters"] == second["parameters"]
    assert first["metrics"] == second["metrics"]
    assert first["equal"]
    assert (tmp_path / "whole" / "metrics.jsonl").read_bytes() == (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError, match="processes: this run has 2, now it would be 1"):
        TrainingRun.create_or_resume(tmp_path / "run", CONFIG, DATA)
