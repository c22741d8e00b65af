"""Eyes, brows, nose and mouth of a cartoon face (our choice throughout)."""

import numpy as np

from pipeline.demo.canvas import Canvas, Colour, Points, blend, curve, ellipse, moved, points, ribbon, scaled
from pipeline.demo.face_parameters import FaceParameters
from pipeline.demo.head import EYE_Y, Head

_LIPSTICKS: tuple[Colour, ...] = ((190, 30, 52), (206, 62, 92), (150, 24, 62), (214, 70, 54))


def draw_eyes(canvas: Canvas, head: Head, params: FaceParameters) -> None:
    """Two eyes with iris, lids and lashes, and the brows above them."""
    person, sitting = params.person, params.sitting
    width = 10.2 + 2.2 * person.eye_size
    opening = (0.34 + 0.5 * person.eye_opening if person.eye_opening < 0.4 else 0.62 + 0.42 * person.eye_opening) * (
        0.9 + 0.25 * person.eye_size
    )
    top, bottom = 7.4 * opening, (4.8 - 1.3 * max(0.0, sitting.smile)) * opening
    lash = blend(head.hair, (22, 14, 14), 0.75)
    for side in (-1, 1):
        near = 1 - 0.09 * side * sitting.yaw
        place = np.array((side * head.eye_x + head.turn, EYE_Y))
        upper = curve(points((-width, 1.5), (-width * 0.45, -top * 0.85), (width * 0.3, -top), (width, -1.2)))
        lower = curve(points((width, -1.2), (width * 0.35, bottom), (-width * 0.5, bottom * 0.9), (-width, 1.5)))
        mirror = (side * near, 1.0)
        upper, lower = upper * mirror + place, lower * mirror + place
        if sitting.makeup:
            lid = curve(
                points((-width, -1), (-2, -top - 4.5), (width * 0.7, -top - 4), (width + 4, -4)) * mirror + place
            )
            canvas.fill(np.concatenate([lid, upper[::-1]]), (96, 62, 112), 0.75, blur=1)
        eye = canvas.mask(np.concatenate([upper, lower]))
        canvas.image.paste((246, 242, 236), mask=eye)
        gaze = (float(place[0] + sitting.yaw * 1.2), float(place[1] - 0.3 - 0.1 * top))
        radius = 5.3 + 0.6 * person.eye_size
        canvas.fill(ellipse(*gaze, radius, radius), scaled(person.eye_colour, 0.55), clip=eye)
        canvas.fill(ellipse(*gaze, radius * 0.84, radius * 0.84), person.eye_colour, clip=eye)
        canvas.fill(
            ellipse(gaze[0], gaze[1] + 1.6, radius * 0.6, radius * 0.5),
            scaled(person.eye_colour, 1.5),
            0.7,
            blur=0.7,
            clip=eye,
        )
        canvas.fill(ellipse(*gaze, radius * 0.45, radius * 0.45), (14, 10, 12), clip=eye)
        canvas.fill(moved(upper, 0, 0.6), head.shadow, 0.5, blur=1.2, clip=eye)
        canvas.fill(ellipse(gaze[0] + 1.7 * sitting.light, gaze[1] - 1.9, 1.35, 1.35), (255, 255, 255), clip=eye)
        heavy = 1.0 if person.male else 1.7
        if sitting.makeup:
            heavy = 2.4
        canvas.fill(ribbon(upper, 0.7, 1.5 * heavy, 1.6 * heavy), lash)
        canvas.fill(ribbon(lower, 0.8, 0.6, 0.4), lash, 0.55)
        if not person.male:
            wing = points((width - 1, -1.8), (width + 2, -2.8), (width + 4.2, -5.0)) * mirror + place
            canvas.fill(ribbon(wing, 1.6 * heavy, 1.0 * heavy, 0.2), lash)
        crease = curve(
            points((-width * 0.8, -2.2), (-width * 0.2, -top - 2.6), (width * 0.5, -top - 2.3), (width, -3.5))
        )
        canvas.fill(ribbon(crease * mirror + place, 0.3, 1.3, 0.5), head.shadow, 0.85, blur=0.3)
        _draw_brow(canvas, head, params, place - (0, top), side)


def _draw_brow(canvas: Canvas, head: Head, params: FaceParameters, place: Points, side: int) -> None:
    person = params.person
    arch, thick = 6.5 * person.brow_arch, 2.2 + 4.2 * person.brow_thickness
    lift = 1.5 * max(0.0, params.sitting.smile) - 1.0 * person.brow_thickness
    knots = points((-11, -7.0), (-3, -8.5 - arch * 0.5), (6, -8.5 - arch), (15, -5.5 - arch * 0.15))
    path = curve((knots - (0, lift)) * (side, 1) + place)
    tone = blend(scaled(head.hair, 0.72), head.shadow, 0.25)
    shape = ribbon(path, thick, thick * 0.95, 0.6)
    canvas.fill(shape, tone, 0.85, blur=0.5)
    rng = np.random.default_rng(person.texture + 7)
    roots = path[rng.integers(0, len(path) - 7, 26)]
    down, up = thick * rng.uniform(-0.1, 0.5, 26), thick * rng.uniform(0.2, 0.65, 26)
    tips = roots + np.stack([np.full(26, side * 2.6), -up], axis=1)
    hairs = np.stack([roots + np.stack([np.zeros(26), down], axis=1), tips], axis=1)
    canvas.strands(hairs, np.array(tone) * rng.uniform(0.5, 1.2, (26, 1)), 0.5)


def draw_nose(canvas: Canvas, head: Head, params: FaceParameters) -> None:
    """Bridge, tip, wings and nostrils."""
    person, sitting = params.person, params.sitting
    half = 6.2 + 6.0 * person.nose_width + 0.8 * max(0.0, sitting.smile)
    y, turn = head.nose_y, head.turn * 1.5
    dark = -1.0 if sitting.light > 0 else 1.0
    side_plane = curve(
        points((4, EYE_Y - 10), (3.5, EYE_Y + 4), (4 + half * 0.2, y - 8), (half, y + 1), (2, y + 1)) * (dark, 1),
        closed=True,
    )
    canvas.fill(moved(side_plane, turn * 0.85, 0), head.shadow, 0.6, blur=1.8)
    ridge = curve(points((head.turn, EYE_Y - 6), (turn * 0.9 - dark * 0.6, y - 12), (turn - dark, y - 3)))
    canvas.fill(ribbon(ridge, 2.0, 3.4, 4.5), head.light, 0.6, blur=1.4)
    tip = 2.6 + 3.2 * person.nose_width
    canvas.fill(ellipse(turn, y + 3.2, half * 0.9, 2.2), head.shadow, 0.75, blur=1.3)
    canvas.fill(ellipse(turn - dark * 1.2, y - 2.8, tip, tip * 0.8), head.light, 0.65, blur=1.1)
    for side in (-1, 1):
        wing = curve(
            points((half * 0.75, y - 5), (half + 0.6, y - 1), (half * 0.8, y + 2.6), (half * 0.4, y + 2)) * (side, 1)
        )
        canvas.fill(ribbon(moved(wing, turn, 0), 0.4, 1.5, 0.8), head.shadow, 0.85, blur=0.35)
        nostril = ellipse(turn + side * half * 0.45, y + 2.4, half * 0.24, 1.15)
        canvas.fill(nostril, scaled(head.shadow, 0.42), 0.9, blur=0.3)
    if person.nose_width < 0.35:
        point = curve(points((-3, y + 2.2), (0, y + 5.0), (3, y + 2.2)))
        canvas.fill(ribbon(moved(point, turn, 0), 0.3, 1.5, 0.3), head.shadow, 0.9, blur=0.3)


def draw_mouth(canvas: Canvas, head: Head, params: FaceParameters) -> None:
    """Lips, and teeth and tongue where the mouth is open."""
    person, sitting = params.person, params.sitting
    half = 13.5 + 2.5 * person.face_width + 5.5 * max(0.0, sitting.smile)
    gap = sitting.mouth_open * (6.5 if sitting.smile > 0.5 else 5.0)
    rise = 5.2 * sitting.smile
    full = 2.4 + 4.4 * person.lips
    place = np.array((head.turn * 1.25, head.mouth_y - 0.3 * gap))
    natural = blend(blend(head.skin, head.shadow, 0.35), (190, 70, 76), 0.42)
    colour = _LIPSTICKS[params.sitting.texture % len(_LIPSTICKS)] if sitting.lipstick else natural
    corner_l, corner_r = (-half, -rise * 0.7), (half, -rise * 0.7)
    middle = rise * 0.32
    seam_top = curve(
        points(corner_l, (-half * 0.45, middle * 0.55), (0, middle), (half * 0.45, middle * 0.55), corner_r)
    )
    seam_low = seam_top + np.stack(
        [np.zeros(len(seam_top)), gap * (1 - np.linspace(-1, 1, len(seam_top)) ** 2)], axis=1
    )
    upper_edge = curve(
        points(
            corner_l,
            (-half * 0.5, middle * 0.4 - full * 0.75),
            (-2.6, middle - full),
            (0, middle - full * 0.7),
            (2.6, middle - full),
            (half * 0.5, middle * 0.4 - full * 0.75),
            corner_r,
        )
    )
    low = middle + gap + full * 1.2
    lower_edge = curve(
        points(
            corner_l,
            (-half * 0.5, low * 0.72 - rise * 0.08),
            (0, low),
            (half * 0.5, low * 0.72 - rise * 0.08),
            corner_r,
        )
    )
    if gap > 0:
        inside = canvas.mask(np.concatenate([seam_top, seam_low[::-1]]) + place)
        canvas.image.paste((84, 22, 28), mask=inside)
        canvas.fill(ellipse(place[0], place[1] + middle + gap, half * 0.5, gap * 0.4), (196, 86, 88), clip=inside)
        teeth = np.concatenate([seam_top - (0, 3), moved(seam_top, 0, 0.62 * gap)[::-1]]) + place
        canvas.fill(teeth, (250, 246, 238), clip=inside)
        for x in np.arange(-4, 5) * 3.1:
            line = points((x + place[0], place[1] - 6), (x + place[0], place[1] + middle + 0.6 * gap))
            canvas.fill(ribbon(line, 0.3, 0.3, 0.3), (206, 196, 186), 0.6, clip=inside)
    canvas.fill(np.concatenate([upper_edge, seam_top[::-1]]) + place, scaled(colour, 0.86), blur=0.25)
    canvas.fill(np.concatenate([seam_low, lower_edge[::-1]]) + place, colour, blur=0.25)
    shine = ellipse(place[0] + 2 * sitting.light, place[1] + middle + gap + full * 0.5, half * 0.3, full * 0.22)
    canvas.fill(shine, blend(colour, (255, 240, 235), 0.7), 0.8 if sitting.lipstick else 0.45, blur=0.7)
    seam = scaled(blend(colour, head.shadow, 0.6), 0.5)
    canvas.fill(ribbon(seam_top + place, 0.9, 0.9 if gap == 0 else 0.4, 0.9), seam, 0.9, blur=0.2)
    for side in (-1, 1):
        canvas.fill(
            ellipse(place[0] + side * (half + 0.6), place[1] - rise * 0.7, 1.6, 1.6), head.shadow, 0.6, blur=0.8
        )
