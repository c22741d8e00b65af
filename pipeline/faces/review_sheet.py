"""The review sheet: all faces of an extraction on pages to be looked at, with a click to strike what is none.

Cornia et al. (TOMM 2022, Sec. 4): "we manually validate all detected faces, removing any false positive detection".
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

import pyarrow as pa
from jinja2 import Environment, StrictUndefined
from PIL import Image

from manifests.errors import RunError
from manifests.schema import PROXY_FORMATS
from pipeline.faces.extraction_folder import ExtractionFolder
from pipeline.faces.strikes import REASON

FACES_PER_PAGE: Final = 400
"""About 5 MB of a page."""

_TEMPLATE_FILE: Final = "review.html.jinja"
_PAGES: Final = "review*.html"
_SIDE: Final = (220, 260)  # pixels that a face is reduced to fit


@dataclass(frozen=True)
class _Shown:
    """A face on the sheet."""

    id: str
    picture: str
    score: float
    painting: str
    title: str
    artist: str
    size: str
    struck: bool
    reason: str


def write_review_sheet(folder: ExtractionFolder, faces: pa.Table) -> None:
    """Write review.html, review-2.html, … into an extraction's folder.

    Faces come by rising score: false positives crowd on the first pages. Struck ones come after all others, by rising
    score, too. Each page is self-contained: it asks no host for anything, and its script does no more than mark what is
    clicked and hand out the list as a file.

    Args:
        folder: of the extraction.
        faces: FACE_SCHEMA, all of it, with crops where it says.

    Raises:
        RunError: a crop is missing or damaged, or a page cannot be written.
    """
    ranked = faces.sort_by([("struck", "ascending"), ("score", "ascending"), ("face", "ascending")])
    count = max(1, -(-ranked.num_rows // FACES_PER_PAGE))
    pages = {}
    for number in range(count):
        rows = ranked.slice(number * FACES_PER_PAGE, FACES_PER_PAGE).to_pylist()
        pages[_name(number)] = _page(folder, rows, number, count, ranked).encode()
    folder.write_pages(pages, _PAGES)


def _name(number: int) -> str:
    return "review.html" if number == 0 else f"review-{number + 1}.html"


def _page(folder: ExtractionFolder, rows: Sequence[dict[str, Any]], number: int, count: int, faces: pa.Table) -> str:
    settings = folder.settings()
    struck = sum(faces["struck"].to_pylist())
    template = files(__package__).joinpath(_TEMPLATE_FILE).read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        faces=[_shown(folder, row) for row in rows],
        total=faces.num_rows - struck,
        struck=struck,
        source=settings["source"],
        detector=settings["detector"],
        confidence=settings["confidence"],
        minimum=settings["minimum"],
        enlarge=settings["enlarge"],
        number=number + 1,
        count=count,
        previous=_name(number - 1) if number else None,
        next=_name(number + 1) if number + 1 < count else None,
        reason=REASON,
    )


def _shown(folder: ExtractionFolder, row: dict[str, Any]) -> _Shown:
    return _Shown(
        row["face"],
        _thumbnail(folder, row),
        row["score"],
        row["painting"],
        _words(row["title"]) or row["painting"],
        _words(row["artist"]),
        f"{round(row['width'])} \u00d7 {round(row['height'])} px",
        row["struck"],
        row["reason"] or "",
    )


def _words(text: str | None) -> str:
    """Turn WikiArt's spelling ("mona-lisa") into words; what has blanks is left as it is."""
    if not text or " " in text:
        return text or ""
    return text.replace("-", " ").replace("_", " ")


def _thumbnail(folder: ExtractionFolder, row: dict[str, Any]) -> str:
    try:
        encoded = (folder.place / row["crop"]).read_bytes()
        image = Image.open(io.BytesIO(encoded), formats=PROXY_FORMATS).convert("RGB")
    except Exception as error:  # Pillow has many kinds for what is no picture
        reason = "is missing" if isinstance(error, FileNotFoundError) else "cannot be read"
        raise RunError(
            f'the crop "{row["face"]}" {reason} in "{folder.place}"; restore it from a copy, or extract the faces into '
            "a new folder"
        ) from error
    image.thumbnail(_SIDE, Image.Resampling.LANCZOS)
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=82)
    return base64.b64encode(sink.getvalue()).decode("ascii")
