"""Read the picture of a floor plan, PNG, JPEG or SVG, and refuse one that a browser would do more with than show."""

import math
import re
import warnings
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, Final
from xml.parsers import expat

from PIL import Image

from manifests.errors import InputError
from pipeline.exhibition.museum import FloorPlan, Point
from stylize.decode import decode_image
from stylize.errors import ImageError

MAX_BYTES: Final = 8 << 20
"""Every page with a map sends it over the network."""
MAX_SIDE: Final = 10_000
"""Pixels of a PNG or JPEG; 64 megapixels in all (`stylize.decode.MAX_PIXELS`)."""

_RASTER: Final = {"PNG": "image/png", "JPEG": "image/jpeg"}
_SVG: Final = "http://www.w3.org/2000/svg"
_XLINK: Final = "http://www.w3.org/1999/xlink"
# What runs, fetches, embeds other documents or moves; a map needs none of it. In lower case.
_REFUSED: Final = frozenset(
    {
        *("script", "handler", "listener", "foreignobject", "iframe", "object", "embed"),
        *("audio", "video", "canvas", "set", "discard"),
    }
)
_LINKS: Final = frozenset({"href", "src", f"{_XLINK} href"})
_EMBEDDED: Final = re.compile(r"data:image/(?:png|jpeg|gif|webp);base64,", re.IGNORECASE)
_URL: Final = re.compile(r"url\(\s*[\"']?\s*(?!\s|[\"'#])", re.IGNORECASE)
_LENGTH: Final = re.compile(r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*(px|pt|pc|mm|cm|in)?\s*", re.IGNORECASE)
_PIXELS: Final = {"px": 1.0, "pt": 96 / 72, "pc": 16.0, "mm": 96 / 25.4, "cm": 96 / 2.54, "in": 96.0}


def read_map(path: Path, you: Point | None = None) -> FloorPlan:
    """Read and check a map.

    An SVG may hold no script, no event handler, no animation, no other document and no reference to another file:
    browsers run none of that in a picture, but a map that has it is not what it seems, or would look different here
    than where it was drawn. Pictures that it embeds (data: URLs) are fine. What reads well in one browser only is not
    looked for.

    Raises:
        InputError: one sentence, without the name of the file: it is not there, too large, of another kind, damaged,
            or an SVG with what is said above.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"it has more than {MAX_BYTES >> 20} MB; save a smaller one, a map is sent to every page")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"it cannot be read ({error.strerror})") from error
    if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        width, height = check_svg(data)
        return FloorPlan(data, "image/svg+xml", width, height, you)
    media_type = _raster_type(data)
    try:
        height, width, _ = decode_image(data).shape  # upright, as browsers show it
    except ImageError as error:
        raise InputError(f"{error}; save it again as PNG, JPEG or SVG") from error
    if max(width, height) > MAX_SIDE:
        raise InputError(f"it is {width}x{height} pixels; at most {MAX_SIDE:,} on a side are shown, make it smaller")
    return FloorPlan(data, media_type, width, height, you)


def check_svg(data: bytes) -> tuple[int, int]:
    """Return width and height of an SVG, of its viewBox or else in pixels; InputError as `read_map`."""
    reader = _SvgReader()
    try:
        reader.parser.Parse(data, True)
    except InputError:
        raise
    except (expat.ExpatError, LookupError, ValueError) as error:  # or an encoding that Python does not know
        raise InputError(f"it is not well-formed XML ({error}); save it again as plain SVG") from error
    return reader.size()


def _raster_type(data: bytes) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `decode_image` says it better
            with Image.open(BytesIO(data)) as image:
                kind = image.format
    except Image.DecompressionBombError as error:
        raise InputError("it has far too many pixels; make it smaller") from error
    except Exception as error:
        raise InputError("it is no picture that can be recognised; save it as PNG, JPEG or SVG") from error
    if kind not in _RASTER:
        raise InputError(f"it is {kind or 'of another kind'}; save it as PNG, JPEG or SVG")
    return _RASTER[kind]


class _SvgReader:
    """Handlers for expat, which calls them as it reads; so depth and number of elements cost nothing."""

    def __init__(self) -> None:
        self.parser = parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartElementHandler = self._element
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.EntityDeclHandler = _entity
        parser.ProcessingInstructionHandler = _instruction
        self._root: Mapping[str, str] | None = None
        self._style: list[str] | None = None

    def size(self) -> tuple[int, int]:
        """Return width and height, at least 1 each."""
        assert self._root is not None  # expat has read a whole document
        if (box := self._root.get("viewBox")) is not None:
            parts = [_number(part) for part in re.split(r"[\s,]+", box.strip())]
            sides = parts[2:] if len(parts) == 4 else []
        else:
            sides = [_length(self._root.get(name, "")) for name in ("width", "height")]
        found = [side for side in sides if side is not None and math.isfinite(side) and 0 < side <= 1e6]
        if len(found) != 2:
            raise InputError('its <svg> says no size; give it a viewBox such as viewBox="0 0 1200 900"')
        return max(round(found[0]), 1), max(round(found[1]), 1)

    def _element(self, name: str, attributes: dict[str, str]) -> None:
        namespace, _, local = name.rpartition(" ")
        if self._root is None:
            if (namespace, local) != (_SVG, "svg"):
                raise InputError(f'its first element is <{local}> and not <svg xmlns="{_SVG}">; save it as plain SVG')
            self._root = attributes
        if local.lower() in _REFUSED or local.lower().startswith("animate"):
            raise InputError(f"it has a <{local}>, and a map may only be a drawing; take it out (save as plain SVG)")
        for key, value in attributes.items():
            _check_attribute(local, key, value)
        if local.lower() == "style":
            self._style = []

    def _text(self, text: str) -> None:
        if self._style is not None:
            self._style.append(text)

    def _end(self, name: str) -> None:
        if self._style is not None and name.rpartition(" ")[2].lower() == "style":
            _check_css("".join(self._style), "its <style>")
            self._style = None


def _check_attribute(element: str, key: str, value: str) -> None:
    if key.lower().startswith("on"):
        raise InputError(f"its <{element}> has {key}, which runs a script; take it out (save as plain SVG)")
    if key in _LINKS and not value.strip().startswith("#") and not _EMBEDDED.match(value.strip()):
        raise InputError(
            f'its <{element}> refers to "{value.strip()[:60]}", and nothing outside of the map is fetched; embed '
            "pictures and take out links"
        )
    _check_css(value, f"{key} of its <{element}>", escapes=key == "style")


def _check_css(css: str, where: str, *, escapes: bool = True) -> None:
    # An escape can spell url( so that it is not seen here.
    if _URL.search(css) or "@import" in css.lower() or (escapes and "\\" in css):
        raise InputError(
            f"{where} refers to another file, which is not fetched; embed fonts and pictures or do without"
        )


def _entity(*_: Any) -> None:
    raise InputError("it declares entities, with which a small file can become a huge one; save it as plain SVG")


def _instruction(target: str, data: str) -> None:
    if target.lower() == "xml-stylesheet":
        raise InputError("it takes its style from another file, which is not fetched; save it with its style inside")


def _length(text: str) -> float | None:
    parts = _LENGTH.fullmatch(text)
    return None if parts is None else float(parts[1]) * _PIXELS[(parts[2] or "px").lower()]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
