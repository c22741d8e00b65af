"""An antialiased canvas: shapes are drawn at four times the size and averaged down.

Coordinates are those of a Celeb-A crop, 178 units wide and 218 high, with x = 0 on the middle line and y growing
downwards; the canvas scales them to whatever size it has.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

FRAME_WIDTH = 178.0
FRAME_HEIGHT = 218.0
SUPERSAMPLING = 4

Points = NDArray[np.float64]
Colour = tuple[float, float, float]


def points(*pairs: tuple[float, float]) -> Points:
    """Pairs (x, y) as an array [n, 2]."""
    return np.array(pairs, dtype=np.float64)


def mirrored(half: Points) -> Points:
    """The closed outline whose right half is ``half``, listed from top to bottom; both ends lie on x = 0."""
    return np.concatenate([half, (half * (-1.0, 1.0))[-2:0:-1]])


def moved(shape: Points, across: float, down: float) -> Points:
    """``shape`` shifted by (``across``, ``down``)."""
    shifted: Points = shape + np.array((across, down))
    return shifted


def curve(knots: Points, *, closed: bool = False, steps: int = 10) -> Points:
    """Uniform Catmull–Rom spline through ``knots`` [n, 2], ``steps`` points for each span."""
    if closed:
        padded = np.concatenate([knots[-1:], knots, knots[:2]])
    else:
        padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    t = np.arange(steps)[:, None] / steps
    spans: list[Points] = []
    for p0, p1, p2, p3 in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        quadratic = (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
        spans.append(0.5 * (2 * p1 + (p2 - p0) * t + quadratic + (3 * p1 - p0 - 3 * p2 + p3) * t**3))
    if not closed:
        spans.append(knots[-1:])
    return np.concatenate(spans)


def ellipse(x: float, y: float, radius_x: float, radius_y: float) -> Points:
    """Outline of an axis-parallel ellipse."""
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return np.stack([x + radius_x * np.cos(angle), y + radius_y * np.sin(angle)], axis=1)


def ribbon(path: Points, start: float, middle: float, end: float) -> Points:
    """Outline of a brush stroke along ``path`` whose full width goes from ``start`` over ``middle`` to ``end``."""
    tangent = np.gradient(path, axis=0)
    tangent /= np.maximum(np.hypot(tangent[:, :1], tangent[:, 1:]), 1e-9)
    normal = tangent[:, ::-1] * (-1.0, 1.0)
    half = np.interp(np.linspace(0, 1, len(path)), (0, 0.5, 1), (start / 2, middle / 2, end / 2))[:, None]
    return np.concatenate([path + normal * half, (path - normal * half)[::-1]])


def blend(first: Colour, second: Colour, amount: float) -> Colour:
    """``first`` at amount 0, ``second`` at amount 1."""
    r, g, b = (a + (c - a) * amount for a, c in zip(first, second, strict=True))
    return (r, g, b)


def scaled(colour: Colour, factor: float) -> Colour:
    """``colour`` times ``factor``, kept in 0…255."""
    r, g, b = (min(255.0, max(0.0, c * factor)) for c in colour)
    return (r, g, b)


def rounded(colour: Colour) -> tuple[int, int, int]:
    """``colour`` as the integers 0…255 that Pillow wants."""
    r, g, b = (min(255, max(0, round(c))) for c in colour)
    return (r, g, b)


def _pairs(placed: Points) -> list[tuple[float, float]]:
    return [(x, y) for x, y in placed.tolist()]


class Canvas:
    """A picture in the making. ``size`` is (width, height) of the finished image in pixels."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.scale = SUPERSAMPLING * min(size[0] / FRAME_WIDTH, size[1] / FRAME_HEIGHT)
        large = (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING)
        self.image = Image.new("RGB", large)
        # Frames of another shape keep the shoulders on the lower edge.
        self._origin = np.array([large[0] / 2, large[1] - FRAME_HEIGHT * self.scale])
        self.pose()

    def pose(self, tilt: float = 0.0, shift: tuple[float, float] = (0.0, 0.0)) -> None:
        """What is drawn from now on is turned by ``tilt`` (radians, about the neck) and moved by ``shift``."""
        cos, sin = np.cos(tilt), np.sin(tilt)
        self._rotation = np.array([[cos, -sin], [sin, cos]])
        self._pivot = np.array([0.0, 172.0])
        self._shift = np.array(shift)

    def place(self, shape: Points) -> Points:
        """Coordinates of the frame [n, 2] as pixels of the large image [n, 2]."""
        posed: Points = (shape - self._pivot) @ self._rotation.T + self._pivot + self._shift
        placed: Points = posed * self.scale + self._origin
        return placed

    def grid(self) -> tuple[Points, Points]:
        """Frame coordinates x, y [height, width] of each pixel of the *finished* image: shading is smooth enough."""
        across = (np.arange(self.size[0]) + 0.5) * SUPERSAMPLING
        down = (np.arange(self.size[1]) + 0.5) * SUPERSAMPLING
        placed = np.stack(np.meshgrid(across, down), axis=-1)
        frame = ((placed - self._origin) / self.scale - self._shift - self._pivot) @ self._rotation + self._pivot
        return frame[..., 0], frame[..., 1]

    def mask(self, shape: Points, *, blur: float = 0.0, clip: Image.Image | None = None) -> Image.Image:
        """The inside of the polygon ``shape``, softened by ``blur`` units, kept to ``clip``."""
        mask = Image.new("L", self.image.size)
        ImageDraw.Draw(mask).polygon(_pairs(self.place(shape)), fill=255)
        if blur > 0:
            mask = mask.filter(ImageFilter.GaussianBlur(blur * self.scale))
        return mask if clip is None else ImageChops.multiply(mask, clip)

    def fill(
        self,
        shape: Points,
        colour: Colour,
        opacity: float = 1.0,
        *,
        blur: float = 0.0,
        clip: Image.Image | None = None,
    ) -> None:
        """Lay ``colour`` over the inside of the polygon ``shape``."""
        placed, margin = self.place(shape), 3 * blur * self.scale + 1
        # Only the surroundings of the shape are touched: most shapes are small and a blur is dear.
        left, upper = np.maximum(np.floor(placed.min(0) - margin), 0).astype(int).tolist()
        right, lower = np.minimum(np.ceil(placed.max(0) + margin) + 1, self.image.size).astype(int).tolist()
        if right <= left or lower <= upper:
            return
        mask = Image.new("L", (right - left, lower - upper))
        ImageDraw.Draw(mask).polygon(_pairs(placed - (left, upper)), fill=255)
        if blur > 0:
            mask = mask.filter(ImageFilter.GaussianBlur(blur * self.scale))
        if clip is not None:
            mask = ImageChops.multiply(mask, clip.crop((left, upper, right, lower)))
        if opacity < 1:
            mask = mask.point([round(level * max(0.0, opacity)) for level in range(256)])
        self.image.paste(rounded(colour), (left, upper), mask)

    def paste(self, colours: NDArray[np.floating], mask: Image.Image | None = None) -> None:
        """Lay the smooth colours [height, width, 3] (0…255, finished size) over the inside of ``mask``."""
        small = Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8))
        self.image.paste(small.resize(self.image.size, Image.Resampling.BICUBIC), mask=mask)

    def strands(
        self, paths: Points, colours: NDArray[np.float64], width: float, *, clip: Image.Image | None = None
    ) -> None:
        """Draw thin lines ``paths`` [n, k, 2] in ``colours``: [n, 3], or [n, k - 1, 3] with one for each segment."""
        layer = self.image.copy()
        draw = ImageDraw.Draw(layer)
        pixels = max(1, round(width * self.scale))
        placed = self.place(paths.reshape(-1, 2)).reshape(paths.shape)
        shades = np.clip(colours, 0, 255).round().astype(int)
        if shades.ndim == 2:
            for path, shade in zip(placed.reshape(len(placed), -1).tolist(), shades.tolist(), strict=True):
                draw.line(path, fill=tuple(shade), width=pixels, joint="curve")
        else:
            segments = np.concatenate([placed[:, :-1], placed[:, 1:]], axis=2).reshape(-1, 4)
            for segment, shade in zip(segments.tolist(), shades.reshape(-1, 3).tolist(), strict=True):
                draw.line(segment, fill=tuple(shade), width=pixels)
        self.image.paste(layer, mask=clip)

    def finished(self) -> Image.Image:
        """The picture averaged down to its size."""
        return self.image.reduce(SUPERSAMPLING)
