"""Several visitors at once, over HTTP as browsers ask: how long each of them waits."""

import http.client
import json
import os
import re
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlsplit

from manifests.errors import InputError
from manifests.faces import read_faces
from pipeline.exhibition.cookie import COOKIE
from pipeline.pairing import draws

_ANSWER_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.1  # somewhat more often than the page
_CSRF: Final = re.compile(r'name="csrf" content="([0-9a-f]+)"')
_COOKIE: Final = re.compile(COOKIE + r"=([^;]+)")


@dataclass(frozen=True)
class VisitTimes:
    """What one visitor got, and how long it took, in seconds.

    Attributes:
        results: as they were first shown, the interface's document; None if something failed.
        found: from sending the photograph to seeing the results.
        judged: from the verdicts to the next results.
        filtered: from moving the slider to the results.
        explained: from asking why to the pictures; None where that was not asked.
        pages: requests that were answered.
        error: what failed; None if nothing.
    """

    results: dict[str, Any] | None
    found: float
    judged: float
    filtered: float
    explained: float | None
    pages: int
    error: str | None


@dataclass(frozen=True)
class LoadReport:
    """What all visitors got; `visits` are in the order of the photographs."""

    visits: tuple[VisitTimes, ...]
    seconds: float

    @property
    def served(self) -> int:
        """How many visitors got everything that they asked for."""
        return sum(visit.error is None for visit in self.visits)

    def as_dict(self) -> dict[str, Any]:
        """Return counts, and median and worst times in seconds; None where nothing was measured."""
        served = [visit for visit in self.visits if visit.error is None]
        times = {
            "found": [visit.found for visit in served],
            "judged": [visit.judged for visit in served],
            "filtered": [visit.filtered for visit in served],
            "explained": [visit.explained for visit in served if visit.explained is not None],
        }
        return {
            "visitors": len(self.visits),
            "served": self.served,
            "seconds": self.seconds,
            **{
                name: {"median": statistics.median(values), "worst": max(values)} if values else None
                for name, values in times.items()
            },
            "errors": [visit.error for visit in self.visits if visit.error is not None],
        }

    def lines(self) -> list[str]:
        """Return what to print."""
        document = self.as_dict()
        said = {
            "found": "from photograph to results",
            "judged": "from verdicts to new results",
            "filtered": "from the slider to new results",
            "explained": "from asking why to the pictures",
        }
        lines = [f"{len(self.visits)} visitors at once, {self.served} served, in {self.seconds:.1f} s"]
        for name, words in said.items():
            if document[name]:
                lines.append(
                    f"{words:<31}  median {document[name]['median']:.2f} s, worst {document[name]['worst']:.2f} s"
                )
        return lines + [f"failed: {error}" for error in document["errors"]]


def visit_together(
    url: str, faces: str | os.PathLike[str], *, visitors: int = 10, explain: bool = False, seed: int = 0
) -> LoadReport:
    """Let visitors come to a running exhibition at once, each with a photograph of somebody else.

    Args:
        url: of the exhibition, http.
        faces: where their photographs are, as `manifests.faces.read_faces` takes them.
        visitors: how many; no more than there are photographs.
        explain: each also asks why the first painting was found.
        seed: of the choice of photographs.

    Raises:
        InputError: the URL is none, nobody answers there, or there are too few photographs.
    """
    if not _is_address(url):
        raise InputError(f'"{url}" is not the address of an exhibition, such as http://127.0.0.1:8077')
    catalogue = read_faces(faces)
    count = catalogue.table.num_rows
    if not 1 <= visitors <= count:
        raise InputError(f'{visitors} visitors need as many photographs, and "{os.fspath(faces)}" has {count}')
    chosen = draws(seed, "visitors", count, visitors)
    photos = [catalogue.source.read(catalogue.table["locator"][int(at)].as_py()) for at in chosen]
    browser = Browser(url, _ANSWER_SECONDS)
    try:
        browser.load()
    except (LoadError, OSError, http.client.HTTPException) as error:
        raise InputError(f"no exhibition answers at {url} ({error}); start one with stylize exhibit") from None
    finally:
        browser.close()
    return simulate_visitors(url, photos, explain=explain)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme == "http" and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not close, a port beyond 65535
        return False


def simulate_visitors(
    url: str,
    photos: Sequence[bytes],
    *,
    explain: bool = False,
    seconds: float = 120.0,
    on_results: Callable[[int, "Browser"], None] = lambda visitor, browser: None,
) -> LoadReport:
    """Let as many visitors as there are photographs come at the same moment, each with their own.

    Each loads the page, consents, sends the photograph, looks at every painting found, likes the first and dislikes the
    last, moves the slider, may ask why, and leaves, without a pause for thought.

    Args:
        url: of a running exhibition.
        photos: encoded, JPEG or PNG; of several faces the first is chosen.
        explain: ask why the first painting was found.
        seconds: that a visitor waits for anything at most.
        on_results: called with the visitor's number and its browser when the results are there, from its thread.
    """
    barrier = threading.Barrier(len(photos) + 1)
    visits: list[VisitTimes | None] = [None] * len(photos)

    def come(number: int) -> None:
        browser = Browser(url, seconds)
        barrier.wait()
        visits[number] = _visit(
            browser, photos[number], explain=explain, on_results=lambda: on_results(number, browser)
        )

    threads = [threading.Thread(target=come, args=(number,), daemon=True) for number in range(len(photos))]
    for thread in threads:
        thread.start()
    barrier.wait()
    start = time.monotonic()
    for thread in threads:
        thread.join()
    lost = VisitTimes(None, 0.0, 0.0, 0.0, None, 0, "the visitor came to no end")
    return LoadReport(tuple(visit or lost for visit in visits), time.monotonic() - start)


class LoadError(RuntimeError):
    """An answer that a visitor should not get."""


class Browser:
    """One visitor's browser: one connection, one cookie, one visit.

    Args:
        url: of the exhibition.
        seconds: that it waits for anything at most.

    Attributes:
        requests: that were answered.
    """

    def __init__(self, url: str, seconds: float) -> None:
        parts = urlsplit(url)
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=seconds)
        self._headers: dict[str, str] = {}
        self._seconds = seconds
        self.requests = 0

    def load(self) -> None:
        """Load the page: cookie and token."""
        headers, page = self._answer("GET", "/")
        cookie, csrf = _COOKIE.search(headers.get("set-cookie", "")), _CSRF.search(page.decode())
        if cookie is None or csrf is None:
            raise LoadError("the page brings no cookie or no token")
        self._headers = {"Cookie": f"{COOKIE}={cookie[1]}", "X-CSRF-Token": csrf[1], "Origin": self._origin}

    def begin(self) -> None:
        """Consent."""
        self._headers["X-Visit"] = self.json("POST", "/api/visit", {"consent": True})["visit"]

    def get(self, path: str) -> bytes:
        """Return a picture."""
        return self._answer("GET", path, headers=self._headers)[1]

    def send(self, path: str, photo: bytes) -> dict[str, Any]:
        """Send a photograph."""
        kind = "image/png" if photo.startswith(b"\x89PNG") else "image/jpeg"
        answer = self._answer("PUT", path, photo, {**self._headers, "Content-Type": kind})[1]
        document: dict[str, Any] = json.loads(answer)
        return document

    def json(self, method: str, path: str, document: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask for JSON."""
        body = None if document is None else json.dumps(document).encode()
        headers = self._headers if body is None else {**self._headers, "Content-Type": "application/json"}
        answer = self._answer(method, path, body, headers)[1]
        found: dict[str, Any] = json.loads(answer) if answer else {}
        return found

    def wait(self, path: str) -> dict[str, Any]:
        """Ask until the state is "ready"."""
        deadline = time.monotonic() + self._seconds
        while time.monotonic() < deadline:
            document = self.json("GET", path)
            if document["state"] == "ready":
                return document
            if document["state"] == "failed":
                raise LoadError(f"{path} failed")
            time.sleep(_POLL_SECONDS)
        raise LoadError(f"{path} took more than {self._seconds:g} s")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _answer(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[http.client.HTTPMessage, bytes]:
        self._connection.request(method, path, body, headers or {})
        answer = self._connection.getresponse()
        data = answer.read()
        if answer.status >= 400:
            raise LoadError(f"{method} {path.partition('?')[0]} was answered with {answer.status}")
        self.requests += 1
        return answer.headers, data


def _visit(browser: Browser, photo: bytes, *, explain: bool, on_results: Callable[[], None]) -> VisitTimes:
    results: dict[str, Any] | None = None
    found = judged = filtered = 0.0
    explained: float | None = None
    try:
        browser.load()
        browser.begin()
        start = time.monotonic()
        if browser.send("/api/visit/photo", photo)["chosen"] is None:
            browser.json("POST", "/api/visit/face", {"face": 0})
        results = browser.wait("/api/visit")["results"]
        found = time.monotonic() - start
        on_results()
        items = results["items"]
        for item in items:
            browser.get(item["picture"])
        start = time.monotonic()
        first, last = items[0]["face"], items[-1]["face"]
        unliked = [last] if last != first else []
        browser.json("POST", "/api/visit/judgements", {"like": [first], "unlike": unliked})
        judged = time.monotonic() - start
        start = time.monotonic()
        browser.json("PUT", "/api/visit/settings", {"weight": results["weight"] / 2})
        filtered = time.monotonic() - start
        if explain:
            explained = _ask_why(browser)
        browser.json("DELETE", "/api/visit")
    except (LoadError, OSError, http.client.HTTPException, ValueError) as error:
        return VisitTimes(results, found, judged, filtered, explained, browser.requests, str(error) or repr(error))
    finally:
        browser.close()
    return VisitTimes(results, found, judged, filtered, explained, browser.requests, None)


def _ask_why(browser: Browser) -> float:
    face = browser.json("GET", "/api/visit")["results"]["items"][0]["face"]
    start = time.monotonic()
    browser.json("POST", "/api/visit/explanation", {"face": face})
    query = f"?face={quote(face, safe='')}"
    browser.wait(f"/api/visit/explanation{query}")
    for side in ("photo", "painting"):
        browser.get(f"/api/visit/explanation/{side}.png{query}")
    return time.monotonic() - start
