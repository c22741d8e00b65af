"""The one page of the exhibition, and what it is told when it is loaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateNotFound

from manifests.errors import RunError
from pipeline.exhibition.gallery import Gallery
from pipeline.exhibition.museum import Museum
from pipeline.exhibition.settings import ExhibitionSettings
from pipeline.exhibition.static_files import StaticFiles

TEMPLATE: Final = "index.html.jinja"
Messages = Mapping[str, Mapping[str, str]]
"""Language → key → words."""


class Page:
    """The page's template.

    It is given `csrf`, `config` (see `config_document`), `title` (of the museum, in the page's language), `language`,
    `messages` (of the page's language) and `static` (the name of a file → its address).

    Args:
        folder: with the template.
        static: the page's own files.

    Raises:
        RunError: there is no template.
    """

    def __init__(self, folder: Path, static: StaticFiles) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        self._static = static
        try:
            self._environment.get_template(TEMPLATE)
        except TemplateNotFound:
            raise RunError(
                f'"{folder / TEMPLATE}", the page of the exhibition, is missing; install stylize again'
            ) from None

    def render(self, config: Mapping[str, Any], csrf: str) -> str:
        """Return the page, HTML."""
        language = config["language"]
        return self._environment.get_template(TEMPLATE).render(
            csrf=csrf,
            config=config,
            title=config["title"][language],
            language=language,
            messages=config["messages"][language],
            static=self._static.address,
        )


def config_document(
    gallery: Gallery, museum: Museum, settings: ExhibitionSettings, messages: Messages, language: str | None
) -> dict[str, Any]:
    """Return what the page is told.

    Args:
        gallery, museum, settings: of the exhibition.
        messages: of all languages.
        language: that the visitor asked for; another one than the museum's languages is passed over.
    """
    chosen = next(
        name for name in (language, settings.language, museum.language) if name is not None and name in museum.languages
    )
    plan = museum.plan
    return {
        "title": dict(museum.title),
        "languages": [*museum.languages],
        "language": chosen,
        "messages": {name: dict(messages[name]) for name in museum.languages},
        "attributes": [{"name": name, "labels": _labels(name, museum, messages)} for name in gallery.trained],
        "weight": gallery.weight if settings.weight is None else settings.weight,
        "weightMax": settings.weight_max,
        "idleSeconds": settings.idle_seconds,
        "maxUploadBytes": settings.max_upload_bytes,
        "k": settings.k,
        "faces": len(gallery),
        "map": None
        if plan is None
        else {
            "url": "/map",
            "width": plan.width,
            "height": plan.height,
            "you": None if plan.you is None else {"x": plan.you.x, "y": plan.you.y},
        },
        "demo": settings.demo,
    }


def _labels(name: str, museum: Museum, messages: Messages) -> dict[str, str]:
    plain = name.replace("_", " ")
    return {language: messages[language].get(f"attribute.{name}", plain) for language in museum.languages}
