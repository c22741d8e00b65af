"""Curves of a run's metrics over its epochs, as a picture."""

import io
import math

from pipeline.training.metric_log import History, metric_names

MAX_PANELS = 12
_MAX_LEGEND = 10
_COLUMNS = 3


def families(history: History, monitor: str) -> dict[str, list[str]]:
    """Group the metrics that belong into one panel: the loss first, the monitored family second, then as they appear.

    Names are made as split/quantity[@k][/detail]: "train/loss" and "valid/loss" are of the family "loss", "valid/R@1"
    and "test/R@5" of "R", "valid/accuracy/Smiling" is of "accuracy".
    """
    groups: dict[str, list[str]] = {}
    for name in metric_names(history):
        groups.setdefault(_family(name), []).append(name)
    first = [family for family in ("loss", _family(monitor)) if family in groups]
    return {family: groups[family] for family in dict.fromkeys([*first, *groups])}


def _family(name: str) -> str:
    _, _, rest = name.partition("/")
    return (rest or name).split("/")[0].split("@")[0]


def plot_curves(history: History, monitor: str, best: int) -> bytes:
    """Draw one panel per family of metrics, at most 12, and a line at the best epoch; return a PNG.

    Args:
        history: at least one epoch.
        monitor: the metric that decides.
        best: the best epoch, from 1.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415  # half a second that only this needs

    groups = families(history, monitor)
    shown = list(groups.items())[:MAX_PANELS]
    columns = min(_COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(4.5 * columns, 3.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    epochs = range(1, len(history) + 1)
    for (family, names), panel in zip(shown, panels, strict=False):  # in this order no panel is taken in vain
        for name in names:
            values = [metrics.get(name, math.nan) for metrics in history]
            panel.plot(epochs, values, label=name, marker="." if len(history) < 30 else None, linewidth=1.2)
        panel.axvline(best, color="0.6", linestyle=":", linewidth=1, label=f"best epoch, {best}")
        panel.set_title(family)
        panel.set_xlabel("epoch")
        panel.xaxis.get_major_locator().set_params(integer=True)
        if len(names) <= _MAX_LEGEND:
            panel.legend(fontsize="small")
    for panel in panels:  # those that are left over
        panel.set_visible(False)
    if len(groups) > len(shown):
        figure.suptitle(f"{len(groups) - len(shown)} more families of metrics are in metrics.parquet", fontsize="small")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=100)
    return picture.getvalue()
