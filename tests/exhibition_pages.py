"""What the tests of the exhibition's page need: a browser with a drawn camera, a small museum, eyes on what it does."""

import io
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright, Request, expect

from pipeline.demo.cartoon_faces import draw_face
from pipeline.demo.face_parameters import FaceParameters, sample_person, sample_sitting
from pipeline.exhibition.floor_plan import ROOMS, draw_floor_plan
from pipeline.exhibition.gallery import Gallery
from pipeline.exhibition.museum import Museum, Room, Work
from pipeline.exhibition.photo import Pixels
from pipeline.retrieval.face_set import ID

KIOSK, PHONE = {"width": 1080, "height": 1920}, {"width": 390, "height": 844}

# Remembers addresses of blobs that nobody has given back, streams, and calls of print().
WITNESS = """
window.blobs = new Set();
const [make, drop] = [URL.createObjectURL.bind(URL), URL.revokeObjectURL.bind(URL)];
URL.createObjectURL = (blob) => { const address = make(blob); window.blobs.add(address); return address; };
URL.revokeObjectURL = (address) => { window.blobs.delete(address); drop(address); };
window.streams = [];
const devices = navigator.mediaDevices; // an empty page has none
const open = devices?.getUserMedia.bind(devices);
if (devices) {
  devices.getUserMedia = async (wanted) => {
    const stream = await open(wanted);
    window.streams.push(stream);
    return stream;
  };
}
window.prints = 0;
window.print = () => { window.prints += 1; dispatchEvent(new Event("afterprint")); };
"""


def browser_file(playwright: Playwright) -> str | None:
    """Return the Chromium to use: STYLIZE_CHROMIUM, Playwright's own, or one of the system's; None if there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    candidates = [os.environ.get("STYLIZE_CHROMIUM"), playwright.chromium.executable_path, *map(shutil.which, names)]
    return next((path for path in candidates if path and Path(path).is_file()), None)


def launch(playwright: Playwright, camera: Path) -> Browser:
    """Start a headless Chromium whose camera shows a drawn face; skips the test where there is none."""
    file = browser_file(playwright)
    if file is None:
        pytest.skip("there is no Chromium; run playwright install chromium, or set STYLIZE_CHROMIUM")
    camera.write_bytes(encoded(on_canvas(drawn(5), (640, 480)), "JPEG", quality=90) * 2)
    return playwright.chromium.launch(
        executable_path=file,
        args=[
            "--use-fake-ui-for-media-stream",
            "--use-fake-device-for-media-stream",
            f"--use-file-for-fake-video-capture={camera}",
        ],
    )


def drawn(number: int, size: tuple[int, int] = (360, 440)) -> Pixels:
    """Draw somebody, other ones for other numbers."""
    rng = np.random.default_rng((7, number))
    person = sample_person(rng, number)
    return draw_face(FaceParameters(person, sample_sitting(rng, person)), size)


def on_canvas(picture: Pixels, size: tuple[int, int]) -> Pixels:
    canvas = np.full((size[1], size[0], 3), 128, np.uint8)
    top, left = (size[1] - picture.shape[0]) // 2, (size[0] - picture.shape[1]) // 2
    canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return canvas


def encoded(picture: Pixels, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, **options)
    return buffer.getvalue()


def upload(picture: Pixels | bytes, name: str = "photo.png", kind: str = "image/png") -> Any:
    """Return a file as a visitor chooses it."""
    return {"name": name, "mimeType": kind, "buffer": picture if isinstance(picture, bytes) else encoded(picture)}


def make_museum(gallery: Gallery) -> Museum:
    """A museum with titles in two languages, the demo's floor plan, and rooms for all works."""
    works = {}
    for at, name in enumerate(gallery.index.gallery.table[ID].to_pylist()):
        room = ROOMS[at % len(ROOMS)]
        title = {"en": f"Portrait number {at}", "it": f"Ritratto numero {at}"}
        works[name] = Work(name, title, "Ada Pennello", "1620", room.id, room.middle.x, room.middle.y)
    rooms = {room.id: Room(room.id, {"en": f"Room {room.id}", "it": f"Sala {room.id}"}) for room in ROOMS}
    return Museum({"en": "Drawn museum", "it": "Museo disegnato"}, plan=draw_floor_plan(), rooms=rooms, works=works)


class Watched:
    """A browser context, and what its pages did that they should not.

    Args:
        context: of a browser.
        url: of the server.

    Attributes:
        elsewhere: requests to other hosts.
        complaints: errors and warnings on consoles, violations of the page's policy among them; and exceptions.
        tokens: of visits that requests were about, in order.
    """

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.context, self.url = context, url
        self.elsewhere: list[str] = []
        self.complaints: list[str] = []
        self.tokens: list[str] = []
        self._host = urlsplit(url).netloc
        context.set_default_timeout(20_000)
        context.add_init_script(WITNESS)
        context.on("request", self._on_request)
        context.on("console", self._on_console)
        context.on("weberror", lambda error: self.complaints.append(str(error.error)))

    def page(self, language: str = "en") -> Page:
        page = self.context.new_page()
        page.goto(f"{self.url}?lang={language}")
        return page

    def forgotten(self, page: Page, token: str) -> bool:
        """Ask the server, as the page would, whether it has forgotten a visit."""
        answer = page.request.get(f"{self.url}api/visit", headers={"X-Visit": token})
        assert answer.status in {200, 410}, answer.text()
        return answer.status == 410

    def _on_request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in {"blob", "data"} and parts.netloc != self._host:
            self.elsewhere.append(request.url)
        token = request.headers.get("x-visit")
        if token and token not in self.tokens:
            self.tokens.append(token)

    def _on_console(self, message: ConsoleMessage) -> None:
        refusal = re.search(r"status of 4\d\d", message.text)  # that the page asked for, and shows
        version = "Unrecognized feature" in message.text  # of the permissions policy, which differ between browsers
        if message.type in {"error", "warning"} and not refusal and not version:
            self.complaints.append(message.text)


@contextmanager
def watched(browser: Browser, url: str, **options: Any) -> Iterator[Watched]:
    """Give a context of its own; at the end nothing may have gone elsewhere, and nobody may have complained."""
    context = browser.new_context(**{"viewport": PHONE, "reduced_motion": "reduce", **options})
    eyes = Watched(context, url)
    try:
        yield eyes
        assert not eyes.elsewhere, eyes.elsewhere
        assert not eyes.complaints, eyes.complaints
    finally:
        context.close()


def screen(page: Page, name: str) -> None:
    """Wait for a screen."""
    expect(page.locator("body")).to_have_attribute("data-screen", name, timeout=20_000)


def consent(page: Page) -> None:
    page.click("#begin")
    page.click("#agree")
    screen(page, "camera")


def arrive(page: Page, photo: Any = None) -> None:
    """Go from the welcome to the results with a chosen photo."""
    consent(page)
    page.set_input_files("#file", photo or upload(drawn(5)))
    page.click("#use")
    screen(page, "results")


def order(page: Page) -> list[str]:
    """Return the faces that are shown, the closest first."""
    faces: list[str] = page.locator(".hung").evaluate_all("cards => cards.map(card => card.dataset.face)")
    return faces


def live_blobs(page: Page) -> int:
    count: int = page.evaluate("window.blobs.size + document.querySelectorAll('[src^=\"blob:\"]').length")
    return count
