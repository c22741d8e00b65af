"""Curation: proxies that somebody has looked at and struck are made again, each from its face's next painting.

Cornia et al. (TOMM 2022, Sec. 5) looked at their proxies and redid the poor ones by hand. A redraw begins the retry
rule afresh: from the painting after the last one tried, by the same pairing, at most `max_attempts` paintings; a face
of which none comes under the threshold ends as rejected, since its old proxy was not wanted either. The struck attempt
stays in the manifest, with "struck: REASON" as its error.

What a redraw is about is written to OUT/journal/redraw.json before it begins: the faces, the reasons, and how many
attempts each face had. A face that has more by now is done. So the same call after an interruption goes on where the
first one stopped, whereas after a completed one (its record is gone) it strikes the new proxies, too.
"""

import contextlib
import dataclasses
import os
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests import schema
from manifests.dataset_card import card
from manifests.errors import InputError, RunError
from manifests.event_log import REDRAW, EventLog
from manifests.face_standings import face_standings
from manifests.run import CARD_FILE, RunDirectory
from manifests.schema import ACCEPTED, REJECTED
from manifests.shard_name import ShardName
from manifests.status import RunStatus, read_status
from pipeline.cluster import scheduler_address
from pipeline.config import ExecutionConfig
from pipeline.errors import Interrupted
from pipeline.execution import Extent, Job, execute
from pipeline.network import NetworkReference, reference
from pipeline.pairing import draws
from pipeline.performance_report import check_performance_report
from pipeline.plan import ShardSpec
from pipeline.redraw_list import read_redraw_list
from pipeline.redraw_record import Strike, read_record, remove_record, write_record
from pipeline.redraw_task import redraw_shard
from pipeline.run_inputs import Inputs, open_inputs
from pipeline.shard_inputs import Engine
from pipeline.signals import terminate_like_interrupt
from pipeline.submission import Task
from pipeline.transfer_settings import from_config
from stylize.settings import TransferSettings

_AGAIN = "run the same command again"


@dataclass(frozen=True)
class RedrawSummary:
    """A finished redraw.

    Attributes:
        accepted: faces that have a new proxy.
        rejected: faces of which no painting came under the threshold this time, and which have no proxy any more.
        shards: how many were rewritten, an interrupted beginning included.
        status: of the whole run.
    """

    accepted: int
    rejected: int
    shards: int
    status: RunStatus

    def lines(self) -> list[str]:
        """Say what was done, one sentence to a line."""
        faces = self.accepted + self.rejected
        return [
            f"redrawn: {faces:,} {_plural(faces, 'face')} in {self.shards:,} {_plural(self.shards, 'shard')}, "
            f"accepted {self.accepted:,}, rejected {self.rejected:,}"
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return dataclasses.asdict(self) | {"status": self.status.as_dict()}


@dataclass(frozen=True)
class _Work:
    """What is to be done, and with what."""

    run: RunDirectory
    strikes: Mapping[str, Strike]
    shards: Mapping[ShardName, list[str]]  # with the faces to redraw, done ones included
    left: list[ShardName]
    inputs: Inputs
    settings: TransferSettings
    network: NetworkReference


def redraw(
    out: str | os.PathLike[str],
    ids: str | os.PathLike[str],
    *,
    reason: str | None = None,
    faces: str | os.PathLike[str] | None = None,
    paintings: str | os.PathLike[str] | None = None,
    paintings_csv: str | os.PathLike[str] | None = None,
    weights: str | None = None,
    execution: ExecutionConfig | None = None,
    quiet: bool = False,
    notify: Callable[[str], None] = lambda sentence: None,
    report: str | os.PathLike[str] | None = None,
    engine: Engine | None = None,
) -> RedrawSummary:
    """Strike the proxies of some faces, and make them again from the next paintings.

    Settings, seed and pairing are the run's. Only the shards with such faces are rewritten, each as one
    (`manifests.shard_rewrite`), and the dataset card. Stopped in between, it goes on when called again with the same
    faces and reasons; called for others, it leaves the rest of the interrupted one undone.

    Args:
        out: folder or URL of a complete run.
        ids: file with the faces, as `pipeline.redraw_list.read_redraw_list` takes it.
        reason: why, for the faces that have none of their own in the file.
        faces, paintings, paintings_csv, weights: where the inputs are now, if not where run.json says.
        execution: where and how fast.
        quiet: show no progress.
        notify: called with sentences the user should see, before and during the work.
        report: HTML file for Dask's performance report.
        engine: for tests, see `pipeline.shard_task.run_shard`.

    Raises:
        InputError: no run, an unfinished one, other inputs than the run's, a wrong list, faces that are not in the run
            or have no proxy, or have been tried with every painting there is. Nothing is changed.
        WeightsError: the weights cannot be loaded.
        RunError: the work failed although the input was right, for some faces or altogether; those keep their proxies.
        Interrupted: Ctrl-C or SIGTERM.
    """
    execution = execution or ExecutionConfig()
    scheduler_address(execution)  # a malformed one is told before the inputs are read
    if report is not None:
        check_performance_report(report)
    reasons = read_redraw_list(ids, reason)
    with terminate_like_interrupt():
        try:
            run = RunDirectory.open(out)
            work = _prepare(run, reasons, notify, weights, lambda: open_inputs(run, faces, paintings, paintings_csv))
        except KeyboardInterrupt:
            raise Interrupted(f"Stopped before the work began; {_AGAIN}.") from None
        errors: Counter[str] = Counter()
        try:
            if work.left:
                job = _job(work, execution.batch_size, engine)
                errors = execute(job, execution, quiet=quiet, report=report, notify=notify)
        except BaseException:
            with contextlib.suppress(Exception):
                _write_card(run)
            raise
        return _finish(work, errors)


def _prepare(
    run: RunDirectory,
    reasons: Mapping[str, str],
    notify: Callable[[str], None],
    weights: str | None,
    read_inputs: Callable[[], Inputs],
) -> _Work:
    planned, committed = run.planned(), run.committed()
    if missing := len(planned.keys() - committed):
        raise InputError(f'"{run.url}" is not complete: {missing} of {len(planned)} shards are missing; build it first')
    standings = face_standings(run, reasons)
    _refuse("of the faces to redraw, {} not in the run", [face for face in reasons if face not in standings])
    recorded = read_record(run)
    resumed = recorded is not None and {face: strike.reason for face, strike in recorded.items()} == dict(reasons)
    if recorded is not None and not resumed:
        notify(
            f"an earlier redraw of {len(recorded):,} {_plural(len(recorded), 'face')} was interrupted and is given up: "
            "what it has redrawn stays, and what it has not keeps its old proxy"
        )
    before = {
        face: recorded[face].attempts if recorded is not None and resumed else standings[face].attempts
        for face in reasons
    }
    left = [face for face in reasons if standings[face].attempts == before[face]]
    _refuse(
        "of the faces to redraw, {} without a proxy in the run", [f for f in left if standings[f].status != ACCEPTED]
    )
    inputs = read_inputs()
    count = inputs.paintings.table.num_rows
    strikes = {face: Strike(why, before[face], count - before[face]) for face, why in reasons.items()}
    _refuse(
        f"there is no next painting: of the faces to redraw, {{}} tried with all {count} paintings already",
        [face for face in left if strikes[face].paintings_left < 1],
    )
    settings = from_config(run.content["config"])
    network = _network(run, weights, settings)
    if not resumed:
        write_record(run, strikes)
    shards: dict[ShardName, list[str]] = {}
    for name in planned:  # in the order of the run, and faces in the order of the list
        if chosen := [face for face in reasons if standings[face].shard == name]:
            shards[name] = chosen
    unfinished = {standings[face].shard for face in left}
    return _Work(run, strikes, shards, [name for name in shards if name in unfinished], inputs, settings, network)


def _job(work: _Work, batch_size: int | None, engine: Engine | None) -> Job:
    token = uuid.uuid4().hex
    done = sum(len(faces) for name, faces in work.shards.items() if name not in work.left)

    def task(name: ShardName) -> Task:
        strikes = {face: work.strikes[face] for face in work.shards[name]}
        return Task(redraw_shard, _spec(work, name, batch_size, token), (strikes, engine))

    def announce(events: EventLog) -> None:
        for name in work.left:
            reasons = {work.strikes[face].reason for face in work.shards[name]}
            why = {"reason": reasons.pop()} if len(reasons) == 1 else {}
            events.append(REDRAW, shard=str(name), faces=len(work.shards[name]), **why)

    return Job(
        run=work.run,
        token=token,
        command="redraw",
        extent=Extent(len(work.strikes) - done, len(work.left), done, len(work.shards) - len(work.left)),
        shards=work.left,
        task=task,
        how_far=lambda: f"{_how_far(work)}; {_AGAIN} to go on",
        if_hopeless="they keep their old proxies: mend the cause first",
        announce=announce,
    )


def _spec(work: _Work, name: ShardName, batch_size: int | None, token: str) -> ShardSpec:
    chosen = work.shards[name]
    faces, paintings = work.inputs.faces, work.inputs.paintings
    catalogue = paintings.table.num_rows
    width = 2 * work.settings.max_attempts  # as for a build
    seed = work.run.content["config"]["seed"]
    drawn = np.zeros((len(chosen), width), np.int64)  # where the catalogue ends earlier, `paintings_left` says so
    for place, face in enumerate(chosen):
        start = work.strikes[face].attempts
        new = draws(seed, face, catalogue, start + width)[start:]
        drawn[place, : len(new)] = new
    needed, local = np.unique(drawn, return_inverse=True)
    return ShardSpec(
        name=name,
        faces=faces.table.take(pc.index_in(pa.array(chosen), value_set=faces.table[schema.IMAGE_ID].combine_chunks())),
        paintings=paintings.table.take(pa.array(needed)),
        draws=local.reshape(drawn.shape).astype(np.int32),
        face_source=faces.source,
        painting_source=paintings.source,
        settings=work.settings,
        network=work.network,
        root=work.run.url,
        batch_size=batch_size,
        token=token,
    )


def _finish(work: _Work, errors: Counter[str]) -> RedrawSummary:
    run = work.run
    standings = face_standings(run, work.strikes)
    redrawn = [face for face, strike in work.strikes.items() if standings[face].attempts != strike.attempts]
    status = _write_card(run)
    if failed := len(work.strikes) - len(redrawn):
        why = f", most often because: {errors.most_common(1)[0][0]}" if errors else ""
        raise RunError(
            f"{failed} of {len(work.strikes)} {_plural(len(work.strikes), 'face')} could not be repainted and "
            f"{_plural(failed, 'keeps its', 'keep their')} old {_plural(failed, 'proxy', 'proxies')}{why}. "
            f"Mend the cause, and {_AGAIN} for the rest"
        )
    remove_record(run)
    with contextlib.suppress(OSError):  # a second execution of some shard may still be at work
        run.finish()
    counts = Counter(standings[face].status for face in redrawn)
    return RedrawSummary(counts[ACCEPTED], counts[REJECTED], len(work.shards), status)


def _write_card(run: RunDirectory) -> RunStatus:
    status = read_status(run)
    run.publish(CARD_FILE, card(run.content, status.faces).encode())
    return status


def _network(run: RunDirectory, given: str | None, settings: TransferSettings) -> NetworkReference:
    recorded = run.content["weights"]
    scales = run.content["objective"]["scales"]
    source = given or run.content.get("paths", {}).get("weights") or recorded["source"]
    network = reference(
        source,
        recorded["seed"],
        settings.convention,
        (recorded["digest"], None if scales is None else tuple(scales)),
    )
    if network.digest != recorded["digest"]:
        raise InputError(f'weights "{source}" are not those of this run; give its file with --weights')
    return network


def _how_far(work: _Work) -> str:
    standings = face_standings(work.run, work.strikes)
    done = sum(standings[face].attempts != strike.attempts for face, strike in work.strikes.items())
    return f"{done} of {len(work.strikes)} faces are redrawn"


def _refuse(sentence: str, faces: list[str]) -> None:
    if faces:
        first = ", ".join(faces[:3]) + (", …" if len(faces) > 3 else "")
        raise InputError(sentence.format(f"{len(faces):,} {_plural(len(faces), 'is', 'are')}") + f": {first}")


def _plural(count: int, one: str, many: str | None = None) -> str:
    return one if count == 1 else many or f"{one}s"
