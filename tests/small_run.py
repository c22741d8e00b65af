"""A tiny run with drawn pictures, for the tests of what reads and writes runs."""

import io

import numpy as np
from PIL import Image

from manifests.attributes import ATTRIBUTES
from manifests.dataset_card import card
from manifests.run import RunDirectory
from manifests.shard import AttemptRecord, ShardRow, write_shard

WIDTH, HEIGHT = 7, 9


def picture(number, width=WIDTH, height=HEIGHT):
    """PNG bytes of a picture that no other number has."""
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def row(number, split="train", status="accepted", **changes):
    """Return the row of face ``number``; every third has no identity, attributes cycle through True, False, None."""
    attempts = [AttemptRecord(f"Dada/p{number}.jpg", 55.0, (1.0, 2.0, 3.0, 4.0, 45.0), 0.5, 150, "evaluations")]
    fields = {
        "image_id": f"{number:06d}.jpg",
        "source_id": f"{number:06d}.jpg",
        "split": split,
        "identity": None if number % 3 == 0 else number // 2,
        "attributes": tuple((True, False, None)[(number + position) % 3] for position in range(len(ATTRIBUTES))),
        "status": status,
        "convention": "personart",
        "precision": "fp32",
    }
    if status == "accepted":
        loss = 10.1 + number
        attempts.append(AttemptRecord(f"Ukiyo-e/q{number}.jpg", loss, (1.0,) * 5, 0.25, 120, "converged"))
        fields |= {
            "painting": f"Ukiyo-e/q{number}.jpg",
            "artist": None if number % 2 else "Katsushika Hokusai",
            "genre": "landscape",
            "style": "Ukiyo-e",
            "loss": loss,
            "image": picture(number),
            "width": WIDTH,
            "height": HEIGHT,
            "image_suffix": ".png",
        }
    if status == "failed":
        attempts = [AttemptRecord("Dada/broken.jpg", None, None, None, 0, "error", "cannot be decoded")]
        fields["error"] = "truncated file"
    return ShardRow(**(fields | {"attempts": tuple(attempts)} | changes))


def run_content(faces, shard_size):
    """Return run.json's content for ``faces`` = {split: number of faces}."""
    return {
        "config": {"seed": 0, "threshold": 40.0, "size": None},
        "fingerprint": "f00d",
        "inputs": {"faces": {"layout": "celeba", "digest": "aa"}, "paintings": {"layout": "folder", "digest": "bb"}},
        "weights": {"name": "random", "sha256": "cc"},
        "objective": {"loss_unit": 2e-4, "scales": [1.0, 2.0]},
        "versions": {"stylize": "0.1.0"},
        "shards": {split: {"faces": count, "shards": -(-count // shard_size)} for split, count in faces.items()},
        "shard_size": shard_size,
    }


def write_run(url, statuses, shard_size=4, *, skip=()):
    """Write a run of {split: statuses in order of its faces}, all shards but those whose names are in ``skip``."""
    run = RunDirectory.create(url, run_content({split: len(of) for split, of in statuses.items()}, shard_size))
    offsets = dict(zip(statuses, (0, 1000, 2000), strict=False))
    for name, positions in run.planned().items():
        if str(name) not in skip:
            start = offsets[name.split]
            rows = [row(start + at, name.split, statuses[name.split][at]) for at in positions]
            write_shard(run, name, rows)
    counts = {split: {status: of.count(status) for status in set(of)} for split, of in statuses.items()}
    run.publish("README.md", card(run.content, counts).encode())
    run.finish()
    return run


A, R, F = "accepted", "rejected", "failed"
MIXED = {"train": [A, R, A, F, A, A, A, A, R, A], "valid": [A, A, A], "test": [A, F]}
