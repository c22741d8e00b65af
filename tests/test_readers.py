"""What the README promises: a run is read by Hugging Face datasets, DuckDB, Dask and pandas, pictures decoded."""

import io
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

import dask.dataframe
import duckdb
import numpy as np
import pandas as pd
import pytest
from datasets import load_dataset
from datasets.utils.logging import disable_progress_bar
from huggingface_hub import DatasetCard
from PIL import Image

from manifests.dataset_card import card
from tests.small_run import HEIGHT, MIXED, WIDTH, picture, run_content, write_run

disable_progress_bar()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, MIXED)
    return folder


def pixels(encoded):
    return np.asarray(Image.open(io.BytesIO(encoded)))


def test_hugging_face_images(run, tmp_path):
    loaded = load_dataset(str(run), cache_dir=str(tmp_path))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 7, "valid": 3, "test": 1}
    first = loaded["train"][1]
    assert isinstance(first["image"], Image.Image)
    assert first["image"].size == (WIDTH, HEIGHT)
    assert np.array_equal(np.asarray(first["image"]), pixels(picture(2)))
    assert (first["image_id"], first["identity"], first["Smiling"]) == ("000002.jpg", 1, True)
    assert loaded["train"][0]["identity"] is None


def test_hugging_face_manifest(run, tmp_path):
    loaded = load_dataset(str(run), "manifest", cache_dir=str(tmp_path))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 10, "valid": 3, "test": 2}
    face = loaded["train"][2]
    assert face["status"] == "accepted"
    assert [attempt["painting"] for attempt in face["attempts"]] == ["Dada/p2.jpg", "Ukiyo-e/q2.jpg"]
    assert face["attempts"][0]["style_losses"] == [1.0, 2.0, 3.0, 4.0, 45.0]


def test_hugging_face_streams(run):
    rows = list(load_dataset(str(run), split="valid", streaming=True))
    assert [row["image"].size for row in rows] == [(WIDTH, HEIGHT)] * 3


def test_hugging_face_with_shards_of_no_accepted_face(tmp_path):
    statuses = {"train": ["rejected"] * 4 + ["accepted"], "valid": ["failed", "rejected"]}
    write_run(tmp_path / "run", statuses, shard_size=2)
    loaded = load_dataset(str(tmp_path / "run"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 1}
    assert loaded["train"][0]["image"].size == (WIDTH, HEIGHT)
    manifest = load_dataset(str(tmp_path / "run"), "manifest", cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in manifest.items()} == {"train": 5, "valid": 2}


def test_hugging_face_with_no_accepted_face_at_all(tmp_path):
    write_run(tmp_path / "run", {"train": ["rejected"] * 3})
    manifest = load_dataset(str(tmp_path / "run"), "manifest", cache_dir=str(tmp_path / "cache"))
    assert len(manifest["train"]) == 3


def test_duckdb(run):
    found = duckdb.sql(
        f"select image.bytes, m.status, d.Smiling from '{run}/data/*.parquet' d "
        f"join '{run}/manifest/*.parquet' m using (image_id) where d.split = 'train' order by image_id"
    ).fetchall()
    assert len(found) == 7
    assert np.array_equal(pixels(found[1][0]), pixels(picture(2)))
    assert {status for _, status, _ in found} == {"accepted"}
    attempts = duckdb.sql(f"select sum(len(attempts)) from '{run}/manifest/*.parquet'").fetchall()
    assert attempts == [(26,)]


def test_pandas(run):
    frame = pd.read_parquet(run / "data")
    assert len(frame) == 11
    row = frame[frame.image_id == "000002.jpg"].iloc[0]
    assert np.array_equal(pixels(row["image"]["bytes"]), pixels(picture(2)))
    manifest = pd.read_parquet(run / "manifest", columns=["status", "attempts"])
    assert manifest.status.value_counts().to_dict() == {"accepted": 11, "rejected": 2, "failed": 2}
    assert manifest.attempts[0][0]["painting"].startswith("Dada/p")


def test_dask(run):
    frame = dask.dataframe.read_parquet(f"{run}/data/train-*.parquet")
    assert frame.npartitions == 3
    row = frame[frame.image_id == "000002.jpg"].compute(scheduler="synchronous").iloc[0]
    assert np.array_equal(pixels(row["image"]["bytes"]), pixels(picture(2)))
    manifest = dask.dataframe.read_parquet(f"{run}/manifest/*.parquet", columns=["status"])
    assert len(manifest.compute(scheduler="synchronous")) == 15


def test_card():
    content = run_content({"train": 10, "test": 2}, 4)
    content["config"]["note"] = "a | b\nc"
    text = card(content, {"train": {"accepted": 9, "failed": 1}, "test": {"rejected": 2}})
    assert text == card(content, {"train": {"accepted": 9, "failed": 1}, "test": {"rejected": 2}})
    front = DatasetCard(text).data.to_dict()
    assert [config["config_name"] for config in front["configs"]] == ["default", "manifest"]
    assert front["configs"][0]["data_files"] == [
        {"split": "train", "path": "data/train-*.parquet"},
    ]
    assert front["configs"][1]["data_files"] == [
        {"split": "train", "path": "manifest/train-*.parquet"},
        {"split": "test", "path": "manifest/test-*.parquet"},
    ]
    assert "| train | 10 | 9 | 0 | 1 |" in text
    assert "| test | 2 | 0 | 2 | 0 |" in text
    assert "| config.note | a \\| b c |" in text
    assert "10.1145/3490033" in text
    assert "`5_o_Clock_Shadow` … `Young`" in text
