"""The summary of a run, `stylize status --html`: one HTML file that needs nothing else."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

import numpy as np
from fsspec.implementations.local import LocalFileSystem
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from manifests.commit import publish
from manifests.errors import RunError
from manifests.event_log import POISON, REDRAW, SHARD_COMMITTED, SHARD_RETRIED, read_events, without_places
from manifests.run import RunDirectory
from manifests.schema import STATUSES
from manifests.status import RunStatus, read_status
from pipeline.run_history import Execution, Throughput, read_executions, throughput
from pipeline.run_plots import RunPlot, plot_attempts, plot_losses, plot_throughput, rate_unit
from pipeline.run_tallies import UNKNOWN_STYLE, RunTallies, Tally, tally_run

TEMPLATE_FILE: Final = "run_summary.html.jinja"
WORST_PAINTINGS: Final = 15
REASONS: Final = 10

_NOTHING = "\N{EN DASH}"


@dataclass(frozen=True, eq=False)
class RunSummary:
    """All that is on the page; from storage alone, so it works while a build is running and after it has died.

    Attributes:
        status: what is committed.
        content: run.json.
        tallies: of the attempts.
        executions: from the event log; empty for a run that has none.
        speed: likewise; None where nothing was done in measurable time.
        remarks: sentences to read first.
    """

    status: RunStatus
    content: Mapping[str, Any]
    tallies: RunTallies
    executions: Sequence[Execution]
    speed: Throughput | None
    remarks: Sequence[str]

    @property
    def title(self) -> str:
        """Name of the run's folder; no address, since those may hold credentials."""
        place = self.status.url.partition("?")[0].rstrip("/\\").replace("\\", "/")
        return place.rpartition("/")[2].rpartition("@")[2] or "run"

    @property
    def threshold(self) -> float:
        """Loss at which an attempt is thrown away."""
        return _threshold(self.content)


def summarise(out: str | os.PathLike[str]) -> RunSummary:
    """Read the summary of a run; InputError where there is none, RunError where the storage does not answer."""
    run = RunDirectory.open(out)
    status = read_status(run)
    history = read_events(run)
    executions = read_executions(history.events)
    remarks = []
    if not status.complete:
        missing = status.shards_planned - status.shards_committed
        remarks.append(
            f"This run is not complete: {_counted(missing, 'shard is', 'shards are')} missing of "
            f"{status.shards_planned:,}. All figures are of what is committed."
        )
    remarks += [*status.unreadable, *history.unreadable]
    return RunSummary(
        status=status,
        content=run.content,
        tallies=tally_run(run, _threshold(run.content)),
        executions=executions,
        speed=throughput(executions),
        remarks=remarks,
    )


def write_summary(summary: RunSummary, path: str | os.PathLike[str]) -> None:
    """Write the page; its folder is made, and the file replaced whole or not at all. RunError."""
    place = os.path.abspath(path)
    try:
        publish(LocalFileSystem(), place, render_summary(summary).encode(), journal=os.path.dirname(place))
    except OSError as error:
        raise RunError(f'the summary "{place}" cannot be written ({error.strerror or error})') from error


def render_summary(summary: RunSummary) -> str:
    """Return the page that `write_summary` writes; the same for the same summary."""
    tallies = summary.tallies
    template = files("pipeline").joinpath(TEMPLATE_FILE).read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"svg": _svg, "percent": _percent, "number": _number, "duration": duration}
    return environment.from_string(template).render(
        title=summary.title,
        summary=summary,
        lede=_lede(summary),
        headlines=headlines(summary),
        losses=plot_losses(tallies, summary.threshold),
        attempts=plot_attempts(tallies),
        throughput=None if summary.speed is None else plot_throughput(summary.speed),
        rate=None if summary.speed is None else rate_unit(summary.speed.mean)[0],
        many_executions=len(summary.executions) > 1,
        styles=_bars(tallies.styles),
        paintings=tallies.most_rejected(WORST_PAINTINGS),
        paintings_sentence=_paintings_sentence(tallies),
        splits=_splits(summary.status),
        statuses=STATUSES,
        failures=_failures(tallies),
        executions=[_execution_row(execution) for execution in summary.executions],
        troubles=[_trouble(execution) for execution in summary.executions if execution.reason],
        terms=_terms(summary),
        details=_details(summary),
    )


@dataclass(frozen=True)
class Headline:
    """One figure in words."""

    value: str
    unit: str
    sentence: str


def headlines(summary: RunSummary) -> list[Headline]:
    """Return up to four figures: proxies, paintings per face, the median loss, how fast it went."""
    status, tallies = summary.status, summary.tallies
    total = sum(sum(counts.values()) for counts in status.faces.values())
    found = []
    if total:
        accepted, rejected, failed = (status.total(name) for name in STATUSES)
        others = [f"{rejected:,} found no painting that suits them" if rejected else ""]
        others.append(f"{failed:,} could not be read or repainted" if failed else "")
        rest = " and ".join(filter(None, others))
        found.append(
            Headline(
                _number(100 * accepted / total),
                "%",
                f"of {total:,} faces have a proxy{'; ' + rest if rest else ', without an exception'}.",
            )
        )
    tried = len(tallies.kept) + len(tallies.thrown)
    if tried:
        with_attempts = sum(count for (_, number), count in tallies.faces_by_attempts.items() if number)
        sentence = (
            f"paintings were tried for a face on average; {_percent(len(tallies.thrown) / tried)} of all attempts"
        )
        found.append(Headline(f"{tried / with_attempts:.2f}", "", f"{sentence} were thrown away."))
    if status.loss:
        spread = f"{status.loss['p10']:.1f} to {status.loss['p90']:.1f}"
        found.append(
            Headline(
                f"{status.loss['p50']:.1f}",
                "",
                f"is the median loss of a proxy, and eight in ten lie from {spread}. The threshold is "
                f"{summary.threshold:g}.",
            )
        )
    if summary.speed is not None:
        unit, factor = rate_unit(summary.speed.mean)
        in_all = f"{duration(summary.speed.seconds)} of work"
        if len(summary.executions) > 1:
            in_all += f" in {len(summary.executions)} executions"
        lost = sum(len(execution.lost_workers) for execution in summary.executions)
        if lost:
            in_all += f", in which {_counted(lost, 'worker was', 'workers were')} lost"
        found.append(Headline(_number(summary.speed.mean * factor), "", f"{unit} over {in_all}."))
    return found


def duration(seconds: float) -> str:
    """Return a time in words: "40 s", "12 min 5 s", "9 h 40 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def _threshold(content: Mapping[str, Any]) -> float:
    return float(content.get("config", {}).get("threshold", np.inf))


def _lede(summary: RunSummary) -> str:
    status = summary.status
    faces = sum(sum(counts.values()) for counts in status.faces.values())
    inputs = summary.content.get("inputs", {})
    paintings = inputs.get("paintings", {}).get("count")
    state = "complete" if status.complete else "not complete"
    drawn = len(summary.tallies.paintings)
    sentence = (
        f"{status.shards_committed:,} of {status.shards_planned:,} shards with {faces:,} of "
        f"{sum(status.faces_planned.values()):,} faces are committed: the run is {state}."
    )
    if not drawn:
        return sentence
    of = f"{drawn:,}" if paintings is None else f"{drawn:,} of {paintings:,}"
    return f"{sentence} {of} paintings were drawn."


@dataclass(frozen=True)
class _Bar:
    """A tally with where its bar and its whisker are to be drawn, in per cent of the track."""

    tally: Tally
    length: float
    low: float
    high: float


def _bars(tallies: Iterable[Tally]) -> list[_Bar]:
    """Return the bars of styles, most rejected first, unknown ones last."""
    shown = sorted(
        (tally for tally in tallies if tally.tried), key=lambda tally: (tally.name == UNKNOWN_STYLE, -tally.share)
    )
    full = max((tally.interval[1] for tally in shown), default=1.0) or 1.0
    return [_Bar(tally, *(round(100 * share / full, 2) for share in (tally.share, *tally.interval))) for tally in shown]


def _paintings_sentence(tallies: RunTallies) -> str:
    rejected, struck = (sum(getattr(tally, name) for tally in tallies.paintings) for name in ("rejected", "struck"))
    by_hand = f" {_counted(struck, 'proxy was', 'proxies were')} struck by a curator and redrawn." if struck else ""
    if not rejected:
        return f"No attempt was rejected.{by_hand}"
    half = tallies.paintings_of_half()
    share = _percent(half / len(tallies.paintings))
    return (
        f"{_counted(rejected, 'attempt was', 'attempts were')} rejected. Half of that falls to "
        f"{_counted(half, 'painting', 'paintings')}, {share} of those drawn.{by_hand} The table has the paintings "
        "whose share is most certainly high: the lower end of its 95 % interval decides, so that one rejection in one "
        "try says little."
    )


@dataclass(frozen=True)
class _Split:
    name: str
    planned: int
    counts: Sequence[int]


def _splits(status: RunStatus) -> list[_Split]:
    rows = [
        _Split(split, status.faces_planned.get(split, 0), [counts.get(name, 0) for name in STATUSES])
        for split, counts in status.faces.items()
    ]
    if len(rows) > 1:
        total = _Split("all", sum(row.planned for row in rows), [status.total(name) for name in STATUSES])
        rows.append(total)
    return rows


def _failures(tallies: RunTallies) -> list[tuple[str, int]]:
    shown = list(tallies.failures[:REASONS])
    if rest := sum(count for _, count in tallies.failures[REASONS:]):
        shown.append(("other reasons", rest))
    return shown


@dataclass(frozen=True)
class _ExecutionRow:
    cells: Sequence[str]
    outcome: str


def _execution_row(execution: Execution) -> _ExecutionRow:
    shards = len(execution.of(SHARD_COMMITTED)) + len(execution.of(REDRAW))
    unit, factor = rate_unit(execution.faces / execution.seconds if execution.seconds else 0.0)
    rate = _NOTHING
    if execution.faces and execution.seconds:
        rate = f"{_number(execution.faces / execution.seconds * factor)} {_PER[unit]}"
    poisonous = sum(int(event.fields.get("faces", 0)) for event in execution.of(POISON))
    counts = (execution.most_workers, len(execution.lost_workers), len(execution.of(SHARD_RETRIED)), poisonous)
    return _ExecutionRow(
        [
            str(execution.number),
            execution.started,
            execution.command,
            duration(execution.seconds),
            f"{shards:,}",
            f"{execution.faces:,}",
            f"{execution.resumed:,}" if execution.resumed else _NOTHING,
            rate,
            *(f"{count:,}" if count else _NOTHING for count in counts),
            execution.outcome,
        ],
        execution.outcome,
    )


_PER = {"faces per second": "/ s", "faces per minute": "/ min", "faces per hour": "/ h"}


def _trouble(execution: Execution) -> str:
    return f"Execution {execution.number}: {execution.reason}"


def _terms(summary: RunSummary) -> list[tuple[str, str]]:
    """Return what a reader has to know, term by term; only of what is on the page."""
    terms = [
        (
            "Attempt",
            "One painting tried for one face. Its final loss decides: at the threshold or above it the picture is "
            "thrown away, and the next painting is drawn. A painting that cannot be read is no attempt.",
        ),
        (
            "Accepted, rejected, failed",
            "An accepted face has a proxy; for a rejected one, no painting came under the threshold; a failed one "
            "could not be read or repainted, and “stylize build --retry-failed” tries it again.",
        ),
        ("Loss", "Weighted sum of style and content loss in the loss unit of the run's convention; lower is closer."),
    ]
    if summary.tallies.styles:
        terms.append(
            (
                "Whisker",
                "The 95 % interval of a share (Wilson 1927): what it may be in truth, given how few were tried. Styles "
                "are those of accepted paintings, and of others from the same folder.",
            )
        )
    if summary.speed is not None:
        terms.append(
            (
                "Throughput",
                "Faces that were done in the working time of all executions, laid end to end: from the beginning of "
                "an execution, the start of its workers included, to its end. Faces done twice, because a worker was "
                "lost, count once.",
            )
        )
    return terms


def _details(summary: RunSummary) -> dict[str, str]:
    content = summary.content
    config = content.get("config", {})
    details = {"fingerprint": summary.status.fingerprint}
    for name, entry in content.get("inputs", {}).items():
        count = entry.get("count")
        details[name] = f"{'' if count is None else f'{count:,}, '}layout {entry.get('layout')}"
        details[name] += f", digest {str(entry.get('digest'))[:12]}…"
    details["weights"] = without_places(str(content.get("weights", {}).get("source", _NOTHING)))
    details["settings"] = ", ".join(f"{name} {_setting(value)}" for name, value in sorted(config.items()))
    details["versions"] = ", ".join(f"{name} {version}" for name, version in content.get("versions", {}).items())
    return {name: value for name, value in details.items() if value}


def _setting(value: object) -> str:
    if value is None:
        return "none"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _svg(plot: RunPlot) -> Markup:
    return Markup(plot.svg)  # which escapes what it is given


def _percent(share: float) -> str:
    return f"{_number(100 * share)}\u00a0%"  # which no line may be broken at


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}"


def _counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"
