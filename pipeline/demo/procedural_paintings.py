"""Procedural paintings in clearly different styles, and a folder of them laid out as WikiArt is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.demo import brush_techniques, flat_techniques

SMALLEST_SIDE = 64
JPEG_QUALITY = 95

# Width to height. Real catalogues mix shapes, and the crop to the working size must be seen to cope.
_ASPECTS = (0.8, 1.25, 1.0, 1.5, 0.68, 1.1, 0.8)


@dataclass(frozen=True)
class Style:
    """A technique under WikiArt's name for its movement, with an invented artist and titles that suit any motif."""

    artist: str
    titles: tuple[str, ...]
    paint: Callable[[np.random.Generator, tuple[int, int]], NDArray[np.uint8]]


STYLES: dict[str, Style] = {
    "Pointillism": Style("demo-pointillist", ("divided-light", "noon-in-dots"), brush_techniques.pointillism),
    "Ukiyo_e": Style("demo-printmaker", ("waves-before-the-mountain", "evening-surf"), flat_techniques.ukiyo_e),
    "Expressionism": Style("demo-expressionist", ("whirl", "fever"), brush_techniques.expressionism),
    "Cubism": Style("demo-cubist", ("facets", "shifted-planes"), flat_techniques.cubism),
    "Impressionism": Style("demo-impressionist", ("broken-light", "first-warmth"), brush_techniques.impressionism),
    "De_Stijl": Style("demo-neoplasticist", ("composition-with-red", "rhythm-in-black"), flat_techniques.de_stijl),
    "Engraving": Style("demo-engraver", ("lines-in-copper", "second-state"), brush_techniques.engraving),
    "Art_Nouveau_Modern": Style("demo-decorator", ("lilies", "the-peacock-halo"), flat_techniques.art_nouveau),
    "Abstract_Expressionism": Style("demo-dripper", ("number-four", "tangle"), flat_techniques.abstract_expressionism),
    "Color_Field_Painting": Style("demo-stainer", ("floating-oblongs", "warm-silence"), flat_techniques.color_field),
}
"""Folder name to style, in the order in which paintings are drawn: neighbours differ most."""


def draw_wikiart(folder: Path, *, count: int = 12, size: tuple[int, int] = (256, 320), seed: int = 0) -> None:
    """Write ``count`` paintings as ``Style/artist_title.jpg`` (quality 95), going round the styles of `STYLES`.

    ``size`` is (width, height) in pixels; it sets the area, while the aspect ratio changes from file to file. The same
    arguments give the same files, and the first paintings of a larger count; existing files of other names stay.

    Raises ValueError if count is under 1 or a side under 64 pixels.
    """
    if count < 1:
        raise ValueError(f"count is {count}: ask for at least 1 painting.")
    if min(size) < SMALLEST_SIDE:
        raise ValueError(
            f"size {size[0]}x{size[1]} is too small for a painting: each side needs {SMALLEST_SIDE} pixels."
        )
    names = list(STYLES)
    for number in range(count):
        round_number, index = divmod(number, len(names))
        style = STYLES[names[index]]
        title = style.titles[round_number % len(style.titles)]
        if round_number >= len(style.titles):
            title += f"-{round_number // len(style.titles) + 1}"
        aspect = _ASPECTS[number % len(_ASPECTS)]
        width = round((size[0] * size[1] * aspect) ** 0.5)
        shape = (width, round(width / aspect))
        picture = style.paint(np.random.default_rng((seed, number)), shape)
        place = folder / names[index]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(place / f"{style.artist}_{title}.jpg", quality=JPEG_QUALITY)
