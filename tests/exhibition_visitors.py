"""A tiny exhibition for the tests (drawn people, random weights, a page that says nothing) and its visitors."""

import contextlib
import io
import json
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from manifests.image_source import ImageSource
from pipeline.exhibition.app import create_app
from pipeline.exhibition.gallery import Gallery
from pipeline.exhibition.museum import Museum, plain_museum
from pipeline.exhibition.photo import ALIGNED, Pixels
from pipeline.exhibition.settings import ExhibitionSettings
from pipeline.faces.face_box import FaceBox
from pipeline.retrieval.face_set import FACE_SET_SCHEMA, FaceSet
from pipeline.retrieval.index import open_index, update_index
from pipeline.retrieval.retrieval_model import ModelPlaces, open_retrieval_model
from tests.labelled_run import HEIGHT, WIDTH, photograph
from tests.trained_models import write_attributes, write_checkpoint, write_identity

BASE = "http://127.0.0.1:8077"
PEOPLE, PICTURES = 8, 4
UNTRAINED = "Wearing_Hat"


def make_index(place: Path, untrained: Sequence[str] = (UNTRAINED,)) -> Path:
    """Index four pictures each of eight people; the tiny backbone has to be registered."""
    checkpoint = write_checkpoint(place / "tiny.safetensors", seed=7)
    places = ModelPlaces(
        identity=write_identity(place / "id", weights=checkpoint),
        attributes=write_attributes(place / "at", weights=checkpoint, untrained=tuple(untrained)),
    )
    (place / "pictures").mkdir()
    names = [f"painter-{who}_work-{number}.png" for who in range(PEOPLE) for number in range(PICTURES)]
    pictures = [photograph(who, number) for who in range(PEOPLE) for number in range(PICTURES)]
    for name, picture in zip(names, pictures, strict=True):
        Image.fromarray(picture).save(place / "pictures" / name)
    columns = {"id": names, "source_id": names, "locator": names, "version": ["1"] * len(names)}
    table = pa.table(
        {field.name: pa.array(columns.get(field.name) or pa.nulls(len(names)), field.type) for field in FACE_SET_SCHEMA}
    )
    stack = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    faces = FaceSet(
        "drawn faces",
        table,
        ImageSource("folder", str(place / "pictures")),
        (WIDTH, HEIGHT),
        lambda at: stack[np.asarray(at)],
    )
    update_index(place / "index", faces, places, open_retrieval_model(places), quiet=True)
    return place / "index"


def open_gallery(index: Path) -> Gallery:
    opened = open_index(index)
    return Gallery(opened, open_retrieval_model(opened.places))


def write_page(place: Path) -> tuple[Path, Path]:
    """A page that only says what it was told, and one static file; returns their folders."""
    templates, static = place / "templates", place / "static"
    templates.mkdir()
    static.mkdir()
    (templates / "index.html.jinja").write_text(
        '<!doctype html><html lang="{{ language }}"><meta name="csrf" content="{{ csrf }}"><title>{{ title }}</title>'
        '<link rel="stylesheet" href="{{ static("page.css") }}">'
        '<script type="application/json" id="config">{{ config|tojson }}</script></html>'
    )
    (static / "page.css").write_text("body { margin: 0 }")
    (static / "notes.txt").write_text("not for anybody")
    return templates, static


MESSAGES = {"en": {"welcome": "Welcome", "attribute.Smiling": "Smiling"}, "it": {"welcome": "Benvenuti"}}


def detect(picture: Pixels) -> tuple[FaceBox, ...]:
    """Find one face in an upright picture, as large as in Celeb-A's, two in a wide one, none in a dark one."""
    height, width = picture.shape[:2]
    if picture.mean() < 8:
        return ()
    count = 2 if width > 1.5 * height else 1
    part = width / count
    scale = max(part / 178, height / 218)  # so that what is cut out is all of the part
    face = ALIGNED.scaled(178 * scale, 218 * scale)
    left, top = face.x + (part - 178 * scale) / 2, face.y + (height - 218 * scale) / 2
    return tuple(FaceBox(part * at + left, top, part * at + left + face.w, top + face.h, 0.9) for at in range(count))


def make_app(gallery: Gallery, page: tuple[Path, Path], museum: Museum | None = None, **options: Any) -> Starlette:
    """The application; options are of `ExhibitionSettings`, and `clock` and `detect`."""
    given = {name: options.pop(name) for name in ("clock", "detect") if name in options}
    return create_app(
        gallery,
        museum or plain_museum(gallery.index),
        ExhibitionSettings(**options),
        messages=MESSAGES,
        templates=page[0],
        static=page[1],
        **{"detect": detect, **given},
    )


def picture_of(person: int, number: int = 9, scale: int = 10) -> Pixels:
    """A photograph of a person of the index that is not in it."""
    return photograph(person, number).repeat(scale, axis=0).repeat(scale, axis=1)


def encoded(picture: Pixels, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, **options)
    return buffer.getvalue()


class Visitor:
    """A page as a browser holds it: its cookie, its token, and one visit.

    Args:
        client: to ask with; its cookies are replaced at every request.
    """

    def __init__(self, client: TestClient) -> None:
        self.client = client
        client.cookies.clear()
        page = client.get("/")
        assert page.status_code == 200, page.text
        self.cookie = page.cookies["stylize_visitor"]
        client.cookies.clear()
        found = re.search(r'name="csrf" content="([^"]+)"', page.text)
        assert found
        self.csrf = found[1]
        self.page = page.text
        self.token: str | None = None

    @property
    def config(self) -> dict[str, Any]:
        found = re.search(r'id="config">(.*?)</script>', self.page, re.S)
        assert found
        document: dict[str, Any] = json.loads(found[1])
        return document

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """Send a request under /api/visit with all that belongs to it; headers that are None are left out."""
        headers = {
            "Cookie": f"stylize_visitor={self.cookie}",
            "X-CSRF-Token": self.csrf,
            "X-Visit": self.token,
            "Origin": BASE,
            **options.pop("headers", {}),
        }
        given = {name: value for name, value in headers.items() if value is not None}
        return self.client.request(method, f"/api/visit{path}", headers=given, **options)

    def begin(self) -> "Visitor":
        answer = self.ask("POST", "", json={"consent": True})
        assert answer.status_code == 201, answer.text
        self.token = answer.json()["visit"]
        return self

    def show(self, data: bytes, kind: str = "image/png") -> Any:
        return self.ask("PUT", "/photo", content=data, headers={"Content-Type": kind})

    def results(self) -> dict[str, Any]:
        """Wait for the search."""
        return self._until(lambda: self.ask("GET", "").json(), {"ready", "failed"})["results"]  # type: ignore[no-any-return]

    def arrive(self, person: int = 2) -> dict[str, Any]:
        """Begin, show a photograph, wait."""
        self.begin()
        answer = self.show(encoded(picture_of(person)))
        assert answer.status_code == 202, answer.text
        return self.results()

    def explained(self, face: str) -> dict[str, Any]:
        """Ask why, and wait."""
        answer = self.ask("POST", "/explanation", json={"face": face})
        assert answer.status_code == 202, answer.text
        return self._until(lambda: self.ask("GET", "/explanation", params={"face": face}).json(), {"ready", "failed"})

    @staticmethod
    def _until(look: Any, states: set[str]) -> dict[str, Any]:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            document: dict[str, Any] = look()
            if document["state"] in states:
                return document
            time.sleep(0.01)
        raise AssertionError(f"still {document['state']}")


@contextlib.contextmanager
def visiting(app: Starlette) -> Iterator[TestClient]:
    with TestClient(app, base_url=BASE, raise_server_exceptions=False) as client:
        yield client
