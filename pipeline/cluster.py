"""The Dask cluster a build runs on: its own local one, or a running one that it attaches to."""

import contextlib
import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from dask.system import CPU_COUNT
from distributed import Client, Nanny, Scheduler, SpecCluster
from distributed.security import Security

from manifests.errors import InputError, RunError
from pipeline.config import ExecutionConfig
from pipeline.gpus import visible_gpus
from pipeline.signals import interrupt_ignored

CONNECT_SECONDS = 10
WORKER_SECONDS = 30
CORES_PER_WORKER = 4  # our choice: convolutions of one image scale to about four cores, then more images win
THREADS_VARIABLE = "STYLIZE_TORCH_THREADS"

_ADDRESS = re.compile(r"(?:(?:tcp|tls)://)?(\[[0-9a-fA-F:.]+\]|[^\s\[\]:/@]+):(\d{1,5})")


@contextlib.contextmanager
def cluster_client(execution: ExecutionConfig) -> Iterator[Client]:
    """Yield a client of a cluster that has at least one worker able to run this version of stylize.

    The scheduler is, in this order: the one in `execution`; a local cluster where `execution.workers` is given; the one
    in DASK_SCHEDULER_ADDRESS; a local cluster on the loopback interface, closed on exit. Distributed's own log is
    silenced meanwhile: what a user must know is raised, in one sentence.

    Raises:
        InputError: a malformed address or scheduler file, a missing TLS file, or more workers than GPUs.
        RunError: nobody answers, no worker joins, or the workers run another stylize.
    """
    with _quiet_log(), contextlib.ExitStack() as stack:
        address = scheduler_address(execution)
        if address is None:
            security = None
            cluster = stack.enter_context(_local_cluster(execution))
            target: Any = cluster
        else:
            security = _security(execution, address)
            target = address
        try:
            client = Client(target, timeout=CONNECT_SECONDS, security=security, set_as_default=False)
        except (OSError, TimeoutError, ValueError, RuntimeError) as error:
            raise RunError(
                f"no Dask scheduler answers at {address or 'the local cluster'} within {CONNECT_SECONDS} s; "
                "check the address, that it is running, and its TLS settings"
            ) from error
        stack.callback(_close, client)
        _wait_for_a_worker(client, address)
        _check_workers(client)
        yield client


def scheduler_address(execution: ExecutionConfig, environ: dict[str, str] | None = None) -> str | None:
    """Return the address of the running scheduler to attach to, or None for a local cluster.

    Raises:
        InputError: the address is malformed, or the scheduler file is missing or holds no address.
    """
    environ = dict(os.environ) if environ is None else environ
    if execution.scheduler_file:
        path = Path(execution.scheduler_file)
        try:
            address = json.loads(path.read_text())["address"]
        except FileNotFoundError:
            raise InputError(f'the scheduler file "{path}" does not exist; is the scheduler running?') from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f'"{path}" is not a scheduler file as `dask scheduler` writes it ({error})') from error
        return _checked(str(address), f'the address in "{path}"')
    if execution.scheduler:
        return _checked(execution.scheduler, "the scheduler address")
    inherited = environ.get("DASK_SCHEDULER_ADDRESS")
    if inherited and execution.workers is None:
        return _checked(inherited, "DASK_SCHEDULER_ADDRESS")
    return None


def slots(client: Client) -> int:
    """Return how many shards the cluster's present workers can work on: one per GPU, or else one per worker."""
    gpus = [int(worker["resources"].get("GPU", 0)) for worker in _workers(client).values()]
    return sum(gpus) or len(gpus)


def task_resources(client: Client) -> dict[str, float]:
    """Return the resources a shard must ask for: one GPU as soon as any worker declares one."""
    return {"GPU": 1} if any(w["resources"].get("GPU") for w in _workers(client).values()) else {}


def _checked(address: str, what: str) -> str:
    found = _ADDRESS.fullmatch(address.strip())
    if not found or not 0 < int(found[2]) < 2**16:
        raise InputError(f'{what} "{address}" is malformed; give tcp://HOST:PORT or tls://HOST:PORT')
    return address.strip() if "://" in address else f"tcp://{address.strip()}"


def _security(execution: ExecutionConfig, address: str) -> Security | None:
    files = {"tls_ca_file": execution.tls_ca_file, "tls_client_cert": execution.tls_cert}
    files["tls_client_key"] = execution.tls_key
    for file in files.values():
        if file and not Path(file).is_file():
            raise InputError(f'the TLS file "{file}" does not exist')
    encrypted = address.startswith("tls://")
    if not encrypted and not any(files.values()):
        return None
    security = Security(**{name: file for name, file in files.items() if file}, require_encryption=encrypted)
    try:
        usable = security.get_connection_args("client")["ssl_context"] is not None
    except OSError as error:
        raise InputError(f"the TLS files cannot be used ({error}); give certificates and key as PEM") from error
    if encrypted and not usable:  # a context needs both; Dask's own configuration may have them, too
        raise InputError(f'"{address}" needs --tls-ca-file, --tls-cert and, unless that file holds it, --tls-key')
    return security


@contextlib.contextmanager
def _local_cluster(execution: ExecutionConfig) -> Iterator[SpecCluster]:
    # Loopback only, no dashboard, and no memory limit: Dask's heuristics would pause or restart a worker whose caching
    # allocator merely holds memory, and a worker that really runs out is restarted by its nanny anyway.
    # Dask's HTTP server for health checks is started even without a dashboard, by default on every interface.
    loopback = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    common = {
        **loopback,
        "nthreads": 1,
        "memory_limit": 0,
        "silence_logs": logging.CRITICAL,
        "preload": ["pipeline.signals"],
    }
    options = _worker_options(execution.workers, visible_gpus())
    # Nanny overwrites this process's variables, which its children inherit; ours come back on exit.
    environment = dict(os.environ)
    with interrupt_ignored():
        try:
            cluster = SpecCluster(
                workers={
                    index: {"cls": Nanny, "options": {**common, **special}} for index, special in enumerate(options)
                },
                scheduler={"cls": Scheduler, "options": {**loopback, "port": 0, "protocol": "tcp://"}},
                name="stylize",
            )
        except (OSError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise RunError(f"the local Dask cluster could not be started ({reason})") from error
    try:
        yield cluster
    finally:
        with contextlib.suppress(Exception):
            cluster.close(timeout=WORKER_SECONDS)
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)


def _worker_options(workers: int | None, gpus: tuple[str, ...], cores: int = CPU_COUNT) -> list[dict[str, Any]]:
    if gpus:
        if workers is not None and workers > len(gpus):
            raise InputError(
                f"{workers} workers were asked for, but there are {len(gpus)} GPUs; give at most that many"
            )
        threads = max(1, cores // len(gpus))
        return [
            {
                "resources": {"GPU": 1},
                "env": {"CUDA_VISIBLE_DEVICES": token, "OMP_NUM_THREADS": threads, THREADS_VARIABLE: threads},
            }
            for token in gpus[:workers]
        ]
    count = workers or max(1, cores // CORES_PER_WORKER)
    # Nanny would set OMP_NUM_THREADS=1. The second variable is for torch, which may have read the first too early.
    threads = (
        int(inherited) if (inherited := os.environ.get("OMP_NUM_THREADS", "")).isdigit() else max(1, cores // count)
    )
    return [{"env": {"OMP_NUM_THREADS": threads, THREADS_VARIABLE: threads}}] * count


def _wait_for_a_worker(client: Client, address: str | None) -> None:
    deadline = time.monotonic() + WORKER_SECONDS
    while not client.nthreads():
        if time.monotonic() > deadline:
            where = f"the scheduler at {address}" if address else "the local cluster"
            raise RunError(f"no worker joined {where} within {WORKER_SECONDS} s; start one with `dask worker`")
        time.sleep(0.1)


def _check_workers(client: Client) -> None:
    """Refuse workers whose Python or stylize differs from the client's: their results would."""
    ours = (_python(), stylize_version())

    def inspect() -> tuple[str, str]:  # nested, so that it travels by value to workers that lack this module
        import sys  # noqa: PLC0415
        from importlib import metadata  # noqa: PLC0415

        try:
            version = metadata.version("stylize")
        except metadata.PackageNotFoundError:
            version = "none"
        return f"{sys.version_info[0]}.{sys.version_info[1]}", version

    for address, theirs in client.run(inspect, on_error="return").items():
        if isinstance(theirs, BaseException):
            raise RunError(
                f"worker {address} cannot run our code ({type(theirs).__name__}: {theirs}); "
                f"it needs Python {ours[0]} and stylize {ours[1]}"
            )
        if tuple(theirs) != ours:
            raise RunError(
                f"worker {address} has Python {theirs[0]} and stylize {theirs[1]}, this client has Python {ours[0]} "
                f"and stylize {ours[1]}; install the same on both"
            )


def _python() -> str:
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def stylize_version() -> str:
    """Return the version of this package that is installed here, or "none"."""
    try:
        return metadata.version("stylize")
    except metadata.PackageNotFoundError:
        return "none"


def _workers(client: Client) -> dict[str, Any]:
    try:
        info = client.scheduler_info(n_workers=-1)  # some versions list five workers unless told
    except TypeError:
        info = client.scheduler_info()
    workers: dict[str, Any] = info["workers"]
    return workers


def _close(client: Client) -> None:
    with contextlib.suppress(Exception):
        client.close(timeout=5)


@contextlib.contextmanager
def _quiet_log() -> Iterator[None]:
    """Silence distributed's and tornado's loggers; handlers of the application stay as they are."""
    loggers = [logging.getLogger(name) for name in ("distributed", "tornado", "asyncio")]
    # distributed gives its children levels of their own, and those would win.
    loggers += [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith("distributed.")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
