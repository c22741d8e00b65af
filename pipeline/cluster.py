"""The Dask cluster a build runs on: its own local one, or a running one that it attaches to."""

import asyncio
import contextlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
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
# A local cluster's workers are being started by us; one that is attached to has them, or they are about to join.
# Together with connecting it leaves `pipeline.preflight` a third of the 30 s in which a user must have an answer.
WORKER_SECONDS = 30
ATTACHED_WORKER_SECONDS = 15
NOTICE_SECONDS = 2
CORES_PER_WORKER = 4  # our choice: convolutions of one image scale to about four cores, then more images win
THREADS_VARIABLE = "STYLIZE_TORCH_THREADS"

_ADDRESS = re.compile(r"(?:(?:tcp|tls)://)?(\[[0-9a-fA-F:.]+\]|[^\s\[\]:/@]+):(\d{1,5})")


@contextlib.contextmanager
def cluster_client(
    execution: ExecutionConfig, notify: Callable[[str], None] = lambda sentence: None
) -> Iterator[Client]:
    """Yield a client of a cluster that has at least one worker.

    The scheduler is, in this order: the one in `execution`; a local cluster where `execution.workers` is given; the one
    in DASK_SCHEDULER_ADDRESS; a local cluster on the loopback interface, closed on exit. Distributed's own log is
    silenced meanwhile: what a user must know is raised, in one sentence, or told to `notify`.

    Raises:
        InputError: a malformed address or scheduler file, a missing TLS file, or more workers than GPUs.
        RunError: nobody answers, or no worker joins.
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
        _wait_for_a_worker(client, address, notify)
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


def worker_infos(client: Client) -> dict[str, Any]:
    """Return what the scheduler knows of its present workers, by address.

    Raises:
        RunError: the scheduler does not answer any more.
    """
    try:
        try:
            info = client.scheduler_info(n_workers=-1)  # some versions list five workers unless told
        except TypeError:
            info = client.scheduler_info()
    except (OSError, RuntimeError, TimeoutError) as error:
        raise RunError("the connection to the Dask scheduler was lost") from error
    workers: dict[str, Any] = info["workers"]
    return workers


def gpus_of(info: Mapping[str, Any]) -> int:
    """Return how many GPUs a worker declares (`dask worker --resources GPU=1`)."""
    return int(info.get("resources", {}).get("GPU", 0))


def ask_workers(
    client: Client, function: Callable[..., Any], arguments: Mapping[str, tuple[Any, ...]], seconds: float
) -> dict[str, Any]:
    """Call a function on some workers at once, beside their tasks; an exception of a worker is its answer.

    A worker that is stopped, or hangs, would let `Client.run` wait for ever.

    Args:
        client: of the cluster.
        function: a coroutine function, unless it returns at once: it runs in the event loops of the workers.
        arguments: by address of the worker.
        seconds: to wait; workers that have not answered by then are missing in the result.
    """

    async def ask(address: str) -> Any:
        # One call for each: the scheduler collects the answers of a call, and the slowest worker's is the last.
        call = client.run(function, *arguments[address], workers=[address], on_error="return", asynchronous=True)
        try:
            return (await asyncio.wait_for(call, seconds))[address]
        except Exception as error:
            return error

    async def ask_all() -> list[Any]:
        return await asyncio.gather(*map(ask, arguments))

    answers = dict(zip(arguments, client.sync(ask_all), strict=True))
    return {address: answer for address, answer in answers.items() if not isinstance(answer, TimeoutError)}


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


def _wait_for_a_worker(client: Client, address: str | None, notify: Callable[[str], None]) -> None:
    seconds = WORKER_SECONDS if address is None else ATTACHED_WORKER_SECONDS
    where = f"the scheduler at {address}" if address else "the local cluster"
    began, told = time.monotonic(), False
    while not client.nthreads():
        waited = time.monotonic() - began
        if waited > seconds:
            raise RunError(f"no worker joined {where} within {seconds:g} s; start one with `dask worker`")
        if waited > NOTICE_SECONDS and not told:
            told = True
            notify(f"{where} has no worker yet; waiting {seconds:g} s for one")
        time.sleep(0.1)


def stylize_version() -> str:
    """Return the version of this package that is installed here, or "none"."""
    try:
        return metadata.version("stylize")
    except metadata.PackageNotFoundError:
        return "none"


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
