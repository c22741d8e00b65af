"""What the procedural paintings show: small scenes in smooth colour, for the techniques to render (our choice)."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Colours = NDArray[np.float64]  # [height, width, 3], 0…1
Field = NDArray[np.float64]  # [height, width]


def noise(rng: np.random.Generator, size: tuple[int, int], cells: float, octaves: int = 1) -> Field:
    """Smooth noise [height, width] of standard deviation about 1, ``cells`` bumps over the longer side."""
    width, height = size
    total = np.zeros((height, width))
    for octave in range(octaves):
        step = max(width, height) / (cells * 2**octave)
        grid = rng.normal(0, 1, (int(height / step) + 3, int(width / step) + 3)).astype(np.float32)
        large = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
        total += np.asarray(large, dtype=np.float64) * 0.6**octave
    return total / max(float(total.std()), 1e-9)


def unit_grid(size: tuple[int, int]) -> tuple[Field, Field]:
    """x and y in 0…1 at the middle of every pixel, both [height, width]."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    return (x + 0.5) / size[0], (y + 0.5) / size[1]


def colour(code: str) -> NDArray[np.float64]:
    """``"rrggbb"`` as three numbers 0…1."""
    return np.array([int(code[k : k + 2], 16) / 255 for k in (0, 2, 4)])


def _lay(picture: Colours, where: NDArray[np.floating], tone: NDArray[np.float64]) -> None:
    picture += (tone - picture) * np.clip(where, 0, 1)[..., None]


def field_at_noon(rng: np.random.Generator, size: tuple[int, int]) -> Colours:
    """Sun, hills, a field with rows, and a few trees."""
    x, y = unit_grid(size)
    picture = colour("7fb4e0") + (colour("f6e3b4") - colour("7fb4e0")) * np.clip(y / 0.5, 0, 1)[..., None]
    _lay(picture, np.clip(noise(rng, size, 5, 3) * 0.5 - 0.1 - y, 0, 0.9), colour("fdf6ea"))
    sun_x = rng.uniform(0.2, 0.8)
    distance = np.hypot(x - sun_x, (y - 0.17) * size[1] / size[0])
    _lay(picture, np.exp(-((distance / 0.14) ** 2)), colour("fff0a0"))
    for level, code in ((0.40, "7d8fc4"), (0.47, "5f8f76"), (0.54, "8faa4a")):
        ridge = (
            level + 0.05 * np.sin(x * rng.uniform(4, 9) + rng.uniform(0, 6)) + 0.02 * np.sin(x * 17 + rng.uniform(0, 6))
        )
        _lay(picture, (y - ridge) * 60, colour(code))
    near = (y - 0.58) / 0.42
    rows = np.sin((x - 0.5) / np.maximum(near + 0.12, 0.05) * 16)
    _lay(picture, (y - 0.58) * 40, colour("e0b240"))
    _lay(picture, np.where(y > 0.6, 0.55 * (rows > 0.3), 0), colour("6c8f34"))
    _lay(picture, np.where(y > 0.62, (noise(rng, size, 40) > 1.5) * near, 0), colour("d23c30"))
    for _ in range(4):
        tree_x, foot, tall = rng.uniform(0.05, 0.95), rng.uniform(0.55, 0.68), rng.uniform(0.12, 0.26)
        crown = 1 - np.hypot((x - tree_x) / (0.3 * tall), (y - foot + 0.6 * tall) / (0.55 * tall))
        _lay(picture, (crown + 0.15 * noise(rng, size, 25)) * 8, colour("2f5a38"))
        _lay(picture, (crown - 0.3 - 1.5 * (x - tree_x) / tall) * 3 * (crown > 0), colour("8fb04c"))
        _lay(picture, (np.abs(x - tree_x) < 0.006) * (np.abs(y - foot) < 0.05) * 1.0, colour("4a3026"))
    return np.clip(picture, 0, 1)


def harbour_at_dusk(rng: np.random.Generator, size: tuple[int, int]) -> Colours:
    """A low sun over water, boats and their reflections."""
    x, y = unit_grid(size)
    horizon = rng.uniform(0.42, 0.5)
    top, glow = colour("4a5f9e"), colour("f7b267")
    picture = top + (glow - top) * np.clip(y / horizon, 0, 1)[..., None] ** 1.4
    _lay(picture, np.clip(noise(rng, size, 4, 3) * 0.4 - 0.1, 0, 0.7) * (y < horizon), colour("e8838a"))
    sun_x = rng.uniform(0.25, 0.75)
    ratio = size[1] / size[0]
    _lay(picture, (0.07 - np.hypot(x - sun_x, (y - horizon + 0.12) * ratio)) * 80, colour("fff1b8"))
    _lay(picture, (y - horizon) * 100, colour("35608c"))
    depth = np.clip((y - horizon) / (1 - horizon), 0, 1)
    ripple = np.sin(depth**0.5 * 75 + 2.5 * noise(rng, size, 7))
    _lay(picture, (y > horizon) * (0.35 + 0.3 * ripple), colour("7fa8b8"))
    path = np.exp(-(((x - sun_x) / (0.04 + 0.13 * depth)) ** 2))
    _lay(picture, (y > horizon) * path * (0.45 + 0.55 * ripple), colour("ffd08a"))
    hull_code = ("24304e", "5a2f3c", "2f4a48")
    for k in range(3):
        boat_x, foot, scale = rng.uniform(0.1, 0.9), horizon + 0.06 + 0.15 * k, 0.09 + 0.05 * k
        u, v = (x - boat_x) / scale, (y - foot) * ratio / scale
        _lay(picture, ((np.abs(u) < 1 - 0.9 * v) & (v > 0) & (v < 0.3)) * 1.0, colour(hull_code[k]))
        _lay(picture, ((u > 0.02) & (u < 0.75 * (v + 2.1) / 2) & (v > -2.1) & (v < -0.1)) * 0.95, colour("f3e2c4"))
        _lay(picture, ((u < -0.02) & (u > -0.45 * (v + 1.8) / 2) & (v > -1.8) & (v < -0.1)) * 0.95, colour("d97b4f"))
        _lay(picture, ((np.abs(u) < 0.75) & (v > 0.3) & (v < 1.8)) * 0.4 * (ripple > -0.2), colour(hull_code[k]))
    return np.clip(picture, 0, 1)


def vase_with_flowers(rng: np.random.Generator, size: tuple[int, int]) -> Colours:
    """A bouquet in a vase on a table, fruit beside it."""
    x, y = unit_grid(size)
    x = (x - 0.5) * max(1.0, size[0] / size[1]) + 0.5
    picture = colour("3f5f6e") + (colour("86a08a") - colour("3f5f6e")) * np.clip(x * 0.8, 0, 1)[..., None]
    _lay(picture, np.clip(0.25 * noise(rng, size, 5, 2), 0, 0.4), colour("c9b98a"))
    _lay(picture, (y - 0.8 + 0.03 * np.sin(3 * x)) * 80, colour("b5703c"))
    _lay(picture, ((y > 0.8) & (np.sin(x * 45) * np.sin((y - 0.8) * 90) > 0.1)) * 0.45, colour("e7cfa0"))
    half = 0.1 + 0.055 * np.sin((y - 0.5) * 9)
    inside = (y > 0.52) & (y < 0.88)
    _lay(picture, inside * (half - np.abs(x - 0.5)) * 90, colour("2f5fa0"))
    _lay(picture, inside * np.exp(-(((x - 0.46) / 0.022) ** 2)) * 0.8, colour("d8ecff"))
    _lay(picture, inside * (x - 0.52) * 7 * (np.abs(x - 0.5) < half), colour("182f58"))
    for _ in range(26):
        leaf_x, leaf_y, turn = rng.normal(0.5, 0.17), rng.uniform(0.2, 0.58), rng.uniform(0, np.pi)
        u = (x - leaf_x) * np.cos(turn) + (y - leaf_y) * np.sin(turn)
        v = (y - leaf_y) * np.cos(turn) - (x - leaf_x) * np.sin(turn)
        _lay(picture, (1 - np.hypot(u / 0.075, v / 0.026)) * 6, colour(str(rng.choice(["2f5a2f", "5c8a3a", "1f4038"]))))
    for _ in range(17):
        at_x, at_y, radius = rng.normal(0.5, 0.16), rng.uniform(0.12, 0.5), rng.uniform(0.045, 0.085)
        angle, distance = np.arctan2(y - at_y, x - at_x), np.hypot(x - at_x, y - at_y) / radius
        petals = 1 + 0.22 * np.cos(angle * rng.integers(5, 9) + rng.uniform(0, 6))
        tone = colour(str(rng.choice(["e9483c", "f4b52e", "f2e6dc", "d86aa0", "f08a3c", "7a5cc0"])))
        _lay(picture, (petals - distance) * 9, tone * 0.72)
        _lay(picture, (petals * 0.85 - distance) * 3, tone)
        _lay(picture, (0.3 - distance) * 9, colour("5a3a1c"))
    for k in range(3):
        at_x, radius = 0.7 + 0.11 * k, 0.062
        distance = np.hypot(x - at_x, y - 0.86) / radius
        shade = np.clip(0.4 + 0.6 * (1 - np.hypot(x - at_x + 0.02, y - 0.84) / radius), 0, 1)[..., None]
        tone = colour(("d8432c", "e8a32c", "a8b83c")[k])
        picture = np.where((distance < 1)[..., None], tone * (0.5 + 0.7 * shade), picture)
    return np.clip(picture, 0, 1)


def portrait_in_lamplight(rng: np.random.Generator, size: tuple[int, int]) -> Colours:
    """A bust against a dark wall, lit from one side."""
    x, y = unit_grid(size)
    x = (x - 0.5) * max(1.0, size[0] / size[1]) + 0.5
    side = float(rng.choice([-1, 1]))
    picture = colour("75634c") + 0.35 * np.clip(1 - np.hypot(x - 0.5 + 0.3 * side, y - 0.3), 0, 1)[..., None] * colour(
        "c9a46a"
    )
    shoulders = 0.42 - 0.3 * np.exp(-((np.maximum(y - 0.66, 0) / 0.12) ** 2)) - np.abs(x - 0.5)
    _lay(picture, (y > 0.66) * shoulders * 60, colour("3f2430"))
    lapel = np.abs(x - 0.5) - 0.05 - 0.35 * (y - 0.7)
    _lay(picture, (y > 0.7) * (0.03 - np.abs(lapel)) * 60, colour("a8884c"))
    _lay(picture, ((np.abs(x - 0.5) < 0.085) & (y > 0.55) & (y < 0.76)) * 1.0, colour("b98660"))
    u, v = (x - 0.5) / 0.17, (y - 0.42) / 0.235
    _lay(picture, (1.32 - np.hypot(u, v + 0.2)) * 12 * (v < 0.62), colour("38241a"))
    lit = np.clip(0.55 + 0.45 * (-side * u) + 0.2 * np.sqrt(np.clip(1 - u * u - v * v, 0, 1)) - 0.1 * v, 0, 1)[
        ..., None
    ]
    face = colour("6e3f2c") + (colour("f6d2a6") - colour("6e3f2c")) * lit
    picture = np.where((u * u + v * v < 1)[..., None], face, picture)
    for eye in (-0.4, 0.4):
        _lay(picture, (1 - np.hypot((u - eye) / 0.2, (v + 0.08) / 0.075)) * 5, colour("f4e6d0"))
        _lay(picture, (1 - np.hypot((u - eye) / 0.09, (v + 0.08) / 0.075)) * 8, colour("20140f"))
        _lay(picture, (1 - np.hypot((u - eye) / 0.28, (v + 0.25) / 0.05)) * 5, colour("38241a"))
    _lay(picture, (1 - np.hypot((u - 0.05 * side) / 0.09, (v - 0.2) / 0.2)) * 1.2, colour("8a5238"))
    _lay(picture, (1 - np.hypot(u / 0.3, (v - 0.56) / 0.065)) * 5, colour("a83c3c"))
    _lay(picture, (0.0 - v - 0.62 + 0.08 * np.sin(9 * u)) * 12 * (u * u + v * v < 1), colour("38241a"))
    return np.clip(picture, 0, 1)


def softened(picture: Colours, pixels: float) -> Colours:
    """``picture`` blurred by ``pixels``."""
    image = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(pixels))
    return np.asarray(image, dtype=np.float64) / 255
