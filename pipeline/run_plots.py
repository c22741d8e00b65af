"""Plots of a run for an HTML page: losses, attempts per face, throughput."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from manifests.schema import ACCEPTED, FAILED, REJECTED
from pipeline.inline_svg import inline_svg
from pipeline.run_history import Throughput
from pipeline.run_tallies import RunTallies

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LOSS_BINS: Final = 60
_TAIL = 0.995  # of the losses are drawn at their place, the rest in the last bin

# Inches, and 72 units of the SVG each, so that type of 10.5 points is 10.5 px where the plot is drawn at its own size.
_HALF, _WHOLE = 6.2, 14.4
_ABOVE, _BELOW, _LEFT, _RIGHT = 0.14, 0.52, 0.62, 0.12
_POINTS = 10.5
_MOST_BARS = 12

# Each colour stands for a CSS variable of the page, which a dark page sets otherwise; found in the SVG by value.
_INK, _MUTED, _RULE = "#24211d", "#6f6a61", "#ddd8cd"
_KEPT, _THROWN, _FAILED = "#2b5f8c", "#c07a1c", "#787877"
_VARIABLES: Final = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _RULE: "var(--rule)",
    _KEPT: "var(--kept)",
    _THROWN: "var(--thrown)",
    _FAILED: "var(--failed)",
}
_OF_STATUS: Final = {ACCEPTED: _KEPT, REJECTED: _THROWN, FAILED: _FAILED}


@dataclass(frozen=True)
class RunPlot:
    """A drawn plot.

    Attributes:
        svg: one <svg> element for the inside of a page that sets --ink, --muted, --rule, --kept, --thrown and --failed.
        caption: one sentence that says what is drawn, for people who cannot see it.
    """

    svg: str
    caption: str


def plot_losses(tallies: RunTallies, threshold: float) -> RunPlot | None:
    """Draw how many attempts ended with which loss, those kept and those thrown away; None without a loss.

    The few highest losses (0.5 %) share the last bin, or they would press all others to the left. A loss that is not
    a number is not drawn.
    """
    kept, thrown = (losses[np.isfinite(losses)] for losses in (tallies.kept, tallies.thrown))
    losses = np.concatenate((kept, thrown))
    if not len(losses):
        return None
    highest = float(losses.max())
    end = max(float(np.quantile(losses, _TAIL)) * 1.04, threshold * 1.04 if len(thrown) else 0.0)
    cut = highest > end * 1.02
    end = end if cut else highest * 1.01 or 1.0
    width = end / min(MOST_LOSS_BINS, max(10, round(2.5 * math.sqrt(len(losses)))))
    if len(thrown):  # so that the threshold parts two bins, and none is of two colours
        width = threshold / max(1, round(threshold / width))
    edges = width * np.arange(math.ceil(end / width) + 1)

    def draw(axes: "Axes") -> None:
        for values, colour in ((kept, _KEPT), (thrown, _THROWN)):
            counts, _ = np.histogram(np.minimum(values, edges[-1] - width / 2), edges)
            axes.bar(edges[:-1], counts, width * 0.86, align="edge", color=colour)
        if len(thrown):
            axes.axvline(threshold - width * 0.07, color=_INK, lw=1, ls=(0, (4, 3)))
            axes.text(
                threshold + width * 0.6, 1, f"threshold {threshold:g}", transform=axes.get_xaxis_transform(), va="top"
            )
        if cut:
            axes.text(
                1, 0.16, f"highest: {highest:,.0f} →", transform=axes.transAxes, ha="right", va="bottom", color=_MUTED
            )
        axes.set_xlim(0, edges[-1])
        axes.set_xlabel("final loss, in loss units")

    caption = (
        f"Losses of {len(losses):,} attempts, from {losses.min():.1f} to {highest:.1f}: {len(kept):,} are under the "
        f"threshold of {threshold:g}, {len(thrown):,} are not."
    )
    return _drawn(_HALF, 2.65, draw, caption)


def plot_attempts(tallies: RunTallies) -> RunPlot | None:
    """Draw how many faces took how many attempts, by what became of them; None without a face.

    Unreadable paintings are no attempts (`stylize.retry.judge`).
    """
    faces = tallies.faces_by_attempts
    if not faces:
        return None
    most = max(number for _, number in faces)
    least = min(number for _, number in faces)
    shown = list(range(least, min(most, least + _MOST_BARS - 1) + 1))
    labels = [str(number) for number in shown]
    if most > shown[-1]:
        labels[-1] += " +"
    totals = {
        status: [
            sum(count for (of, tried), count in faces.items() if of == status and min(tried, shown[-1]) == number)
            for number in shown
        ]
        for status in _OF_STATUS
    }
    everybody = sum(faces.values())
    heights = np.sum(list(totals.values()), axis=0)

    def draw(axes: "Axes") -> None:
        floor = np.zeros(len(shown))
        for status, colour in _OF_STATUS.items():
            axes.bar(range(len(shown)), totals[status], 0.72, floor, color=colour)
            floor += totals[status]
        for place, height in enumerate(heights):
            if height:
                axes.text(place, height + heights.max() * 0.015, _share(height / everybody), ha="center", color=_MUTED)
        axes.set_xticks(range(len(shown)), labels)
        axes.set_xlim(-0.6, max(len(shown), 5) - 0.4)
        axes.set_ylim(0, heights.max() * 1.09)
        axes.set_xlabel("paintings tried")

    first = sum(count for (of, number), count in faces.items() if of == ACCEPTED and number == 1)
    caption = (
        f"Attempts of {everybody:,} faces, {most} at most; {_share(first / everybody)} were accepted with the first "
        "painting."
    )
    return _drawn(_HALF, 2.65, draw, caption)


def plot_throughput(speed: Throughput) -> RunPlot:
    """Draw faces in time over the working time of all executions, with the workers that were lost."""
    unit, factor = rate_unit(speed.mean)
    time_unit, divisor = _time_unit(speed.seconds)
    edges, rates = speed.edges / divisor, speed.rates * factor
    losses = np.array(speed.losses) / divisor
    several = speed.most_workers > 1

    def draw(axes: "Axes") -> None:
        axes.stairs(rates, edges, fill=True, color=_KEPT, alpha=0.22, lw=0)
        axes.stairs(rates, edges, color=_KEPT, lw=1.4)
        axes.axhline(speed.mean * factor, color=_INK, lw=1, ls=(0, (4, 3)))
        for place in speed.boundaries:
            axes.axvline(place / divisor, color=_MUTED, lw=1)
        axes.set_ylim(0, max(float(rates.max()) * 1.1, 1e-9))
        axes.set_xlim(0, edges[-1])
        if len(losses):
            floor = np.full(len(losses), 0.045)
            axes.plot(
                losses,
                floor,
                "v",
                ms=5.5,
                color=_THROWN,
                mec="none",
                transform=axes.get_xaxis_transform(),
                clip_on=False,
            )
        if not several:
            axes.set_xlabel(f"{time_unit} of work")

    def draw_workers(axes: "Axes") -> None:
        places = np.array([*speed.worker_times, speed.seconds]) / divisor
        axes.stairs(speed.workers, places, fill=True, color=_FAILED, alpha=0.35, lw=0)
        axes.set_xlim(0, edges[-1])
        axes.set_ylim(0, speed.most_workers * 1.1)
        axes.set_yticks([0, speed.most_workers])
        axes.set_xlabel(f"{time_unit} of work")

    lost = f"; {len(losses):,} workers were lost meanwhile" if len(losses) else ""
    caption = (
        f"Throughput over {speed.seconds / divisor:.1f} {time_unit} of work: {speed.mean * factor:,.1f} {unit} on "
        f"average, {rates.max():,.1f} at most{lost}."
    )
    return _drawn(_WHOLE, 3.2, draw, caption, draw_workers if several else None)


def rate_unit(per_second: float) -> tuple[str, float]:
    """Return the unit in which a rate is easily read, and what to multiply a rate per second by."""
    if per_second >= 10:
        return "faces per second", 1.0
    return ("faces per minute", 60.0) if per_second >= 0.1 else ("faces per hour", 3600.0)


def _time_unit(seconds: float) -> tuple[str, float]:
    if seconds >= 2 * 3600:
        return "hours", 3600.0
    return ("minutes", 60.0) if seconds >= 120 else ("seconds", 1.0)


def _share(share: float) -> str:
    percent = 100 * share
    return f"{percent:.0f} %" if percent >= 10 or not percent else f"{percent:.1f} %" if percent >= 0.1 else "< 0.1 %"


def _drawn(
    width: float,
    height: float,
    draw: Callable[["Axes"], None],
    caption: str,
    draw_below: Callable[["Axes"], None] | None = None,
) -> RunPlot:
    import matplotlib as mpl  # noqa: PLC0415  # half a second that only this needs
    from matplotlib.figure import Figure  # noqa: PLC0415

    style: dict[Any, Any] = {
        "font.size": _POINTS,
        "axes.edgecolor": _RULE,
        "axes.labelcolor": _MUTED,
        "text.color": _INK,
        "xtick.labelcolor": _MUTED,
        "ytick.labelcolor": _MUTED,
        "text.parse_math": False,
        "svg.fonttype": "none",  # text stays text: in the page's font, and found by a search
        "svg.hashsalt": caption,  # otherwise random, and the page differed each time
    }
    strip = 0.62 if draw_below is not None else 0.0
    total = height + strip
    with mpl.rc_context(style):
        figure = Figure(figsize=(width, total))
        inner = (width - _LEFT - _RIGHT) / width
        below = _BELOW if draw_below is None else _BELOW + strip
        axes = figure.add_axes((_LEFT / width, below / total, inner, (total - _ABOVE - below) / total))
        draw(axes)
        _plain(axes)
        if draw_below is not None:
            axes.tick_params(labelbottom=False)
            lower = figure.add_axes((_LEFT / width, _BELOW / total, inner, (strip - 0.2) / total))
            draw_below(lower)
            _plain(lower)
        return RunPlot(inline_svg(figure, caption, _VARIABLES), caption)


def _plain(axes: "Axes") -> None:
    from matplotlib.ticker import FuncFormatter  # noqa: PLC0415

    axes.grid(axis="y", color=_RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
