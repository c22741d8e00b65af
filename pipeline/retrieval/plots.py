"""Curves of an evaluation: recall against k, λ against recall and agreement, feedback against rounds."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.inline_svg import inline_svg
from pipeline.retrieval.evaluation_result import Evaluation, WeightResult
from pipeline.retrieval.feedback_curve import FeedbackCurve
from pipeline.retrieval.report_grids import main_weight
from pipeline.retrieval.scoring import WEIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_K = 50
_MAX_RECALL_LINES = 4
# Inches, and 72 units of the SVG each, so that type of 10.5 points is 10.5 px where the plot is 324 px wide.
_WIDTH = 4.5
_ABOVE, _AXES, _BELOW, _LEGEND_LINE, _LEFT, _RIGHT = 0.42, 2.5, 0.62, 0.21, 0.38, 0.1
_POINTS = 10.5

# Each colour stands for a CSS variable of the page, which a dark page sets otherwise. They are apart for people who
# cannot tell red from green, too, and no two of them are equal, as the SVG's are found by value.
_INK, _MUTED, _RULE = "#24211d", "#6f6a61", "#ddd8cd"
_SERIES = ("#2b5f8c", "#c07a1c", "#2e8267", "#a8466a", "#6a5aa3", "#787877")
_VARIABLES: Final = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _RULE: "var(--rule)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(_SERIES, 1)},
}


@dataclass(frozen=True)
class Reference:
    """Published figures to draw beside ours, dashed.

    Attributes:
        name: whose they are, such as "LightCNN-9L, Celeb-A (paper)".
        x: k, λ, or round, ascending.
        y: fractions, 0 to 1 (not per cent), one for every x.

    Raises:
        ValueError: lengths differ, or a value is not from 0 to 1.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ValueError(f"{self.name} has {len(self.x)} places for {len(self.y)} values")
        if any(not 0 <= value <= 1 for value in self.y):
            raise ValueError(f"{self.name} has values that are no fractions from 0 to 1: {list(self.y)}")


@dataclass(frozen=True)
class Plot:
    """A drawn plot.

    Attributes:
        png: for a file; on white, for light surroundings.
        svg: one <svg> element for the inside of an HTML page; its colours are the page's CSS variables --ink, --muted,
            --rule and --series-1 to --series-6, its text is text in the page's font.
        caption: one sentence that says what is drawn, for people who cannot see it.
    """

    png: bytes
    svg: str
    caption: str


def plot_recall(evaluation: Evaluation, references: Sequence[Reference] = ()) -> Plot | None:
    """Draw R@k for k of 1 to 50 with a line for a few λ, and what a random order would give.

    λ are 0, the main one (`main_weight`) and those after it, four at most: the curves of large λ are about attributes,
    which say little of who somebody is.

    Returns:
        None where no query has a relevant item.
    """
    weights = [result.weight for result in evaluation.results if result.recall.queries]
    if not weights:
        return None
    chosen = sorted({main_weight(evaluation), *(w for w in sorted(weights) if w in {0.0, 1.0})} & set(weights))
    ks = np.arange(1, max(2, min(_MAX_K, evaluation.gallery_count)) + 1)
    ranks = {weight: _ranks(evaluation, weight) for weight in chosen[:_MAX_RECALL_LINES]}
    lines = [
        _Line(f"λ = {weight:g}", ks, (found[:, None] <= ks).mean(axis=0), _SERIES[number % len(_SERIES)])
        for number, (weight, found) in enumerate(ranks.items())
    ]
    lines.append(_Line("random order", ks, [random_recall(evaluation, int(k)) for k in ks], _MUTED, ":"))
    lines += [
        _Line(reference.name, reference.x, reference.y, _SERIES[(len(ranks) + number) % len(_SERIES)], "--", "o")
        for number, reference in enumerate(references)
    ]

    def axis(axes: "Axes") -> None:
        axes.set_xscale("log")
        ticks = [k for k in (1, 2, 5, 10, 20, 50) if k <= ks[-1]]
        axes.set_xticks(ticks, [str(k) for k in ticks])
        axes.set_xticks([], minor=True)
        axes.set_xlim(1, ks[-1])
        axes.set_xlabel("items shown, k")

    first = lines[min(1, len(ranks) - 1)]
    caption = (
        f"Recall against the number of items shown: {first.name} finds {_percent(first.y[0])} with one item and "
        f"{_percent(first.y[-1])} with {ks[-1]}."
    )
    return _draw("Found among the first k, %", lines, axis, caption)


def plot_weights(
    evaluation: Evaluation, recall: Reference | None = None, agreement: Reference | None = None
) -> Plot | None:
    """Draw R@1 and the first item's attribute agreement against λ, evenly spaced as in the paper's Table 3.

    Args:
        evaluation: of several λ, in any order.
        recall, agreement: the paper's R@1 and accuracy against λ (a row of its Table 3); other λ than evaluated are
            left out.

    Returns:
        None for fewer than two λ, or nothing to draw.
    """
    results = sorted(evaluation.results, key=lambda result: result.weight)
    weights = [result.weight for result in results]
    places = {weight: place for place, weight in enumerate(weights)}
    lines = []
    for name, colour, value, published in (
        ("R@1", _SERIES[0], _first_recall, recall),
        ("attribute agreement", _SERIES[1], _agreement, agreement),
    ):
        values = [value(result) for result in results]
        if not all(math.isnan(one) for one in values):
            lines.append(_Line(name, range(len(weights)), values, colour, "-", "o"))
        if published is not None:
            known = [(places[x], y) for x, y in zip(published.x, published.y, strict=True) if x in places]
            if known:
                at, y = zip(*known, strict=True)
                lines.append(_Line(f"{name}: {published.name}", at, y, colour, "--", "."))
    if len(weights) < 2 or not lines:
        return None

    def axis(axes: "Axes") -> None:
        axes.set_xticks(range(len(weights)), [f"{weight:g}" for weight in weights])
        axes.set_xlabel("weight of the attributes, λ")
        if WEIGHT in places:
            axes.axvline(places[WEIGHT], color=_RULE, linewidth=5, zorder=0)

    ends = (f"{line.name} goes from {_percent(line.y[0])} to {_percent(line.y[-1])}" for line in lines)
    return _draw("The first item, %", lines, axis, f"Against λ: {'; '.join(ends)}.")


def plot_feedback(curves: Mapping[str, FeedbackCurve], references: Sequence[Reference] = ()) -> Plot | None:
    """Draw mean average precision against rounds of feedback.

    Args:
        curves: by the name of the setting, such as "both moves".
        references: the paper's average precision after some rounds (Table 5, Figure 7).

    Returns:
        None without a curve that has a query.
    """
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    shown = {name: curve for name, curve in curves.items() if len(curve.average_precision)}
    if not shown:
        return None
    lines = [
        _Line(name, range(curve.rounds + 1), curve.mean, _SERIES[number % len(_SERIES)], "-", ".")
        for number, (name, curve) in enumerate(shown.items())
    ]
    # In the colour of ours where the names say that they are of one setting.
    colours = {line.name: line.colour for line in lines}
    for number, reference in enumerate(references):
        own = max((name for name in colours if reference.name.startswith(name)), key=len, default=None)
        colour = colours[own] if own else _SERIES[(len(lines) + number) % len(_SERIES)]
        lines.append(_Line(reference.name, reference.x, reference.y, colour, "--", "o"))

    def axis(axes: "Axes") -> None:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("rounds: one item liked, one not")

    caption = "; ".join(
        f"{name} goes from {_percent(curve.mean[0])} to {_percent(curve.mean[-1])} in {curve.rounds} rounds"
        for name, curve in shown.items()
    )
    return _draw("Average precision, %", lines, axis, f"Average precision with feedback: {caption}.")


def random_recall(evaluation: Evaluation, k: int) -> float:
    """Return the expected R@k of a gallery in random order; NaN where no query has a relevant item.

    1 - C(G - r, k)/C(G, k) for a query with r relevant ones of G items, averaged. The query's own proxy, which is no
    candidate, is counted in G, so that small galleries come out a little low.
    """
    rows = _rows(evaluation, main_weight(evaluation))
    relevant = rows["relevant"].to_numpy()
    relevant = relevant[relevant > 0]
    if not len(relevant):
        return math.nan
    missed = np.ones(len(relevant))
    for drawn in range(min(k, evaluation.gallery_count)):
        missed *= np.maximum(0, 1 - relevant / (evaluation.gallery_count - drawn))
    return float(1 - missed.mean())


def _rows(evaluation: Evaluation, weight: float) -> pa.Table:
    return evaluation.per_query.filter(pc.equal(evaluation.per_query["lambda"], weight))


def _ranks(evaluation: Evaluation, weight: float) -> npt.NDArray[np.int64]:
    ranks: npt.NDArray[np.int64] = _rows(evaluation, weight)["rank"].drop_null().to_numpy()
    return ranks


def _first_recall(result: WeightResult) -> float:
    return result.recall.at.get(1, math.nan)


def _agreement(result: WeightResult) -> float:
    return math.nan if result.agreement is None else result.agreement


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


@dataclass(frozen=True, eq=False)
class _Line:
    name: str
    x: Sequence[float] | npt.NDArray[np.int64]
    y: Sequence[float] | npt.NDArray[np.float64]
    colour: str
    style: str = "-"
    marker: str | None = None


def _draw(title: str, lines: Sequence[_Line], axis: Callable[["Axes"], None], caption: str) -> Plot:
    """Draw lines of fractions as per cent, the legend above the axes, where it never covers a line."""
    import matplotlib as mpl  # noqa: PLC0415  # half a second that only this needs
    from matplotlib.figure import Figure  # noqa: PLC0415

    columns = 2 if max(len(line.name) for line in lines) < 24 else 1
    height = _ABOVE + _AXES + _BELOW + _LEGEND_LINE * math.ceil(len(lines) / columns)
    style: dict[Any, Any] = {
        "font.size": _POINTS,
        "axes.edgecolor": _RULE,
        "axes.labelcolor": _MUTED,
        "text.color": _INK,
        "xtick.color": _RULE,
        "ytick.color": _RULE,
        "xtick.labelcolor": _MUTED,
        "ytick.labelcolor": _MUTED,
        "text.parse_math": False,  # a dollar in a name is a dollar
        "svg.fonttype": "none",  # text stays text: in the page's font, and found by a search
        "svg.hashsalt": title,  # otherwise random, and the report differed each time
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(_WIDTH, height))
        # Set by hand, so that plots beside each other have their axes at one height, whatever their legends need.
        bottom = height - _ABOVE - _AXES
        axes = figure.add_axes((_LEFT / _WIDTH, bottom / height, 1 - (_LEFT + _RIGHT) / _WIDTH, _AXES / height))
        for line in lines:
            values = 100 * np.asarray(line.y, np.float64)
            size = 2.5 if line.marker == "o" else 5
            width = 1.2 if line.style == ":" else 1.6
            axes.plot(line.x, values, line.style, color=line.colour, marker=line.marker, markersize=size, lw=width,
                      label=line.name, clip_on=False)  # fmt: skip
        axis(axes)
        _fit(axes)
        figure.text(0, 1, title, va="top", size=_POINTS + 1.5, weight="bold")
        figure.legend(
            *axes.get_legend_handles_labels(),
            loc="upper left",
            bbox_to_anchor=(0, (bottom - _BELOW + 0.12) / height),
            ncols=columns,
            frameon=False,
            handlelength=1.8,
            columnspacing=1.4,
            labelspacing=0.25,
            borderaxespad=0,
            borderpad=0,
        )
        return Plot(_png(figure), inline_svg(figure, caption, _VARIABLES), caption)


def _fit(axes: "Axes") -> None:
    """Let per cent begin at zero unless all of them are far from it."""
    low, high = axes.dataLim.y0, axes.dataLim.y1
    axes.set_ylim(0 if low < 60 else 10 * math.floor((low - 2) / 10), min(100, 10 * math.ceil((high + 3) / 10)))
    axes.grid(axis="y", color=_RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)


def _png(figure: "Figure") -> bytes:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=200, metadata={"Software": None})
    return picture.getvalue()
