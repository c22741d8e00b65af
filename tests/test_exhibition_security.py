"""What the exhibition refuses, what is on every answer, and that nothing of a visitor is written, logged or kept."""

import asyncio
import contextlib
import gc
import json
import logging
import os
import re
import socket
import sys
import tempfile
import time
import weakref
from typing import Any

import numpy as np
import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

from pipeline.exhibition import api as api_module
from pipeline.exhibition import app as app_module
from pipeline.exhibition import connection as connection_module
from pipeline.exhibition import exhibition as exhibition_module
from pipeline.exhibition import page as page_module
from pipeline.exhibition import serving as serving_module
from pipeline.exhibition.api_error import ApiError
from pipeline.exhibition.exhibition import Exhibition
from pipeline.exhibition.host_name import host_name
from pipeline.exhibition.photo import frame_head, read_portrait
from pipeline.exhibition.rate_limit import RateLimit
from pipeline.exhibition.request_body import read_body
from pipeline.exhibition.security import HEADERS, client_of
from pipeline.exhibition.serving import serving
from tests.exhibition_visitors import BASE, Visitor, encoded, make_app, make_index, open_gallery, picture_of, visiting
from tests.exhibition_visitors import write_page as make_page
from tests.trained_models import register_tiny


@pytest.fixture(scope="module", autouse=True)
def _tiny():
    with pytest.MonkeyPatch.context() as patch:
        register_tiny(patch)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    place = tmp_path_factory.mktemp("security")
    make_index(place)
    return place


@pytest.fixture(scope="module")
def gallery(made):
    return open_gallery(made / "index")


@pytest.fixture(scope="module")
def page(made):
    return make_page(made)


@pytest.fixture
def client(gallery, page):
    with visiting(make_app(gallery, page, explanation_steps=3)) as client:
        yield client


class Clock:
    now = 5000.0

    def __call__(self):
        return self.now


def code(answer):
    return answer.status_code, answer.json()["error"]["code"]


def exhibition_of(client) -> Exhibition:
    return client.app.state.exhibition  # type: ignore[no-any-return]


PATHS: list[tuple[str, str, Any]] = [
    ("GET", "", None),
    ("DELETE", "", None),
    ("PUT", "/photo", None),
    ("POST", "/face", {"face": 0}),
    ("PUT", "/settings", {"weight": 0.1}),
    ("POST", "/judgements", {"like": []}),
    ("POST", "/restart", None),
    ("POST", "/explanation", {"face": "painter-2_work-1.png"}),
    ("GET", "/explanation?face=painter-2_work-1.png", None),
    ("GET", "/explanation/photo.png?face=painter-2_work-1.png", None),
    ("GET", "/explanation/painting.png?face=painter-2_work-1.png", None),
]


def ask(visitor, method, path, document, **options):
    given = {"content": encoded(picture_of(5))} if path == "/photo" else {"json": document} if document else {}
    headers = {"Content-Type": "image/png"} if path == "/photo" else {}
    return visitor.ask(method, path, **given, headers={**headers, **options})


# --- whose visit ------------------------------------------------------------------------------------


def test_another_visitor_reaches_nothing_of_ours(client):
    ours = Visitor(client)
    before = ours.arrive()
    face = before["items"][0]["face"]
    ours.explained(face)
    photo = ours.ask("GET", f"/explanation/photo.png?face={face}").content
    stranger = Visitor(client).begin()
    stranger.show(encoded(picture_of(6)))
    theirs = stranger.results()
    assert theirs != before
    own_token = stranger.token
    for token in (ours.token, "x" * 43, "", str(ours.token)[:-1]):
        stranger.token = token
        for method, path, document in PATHS:
            answer = ask(stranger, method, path, document)
            assert code(answer) == (410, "forgotten"), (token, path)
        assert stranger.ask("POST", "/forget").status_code == 204  # and says nothing
    stranger.token = own_token
    assert code(stranger.ask("GET", f"/explanation/photo.png?face={face}")) == (404, "not_found")
    status = ours.ask("GET", "").json()
    assert status["results"] == before  # nothing of ours has changed
    assert ours.ask("GET", f"/explanation/photo.png?face={face}").content == photo


def test_what_is_forgotten_is_gone(client):
    visitor = Visitor(client)
    visitor.arrive()
    assert visitor.ask("DELETE", "").status_code == 204
    for method, path, document in PATHS:
        assert code(ask(visitor, method, path, document)) == (410, "forgotten"), path


def test_a_page_that_is_left_forgets(client):
    """`fetch(…, {keepalive})` has headers, `navigator.sendBeacon` has not."""
    visitor = Visitor(client)
    visitor.arrive()
    assert visitor.ask("POST", "/forget").status_code == 204
    assert code(visitor.ask("GET", "")) == (410, "forgotten")
    visitor.arrive()
    bare = {"X-CSRF-Token": None, "X-Visit": None, "Content-Type": "text/plain;charset=UTF-8"}
    for csrf in ("", "0" * 64, None):
        body = json.dumps({"visit": visitor.token, "csrf": csrf})
        assert code(visitor.ask("POST", "/forget", content=body, headers=bare)) == (403, "forbidden")
    assert visitor.ask("GET", "").status_code == 200
    body = json.dumps({"visit": visitor.token, "csrf": visitor.csrf})
    assert visitor.ask("POST", "/forget", content=body, headers=bare).status_code == 204
    assert code(visitor.ask("GET", "")) == (410, "forgotten")


def test_idle_visits_are_forgotten(gallery, page):
    clock = Clock()
    with visiting(make_app(gallery, page, clock=clock, idle_seconds=30)) as client:
        visitor = Visitor(client)
        results = visitor.arrive()
        clock.now += 59
        assert visitor.ask("GET", "").json()["results"] == results
        clock.now += 61
        assert code(visitor.ask("GET", "")) == (410, "forgotten")
        assert len(exhibition_of(client).visits) == 0


def test_idle_visits_are_forgotten_without_anybody_asking(gallery, page, monkeypatch):
    clock = Clock()
    with monkeypatch.context() as patch:
        sleep = asyncio.sleep
        patch.setattr("pipeline.exhibition.app.asyncio.sleep", lambda seconds: sleep(0.01))
        with visiting(make_app(gallery, page, clock=clock, idle_seconds=30)) as client:
            Visitor(client).arrive()
            exhibition = exhibition_of(client)
            assert len(exhibition.visits) == 1
            clock.now += 61
            deadline = time.monotonic() + 30
            while len(exhibition.visits) and time.monotonic() < deadline:
                time.sleep(0.01)
            assert len(exhibition.visits) == 0


def test_who_was_here_is_forgotten_by_the_limits_too(gallery, page, monkeypatch):
    clock = Clock()
    limits: list[RateLimit] = []

    def limit(*arguments, **options):
        limits.append(RateLimit(*arguments, **options))
        return limits[-1]

    sleep = asyncio.sleep
    monkeypatch.setattr(app_module, "RateLimit", limit)
    monkeypatch.setattr("pipeline.exhibition.app.asyncio.sleep", lambda seconds: sleep(0.01))
    with visiting(make_app(gallery, page, clock=clock)) as client:
        Visitor(client).arrive()
        assert all(len(limit) for limit in limits)
        clock.now += 17
        deadline = time.monotonic() + 30
        while any(len(limit) for limit in limits) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [len(limit) for limit in limits] == [0] * 4


def test_a_visit_outlives_a_slow_upload(gallery, page):
    clock = Clock()
    with visiting(make_app(gallery, page, clock=clock, idle_seconds=10)) as client:
        visitor = Visitor(client).begin()
        clock.now += 44  # a photograph may take 30 seconds
        assert visitor.ask("GET", "").status_code == 200
        clock.now += 46
        assert code(visitor.ask("GET", "")) == (410, "forgotten")


def test_nothing_is_kept_of_a_visit_that_is_over(client, monkeypatch):
    """Photograph, head and description are gone from memory, and not merely from reach."""
    kept = []

    def watch(name, function, result):
        def watched(*args, **options):
            found = function(*args, **options)
            kept.append((name, weakref.ref(result(found))))
            return found

        return watched

    gallery = exhibition_of(client).gallery
    read, frame, describe = read_portrait, frame_head, gallery.describe
    monkeypatch.setattr(exhibition_module, "read_portrait", watch("photo", read, lambda found: found.pixels))
    monkeypatch.setattr(exhibition_module, "frame_head", watch("head", frame, lambda found: found))
    monkeypatch.setattr(gallery, "describe", watch("query", describe, lambda found: found.embeddings))
    pair = encoded(np.concatenate([picture_of(2), picture_of(5)], axis=1))
    for data, face in ((encoded(picture_of(2)), None), (pair, 1)):
        visitor = Visitor(client).begin()
        visitor.show(data)
        if face is not None:
            visitor.ask("POST", "/face", json={"face": face})
        shown = visitor.results()["items"][0]["face"]
        visitor.ask("POST", "/judgements", json={"like": [shown]})
        visitor.explained(shown)
        visitor.ask("DELETE", "")
    assert {name for name, _ in kept} == {"photo", "head", "query"}
    deadline = time.monotonic() + 20
    while any(reference() is not None for _, reference in kept) and time.monotonic() < deadline:
        client.get("/map")  # threads and the loop let go of their last work when they do something else
        gc.collect()
        time.sleep(0.02)
    assert [name for name, reference in kept if reference() is not None] == []


def test_work_of_a_visit_that_is_over_is_dropped(gallery, page):
    with visiting(make_app(gallery, page, explanation_steps=100_000)) as client:
        visitor = Visitor(client)
        shown = [item["face"] for item in visitor.arrive()["items"]]
        for face in shown[:3]:
            visitor.ask("POST", "/explanation", json={"face": face})
        jobs = exhibition_of(client).jobs
        assert jobs.pending(visitor.token, "explanation") == 3
        visitor.ask("DELETE", "")
        assert jobs.pending(visitor.token, "explanation") == 0
        deadline = time.monotonic() + 30
        while jobs._running["explanation"] is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert jobs._running["explanation"] is None  # it did not take its hundred thousand steps


# --- whose page -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path", "document"), [case for case in PATHS if case[0] != "GET"])
def test_pages_of_others_change_nothing(client, method, path, document):
    visitor = Visitor(client)
    before = visitor.arrive()
    other = Visitor(client)
    foreign: list[dict[str, Any]] = [
        {"X-CSRF-Token": None},
        {"X-CSRF-Token": ""},
        {"X-CSRF-Token": other.csrf},
        {"Cookie": None},
        {"Cookie": f"stylize_visitor={other.cookie}"},
        {"Cookie": "stylize_visitor=1"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    ]
    for headers in foreign:
        answer = ask(visitor, method, path, document, **headers)
        assert code(answer) == (403, "forbidden"), headers
    assert visitor.ask("GET", "").json()["results"] == before
    assert ask(visitor, method, path, document, **{"Sec-Fetch-Site": "same-origin"}).status_code in {200, 202, 204, 409}


def test_a_visit_begins_on_our_page_only(client):
    visitor = Visitor(client)
    for headers in ({"X-CSRF-Token": None}, {"Origin": "https://evil.example"}, {"Cookie": None}):
        assert code(visitor.ask("POST", "", json={"consent": True}, headers=headers)) == (403, "forbidden")
    assert len(exhibition_of(client).visits) == 0


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8077",
        "127.0.0.1.evil.example",
        "localhost@evil.example",
        "",
        "[::2]",
        "a b",
        "x:y",
    ],
)
def test_names_that_are_not_ours(client, host):
    """A page of a stranger's name that was pointed here (DNS rebinding)."""
    for path in ("/", "/pictures/0.jpg", "/api/visit", "/static/page.css", "/nothing"):
        assert code(client.get(path, headers={"Host": host, "Origin": f"http://{host}"})) == (403, "forbidden")


def test_names_that_are_ours(gallery, page):
    with visiting(make_app(gallery, page, allowed_hosts=("Gallery.example", "10.1.2.3:80"))) as client:
        ours = ["127.0.0.1", "127.0.0.1:8077", "localhost:1", "[::1]:8077", "gallery.example", "GALLERY.example.:443"]
        for host in (*ours, "10.1.2.3"):
            assert client.get("/", headers={"Host": host}).status_code == 200, host
        assert client.get("/", headers={"Host": "10.1.2.4"}).status_code == 403


def test_a_link_from_elsewhere_may_open_the_page(client):
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert client.get("/", headers=link).status_code == 200
    assert client.get("/pictures/0.jpg", headers={**link, "Sec-Fetch-Mode": "no-cors"}).status_code == 403
    assert client.get("/api/visit", headers=link).status_code == 403


def test_the_cookie(client):
    client.cookies.clear()
    answer = client.get("/")
    (cookie,) = answer.headers.get_list("set-cookie")
    assert {part.strip().lower() for part in cookie.split(";")[1:]} == {"httponly", "path=/", "samesite=strict"}
    value = answer.cookies["stylize_visitor"]
    client.cookies.clear()
    again = client.get("/", headers={"Cookie": f"stylize_visitor={value}"})
    assert again.cookies["stylize_visitor"] == value  # two tabs
    client.cookies.clear()
    planted = client.get("/", headers={"Cookie": "stylize_visitor=<script>"})
    assert planted.cookies["stylize_visitor"] != "<script>"
    assert "secure" in client.get("https://127.0.0.1:8077/").headers["set-cookie"].lower()


@pytest.mark.parametrize(
    ("peer", "trusted"), [("127.0.0.1", True), ("::1", True), ("192.168.1.7", False), ("x", False)]
)
def test_the_cookie_behind_a_proxy_that_speaks_tls(gallery, page, peer, trusted):
    with TestClient(make_app(gallery, page), base_url=BASE, client=(peer, 5)) as client:
        assert "secure" not in client.get("/").headers["set-cookie"].lower()
        client.cookies.clear()
        cookie = client.get("/", headers={"X-Forwarded-Proto": "https"}).headers["set-cookie"]
        assert ("secure" in cookie.lower()) == trusted


def test_requests_that_no_page_makes_are_refused_and_are_no_failures_of_ours(client, caplog):
    visitor = Visitor(client)
    visitor.arrive()
    huge = b'{"weight": 1' + b"0" * 400 + b"}"
    answer = visitor.ask("PUT", "/settings", content=huge, headers={"Content-Type": "application/json"})
    assert code(answer) == (422, "impossible_weight")
    surrogate = json.dumps({"visit": visitor.token, "csrf": "\ud800"})
    bare = {"X-CSRF-Token": None, "X-Visit": None}
    assert code(visitor.ask("POST", "/forget", content=surrogate, headers=bare)) == (403, "forbidden")
    assert code(visitor.ask("GET", "", headers={"Origin": "http://["})) == (403, "forbidden")
    for path in ("works", "pictures"):
        assert code(client.get(f"/{path}/{'9' * 5000}.jpg")) == (404, "not_found")
        assert code(client.get(f"/{path}/%D9%A1.jpg")) == (404, "not_found")  # a digit, but no ASCII
    assert "failed" not in caplog.text


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("Booth.Example.", "booth.example"),
        ("booth_2:8077", "booth_2"),
        (" 10.1.2.3:80", "10.1.2.3"),
        ("2001:DB8:0::5", "2001:db8::5"),
        ("[2001:db8:0::5]:80", "2001:db8::5"),
        ("xn--mseum-kva.example", "xn--mseum-kva.example"),
        ("http://booth.example", None),
        ("booth.example/", None),
        ("*.example", None),
        ("m\u00fcseum.example", None),
        ("...", None),
        ("a" * 64, None),
        ("a.b:x", None),
        ("[::1", None),
        ("a@b", None),
        ("", None),
    ],
)
def test_names_as_staff_write_them(written, name):
    assert host_name(written) == name


def test_tokens_of_another_process_mean_nothing(gallery, page):
    with visiting(make_app(gallery, page)) as client:
        visitor = Visitor(client)
    with visiting(make_app(gallery, page)) as client:
        visitor.client = client
        assert code(visitor.ask("POST", "", json={"consent": True})) == (403, "forbidden")


# --- how much, how fast -----------------------------------------------------------------------------


def test_photographs_that_are_too_large(gallery, page):
    with visiting(make_app(gallery, page, max_upload_bytes=1000)) as client:
        visitor = Visitor(client).begin()
        read = []

        def endless():
            for _ in range(10_000):
                read.append(1)
                yield b"\xff" * 100

        assert code(visitor.show(endless())) == (413, "too_large")  # no length is announced
        announced = visitor.ask(
            "PUT", "/photo", content=b"", headers={"Content-Type": "image/png", "Content-Length": "1001"}
        )
        assert code(announced) == (413, "too_large")
        assert announced.headers["connection"] == "close"
        huge = {"Content-Type": "application/json"}
        assert code(visitor.ask("PUT", "/settings", content=b" " * 20_000, headers=huge)) == (413, "too_large")


def body_request(parts, headers=()):
    async def receive():
        return await anext(parts)

    return Request({"type": "http", "method": "PUT", "headers": list(headers), "path": "/"}, receive)


def test_no_more_is_read_than_is_allowed():
    read = 0

    async def endless():
        nonlocal read
        while True:
            read += 100
            yield {"type": "http.request", "body": b"x" * 100, "more_body": True}

    async def run(request):
        with pytest.raises(ApiError) as caught:
            await read_body(request, limit=1000, seconds=60)
        return caught.value.code

    assert asyncio.run(run(body_request(endless()))) == "too_large"
    assert read == 1100
    read = 0
    assert asyncio.run(run(body_request(endless(), [(b"content-length", b"5000")]))) == "too_large"
    assert asyncio.run(run(body_request(endless(), [(b"content-length", b"-5")]))) == "too_large"
    assert read == 0


@pytest.mark.parametrize("ending", ["large", "slow", "broken"])
def test_a_refused_upload_is_let_go_at_once(ending):
    """And not when a collector of cycles next comes by: it may be a photograph."""
    parts = [bytes([at]) * 1000 for at in range(5)]
    before = [sys.getrefcount(part) for part in parts]
    left = iter(parts)

    async def receive():
        part = next(left, None)
        if part is not None:
            return {"type": "http.request", "body": part, "more_body": True}
        if ending == "slow":
            await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    async def run():
        request = Request({"type": "http", "method": "PUT", "headers": [], "path": "/"}, receive)
        with contextlib.suppress(ApiError):
            await read_body(
                request, limit=3500 if ending == "large" else 10**6, seconds=0.1 if ending == "slow" else 60
            )

    gc.collect()
    gc.disable()
    try:
        asyncio.run(run())
        after = [sys.getrefcount(part) for part in parts]
        assert all(now <= then for now, then in zip(after, before, strict=True)), (before, after)
    finally:
        gc.enable()


def test_a_length_that_is_no_number():
    async def nothing():
        yield {"type": "http.request", "body": b"", "more_body": False}

    async def run(length):
        with pytest.raises(ApiError) as caught:
            await read_body(body_request(nothing(), [(b"content-length", length)]), limit=1000, seconds=60)
        return caught.value.code

    for length in (b"9" * 5000, b"\xb2", b"1e2"):
        assert asyncio.run(run(length)) == "too_large"


def test_a_request_that_never_ends():
    async def slow():
        while True:
            yield {"type": "http.request", "body": b"x", "more_body": True}
            await asyncio.sleep(0.02)

    async def run():
        with pytest.raises(ApiError) as caught:
            await read_body(body_request(slow()), limit=10**9, seconds=0.2)
        return caught.value

    error = asyncio.run(run())
    assert (error.status, error.code) == (408, "too_slow")


def test_slow_and_broken_uploads_over_http(gallery, page):
    """Nobody is kept waiting by a photograph that does not come, or by one that is broken off."""
    with serving(make_app(gallery, page, body_seconds=1)) as url:
        host, port = url.removeprefix("http://").rstrip("/").split(":")
        opened = OverHttp(host, int(port))
        with opened.connection() as slow, opened.connection() as broken:
            for connection in (slow, broken):
                connection.sendall(opened.head("PUT", "/api/visit/photo", 5000, "image/png") + b"\x89PNG")
            broken.close()
            assert opened.json("GET", "/api/visit")["state"] == "empty"
            answer = received(slow)
            assert b" 408 " in answer.partition(b"\r\n")[0]
            assert b"too_slow" in answer
            assert b"connection: close" in answer.lower()
        with opened.connection() as large:
            large.sendall(opened.head("PUT", "/api/visit/photo", 10**9, "image/png"))
            assert b" 413 " in received(large).partition(b"\r\n")[0]


def test_connections_that_say_nothing_are_closed(gallery, page, monkeypatch):
    monkeypatch.setattr(connection_module, "IDLE_SECONDS", 0.3)
    with serving(make_app(gallery, page, body_seconds=20)) as url:
        host, port = url.removeprefix("http://").rstrip("/").split(":")
        address = host, int(port)
        silent, half = (socket.create_connection(address, timeout=30) for _ in range(2))
        with silent, half:
            half.sendall(b"GET / HTTP/1.1\r\nHost: 127")
            for connection in (silent, half):
                with contextlib.suppress(ConnectionResetError):
                    assert connection.recv(100) == b""
        opened = OverHttp(*address)
        with opened.connection() as slow:  # a request whose header is there has its own time
            slow.sendall(opened.head("PUT", "/api/visit/photo", 4, "image/png") + b"\x89P")
            time.sleep(0.9)
            slow.sendall(b"NG")
            assert b" 422 " in slow.recv(65536).partition(b"\r\n")[0]
            with contextlib.suppress(ConnectionResetError):
                while slow.recv(65536):  # and is closed when the next one does not come
                    pass


def test_silent_connections_shut_nobody_out(gallery, page, monkeypatch):
    monkeypatch.setattr(serving_module, "_CONNECTIONS", 8)
    with serving(make_app(gallery, page)) as url, contextlib.ExitStack() as stack:
        host, port = url.removeprefix("http://").rstrip("/").split(":")
        silent = [stack.enter_context(socket.create_connection((host, int(port)), timeout=30)) for _ in range(30)]
        opened = OverHttp(host, int(port))
        assert opened.json("GET", "/api/visit")["state"] == "empty"
        with contextlib.suppress(ConnectionResetError):
            assert silent[0].recv(100) == b""  # the first to come is the first to go


class OverHttp:
    """A visitor on bare sockets."""

    def __init__(self, host, port):
        self.address = host, port
        self.headers = ""
        page = self._ask("GET", "/").decode()
        cookie = page.partition("stylize_visitor=")[2].partition(";")[0]
        csrf = page.partition('name="csrf" content="')[2].partition('"')[0]
        self.headers = f"Cookie: stylize_visitor={cookie}\r\nX-CSRF-Token: {csrf}\r\n"
        visit = self.json("POST", "/api/visit", b'{"consent": true}')["visit"]
        self.headers += f"X-Visit: {visit}\r\n"

    def connection(self):
        connection = socket.create_connection(self.address, timeout=30)
        connection.settimeout(30)
        return connection

    def head(self, method, path, length, kind="application/json"):
        host = f"Host: {self.address[0]}:{self.address[1]}\r\n"
        content = f"Content-Length: {length}\r\nContent-Type: {kind}\r\n"
        return f"{method} {path} HTTP/1.1\r\n{host}{self.headers}{content}\r\n".encode()

    def json(self, method, path, body=b""):
        return json.loads(self._ask(method, path, body).partition(b"\r\n\r\n")[2])

    def _ask(self, method, path, body=b""):
        with self.connection() as connection:
            connection.sendall(
                self.head(method, path, len(body)).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
            )
            connection.sendall(body)
            return received(connection)


def received(connection):
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def test_two_photographs_of_one_visit_at_once(client):
    visitor = Visitor(client).begin()
    exhibition = exhibition_of(client)
    exhibition.visits.find(str(visitor.token), visitor.cookie).uploading = True
    assert code(visitor.show(encoded(picture_of(2)))) == (409, "wrong_state")


def test_too_many_photographs(gallery, page):
    clock = Clock()
    with visiting(make_app(gallery, page, clock=clock)) as client:
        visitor = Visitor(client).begin()
        small = encoded(picture_of(2, scale=1))
        codes = [visitor.show(small).status_code for _ in range(9)]
        assert codes == [422] * 8 + [429]
        answer = visitor.show(small)
        assert code(answer) == (429, "too_many_requests")
        assert 1 <= int(answer.headers["retry-after"]) <= 4
        assert Visitor(client).begin().show(small).status_code == 422  # the others may
        clock.now += 4
        assert visitor.show(small).status_code == 422


def test_too_many_requests(gallery, page):
    clock = Clock()
    with visiting(make_app(gallery, page, clock=clock)) as client:
        visitor = Visitor(client).begin()
        codes = [visitor.ask("GET", "").status_code for _ in range(100)]
        assert codes[:79] == [200] * 79
        assert codes[-1] == 429
        other = Visitor(client).begin()
        assert other.ask("GET", "").status_code == 200
        for _ in range(1500):  # with ever new cookies; the address counts
            last = client.get("/pictures/0.jpg").status_code
            if last != 200:
                break
        assert last == 429
        clock.now += 10
        assert visitor.ask("GET", "").status_code == 200


def test_leaving_is_never_too_often(gallery, page):
    """A limit must not keep a photograph; but who is nobody's page is counted."""
    clock = Clock()
    with visiting(make_app(gallery, page, clock=clock)) as client:
        leaving = [Visitor(client).begin() for _ in range(3)]
        for visitor in leaving:
            while visitor.ask("GET", "").status_code == 200:
                pass
        for _ in range(1500):
            if client.get("/map").status_code == 429:
                break
        assert code(leaving[0].ask("GET", "")) == (429, "too_many_requests")
        assert leaving[0].ask("DELETE", "").status_code == 204
        assert leaving[1].ask("POST", "/forget").status_code == 204
        body = json.dumps({"visit": leaving[2].token, "csrf": leaving[2].csrf})
        bare = {"X-CSRF-Token": None, "X-Visit": None}
        assert leaving[2].ask("POST", "/forget", content=body, headers=bare).status_code == 204
        assert len(exhibition_of(client).visits) == 0
        for forged in ({"X-CSRF-Token": "0" * 64}, {"Cookie": None}):
            assert code(leaving[0].ask("DELETE", "", headers=forged)) == (429, "too_many_requests")
            assert code(leaving[0].ask("POST", "/forget", headers=forged)) == (429, "too_many_requests")
        for body in ("{", json.dumps({"visit": "x", "csrf": "x"})):
            answer = leaving[0].ask("POST", "/forget", content=body, headers=bare)
            assert code(answer) == (429, "too_many_requests")


def test_one_browser_does_not_take_all_the_room(gallery, page):
    with visiting(make_app(gallery, page, max_visits=8)) as client:
        greedy = Visitor(client)
        tokens = [greedy.begin().token for _ in range(20)]
        assert len(exhibition_of(client).visits) == 4
        assert Visitor(client).begin().ask("GET", "").status_code == 200
        for token in tokens[-4:]:
            greedy.token = token
            assert greedy.ask("GET", "").status_code == 200


def test_too_many_visits(gallery, page):
    with visiting(make_app(gallery, page, max_visits=2)) as client:
        visitor = Visitor(client).begin().begin()
        answer = visitor.ask("POST", "", json={"consent": True})
        assert code(answer) == (503, "busy")
        assert int(answer.headers["retry-after"]) > 0


def test_no_room_for_another_photograph(gallery, page, monkeypatch):
    monkeypatch.setattr(api_module, "_UPLOADS", 0)
    with visiting(make_app(gallery, page, body_seconds=0.1)) as client:
        assert code(Visitor(client).begin().show(encoded(picture_of(2)))) == (503, "busy")


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.168.1.7", "192.168.1.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::1", "::1"),
        ("testclient", "testclient"),
    ],
)
def test_whom_requests_are_counted_for(address, counted):
    assert client_of({"client": (address, 5)}) == counted
    assert client_of({}) == ""


# --- headers ----------------------------------------------------------------------------------------


def test_headers_on_every_answer(client, monkeypatch):
    visitor = Visitor(client)
    face = visitor.arrive()["items"][0]["face"]
    visitor.explained(face)

    def fails(*args, **options):
        raise RuntimeError("secret")

    answers = {
        "page": client.get("/"),
        "static": client.get("/static/page.css"),
        "picture": client.get("/pictures/1.jpg"),
        "work": client.get("/works/1.jpg"),
        "status": visitor.ask("GET", ""),
        "image": visitor.ask("GET", f"/explanation/photo.png?face={face}"),
        "not modified": client.get(
            "/pictures/1.jpg", headers={"If-None-Match": client.get("/pictures/1.jpg").headers["etag"]}
        ),
        "not found": client.get("/nothing"),
        "method": client.put("/"),
        "bad item": client.get("/pictures/500.jpg"),
        "refused": visitor.ask("PUT", "/settings", json={"weight": 9}),
        "host": client.get("/", headers={"Host": "evil.example"}),
        "options": client.options("/api/visit", headers={"Origin": "https://evil.example"}),
        "gone": Visitor(client).ask("GET", "", headers={"X-Visit": "x"}),
    }
    monkeypatch.setattr(page_module.Page, "render", fails)
    answers["internal"] = client.get("/")
    statuses = {name: answer.status_code for name, answer in answers.items()}
    assert statuses == {
        "page": 200, "static": 200, "picture": 200, "work": 200, "status": 200, "image": 200, "not modified": 304,
        "not found": 404, "method": 405, "bad item": 404, "refused": 422, "host": 403, "options": 403, "gone": 410,
        "internal": 500,
    }  # fmt: skip
    for name, answer in answers.items():
        for header, value in HEADERS.items():
            assert answer.headers[header] == value, (name, header)
        assert "access-control-allow-origin" not in answer.headers
        assert "server" not in answer.headers
        cacheable = name in {"static", "picture", "work", "not modified"}
        assert (answer.headers["cache-control"] == "no-store") != cacheable, name
    policy = HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'")


# --- nothing is written, nothing is logged ----------------------------------------------------------


OPENED: list[tuple[str, object]] = []
_watching = False


def _watch(event, arguments):
    if not _watching:
        return
    if event == "open":
        path, mode, flags = arguments
        writes = isinstance(mode, str) and set(mode) & set("wax+")
        if writes or (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND)):
            OPENED.append((event, path))
    elif event in {"os.mkdir", "os.rename", "shutil.copyfile", "tempfile.mkstemp", "tempfile.mkdtemp", "os.truncate"}:
        OPENED.append((event, arguments[0]))


sys.addaudithook(_watch)  # cannot be taken away again, so it is switched


def test_the_watch_sees_what_is_written(tmp_path):
    global _watching  # noqa: PLW0603 - an audit hook is for ever
    OPENED.clear()
    _watching = True
    try:
        (tmp_path / "a").write_bytes(b"x")
        with tempfile.TemporaryFile() as file:
            file.write(b"x")
        before = len(OPENED)
        (tmp_path / "a").read_bytes()
    finally:
        _watching = False
    assert before == len(OPENED) >= 2


def test_nothing_is_written_and_nothing_is_logged(gallery, page, caplog, capfd, monkeypatch):
    global _watching  # noqa: PLW0603 - an audit hook is for ever
    caplog.set_level(logging.INFO)
    with visiting(make_app(gallery, page, explanation_steps=2)) as client:
        first = Visitor(client)
        first.explained(first.arrive()["items"][0]["face"])  # whatever a process does only once
        first.ask("DELETE", "")
        gc.collect()
        caplog.clear()
        capfd.readouterr()
        OPENED.clear()
        _watching = True
        try:
            visitor = Visitor(client).begin()
            for data in (b"no picture", encoded(np.zeros((90, 90, 3), np.uint8)), encoded(picture_of(2, scale=60))):
                visitor.show(data)
            results = visitor.results()
            face = results["items"][0]["face"]
            visitor.ask("POST", "/judgements", json={"like": [face]})
            visitor.ask("PUT", "/settings", json={"weight": 0.5})
            visitor.explained(visitor.ask("GET", "").json()["results"]["items"][0]["face"])
            monkeypatch.setattr(type(gallery), "describe", _fails)
            visitor.show(encoded(picture_of(3)))
            assert visitor.results() is None
            monkeypatch.undo()
            monkeypatch.setattr(type(gallery), "rank", _fails)
            visitor.show(encoded(picture_of(3)))
            visitor.ask("DELETE", "")
        finally:
            _watching = False
    assert OPENED == []
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    messages = [
        record.getMessage() for record in caplog.records if not record.name.startswith("httpx")
    ]  # the visitor's
    assert messages  # staff learn that a search failed, and nothing of whose
    assert all(
        re.fullmatch(r"a search failed: RuntimeError in test_exhibition_security\.py:\d+", one) for one in messages
    )


def _fails(*args, **options):
    raise RuntimeError("visitor 000123 has blue eyes")


def test_an_error_of_our_own_is_logged_by_kind_and_place_alone(client, caplog, capfd, monkeypatch):
    visitor = Visitor(client)
    visitor.arrive()
    monkeypatch.setattr(exhibition_module, "results_document", _fails)
    answer = visitor.ask("GET", "")
    assert code(answer) == (500, "internal")
    assert "blue eyes" not in answer.text
    (record,) = [record for record in caplog.records if record.name == "stylize.exhibition"]
    assert record.getMessage().startswith("an answer failed: RuntimeError in test_exhibition_security.py:")
    assert record.exc_info is None
    assert "blue eyes" not in caplog.text + "".join(capfd.readouterr())


def test_nothing_is_logged_over_http(gallery, page, capfd, caplog):
    with serving(make_app(gallery, page)) as url:
        host, port = url.removeprefix("http://").rstrip("/").split(":")
        opened = OverHttp(host, int(port))
        opened.json("GET", "/api/visit")
        opened._ask("GET", "/secret-path")
        with opened.connection() as broken:
            broken.sendall(opened.head("PUT", "/api/visit/photo", 5000, "image/png"))
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert "secret-path" not in caplog.text
