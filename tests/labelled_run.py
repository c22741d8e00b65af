"""A tiny finished run whose photographs exist: several people with several pictures each, all drawn at random.

A person is a pattern of coarse blocks; a photograph is the pattern with noise, its proxy the photograph's negative: the
opposite of the person to an untrained network, and a linear map away from it.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from manifests.attributes import ATTRIBUTES
from manifests.faces import read_faces
from manifests.run import RunDirectory
from manifests.shard import AttemptRecord, ShardRow, write_shard
from tests.small_run import run_content

WIDTH, HEIGHT = 16, 20
SPLITS = ("train", "valid", "test")
Counts = dict[str, list[int]]


def pattern(identity: int) -> np.ndarray:
    blocks = np.random.default_rng([identity, 99]).integers(0, 256, (5, 4, 3), np.uint8)
    return blocks.repeat(4, axis=0).repeat(4, axis=1)


def photograph(identity: int, number: int) -> np.ndarray:
    noise = np.random.default_rng([identity, number]).integers(-30, 31, (HEIGHT, WIDTH, 3))
    return (pattern(identity).astype(int) + noise).clip(0, 255).astype(np.uint8)


def proxy(identity: int, number: int) -> np.ndarray:
    """A picture that no other face has: the photograph's negative at half its contrast."""
    return (223 - photograph(identity, number) // 2).astype(np.uint8)


def people(counts: Counts) -> list[tuple[str, str, int, int]]:
    """Every face as (image_id, split, identity, number of the picture), in run order."""
    faces: list[tuple[str, str, int, int]] = []
    identity = 0
    for split in SPLITS:
        for pictures in counts.get(split, []):
            identity += 1
            faces += [(f"{len(faces) + n:06d}.png", split, identity, n) for n in range(pictures)]
    return faces


def write_labelled_run(place: Path, counts: Counts, *, shard_size: int = 7, identities: bool = True) -> Path:
    """Write `place`/faces in Celeb-A's layout and `place`/run; `counts` is {split: pictures of each person}."""
    folder = place / "faces" / "img_align_celeba"
    folder.mkdir(parents=True)
    faces = people(counts)
    for image_id, _, identity, number in faces:
        Image.fromarray(photograph(identity, number)).save(folder / image_id)
    attributes = np.random.default_rng(5).integers(0, 2, (len(faces), len(ATTRIBUTES))).astype(bool)
    write_annotations(place / "faces", faces, attributes, identities)
    content = run_content({split: sum(counts[split]) for split in SPLITS if split in counts}, shard_size)
    content["inputs"]["faces"]["digest"] = read_faces(place / "faces").digest
    content["paths"] = {"faces": str(place / "faces")}
    run = RunDirectory.create(place / "run", content)
    for name, positions in run.planned().items():
        of_split = [at for at, face in enumerate(faces) if face[1] == name.split]
        write_shard(run, name, [shard_row(faces[of_split[p]], attributes[of_split[p]], identities) for p in positions])
    run.finish()
    return place / "run"


def write_annotations(
    root: Path, faces: list[tuple[str, str, int, int]], attributes: np.ndarray, identities: bool
) -> None:
    bits = [
        f"{face[0]} " + " ".join("1" if bit else "-1" for bit in row)
        for face, row in zip(faces, attributes, strict=True)
    ]
    (root / "list_attr_celeba.txt").write_text("\n".join([str(len(faces)), " ".join(ATTRIBUTES), *bits]) + "\n")
    if identities:
        (root / "identity_CelebA.txt").write_text("".join(f"{name} {identity}\n" for name, _, identity, _ in faces))
    (root / "list_eval_partition.txt").write_text(
        "".join(f"{name} {SPLITS.index(split)}\n" for name, split, _, _ in faces)
    )


def shard_row(face: tuple[str, str, int, int], attributes: np.ndarray, known: bool) -> ShardRow:
    image_id, split, identity, number = face
    return ShardRow(
        image_id=image_id,
        source_id=image_id,
        split=split,
        identity=identity if known else None,
        attributes=tuple(bool(bit) for bit in attributes),
        status="accepted",
        convention="personart",
        precision="fp32",
        attempts=(AttemptRecord("S/p.jpg", 10.0, (1.0,) * 5, 0.5, 3, "evaluations"),),
        painting="S/p.jpg",
        style="S",
        loss=10.0,
        image=encoded(proxy(identity, number)),
        width=WIDTH,
        height=HEIGHT,
        image_suffix=".png",
    )


def encoded(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
