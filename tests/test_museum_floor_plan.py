"""The drawn floor plan: the same every time, within itself, and without anything that a map may not hold."""

import itertools
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipeline.exhibition.floor_plan import (
    HEIGHT,
    PAPER,
    ROOMS,
    WALLS,
    WIDTH,
    YOU,
    DrawnRoom,
    draw_floor_plan,
    hanging_places,
)
from pipeline.exhibition.map_file import check_svg

SVG = "{http://www.w3.org/2000/svg}"


def lightness(colour: str) -> float:
    """CIE L*, 0 black to 100 white: what is left of a colour in a black and white print."""
    linear = [((int(colour[at : at + 2], 16) / 255 + 0.055) / 1.055) ** 2.4 for at in (1, 3, 5)]
    return float(116 * np.dot((0.2126, 0.7152, 0.0722), linear) ** (1 / 3) - 16)


def test_it_is_a_map_like_any_other_and_the_same_every_time():
    plan = draw_floor_plan()
    assert check_svg(plan.data) == (plan.width, plan.height) == (WIDTH, HEIGHT)
    assert plan.data == draw_floor_plan().data
    assert plan.media_type == "image/svg+xml"
    assert len(plan.data) < 20_000
    assert plan.you is not None
    assert (plan.you.x * WIDTH, plan.you.y * HEIGHT) == pytest.approx(YOU, abs=0.1)


def test_it_needs_no_font_and_no_style_sheet():
    tags = {element.tag.removeprefix(SVG) for element in ElementTree.fromstring(draw_floor_plan().data).iter()}
    assert tags <= {"svg", "defs", "pattern", "g", "path", "rect", "circle"}


def test_it_prints_in_black_and_white():
    colours = {
        value
        for element in ElementTree.fromstring(draw_floor_plan().data).iter()
        for key, value in element.items()
        if key in {"fill", "stroke"} and value.startswith("#")
    }
    values = [lightness(colour) for colour in colours]
    dark = [value for value in values if value < 30]
    lines = [value for value in values if 30 <= value < 80]
    light = [value for value in values if value >= 80]
    assert len(dark) == len(lines) == 1
    assert min(light) - lines[0] > 15
    assert min(light) > 90
    assert lightness(PAPER) > 95
    assert all(lightness(room.floor) > 90 for room in ROOMS)


def test_five_rooms_that_do_not_overlap():
    assert [room.id for room in ROOMS] == ["I", "II", "III", "IV", "V"]
    for one, other in itertools.combinations(ROOMS, 2):
        assert (
            one.right <= other.left or other.right <= one.left or one.bottom <= other.top or other.bottom <= one.top
        ), (one.id, other.id)
    assert len({room.pattern for room in ROOMS}) == len({room.floor for room in ROOMS}) == 5


def test_every_room_is_reached_from_where_the_visitor_stands():
    """Filled from there, on a picture of the walls alone, the floor reaches every room."""
    image = Image.new("L", (WIDTH, HEIGHT), 255)
    draw = ImageDraw.Draw(image)
    for wall in WALLS:
        half = wall.thickness / 2
        gaps = sorted((door.at - door.width / 2, door.at + door.width / 2) for door in wall.openings if not door.window)
        start = wall.y if wall.upright else wall.x
        ends = [start - half, *(edge for gap in gaps for edge in gap), start + wall.length + half]
        for low, high in zip(ends[::2], ends[1::2], strict=True):
            box = (
                (wall.x - half, low, wall.x + half, high) if wall.upright else (low, wall.y - half, high, wall.y + half)
            )
            draw.rectangle(box, fill=0)
    ImageDraw.floodfill(image, (int(YOU[0]), int(YOU[1])), 128)
    for room in ROOMS:
        assert image.getpixel((int(room.middle.x * WIDTH), int(room.middle.y * HEIGHT))) == 128, room.id
    assert image.getpixel((5, 5)) == 128  # by the front door


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.id)
@pytest.mark.parametrize("count", [1, 2, 7, 20, 60])
def test_pictures_hang_along_the_walls_of_their_room_and_in_no_door(room: DrawnRoom, count: int):
    places = hanging_places(room, count)
    assert len(places) == len({(place.x, place.y) for place in places}) == count
    for place in places:
        x, y = place.x * WIDTH, place.y * HEIGHT
        distances = (x - room.left, room.right - x, y - room.top, room.bottom - y)
        assert 40 < min(distances) < 48
        for wall in WALLS:
            along, across = (y, x) if wall.upright else (x, y)
            if abs(across - (wall.x if wall.upright else wall.y)) < 50:
                doors = [door for door in wall.openings if not door.window]
                assert all(abs(along - door.at) > door.width / 2 for door in doors)
