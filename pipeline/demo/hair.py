"""Hair as sheets between two curves, combed with strands (our choice throughout)."""

from dataclasses import dataclass

import numpy as np

from pipeline.demo.canvas import Canvas, Colour, Points, curve, ellipse, mirrored, points, ribbon, scaled
from pipeline.demo.face_parameters import FaceParameters
from pipeline.demo.head import Head


@dataclass(frozen=True)
class _Sheet:
    """Hair between ``inner`` and ``outer`` (equally many points); strands run along the curves or across them."""

    inner: Points
    outer: Points
    across: bool = False
    slant: float = 0.0  # of strands across, as a part of the curves' length


def _comb(
    canvas: Canvas,
    sheet: _Sheet,
    colour: Colour,
    rng: np.random.Generator,
    *,
    wave: float,
    light: float,
    count: int = 150,
) -> None:
    """Fill a sheet and draw its strands, with a band of light across them."""
    outline = np.concatenate([sheet.inner, sheet.outer[::-1]])
    canvas.fill(outline, scaled(colour, 0.62))
    clip = canvas.mask(outline, blur=0.35)
    steps = 21
    along = np.linspace(0, 1, steps)
    at = rng.random((count, 1))
    knots = np.arange(len(sheet.inner))
    if sheet.across:
        pick = np.clip(at + sheet.slant * along, 0, 1) * knots[-1]
        inner, outer = (
            np.stack([np.interp(pick, knots, side[:, k]) for k in (0, 1)], axis=-1)
            for side in (sheet.inner, sheet.outer)
        )
        paths = inner + (outer - inner) * along[:, None]
    else:
        chosen = (along * knots[-1]).round().astype(int)
        paths = sheet.inner[chosen] + (sheet.outer - sheet.inner)[chosen] * at[..., None]
    swing = wave * np.sin(along * 15 + rng.normal(0, 0.5, (count, 1)) + 3 * at) * np.minimum(1, 2 * along)
    paths = paths + swing[..., None] * (1.0, 0.25) + rng.normal(0, 0.3, (count, 1, 2))

    shine = 0.3 + 0.07 * np.sin(9 * at) + rng.normal(0, 0.06, (count, 1))
    gloss = np.exp(-(((along - shine) / 0.16) ** 2))
    level = rng.normal(0.86, 0.16, (count, 1)) + 0.36 * light * paths[..., 0] / 100 + 0.42 * gloss - 0.25 * along**5
    tint = rng.normal(0, 4, (count, 1)) * np.array((1, 0, 0))
    colours = (np.array(colour) + tint)[:, None] * level[..., None]
    colours += (np.array((255, 238, 205)) - colours) * (0.16 * gloss[..., None])
    canvas.strands(paths, colours[:, :-1], 0.75, clip=clip)


def draw_back_hair(canvas: Canvas, head: Head, params: FaceParameters) -> None:
    """What hangs behind the neck; drawn before it."""
    person = params.person
    if person.hair_style not in ("long", "bob", "bun") and not (person.hair_style == "curls" and not person.male):
        return
    w = head.half_width
    rng = np.random.default_rng(person.texture)
    if person.hair_style == "bun":
        if params.sitting.hat == "none":
            spot = curve(ellipse(8 * person.parting, 22, 17, 14)[::6], closed=True)
            half = len(spot) // 2
            _comb(canvas, _Sheet(spot[:half], spot[half:][::-1]), head.hair, rng, wave=0.4, light=params.sitting.light)
        return
    if person.hair_style == "curls":
        _draw_curls(canvas, head, params, back=True)
        return
    low = 212 if person.hair_style == "long" else 158 + 8 * person.face_length
    left = curve(points((-w * 0.2, 40), (-w - 8, 90), (-w - 9, 140), (-w * (1.12 if low > 200 else 0.8), low)))
    _comb(canvas, _Sheet(left, left * (-1, 1)), scaled(head.hair, 0.6), rng, wave=2 * person.wavy, light=0, count=90)


def draw_hair(canvas: Canvas, head: Head, params: FaceParameters) -> None:
    """What frames the face and covers the skull; drawn over the face, below a hat."""
    person, w, colour = params.person, head.half_width, head.hair
    light = params.sitting.light
    rng = np.random.default_rng(person.texture + 1)
    style = person.hair_style
    wave = 1.7 if person.wavy else 0.25
    part = 11 * person.parting + head.turn * 0.4
    if style == "bald":
        for side in (-1, 1):
            dome = ellipse(side * w * 0.35 * np.sign(light) * side, 52, 9, 5)
            canvas.fill(dome, head.light, 0.35, blur=3)
        return
    if style == "curls":
        _draw_curls(canvas, head, params, back=False)
    elif style in ("crop", "receding"):
        hairline = 68.0 if style == "crop" else 57.0
        corner = 0.66 if style == "receding" else 0.79
        deep = 7.0 if style == "receding" else 2.0
        inner = curve(
            points(
                (-w - 0.5, 100),
                (-w * 0.95, 82),
                (-w * corner, hairline + 4 - deep),
                (part - 14, hairline - deep * 0.6),
                (part, hairline - 3 + deep * 0.2),
                (part + 16, hairline - 1 - deep * 0.6),
                (w * corner, hairline + 4 - deep),
                (w * 0.95, 82),
                (w + 0.5, 100),
            )
        )
        height = 25 + 6 * person.ears if style == "crop" else 36
        outer = curve(
            points(
                (-w - 2, 98),
                (-w - 4, 80),
                (-w * 0.93, 55),
                (-w * 0.55, height + 7),
                (part * 0.5, height),
                (w * 0.55, height + 6),
                (w * 0.93, 55),
                (w + 4, 80),
                (w + 2, 98),
            )
        )
        slant = 0.16 * float(np.sign(person.parting))
        _comb(
            canvas, _Sheet(inner, outer, across=True, slant=slant), colour, rng, wave=wave * 0.7, light=light, count=330
        )
    else:
        tail = {"long": 205.0, "bob": 150 + 8 * person.face_length, "bun": 96.0}[style]
        out = {"long": 9.0, "bob": 10.0, "bun": 2.0}[style]
        for side in (-1, 1):
            crown = points((part, 29), (part + (side * w - part) * 0.52, 35), (side * (w * 0.92 + out * 0.4), 58))
            temple = points((part, 52), (part + (side * w - part) * 0.45, 60), (side * w * 0.86, 84))
            if style == "bun":
                outer = np.concatenate([crown, points((side * (w + 2), 82), (side * (w + 1), tail))])
                inner = np.concatenate([temple, points((side * (w - 2), 92), (side * w, tail))])
            else:
                curl = -8 if style == "bob" else 5
                outer = np.concatenate(
                    [
                        crown,
                        points((side * (w + out), 100), (side * (w + out + 2), 138), (side * (w + out + curl), tail)),
                    ]
                )
                inner = np.concatenate(
                    [
                        temple,
                        points((side * (w - 3.5), 108), (side * (w - 1), 138), (side * (w - 5 + curl * 0.4), tail)),
                    ]
                )
            inner_edge, outer_edge = curve(inner), curve(outer)
            if person.wavy and style != "bun":
                along = np.linspace(0, 1, len(outer_edge))
                billow = side * 4.5 * np.sin(along * 19 + 1.5) * np.clip(3 * along - 1.2, 0, 1)
                inner_edge = inner_edge + np.stack([0.7 * billow, np.zeros(len(along))], axis=1)
                outer_edge = outer_edge + np.stack([billow, np.zeros(len(along))], axis=1)
            _comb(canvas, _Sheet(inner_edge, outer_edge), colour, rng, wave=wave, light=light, count=190)
            if style != "bun":
                _draw_ends(canvas, inner_edge[-1], outer_edge[-1], colour, rng=rng, wave=wave)
    if person.bangs:
        half = points((-w * 0.86, 60), (-w * 0.4, 47), (part, 44), (w * 0.4, 47), (w * 0.86, 60))
        ends = points((-w * 0.93, 94), (-w * 0.42, 90.5), (part * 0.5, 88), (w * 0.42, 90.5), (w * 0.93, 94))
        jagged = curve(ends) + np.stack([np.zeros(41), rng.normal(0, 1.3, 41)], axis=1)
        slant = 0.05 * float(np.sign(person.parting))
        _comb(
            canvas,
            _Sheet(curve(half), jagged, across=True, slant=slant),
            colour,
            rng,
            wave=wave * 0.5,
            light=light,
            count=230,
        )


def _draw_ends(
    canvas: Canvas, inner: Points, outer: Points, colour: Colour, *, rng: np.random.Generator, wave: float
) -> None:
    """Locks of different lengths where a sheet would end as if cut with a ruler."""
    for at in np.linspace(0.04, 0.96, 9):
        root = inner + (outer - inner) * at
        fall = rng.uniform(7, 16)
        bend = rng.normal(0, 2) + wave * rng.choice([-1.5, 1.5])
        lock = curve(root + points((0, -7), (bend, fall * 0.4), (0.3 * bend, fall)))
        canvas.fill(ribbon(lock, 4.5, 3.6, 0.3), scaled(colour, rng.normal(0.68, 0.08)), blur=0.2)


def _draw_curls(canvas: Canvas, head: Head, params: FaceParameters, *, back: bool) -> None:
    """A bumpy mass of ringlets: behind the face down to the jaw, or over the top of the forehead."""
    person, w = params.person, head.half_width
    rng = np.random.default_rng(person.texture + 5 + back)
    big = 0.0 if person.male else 1.0
    radius_x, radius_y = w + 5 + 12 * big, 55 + 9 * big
    angle = np.linspace(-0.08, np.pi + 0.08, 60)
    bumps = 1 + 0.035 * np.abs(np.sin(angle * 8.5))
    if back:
        right = points((0, 30), (w, 44), (radius_x + 1, 92), (radius_x + 2, 132), (w * 0.75, 160), (0, 150))
        body = curve(mirrored(right), closed=True)
        inside = canvas.mask(body, blur=2)
        canvas.fill(body, scaled(head.hair, 0.45), blur=1)
        spots = rng.uniform((-radius_x, 30), (radius_x, 160), (420, 2))
    else:
        outer = np.stack([radius_x * np.cos(angle) * bumps, 88 - radius_y * np.sin(angle) * bumps], axis=1)
        inner = np.stack([w * 0.93 * np.cos(angle), 88 - 23 * np.abs(np.sin(angle)) ** 0.7], axis=1)
        body = np.concatenate([outer, inner[::-1]])
        inside = canvas.mask(body, blur=1.2)
        canvas.fill(body, scaled(head.hair, 0.5), blur=0.8)
        pick, reach = rng.integers(0, 60, 420), rng.uniform(0, 1.02, 420)[:, None]
        spots = inner[pick] * (1 - reach) + outer[pick] * reach
    turns = np.linspace(0, 1.7 * np.pi, 9)
    phase = turns + rng.uniform(0, 6.3, (len(spots), 1))
    radius = rng.uniform(2.2, 4.2, (len(spots), 1)) * (0.35 + turns / 8)
    rings = spots[:, None] + radius[..., None] * np.stack([np.cos(phase), np.sin(phase)], axis=-1)
    lit = 0.9 + 0.3 * params.sitting.light * spots[:, :1] / 50 + 0.4 * (74 - spots[:, 1:]) / 60
    level = rng.normal(0.98, 0.16, (len(spots), 1)) * (0.65 if back else lit)
    canvas.strands(rings, np.array(head.hair) * level, 1.1, clip=inside)
