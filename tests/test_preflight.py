"""Preflight: workers that lack something are named in one sentence, at once; later ones are left out."""

import dataclasses
import errno
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from distributed import Client, LocalCluster, Scheduler, SpecCluster, Worker

from manifests.errors import RunError
from manifests.run import RunDirectory
from manifests.shard_name import ShardName
from manifests.verify import verify
from pipeline import build as build_module
from pipeline import execution as execution_module
from pipeline import preflight as preflight_module
from pipeline import shard_task, submission, worker_check
from pipeline.build import build
from pipeline.config import BuildConfig, ExecutionConfig
from pipeline.file_digest import file_digest
from pipeline.network import NetworkReference
from pipeline.preflight import Gate, check_versions, marked, preflight, requirements
from pipeline.submission import Crew, Flight
from pipeline.worker_check import WeightsFile, problem
from stylize.settings import TransferSettings
from stylize.weights import load_weights
from tests.dask_processes import wait_for_workers, worker
from tests.small_inputs import write_faces, write_paintings
from tests.stub_engine import StubEngine

HTTP = "127.0.0.1:0"
TOKEN = "0123456789abcdef" * 2


@pytest.fixture(scope="module")
def client():
    options = {"processes": False, "protocol": "tcp", "n_workers": 1, "threads_per_worker": 1}
    with (
        LocalCluster(**options, dashboard_address=HTTP, silence_logs=100) as running,
        Client(running, set_as_default=False) as connected,
    ):
        yield connected


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    monkeypatch.setattr(build_module, "reference", lambda *arguments: NetworkReference("random", 0, "0" * 64, None))
    monkeypatch.setattr(worker_check, "_passed", set())
    monkeypatch.setattr(submission, "POLL_SECONDS", 0.1)


@pytest.fixture
def place(tmp_path):
    write_faces(tmp_path / "celeba", 12)
    write_paintings(tmp_path / "wikiart", 12)
    return tmp_path


def make(place, address, engine=None, **options):
    config = BuildConfig(transfer=TransferSettings(convention="raw"), shard_size=4)
    where = ExecutionConfig(scheduler=address)
    inputs = (place / "OUT", place / "celeba", place / "wikiart")
    return build(*inputs, config, where, weights="random", engine=engine or StubEngine(), quiet=True, **options)


@pytest.fixture
def needs(place, monkeypatch):
    """What workers need for an interrupted build, and its marker is there."""
    specs = []

    def stopped(job, execution, **options):
        specs.append(job.task(job.shards[0]).spec)
        raise RunError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(build_module, "execute", stopped)
        with pytest.raises(RunError, match="stopped"):
            make(place, None)
    spec = dataclasses.replace(specs[0], token=TOKEN)
    run = RunDirectory.open(place / "OUT")
    with marked(run, TOKEN):
        yield requirements(spec, attached=True)
    assert not list((place / "OUT" / "journal").glob("*"))


def test_nothing_is_lacking(client, needs):
    told: list[str] = []
    assert problem(needs, thorough=True, gpu=False) is None
    preflight(client, needs, since=time.monotonic(), thorough=True, notify=told.append)
    assert told == []


def vanish(folder):
    folder.rename(folder.with_name("elsewhere"))


def empty(folder):
    """As the mount point of a volume that is not mounted looks."""
    vanish(folder)
    folder.mkdir()


def change(folder):
    for path in folder.rglob("*.*"):
        path.write_bytes(path.read_bytes() + b"!")


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        ((vanish, "OUT"), r'does not find OUT at ".*OUT"; mount it under the same path on every worker'),
        ((empty, "OUT"), r'does not find OUT at ".*OUT"; mount it'),
        ((vanish, "OUT/journal"), r'has another folder than this client at ".*OUT"; mount it'),
        ((vanish, "celeba/img_align_celeba"), r'does not find the faces at ".*img_align_celeba"; mount it'),
        ((empty, "celeba/img_align_celeba"), r"cannot read the faces at .* \(000001.jpg: it is not there\); mount it"),
        ((change, "celeba/img_align_celeba"), r'has other faces than this client at ".*" \(000001.jpg differs\)'),
        ((vanish, "wikiart"), r'does not find the paintings at ".*wikiart"; mount it'),
        ((empty, "wikiart"), r'cannot read the paintings at ".*wikiart" \(Style_.*: it is not there\)'),
        ((change, "wikiart"), r"has other paintings than this client at "),
    ],
)
def test_what_a_worker_lacks(client, needs, harm, sentence):
    how, what = harm
    out = Path(needs.root)
    how(out.parent / what)
    with pytest.raises(RunError, match=r"^worker tcp://127\.0\.0\.1:\d+ on \S+ " + sentence) as got:
        preflight(client, needs, since=time.monotonic(), thorough=False)
    assert "\n" not in str(got.value)
    if what.startswith("OUT"):  # for the end of the fixture
        (out / "journal").mkdir(parents=True, exist_ok=True)


def test_out_cannot_be_written_there(place, needs, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(worker_check, "publish", refuse)
    assert problem(needs, False, False) == (
        f'cannot write to OUT, "{place / "OUT"}" (Read-only file system); let its user write there'
    )


def test_an_image_that_nobody_can_read_is_no_workers_fault(place, needs):
    first = needs.samples[0].source
    for path in sorted((place / "celeba/img_align_celeba").iterdir())[:6]:
        path.unlink()
    spec_of_the_rest = preflight_module._sample("faces", first, _locators("000001.jpg", "000009.jpg"))
    assert spec_of_the_rest.locator == "000009.jpg"
    nothing = preflight_module._sample("faces", first, _locators("000001.jpg", "000002.jpg"))
    assert nothing.locator is None
    assert problem(dataclasses.replace(needs, samples=(nothing,)), False, False) is None


def _locators(*names):
    import pyarrow as pa  # noqa: PLC0415

    return pa.table({"locator": list(names)})


def test_weights(tmp_path, needs):
    def looked(weights):
        worker_check._passed.clear()
        return problem(dataclasses.replace(needs, weights=weights), True, False)

    path = tmp_path / "vgg19.pth"
    ours = {f"features.{key}": value for key, value in load_weights("random", seed=1).tensors.items()}
    torch.save(ours, path)
    mine = WeightsFile(str(path), file_digest(str(path)), load_weights(str(path)).digest)
    assert looked(mine) is None
    torch.save({**ours, "epoch": torch.tensor(3)}, path)
    assert file_digest(str(path)) != mine.file_digest
    assert looked(mine) is None  # another file, the same weights
    torch.save({f"features.{key}": value for key, value in load_weights("random", seed=2).tensors.items()}, path)
    assert (looked(mine) or "").startswith(f'has other weights than this client at "{path}"; give all machines the')
    path.write_bytes(b"torn")
    assert (looked(mine) or "").startswith("cannot use the weights (")
    path.unlink()
    assert looked(mine) == f'does not find the weights "{path}"; put the file there on every worker'


def test_a_declared_gpu_must_be_one(needs, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "declares a GPU, but its PyTorch sees none" in (problem(needs, thorough=True, gpu=True) or "")
    assert problem(needs, thorough=False, gpu=True) is None


def test_storage_that_hangs_is_told_in_bounded_time(client, needs, monkeypatch):
    released = threading.Event()

    def hang(needs):
        released.wait(60)

    monkeypatch.setattr(worker_check, "_run_problem", hang)
    monkeypatch.setattr(preflight_module, "ANSWER_SECONDS", 2.0)
    monkeypatch.setattr(preflight_module, "START_SECONDS", 2.0)
    with pytest.raises(RunError, match=r"has not answered within \d s; see whether it, or storage .*, hangs"):
        preflight(client, needs, since=time.monotonic(), thorough=False)
    released.set()


def test_weights_that_take_long_to_read_are_left_to_the_task(client, needs, monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(worker_check, "_weights_problem", lambda weights: released.wait(60) and None)
    monkeypatch.setattr(preflight_module, "WEIGHTS_SECONDS", 0.2)
    preflight(client, needs, since=time.monotonic(), thorough=True)
    released.set()


@pytest.mark.parametrize("name", ["Python", "stylize", "PyTorch"])
def test_another_version(client, monkeypatch, name):
    theirs = preflight_module._ours()
    monkeypatch.setattr(preflight_module, "_ours", lambda: theirs | {name: "99.0"})
    with pytest.raises(RunError, match=rf"worker tcp.* has Python .*, and this client has .*{name} 99\.0.*; install"):
        check_versions(client)


def test_workers_that_take_no_work(client, needs, monkeypatch):
    def paused(client):
        return {"tcp://10.0.0.1:1": {"status": "paused"}, "tcp://10.0.0.2:1": {"status": "paused"}}

    monkeypatch.setattr(preflight_module, "worker_infos", paused)
    with pytest.raises(RunError, match=r"no worker takes work \(2 paused\)"):
        preflight(client, needs, since=time.monotonic(), thorough=False)


def test_a_refusal_comes_before_a_shard_is_handed_out(place, client, monkeypatch):
    monkeypatch.setattr(execution_module, "hand_out", lambda *arguments, **options: pytest.fail("handed out"))
    monkeypatch.setattr(worker_check, "_run_problem", lambda needs: "lacks OUT; mount it")
    sentence = r"^worker tcp.* lacks OUT; mount it\. 0 of 4 shards are complete; run the same command again to resume$"
    with pytest.raises(RunError, match=sentence):
        make(place, client.scheduler.address)


def test_workers_of_real_processes(place, client, tmp_path, monkeypatch):
    """One that hangs stops a build at its beginning; one of another version that joins later gets no work."""
    address = client.scheduler.address
    told: list[str] = []
    with worker(address, tmp_path, "--preload", "tests.another_version") as other:
        wait_for_workers(client, 2)
        with pytest.raises(RunError, match=r"stylize 0\.0\.1 and PyTorch .*, and this client has .*; install the same"):
            make(place, address)
        assert not (place / "OUT").exists()  # nothing is claimed where nothing can be done
        with monkeypatch.context() as patch:  # as if it had joined after the preflight
            for module, name in ((build_module, "check_versions"), (execution_module, "preflight")):
                patch.setattr(module, name, lambda *arguments, **options: None)
            summary = make(place, address, StubEngine(sleep=0.1), notify=told.append)
        assert summary.shards_done == 4
        assert verify(place / "OUT").clean
        assert len(told) == 1
        assert "stylize 0.0.1" in told[0]
        assert told[0].endswith("it gets no work meanwhile")
        other.send_signal(signal.SIGSTOP)
        monkeypatch.setattr(preflight_module, "ANSWER_SECONDS", 1.0)
        with pytest.raises(RunError, match=r"^worker tcp.* has not answered within 1 s"):
            check_versions(client)


def test_no_fit_worker_is_left(place, client, monkeypatch):
    monkeypatch.setattr(submission, "NO_WORKER_SECONDS", 0.5)
    monkeypatch.setattr(execution_module, "preflight", lambda *arguments, **options: None)
    monkeypatch.setattr(worker_check, "_run_problem", lambda needs: "lacks OUT; mount it")
    told: list[str] = []
    with pytest.raises(
        RunError, match=r"^worker tcp.* lacks OUT; mount it, and there has been no other for 0 s\. 0 of"
    ):
        make(place, client.scheduler.address, notify=told.append)
    assert len(told) == 1


def test_workers_hear_that_a_build_has_stopped(place, client):
    before = set(shard_task._stopped)
    with pytest.raises(RunError, match="must not go on"):
        make(place, client.scheduler.address, StubEngine(raises=RuntimeError("must not go on")))
    assert len(shard_task._stopped - before) == 1


LEAVING: dict[str, Worker] = {}


def leave_after_a_face(spec, faces, draw, on_attempt):
    gone = LEAVING.pop("worker", None)
    if gone is not None:
        gone.loop.add_callback(gone.close, executor_wait=False)
        while gone.status.name == "running":
            time.sleep(0.01)
    yield from StubEngine()(spec, faces, draw, on_attempt)


def test_the_last_gpu_worker_leaves_in_mid_run(place, monkeypatch):
    monkeypatch.setattr(submission, "NO_WORKER_SECONDS", 1.0)
    monkeypatch.setattr(worker_check, "_gpu_problem", lambda: None)
    options = {"nthreads": 1, "dashboard_address": HTTP, "host": "127.0.0.1"}
    workers = {
        "gpu": {"cls": Worker, "options": {**options, "resources": {"GPU": 1}}},
        "cpu": {"cls": Worker, "options": options},
    }
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard_address": HTTP}}
    told: list[str] = []
    with SpecCluster(workers=workers, scheduler=scheduler, silence_logs=100) as cluster:
        LEAVING["worker"] = cluster.workers["gpu"]
        cluster.worker_spec.pop("gpu")  # or the cluster would start another
        address = cluster.scheduler_address
        sentence = r"all workers with a GPU are gone, .* 1 without one remains, .* start workers with a GPU again, or"
        with pytest.raises(RunError, match=sentence):
            make(place, address, leave_after_a_face, notify=told.append)
        assert told == ["workers with a GPU get all the work (1 of them); 1 without one will be idle"]
        make(place, address)  # on the CPU, which the user has decided by this
    assert verify(place / "OUT").clean


SHARD = ShardName("train", 0, 2)


def info(gpus=0, status="running", executing=0):
    return {
        "resources": {"GPU": gpus} if gpus else {},
        "status": status,
        "metrics": {"executing": executing},
    }


def test_who_gets_work():
    crew = Crew()
    crew.update({"a": info(), "b": info()})
    assert (crew.gpu, crew.slots, crew.only) == (False, 2, None)
    crew.update({"a": info(), "b": info(2)})
    assert (crew.gpu, crew.slots, crew.only) == (True, 2, None)
    crew.update({"a": info()})
    assert (crew.gpu, crew.slots) == (True, 0)  # and stays so: a slower worker does not take over by itself
    assert "1 without one remains" in crew.absence(60)
    crew.update({})
    assert crew.absence(60) == "all workers are gone, and none has come back for 60 s"


def test_an_unfit_worker_gets_none_until_it_has_left():
    crew = Crew()
    crew.update({"a": info(), "b": info()})
    unfit = preflight_module.Unfit("a", "worker a lacks OUT")
    assert crew.refuse(unfit)
    assert not crew.refuse(unfit)  # told once
    assert (crew.slots, crew.only) == (1, ["b"])
    bound, loose = Flight(SHARD, gpu=False, workers=["b"]), Flight(SHARD, gpu=False)
    assert not crew.stranded(bound)
    crew.update({"a": info(), "c": info()})
    assert crew.stranded(bound)
    assert not crew.stranded(loose)  # Dask takes another worker
    crew.update({"b": info()})
    crew.update({"a": info(), "b": info()})  # started again, and perhaps mended
    assert (crew.slots, crew.only) == (2, None)


def test_a_worker_is_tried_again_when_some_time_has_passed():
    now = [0.0]
    crew = Crew(lambda: now[0])
    crew.update({"a": info()})
    crew.refuse(preflight_module.Unfit("a", "worker a lacks OUT"))
    assert crew.slots == 0
    now[0] = submission.UNFIT_SECONDS
    crew.update({"a": info()})
    assert crew.slots == 1


def test_workers_with_a_gpu_do_not_wait_for_those_without():
    crew = Crew()
    crew.update({"a": info(), "b": info()})
    both = [Flight(SHARD, gpu=False)] * 2
    assert crew.free(both[:1])
    assert not crew.free(both)
    crew.update({"a": info(), "b": info(), "g": info(2)})
    assert crew.free([*both, Flight(SHARD, gpu=True)])  # at once
    assert not crew.free([*both, *[Flight(SHARD, gpu=True)] * 2])


def test_workers_that_are_paused_take_no_work():
    crew = Crew()
    crew.update({"a": info(status="paused", executing=1), "b": info()})
    assert (crew.slots, crew.free([])) == (1, True)
    crew.update({"a": info(status="paused", executing=1)})
    assert (crew.slots, crew.finishing) == (0, True)
    crew.update({"a": info(status="paused")})
    assert (crew.slots, crew.finishing) == (0, False)
    assert "(1 paused)" in crew.absence(60)
    assert "--memory-limit 0" in crew.absence(60)


def test_what_a_task_returns_is_told_from_a_refusal():
    assert Gate.refusal(Counter(faces=3)) is None
    found = {"unfit": None, "worker": "tcp://h:1", "host": "h", "versions": preflight_module._ours() | {"stylize": "0"}}
    refused = Gate.refusal(found)
    assert refused is not None
    assert refused.sentence.startswith("worker tcp://h:1 on h has Python 3")
