"""Clusters: which scheduler is meant, what is said when it is not there, and which devices workers get."""

import asyncio
import json
import threading

import pytest
from distributed import Client, LocalCluster, Scheduler, SpecCluster, Worker

from manifests.errors import InputError, RunError
from pipeline import cluster, gpus
from pipeline.cluster import _worker_options, ask_workers, cluster_client, gpus_of, scheduler_address, worker_infos
from pipeline.config import ExecutionConfig
from pipeline.gpus import parse_listing, visible_gpus

LISTING = """GPU 0: NVIDIA H200 (UUID: GPU-aaaaaaaa-0000-0000-0000-000000000000)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-bbbbbbbb-0000-0000-0000-000000000000)
  MIG 3g.20gb     Device  0: (UUID: MIG-cccccccc-0000-0000-0000-000000000000)
  MIG 3g.20gb     Device  1: (UUID: MIG-dddddddd-0000-0000-0000-000000000000)
"""


def test_gpus_of_a_listing_mig_instances_stand_for_their_gpu():
    assert [token[:8] for token in parse_listing(LISTING)] == ["GPU-aaaa", "MIG-cccc", "MIG-dddd"]
    assert parse_listing("No devices found.\n") == ()


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ("0,1", ("0", "1")),
        (" 3 , GPU-ab12", ("3", "GPU-ab12")),
        ("MIG-x/1/0", ("MIG-x/1/0",)),
        ("0,-1,2", ("0",)),  # as the driver reads it: what follows an invalid token is invisible
        ("", ()),
        ("-1", ()),
        ("NoDevFiles", ()),
    ],
)
def test_inherited_tokens_are_handed_on(monkeypatch, tokens, expected):
    monkeypatch.setattr(gpus, "_driver_present", lambda: True)
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": tokens}) == expected


def test_a_token_without_a_driver_is_no_gpu(monkeypatch):
    monkeypatch.setattr(gpus, "_driver_present", lambda: False)
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "0"}) == ()


def test_one_worker_per_gpu():
    options = _worker_options(None, ("GPU-a", "GPU-b"), cores=16)
    assert [entry["env"]["CUDA_VISIBLE_DEVICES"] for entry in options] == ["GPU-a", "GPU-b"]
    assert all(entry["resources"] == {"GPU": 1} and entry["env"]["OMP_NUM_THREADS"] == 8 for entry in options)
    assert len(_worker_options(1, ("GPU-a", "GPU-b"))) == 1
    with pytest.raises(InputError, match="3 workers were asked for, but there are 2 GPUs"):
        _worker_options(3, ("GPU-a", "GPU-b"))


@pytest.mark.parametrize(
    ("workers", "cores", "count", "threads"), [(None, 16, 4, 4), (None, 2, 1, 2), (2, 2, 2, 1), (3, 2, 3, 1)]
)
def test_cpu_workers_share_the_cores(monkeypatch, workers, cores, count, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    options = _worker_options(workers, (), cores=cores)
    assert len(options) == count
    assert {entry["env"]["OMP_NUM_THREADS"] for entry in options} == {threads}


def test_the_users_own_thread_count_is_kept(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert _worker_options(2, (), cores=16)[0]["env"]["OMP_NUM_THREADS"] == 3


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("tcp://10.0.0.1:8786", "tcp://10.0.0.1:8786"),
        ("tls://head.cluster:8786", "tls://head.cluster:8786"),
        ("head:8786", "tcp://head:8786"),
        ("tcp://[::1]:8786", "tcp://[::1]:8786"),
    ],
)
def test_good_addresses(address, expected):
    assert scheduler_address(ExecutionConfig(scheduler=address), {}) == expected
    assert scheduler_address(ExecutionConfig(), {"DASK_SCHEDULER_ADDRESS": address}) == expected


@pytest.mark.parametrize("address", ["tcp://", "head", "tcp://head", "http://head:8786", "head:99999", "tcp://a b:1"])
def test_malformed_addresses(address):
    with pytest.raises(InputError, match="malformed; give tcp://HOST:PORT"):
        scheduler_address(ExecutionConfig(scheduler=address), {})
    with pytest.raises(InputError, match="DASK_SCHEDULER_ADDRESS"):
        scheduler_address(ExecutionConfig(), {"DASK_SCHEDULER_ADDRESS": address})


def test_asking_for_workers_asks_for_a_local_cluster():
    assert scheduler_address(ExecutionConfig(workers=2), {"DASK_SCHEDULER_ADDRESS": "tcp://head:1"}) is None
    assert scheduler_address(ExecutionConfig(), {}) is None


def test_scheduler_files(tmp_path):
    path = tmp_path / "scheduler.json"
    with pytest.raises(InputError, match="does not exist"):
        scheduler_address(ExecutionConfig(scheduler_file=str(path)), {})
    for wrong in ("", "{}", "[]", "not json"):
        path.write_text(wrong)
        with pytest.raises(InputError, match="not a scheduler file"):
            scheduler_address(ExecutionConfig(scheduler_file=str(path)), {})
    path.write_text(json.dumps({"type": "Scheduler", "address": "tcp://127.0.0.1:8786"}))
    assert scheduler_address(ExecutionConfig(scheduler_file=str(path)), {}) == "tcp://127.0.0.1:8786"


def test_a_missing_tls_file_is_named():
    execution = ExecutionConfig(scheduler="tls://127.0.0.1:1", tls_ca_file="/nowhere/ca.pem")
    with pytest.raises(InputError, match=r'"/nowhere/ca.pem" does not exist'), cluster_client(execution):
        pass


def test_nobody_answers(monkeypatch, capfd):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
    execution = ExecutionConfig(scheduler="tcp://127.0.0.1:9")
    with pytest.raises(RunError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9"), cluster_client(execution):
        pass
    assert "Traceback" not in capfd.readouterr().err


@pytest.fixture(scope="module")
def lonely_scheduler():
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}}
    with SpecCluster(scheduler=scheduler) as running:
        yield running.scheduler_address


def test_no_worker_joins(monkeypatch, lonely_scheduler):
    monkeypatch.setattr(cluster, "ATTACHED_WORKER_SECONDS", 0.4)
    monkeypatch.setattr(cluster, "NOTICE_SECONDS", 0)
    execution = ExecutionConfig(scheduler=lonely_scheduler)
    told: list[str] = []
    sentence = "no worker joined the scheduler at tcp://127"
    with pytest.raises(RunError, match=sentence), cluster_client(execution, told.append):
        pass
    assert len(told) == 1  # not a silent wait
    assert "has no worker yet" in told[0]


@pytest.mark.parametrize("way", ["address", "file", "variable"])
def test_attaching(monkeypatch, tmp_path, lonely_scheduler, way):
    async def work():
        async with Worker(lonely_scheduler, nthreads=1, dashboard_address="127.0.0.1:0"):
            await asyncio.to_thread(attach)

    def attach():
        with cluster_client(execution) as client:
            assert client.scheduler.address == lonely_scheduler
            assert [gpus_of(info) for info in worker_infos(client).values()] == [0]
            assert client.submit(sum, [1, 2]).result(timeout=30) == 3

    if way == "address":
        execution = ExecutionConfig(scheduler=lonely_scheduler.removeprefix("tcp://"))
    elif way == "file":
        (tmp_path / "scheduler.json").write_text(json.dumps({"address": lonely_scheduler}))
        execution = ExecutionConfig(scheduler_file=str(tmp_path / "scheduler.json"))
    else:
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", lonely_scheduler)
        execution = ExecutionConfig()
    asyncio.run(work())


def test_a_local_cluster_comes_and_goes_and_leaves_the_environment_alone(monkeypatch):
    import os  # noqa: PLC0415

    monkeypatch.setattr(cluster, "visible_gpus", lambda: ())
    before, threads = dict(os.environ), threading.active_count()
    with cluster_client(ExecutionConfig(workers=1)) as client:
        assert isinstance(client, Client)
        assert len(worker_infos(client)) == 1
        address = client.scheduler.address
        assert address.startswith("tcp://127.0.0.1:")
    assert dict(os.environ) == before
    assert threading.active_count() <= threads + 4  # dask keeps its offload pool
    with pytest.raises(OSError, match=r"."):
        asyncio.run(_connect(address))


def test_a_worker_that_hangs_does_not_hang_who_asks():
    async def never():
        await asyncio.sleep(3600)

    async def fails():
        raise KeyError("x")

    options = {"processes": False, "n_workers": 2, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(**options, protocol="tcp", silence_logs=100) as running, Client(running) as client:
        first, second = worker_infos(client)
        assert ask_workers(client, eval, {first: ("1 + 1",), second: ("1 + 2",)}, 30) == {first: 2, second: 3}
        assert ask_workers(client, never, {first: (), second: ()}, 0.3) == {}
        assert isinstance(ask_workers(client, fails, {first: ()}, 30)[first], KeyError)
        assert ask_workers(client, eval, {"tcp://127.0.0.1:9": ("1",)}, 0.3) == {}


async def _connect(address):
    host, port = address.removeprefix("tcp://").split(":")
    await asyncio.open_connection(host, int(port))
