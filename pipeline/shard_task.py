"""The task of one worker: repaint the faces of one shard and commit it."""

import contextlib
import os
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import distributed
import torch

from manifests import schema
from manifests.attributes import ATTRIBUTES
from manifests.errors import InputError, RunError
from manifests.redaction import redact
from manifests.remote_path import is_url
from manifests.run import RunDirectory
from manifests.shard import AttemptRecord, ShardRow, write_shard
from manifests.shard_journal import JournalContent, ShardJournal, journal_key, read_journal, remove_journal
from manifests.shard_rewrite import ShardChanged, read_shard, replace_shard
from pipeline.cluster import THREADS_VARIABLE
from pipeline.network import load_transfer
from pipeline.plan import ShardSpec
from pipeline.progress import COUNTS, RESUMED, Reporter
from pipeline.quarantine import POISON, SUSPICIOUS_DEATHS, Quarantine, repaint_apart
from pipeline.shard_inputs import Engine, OnAttempt, face_jobs, painting_draws, part_of
from stylize.engine import repaint
from stylize.jobs import Draw, FaceJob, FaceResult
from stylize.retry import Attempt

__all__ = ["Engine", "OnAttempt", "ShardSummary", "Stopped", "repaint_shard", "retry_shard", "run_shard", "stop"]

_SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}

_stopped: set[str] = set()
_journals: dict[str, set[ShardJournal]] = {}  # open in this process, by token


class Stopped(Exception):  # noqa: N818  # not an error: the client asked for it
    """The client has stopped this execution of the build; what is finished of the shard is in its journal."""


@dataclass(frozen=True)
class ShardSummary:
    """What became of one shard.

    Attributes:
        name: of the shard, as in its file names.
        counts: by `pipeline.progress.COUNTS`; accepted, rejected and failed add up to faces.
        errors: how many faces failed, by reason.
        executed: False where the shard had been committed already and nothing was done.
        resumed: faces taken from the journal of executions that had died or been stopped.
        poisoned: image_ids of faces that kill the process that repaints them.
    """

    name: str
    counts: Mapping[str, int]
    errors: Mapping[str, int] = field(default_factory=dict)
    executed: bool = True
    resumed: int = 0
    poisoned: tuple[str, ...] = ()


def run_shard(spec: ShardSpec, engine: Engine | None = None) -> ShardSummary:
    """Repaint the faces of one shard and commit it; harmless when executed twice.

    Faces that an earlier execution has finished are taken from its journal. Whatever is wrong with an image becomes a
    row. What concerns the machine or the whole run is raised.

    Args:
        spec: the task.
        engine: what repaints; tests put a stub here. None is the real one, `repaint_shard`.

    Raises:
        Stopped: the client asked this execution to stop.
        WeightsError: the weights cannot be loaded here, or are not the run's.
        RunError: the run or the images cannot be reached from this machine, or the shard cannot be written.
    """
    run = open_run(spec)
    reporter = Reporter(spec.token, str(spec.name))
    if run.is_committed(spec.name):
        remove_journal(run, spec.name)
        return ShardSummary(str(spec.name), {}, executed=False)
    faces = spec.faces[schema.IMAGE_ID].to_pylist()
    rows, resumed = _repaint(spec, run, faces, engine=engine, reporter=reporter)
    # Hours may have passed. A committed shard must not be written again: on another device its pixels would differ from
    # the digests in the manifest between the two renames. And the folder may hold another run by now.
    check_same(spec, run)
    if run.is_committed(spec.name):
        remove_journal(run, spec.name)
        return ShardSummary(str(spec.name), {}, executed=False)
    with writing(spec, run):
        write_shard(run, spec.name, rows)
    remove_journal(run, spec.name)
    return summarise(spec, rows, resumed)


def retry_shard(spec: ShardSpec, engine: Engine | None = None) -> ShardSummary:
    """Try the failed faces of a committed shard again, and replace the shard if any of them fares differently now.

    Rows that did not fail stay as they are, bit for bit. The counts are those of the faces tried again. Arguments and
    exceptions as for `run_shard`.
    """
    run = open_run(spec)
    reporter = Reporter(spec.token, str(spec.name))
    with writing(spec, run):
        failed = {row.image_id: row for row in read_shard(run, spec.name).rows if may_be_retried(row)}
    if not failed:
        return ShardSummary(str(spec.name), {}, executed=False)
    poison = frozenset(face for face, row in failed.items() if (row.error or "").startswith(POISON))
    retried, resumed = _repaint(spec, run, list(failed), apart=poison, engine=engine, reporter=reporter)
    check_same(spec, run)
    with writing(spec, run):
        _replace_failed(spec, run, {row.image_id: row for row in retried})
    remove_journal(run, spec.name)
    return summarise(spec, retried, resumed)


def repaint_shard(spec: ShardSpec, faces: Sequence[FaceJob], draw: Draw, on_attempt: OnAttempt) -> Iterator[FaceResult]:
    """Repaint faces with the engine of `stylize`, on this worker's device."""
    _set_threads()
    transfer = load_transfer(spec.network, spec.settings)
    return repaint(faces, draw, transfer, batch_size=spec.batch_size, on_attempt=on_attempt)


def stop(token: str) -> None:
    """Ask the tasks of one execution of a build in this process to stop at their next attempt or face.

    Their journals are closed at once: the process may be gone before the next attempt, and that would look like a
    death, and the faces in progress like its cause.
    """
    _stopped.add(token)
    for journal in tuple(_journals.get(token, ())):
        journal.close()


def _repaint(
    spec: ShardSpec,
    run: RunDirectory,
    faces: Sequence[str],
    *,
    apart: frozenset[str] = frozenset(),
    engine: Engine | None,
    reporter: Reporter,
) -> tuple[list[ShardRow], int]:
    """Return the rows of these faces of the shard, in this order, and how many of them were in the journal.

    `apart` are known to kill processes; those that were in progress when earlier executions died are suspected, and
    come last, when everything else is safe.
    """
    check_reachable(spec)
    key = journal_key(run, spec.name, spec.faces[schema.IMAGE_ID].to_pylist())
    found = _journalled(spec, run, key)
    rows = {face: found.rows[face] for face in faces if face in found.rows}
    resumed = len(rows)
    for row in rows.values():
        reporter.count("faces", RESUMED, row.status, *_attempt_counts(len(row.attempts)))
    suspects = apart | {face for face, deaths in found.deaths.items() if deaths >= SUSPICIOUS_DEATHS}
    todo = [face for face in faces if face not in rows]
    at_once = [face for face in todo if face not in suspects]
    alone = [face for face in todo if face in suspects]
    work = engine or repaint_shard
    tried: set[str] = set()

    def on_attempt(face: str, attempt: Attempt) -> None:
        check_wanted(spec)
        reporter.count(*("attempts", "retries") if face in tried else ("attempts",))
        tried.add(face)

    described = Description(spec)
    with _journal(spec, run, key, at_once) as journal:

        def take(results: Iterable[FaceResult]) -> None:
            for result in results:
                check_wanted(spec)
                row = rows[result.key] = described.row(result)
                journal.finish(row)
                reporter.count("faces", result.status)
                with writing(spec, run):
                    journal.check()

        def begin(face: str) -> None:
            with writing(spec, run):
                journal.begin(face)

        if at_once:
            part = part_of(spec, set(at_once))
            take(work(part, face_jobs(part, begin), painting_draws(part), on_attempt))
        if alone:
            with Quarantine(_environment_of_a_child()) as quarantine:
                take(repaint_apart(spec, alone, work, on_attempt, quarantine))
        check_wanted(spec)
        check_reachable(spec)  # a volume that vanished meanwhile has failed faces that are not to blame
    if missing := [face for face in faces if face not in rows]:
        raise RuntimeError(f"the engine gave no result for {len(missing)} faces, first {missing[0]}")
    return [rows[face] for face in faces], resumed


def _replace_failed(spec: ShardSpec, run: RunDirectory, retried: Mapping[str, ShardRow]) -> None:
    """Put rows in the place of failed ones, of what the shard is by now: a curator may have changed others."""
    while True:
        shard = read_shard(run, spec.name)
        rows = tuple(retried.get(row.image_id, row) if may_be_retried(row) else row for row in shard.rows)
        if rows == shard.rows:
            return
        with contextlib.suppress(ShardChanged):  # between these lines; every time, somebody else has got on
            replace_shard(run, shard, rows)
            return


def may_be_retried(row: ShardRow) -> bool:
    """Whether `retry_shard` tries this face again: it failed, and not after a curator had struck a proxy of it."""
    return row.status == schema.FAILED and not any(
        (attempt.error or "").startswith(schema.STRUCK) for attempt in row.attempts
    )


@contextlib.contextmanager
def _journal(spec: ShardSpec, run: RunDirectory, key: str, faces: Sequence[str]) -> Iterator[ShardJournal]:
    """Keep a journal that any end but this process's own closes, a stop included."""
    journal = ShardJournal(run, spec.name, key, faces)
    journals = _journals.setdefault(spec.token, set())
    journals.add(journal)
    try:
        yield journal
    finally:
        journal.close()
        journals.discard(journal)


def _journalled(spec: ShardSpec, run: RunDirectory, key: str) -> JournalContent:
    try:
        return read_journal(run, spec.name, key)
    except OSError as error:
        raise RunError(
            f'the journal of shard {spec.name} in "{redact(run.url)}" cannot be read: {_reason(error)}'
        ) from error


@contextlib.contextmanager
def writing(spec: ShardSpec, run: RunDirectory) -> Iterator[None]:
    """Turn an OSError of writing into a RunError that names the shard and the run."""
    try:
        yield
    except OSError as error:
        raise RunError(f'shard {spec.name} could not be written to "{redact(run.url)}": {_reason(error)}') from error


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def check_wanted(spec: ShardSpec) -> None:
    """Raise `Stopped` if the client has stopped this execution."""
    if spec.token in _stopped:
        raise Stopped(str(spec.name))


def check_same(spec: ShardSpec, run: RunDirectory) -> None:
    """Refuse to write into a folder that has become another run; RunError."""
    if open_run(spec).content != run.content:
        raise RunError(f'"{redact(run.url)}" has become another run while shard {spec.name} was made')


def open_run(spec: ShardSpec) -> RunDirectory:
    """Open the run from this worker; RunError where it cannot be seen."""
    try:
        return RunDirectory.open(spec.root)
    except InputError as error:
        where = f"seen from {socket.gethostname()}; every worker needs OUT under the same path"
        raise RunError(f"{error} ({where})") from error


def check_reachable(spec: ShardSpec) -> None:
    """Refuse to begin, or to blame faces, while faces or paintings cannot be reached from here; RunError."""
    for source in (spec.face_source, spec.painting_source):
        if (reason := source.unreachable()) is not None:
            remedy = f" ({reason})" if is_url(source.root) else "; mount it on every worker"
            raise RunError(f'"{source.root}" cannot be reached from {socket.gethostname()}{remedy}')


class Description:
    """Joins what came out of the engine with the catalogues' rows of the face and the painting."""

    def __init__(self, spec: ShardSpec) -> None:
        self._settings = spec.settings
        self._faces = {face[schema.IMAGE_ID]: face for face in spec.faces.to_pylist()}
        self._paintings = {painting[schema.PAINTING]: painting for painting in spec.paintings.to_pylist()}

    def row(self, result: FaceResult) -> ShardRow:
        """Return the row of one face."""
        face = self._faces[result.key]
        proxy: dict[str, Any] = {}
        if result.status == schema.ACCEPTED:
            last = result.attempts[-1]
            painting = self._paintings[last.painting]
            proxy = {name: painting[name] for name in (schema.PAINTING, schema.ARTIST, schema.GENRE, schema.STYLE)}
            proxy |= {
                "loss": last.loss,
                "image": result.image,
                "width": result.width,
                "height": result.height,
                "image_suffix": _SUFFIXES[self._settings.image_format],
            }
        return ShardRow(
            image_id=face[schema.IMAGE_ID],
            source_id=face[schema.IMAGE_ID],
            split=face[schema.SPLIT],
            identity=face[schema.IDENTITY],
            attributes=tuple(face[name] for name in ATTRIBUTES),
            status=result.status,
            convention=self._settings.convention,
            precision=result.precision,
            attempts=tuple(_attempt_record(attempt) for attempt in result.attempts),
            error=result.error,
            **proxy,
        )


def _attempt_record(attempt: Attempt) -> AttemptRecord:
    return AttemptRecord(
        painting=attempt.painting,
        loss=attempt.loss,
        style_losses=attempt.style_losses,
        content_loss=attempt.content_loss,
        evaluations=attempt.evaluations,
        stop_reason=attempt.stop_reason,
        error=attempt.error,
    )


def _attempt_counts(attempts: int) -> list[str]:
    return ["attempts"] * attempts + ["retries"] * (attempts - 1)


def summarise(spec: ShardSpec, rows: Collection[ShardRow], resumed: int) -> ShardSummary:
    """Count what became of a shard's faces, `resumed` of them by earlier executions."""
    counts = dict.fromkeys(COUNTS, 0)
    errors: dict[str, int] = {}
    for row in rows:
        for name in ("faces", row.status, *_attempt_counts(len(row.attempts))):
            counts[name] += 1
        if row.status == schema.FAILED:
            reason = row.error or "no reason given"
            errors[reason] = errors.get(reason, 0) + 1
    poisoned = tuple(row.image_id for row in rows if (row.error or "").startswith(POISON))
    return ShardSummary(str(spec.name), counts, errors, resumed=resumed, poisoned=poisoned)


def _environment_of_a_child() -> dict[str, str]:
    """Return what a child needs to compute as this worker does, and leave it the device's memory."""
    _set_threads()
    torch.cuda.empty_cache()  # nothing, where this process has not touched CUDA
    return {THREADS_VARIABLE: str(torch.get_num_threads())}


def _set_threads() -> None:
    """Use the threads this worker was given; its environment may have been read too late, or belong to Dask."""
    if threads := os.environ.get(THREADS_VARIABLE):
        torch.set_num_threads(int(threads))
        return
    try:
        torch.set_num_threads(distributed.get_worker().state.nthreads)
    except ValueError:  # not within a worker: whoever calls decides
        return
