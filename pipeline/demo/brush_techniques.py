"""Paintings made of marks laid over a motif: dots, short strokes, swirls, hatching (our choice throughout).

Each technique is a pure function of a generator and a size (width, height) in pixels; it returns RGB uint8
[height, width, 3]. Marks are drawn at twice the size and averaged down.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipeline.demo import motifs
from pipeline.demo.motifs import Colours, Field, noise, softened

Picture = NDArray[np.uint8]


def finished(picture: Colours) -> Picture:
    """Colours 0…1 as 8-bit RGB."""
    eight_bit: Picture = (np.clip(picture, 0, 1) * 255).round().astype(np.uint8)
    return eight_bit


def relief(picture: Colours, height: Field, strength: float) -> Colours:
    """Light from the upper left over paint of thickness ``height`` (impasto)."""
    slope = np.gradient(height, axis=0) + np.gradient(height, axis=1)
    light = np.clip(-slope * strength, -0.25, 0.25)
    lit: Colours = np.clip(picture * (1 + light[..., None]) + 0.35 * np.maximum(light, 0)[..., None], 0, 1)
    return lit


def canvas_weave(rng: np.random.Generator, size: tuple[int, int], strength: float) -> Field:
    """A factor [height, width] around 1: the threads of linen."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    threads = np.sin(x * 2.1 + 0.3 * noise(rng, size, 30)) + np.sin(y * 2.1 + 0.3 * noise(rng, size, 30))
    weave: Field = 1 + strength * (0.5 * threads + 0.5 * rng.normal(0, 1, threads.shape))
    return weave


def flow_lines(starts: NDArray[np.float64], angle: Field, steps: int, stride: float) -> NDArray[np.float64]:
    """Paths [n, steps, 2] (x, y in pixels) that follow ``angle`` (radians) from ``starts`` [n, 2]."""
    height, width = angle.shape
    position = starts.copy()
    path = [position]
    for _ in range(steps - 1):
        column = np.clip(position[:, 0], 0, width - 1).astype(int)
        row = np.clip(position[:, 1], 0, height - 1).astype(int)
        theta = angle[row, column]
        position = position + stride * np.stack([np.cos(theta), np.sin(theta)], axis=1)
        path.append(position)
    return np.stack(path, axis=1)


def _sampled(picture: Field | Colours, places: NDArray[np.float64]) -> NDArray[np.float64]:
    row = np.clip(places[:, 1], 0, picture.shape[0] - 1).astype(int)
    column = np.clip(places[:, 0], 0, picture.shape[1] - 1).astype(int)
    values: NDArray[np.float64] = picture[row, column]
    return values


def _strokes(
    size: tuple[int, int], under: Colours, layers: list[tuple[NDArray[np.float64], NDArray[np.float64], float]]
) -> tuple[Colours, Field]:
    """Draw layers of (paths, colours, width in pixels) over ``under``; returns the picture and a paint height."""
    large = (size[0] * 2, size[1] * 2)
    image = Image.fromarray(finished(under)).resize(large)
    thickness = Image.new("L", large, 90)
    draw, raise_ = ImageDraw.Draw(image), ImageDraw.Draw(thickness)
    for paths, colours, width in layers:
        tones = (np.clip(colours, 0, 1) * 255).round().astype(int).tolist()
        levels = (np.arange(len(paths)) * 61 % 130 + 90).tolist()
        line_width = max(1, round(2 * width))
        half = width
        for path, tone, level in zip((paths * 2).reshape(len(paths), -1).tolist(), tones, levels, strict=True):
            draw.line(path, fill=tuple(tone), width=line_width, joint="curve")
            raise_.line(path, fill=level, width=line_width, joint="curve")
            if width > 1.5:
                for x, y in (path[:2], path[-2:]):
                    draw.ellipse((x - half, y - half, x + half, y + half), fill=tuple(tone))
                bristle = max(1, line_width // 4)
                raise_.line([c + bristle for c in path], fill=level - 60, width=bristle)
                lighter = tuple(min(255, t + 22) for t in tone)
                draw.line([c - bristle for c in path], fill=lighter, width=bristle)
    picture = np.asarray(image.reduce(2), dtype=np.float64) / 255
    return picture, np.asarray(thickness.reduce(2), dtype=np.float64) / 255


def pointillism(rng: np.random.Generator, size: tuple[int, int]) -> Picture:
    """Dots of divided colour on a light ground: each tone broken into neighbours of it and its complement."""
    scene = motifs.field_at_noon(rng, size) if rng.random() < 0.5 else motifs.harbour_at_dusk(rng, size)
    large = (size[0] * 3, size[1] * 3)
    image = Image.fromarray(finished(0.35 * scene + 0.65 * motifs.colour("efe6d2"))).resize(large)
    draw = ImageDraw.Draw(image)
    unit = max(size) / 320
    for relative, share in ((3.1, 0.55), (2.2, 0.6), (1.5, 0.5)):
        radius = relative * unit
        count = int(share * size[0] * size[1] / (radius * radius * 1.5))
        places = rng.uniform((0, 0), size, (count, 2))
        base = _sampled(scene, places)
        grey = base.mean(1, keepdims=True)
        vivid = grey + (base - grey) * rng.uniform(1.2, 2.0, (count, 1))
        vivid += rng.normal(0, 0.1, (count, 3))
        opposite = rng.random((count, 1)) < 0.16
        vivid = np.where(opposite, np.clip(2 * grey - vivid, 0, 1) * 0.9 + 0.08, vivid)
        tones = (np.clip(vivid, 0, 1) * 255).round().astype(int).tolist()
        sizes = (radius * 3 * rng.uniform(0.75, 1.15, count)).tolist()
        for (x, y), r, tone in zip((places * 3).tolist(), sizes, tones, strict=True):
            draw.ellipse((x - r, y - r, x + r, y + r), fill=tuple(tone))
    return np.asarray(image.reduce(3))


def impressionism(rng: np.random.Generator, size: tuple[int, int]) -> Picture:
    """Short strokes of broken colour across the gradients of the motif, from broad to fine."""
    scene = motifs.harbour_at_dusk(rng, size) if rng.random() < 0.5 else motifs.vase_with_flowers(rng, size)
    luminance = softened(scene, 4).mean(2)
    down, across = np.gradient(luminance)
    angle = np.arctan2(across, -down) + 0.5 * noise(rng, size, 5)
    angle = np.where(np.hypot(down, across) < 0.004, 0.35 * noise(rng, size, 4), angle)
    unit = max(size) / 320
    layers = []
    for width, steps, density in ((5.5, 4, 1.3), (3.4, 4, 1.3), (2.0, 4, 0.9)):
        count = int(density * size[0] * size[1] / (width * width * unit * unit * steps * 1.2))
        starts = rng.uniform((0, 0), size, (count, 2))
        tones = _sampled(softened(scene, width / 2), starts)
        grey = tones.mean(1, keepdims=True)
        tones = grey + (tones - grey) * 1.25 + rng.normal(0, 0.07, (count, 1)) + rng.normal(0, 0.05, (count, 3))
        layers.append((flow_lines(starts, angle, steps, width * unit), tones, width * unit))
    picture, height = _strokes(size, scene * 0.8 + 0.1, layers)
    return finished(relief(picture, height, 0.9) * canvas_weave(rng, size, 0.02)[..., None])


def expressionism(rng: np.random.Generator, size: tuple[int, int]) -> Picture:
    """Long thick strokes winding round a few whirls, in strong and dissonant colour."""
    scene = motifs.field_at_noon(rng, size) if rng.random() < 0.5 else motifs.portrait_in_lamplight(rng, size)
    x, y = motifs.unit_grid(size)
    ratio = size[1] / size[0]
    angle = 0.5 * noise(rng, size, 3)
    turn = np.zeros_like(angle)
    for _ in range(5):
        at_x, at_y, reach = rng.uniform(0, 1), rng.uniform(0, 0.75), rng.uniform(0.1, 0.24)
        near = np.exp(-((x - at_x) ** 2 + ((y - at_y) * ratio) ** 2) / reach**2)
        angle = np.where(near > turn, np.arctan2((y - at_y) * ratio, x - at_x) + 1.7, angle)
        turn = np.maximum(turn, near * (near > 0.2))
    luminance = scene.mean(2)
    palette = np.stack(
        [motifs.colour(c) for c in ("141a4a", "1f4fb0", "2f8f6a", "d8342c", "f08a1c", "f8d83c", "fbf3c8")]
    )
    place = np.clip((luminance - luminance.min()) / np.ptp(luminance) + 0.1 * noise(rng, size, 8), 0, 1) * 6
    strong = np.stack([np.interp(place, np.arange(7), palette[:, k]) for k in range(3)], axis=-1)
    strong = 0.72 * strong + 0.28 * scene
    unit = max(size) / 320
    layers = []
    for width, steps, density in ((6.5, 12, 2.0), (4.0, 12, 1.7), (2.0, 10, 0.5)):
        count = int(density * size[0] * size[1] / (width * width * unit * unit * steps * 0.8))
        starts = rng.uniform((-10, -10), (size[0] + 5, size[1] + 5), (count, 2))
        tones = _sampled(strong, starts) + rng.normal(0, 0.09, (count, 1)) + rng.normal(0, 0.05, (count, 3))
        if width < 3:
            tones = tones * 0.45
        layers.append((flow_lines(starts, angle, steps, width * unit * 0.8), tones, width * unit))
    picture, height = _strokes(size, strong, layers)
    return finished(relief(picture, height, 1.6))


def engraving(rng: np.random.Generator, size: tuple[int, int]) -> Picture:
    """Sepia line work on paper: hatchings in four directions, each swelling where the motif is darker."""
    scene = motifs.portrait_in_lamplight(rng, size) if rng.random() < 0.5 else motifs.harbour_at_dusk(rng, size)
    tone = np.clip((scene.mean(2) - 0.08) * 1.25, 0, 1) ** 0.8
    large = (size[0] * 2, size[1] * 2)
    light = np.asarray(Image.fromarray(tone.astype(np.float32)).resize(large, Image.Resampling.BICUBIC))
    y, x = np.mgrid[0 : large[1], 0 : large[0]] * (160 / max(size))
    down, across = np.gradient(softened(np.repeat(tone[..., None], 3, axis=2), 6)[..., 0])
    bend = np.asarray(Image.fromarray((down + across).astype(np.float32)).resize(large, Image.Resampling.BICUBIC)) * 60
    ink = np.zeros(light.shape)
    for angle, pitch, threshold in ((0.45, 5.2, 0.95), (-0.6, 5.6, 0.62), (1.35, 4.8, 0.4), (-0.05, 4.2, 0.22)):
        wobble = 0.5 * noise(rng, large, 5) + bend
        phase = (x * np.sin(angle) + y * np.cos(angle) + wobble) / pitch
        stroke = np.abs(phase - np.round(phase)) * 2
        swell = np.clip((threshold - light) / threshold, 0, 1) ** 0.8 * 0.62
        ink = np.maximum(ink, np.clip((swell - stroke) * 6 + 0.3, 0, 1) * (light < threshold))
    edge_down, edge_across = np.gradient(light)
    ink = np.maximum(ink, np.clip(np.hypot(edge_down, edge_across) * 12 - 0.5, 0, 1))
    ink = np.asarray(Image.fromarray(ink.astype(np.float32)).reduce(2), dtype=np.float64)
    paper = motifs.colour("eadbb8") * (1 + 0.035 * noise(rng, size, 6, 5))[..., None]
    plate_x, plate_y = motifs.unit_grid(size)
    border = np.minimum(np.minimum(plate_x, 1 - plate_x) * size[0], np.minimum(plate_y, 1 - plate_y) * size[1])
    ink = np.where(border < 9, 0, ink) + 0.8 * (np.abs(border - 9) < 0.9)
    return finished(paper + (motifs.colour("3a2216") - paper) * np.clip(ink, 0, 1)[..., None] * 0.92)
