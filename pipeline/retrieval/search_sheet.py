"""A contact sheet of a search: the photograph, its look-alikes with what speaks for each, and where one sees it."""

import io
import os
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from fsspec.implementations.local import LocalFileSystem
from PIL import Image, ImageDraw, ImageFont

from manifests.commit import publish
from pipeline.retrieval.saliency import overlay
from pipeline.retrieval.search_result import Hit, SearchResult

Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

_HEIGHT: Final = 218  # of a hit's picture: Celeb-A's
_PHOTO_HEIGHT: Final = 327
_MARGIN: Final = 28
_GAP: Final = 18
_CAPTION: Final = 64
_CAPTION_WIDTH: Final = 130  # at least, under pictures that are narrower
_BAR: Final = 7
_PAIR_HEIGHT: Final = 196
_PAIR_GAP: Final = 4

_PAPER: Final = (250, 249, 246)
_INK: Final = (38, 38, 40)
_MUTED: Final = (116, 114, 110)
_TRACK: Final = (228, 225, 218)
# Two colours of Okabe and Ito's palette, which the colour-blind tell apart.
_IDENTITY: Final = (0, 114, 178)
_ATTRIBUTES: Final = (230, 159, 0)
_LIKED: Final = (0, 158, 115)
_UNLIKED: Final = (213, 94, 0)

Font = ImageFont.FreeTypeFont


class _Canvas(NamedTuple):
    """A picture that is being drawn."""

    image: Image.Image
    draw: ImageDraw.ImageDraw


def search_sheet(result: SearchResult, columns: int = 4) -> Image.Image:
    """Draw a search: the photograph on the left, hits in the order of the ranking beside it, explanations below.

    Every hit has its rank, id and score s of Eq. 9, and two bars from 0 to 1: (1 + s_i)/2 of identity (blue) and s_a of
    the attributes (orange; none without attributes). Hits that the visitor judged have a green or a red frame. Of every
    hit that was explained photograph and painting are there once more, side by side, grey but for the regions that
    speak for the match; their completeness gaps are in `SearchResult.lines`.

    Args:
        result: of the search, with at least one hit.
        columns: hits in a row, at least 1.

    Returns:
        RGB.

    Raises:
        InputError: the picture of a hit is not where it was.
    """
    columns = max(1, min(columns, len(result.hits)))
    rows = -(-len(result.hits) // columns)
    thumbnails = {hit.item: result.thumbnail(hit.item) for hit in result.hits}
    tile = max(_fitted(result.picture, _HEIGHT).width, _CAPTION_WIDTH)
    panel = max(_fitted(result.picture, _PHOTO_HEIGHT).width, 240)
    left = _MARGIN + panel + 2 * _GAP
    cell_width, cell_height = tile + _GAP, _HEIGHT + _CAPTION + _GAP

    explained = [hit for hit in result.hits if hit.explanation is not None]
    pair_width = max(2 * _fitted(result.picture, _PAIR_HEIGHT).width + _PAIR_GAP, _CAPTION_WIDTH)
    width = max(left + columns * cell_width - _GAP, (_MARGIN + pair_width) if explained else 0) + _MARGIN
    across = max(1, (width - 2 * _MARGIN + _GAP) // (pair_width + _GAP))
    pair_rows = -(-len(explained) // across)
    panel_height = _panel(None, result, _MARGIN, _MARGIN, panel)
    top = _MARGIN + max(panel_height, rows * cell_height)
    pair_cell = _PAIR_HEIGHT + 30 + _GAP
    height = top + (30 + pair_rows * pair_cell if explained else 0) + _MARGIN - _GAP

    image = Image.new("RGB", (width, height), _PAPER)
    canvas = _Canvas(image, ImageDraw.Draw(image))
    _panel(canvas, result, _MARGIN, _MARGIN, panel)
    for at, hit in enumerate(result.hits):
        row, column = divmod(at, columns)
        place = left + column * cell_width, _MARGIN + row * cell_height
        _tile(canvas, result, hit, thumbnails[hit.item], place)
    if explained:
        _text(canvas, (_MARGIN, top), "What speaks for the match: the brighter, the more", _INK, _font(15, bold=True))
    for at, hit in enumerate(explained):
        row, column = divmod(at, across)
        place = _MARGIN + column * (pair_width + _GAP), top + 30 + row * pair_cell
        _pair(canvas, result, hit, thumbnails[hit.item], place)
    return image


def write_search_sheet(result: SearchResult, path: str | os.PathLike[str]) -> None:
    """Write the `search_sheet` of a search as PNG, whole or not at all; OSError where that cannot be."""
    encoded = io.BytesIO()
    search_sheet(result).save(encoded, "PNG")
    place = os.path.abspath(os.path.expanduser(path))
    publish(LocalFileSystem(), place, encoded.getvalue(), journal=os.path.dirname(place))


def _panel(canvas: _Canvas | None, result: SearchResult, left: int, top: int, width: int) -> int:
    """Draw the photograph and what was searched for; return how high it is. Without a canvas, that alone."""
    photograph = _fitted(result.picture, _PHOTO_HEIGHT)
    if canvas is not None:
        canvas.image.paste(photograph, (left, top))
    y = top + photograph.height + 10
    plain, bold, small = _font(13), _font(15, bold=True), _font(12)
    blocks: list[tuple[str, Font, Colour]] = [
        (Path(result.photo).name, bold, _INK),
        (result.searched_phrase(), plain, _INK),
        (f"{result.model}, λ = {result.weight:g}", plain, _MUTED),
    ]
    if result.liked or result.unliked:
        blocks.append((f"after feedback: {len(result.liked)} liked, {len(result.unliked)} not", plain, _INK))
    if learned := result.learned():
        blocks.append(("seen in the photograph: " + ", ".join(name.replace("_", " ") for name in learned), plain, _INK))
    for text, font, colour in blocks:
        for line in _wrapped(text, width, font):
            if canvas is not None:
                _text(canvas, (left, y), line, colour, font)
            y += round(1.35 * font.size)
        y += 5
    y += 4
    legend = [(_IDENTITY, "identity")]
    legend += [(_ATTRIBUTES, "attributes that agree")] if result.attributes else []
    for colour, text in legend:
        if canvas is not None:
            canvas.draw.rounded_rectangle((left, y + 4, left + 22, y + 4 + _BAR), 3, colour)
            _text(canvas, (left + 30, y), text, _MUTED, small)
        y += 18
    return y - top + _GAP


def _tile(canvas: _Canvas, result: SearchResult, hit: Hit, picture: Pixels, place: tuple[int, int]) -> None:
    left, top = place
    tile = _fitted(picture, _HEIGHT)
    canvas.image.paste(tile, place)
    right, bottom = left + tile.width, top + tile.height
    judged = _LIKED if hit.id in result.liked else _UNLIKED if hit.id in result.unliked else None
    if judged is not None:
        canvas.draw.rectangle((left - 4, top - 4, right + 3, bottom + 3), outline=judged, width=4)
    bold, plain, small = _font(13, bold=True), _font(13), _font(11)
    y, right = bottom + 8, max(right, left + _CAPTION_WIDTH)
    rank, score = str(hit.rank), f"{hit.score:.3f}"
    _text(canvas, (left, y), rank, _INK, bold)
    name_left = left + bold.getlength(rank) + 8
    room = right - name_left - bold.getlength(score) - 8
    _text(canvas, (name_left, y), _shortened(hit.id, room, plain), _MUTED, plain)
    _text(canvas, (right - bold.getlength(score), y), score, _INK, bold)
    bars = [(_IDENTITY, hit.identity_score)]
    bars += [(_ATTRIBUTES, hit.attribute_score)] if hit.attribute_score is not None else []
    y += 22
    for colour, value in bars:
        number = f"{value:.2f}"
        end = right - 32
        canvas.draw.rounded_rectangle((left, y + 3, end, y + 3 + _BAR), 3, _TRACK)
        filled = left + (end - left) * min(max(value, 0.0), 1.0)
        if filled - left >= 6:  # shorter is no rounded bar
            canvas.draw.rounded_rectangle((left, y + 3, filled, y + 3 + _BAR), 3, colour)
        _text(canvas, (right - small.getlength(number), y - 1), number, _MUTED, small)
        y += 15


def _pair(canvas: _Canvas, result: SearchResult, hit: Hit, painting: Pixels, place: tuple[int, int]) -> None:
    assert hit.explanation is not None
    left, top = place
    sides = hit.explanation.photograph, hit.explanation.painting
    right = left
    for picture, side in zip((result.picture, painting), sides, strict=True):
        tile = _fitted(overlay(picture, side.total.saliency), _PAIR_HEIGHT)
        canvas.image.paste(tile, (right, top))
        right += tile.width + _PAIR_GAP
    right = max(right - _PAIR_GAP, left + _CAPTION_WIDTH)
    bold, plain = _font(13, bold=True), _font(13)
    y = top + _PAIR_HEIGHT + 6
    name_left = left + bold.getlength(str(hit.rank)) + 8
    _text(canvas, (left, y), str(hit.rank), _INK, bold)
    _text(canvas, (name_left, y), _shortened(hit.id, right - name_left, plain), _MUTED, plain)


def _fitted(picture: Pixels, height: int) -> Image.Image:
    """Scale a picture to a height."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    width = max(1, round(image.width * height / image.height))
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _text(canvas: _Canvas, place: tuple[float, float], text: str, colour: Colour, font: Font) -> None:
    canvas.draw.text(place, text, colour, font)


def _wrapped(text: str, room: float, font: Font) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > room:
            lines.append(_shortened(word, room, font))
        else:
            lines[-1] = _shortened(longer, room, font)
    return lines


def _shortened(text: str, room: float, font: Font) -> str:
    """Leave out the beginning of what is too long: the end of a path says more."""
    if font.getlength(text) <= room:
        return text
    while text and font.getlength("…" + text) > room:
        text = text[1:]
    return "…" + text


@lru_cache
def _font(size: int, *, bold: bool = False) -> Font:
    """Return DejaVu Sans, which comes with matplotlib and has Greek and Cyrillic; Pillow's own has neither."""
    import matplotlib as mpl  # noqa: PLC0415  # a second that only this needs

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(mpl.get_data_path(), "fonts", "ttf", name)), size)
