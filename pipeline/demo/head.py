"""Skull, ears, skin and wrinkles of a cartoon face, and the measures its features share (our choice throughout)."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipeline.demo.canvas import Canvas, Colour, Points, blend, curve, ellipse, mirrored, moved, points, ribbon
from pipeline.demo.face_parameters import FaceParameters, HairColour

EYE_Y = 106.0
_SKINS: tuple[Colour, ...] = (
    (253, 228, 212),
    (244, 206, 178),
    (230, 182, 145),
    (203, 148, 108),
    (160, 107, 75),
    (116, 74, 52),
)
HAIR_COLOURS: dict[HairColour, Colour] = {
    "black": (44, 36, 38),
    "brown": (104, 66, 40),
    "blond": (222, 182, 108),
    "gray": (176, 172, 170),
    "auburn": (158, 70, 34),
}


@dataclass(frozen=True)
class Head:
    """Measures and colours that the features share, in units of the frame."""

    half_width: float
    chin: float
    eye_x: float
    nose_y: float
    mouth_y: float
    turn: float  # how far the features move sideways
    skin: Colour
    shadow: Colour
    light: Colour
    hair: Colour

    @classmethod
    def of(cls, params: FaceParameters) -> "Head":
        """The head of a drawing."""
        person = params.person
        position = person.skin * (len(_SKINS) - 1)
        index = min(int(position), len(_SKINS) - 2)
        skin = blend(_SKINS[index], _SKINS[index + 1], position - index)
        chin = 163 + 9 * person.face_length
        return cls(
            half_width=39.5 + 9 * person.face_width,
            chin=chin,
            eye_x=18.5 + 3.5 * person.eye_spacing + 2 * person.face_width,
            nose_y=124 + 6 * person.nose_length,
            mouth_y=chin - 22 + person.nose_length,
            turn=params.sitting.yaw * 4.5,
            skin=skin,
            shadow=(skin[0] * 0.64, skin[1] * 0.46, skin[2] * 0.42),
            light=blend(skin, (255, 246, 228), 0.55),
            hair=HAIR_COLOURS[person.hair_colour],
        )


def face_outline(head: Head, jaw: float) -> Points:
    """The closed contour of the face from the top of the forehead to the chin."""
    w, chin = head.half_width, head.chin
    half = points(
        (0, 38),
        (w * 0.5, 43),
        (w * 0.87, 62),
        (w, 90),
        (w * (0.965 + 0.02 * jaw), 116),
        (w * (0.78 + 0.12 * jaw), chin - 23),
        (w * (0.45 + 0.18 * jaw), chin - 6),
        (w * (0.17 + 0.14 * jaw), chin - 0.5),
        (0, chin),
    )
    return curve(mirrored(half), closed=True)


def draw_skull(canvas: Canvas, head: Head, params: FaceParameters) -> Image.Image:
    """Ears and the shaded face; returns the mask of the face."""
    person, sitting = params.person, params.sitting
    for side in (-1, 1):
        size = 0.8 + 0.45 * person.ears
        ear = curve(
            points((-2, -11), (5, -13), (8, -6), (6, 3), (3, 11), (-3, 11)) * size * (side, 1)
            + (side * head.half_width * 0.985 - head.turn * 0.5, 110),
            closed=True,
        )
        canvas.fill(ear, blend(head.skin, head.shadow, 0.35 + 0.2 * (side != np.sign(sitting.light))))
        inner = (ear - ear.mean(0)) * 0.55 + ear.mean(0)
        canvas.fill(inner, head.shadow, 0.45, blur=1)
    mask = canvas.mask(face_outline(head, person.jaw))

    x, y = canvas.grid()
    u, v = (x - head.turn * 0.6) / (head.half_width * 1.06), (y - 106) / 68
    depth = np.sqrt(np.clip(1 - u**2 - 0.75 * v**2, 0.02, 1))
    lit = 0.62 * depth + 0.5 * sitting.light * u - 0.22 * v + 0.1
    lit = np.clip(lit / 0.72, 0, 1.25)[..., None]
    shade, base, light = (np.array(colour) for colour in (head.shadow, head.skin, head.light))
    colours = np.where(lit < 0.85, shade + (base - shade) * (lit / 0.85), base + (light - base) * (lit - 0.85) / 0.5)
    canvas.paste(colours, mask)
    return mask


def draw_modelling(canvas: Canvas, head: Head, params: FaceParameters, face: Image.Image) -> None:
    """Sockets, cheeks, chin, wrinkles: soft light and shade inside the face."""
    person, sitting = params.person, params.sitting
    turn, w, chin = head.turn, head.half_width, head.chin
    old = np.clip((person.age - 42) / 30, 0, 1)
    blush = blend(head.skin, (226, 84, 84), 0.7)
    for side in (-1, 1):
        x = side * head.eye_x + turn
        canvas.fill(ellipse(x, EYE_Y - 4, 14, 9), head.shadow, 0.42, blur=4, clip=face)
        cheek_y = EYE_Y + 23 - 4 * max(0.0, sitting.smile)
        canvas.fill(ellipse(x + side * 4, cheek_y, 11, 8), blush, 0.75 if sitting.rosy else 0.12, blur=4, clip=face)
        if person.high_cheekbones:
            hollow = points((w * 0.98, 120), (w * 0.5, 142), (w * 0.55, 150), (w * 0.95, 138)) * (side, 1)
            canvas.fill(moved(hollow, turn, 0), head.shadow, 0.55, blur=4, clip=face)
        canvas.fill(
            ellipse(x + side * 3, cheek_y - 5, 8, 4),
            head.light,
            0.6 if person.high_cheekbones else 0.3,
            blur=3,
            clip=face,
        )
        if person.bags:
            bag = curve(points((-9, 8), (-2, 12.5), (6, 12), (11, 7)) * (side, 1) + (x, EYE_Y))
            canvas.fill(ribbon(bag, 0.6, 2.4, 0.6), head.shadow, 0.75, blur=0.7)
        fold_depth = 0.6 * max(0.0, sitting.smile) + 0.65 * old
        grin = max(0.0, sitting.smile)
        fold = curve(
            points((8, head.nose_y - 2), (14 + 3 * grin, head.nose_y + 6), (19 + 4 * grin, head.mouth_y)) * (side, 1)
            + (turn * 1.2, 0)
        )
        canvas.fill(ribbon(fold, 0.6, 2.2, 0.6), head.shadow, fold_depth * 0.8, blur=0.9, clip=face)
        if old > 0:
            for k in range(3):  # crow's feet
                start = np.array((x + side * 15, EYE_Y - 1 + 2.2 * k))
                line = np.stack([start, start + np.array((side * 6, 2.6 * (k - 1)))])
                canvas.fill(ribbon(line, 1.1, 0.8, 0.2), head.shadow, 0.7 * old, blur=0.4, clip=face)
    if old > 0:
        for k in range(3):
            brow = curve(moved(points((-20, 80.0), (-8, 78), (8, 78.5), (20, 80)), turn, -6.0 * k))
            canvas.fill(ribbon(brow, 0.3, 1.5, 0.3), head.shadow, 0.6 * old, blur=0.5, clip=face)
    if person.double_chin:
        fold = curve(
            points(
                (-w * 0.62, chin - 13),
                (-w * 0.36, chin - 4.5),
                (0, chin - 2),
                (w * 0.36, chin - 4.5),
                (w * 0.62, chin - 13),
            )
        )
        canvas.fill(ribbon(moved(fold, turn * 0.6, 0), 0.5, 3.2, 0.5), head.shadow, 0.85, blur=1.1, clip=face)
        canvas.fill(ribbon(moved(fold, turn * 0.6, 5), 1, 4, 1), head.light, 0.3, blur=1.5)
    canvas.fill(ellipse(turn, chin - 8, 9, 5), head.light, 0.35, blur=4, clip=face)
    canvas.fill(ellipse(turn, head.mouth_y + 10, 9, 2.2), head.shadow, 0.5, blur=2, clip=face)
    canvas.fill(ellipse(turn * 0.8 + sitting.light * 10, 72, 17, 8), head.light, 0.4, blur=6, clip=face)
