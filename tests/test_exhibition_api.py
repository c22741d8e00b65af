"""A visit through the interface, from consent to being forgotten, against the library's own search."""

import dataclasses
import hashlib
import io

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.exhibition import exhibition as exhibition_module
from pipeline.exhibition.museum import FloorPlan, Museum, Point, Room, Work
from pipeline.exhibition.photo import ALIGNED, frame_head, read_portrait
from pipeline.retrieval.attribute_filter import allowed_items
from pipeline.retrieval.explanation import explain
from pipeline.retrieval.feedback_session import FeedbackSession
from pipeline.retrieval.index import open_index
from pipeline.retrieval.retrieval_model import open_retrieval_model
from pipeline.retrieval.saliency import overlay
from pipeline.retrieval.search import search
from tests.exhibition_visitors import (
    UNTRAINED,
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

LIMIT = 50_000_000


@pytest.fixture(scope="module", autouse=True)
def _tiny():
    with pytest.MonkeyPatch.context() as patch:
        register_tiny(patch)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    place = tmp_path_factory.mktemp("exhibition")
    make_index(place)
    return place


@pytest.fixture(scope="module")
def gallery(made):
    return open_gallery(made / "index")


@pytest.fixture(scope="module")
def page(made):
    return write_page(made)


@pytest.fixture
def client(gallery, page):
    with visiting(make_app(gallery, page, explanation_steps=4)) as client:
        yield client


@pytest.fixture(scope="module")
def oracle(made, tmp_path_factory):
    """The library's own search for a person's photograph, as a file."""
    place = tmp_path_factory.mktemp("photos")

    def find(person=2, **options):
        (place / f"{person}.png").write_bytes(encoded(picture_of(person)))
        return search(place / f"{person}.png", made / "index", **options)

    return find


def head_of(person):
    return frame_head(read_portrait(encoded(picture_of(person)), detect, max_pixels=LIMIT), 0, (16, 20))


def faces(results):
    return [item["face"] for item in results["items"]]


def ids(result):
    return [hit.id for hit in result.hits]


def code(answer):
    return answer.status_code, answer.json()["error"]["code"]


# --- the visit --------------------------------------------------------------------------------------


def test_a_whole_visit(client, oracle, gallery):
    visitor = Visitor(client)
    assert code(visitor.ask("GET", "")) == (400, "bad_request")  # of which visit?
    visitor.begin()
    empty = visitor.ask("GET", "").json()
    assert empty == {"state": "empty", "ahead": 0, "progress": 0.0, "results": None, "error": None}
    answer = visitor.show(encoded(picture_of(2)))
    assert answer.status_code == 202
    assert (answer.json()["width"], answer.json()["height"], answer.json()["chosen"]) == (160, 200, 0)
    assert answer.json()["faces"] == [pytest.approx(dataclasses.asdict(ALIGNED), abs=0.02)]

    results, expected = visitor.results(), oracle()
    assert faces(results) == ids(expected)
    assert (results["round"], results["weight"], results["searched"]) == (0, 0.2, 32)
    assert results["seen"] == expected.learned()
    for item, hit in zip(results["items"], expected.hits, strict=True):
        assert item["score"] == pytest.approx(hit.score, abs=1e-6)
        assert item["identity"] == pytest.approx(hit.identity_score, abs=1e-6)
        assert item["attributesAgree"] == hit.attribute_score
        differing = [name for name in hit.differing if name != UNTRAINED]
        assert item["differing"] == differing
        assert item["agreeing"] == [name for name in gallery.trained if name not in differing]
        assert item["shared"] == [name for name in item["agreeing"] if name in results["seen"]]
        assert (item["liked"], item["unliked"]) == (False, False)
        picture = client.get(item["picture"])
        assert picture.headers["content-type"] == "image/jpeg"
        shown = np.asarray(Image.open(io.BytesIO(picture.content)))
        assert shown.shape == (20, 16, 3)
        assert abs(shown.astype(int) - gallery.index.picture(hit.item)).mean() < 25  # JPEG, of coloured noise
    assert [item["rank"] for item in results["items"]] == [*range(1, 13)]

    like, unlike = faces(results)[3], faces(results)[0]
    judged = visitor.ask("POST", "/judgements", json={"like": [like], "unlike": [unlike]}).json()
    assert faces(judged) == ids(oracle(like=[like], unlike=[unlike]))
    assert faces(judged) != faces(results)
    assert judged["round"] == 1
    verdicts = {item["face"]: (item["liked"], item["unliked"]) for item in judged["items"]}
    assert {face: verdict for face, verdict in verdicts.items() if any(verdict)} == {
        face: verdict for face, verdict in ((like, (True, False)), (unlike, (False, True))) if face in verdicts
    }
    assert visitor.ask("GET", "").json()["results"] == judged

    again = visitor.ask("POST", "/restart").json()
    assert again == results
    assert visitor.ask("DELETE", "").status_code == 204
    assert code(visitor.ask("GET", "")) == (410, "forgotten")
    assert len(client.app.state.exhibition.visits) == 0


def test_rounds_are_those_of_a_session(client, gallery, oracle):
    visitor = Visitor(client)
    results = visitor.arrive()
    query = gallery.describe(head_of(2))
    session = FeedbackSession(gallery.index.gallery.embeddings, query.embeddings[0])
    for number in range(1, 4):
        like, unlike = faces(results)[2], faces(results)[-1]
        results = visitor.ask("POST", "/judgements", json={"like": [like], "unlike": [unlike]}).json()
        session.judge([gallery.faces[like]], [gallery.faces[unlike]])
        similarity = session.similarities()
        agreement = (gallery.index.gallery.bits == (query.probabilities > 0.5)).double().mean(dim=1)
        scores = ((1 + similarity) / 2 + 0.2 * agreement).float().numpy()
        assert results["round"] == number
        assert [item["item"] for item in results["items"]] == sorted(range(32), key=lambda at: (-scores[at], at))[:12]
    nothing = visitor.ask("POST", "/judgements", json={"like": [], "unlike": []}).json()
    assert nothing == results


def test_a_later_verdict_counts(client):
    visitor = Visitor(client)
    face = faces(visitor.arrive())[0]
    visitor.ask("POST", "/judgements", json={"like": [face]})
    second = visitor.ask("POST", "/judgements", json={"unlike": [face]}).json()
    assert [(item["liked"], item["unliked"]) for item in second["items"] if item["face"] == face] in (
        [(False, True)],
        [],
    )


@pytest.mark.parametrize("weight", [0, 0.05, 1])
def test_the_slider(client, oracle, weight):
    visitor = Visitor(client)
    visitor.arrive()
    results = visitor.ask("PUT", "/settings", json={"weight": weight}).json()
    expected = oracle(weight=weight)
    assert faces(results) == ids(expected)
    assert results["weight"] == weight
    assert results["items"][0]["score"] == pytest.approx(expected.hits[0].score, abs=1e-6)
    first = faces(results)[1]
    judged = visitor.ask("POST", "/judgements", json={"like": [first]}).json()
    assert faces(judged) == ids(oracle(weight=weight, like=[first]))


def test_the_switches(client, oracle, gallery):
    visitor = Visitor(client)
    visitor.arrive()
    bits = gallery.index.gallery.bits
    shares = dict(zip(gallery.index.attributes, bits.double().mean(dim=0).tolist(), strict=True))
    with_, without = sorted(gallery.trained, key=lambda name: abs(shares[name] - 0.5))[:2]
    allowed = allowed_items(bits, gallery.index.attributes, [with_], [])
    results = visitor.ask("PUT", "/settings", json={"with": [with_]}).json()
    assert faces(results) == ids(oracle(with_=[with_]))
    assert results["searched"] == int(allowed.sum()) < 32
    assert results["with"] == [with_]
    both = visitor.ask("PUT", "/settings", json={"with": [], "without": [without], "weight": 0.1}).json()
    assert faces(both) == ids(oracle(without=[without], weight=0.1))
    like = faces(both)[1]
    judged = visitor.ask("POST", "/judgements", json={"like": [like]}).json()
    assert faces(judged) == ids(oracle(without=[without], weight=0.1, like=[like]))
    assert judged["without"] == [without]  # what is not sent stays


def test_settings_that_are_impossible_change_nothing(client, gallery):
    visitor = Visitor(client)
    before = visitor.arrive()
    bits = gallery.index.gallery.bits
    names = [name for name in gallery.index.attributes if name != UNTRAINED]
    never = [names[at] for at in range(len(names)) if not bits[:, gallery.index.attributes.index(names[at])].any()]
    refused = [
        ({"weight": 1.5}, "impossible_weight"),
        ({"weight": -0.1}, "impossible_weight"),
        ({"with": [UNTRAINED]}, "unknown_attribute"),
        ({"without": ["Nose"]}, "unknown_attribute"),
        ({"with": names}, "nothing_left"),
        ({"with": names[:1], "without": names[:1]}, "nothing_left"),
        *(({"with": [name]}, "nothing_left") for name in never[:1]),
    ]
    for document, reason in refused:
        assert code(visitor.ask("PUT", "/settings", json=document)) == (422, reason), document
    for document in ({"weight": "much"}, {"weight": True}, {"with": "Smiling"}, {"with": [1]}, {"with": ["x"] * 101}):
        assert code(visitor.ask("PUT", "/settings", json=document)) == (400, "bad_request"), document
    assert visitor.ask("GET", "").json()["results"] == before


def test_verdicts_that_are_refused(client):
    visitor = Visitor(client)
    before = visitor.arrive()
    face = faces(before)[0]
    assert code(visitor.ask("POST", "/judgements", json={"like": ["nobody"]})) == (422, "unknown_face")
    assert code(visitor.ask("POST", "/judgements", json={"like": [face], "unlike": [face]})) == (422, "judged_twice")
    assert visitor.ask("GET", "").json()["results"] == before
    everybody = [f"painter-{who}_work-{number}.png" for who in range(8) for number in range(4)]
    for _ in range(6):
        assert visitor.ask("POST", "/judgements", json={"like": everybody}).status_code == 200
    assert code(visitor.ask("POST", "/judgements", json={"like": everybody})) == (422, "too_many_judgements")
    assert visitor.ask("POST", "/restart").json() == before


def test_two_tabs_are_two_visits(client):
    first, second = Visitor(client), Visitor(client)
    second.cookie, second.csrf = first.cookie, first.csrf
    one, other = first.arrive(1), second.arrive(6)
    assert first.token != second.token
    assert faces(one) != faces(other)
    first.ask("DELETE", "")
    assert second.ask("GET", "").json()["results"] == other


# --- several faces, and photographs that cannot be used ---------------------------------------------


def test_several_faces(client, gallery):
    visitor = Visitor(client).begin()
    pair = np.concatenate([picture_of(2), picture_of(5)], axis=1)
    answer = visitor.show(encoded(pair)).json()
    assert answer["chosen"] is None
    assert [round(face["x"], 2) for face in answer["faces"]] == [0.13, 0.63]
    assert visitor.ask("GET", "").json()["state"] == "choosing"
    assert code(visitor.ask("PUT", "/settings", json={"weight": 0})) == (409, "wrong_state")
    assert code(visitor.ask("POST", "/face", json={"face": 2})) == (422, "unknown_face")
    assert code(visitor.ask("POST", "/face", json={"face": -1})) == (422, "unknown_face")
    assert code(visitor.ask("POST", "/face", json={"face": True})) == (400, "bad_request")
    portrait = read_portrait(encoded(pair), detect, max_pixels=LIMIT)
    shown = []
    for face in (1, 0):  # and the other one after all
        assert visitor.ask("POST", "/face", json={"face": face}).status_code == 202
        query = gallery.describe(frame_head(portrait, face, (16, 20)))
        own = gallery.rank(query, k=12, weight=0.2, allowed=torch.ones(32, dtype=torch.bool))
        shown.append(faces(visitor.results()))
        assert shown[-1] == [hit.id for hit in own]
    assert shown[0] != shown[1]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not_an_image"),
        (b"hello", "not_an_image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n", "not_an_image"),
        (encoded(picture_of(2))[:2000], "not_an_image"),
        (encoded(np.zeros((200, 160, 3), np.uint8)), "no_face"),
        (encoded(picture_of(2, scale=3)), "face_too_small"),
    ],
)
def test_photographs_that_cannot_be_used(client, data, reason):
    visitor = Visitor(client)
    visitor.arrive()
    assert code(visitor.show(data)) == (422, reason)
    assert visitor.ask("GET", "").json()["state"] == "empty"  # the photograph before is gone
    assert visitor.show(encoded(picture_of(2))).status_code == 202
    assert visitor.results()


def test_the_type_of_a_photograph(client):
    visitor = Visitor(client).begin()
    assert code(visitor.show(encoded(picture_of(2)), "text/html")) == (415, "unsupported_type")
    assert visitor.show(encoded(picture_of(2), "JPEG"), "image/jpeg; q=1").status_code == 202


# --- order ------------------------------------------------------------------------------------------


def test_the_wrong_order(client):
    visitor = Visitor(client).begin()
    early = [
        ("POST", "/face", {"face": 0}),
        ("PUT", "/settings", {"weight": 0.1}),
        ("POST", "/judgements", {"like": []}),
        ("POST", "/restart", None),
        ("POST", "/explanation", {"face": "painter-1_work-1.png"}),
    ]
    for method, path, document in early:
        assert code(visitor.ask(method, path, json=document)) == (409, "wrong_state"), path
    for path in ("/explanation", "/explanation/photo.png", "/explanation/painting.png"):
        assert code(visitor.ask("GET", path, params={"face": "painter-1_work-1.png"})) == (409, "wrong_state")
    visitor.show(encoded(picture_of(2)))
    results = visitor.results()
    assert code(visitor.ask("POST", "/face", json={"face": 0})) == (409, "wrong_state")  # there was one face only
    assert code(visitor.ask("GET", "/explanation", params={"face": faces(results)[0]})) == (404, "not_found")
    assert code(visitor.ask("GET", "/explanation")) == (400, "bad_request")


def test_no_visit_without_consent(client):
    visitor = Visitor(client)
    for document in ({}, {"consent": False}, {"consent": "true"}, {"consent": 1}):
        assert code(visitor.ask("POST", "", json=document)) == (422, "consent")
    assert code(visitor.ask("POST", "", content=b"[]", headers={"Content-Type": "application/json"})) == (
        400,
        "bad_request",
    )
    assert code(visitor.ask("POST", "", content=b"{", headers={"Content-Type": "application/json"})) == (
        400,
        "bad_request",
    )
    deep = b"[" * 5000
    assert code(visitor.ask("POST", "", content=deep, headers={"Content-Type": "application/json"}))[0] == 400
    assert code(visitor.ask("POST", "", content=b"consent=true")) == (415, "unsupported_type")


def test_a_search_that_fails(gallery, page, monkeypatch):
    with visiting(make_app(gallery, page)) as client:
        visitor = Visitor(client).begin()
        monkeypatch.setattr(
            type(gallery), "describe", lambda *args: (_ for _ in ()).throw(RuntimeError("of a visitor"))
        )
        visitor.show(encoded(picture_of(2)))
        assert visitor.results() is None
        status = visitor.ask("GET", "")
        assert status.json()["error"]["code"] == "search_failed"
        assert "of a visitor" not in status.text
        monkeypatch.undo()
        visitor.show(encoded(picture_of(2)))
        assert visitor.results()


# --- explanations -----------------------------------------------------------------------------------


def test_an_explanation(client, made, tmp_path):
    visitor = Visitor(client)
    results = visitor.arrive()
    item = results["items"][1]
    why = visitor.explained(item["face"])
    assert why["state"] == "ready"
    assert why["agreeing"] == item["agreeing"]
    assert why["shared"] == item["shared"]
    assert why["identityShare"] == pytest.approx(item["identity"] / item["score"])
    index = open_index(made / "index")
    head, shown = head_of(2), index.thumbnail(item["item"])
    found = explain(
        open_retrieval_model(index.places),
        head,
        torch.from_numpy(shown.copy()).permute(2, 0, 1),
        weight=0.2,
        steps=4,
        batch_size=8,
    )
    pictures = ((head.permute(1, 2, 0).numpy(), found.photograph), (shown, found.painting))
    for name, (pixels, side) in zip(("photo", "painting"), pictures, strict=True):
        answer = visitor.ask("GET", f"/explanation/{name}.png", params={"face": item["face"]})
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers["cache-control"] == "no-store"
        np.testing.assert_array_equal(
            np.asarray(Image.open(io.BytesIO(answer.content))), overlay(pixels, side.total.saliency)
        )
    other = results["items"][2]["face"]
    assert code(visitor.ask("GET", "/explanation/photo.png", params={"face": other})) == (404, "not_found")
    assert code(visitor.ask("POST", "/explanation", json={"face": "nobody"})) == (422, "unknown_face")
    hidden = next(name for name in index.gallery.table["id"].to_pylist() if name not in faces(results))
    assert code(visitor.ask("POST", "/explanation", json={"face": hidden})) == (422, "unknown_face")
    visitor.ask("PUT", "/settings", json={"weight": 0.3})  # of another score
    assert code(visitor.ask("GET", "/explanation", params={"face": item["face"]})) == (404, "not_found")


def test_an_explanation_s_shares_are_of_the_ranking_that_is_shown(client):
    visitor = Visitor(client)
    before = {item["face"]: item for item in visitor.arrive()["items"]}
    for face in [*before][:4]:
        visitor.explained(face)
    verdicts = {"like": [[*before][1]], "unlike": [[*before][5]]}
    for path, document in (("/judgements", verdicts), ("/restart", None)):
        shown = {item["face"]: item for item in visitor.ask("POST", path, json=document).json()["items"]}
        common = [face for face in [*before][:4] if face in shown]
        assert common
        for face in common:
            share = visitor.ask("GET", "/explanation", params={"face": face}).json()["identityShare"]
            assert share == pytest.approx(shown[face]["identity"] / shown[face]["score"])
        if document:
            assert any(shown[face]["identity"] != pytest.approx(before[face]["identity"]) for face in common)


def test_an_explanation_that_fails_can_be_asked_for_again(gallery, page, monkeypatch):
    with visiting(make_app(gallery, page, explanation_steps=2)) as client:
        visitor = Visitor(client)
        face = faces(visitor.arrive())[0]
        monkeypatch.setattr(type(gallery), "explain", lambda *args, **options: 1 / 0)
        assert visitor.explained(face)["state"] == "failed"
        assert code(visitor.ask("GET", "/explanation/photo.png", params={"face": face})) == (409, "wrong_state")
        monkeypatch.undo()
        assert visitor.explained(face)["state"] == "ready"


# --- what the page is told --------------------------------------------------------------------------


def test_the_page(client, gallery):
    visitor = Visitor(client)
    config = visitor.config
    assert config["languages"] == ["en", "it"]
    assert (config["language"], config["weight"], config["weightMax"], config["k"]) == ("en", 0.2, 1.0, 12)
    assert (config["idleSeconds"], config["maxUploadBytes"]) == (90, 15 << 20)
    assert config["map"] is None
    names = [attribute["name"] for attribute in config["attributes"]]
    assert names == list(gallery.trained)
    assert UNTRAINED not in names
    labels = {attribute["name"]: attribute["labels"] for attribute in config["attributes"]}
    assert labels["Smiling"] == {"en": "Smiling", "it": "Smiling"}
    assert config["messages"]["it"]["welcome"] == "Benvenuti"
    assert '<html lang="it">' in client.get("/?lang=it").text
    assert '<html lang="en">' in client.get("/?lang=tlh").text


def test_static_files(client):
    address = client.get("/").text.partition('href="')[2].partition('"')[0]
    answer = client.get(address)
    assert answer.text == "body { margin: 0 }"
    assert answer.headers["content-type"].startswith("text/css")
    assert "immutable" in answer.headers["cache-control"]
    again = client.get(address, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/static/page.css").headers["cache-control"] == "no-cache"
    for path in ("notes.txt", "../templates/index.html.jinja", "%2e%2e/made.py", "/etc/passwd", ".hidden.css", "a.css"):
        assert client.get(f"/static/{path}").status_code == 404


def test_a_museum(gallery, page, tmp_path, caplog):
    whole = np.random.default_rng(1).integers(0, 256, (60, 40, 3), np.uint8)
    Image.fromarray(whole).save(tmp_path / "whole.png")
    hall = Room("hall", {"en": "Hall", "it": "Sala"}, 0.25, 0.5)
    shown = Work(
        "w",
        {"en": "Lady", "it": "Dama"},
        "Somebody",
        "about 1638",
        "hall",
        text={"en": "She.", "it": "Lei."},
        credit="Museum",
        picture=tmp_path / "whole.png",
        faces=("painter-2_work-1.png",),
    )
    lost = Work("x", {"en": "Lost", "it": "Perso"}, picture=tmp_path / "gone.png", faces=("painter-2_work-2.png",))
    plan = FloorPlan(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml", 400, 200, Point(0.1, 0.2))
    museum = Museum(
        {"en": "Gallery", "it": "Galleria"}, "it", plan=plan, rooms={"hall": hall}, works={"w": shown, "x": lost}
    )
    with visiting(make_app(gallery, page, museum)) as client:
        visitor = Visitor(client)
        config = visitor.config
        assert (config["language"], config["title"]["en"]) == ("it", "Gallery")
        assert config["map"] == {"url": "/map", "width": 400, "height": 200, "you": {"x": 0.1, "y": 0.2}}
        items = {item["face"]: item for item in visitor.arrive()["items"]}
        item = items["painter-2_work-1.png"]
        assert item["work"] == {
            "id": "w",
            "title": {"en": "Lady", "it": "Dama"},
            "artist": "Somebody",
            "year": "about 1638",
            "room": {"en": "Hall", "it": "Sala"},
            "x": 0.25,
            "y": 0.5,
            "text": {"en": "She.", "it": "Lei."},
            "credit": "Museum",
        }
        assert Image.open(io.BytesIO(client.get(item["whole"]).content)).size == (40, 60)
        assert Image.open(io.BytesIO(client.get(item["picture"]).content)).size == (16, 20)
        for _ in range(3):  # the page then shows the face
            assert client.get(items["painter-2_work-2.png"]["whole"]).status_code == 404
        (told,) = [record.getMessage() for record in caplog.records if record.name == "stylize.exhibition"]
        assert "gone.png" in told
        other = items["painter-2_work-3.png"]
        assert (other["work"]["room"], other["work"]["x"]) == (None, None)
        assert Image.open(io.BytesIO(client.get(other["whole"]).content)).size == (16, 20)
        plan_answer = client.get("/map")
        assert plan_answer.headers["content-type"] == "image/svg+xml"
        assert "script-src" not in plan_answer.headers["content-security-policy"]
        assert "sandbox" in plan_answer.headers["content-security-policy"]


def test_browsers_keep_no_picture_of_another_index(gallery, page):
    """Numbers of items mean other faces after a restart; what a browser has is shown only if it is the same picture."""
    plans = [
        FloorPlan(f"<svg id='{at}' xmlns='http://www.w3.org/2000/svg'/>".encode(), "image/svg+xml", 4, 2) for at in "ab"
    ]
    tags: list[str] = []
    for plan in plans:
        with visiting(make_app(gallery, page, Museum({"en": "M", "it": "M"}, plan=plan))) as client:
            for path in ("/pictures/3.jpg", "/works/3.jpg", "/map"):
                answer = client.get(path)
                assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'
                assert answer.headers["cache-control"] == "no-cache"
                assert client.get(path, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
            if tags:
                assert client.get("/map", headers={"If-None-Match": tags[0]}).status_code == 200
            tags.append(answer.headers["etag"])


def test_pictures_that_are_not_there(client):
    for path in ("/pictures/32.jpg", "/works/99999999999999999999.jpg", "/pictures/-1.jpg", "/pictures/x.jpg", "/map"):
        answer = client.get(path)
        assert code(answer) == (404, "not_found"), path


def test_nobody_waits_for_explanations(gallery, page, monkeypatch):
    """One visitor asks for many; the other's search is done before them."""
    assert exhibition_module._ASKED_AT_ONCE == 4
    with visiting(make_app(gallery, page, explanation_steps=600)) as client:
        greedy = Visitor(client)
        shown = faces(greedy.arrive(1))
        answers = [greedy.ask("POST", "/explanation", json={"face": face}) for face in shown[:6]]
        assert [answer.status_code for answer in answers] == [202, 202, 202, 202, 429, 429]
        assert "retry-after" in answers[-1].headers
        other = Visitor(client)
        assert other.arrive(5)
        waiting = [greedy.ask("GET", "/explanation", params={"face": face}).json() for face in shown[:4]]
        assert waiting[3]["state"] == "working"
        greedy.ask("DELETE", "")
        assert other.explained(faces(other.results())[0])["state"] == "ready"


def test_old_explanations_make_room(client, monkeypatch):
    monkeypatch.setattr(exhibition_module, "_KEPT", 2)
    visitor = Visitor(client)
    shown = faces(visitor.arrive())[:3]
    for face in shown:
        visitor.explained(face)
    states = [visitor.ask("GET", "/explanation", params={"face": face}).status_code for face in shown]
    assert states == [404, 200, 200]
    assert visitor.explained(shown[0])["state"] == "ready"
