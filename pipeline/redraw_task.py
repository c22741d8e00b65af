"""The task of one worker in a redraw: repaint some faces of a committed shard with their next paintings, replace it."""

import contextlib
import dataclasses
from collections.abc import Mapping

from manifests.schema import ACCEPTED, FAILED, STRUCK
from manifests.shard import AttemptRecord, ShardRow
from manifests.shard_rewrite import ShardChanged, read_shard, replace_shard
from pipeline.plan import ShardSpec
from pipeline.progress import Reporter
from pipeline.redraw_record import Strike
from pipeline.shard_inputs import Engine, face_jobs, painting_draws, part_of
from pipeline.shard_task import (
    Description,
    ShardSummary,
    check_reachable,
    check_same,
    check_wanted,
    open_run,
    repaint_shard,
    summarise,
    writing,
)
from stylize.jobs import Draw, PaintingDraw
from stylize.retry import Attempt


def redraw_shard(spec: ShardSpec, strikes: Mapping[str, Strike], engine: Engine | None = None) -> ShardSummary:
    """Repaint the struck faces of one shard, each from its next painting on, and replace the shard.

    Harmless when executed twice: faces that have been redrawn stay as they are. So do those that fail now: a poor proxy
    is better than none because of a file that could not be read.

    Args:
        spec: the faces to redraw, of one shard; `draws` begins with the number of their next draw.
        strikes: by image_id.
        engine: as for `pipeline.shard_task.run_shard`, whose exceptions are raised here, too.
    """
    run = open_run(spec)
    reporter = Reporter(spec.token, str(spec.name))
    with writing(spec, run):
        before = read_shard(run, spec.name)
    left = {row.image_id for row in before.rows if _is_struck(row, strikes)}
    if not left:
        return ShardSummary(str(spec.name), {}, executed=False)
    check_reachable(spec)

    def on_attempt(face: str, attempt: Attempt) -> None:
        check_wanted(spec)
        reporter.count("attempts")

    part = part_of(spec, left)
    described = Description(part)
    now: dict[str, ShardRow] = {}
    work = engine or repaint_shard
    for result in work(part, face_jobs(part, lambda face: None), _draw(part, strikes), on_attempt):
        check_wanted(spec)
        now[result.key] = described.row(result)
        reporter.count("faces", result.status)
    if missing := left - now.keys():
        raise RuntimeError(f"the engine gave no result for {len(missing)} faces, first {min(missing)}")
    check_reachable(spec)  # a volume that vanished meanwhile has failed faces that are not to blame
    check_same(spec, run)
    redrawn = {face: row for face, row in now.items() if row.status != FAILED}
    while redrawn:
        with writing(spec, run), contextlib.suppress(ShardChanged):  # every time, somebody else has got on
            shard = read_shard(run, spec.name)
            replace_shard(run, shard, [_redrawn(row, redrawn, strikes) for row in shard.rows])
            break
    return summarise(part, now.values(), 0)


def _is_struck(row: ShardRow, strikes: Mapping[str, Strike]) -> bool:
    """Whether a row is still as it was when its proxy was struck."""
    strike = strikes.get(row.image_id)
    return strike is not None and row.status == ACCEPTED and len(row.attempts) == strike.attempts


def _redrawn(row: ShardRow, redrawn: Mapping[str, ShardRow], strikes: Mapping[str, Strike]) -> ShardRow:
    now = redrawn.get(row.image_id)
    if now is None or not _is_struck(row, strikes):
        return row
    *earlier, last = row.attempts
    struck: AttemptRecord = dataclasses.replace(last, error=STRUCK + strikes[row.image_id].reason)
    return dataclasses.replace(now, attempts=(*earlier, struck, *now.attempts))


def _draw(spec: ShardSpec, strikes: Mapping[str, Strike]) -> Draw:
    """Return the paintings of the task, for every face as many as are left for it."""
    drawn = painting_draws(spec)

    def draw(face: str, number: int) -> PaintingDraw | None:
        return drawn(face, number) if number < strikes[face].paintings_left else None

    return draw
