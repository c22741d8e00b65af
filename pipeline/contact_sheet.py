"""A contact sheet: face, painting and proxy side by side, with what the manifest says of them."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from manifests import schema
from pipeline.triples import Triple

_TILE_HEIGHT = 218  # small images are enlarged to Celeb-A's height
_MARGIN, _CAPTION = 12, 34
_INK, _PAPER = (40, 40, 40), (250, 249, 246)


def contact_sheet(triples: Sequence[Triple], columns: int = 3) -> Image.Image:
    """Draw triples in rows of `columns`, each with the face's id, the loss and the painting's id under it.

    Args:
        triples: at least one; they may differ in size, the largest set the grid.
        columns: triples per row, at least 1.

    """
    scale = max(1, round(_TILE_HEIGHT / triples[0].proxy.shape[0]))
    tile_height, tile_width = (scale * max(triple.proxy.shape[side] for triple in triples) for side in (0, 1))
    cell_width, cell_height = 3 * tile_width + 4 + 2 * _MARGIN, tile_height + _CAPTION + _MARGIN
    columns = min(columns, len(triples))
    rows = -(-len(triples) // columns)
    sheet = Image.new("RGB", (columns * cell_width, rows * cell_height + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(12)
    for index, triple in enumerate(triples):
        left = index % columns * cell_width + _MARGIN
        top = index // columns * cell_height + _MARGIN
        for position, picture in enumerate((triple.face, triple.painting, triple.proxy)):
            tile = Image.fromarray(np.ascontiguousarray(picture))
            tile = tile.resize((tile.width * scale, tile.height * scale), Image.Resampling.NEAREST)
            sheet.paste(tile, (left + position * (tile_width + 2), top))
        caption = f"{triple.row[schema.IMAGE_ID]}   loss {triple.row[schema.LOSS]:.1f}"
        room = 3 * tile_width
        draw.text((left, top + tile_height + 3), _shorten(caption, room, font), _INK, font)
        draw.text((left, top + tile_height + 18), _shorten(triple.row[schema.PAINTING], room, font), _INK, font)
    return sheet


def _shorten(text: str, room: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(text + "…") > room:
        text = text[:-1]
    return text + "…"
