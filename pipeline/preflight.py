"""Preflight: can these workers do the work, asked before the first shard, and of every worker that joins later.

At the beginning, while the user still looks, anything amiss with any worker stops the command, within `START_SECONDS`
and in one sentence. A worker that joins later (a spot machine from an old image, at three in the morning) must not stop
what the others do: every shard goes out with the same check around it (`Gate`), and a worker that fails it gets no more
of them and is named in a sentence.

Compared are stylize's version in full, Python's minor version (pickles and byte code differ) and PyTorch's minor
version (its arithmetic and its checkpoints may); a patch release, or a CUDA build beside a CPU build, is no difference.
"""

import contextlib
import hashlib
import inspect
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from distributed import Client, Future
from distributed.protocol.pickle import dumps

from manifests.errors import InputError, RunError
from manifests.image_source import ImageSource
from manifests.redaction import redact
from manifests.run import JOURNAL_FOLDER, RunDirectory
from pipeline import worker_versions
from pipeline.cluster import ask_workers, gpus_of, worker_infos
from pipeline.file_digest import file_digest
from pipeline.network import SOURCES, NetworkReference
from pipeline.plan import ShardSpec
from pipeline.worker_check import Requirements, Sample, WeightsFile, answer, problem

START_SECONDS = 30.0
ANSWER_SECONDS = 10.0
WEIGHTS_SECONDS = 10.0
SAMPLES_TRIED = 8

# What `eval` does on the worker: the only thing of ours that every Python has is its text.
_BOOT = "(namespace := {}, exec(source, namespace), namespace[name](*arguments))[2]"


def requirements(spec: ShardSpec, *, attached: bool) -> Requirements:
    """Say what a worker needs for shards like this one, as this client has it.

    Args:
        spec: of the first shard.
        attached: the workers may be on other machines, where other weights may lie under the path.
    """
    return Requirements(
        token=spec.token,
        root=spec.root,
        marker=_marker(spec.token),
        samples=(
            _sample("faces", spec.face_source, spec.faces),
            _sample("paintings", spec.painting_source, spec.paintings),
        ),
        weights=_weights_file(spec.network) if attached else None,
    )


@contextlib.contextmanager
def marked(run: RunDirectory, token: str) -> Iterator[Callable[[], bool]]:
    """Keep a file in the run's journal meanwhile by which a worker knows that its OUT is this one.

    Another client of the run that finds it complete takes the journal away, and this file with it. Yields a function
    that puts it back then, and returns whether it had to.

    Raises:
        RunError: OUT cannot be written.
    """

    def write() -> None:
        try:
            run.publish(_marker(token), token.encode())
        except OSError as error:
            raise RunError(f'"{redact(run.url)}" cannot be written: {error.strerror or error}') from error

    def restore() -> bool:
        run.fs.invalidate_cache(run.path(JOURNAL_FOLDER))
        if run.fs.exists(run.path(_marker(token))):
            return False
        write()
        return True

    write()
    try:
        yield restore
    finally:
        with contextlib.suppress(OSError):
            run.fs.rm_file(run.path(_marker(token)))


def preflight(
    client: Client,
    needs: Requirements,
    *,
    since: float | None,
    thorough: bool,
    notify: Callable[[str], None] = lambda sentence: None,
) -> None:
    """Refuse workers that cannot do the work, or would do another.

    Whether weights are the same, and whether a declared GPU is one, is asked for `WEIGHTS_SECONDS` only, and no answer
    is no fault: reading half a gigabyte may take longer, and every shard asks again.

    Args:
        client: of the cluster.
        needs: what a worker must have.
        since: when the command began to look for a cluster, by `time.monotonic`; None is now.
        thorough: look at weights and GPUs, too; pointless on this machine.
        notify: is given what is odd but no obstacle.

    Raises:
        RunError: naming the worker, its machine, what is wrong and what to do.
    """
    now = time.monotonic()
    deadline = max((now if since is None else since) + START_SECONDS, now + ANSWER_SECONDS)
    workers = worker_infos(client)
    states = Counter(str(info.get("status", "running")) for info in workers.values())
    if workers and not states["running"]:
        seen = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        raise RunError(f"no worker takes work ({seen}); give them more memory, or restart them")
    hosts = check_versions(client)
    with_gpu = [address for address in hosts if gpus_of(workers.get(address, {}))]
    if thorough and 0 < len(with_gpu) < len(hosts):
        rest = len(hosts) - len(with_gpu)
        notify(f"workers with a GPU get all the work ({len(with_gpu)} of them); {rest} without one will be idle")
    seconds = max(1.0, deadline - time.monotonic())
    found = _ask(client, hosts, needs, with_gpu, thorough=False, seconds=seconds)
    _refuse(client, hosts, found, seconds)
    if thorough:
        seconds = max(1.0, min(WEIGHTS_SECONDS, deadline - time.monotonic()))
        _refuse(client, hosts, _ask(client, hosts, needs, with_gpu, thorough=True, seconds=seconds), None)


def check_versions(client: Client) -> dict[str, str]:
    """Refuse workers whose stylize, Python or PyTorch differs from the client's; return the hosts' names by address.

    Raises:
        RunError: naming the first such worker, or one that does not answer within `ANSWER_SECONDS`.
    """
    workers = worker_infos(client)
    asked = {address: (_BOOT, _scope("look")) for address in workers}
    answers = ask_workers(client, eval, asked, ANSWER_SECONDS)
    hosts = {address: str(info.get("host", "an unknown host")) for address, info in workers.items()}
    versions: dict[str, Any] = {}
    for address, found in answers.items():
        if not isinstance(found, BaseException):
            hosts[address] = found["host"]
            versions[address] = None if found["versions"] == _ours() else _version_problem(found["versions"])
        elif not isinstance(found, OSError):
            versions[address] = found
    _refuse(client, hosts, versions, ANSWER_SECONDS)
    return hosts


@dataclass(frozen=True)
class Unfit:
    """A worker has refused a shard: its address, and why, in one sentence."""

    worker: str
    sentence: str


class Gate:
    """Puts the check of a worker around tasks; `Gate.refusal` reads from a result whether the task was done.

    The task goes along pickled, to be unpickled where the versions are the client's. One process makes the check once
    in an execution.

    Args:
        needs: what a worker must have.
        thorough: as for `preflight`.
        restore: as `marked` yields it. After a refusal it tells whether that was for want of the client's own file.
    """

    def __init__(self, needs: Requirements, thorough: bool, restore: Callable[[], bool] = lambda: False) -> None:
        self._needs, self._thorough, self.restore = needs, thorough, restore
        self._versions = _ours()

    def submit(
        self, client: Client, function: Callable[..., Any], arguments: tuple[Any, ...], *, gpu: bool, **options: Any
    ) -> Future:
        """Submit a task; `gpu` says that it is for a worker which declares one, `options` are `Client.submit`'s."""
        check = dumps((problem, (self._needs, self._thorough, gpu)))
        scope = _scope("checked", self._versions, check, dumps((function, arguments)))
        return client.submit(eval, _BOOT, scope, **options)

    @staticmethod
    def refusal(result: object) -> Unfit | None:
        """Return what was wrong with the worker that did not do the task; None if it was done."""
        if not isinstance(result, dict) or "unfit" not in result:
            return None
        why = result["unfit"] or _version_problem(result["versions"])
        return Unfit(result["worker"], redact(f"worker {result['worker']} on {result['host']} {why}"))


def _ours() -> dict[str, str]:
    versions: dict[str, str] = worker_versions.look()["versions"]
    return versions


def _scope(name: str, *arguments: object) -> dict[str, Any]:
    return {"source": inspect.getsource(worker_versions), "name": name, "arguments": arguments}


def _ask(
    client: Client,
    hosts: Mapping[str, str],
    needs: Requirements,
    with_gpu: Sequence[str],
    *,
    thorough: bool,
    seconds: float,
) -> dict[str, Any]:
    return ask_workers(client, answer, {worker: (needs, thorough, worker in with_gpu) for worker in hosts}, seconds)


def _refuse(client: Client, hosts: Mapping[str, str], answers: Mapping[str, Any], seconds: float | None) -> None:
    """Raise the first problem. No answer within `seconds` is one, unless the worker has left; None allows that."""
    present = worker_infos(client)
    problems = []
    for address, host in hosts.items():
        answer = answers.get(address, OSError())
        if isinstance(answer, OSError):
            if seconds is None or address not in present:
                continue
            answer = f"has not answered within {seconds:.0f} s; see whether it, or storage that it waits for, hangs"
        elif isinstance(answer, BaseException):
            said = (str(answer).splitlines() or [""])[0]
            answer = f"cannot run our code ({type(answer).__name__}: {said}); it needs {_listed(_ours())}"
        if answer is not None:
            problems.append(f"worker {address} on {host} {answer}")
    if problems:
        others = f" ({len(problems)} of {len(hosts)} workers cannot be used)" if len(problems) > 1 else ""
        raise RunError(problems[0] + others)


def _version_problem(theirs: Mapping[str, str]) -> str:
    return f"has {_listed(theirs)}, and this client has {_listed(_ours())}; install the same on both"


def _listed(versions: Mapping[str, str]) -> str:
    *first, last = (f"{name} {version}" for name, version in versions.items())
    return f"{', '.join(first)} and {last}"


def _marker(token: str) -> str:
    return f"{JOURNAL_FOLDER}/preflight.{token}.tmp"  # the form of names that may be in flight, `manifests.commit`


def _sample(kind: str, source: ImageSource, table: pa.Table) -> Sample:
    """Take the first image that can be read here; one that cannot is a matter of its row in the manifest."""
    for locator in table["locator"][:SAMPLES_TRIED].to_pylist():
        with contextlib.suppress(OSError, InputError, RunError):
            return Sample(kind, source, locator, hashlib.sha256(source.read(locator)).hexdigest())
    return Sample(kind, source)


def _weights_file(network: NetworkReference) -> WeightsFile | None:
    if network.source in SOURCES:
        return None
    with contextlib.suppress(OSError):
        return WeightsFile(network.source, file_digest(network.source), network.digest)
    return None
