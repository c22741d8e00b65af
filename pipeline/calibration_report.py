"""What a calibration says: as text, as JSON, and as a picture."""

import os
from typing import Any

import numpy as np

from pipeline.calibrate import ACCEPTED_SHARE, Calibration, loss_unit

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
_CURVE_STEP = 10


def calibration_dict(calibration: Calibration) -> dict[str, Any]:
    """Return everything measured as JSON can hold it."""
    settings = calibration.settings
    return {
        "pairs": len(calibration.losses),
        "unreadable": list(calibration.unreadable),
        "size": list(calibration.size),
        "evaluations": settings.evaluations,
        "alpha": settings.alpha,
        "convention": settings.convention,
        "loss_unit": loss_unit(settings),
        "precision": calibration.precision,
        "quantiles": {f"{q:g}": float(np.quantile(calibration.losses, q)) for q in QUANTILES},
        "shares": _shares(calibration),
        "acceptance": {f"{t:.6g}": calibration.acceptance(t) for t in _thresholds(calibration)},
        "suggested_threshold": calibration.suggestion(),
        "curve": {str(at): row for at, row in _curve(calibration).items()},
        "losses": [
            {"image_id": face, "painting": painting, "loss": float(loss)}
            for (face, painting), loss in zip(calibration.pairs, calibration.losses, strict=True)
        ],
    }


def calibration_lines(calibration: Calibration) -> list[str]:
    """Return the report for a terminal."""
    losses, settings = calibration.losses, calibration.settings
    width, height = calibration.size
    quantiles = "  ".join(f"{q:.0%} {np.quantile(losses, q):.1f}" for q in QUANTILES)
    shares = "  ".join(f"{name} {share:.0%}" for name, share in _shares(calibration).items())
    lines = [
        f"{len(losses)} pairs at {width}x{height}, {settings.evaluations} evaluations, {calibration.precision}, "
        f"convention {settings.convention}",
        f"final loss, quantiles: {quantiles}",
        f"shares of the mean loss: {shares}",
        "threshold  accepted",
        *(f"{threshold:9.4g}  {calibration.acceptance(threshold):7.0%}" for threshold in _thresholds(calibration)),
        "evaluations  median loss  90 % quantile",
        *(f"{at:11d}  {row['median']:11.2f}  {row['p90']:13.2f}" for at, row in _curve(calibration).items()),
        f"suggested: --threshold {calibration.suggestion():.4g}  (accepts {ACCEPTED_SHARE:.0%} of these pairs)",
    ]
    if calibration.unreadable:
        count, first = len(calibration.unreadable), calibration.unreadable[0]
        lines.insert(1, f"{count} pairs were left out (first: {first})")
    return lines


def plot_calibration(calibration: Calibration, path: str | os.PathLike[str]) -> None:
    """Draw the histogram of losses and the curve of loss against evaluations into a PNG file; OSError."""
    from matplotlib.figure import Figure  # noqa: PLC0415  # half a second that only this needs

    losses, curve = calibration.losses, calibration.curve
    suggested = calibration.suggestion()
    figure = Figure(figsize=(11, 4), layout="constrained")
    histogram, course = figure.subplots(1, 2)
    bins = np.geomspace(max(losses.min(), 1e-9) * 0.95, losses.max() * 1.05, 25)
    histogram.hist(losses, bins=bins, color="#4c72b0")
    histogram.set_xscale("log")
    histogram.axvline(suggested, color="#c44e52", label=f"90 % are under {suggested:.4g}")
    histogram.set_xlabel("final loss (loss units)")
    histogram.set_ylabel("pairs")
    histogram.legend()
    at = np.arange(1, curve.shape[1] + 1)
    low, median, high = np.quantile(curve, (0.1, 0.5, 0.9), axis=0)
    course.fill_between(at, low, high, alpha=0.25, color="#4c72b0", label="10 % to 90 %")
    course.plot(at, median, color="#4c72b0", label="median")
    course.set_yscale("log")
    course.set_xlabel("evaluations")
    course.set_ylabel("loss (loss units)")
    course.legend()
    width, height = calibration.size
    figure.suptitle(f"{len(losses)} pairs at {width}x{height}, {calibration.precision}")
    figure.savefig(path, format="png", dpi=110)


def _shares(calibration: Calibration) -> dict[str, float]:
    total = calibration.losses.mean()
    style = calibration.style_losses.mean(axis=0) / total
    shares = dict(zip(calibration.settings.style_layers, style.tolist(), strict=True))
    shares["content"] = float(calibration.settings.alpha * calibration.content_losses.mean() / total)
    return shares


def _thresholds(calibration: Calibration) -> list[float]:
    """Thresholds worth knowing the acceptance at: the one in the settings, and some round the losses."""
    tails = [float(np.quantile(calibration.losses, share)) for share in (0.5, 0.75, 0.8, 0.9, 0.95)]
    exact = (calibration.settings.threshold, *tails, float(calibration.losses.max()) * 1.01)
    return sorted({float(f"{threshold:.6g}") for threshold in exact})  # as shown, so that the shares are theirs


def _curve(calibration: Calibration) -> dict[int, dict[str, float]]:
    evaluations = calibration.curve.shape[1]
    steps = sorted({*range(_CURVE_STEP, evaluations + 1, _CURVE_STEP), evaluations})
    return {
        at: {
            "median": float(np.median(calibration.curve[:, at - 1])),
            "p90": float(np.quantile(calibration.curve[:, at - 1], 0.9)),
        }
        for at in steps
    }
