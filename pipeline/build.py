"""Build a data set of artistic proxies: plan, check, hand out shards, commit, finish; resume is the same call again."""

import contextlib
import errno
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from manifests.dataset_card import card
from manifests.errors import InputError, RunError
from manifests.faces import read_faces
from manifests.failed_faces import failed_faces
from manifests.paintings import PaintingCatalogue, read_paintings
from manifests.redaction import redact
from manifests.remote_path import lies_within
from manifests.run import CARD_FILE, RunDirectory
from manifests.shard_journal import journal_size
from manifests.shard_name import ShardName
from manifests.status import RunStatus, read_status
from pipeline.cluster import cluster_client, scheduler_address
from pipeline.config import BuildConfig, ExecutionConfig, refuse_changes
from pipeline.errors import Interrupted
from pipeline.estimate import Estimate, estimate
from pipeline.execution import Extent, Job, execute
from pipeline.gpus import visible_gpus
from pipeline.network import NetworkReference, reference
from pipeline.pairing import draws
from pipeline.performance_report import check_performance_report
from pipeline.plan import Plan, make_plan
from pipeline.preflight import check_versions
from pipeline.run_document import input_paths, plan_document, run_document
from pipeline.shard_task import Engine, retry_shard, run_shard
from pipeline.signals import terminate_like_interrupt
from pipeline.submission import Task
from stylize.decode import decode_image
from stylize.errors import ImageError

PAINTING_SAMPLE = 16


@dataclass(frozen=True)
class BuildSummary:
    """A finished build.

    Attributes:
        status: of the whole run: faces by split and status, attempts, loss quantiles.
        shards_done: committed by this execution.
        shards_skipped: committed before; those whose failed faces were tried again included.
        problems: sentences about disagreements in the inputs, and what was filled in.
        retried: failed faces of committed shards that were tried again.
    """

    status: RunStatus
    shards_done: int
    shards_skipped: int
    problems: tuple[str, ...]
    retried: int = 0


def build(
    out: str | os.PathLike[str],
    faces: str | os.PathLike[str],
    paintings: str | os.PathLike[str],
    config: BuildConfig | None = None,
    execution: ExecutionConfig | None = None,
    *,
    weights: str = "imagenet",
    paintings_csv: str | os.PathLike[str] | None = None,
    strict: bool = False,
    retry_failed: bool = False,
    quiet: bool = False,
    notify: Callable[[str], None] = lambda sentence: None,
    report: str | os.PathLike[str] | None = None,
    engine: Engine | None = None,
) -> BuildSummary:
    """Build the data set, or what is missing of it.

    Args:
        out: folder or fsspec URL of the run; new, empty, or holding the same run.
        faces: faces, as `manifests.faces.read_faces` takes them.
        paintings: paintings, as `manifests.paintings.read_paintings` takes them.
        config: what decides the result.
        execution: where and how fast.
        weights: as `stylize.weights.load_weights` takes them.
        paintings_csv: labels of the paintings.
        strict: make disagreements in the inputs errors.
        retry_failed: try the failed faces of committed shards again, too (`pipeline.shard_task.retry_shard`). As ever,
            the inputs must be the run's: a file whose length has changed makes another run.
        quiet: show no progress.
        notify: called with sentences the user should see, before and during the work.
        report: HTML file for Dask's performance report.
        engine: for tests, see `pipeline.shard_task.run_shard`.

    Raises:
        InputError: wrong input or usage, settings other than the run's included.
        WeightsError: the weights cannot be loaded.
        RunError: the run failed although the input was right; it can be resumed.
        Interrupted: Ctrl-C or SIGTERM; it can be resumed.
    """
    config, execution = config or BuildConfig(), execution or ExecutionConfig()
    scheduler_address(execution)  # a malformed one is told before the folder is made
    _refuse_impossible_precision(config, execution)
    if report is not None:
        check_performance_report(report)
    with terminate_like_interrupt():
        try:
            existing, plan, problems = _prepare(
                out, faces, paintings, config, paintings_csv=paintings_csv, strict=strict
            )
            for problem in problems:
                notify(problem)
            _check_paintings(plan.paintings, config.seed)
            if existing is None and scheduler_address(execution) is not None:
                # Before the network is measured, which takes a while, and a folder claimed in vain.
                with cluster_client(execution, notify) as client:
                    check_versions(client)
            network = reference(weights, config.seed, config.transfer.convention, _recorded(existing))
            paths = input_paths(faces=faces, paintings=paintings, paintings_csv=paintings_csv, weights=network.source)
            run = _open(out, existing, run_document(plan, network, paths))
        except KeyboardInterrupt:
            raise Interrupted("Stopped before the work began; run the same command again.") from None
        committed = run.committed()
        missing = [name for name in plan.shards if name not in committed]
        failed = failed_faces(run, [name for name in plan.shards if name in committed]) if retry_failed else {}
        if missing or failed:
            work = _Work(run, plan, network, missing, failed)
            execute(_job(work, execution.batch_size, engine), execution, quiet=quiet, report=report, notify=notify)
        return _finish(run, len(missing), len(plan.shards) - len(missing), problems, sum(failed.values()))


def dry_run(
    out: str | os.PathLike[str],
    faces: str | os.PathLike[str],
    paintings: str | os.PathLike[str],
    config: BuildConfig | None = None,
    *,
    paintings_csv: str | os.PathLike[str] | None = None,
    strict: bool = False,
    notify: Callable[[str], None] = lambda sentence: None,
) -> Estimate:
    """Plan a build and estimate its cost; writes nothing, loads no weights, starts no worker.

    Arguments as for `build`; `notify` is told the disagreements in the inputs.

    Raises:
        InputError: as `build`.
    """
    config = config or BuildConfig()
    existing, plan, problems = _prepare(out, faces, paintings, config, paintings_csv=paintings_csv, strict=strict)
    for problem in problems:
        notify(problem)
    if existing is None:
        return estimate(plan)
    document = plan_document(plan)
    refuse_changes(existing.content, {**existing.content, **document}, existing.url)
    done = [name for name in existing.committed() if name in plan.shards]
    return estimate(plan, len(done), sum(len(plan.shards[name]) for name in done))


def _prepare(
    out: str | os.PathLike[str],
    faces: str | os.PathLike[str],
    paintings: str | os.PathLike[str],
    config: BuildConfig,
    *,
    paintings_csv: str | os.PathLike[str] | None,
    strict: bool,
) -> tuple[RunDirectory | None, Plan, tuple[str, ...]]:
    _refuse_out_within(out, faces, paintings)
    existing = RunDirectory.find(out)  # first: refusing a foreign folder should not take a catalogue's time
    face_catalogue = read_faces(faces, strict=strict)
    painting_catalogue = read_paintings(paintings, csv=paintings_csv, strict=strict)
    problems = (*face_catalogue.problems, *face_catalogue.notes, *painting_catalogue.problems)
    return existing, make_plan(face_catalogue, painting_catalogue, config), problems


def _refuse_out_within(out: str | os.PathLike[str], *inputs: str | os.PathLike[str]) -> None:
    """Refuse a run inside its own input: its shards would be taken for a Parquet copy of it the next time."""
    for place in inputs:
        if lies_within(out, place):
            inner, outer = (redact(os.fspath(path)) for path in (out, place))
            raise InputError(f'"{inner}" lies within the input "{outer}"; choose a folder outside of it')


def _refuse_impossible_precision(config: BuildConfig, execution: ExecutionConfig) -> None:
    """A local cluster's devices are known here; only a running one's are its workers' to tell."""
    if config.transfer.precision == "tf32" and scheduler_address(execution) is None and not visible_gpus():
        raise InputError("precision tf32 needs a CUDA device, and there is none here; use fp32, bf16 or auto")


def _check_paintings(paintings: PaintingCatalogue, seed: int) -> None:
    """Refuse a catalogue of which not one sampled painting can be decoded, before any GPU time is spent on it."""
    sample = draws(seed, "preflight", paintings.table.num_rows, PAINTING_SAMPLE)
    first = ""
    for index in sample:
        try:
            decode_image(paintings.source.read(paintings.table["locator"][index].as_py()))
            return
        except (ImageError, InputError, OSError) as error:
            if isinstance(error, OSError) and error.errno == errno.EIO:  # the storage is unwell, not one painting
                raise RunError(f'the paintings in "{paintings.source.root}" cannot be read: {error}') from error
            first = first or f"{paintings.table['painting'][index].as_py()}: {error}"
    raise InputError(
        f'none of the first {len(sample)} paintings sampled from "{paintings.source.root}" could be read ({first})'
    )


def _recorded(run: RunDirectory | None) -> tuple[str, tuple[float, ...] | None] | None:
    if run is None:
        return None
    scales = run.content.get("objective", {}).get("scales")
    return run.content.get("weights", {}).get("digest", ""), None if scales is None else tuple(scales)


def _open(out: str | os.PathLike[str], existing: RunDirectory | None, document: Mapping[str, Any]) -> RunDirectory:
    run = existing or RunDirectory.create(out, document)
    refuse_changes(run.content, document, run.url)
    return run


@dataclass(frozen=True, eq=False)
class _Work:
    """What an execution of the build has to do: shards that are missing, and failed faces of others by shard."""

    run: RunDirectory
    plan: Plan
    network: NetworkReference
    missing: Sequence[ShardName]
    failed: Mapping[ShardName, int]

    @property
    def shards(self) -> list[ShardName]:
        return [*self.missing, *self.failed]

    @property
    def faces(self) -> int:
        return sum(len(self.plan.shards[name]) for name in self.missing) + sum(self.failed.values())


def _job(work: _Work, batch_size: int | None, engine: Engine | None) -> Job:
    run, plan, token = work.run, work.plan, uuid.uuid4().hex
    faces, shards = work.faces, len(work.shards)

    def task(name: ShardName) -> Task:
        spec = plan.spec(name, work.network, run.url, batch_size, token)
        return Task(retry_shard if name in work.failed else run_shard, spec, (engine,))

    return Job(
        run=run,
        token=token,
        command="build --retry-failed" if work.failed else "build",
        extent=Extent(faces, shards, plan.face_count - faces, len(plan.shards) - shards),
        shards=work.shards,
        task=task,
        how_far=lambda: f"{_how_far(run, plan)}; run the same command again to resume",
        if_hopeless="they are committed as failed: mend the cause, and build with --retry-failed",
        journalled=lambda name: journal_size(run, name),
    )


def _finish(run: RunDirectory, done: int, skipped: int, problems: tuple[str, ...], retried: int) -> BuildSummary:
    status = read_status(run)
    if not status.complete:
        reason = status.unreadable[0] if status.unreadable else "a shard is missing"
        raise RunError(f'"{redact(run.url)}" is not complete: {reason}')
    run.publish(CARD_FILE, card(run.content, status.faces).encode())
    with contextlib.suppress(OSError):  # a second execution of some shard may still be writing its journal
        run.finish()
    total = sum(sum(counts.values()) for counts in status.faces.values())
    if status.total("failed") == total:
        raise RunError(
            f'all {total} faces failed; the column "error" of {redact(run.url)}/manifest says why. '
            "Put it right and build again with --retry-failed, or into another directory if files had to be changed"
        )
    return BuildSummary(status, done, skipped, problems, retried)


def _how_far(run: RunDirectory, plan: Plan) -> str:
    total = len(plan.shards)
    done = len(plan.shards.keys() & run.committed())
    return f"{done} of {total} shard{'s are' if total != 1 else ' is'} complete"
