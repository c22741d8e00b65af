"""The metrics of a run, one line (JSON lines) and one row (Parquet) per epoch.

Every file is made anew from all epochs, so that it always says what the run's state says.
"""

import io
import json
import math
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

History = Sequence[Mapping[str, float]]
"""Metrics of the epochs from the first on."""


def json_lines(history: History) -> bytes:
    """Return `{"epoch": 1, "train/loss": 0.5, …}` for every epoch; a metric that is not finite is null.

    Numbers are written so that they are read back to the bit.
    """
    lines = (
        json.dumps({"epoch": epoch, **finite_or_none(metrics)}, ensure_ascii=False, allow_nan=False)
        for epoch, metrics in enumerate(history, 1)
    )
    return "".join(f"{line}\n" for line in lines).encode()


def parquet(history: History) -> bytes:
    """Return the same as a table: column epoch (int64), a float64 column per metric; null where an epoch lacks it."""
    rows = [finite_or_none(metrics) for metrics in history]
    columns = {"epoch": pa.array(range(1, len(rows) + 1), pa.int64())}
    for name in metric_names(history):
        columns[name] = pa.array([row.get(name) for row in rows], pa.float64())
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    return sink.getvalue()


def metric_names(history: History) -> list[str]:
    """Return the metrics' names in the order in which they first appear."""
    return list(dict.fromkeys(name for metrics in history for name in metrics))


def finite_or_none(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Replace what JSON has no number for by None."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def best_epoch(history: History, monitor: str) -> int:
    """Return the epoch with the highest value of a metric, the earliest of several, from 1; 0 if there is none yet."""
    if not history:
        return 0
    return max(range(len(history)), key=lambda index: (history[index][monitor], -index)) + 1
