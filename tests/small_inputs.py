"""Tiny inputs for builds: flat-coloured pictures in the layouts of Celeb-A and WikiArt, never real people."""

from pathlib import Path

import numpy as np
from PIL import Image

from manifests.attributes import ATTRIBUTES


def write_faces(root: Path, count: int, sides: tuple[int, int] = (16, 20)) -> Path:
    """Write Celeb-A's official layout: half train, a quarter valid, a quarter test; returns its folder."""
    images = root / "img_align_celeba"
    images.mkdir(parents=True)
    names = [f"{number:06d}.jpg" for number in range(1, count + 1)]
    for number, name in enumerate(names):
        Image.new("RGB", sides, (number * 5 % 256, 100, 150)).save(images / name)
    bits = np.random.default_rng(0).choice([-1, 1], size=(count, len(ATTRIBUTES)))
    rows = [f"{name} " + " ".join(map(str, row)) for name, row in zip(names, bits, strict=True)]
    (root / "list_attr_celeba.txt").write_text("\n".join([str(count), " ".join(ATTRIBUTES), *rows]) + "\n")
    (root / "identity_CelebA.txt").write_text("".join(f"{name} {i // 2 + 1}\n" for i, name in enumerate(names)))
    splits = [0 if 2 * i < count else 1 if 4 * i < 3 * count else 2 for i in range(count)]
    lines = [f"{name} {split}\n" for name, split in zip(names, splits, strict=True)]
    (root / "list_eval_partition.txt").write_text("".join(lines))
    return root


def write_paintings(root: Path, count: int, corrupt: int = 0) -> Path:
    """Write `count` paintings in style folders, the first `corrupt` of them no images at all; returns the folder."""
    for number in range(count):
        path = root / f"Style_{number % 3}" / f"artist-{number % 4}_title-{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 12), (200, number * 3 % 256, 30)).save(path)
    for path in sorted(root.rglob("*.png"))[:corrupt]:
        path.write_bytes(b"not an image")
    return root
