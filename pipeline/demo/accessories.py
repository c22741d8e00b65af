"""Backdrop, clothes, glasses, hats and jewellery of a cartoon face (our choice throughout)."""

import colorsys

import numpy as np
from PIL import Image

from pipeline.demo.canvas import Canvas, Colour, blend, curve, ellipse, mirrored, moved, points, ribbon, rounded, scaled
from pipeline.demo.face_parameters import FaceParameters
from pipeline.demo.head import EYE_Y, Head


def hue_colour(hue: float, saturation: float, value: float) -> Colour:
    """A colour of the HSV cone (all 0…1) as RGB 0…255."""
    r, g, b = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return (255 * r, 255 * g, 255 * b)


def _cloud(
    rng: np.random.Generator, size: tuple[int, int], cells: int
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Smooth noise [height, width], about -1…1, with ``cells`` bumps across."""
    grid = rng.normal(0, 0.5, (max(2, cells * size[1] // size[0]), cells)).astype(np.float32)
    return np.asarray(Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC), dtype=np.float32)


def draw_backdrop(canvas: Canvas, params: FaceParameters) -> None:
    """A gradient with a little texture: plain, lights out of focus, foliage or a wall."""
    sitting = params.sitting
    rng = np.random.default_rng(sitting.texture)
    width, height = canvas.size
    value = (0.25 + 0.65 * sitting.bright) * (0.8 if sitting.backdrop == 2 else 1)
    saturation = (0.2, 0.5, 0.38, 0.28)[sitting.backdrop]
    hue = 0.22 + 0.16 * sitting.hue if sitting.backdrop == 2 else sitting.hue
    first = np.array(hue_colour(hue, saturation, value))
    second = np.array(hue_colour(hue + 0.09, saturation * 0.8, value * 0.62))
    down, across = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    mix = 0.65 * down + 0.35 * (across if sitting.light < 0 else 1 - across)
    if sitting.backdrop == 2:
        mix = mix + 0.55 * _cloud(rng, canvas.size, 14) + 0.4 * _cloud(rng, canvas.size, 30)
    if sitting.backdrop == 3:
        mix = mix + 0.12 * np.sin(across * 40 + 0.4 * _cloud(rng, canvas.size, 5)) + 0.1 * _cloud(rng, canvas.size, 40)
    mix = mix + 0.12 * _cloud(rng, canvas.size, 6) + 0.05 * _cloud(rng, canvas.size, 45)
    canvas.paste(first + (second - first) * np.clip(mix, -0.4, 1.5)[..., None])
    if sitting.backdrop == 1:
        for _ in range(11):
            x, y, radius = rng.uniform(-88, 88), rng.uniform(0, 170), rng.uniform(6, 17)
            glow = hue_colour(hue + rng.normal(0, 0.08), 0.35, min(1.0, value + 0.35))
            canvas.fill(ellipse(x, y, radius, radius), glow, rng.uniform(0.2, 0.5), blur=1.2)


def draw_body(canvas: Canvas, head: Head, params: FaceParameters) -> None:
    """Neck, shoulders, clothes, and the necktie or necklace on them."""
    person, sitting = params.person, params.sitting
    neck = head.half_width * (0.7 if person.male else 0.56)
    half = points((0, 130), (neck, 140), (neck, 178), (neck + 10, 190), (neck + 14, 230), (0, 230))
    outline = curve(mirrored(half), closed=True)
    mask = canvas.mask(outline)
    canvas.fill(outline, blend(head.skin, head.shadow, 0.3))
    lit = points((0, 130), (neck, 140), (neck + 14, 230), (0, 230)) * (np.sign(sitting.light), 1)
    canvas.fill(lit, head.skin, 0.7, blur=8, clip=mask)
    under = ellipse(head.turn - 4 * sitting.light, head.chin - 1, head.half_width * 0.85, 17)
    canvas.fill(under, scaled(head.shadow, 0.9), 1.0, blur=3.5, clip=mask)

    cloth = hue_colour(sitting.clothes, 0.45, 0.16 + 0.5 * ((sitting.clothes * 7) % 1))
    shirt = blend((240, 240, 242), cloth, 0.06)
    suit = sitting.necktie
    wide = 83 if person.male else 72
    drop = 232 if suit or not person.male else 202
    right = points(
        (0, drop), (neck * 0.5, drop - 4), (neck + 3, 183), (neck + 20, 190), (wide, 202), (wide + 12, 232), (0, 234)
    )
    if suit:
        canvas.fill(points((0, 195), (-neck - 3, 176), (-neck - 16, 230), (neck + 16, 230), (neck + 3, 176)), shirt)
        for side in (-1, 1):
            collar = points((neck + 1, 172), (neck + 5, 190), (13, 204), (1, 193)) * (side, 1)
            canvas.fill(collar, scaled(shirt, 0.93))
            canvas.fill(ribbon(collar[1:], 0.7, 0.7, 0.5), (120, 120, 130), 0.7)
        tie = hue_colour(sitting.hue + 0.5, 0.75, 0.6)
        canvas.fill(points((-5.5, 191), (5.5, 191), (3.6, 200), (9, 232), (-9, 232), (-3.6, 200)), tie)
        for k in range(6):
            band = points((-10, 197 + 7 * k), (10, 191 + 7 * k))
            canvas.fill(
                ribbon(band, 2, 2, 2),
                scaled(tie, 1.45),
                0.8,
                clip=canvas.mask(points((-4, 200), (4, 200), (9, 232), (-9, 232))),
            )
    for side in (-1, 1):
        sleeve = np.concatenate([right[1:], right[:1]]) if not suit else points(
            (10, 234), (neck + 4, 178), (neck + 22, 188), (wide, 200), (wide + 12, 234)
        )  # fmt: skip
        shape = sleeve * (side, 1)
        cloak = canvas.mask(shape)
        canvas.image.paste(rounded(cloth), mask=cloak)
        flank = points((60, 180), (110, 180), (110, 234), (70, 234)) * (side, 1)
        canvas.fill(flank, scaled(cloth, 1.35 if side * sitting.light > 0 else 0.6), 0.7, blur=12, clip=cloak)
        rng = np.random.default_rng(sitting.texture + 2 + side)
        for _ in range(7):
            x = rng.uniform(20, 85)
            fold = curve(points((x, 190), (x + rng.normal(0, 6), 205), (x + rng.normal(0, 10), 232)) * (side, 1))
            canvas.fill(ribbon(fold, 0.5, 5, 2), scaled(cloth, rng.choice([0.6, 1.45])), 0.5, blur=1.6, clip=cloak)
        edge = points((10, 234), (neck + 4, 178)) if suit else right[:3]
        canvas.fill(ribbon(curve(edge * (side, 1)), 1.2, 1.8, 1.2), scaled(cloth, 0.55), 0.9)
    if sitting.necklace:
        path = curve(points((-neck - 2, 180), (-neck * 0.6, 196), (0, 204), (neck * 0.6, 196), (neck + 2, 180)))
        beads = [ellipse(x, y, 2.2, 2.2) for x, y in path[::3]]
        for bead in beads:
            canvas.fill(bead, (120, 84, 30))
            canvas.fill(bead * 0.8 + bead.mean(0) * 0.2 - 0.3, (246, 214, 120))


def draw_glasses(canvas: Canvas, head: Head, params: FaceParameters) -> None:
    """A frame with lightly tinted, reflecting lenses."""
    dark = (34, 28, 30) if params.person.texture % 2 else (92, 48, 28)
    width, height = 15.5, 11.5 + (params.person.texture // 2 % 3)
    y = EYE_Y + 1
    for side in (-1, 1):
        x = side * (head.eye_x + 0.5) + head.turn * 1.1
        corner = points((-1, -0.75), (-0.55, -1), (0.6, -1), (1, -0.7), (0.95, 0.4), (0.4, 1), (-0.45, 1), (-0.95, 0.4))
        rim = curve(corner * (side * width, height) + (x, y), closed=True)
        lens = canvas.mask(rim)
        canvas.fill(rim, (214, 232, 240), 0.08)
        glint = moved(points((-9, 12), (-2, -12), (4, -12), (-3, 12)), x + 2, y)
        canvas.fill(glint, (255, 255, 255), 0.17, blur=0.5, clip=lens)
        loop = np.concatenate([rim, rim[:2]])
        canvas.fill(ribbon(moved(loop, 0.6, 1.2), 2.2, 2.2, 2.2), head.shadow, 0.5, blur=1)
        canvas.fill(ribbon(loop, 2.7, 2.7, 2.7), dark)
        arm = points((x + side * width, y - 5), (side * (head.half_width + 1) - head.turn * 0.3, y - 3))
        canvas.fill(ribbon(arm, 2.6, 2.4, 2.2), dark)
    inner = head.eye_x + 0.5 - width
    bridge = curve(points((-inner, y - 3), (0, y - 6.5), (inner, y - 3)))
    canvas.fill(ribbon(moved(bridge, head.turn * 1.1, 0), 2.6, 2.2, 2.6), dark)


def draw_hat(canvas: Canvas, head: Head, params: FaceParameters) -> None:
    """A knitted beanie or a hat with a brim."""
    sitting, w = params.sitting, head.half_width + 8
    colour = hue_colour(sitting.clothes + 0.45, 0.55, 0.35 + 0.4 * sitting.hue)
    if sitting.hat == "beanie":
        dome = curve(mirrored(points((0, 8), (w * 0.5, 13), (w * 0.92, 38), (w, 72), (0, 76))), closed=True)
        mask = canvas.mask(dome)
        canvas.fill(dome, scaled(colour, 0.8))
        canvas.fill(ellipse(sitting.light * 18, 34, 26, 22), scaled(colour, 1.3), 0.8, blur=9, clip=mask)
        for k in np.linspace(-1, 1, 23):
            rib = curve(points((k * w * 0.25, 6), (k * w * 0.85, 34), (k * w, 64)))
            canvas.fill(ribbon(rib, 0.8, 1.5, 1.5), scaled(colour, 0.55), 0.8, blur=0.3, clip=mask)
        band = curve(points((-w - 1, 66), (-w * 0.5, 62), (0, 60.5), (w * 0.5, 62), (w + 1, 66)))
        canvas.fill(ribbon(moved(band, 0, 13), 3, 5, 3), head.shadow, 0.65, blur=2)
        canvas.fill(ribbon(moved(band, 0, 5), 17, 17, 17), scaled(colour, 0.95))
        for k in np.linspace(-1, 1, 27):
            rib = points((k * w, 60 + 5.5 * k * k), (k * w, 74 + 5.5 * k * k))
            canvas.fill(ribbon(rib, 1.2, 1.2, 1.2), scaled(colour, 0.6), 0.8, blur=0.2)
        return
    crown = curve(points((-w * 0.9, 66), (-w * 0.8, 18), (-12, 10), (0, 14), (12, 10), (w * 0.8, 18), (w * 0.9, 66)))
    brim = curve(
        points((-w - 24, 60), (-w * 0.6, 69), (0, 73), (w * 0.6, 69), (w + 24, 60), (w * 0.6, 55), (-w * 0.6, 55)),
        closed=True,
    )
    canvas.fill(moved(brim, 0, 7), head.shadow, 0.6, blur=3.5)
    canvas.fill(crown, scaled(colour, 0.78))
    mask = canvas.mask(crown)
    canvas.fill(ellipse(sitting.light * 22, 36, 18, 26), scaled(colour, 1.3), 0.8, blur=8, clip=mask)
    canvas.fill(ribbon(points((0, 12), (1, 34)), 2, 7, 1), scaled(colour, 0.5), 0.6, blur=2.5, clip=mask)
    sash = curve(points((-w, 55), (0, 61), (w, 55)))
    canvas.fill(ribbon(sash, 12, 12, 12), scaled(colour, 0.35), clip=mask)
    canvas.fill(brim, scaled(colour, 0.9))
    canvas.fill(
        ribbon(curve(points((-w - 22, 60.5), (-w * 0.6, 69), (0, 72.6), (w * 0.6, 69), (w + 22, 60.5))), 0.6, 1.6, 0.6),
        scaled(colour, 1.4),
    )


def draw_earrings(canvas: Canvas, head: Head) -> None:
    """A golden drop under each ear."""
    for side in (-1, 1):
        x, y = side * (head.half_width + 2.5) - head.turn * 0.4, 124.0
        canvas.fill(ellipse(x, y + 5, 3.8, 5.4), (118, 78, 24))
        canvas.fill(ellipse(x, y + 5, 2.9, 4.5), (240, 200, 92))
        canvas.fill(ellipse(x - 0.8, y + 3.4, 1.1, 1.6), (255, 250, 222))
        canvas.fill(ellipse(x, y - 1.5, 1.7, 1.7), (250, 226, 150))
