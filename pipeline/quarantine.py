"""Quarantine: faces that may have killed workers are tried apart, in processes that may die without harm.

A face in progress when two workers died is a suspect, no more: machines that are lent and taken away kill innocents
twice, too. Suspects are repainted in a child process of the worker. If it dies, whatever it had begun is tried again by
halves, until a process that repaints one face and nothing else has died twice while its worker lives: then the face is
poison, and recorded as failed. A face that survives counts like any other.
"""

import contextlib
import dataclasses
import os
import pickle
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, NoReturn

from distributed.protocol.pickle import dumps

from manifests import schema
from manifests.errors import RunError
from pipeline.plan import ShardSpec
from pipeline.shard_inputs import Engine, OnAttempt, face_jobs, painting_draws, part_of
from stylize.jobs import FaceResult

SUSPICIOUS_DEATHS: Final = 2
"""Of executions in which a face was in progress, before it is repainted apart."""
POISON_DEATHS: Final = 2
"""Of processes that repainted a face alone, before it is poison."""
POISON: Final = "poison: "
"""How the error of such a row begins."""

_UNBORN_CHILDREN = 3
_SECONDS_TO_END = 5
_LENGTH_BYTES = 8
# What the engine or a library prints must not come between the messages, so these get the descriptor to themselves.
_SERVER = (
    "import os; messages = os.dup(1); os.dup2(2, 1); "
    "import pipeline.shard_task; from pipeline.quarantine import serve; serve(messages)"
)


def repaint_apart(
    spec: ShardSpec,
    faces: Collection[str],
    engine: Engine,
    on_attempt: OnAttempt,
    quarantine: "Quarantine",
) -> Iterator[FaceResult]:
    """Repaint suspects in child processes, as many of them in one as it survives.

    Args:
        spec: the task of their shard.
        faces: image_ids of the suspects.
        engine: what repaints; it travels as Dask sends it.
        on_attempt: told of every attempt, in this process; what it raises ends the child.
        quarantine: where the processes come from.

    Yields:
        One result per suspect; "failed" with an error that begins with `POISON` for one that kills its process.

    Raises:
        RunError: no child lives long enough to begin a face, which is no face's fault.
        Exception: what the engine raised in the child.
    """
    groups = deque([[face for face in spec.faces[schema.IMAGE_ID].to_pylist() if face in faces]])
    deaths: Counter[str] = Counter()
    unborn = 0
    while groups:
        trial = _Trial(groups.popleft())
        yield from trial.run(spec, engine, on_attempt, quarantine)
        if trial.nothing_begun:
            unborn += 1
            if unborn == _UNBORN_CHILDREN:
                words = f" ({quarantine.last_words()})" if quarantine.last_words() else ""
                raise RunError(f"a process of its own, to try faces apart, {trial.ending} before it began{words}")
        elif trial.left and trial.alone:
            deaths[trial.faces[0]] += 1
        if trial.alone and deaths[trial.faces[0]] == POISON_DEATHS:
            yield _poison(spec, trial.faces[0], trial.ending)
        else:
            groups.extendleft(reversed(trial.smaller()))


class _Trial:
    """Some suspects in one child process.

    Attributes:
        faces: that it was given.
        left: of which it gave no result before it died.
        begun: which it had begun to read.
        ending: how it died, as the predicate of a sentence.
    """

    def __init__(self, faces: Sequence[str]) -> None:
        self.faces = faces
        self.left = dict.fromkeys(faces)
        self.begun: set[str] = set()
        self.ending = ""

    @property
    def alone(self) -> bool:
        return len(self.faces) == 1

    @property
    def nothing_begun(self) -> bool:
        return len(self.left) == len(self.faces) and not self.begun

    def run(
        self, spec: ShardSpec, engine: Engine, on_attempt: OnAttempt, quarantine: "Quarantine"
    ) -> Iterator[FaceResult]:
        task = part_of(spec, self.left)
        if self.alone:
            task = dataclasses.replace(task, batch_size=1)
        for kind, *content in quarantine.messages(task, engine):
            if kind == "begun":
                self.begun.add(content[0])
            elif kind == "attempt":
                on_attempt(*content)
            elif kind == "result":
                self.left.pop(content[0].key, None)
                yield content[0]
            elif kind == "error":
                raise content[0]
            elif kind == "ended":
                self.ending = _ending(content[0])
            elif self.left:
                first = next(iter(self.left))
                raise RuntimeError(f"the engine gave no result for {len(self.left)} faces, first {first}")

    def smaller(self) -> list[list[str]]:
        """Return what is left: what had been begun in halves, since the guilty is among it, then the rest."""
        if self.nothing_begun:
            return [list(self.faces)]
        suspects = [face for face in self.left if face in self.begun] or list(self.left)
        rest = [face for face in self.left if face not in suspects]
        middle = (len(suspects) + 1) // 2
        return [group for group in (suspects[:middle], suspects[middle:], rest) if group]


def _poison(spec: ShardSpec, face: str, ending: str) -> FaceResult:
    return FaceResult(
        key=face,
        status=schema.FAILED,
        attempts=(),
        image=None,
        width=None,
        height=None,
        error=f"{POISON}a process that repainted nothing but this face {ending}, {POISON_DEATHS} times in a row",
        precision=spec.settings.precision,
    )


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


class Quarantine:
    """A process that makes processes: each repaints the faces of one task, and may die of them.

    It loads what takes seconds to load once, and is copied (fork) for every task. Where copies are not safe, elsewhere
    than on Linux, it repaints itself, and another one is started when it has died. It ends with this object, and with
    this process, however that ends. Not for several threads at once.

    Args:
        environment: its variables beside this process's.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # closed with this object

    def __enter__(self) -> "Quarantine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        self._stderr.close()

    def messages(self, spec: ShardSpec, engine: Engine) -> Iterator[tuple[Any, ...]]:
        """Repaint the faces of a task in a process of their own, and yield what it tells.

        Yields:
            ("begun", face), ("attempt", face, attempt) and ("result", result) as they come; then ("error", exception)
            or ("done",) unless it has died; at last ("ended", exit code), negative for a signal.
        """
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        ended = False
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(_framed(dumps((spec, engine))))
                process.stdin.flush()
            while (body := _receive(process.stdout.fileno())) is not None:
                message: tuple[Any, ...] = pickle.loads(body)
                ended = message[0] == "ended"
                yield message
                if ended:
                    return
            yield "ended", process.wait()
        finally:
            if not ended:
                self._end()

    def last_words(self) -> str:
        """Return the last line that any of the processes wrote to stderr; empty if there is none."""
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
            self._process = subprocess.Popen(
                [sys.executable, "-c", _SERVER],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env={**os.environ, **self._environment, "PYTHONPATH": path},
            )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for stream in (process.stdin, process.stdout):  # the end of its input tells it to end what it has begun
            if stream is not None:
                stream.close()
        try:
            process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def serve(messages: int) -> None:
    """Repaint, in the child, the tasks that come in through stdin; what is to be told goes to a descriptor."""
    # Where memory runs out, the system is to choose this process and not its worker.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("1000")
    while (task := _receive(0)) is not None:
        if sys.platform != "linux":
            threading.Thread(target=_end_with_parent, daemon=True).start()
            _work(task, messages)
        ear, mouth = os.pipe()
        child = os.fork()
        if not child:
            os.close(ear)
            _work(task, mouth)
        os.close(mouth)
        # Whole messages only: a process that dies may leave half of one.
        while select.select([0, ear], [], [])[0] == [ear] and (body := _receive(ear)) is not None:
            _send(messages, body)
        if select.select([0], [], [], 0)[0]:  # no task comes before this one has ended: the worker is gone
            os.kill(child, signal.SIGKILL)
            os._exit(1)
        os.close(ear)
        _, status = os.waitpid(child, 0)
        _send(messages, pickle.dumps(("ended", os.waitstatus_to_exitcode(status))))


def _work(task: bytes, messages: int) -> NoReturn:
    lock = threading.Lock()  # the engine reads, and may report, in several threads

    def tell(*message: object) -> None:
        with lock:
            _send(messages, pickle.dumps(message))

    try:
        spec, engine = pickle.loads(task)
        jobs = face_jobs(spec, lambda face: tell("begun", face))
        for result in engine(spec, jobs, painting_draws(spec), lambda face, attempt: tell("attempt", face, attempt)):
            tell("result", result)
    except Exception as error:
        tell("error", _portable(error))
    else:
        tell("done")
    os._exit(0)  # a library that crashes while it is being taken down says nothing of the faces


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


def _framed(body: bytes) -> bytes:
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


def _send(descriptor: int, body: bytes) -> None:
    left = memoryview(_framed(body))
    while left:
        left = left[os.write(descriptor, left) :]


def _receive(descriptor: int) -> bytes | None:
    """Return the next message, or None at the end; half a message is none."""
    head = _read(descriptor, _LENGTH_BYTES)
    return None if head is None else _read(descriptor, int.from_bytes(head, "big"))


def _read(descriptor: int, length: int) -> bytes | None:
    read = bytearray()
    while len(read) < length:
        chunk = os.read(descriptor, min(length - len(read), 1 << 20))
        if not chunk:
            return None
        read += chunk
    return bytes(read)


def _portable(error: Exception) -> Exception:
    """Return the exception as another process can read it: some cannot be made again from what they were made of."""
    try:
        same = pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return same if isinstance(same, Exception) else RuntimeError(str(error))
