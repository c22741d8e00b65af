"""Ten visitors at once over HTTP: everybody is served, with the results of their own photograph and of no other."""

import io
import threading

import numpy as np
import pytest
from PIL import Image

from manifests.errors import InputError
from pipeline.exhibition.load import Browser, LoadReport, VisitTimes, simulate_visitors, visit_together
from pipeline.exhibition.photo import frame_head, read_portrait
from pipeline.exhibition.serving import serving
from pipeline.retrieval.search import search
from tests.exhibition_visitors import (
    Visitor,
    detect,
    encoded,
    make_app,
    make_index,
    open_gallery,
    picture_of,
    visiting,
    write_page,
)
from tests.trained_models import register_tiny

VISITORS = 10


@pytest.fixture(scope="module", autouse=True)
def _tiny():
    with pytest.MonkeyPatch.context() as patch:
        register_tiny(patch)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    place = tmp_path_factory.mktemp("load")
    make_index(place)
    return place


@pytest.fixture(scope="module")
def gallery(made):
    return open_gallery(made / "index")


@pytest.fixture(scope="module")
def page(made):
    return write_page(made)


@pytest.fixture(scope="module")
def photos():
    """Of different people, of different sizes."""
    return [encoded(picture_of(100 + at, 9, scale=4 + 5 * (at % 3))) for at in range(VISITORS)]


def test_ten_visitors_at_once(made, gallery, page, photos, tmp_path):
    meeting = threading.Barrier(VISITORS)
    explained: dict[int, bytes] = {}

    def look(number: int, browser: Browser) -> None:
        """All are there at the same time; each asks why."""
        meeting.wait(60)
        face = browser.json("GET", "/api/visit")["results"]["items"][0]["face"]
        browser.json("POST", "/api/visit/explanation", {"face": face})
        browser.wait(f"/api/visit/explanation?face={face}")
        explained[number] = browser.get(f"/api/visit/explanation/photo.png?face={face}")

    with serving(make_app(gallery, page, explanation_steps=4)) as url:
        report = simulate_visitors(url, photos, explain=True, on_results=look)
    assert [visit.error for visit in report.visits] == [None] * VISITORS
    assert report.served == VISITORS
    shown = []
    for number, (photo, visit) in enumerate(zip(photos, report.visits, strict=True)):
        (tmp_path / "me.png").write_bytes(photo)
        own = search(tmp_path / "me.png", made / "index")
        assert visit.results is not None
        items = visit.results["items"]
        assert [item["face"] for item in items] == [hit.id for hit in own.hits]
        assert [item["score"] for item in items] == pytest.approx([hit.score for hit in own.hits], abs=1e-6)
        shown.append(tuple(item["score"] for item in items))
        head = frame_head(read_portrait(photo, detect, max_pixels=10**8), 0, (16, 20))
        why = gallery.explain(head, items[0]["item"], weight=0.2, steps=4, pause=lambda: None)[0]
        np.testing.assert_array_equal(pixels(explained[number]), pixels(why))
    assert len(set(shown)) == VISITORS
    assert len({*explained.values()}) == VISITORS


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_the_report(photos, gallery, page):
    with serving(make_app(gallery, page, explanation_steps=2)) as url:
        report = simulate_visitors(url, photos[:2], explain=True)
    document = report.as_dict()
    assert (document["visitors"], document["served"], document["errors"]) == (2, 2, [])
    for name in ("found", "judged", "filtered", "explained"):
        assert 0 < document[name]["median"] <= document[name]["worst"] < report.seconds
    assert len(report.lines()) == 5
    assert report.lines()[0].startswith("2 visitors at once, 2 served, in ")


def test_visitors_who_are_not_served_are_told_of(gallery, page, photos):
    dark = encoded(np.zeros((200, 160, 3), np.uint8))
    with serving(make_app(gallery, page, max_visits=2, explanation_steps=2)) as url:
        report = simulate_visitors(url, [photos[0], dark])
        assert report.served == 1
        assert report.visits[1].error == "PUT /api/visit/photo was answered with 422"
        assert report.visits[1].results is None
    nowhere = simulate_visitors(url, photos[:1])
    assert nowhere.served == 0
    assert nowhere.visits[0].error
    assert [nowhere.as_dict()[name] for name in ("found", "judged")] == [None, None]
    assert nowhere.lines()[-1] == f"failed: {nowhere.visits[0].error}"


def test_median_and_worst():
    visits = [VisitTimes({}, found, 0.1, 0.2, None, 9, None) for found in (3.0, 1.0, 2.0)]
    visits.append(VisitTimes(None, 99.0, 0, 0, None, 1, "gone"))
    document = LoadReport(tuple(visits), 5.0).as_dict()
    assert document["found"] == {"median": 2.0, "worst": 3.0}
    assert document["explained"] is None
    assert document["errors"] == ["gone"]


def test_whoever_waits_is_told_how_many_are_before_them(gallery, page, monkeypatch):
    """The first search is held; the others see the queue grow, and it moves when the first is done."""
    hold = threading.Event()
    describe = type(gallery).describe

    def held(self, head):
        assert hold.wait(60)
        return describe(self, head)

    monkeypatch.setattr(type(gallery), "describe", held)
    with visiting(make_app(gallery, page)) as client:
        visitors = [Visitor(client).begin() for _ in range(4)]
        try:
            for at, visitor in enumerate(visitors):
                assert visitor.show(encoded(picture_of(at))).status_code == 202
                status = visitor.ask("GET", "").json()
                assert (status["state"], status["ahead"], status["results"]) == ("searching", at, None)
                assert 0 < status["progress"] < 1
            progress = [visitor.ask("GET", "").json()["progress"] for visitor in visitors]
            assert progress[0] > max(progress[1:])
            visitors[1].ask("DELETE", "")
            assert [visitor.ask("GET", "").json()["ahead"] for visitor in visitors[2:]] == [1, 2]
            # Meanwhile everything else is answered.
            assert client.get("/").status_code == client.get("/pictures/3.jpg").status_code == 200
        finally:
            hold.set()
        shown = [visitors[at].results()["items"][0]["score"] for at in (0, 2, 3)]
        assert len(set(shown)) == 3


def test_a_retake_while_searching(gallery, page, monkeypatch, made, tmp_path):
    """The second photograph is what counts, and the first one's results never come."""
    hold = threading.Event()
    describe = type(gallery).describe

    def held(self, head):
        assert hold.wait(60)
        return describe(self, head)

    monkeypatch.setattr(type(gallery), "describe", held)
    with visiting(make_app(gallery, page)) as client:
        visitor = Visitor(client).begin()
        visitor.show(encoded(picture_of(1)))
        visitor.show(encoded(picture_of(6)))
        hold.set()
        results = visitor.results()
    (tmp_path / "me.png").write_bytes(encoded(picture_of(6)))
    own = search(tmp_path / "me.png", made / "index")
    assert [item["face"] for item in results["items"]] == [hit.id for hit in own.hits]


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:99999", "http://[", "http://127.0.0.1:x", "https://a.b", "http:", "x"]
)
def test_addresses_that_are_none(url, tmp_path):
    with pytest.raises(InputError, match="is not the address of an exhibition"):
        visit_together(url, tmp_path)
