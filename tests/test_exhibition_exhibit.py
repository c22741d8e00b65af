"""Opening the exhibition: what is checked before anybody is let in, and the page as it is shipped."""

import inspect
import os
import re
import signal
import sys
import threading
import time
import urllib.request
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from manifests.errors import InputError
from pipeline.exhibition import demo_museum as demo_museum_module
from pipeline.exhibition import exhibit as exhibit_module
from pipeline.exhibition.demo_museum import DemoMuseum
from pipeline.exhibition.exhibit import exhibit
from pipeline.exhibition.messages import read_messages
from pipeline.exhibition.museum import Museum
from pipeline.exhibition.serving import bound_socket
from pipeline.retrieval.retrieval_model import ModelPlaces
from tests.exhibition_visitors import BASE, make_index
from tests.trained_models import register_tiny


@pytest.fixture(scope="module", autouse=True)
def _tiny():
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        register_tiny(patch)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return make_index(tmp_path_factory.mktemp("exhibit"))


def opened(monkeypatch, look, *arguments, **options):
    """Call `exhibit` with a server that looks at the application once, and return what was said."""

    class Once:
        def __init__(self, app):
            self.app = app

        def run(self, sockets):
            assert len(sockets) == 1
            with TestClient(self.app, base_url=BASE) as client:
                look(client)

    said: list[str] = []
    monkeypatch.setattr(exhibit_module, "server", Once)
    exhibit(*arguments, port=0, detector="centre", notify=said.append, **options)
    return said


def test_the_page_as_it_is_shipped(index, monkeypatch):
    def look(client):
        for language in ("en", "it"):
            page = client.get(f"/?lang={language}")
            assert page.status_code == 200
            assert f'<html lang="{language}"' in page.text
            assert 'name="csrf"' in page.text
            for address in {part.partition('"')[0] for part in page.text.split('"/static/')[1:]}:
                assert client.get(f"/static/{address}").status_code == 200, address
            scripts = [part.partition(">")[0] for part in page.text.split("<script")[1:]]
            assert all("src=" in tag or "application/json" in tag for tag in scripts)
            assert " style=" not in page.text
            assert "<style" not in page.text
            assert "http://" not in page.text.replace("http://www.w3.org", "")
            assert "https://" not in page.text

    said = opened(monkeypatch, look, index, language="it")
    assert said[0] == "32 faces; tiny, projections trained, 40 attributes, on cpu"
    assert said[1].startswith("the exhibition is open at http://127.0.0.1:")


def test_every_refusal_has_words_in_every_language():
    """Codes are written down in the code that refuses; the page looks them up in its messages."""
    from pipeline.exhibition import api, exhibition, photo, request_body, security, visits  # noqa: PLC0415

    source = "".join(inspect.getsource(module) for module in (api, exhibition, photo, request_body, security, visits))
    codes = {
        *re.findall(r'(?:ApiError\(\s*[45]\d\d,|PhotoError\()\s*"([a-z_]+)"', source),
        "forgotten",
        "search_failed",
    }
    assert {"nothing_left", "too_large", "busy", "no_face", "too_slow", "impossible_weight"} <= codes
    codes -= {"bad_request", "not_found", "internal"}  # which the page causes, and not the visitor
    for language, messages in read_messages().items():
        missing = {code for code in codes if f"error.{code}" not in messages}
        assert not missing, (language, missing)


def test_others_are_told_about(index, monkeypatch):
    def look(client):
        assert client.get("/", headers={"Host": "booth.example"}).status_code == 200

    said = opened(monkeypatch, look, index, host="0.0.0.0", allowed_hosts=["booth.example"])
    assert any("no camera without https" in sentence for sentence in said)
    assert not any("--allowed-host" in sentence for sentence in said)
    said = opened(monkeypatch, lambda client: None, index, host="0.0.0.0")
    assert any("--allowed-host NAME" in sentence for sentence in said)
    assert said[-1].startswith("the exhibition is open at http://127.0.0.1:")


def test_what_is_wrong_is_said_before_it_opens(index, tmp_path, monkeypatch):
    def never(client):
        raise AssertionError("it opened")

    refused: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        ((tmp_path / "nowhere",), {}, "nowhere"),
        ((index, tmp_path / "museum.toml"), {}, r"museum\.toml"),
        ((index,), {"language": "tlh"}, "tlh"),
        ((index,), {"weight": -1}, "from 0 to 1"),
        ((index,), {"k": 0}, "from 1 to 100"),
        ((index,), {"allowed_hosts": ["http://booth.example"]}, "neither a name nor an address"),
        ((index,), {"host": "..."}, r'"\.\.\." is neither a name nor an address'),
        (("~nosuchuser/index",), {}, "~nosuchuser"),
        ((index,), {"device": "tpu"}, 'device "tpu"'),
    ]
    for arguments, options, sentence in refused:
        with pytest.raises(InputError, match=sentence):
            opened(monkeypatch, never, *arguments, **options)
    with pytest.raises(InputError, match='no face detector "eyes"'):
        exhibit(index, port=0, detector="eyes")
    with bound_socket("127.0.0.1", 0) as taken, pytest.raises(InputError, match="cannot be served"):
        exhibit(index, port=taken.getsockname()[1])


@pytest.mark.parametrize("package", ["uvicorn", "starlette"])
def test_the_extra_is_named(index, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r"stylize\[exhibit\]"):
        exhibit(index)


def test_it_serves_until_it_is_interrupted(index):
    """The real server, in the main thread, ended as Ctrl-C ends it."""
    seen: list[int] = []
    said: list[str] = []
    over = threading.Event()

    def visit():
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not seen and not over.is_set():
            addresses = [sentence.split()[5] for sentence in said if "is open at" in sentence]
            try:
                if addresses:
                    with urllib.request.urlopen(addresses[0], timeout=10) as answer:
                        seen.append(answer.status)
            except OSError:
                pass
            time.sleep(0.02)
        if not over.is_set():
            os.kill(os.getpid(), signal.SIGINT)

    visitor = threading.Thread(target=visit)
    visitor.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            exhibit(index, port=0, detector="centre", notify=said.append)
    finally:
        over.set()
        visitor.join()
    assert seen == [200]


def test_the_demo_is_made_and_opened(index, monkeypatch):
    made = DemoMuseum(index, Museum({"en": "Drawn", "it": "Disegnato"}), ModelPlaces())
    asked: list[Any] = []

    def make(folder, **options):
        asked.append(folder)
        return made

    def look(client):
        page = client.get("/").text
        assert "Drawn" in page
        assert '"demo": true' in page

    monkeypatch.setattr(demo_museum_module, "demo_museum", make)
    opened(monkeypatch, look, None, demo_folder="place")
    assert asked == ["place"]


def test_the_demo_is_not_made_for_nothing(monkeypatch):
    """It takes minutes; what can be checked before is."""

    def make(folder, **options):
        raise AssertionError("it was made")

    monkeypatch.setattr(demo_museum_module, "demo_museum", make)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"language": "tlh"}, "tlh"),
        ({"idle_seconds": 1}, "10 to 3600 seconds"),
        ({"detector": "eyes"}, 'no face detector "eyes"'),
        ({"device": "tpu"}, 'device "tpu"'),
        ({"allowed_hosts": ["*"]}, "neither a name nor"),
    ]
    for options, sentence in refused:
        with pytest.raises(InputError, match=sentence):
            exhibit(None, **{"port": 0, "detector": "centre", **options})
    with bound_socket("127.0.0.1", 0) as taken, pytest.raises(InputError, match="cannot be served"):
        exhibit(None, port=taken.getsockname()[1], detector="centre")


def test_a_demo_s_folder_of_somebody_whom_nobody_knows():
    with pytest.raises(InputError, match="~nosuchuser/demo"):
        demo_museum_module.demo_museum("~nosuchuser/demo")
