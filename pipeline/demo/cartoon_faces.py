"""Parametric cartoon faces, and a folder of them laid out as Celeb-A is."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from manifests.attributes import ATTRIBUTES
from pipeline.demo import accessories, face_features, facial_hair, hair
from pipeline.demo.canvas import FRAME_HEIGHT, FRAME_WIDTH, Canvas
from pipeline.demo.face_parameters import FaceParameters, attributes_of, sample_person, sample_sitting
from pipeline.demo.head import Head, draw_modelling, draw_skull

SMALLEST_SIDE = 32
JPEG_QUALITY = 95


def draw_face(params: FaceParameters, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Draw one face, framed as in Celeb-A: the eyes a little above the middle.

    ``size`` is (width, height) in pixels. Returns RGB [height, width, 3]; equal parameters give equal pixels.
    Raises ValueError if a side is under 32 pixels.
    """
    _check_size(size)
    sitting = params.sitting
    canvas = Canvas(size)
    head = Head.of(params)
    accessories.draw_backdrop(canvas, params)
    shift_x, shift_y = sitting.shift
    canvas.pose(sitting.tilt, sitting.shift)
    hair.draw_back_hair(canvas, head, params)
    canvas.pose(0.0, (shift_x, max(0.0, shift_y)))
    accessories.draw_body(canvas, head, params)
    canvas.pose(sitting.tilt, sitting.shift)
    face = draw_skull(canvas, head, params)
    draw_modelling(canvas, head, params, face)
    facial_hair.draw_beard(canvas, head, params, face)
    face_features.draw_nose(canvas, head, params)
    face_features.draw_mouth(canvas, head, params)
    face_features.draw_eyes(canvas, head, params)
    hair.draw_hair(canvas, head, params)
    if sitting.earrings:
        accessories.draw_earrings(canvas, head)
    if sitting.glasses:
        accessories.draw_glasses(canvas, head, params)
    if sitting.hat != "none":
        accessories.draw_hat(canvas, head, params)
    return _developed(canvas.finished(), params)


def _developed(image: Image.Image, params: FaceParameters) -> NDArray[np.uint8]:
    """Exposure, colour of the light, softness and grain, as a camera adds them."""
    sitting = params.sitting
    unit = min(image.width / FRAME_WIDTH, image.height / FRAME_HEIGHT)
    if sitting.softness > 0:
        image = image.filter(ImageFilter.GaussianBlur(sitting.softness * unit))
    colours = np.asarray(image, dtype=np.float64)
    tint = np.array((1 + 0.05 * sitting.warmth, 1.0, 1 - 0.07 * sitting.warmth)) * sitting.exposure
    rng = np.random.default_rng(sitting.texture + 9)
    grain = rng.normal(0, 1.8, colours.shape[:2])[..., None]
    return np.clip(colours * tint + grain, 0, 255).round().astype(np.uint8)


def draw_celeba(
    folder: Path,
    *,
    identities: int = 8,
    images_per_identity: int = 4,
    size: tuple[int, int] = (89, 109),
    seed: int = 0,
) -> None:
    """Write a folder in Celeb-A's layout: ``img_align_celeba/`` and the three official annotation files.

    ``size`` is (width, height). Identities are numbered from 1 and split by identity, about 70 % train, 15 % valid and
    15 % test, each at least one; as in Celeb-A, images are in the order of the splits, and mixed within one. The same
    arguments give the same files (JPEG of quality 95); files of the same names are replaced, others are left alone.

    Raises ValueError for fewer than 3 identities (one for each split), no images or a side under 32 pixels.
    """
    if identities < 3:
        raise ValueError(f"identities is {identities}: ask for at least 3, one for each of train, valid and test.")
    if images_per_identity < 1:
        raise ValueError(f"images_per_identity is {images_per_identity}: ask for at least 1.")
    _check_size(size)
    images = folder / "img_align_celeba"
    images.mkdir(parents=True, exist_ok=True)

    held_out = max(1, round(0.15 * identities))
    splits = np.repeat([0, 1, 2], [identities - 2 * held_out, held_out, held_out])
    rng = np.random.default_rng((seed, 0))
    rng.shuffle(splits)
    persons = [sample_person(np.random.default_rng((seed, 1, number)), number) for number in range(identities)]
    rows = [(number, occasion) for number in range(identities) for occasion in range(images_per_identity)]
    rows = [rows[index] for index in rng.permutation(len(rows))]
    rows.sort(key=lambda row: splits[row[0]])

    attribute_lines = [str(len(rows)), " ".join(ATTRIBUTES) + " "]
    identity_lines: list[str] = []
    partition_lines: list[str] = []
    for position, (number, occasion) in enumerate(rows, start=1):
        name = f"{position:06d}.jpg"
        person = persons[number]
        params = FaceParameters(person, sample_sitting(np.random.default_rng((seed, 2, number, occasion)), person))
        Image.fromarray(draw_face(params, size)).save(images / name, quality=JPEG_QUALITY)
        attributes = attributes_of(params)
        attribute_lines.append(" ".join([name, *(f"{1 if attributes[label] else -1:2d}" for label in ATTRIBUTES)]))
        identity_lines.append(f"{name} {number + 1}")
        partition_lines.append(f"{name} {splits[number]}")
    for file, lines in (
        ("list_attr_celeba.txt", attribute_lines),
        ("identity_CelebA.txt", identity_lines),
        ("list_eval_partition.txt", partition_lines),
    ):
        (folder / file).write_text("\n".join(lines) + "\n", encoding="ascii", newline="\n")


def _check_size(size: tuple[int, int]) -> None:
    if min(size) < SMALLEST_SIDE:
        raise ValueError(f"size {size[0]}x{size[1]} is too small for a face: each side needs {SMALLEST_SIDE} pixels.")
