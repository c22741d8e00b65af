"""The drawn floor plan of the demo's museum: five rooms around an entrance hall, as SVG, and where pictures hang in it.

One drawing serves both languages: rooms bear a Roman numeral and a pattern of the floor, and no words. Ink on paper,
dark walls on light floors, so that it prints in black and white. Numerals are outlines, so no font is needed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.exhibition.museum import FloorPlan, Point

WIDTH, HEIGHT = 1200, 900
"""Units of the drawing."""

INK: Final = "#2a2420"
PAPER: Final = "#fbf7ee"
_LINE: Final = "#b9aa90"  # of the floors' patterns; 2.0 : 1 on them, so that numerals and marks stand out
_OUTER, _INNER = 24, 14  # how thick walls are
_FROM_WALL: Final = 44  # of a picture's mark, so that it stays in its room
_BORDER: Final = 78  # between walls and the pattern of a floor


@dataclass(frozen=True)
class Opening:
    """A door or a window in a wall.

    Attributes:
        at: its middle along the wall, as a coordinate of the drawing.
        width: of it.
        window: light falls in, nobody walks through.
    """

    at: int
    width: int = 84
    window: bool = False


@dataclass(frozen=True)
class Wall:
    """A straight wall, level or upright, from (x, y) over a length to the right or downwards."""

    x: int
    y: int
    length: int
    upright: bool
    thickness: int
    openings: tuple[Opening, ...] = ()


@dataclass(frozen=True)
class DrawnRoom:
    """A room of the drawing.

    Attributes:
        id: "I" to "V"; also what is drawn in it.
        left, top, right, bottom: to the middle of its walls.
        floor: colour of its floor.
        pattern: of it, a key of `_PATTERNS`.
    """

    id: str
    left: int
    top: int
    right: int
    bottom: int
    floor: str
    pattern: str

    @property
    def middle(self) -> Point:
        """Where its numeral is, as fractions."""
        return _fractions((self.left + self.right) / 2, (self.top + self.bottom) / 2)


ROOMS: Final = (
    DrawnRoom("I", 60, 410, 420, 840, "#eef1ea", "waves"),
    DrawnRoom("II", 60, 60, 430, 410, "#f4ead9", "facets"),
    DrawnRoom("III", 430, 60, 780, 410, "#f6e6dc", "flames"),
    DrawnRoom("IV", 780, 60, 1140, 470, "#e9efe0", "leaves"),
    DrawnRoom("V", 780, 470, 1140, 840, "#efeae4", "hatching"),
)
_HALL: Final = (420, 410, 780, 840)
YOU: Final = (600.0, 688.0)
"""Where the visitor stands, before the photo booth in the entrance hall."""

WALLS: Final = (
    Wall(60, 60, 1080, False, _OUTER, (*(Opening(at, 110, True) for at in (175, 315, 605, 890, 1030)),)),
    Wall(60, 840, 1080, False, _OUTER, (Opening(240, 110, True), Opening(600, 120), Opening(960, 110, True))),
    Wall(60, 60, 780, True, _OUTER, (*(Opening(at, 110, True) for at in (235, 540, 710)),)),
    Wall(1140, 60, 780, True, _OUTER, (*(Opening(at, 110, True) for at in (190, 340, 655)),)),
    Wall(60, 410, 720, False, _INNER, (Opening(240), Opening(600))),
    Wall(780, 470, 360, False, _INNER, (Opening(960),)),
    Wall(430, 60, 350, True, _INNER, (Opening(235),)),
    Wall(420, 410, 430, True, _INNER, (Opening(640),)),
    Wall(780, 60, 780, True, _INNER, (Opening(235), Opening(640))),
)

_PATTERNS: Final = {  # width and height of what is repeated, and its lines
    "waves": (40, 20, "M0 14q10-12 20 0t20 0"),
    "facets": (52, 46, "M0 23L26 0l26 23-26 23zM26 0v46M0 23h52"),
    "flames": (38, 46, "M19 42C6 34 10 23 19 6c9 17 13 28 0 36zM19 36c-4-4-3-9 0-15"),
    "leaves": (50, 34, "M5 17C13 3 37 3 45 17 37 31 13 31 5 17zM0 17h50M21 17l8-7M21 17l8 7"),
    "hatching": (18, 18, "M0 18L18 0M-3 3L3-3M15 21l6-6"),
    "tiles": (40, 43, "M20 6L36 21.5 20 37 4 21.5z"),
}


def draw_floor_plan() -> FloorPlan:
    """Return the drawing; the same bytes every time."""
    return FloorPlan("".join(_drawing()).encode(), "image/svg+xml", WIDTH, HEIGHT, _fractions(*YOU))


def hanging_places(room: DrawnRoom, count: int) -> list[Point]:
    """Return where pictures hang in a room: evenly along its walls, clockwise from its upper left corner.

    Between the doors, and never outside of the room. A place is of a mark's middle, as fractions of the drawing.
    """
    left, top, right, bottom = (
        room.left + _FROM_WALL,
        room.top + _FROM_WALL,
        room.right - _FROM_WALL,
        room.bottom - _FROM_WALL,
    )
    width, height = right - left, bottom - top
    around = 2 * (width + height)
    free = [at + 0.5 for at in range(around) if not _in_door(room, _along(at + 0.5, left, top, right, bottom))]
    spots = [free[int((number + 0.5) * len(free) / count)] for number in range(count)]
    return [_fractions(*_along(spot, left, top, right, bottom)) for spot in spots]


def _along(at: float, left: int, top: int, right: int, bottom: int) -> tuple[float, float]:
    """Return the point of a rectangle's outline so far from its upper left corner, clockwise."""
    width, height = right - left, bottom - top
    if at < width:
        return left + at, float(top)
    if at < width + height:
        return float(right), top + at - width
    if at < 2 * width + height:
        return right - (at - width - height), float(bottom)
    return float(left), bottom - (at - 2 * width - height)


def _in_door(room: DrawnRoom, point: tuple[float, float]) -> bool:
    for wall in WALLS:
        along, across = (point[1], point[0]) if wall.upright else point
        if abs(across - (wall.x if wall.upright else wall.y)) > _FROM_WALL + 1:
            continue
        if any(not door.window and abs(along - door.at) < door.width / 2 + 12 for door in wall.openings):
            return True
    return False


def _fractions(x: float, y: float) -> Point:
    return Point(round(x / WIDTH, 4), round(y / HEIGHT, 4))


def _drawing() -> Iterator[str]:
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">'
    yield f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>'
    yield f'<rect {_box(*_HALL)} fill="#ffffff"/><g opacity=".5">'
    yield from _patterned("tiles", *_HALL)
    yield "</g>"
    for room in ROOMS:
        yield f'<rect {_box(room.left, room.top, room.right, room.bottom)} fill="{room.floor}"/>'
        yield from _carpet(room)
    yield from _hall()
    for wall in WALLS:
        yield from _wall(wall)
    yield from _entrance()
    yield "</svg>\n"


def _carpet(room: DrawnRoom) -> Iterator[str]:
    """Draw a patterned floor within a plain border, on which the marks of pictures stand, and the numeral on it."""
    x, y = (room.left + room.right) / 2, (room.top + room.bottom) / 2
    width, height, _ = _PATTERNS[room.pattern]  # the pattern goes into the floor a whole number of times
    across = (room.right - room.left - 2 * _BORDER) // width * width / 2
    down = (room.bottom - room.top - 2 * _BORDER) // height * height / 2
    frame = _box(x - across - 6, y - down - 6, x + across + 6, y + down + 6)
    yield f'<rect {frame} fill="{PAPER}" stroke="{_LINE}" stroke-width="4"/>'
    yield from _patterned(room.pattern, x - across, y - down, x + across, y + down)
    yield f'<circle cx="{x:g}" cy="{y:g}" r="80" fill="{PAPER}" stroke="{_LINE}" stroke-width="4"/>'
    yield from _numeral(room.id, x, y)


def _patterned(name: str, left: float, top: float, right: float, bottom: float) -> Iterator[str]:
    width, height, path = _PATTERNS[name]
    place = f'x="{left:g}" y="{top:g}" width="{width}" height="{height}"'
    yield f'<defs><pattern id="{name}" {place} patternUnits="userSpaceOnUse">'
    yield f'<path d="{path}" fill="none" stroke="{_LINE}" stroke-width="2.4" stroke-linecap="round"/></pattern></defs>'
    yield f'<rect {_box(left, top, right, bottom)} fill="url(#{name})"/>'


def _numeral(text: str, x: float, y: float, height: float = 92) -> Iterator[str]:
    """Draw I, II, III, IV or V, upright strokes thick and thin as capitals cut in stone have them."""
    widths = {"I": 35.0, "V": 78.0}
    left = x - sum(widths[letter] for letter in text) / 2
    top, bottom = y - height / 2, y + height / 2
    yield f'<g fill="{INK}">'
    for letter in text:
        middle = left + widths[letter] / 2
        if letter == "I":
            yield f'<path d="M{middle - 6.5:g} {top:g}h13v{height:g}h-13z"/>'
            for edge in (top, bottom - 6):
                yield f'<path d="M{middle - 14:g} {edge:g}h28v6h-28z"/>'
        else:
            yield (
                f'<path d="M{middle - 32:g} {top:g}h15L{middle + 5:g} {bottom - 22:g} {middle + 22:g} {top:g}h8'
                f'L{middle + 4:g} {bottom:g}h-8z"/>'
            )
            yield f'<path d="M{middle - 38:g} {top:g}h27v6h-27zM{middle + 13:g} {top:g}h25v6h-25z"/>'
        left += widths[letter]
    yield "</g>"


def _hall() -> Iterator[str]:
    """Draw the entrance hall's columns, and the photo booth behind the place where the visitor stands."""
    for place in ((466, 480), (734, 480), (466, 770), (734, 770)):
        at = f'cx="{place[0]}" cy="{place[1]}"'
        yield f'<circle {at} r="17" fill="{INK}"/><circle {at} r="8" fill="{PAPER}"/>'
    x, y = YOU
    yield f'<g fill="none" stroke="{INK}" stroke-width="6" stroke-linejoin="round" stroke-linecap="round">'
    yield f'<path d="M{x - 74:g} {y - 60:g}v-96h148v96" fill="{PAPER}" stroke-width="8"/>'
    yield f'<path d="M{x - 74:g} {y - 60:g}q18-15 37 0t37 0 37 0 37 0" fill="{PAPER}"/>'
    camera = f"M{x - 34:g} {y - 126:g}h15l7-10h24l7 10h15v38h-68z"
    yield f'<path d="{camera}" fill="{INK}" stroke-width="2"/>'
    yield f'<circle cx="{x:g}" cy="{y - 107:g}" r="11" fill="{PAPER}" stroke="none"/></g>'
    yield f'<circle cx="{x:g}" cy="{y:g}" r="34" fill="{PAPER}" stroke="{INK}" stroke-width="5"/>'
    yield f'<circle cx="{x:g}" cy="{y:g}" r="20" fill="{INK}"/>'


def _entrance() -> Iterator[str]:
    """Draw the steps before the front door, and an arrow over them."""
    for step, y in enumerate((858, 872, 886)):
        half = 70 + 10 * step
        yield f'<path d="M{600 - half} {y}h{2 * half}" stroke="{INK}" stroke-width="3" stroke-linecap="round"/>'
    yield f'<path d="M600 790l26 32h-16v26h-20v-26h-16z" fill="{INK}"/>'


def _wall(wall: Wall) -> Iterator[str]:
    start = wall.y if wall.upright else wall.x
    end = start + wall.length
    half = wall.thickness / 2
    at: float = start - half  # corners are filled
    for opening in sorted(wall.openings, key=lambda each: each.at):
        yield _block(wall, at, opening.at - opening.width / 2, half, INK)
        at = opening.at + opening.width / 2
    yield _block(wall, at, end + half, half, INK)
    for opening in wall.openings:
        low, high = opening.at - opening.width / 2, opening.at + opening.width / 2
        if opening.window:
            yield _block(wall, low, high, half, PAPER)
            yield _strokes(wall, low, high, (-half + 2, 0, half - 2))
        else:
            yield _strokes(wall, low, high, (0,), dashed=True)


def _block(wall: Wall, low: float, high: float, half: float, colour: str) -> str:
    box = (wall.x - half, low, wall.x + half, high) if wall.upright else (low, wall.y - half, high, wall.y + half)
    return f'<rect {_box(*box)} fill="{colour}"/>'


def _strokes(wall: Wall, low: float, high: float, offsets: Sequence[float], *, dashed: bool = False) -> str:
    length = high - low
    path = "".join(
        f"M{wall.x + offset:g} {low:g}v{length:g}" if wall.upright else f"M{low:g} {wall.y + offset:g}h{length:g}"
        for offset in offsets
    )
    look = f'stroke="{_LINE}" stroke-width="4" stroke-dasharray="8 8"' if dashed else f'stroke="{INK}" stroke-width="4"'
    return f'<path d="{path}" fill="none" {look}/>'


def _box(left: float, top: float, right: float, bottom: float) -> str:
    return f'x="{left:g}" y="{top:g}" width="{right - left:g}" height="{bottom - top:g}"'
