"""The task of one worker: repaint the faces of one shard and commit it."""

import errno
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import distributed
import torch

from manifests import schema
from manifests.attributes import ATTRIBUTES
from manifests.errors import InputError, RunError
from manifests.image_source import ImageSource
from manifests.run import RunDirectory
from manifests.shard import AttemptRecord, ShardRow, write_shard
from pipeline.cluster import THREADS_VARIABLE
from pipeline.network import load_transfer
from pipeline.plan import ShardSpec
from pipeline.progress import COUNTS, Reporter
from stylize.engine import repaint
from stylize.errors import ImageError
from stylize.jobs import Draw, FaceJob, FaceResult, PaintingDraw
from stylize.retry import Attempt

OnAttempt = Callable[[str, Attempt], None]
Engine = Callable[[ShardSpec, Sequence[FaceJob], Draw, OnAttempt], Iterable[FaceResult]]

# These say that the machine or its storage is unwell, not that one image is: rows must not blame the image.
_MACHINE_ERRORS = frozenset(
    {
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOTCONN,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.EHOSTDOWN,
    }
)
_SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}

_stopped: set[str] = set()


class Stopped(Exception):  # noqa: N818  # not an error: the client asked for it
    """The client has stopped this execution of the build; nothing of the shard was written."""


@dataclass(frozen=True)
class ShardSummary:
    """What became of one shard.

    Attributes:
        name: of the shard, as in its file names.
        counts: by `pipeline.progress.COUNTS`; accepted, rejected and failed add up to faces.
        errors: how many faces failed, by reason.
        executed: False where the shard had been committed already and nothing was done.
    """

    name: str
    counts: Mapping[str, int]
    errors: Mapping[str, int] = field(default_factory=dict)
    executed: bool = True


def run_shard(spec: ShardSpec, engine: Engine | None = None) -> ShardSummary:
    """Repaint the faces of one shard and commit it; harmless when executed twice.

    Whatever is wrong with an image becomes a row. What concerns the machine or the whole run is raised.

    Args:
        spec: the task.
        engine: what repaints; tests put a stub here. None is the real one, `repaint_shard`.

    Raises:
        Stopped: the client asked this execution to stop.
        WeightsError: the weights cannot be loaded here, or are not the run's.
        RunError: the run or the images cannot be reached from this machine, or the shard cannot be written.
    """
    run = _open(spec)
    reporter = Reporter(spec.token, str(spec.name))
    if spec.name in run.committed():
        return ShardSummary(str(spec.name), {}, executed=False)
    _check_reachable(spec)

    tried: set[str] = set()

    def on_attempt(face: str, attempt: Attempt) -> None:
        _check_wanted(spec)
        reporter.count(*("attempts", "retries") if face in tried else ("attempts",))
        tried.add(face)

    results: dict[str, FaceResult] = {}
    for result in (engine or repaint_shard)(spec, _jobs(spec), _draw(spec), on_attempt):
        _check_wanted(spec)
        results[result.key] = result
        reporter.count("faces", result.status)
    _check_wanted(spec)
    _check_reachable(spec)  # a volume that vanished meanwhile has failed faces that are not to blame
    rows = _rows(spec, results)
    # Hours may have passed. A committed shard must not be written again: on another device its pixels would differ from
    # the digests in the manifest between the two renames. And the folder may hold another run by now.
    if _open(spec).content != run.content:
        raise RunError(f'"{run.url}" has become another run while shard {spec.name} was made')
    if spec.name in run.committed():
        return ShardSummary(str(spec.name), {}, executed=False)
    try:
        write_shard(run, spec.name, rows)
    except OSError as error:
        raise RunError(f'shard {spec.name} could not be written to "{run.url}": {error.strerror or error}') from error
    return _summary(spec, results.values())


def repaint_shard(spec: ShardSpec, faces: Sequence[FaceJob], draw: Draw, on_attempt: OnAttempt) -> Iterator[FaceResult]:
    """Repaint faces with the engine of `stylize`, on this worker's device."""
    _set_threads()
    transfer = load_transfer(spec.network, spec.settings)
    return repaint(faces, draw, transfer, batch_size=spec.batch_size, on_attempt=on_attempt)


def stop(token: str) -> None:
    """Ask the tasks of one execution of a build in this process to stop at their next attempt or face."""
    _stopped.add(token)


def _check_wanted(spec: ShardSpec) -> None:
    if spec.token in _stopped:
        raise Stopped(str(spec.name))


def _open(spec: ShardSpec) -> RunDirectory:
    try:
        return RunDirectory.open(spec.root)
    except InputError as error:
        where = f"seen from {socket.gethostname()}; every worker needs OUT under the same path"
        raise RunError(f"{error} ({where})") from error


def _check_reachable(spec: ShardSpec) -> None:
    for source in (spec.face_source, spec.painting_source):
        if not os.path.exists(source.root):
            raise RunError(f'"{source.root}" cannot be reached from {socket.gethostname()}; mount it on every worker')


def _read(source: ImageSource, locator: str) -> bytes:
    """Read one image; whatever is wrong with it alone becomes an `ImageError`, the kind the engine knows."""
    try:
        return source.read(locator)
    except InputError as error:
        raise ImageError(str(error)) from error
    except OSError as error:
        if error.errno in _MACHINE_ERRORS:
            raise RunError(f'reading "{locator}" from "{source.root}" failed ({error.strerror})') from error
        raise ImageError(f'"{locator}" cannot be read ({error.strerror or error})') from error


def _jobs(spec: ShardSpec) -> list[FaceJob]:
    faces = zip(spec.faces[schema.IMAGE_ID].to_pylist(), spec.faces["locator"].to_pylist(), strict=True)
    return [
        FaceJob(image_id, lambda locator=locator: _read(spec.face_source, locator))  # type: ignore[misc]
        for image_id, locator in faces
    ]


def _draw(spec: ShardSpec) -> Draw:
    ids, locators = spec.paintings[schema.PAINTING].to_pylist(), spec.paintings["locator"].to_pylist()
    order = dict(zip(spec.faces[schema.IMAGE_ID].to_pylist(), spec.draws.tolist(), strict=True))

    def draw(face: str, number: int) -> PaintingDraw | None:
        row = order[face]
        if number >= len(row):
            return None
        index = row[number]
        return PaintingDraw(ids[index], lambda: _read(spec.painting_source, locators[index]))

    return draw


def _rows(spec: ShardSpec, results: Mapping[str, FaceResult]) -> list[ShardRow]:
    """Join faces, paintings and results; rows in the order of the faces, whatever order the engine finished in."""
    paintings = {row[schema.PAINTING]: row for row in spec.paintings.to_pylist()}
    faces = spec.faces.to_pylist()
    if missing := [face[schema.IMAGE_ID] for face in faces if face[schema.IMAGE_ID] not in results]:
        raise RuntimeError(f"the engine gave no result for {len(missing)} faces, first {missing[0]}")
    return [_row(spec, face, results[face[schema.IMAGE_ID]], paintings) for face in faces]


def _row(
    spec: ShardSpec, face: Mapping[str, Any], result: FaceResult, paintings: Mapping[str, Mapping[str, Any]]
) -> ShardRow:
    proxy: dict[str, Any] = {}
    if result.status == schema.ACCEPTED:
        last = result.attempts[-1]
        painting = paintings[last.painting]
        proxy = {name: painting[name] for name in (schema.PAINTING, schema.ARTIST, schema.GENRE, schema.STYLE)}
        proxy |= {
            "loss": last.loss,
            "image": result.image,
            "width": result.width,
            "height": result.height,
            "image_suffix": _SUFFIXES[spec.settings.image_format],
        }
    return ShardRow(
        image_id=face[schema.IMAGE_ID],
        source_id=face[schema.IMAGE_ID],
        split=face[schema.SPLIT],
        identity=face[schema.IDENTITY],
        attributes=tuple(face[name] for name in ATTRIBUTES),
        status=result.status,
        convention=spec.settings.convention,
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


def _summary(spec: ShardSpec, results: Iterable[FaceResult]) -> ShardSummary:
    counts = dict.fromkeys(COUNTS, 0)
    errors: dict[str, int] = {}
    for result in results:
        counts["faces"] += 1
        counts[result.status] += 1
        counts["attempts"] += len(result.attempts)
        counts["retries"] += max(0, len(result.attempts) - 1)
        if result.status == schema.FAILED:
            reason = result.error or "no reason given"
            errors[reason] = errors.get(reason, 0) + 1
    return ShardSummary(str(spec.name), counts, errors)


def _set_threads() -> None:
    """Use the threads this worker was given; its environment may have been read too late, or belong to Dask."""
    if threads := os.environ.get(THREADS_VARIABLE):
        torch.set_num_threads(int(threads))
        return
    try:
        torch.set_num_threads(distributed.get_worker().state.nthreads)
    except ValueError:  # not within a worker: whoever calls decides
        return
