"""Paintings built of areas: facets, grids, outlined waves, soft fields, ornaments, drips (our choice throughout).

Each technique is a pure function of a generator and a size (width, height) in pixels; it returns RGB uint8
[height, width, 3].
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from pipeline.demo import motifs
from pipeline.demo.brush_techniques import Picture, canvas_weave, finished, relief
from pipeline.demo.motifs import colour, noise


def cubism(rng: np.random.Generator, size: tuple[int, int]) -> Picture:
    """Facets of ochre, grey and slate: straight cuts that shift the motif and shade it from one edge to the other."""
    scene = motifs.portrait_in_lamplight(rng, size) if rng.random() < 0.5 else motifs.vase_with_flowers(rng, size)
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    facet = np.zeros((height, width), dtype=np.int64)
    edge = np.full((height, width), 1e3)
    for cut in range(15):
        angle = rng.choice([0.35, 1.1, 1.95, 2.7]) + rng.normal(0, 0.16)
        at = (rng.uniform(0.08, 0.92) * width, rng.uniform(0.08, 0.92) * height)
        distance = (x - at[0]) * np.sin(angle) - (y - at[1]) * np.cos(angle)
        if rng.random() < 0.25:
            distance = np.hypot(x - at[0], y - at[1]) - rng.uniform(0.1, 0.25) * width
        # A cut ends at another one, as a facet does; only the first few go all the way across.
        along = (x - at[0]) * np.cos(angle) + (y - at[1]) * np.sin(angle)
        here = np.ones_like(facet, dtype=bool) if cut < 3 else np.abs(along) < rng.uniform(0.2, 0.5) * width
        facet = np.where(here & (distance > 0), facet * 2 + 1, facet * 2)
        edge = np.where(here, np.minimum(edge, np.abs(distance)), edge)
    _, facet = np.unique(facet, return_inverse=True)
    facet = facet.reshape(height, width)
    count = int(facet.max()) + 1
    shift = rng.normal(0, 0.045 * width, (count, 2))[facet]
    row, column = (
        np.clip(v, 0, n - 1).astype(int) for v, n in ((y + shift[..., 1], height), (x + shift[..., 0], width))
    )
    tone = scene[row, column].mean(2)
    palette = np.stack([colour(c) for c in ("2c2a2e", "6b4f35", "8c8577", "b58a4e", "d3bd92", "efe6cf")])
    place = np.clip(tone * 1.15 + rng.normal(0, 0.13, count)[facet], 0, 1) * 5
    picture = np.stack([np.interp(place, np.arange(6), palette[:, k]) for k in range(3)], axis=-1)
    picture += rng.normal(0, 0.045, (count, 3))[facet] + 0.22 * (scene[row, column] - tone[..., None])
    slope = rng.normal(0, 1, (count, 2))[facet]
    span = (slope[..., 0] * (x / width - 0.5) + slope[..., 1] * (y / height - 0.5))[..., None]
    picture = picture * (1 + 0.4 * span)
    picture *= (1 - 0.42 * np.exp(-edge / (0.028 * width)) * (np.sin(facet * 2.4) > -0.3))[..., None]
    picture = np.where((edge < 0.9)[..., None], picture * 0.35, picture)
    hatch = noise(rng, (width, max(4, height // 5)), 70)
    bristles = np.asarray(
        Image.fromarray(hatch.astype(np.float32)).resize(size, Image.Resampling.BICUBIC), dtype=np.float64
    )
    return finished(relief(picture, 0.12 * bristles, 0.8) * canvas_weave(rng, size, 0.025)[..., None])


def de_stijl(rng: np.random.Generator, size: tuple[int, int]) -> Picture:
    """Black bars and rectangles in white, greys and the three primaries, hand-painted."""
    width, height = size
    tones = [colour(c) for c in ("f1ece0", "f1ece0", "e6e2d6", "d9dadb", "c8281e", "1f3f94", "efc21a", "1c1a1a")]
    picture = np.empty((height, width, 3))
    picture[:] = tones[0]
    bars = np.zeros((height, width), dtype=bool)
    thickness = max(2, round(max(size) / 46))
    strokes = np.zeros((height, width))
    queue = [(0, 0, width, height, 0)]
    while queue:
        left, top, right, bottom, depth = queue.pop()
        wide, tall = right - left, bottom - top
        small = min(wide, tall) < 0.2 * min(size)
        if depth >= 6 or (small and rng.random() < 0.7) or max(wide, tall) < 0.25 * min(size):
            tone = tones[int(rng.choice(8, p=(0.22, 0.12, 0.08, 0.08, 0.17, 0.14, 0.14, 0.05)))]
            picture[top:bottom, left:right] = tone + rng.normal(0, 0.012, 3)
            lines = (1, tall) if rng.random() < 0.5 else (wide, 1)
            strokes[top:bottom, left:right] = rng.normal(0, 1, lines[::-1])
            continue
        if wide > tall * rng.uniform(0.7, 1.4):
            cut = left + round(wide * rng.uniform(0.25, 0.75))
            bars[top:bottom, max(0, cut - thickness // 2) : cut + (thickness + 1) // 2] = True
            queue += [(left, top, cut, bottom, depth + 1), (cut, top, right, bottom, depth + 1)]
        else:
            cut = top + round(tall * rng.uniform(0.25, 0.75))
            bars[max(0, cut - thickness // 2) : cut + (thickness + 1) // 2, left:right] = True
            queue += [(left, top, right, cut, depth + 1), (left, cut, right, bottom, depth + 1)]
    picture[bars] = colour("191717")
    cracks = np.abs(noise(rng, size, 18, 3)) < 0.035
    picture = picture * (1 + 0.012 * noise(rng, size, 10, 4) + 0.02 * strokes)[..., None]
    picture = np.where((cracks & ~bars)[..., None], picture * 0.93, picture)
    return finished(picture * canvas_weave(rng, size, 0.018)[..., None])


def ukiyo_e(rng: np.random.Generator, size: tuple[int, int]) -> Picture:
    """A woodblock print: graded sky, a mountain, and outlined waves with foam in a few flat colours."""
    scale = 2
    width, height = size[0] * scale, size[1] * scale
    _, y = motifs.unit_grid((width, height))
    sky = colour("e9ddbd") + (colour("4a6f8f") - colour("e9ddbd")) * np.clip(0.28 - y, 0, 0.28)[..., None] / 0.28
    sky += (colour("dfa58c") - sky) * np.exp(-(((y - 0.44) / 0.1) ** 2))[..., None] * 0.7
    image = Image.fromarray(finished(sky))
    draw = ImageDraw.Draw(image)
    ink, foam = (26, 34, 58), (244, 238, 222)
    line = max(2, round(width / 190))
    peak = rng.uniform(0.3, 0.7)
    sun = (peak + rng.choice([-0.24, 0.24])) * width, 0.2 * height, 0.075 * min(width, height)
    draw.ellipse((sun[0] - sun[2], sun[1] - sun[2], sun[0] + sun[2], sun[1] + sun[2]), fill=(200, 62, 44))
    t = np.linspace(-1, 1, 81)
    slope = 0.27 + 0.33 * np.abs(t) ** 0.75
    mountain = np.stack([(peak + 0.42 * t) * width, slope * height], axis=1)
    draw.polygon([*map(tuple, mountain.tolist())], fill=(78, 100, 120))
    cap = mountain[np.abs(t) < 0.36]
    teeth = np.stack([np.linspace(cap[-1, 0], cap[0, 0], 15), cap[0, 1] + (np.arange(15) % 2) * 0.05 * height], axis=1)
    draw.polygon([*map(tuple, np.concatenate([cap, teeth]).tolist())], fill=foam)
    draw.line([*map(tuple, mountain.tolist())], fill=ink, width=line, joint="curve")
    blues = [(138, 172, 182), (84, 130, 160), (48, 92, 138), (30, 62, 110), (24, 48, 88)]
    for row, blue in enumerate(blues):
        base = (0.5 + 0.11 * row) * height
        period, rise, phase = (0.22 + 0.08 * row) * width, (0.05 + 0.022 * row) * height, rng.uniform(0, 6.3)
        theta = np.linspace(-1, width / period * 2 * np.pi + 7, 420)
        # A trochoid leans forward like a breaking wave.
        crest = np.stack(
            [(theta - phase) * period / (2 * np.pi) + 0.75 * rise * np.cos(theta), base - rise * np.sin(theta)], 1
        )
        body = np.concatenate([crest, [(width + 400, height + 9), (-400, height + 9)]])
        draw.polygon([*map(tuple, body.tolist())], fill=blue)
        for k in range(1, 5):
            under = crest + np.array((0, k * rise * 0.36))
            lighter = tuple(min(255, c + 46 - 6 * k) for c in blue)
            draw.line([*map(tuple, under.tolist())], fill=lighter, width=line + 1, joint="curve")
        draw.line([*map(tuple, crest.tolist())], fill=ink, width=line, joint="curve")
        top = np.sin(theta) > 0.55
        for crest_x, crest_y in crest[top][:: 4 - min(2, row // 2)].tolist():
            r = rise * rng.uniform(0.08, 0.24)
            px, py = crest_x + rise * rng.normal(0, 0.35), crest_y + rise * rng.uniform(-0.1, 0.55) - r
            draw.ellipse((px - r, py - r, px + r, py + r), fill=foam, outline=ink, width=max(1, line // 2))
        for _ in range(10):
            px, py, r = rng.uniform(0, width), base - rise * rng.uniform(0.9, 1.6), rise * rng.uniform(0.02, 0.06)
            draw.ellipse((px - r, py - r, px + r, py + r), fill=foam)
    picture = np.asarray(image.reduce(scale), dtype=np.float64) / 255
    down = motifs.unit_grid(size)[1] * 60
    grain = np.sin(down + 3 * noise(rng, size, 3) + 0.4 * noise(rng, size, 40))
    return finished(picture * (1 + 0.025 * grain + 0.03 * noise(rng, size, 50, 2) * 0.6)[..., None])


def color_field(rng: np.random.Generator, size: tuple[int, int]) -> Picture:
    """Two or three soft-edged oblongs that float on a stained ground, in many thin washes."""
    x, y = motifs.unit_grid(size)
    sets = (
        ("7a1f1c", "e0562a", "f2a23a", "4a1420"),
        ("1f2f4f", "2f6f8f", "d8c8a0", "7a3050"),
        ("c8a83c", "e8d070", "d86a3c", "efe3c0"),
    )
    chosen = [colour(c) for c in sets[int(rng.integers(len(sets)))]]
    picture = np.empty((size[1], size[0], 3))
    picture[:] = chosen[0]
    picture *= (1 + 0.1 * noise(rng, size, 4, 5))[..., None]
    bounds = (
        np.array([0.06, *np.sort(rng.uniform(0.28, 0.75, 1)), 0.94])
        if rng.random() < 0.4
        else np.array([0.05, 0.3, 0.62, 0.95])
    )
    for number, (top, bottom) in enumerate(pairwise(bounds.tolist())):
        for wash in range(7):
            wander = 0.012 * noise(rng, size, 5, 4)
            side = np.minimum(x - 0.07, 0.93 - x) + wander
            level = np.minimum(y - top - 0.015, bottom - 0.015 - y) + wander
            soft = 1 / (1 + np.exp(-np.minimum(side, level) * rng.uniform(90, 220)))
            streak = 1 + 0.5 * noise(rng, (size[0], size[1]), 3 + 4 * wash, 3)
            tone = chosen[number % 3 + 1] + rng.normal(0, 0.045, 3)
            picture += (tone - picture) * np.clip(0.32 * soft * streak, 0, 1)[..., None]
    picture = relief(picture, 0.05 * noise(rng, size, 60, 2), 1.0)
    return finished(picture * canvas_weave(rng, size, 0.035)[..., None])


def art_nouveau(rng: np.random.Generator, size: tuple[int, int]) -> Picture:
    """Whiplash stems, lilies and a patterned halo, flat colours between dark and golden outlines."""
    scale = 2
    width, height = size[0] * scale, size[1] * scale
    short = min(width, height)
    ground = finished(np.full((height, width, 3), colour("e8d5a4")))
    image = Image.fromarray(ground)
    draw = ImageDraw.Draw(image)
    ink, gold = (58, 38, 30), (196, 148, 58)
    teal, rose, cream, green = (60, 112, 108), (196, 100, 88), (248, 236, 206), (104, 128, 70)
    middle = np.array((width * 0.5, height * rng.uniform(0.34, 0.44)))
    for ring in range(9, 0, -1):
        radius = short * 0.05 * ring
        tone = (teal, cream, gold, rose)[ring % 4]
        draw.ellipse((*(middle - radius), *(middle + radius)), fill=tone, outline=ink, width=3)
        beads = 8 + 5 * ring
        for k in range(beads):
            angle = 2 * np.pi * k / beads + ring
            at = middle + (radius - short * 0.025) * np.array((np.cos(angle), np.sin(angle)))
            bead = short * 0.0085
            draw.ellipse((*(at - bead), *(at + bead)), fill=(gold, ink, cream, teal)[ring % 4])
    t = np.linspace(0, 1, 70)
    for stem in range(13):
        root = np.array((rng.uniform(-0.05, 1.05) * width, height * 1.03))
        sway, turns, reach = rng.uniform(0.1, 0.3) * rng.choice([-1, 1]), rng.uniform(0.6, 1.25), rng.uniform(0.45, 1.0)
        curl = sway * width * np.sin(2 * np.pi * turns * t) * t
        path = np.stack([root[0] + curl + (middle[0] - root[0]) * 0.4 * t, root[1] - reach * height * t], axis=1)
        wide = np.interp(t, (0, 1), (short * 0.034, short * 0.006))
        for extra, tone in ((7, ink), (0, (green, teal, gold)[stem % 3])):
            for (px, py), w in zip(path.tolist(), wide.tolist(), strict=True):
                r = (w + extra) / 2
                draw.ellipse((px - r, py - r, px + r, py + r), fill=tone)
        draw.line([*map(tuple, (path - (short * 0.004, 0)).tolist())], fill=cream, width=2)
        for node in (18, 34, 48):
            _leaf(draw, path[node], rng.uniform(-2.6, -0.5), short * rng.uniform(0.07, 0.13), ((122, 146, 84), ink))
        for petal in np.linspace(-2.7, -0.45, 5):
            _leaf(draw, path[-1], petal, short * 0.11, (((226, 138, 116), ink), (cream, ink))[stem % 2])
    frame = round(short * 0.035)
    for inset, border, thick in (
        (0, ink, frame),
        (frame // 3, gold, frame // 2),
        (frame, ink, 4),
        (frame + 8, cream, 4),
    ):
        draw.rectangle((inset, inset, width - 1 - inset, height - 1 - inset), outline=border, width=thick)
    picture = np.asarray(image.reduce(scale), dtype=np.float64) / 255
    return finished(picture * (1 + 0.03 * noise(rng, size, 8, 5) + 0.015 * rng.normal(0, 1, size[::-1]))[..., None])


def _leaf(
    draw: ImageDraw.ImageDraw,
    root: NDArray[np.float64],
    angle: float,
    length: float,
    tones: tuple[tuple[int, int, int], ...],
) -> None:
    t = np.linspace(0, 1, 16)
    spine = np.stack([t * length, 0.22 * length * np.sin(np.pi * t * 0.9)], axis=1)
    half = 0.17 * length * np.sin(np.pi * t) ** 0.8
    outline = np.concatenate([spine + np.stack([0 * t, half], 1), (spine - np.stack([0 * t, half], 1))[::-1]])
    cos, sin = np.cos(angle), np.sin(angle)
    rotation = np.array([[cos, sin], [-sin, cos]])
    fill, ink = tones
    draw.polygon([*map(tuple, (outline @ rotation + root).tolist())], fill=fill, outline=ink, width=3)
    draw.line([*map(tuple, (spine @ rotation + root).tolist())], fill=ink, width=2)


def abstract_expressionism(rng: np.random.Generator, size: tuple[int, int]) -> Picture:
    """Paint flung and dripped: long looping threads that swell and thin, and spatter, on raw canvas."""
    scale = 2
    width, height = size[0] * scale, size[1] * scale
    ground = colour("d9c9a8") * (1 + 0.05 * noise(rng, (width // 2, height // 2), 5, 4))[..., None]
    image = Image.fromarray(finished(ground)).resize((width, height))
    draw = ImageDraw.Draw(image)
    paint = ((28, 26, 26), (238, 234, 222), (120, 122, 118), (168, 52, 36), (30, 62, 112), (222, 172, 44), (28, 26, 26))
    unit = max(width, height) / 640
    for throw in range(64):
        tone = paint[int(rng.integers(len(paint)))] if throw > 10 else paint[throw % 3]
        length = int(rng.integers(90, 260))
        turning = np.cumsum(rng.normal(0, 0.05, length)) + rng.normal(0, 0.03)
        heading = rng.uniform(0, 6.3) + np.cumsum(turning * 0.35)
        pace = unit * rng.uniform(3.0, 7.0)
        steps = pace * np.stack([np.cos(heading), np.sin(heading)], axis=1)
        path = np.cumsum(steps, axis=0) + rng.uniform((-0.1 * width, -0.1 * height), (1.1 * width, 1.1 * height))
        swell = (
            unit * rng.uniform(0.8, 3.4) * (0.35 + np.abs(np.sin(np.linspace(0, rng.uniform(3, 14), length)))) ** 1.5
        )
        for (px, py), (qx, qy), r in zip(path.tolist(), path[1:].tolist(), swell.tolist(), strict=False):
            draw.line((px, py, qx, qy), fill=tone, width=max(1, round(2 * r)))
            draw.ellipse((px - r, py - r, px + r, py + r), fill=tone)
        drops = path[rng.integers(0, length, 22)] + rng.normal(0, 14 * unit, (22, 2))
        for (px, py), r in zip(drops.tolist(), (unit * rng.exponential(1.5, 22)).tolist(), strict=True):
            draw.ellipse((px - r, py - r, px + r, py + r), fill=tone)
    thickness = np.asarray(image.convert("L").filter(ImageFilter.GaussianBlur(1)).reduce(scale), dtype=np.float64) / 255
    picture = np.asarray(image.reduce(scale), dtype=np.float64) / 255
    return finished(relief(picture, thickness, 0.35) * canvas_weave(rng, size, 0.03)[..., None])
