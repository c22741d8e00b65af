"""Runs with the real engine, small enough for tests: random weights, drawn inputs of 32x40 pixels, few evaluations."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from distributed import LocalCluster

from pipeline import network
from pipeline.demo.cartoon_faces import draw_celeba
from pipeline.demo.procedural_paintings import draw_wikiart
from stylize import unit_rms
from stylize.convention import CONVENTIONS
from tests.command_line import succeed
from tests.tiny_transfer import picture, to_tensor

SIZE = (32, 40)
# On these inputs with these settings about half of all attempts end at or over the threshold.
THRESHOLD = 0.04 * CONVENTIONS["personart"].loss_unit
SETTINGS = (
    *("--weights", "random", "--precision", "fp32"),
    *("--evaluations", 3, "--threshold", THRESHOLD, "--max-attempts", 3),
)


def draw_inputs(place: Path, identities: int = 6) -> None:
    draw_celeba(place / "faces", identities=identities, images_per_identity=2, size=SIZE)
    draw_wikiart(place / "paintings", count=6, size=(64, 64))


def quick_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute on the CPU, in one thread, with scales of a small reference batch: the real one takes ten seconds."""
    images = torch.stack([to_tensor(picture(seed, 48, 48)) for seed in range(2)])
    monkeypatch.setattr(network, "feature_scales", lambda weights: unit_rms.feature_scales(weights, images))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    torch.set_num_threads(1)


def local_cluster(workers: int = 1) -> LocalCluster:
    """Workers in this process, which need not import torch again."""
    return LocalCluster(
        processes=False,
        protocol="tcp",
        n_workers=workers,
        threads_per_worker=1,
        dashboard_address="127.0.0.1:0",
        silence_logs=100,
    )


def build(place: Path, out: str, *options: object, faces: str = "faces", paintings: str = "paintings") -> Path:
    """Build through the command line; options given here win over SETTINGS."""
    succeed("build", place / out, "--faces", place / faces, "--paintings", place / paintings, *SETTINGS, *options)
    return place / out


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [row for path in sorted((out / "manifest").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def images_of(out: Path) -> dict[str, bytes]:
    tables = [pq.read_table(path, columns=["image_id", "image"]) for path in sorted((out / "data").glob("*.parquet"))]
    return {row["image_id"]: row["image"]["bytes"] for table in tables for row in table.to_pylist()}
