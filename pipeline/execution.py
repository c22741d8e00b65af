"""One execution of a build or a redraw: events, progress, cluster, preflight, handing out, and the words at its end."""

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from distributed import Client

from manifests.errors import RunError
from manifests.event_log import EXECUTION_STARTED, EventLog
from manifests.run import RunDirectory
from manifests.shard_name import ShardName
from pipeline.cluster import ask_workers, cluster_client, scheduler_address, stylize_version, worker_infos
from pipeline.config import ExecutionConfig
from pipeline.errors import Interrupted
from pipeline.performance_report import performance_report
from pipeline.preflight import Gate, marked, preflight, requirements
from pipeline.progress import Progress
from pipeline.shard_task import stop
from pipeline.signals import ignore_interrupts
from pipeline.submission import Task, hand_out

STOP_SECONDS = 5.0


@dataclass(frozen=True)
class Extent:
    """How much there is to do, and how much of the whole was done before."""

    faces: int
    shards: int
    faces_done: int
    shards_done: int


@dataclass(frozen=True)
class Job:
    """What an execution is to do, and what it says.

    Attributes:
        run: the run.
        token: hexadecimal, 32 digits, of this execution alone.
        command: as the event log calls it.
        extent: of the work.
        shards: to work on, in this order; at least one.
        task: what is to be done for one of them.
        how_far: says how far the run is, and how to go on: "3 of 4 shards are complete; run the same command again to
            resume".
        if_hopeless: what a user is told to do about a cause that makes every face fail.
        journalled: as for `pipeline.submission.hand_out`.
        announce: adds events to those of the beginning.
    """

    run: RunDirectory
    token: str
    command: str
    extent: Extent
    shards: Sequence[ShardName]
    task: Callable[[ShardName], Task]
    how_far: Callable[[], str]
    if_hopeless: str
    journalled: Callable[[ShardName], int] = lambda name: 0
    announce: Callable[[EventLog], None] = lambda events: None


def execute(
    job: Job,
    execution: ExecutionConfig,
    *,
    quiet: bool = False,
    report: str | os.PathLike[str] | None = None,
    notify: Callable[[str], None] = lambda sentence: None,
) -> Counter[str]:
    """Do the work on a cluster; return how many faces failed, by reason.

    Args:
        job: the work.
        execution: where.
        quiet: show no progress.
        report: HTML file for Dask's performance report.
        notify: is given sentences that the user should see, before and during the work.

    Raises:
        InputError: no cluster can be had as it was asked for.
        RunError: one sentence on why the work has stopped, one on how far it is.
        Interrupted: Ctrl-C or SIGTERM.
    """
    attached = scheduler_address(execution) is not None
    try:
        needs = requirements(job.task(job.shards[0]).spec, attached=attached)
        since = time.monotonic() if attached else None
        with (
            EventLog(job.run, job.token) as events,
            contextlib.closing(_progress(job, quiet, events)) as progress,
            marked(job.run, job.token) as restore,
            cluster_client(execution, notify) as client,
            performance_report(client, report, notify),
        ):
            progress.subscribe(client)
            try:
                preflight(client, needs, since=since, thorough=attached, notify=notify)
                failures = hand_out(
                    client,
                    job.shards,
                    job.task,
                    Gate(needs, attached, restore),
                    progress,
                    journalled=job.journalled,
                    if_hopeless=job.if_hopeless,
                    notify=notify,
                )
            except BaseException:
                ignore_interrupts()
                with contextlib.suppress(Exception):
                    _stop(client, job.token)
                raise
    except KeyboardInterrupt:
        raise Interrupted(f"Stopped: {job.how_far()}.") from None
    except RunError as error:
        raise RunError(f"{error}. {job.how_far()}") from error.__cause__
    if events.problem:
        notify(events.problem)
    return failures


def _stop(client: Client, token: str) -> None:
    ask_workers(client, stop, dict.fromkeys(worker_infos(client), (token,)), STOP_SECONDS)


def _progress(job: Job, quiet: bool, events: EventLog) -> Progress:
    extent = job.extent
    events.append(
        EXECUTION_STARTED,
        command=job.command,
        stylize=stylize_version(),
        faces=extent.faces,
        shards=extent.shards,
        faces_done=extent.faces_done,
        shards_done=extent.shards_done,
    )
    job.announce(events)
    return Progress(
        job.token,
        faces=extent.faces + extent.faces_done,
        shards=extent.shards + extent.shards_done,
        faces_done=extent.faces_done,
        shards_done=extent.shards_done,
        quiet=quiet,
        events=events,
    )
