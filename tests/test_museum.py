"""What a museum knows of a face, and what it says where it knows nothing."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.exhibition import museum as exhibition_museum
from pipeline.exhibition.museum import (
    LANGUAGES,
    Museum,
    Point,
    Room,
    Work,
    names_of_face,
    painting_of,
    plain_museum,
    said_by_file,
    translated,
)
from pipeline.faces.crop_name import face_id
from pipeline.retrieval.index import open_index
from pipeline.retrieval.make_index import make_index
from pipeline.retrieval.retrieval_model import ModelPlaces
from tests.trained_models import register_tiny

TITLE = {"en": "Here", "it": "Qui"}
ROOM = Room("5", {"en": "Room 5", "it": "Sala 5"}, 0.25, 0.5)


def work(name: str, **rest) -> Work:
    return Work(name, {"en": name, "it": name}, **rest)


def museum(*works: Work, rooms=(ROOM,)) -> Museum:
    return Museum(TITLE, works={work.id: work for work in works}, rooms={room.id: room for room in rooms})


@pytest.mark.parametrize(
    ("known", "face", "source"),
    [
        ("duke.jpg", "duke.jpg", "duke.jpg"),
        ("duke", "duke.jpg", "duke.jpg"),
        ("duke.JPG", "x", "duke.JPG"),
        ("duke", "x", "duke.JPEG"),
        ("17", "17", "9"),
        ("9", "17", "9"),
        ("duke.jpg", "duke.jpg.2.png", "duke.jpg.2.png"),
        ("duke", "duke.jpg.2.png", "duke.jpg.2.png"),
        ("rooms/duke", "rooms/duke.tif.12.jpg", "rooms/duke.tif.12.jpg"),
    ],
)
def test_a_work_is_found_by_its_id(known, face, source):
    assert museum(work("another"), work(known)).work_of(face, source).id == known


def test_a_face_that_is_listed_is_in_no_other_work():
    listing = work("group portrait", faces=("duke.jpg", "b.jpg.1.png"))
    known = museum(work("duke"), work("duke.jpg"), work("b"), listing)
    assert known.work_of("duke.jpg", "duke.jpg") is listing
    assert known.work_of("b.jpg.1.png", "b.jpg.1.png") is listing
    assert known.work_of("b.jpg.2.png", "b.jpg.2.png").id == "b"


def test_the_face_comes_before_its_source_and_whole_names_before_parts():
    known = museum(work("source.jpg"), work("face"), work("face.jpg"))
    assert known.work_of("face.jpg", "source.jpg").id == "face.jpg"
    assert museum(work("source.jpg"), work("face")).work_of("face.jpg", "source.jpg").id == "face"


def test_a_stranger_is_named_by_the_file():
    name = "Baroque/guido-reni_self-portrait-as-a-monk.jpg.1.png"
    found = museum().work_of(name, name)
    assert (found.id, found.artist) == ("Baroque/guido-reni_self-portrait-as-a-monk.jpg", "Guido Reni")
    assert found.title == {"en": "Self portrait as a monk", "it": "Self portrait as a monk"}
    assert (found.room, found.text, found.picture, museum().place_of(found)) == (None, None, None, None)


@pytest.mark.parametrize(
    ("name", "artist", "title"),
    [
        ("000061.jpg", None, "000061"),
        ("duke_of-modena.jpg", "Duke", "Of modena"),
        ("el-greco_the-nobleman-with-his-hand-on-his-chest-1580.jpg", "El Greco", "The nobleman with his hand on his "),
        ("_.jpg", None, "_.jpg"),
        ("a/b/St. Mark.png", None, "St. Mark"),
        (".jpg", None, ".jpg"),
        ("-", None, "-"),
    ],
)
def test_what_a_file_name_says(name, artist, title):
    found = said_by_file(name)
    assert found[0] == artist
    assert found[1].startswith(title)


@settings(deadline=None)
@given(st.text(min_size=1))
def test_every_face_has_a_work_with_a_title_in_every_language(name):
    found = museum().work_of(name, name)
    assert found.id
    assert found.title.keys() == set(LANGUAGES)
    assert all(found.title.values())
    assert museum(found).work_of(name, name) is not None


@settings(deadline=None)
@given(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=40), st.integers(1, 99), st.sampled_from(["png", "jpg"])
)
def test_the_pictures_of_crops_are_those_that_they_were_cut_from(painting, number, suffix):
    name = face_id(painting, number, suffix)
    assert painting_of(name) == name.rsplit(".", 2)[0]
    if name == f"{painting}.{number}.{suffix}":
        assert museum(work(painting)).work_of(name, name).id == painting


@settings(deadline=None)
@given(st.text(min_size=1), st.text(min_size=1))
def test_the_names_of_a_face_begin_with_its_own(face, source):
    names = [*names_of_face(face, source)]
    assert names[0] == face
    assert names.index(source) <= 2
    assert all(any(name in whole for whole in (face, source)) for name in names)


def test_places_are_the_works_own_or_their_rooms():
    own, rooms, none, lost = (
        work("a", x=0.1, y=0.2, room="5"),
        work("b", room="5"),
        work("c"),
        work("d", room="nowhere"),
    )
    known = museum(own, rooms, none, lost)
    assert known.place_of(own) == Point(0.1, 0.2)
    assert known.place_of(rooms) == Point(0.25, 0.5)
    assert known.place_of(none) is None
    assert known.place_of(lost) is None
    assert known.room_of(rooms) is ROOM
    assert museum(rooms, rooms=(Room("5", ROOM.name),)).place_of(rooms) is None


def test_the_languages_are_those_that_the_pages_speak():
    messages = Path(exhibition_museum.__file__).parent / "messages"
    assert {path.stem for path in messages.glob("*.toml")} == {*LANGUAGES}


def test_works_without_a_face_are_told():
    known = museum(work("duke"), work("typing-mistake"), work("group", faces=("x.1.png",)))
    assert known.unmatched([("duke.jpg.1.png", "duke.jpg.1.png"), ("x.1.png", "x.1.png")]) == ["typing-mistake"]
    assert known.unmatched([]) == ["duke", "typing-mistake", "group"]


def test_a_missing_translation_is_the_museums_own_language():
    assert translated({"it": "Duca", "en": "Duke"}, ("en", "it"), "it") == {"en": "Duke", "it": "Duca"}
    assert translated({"it": "Duca"}, ("en", "it"), "it") == {"en": "Duca", "it": "Duca"}
    assert translated({"en": "Duke"}, ("en", "it"), "it") == {"en": "Duke", "it": "Duke"}
    assert translated({"it": "", "en": "Duke"}, ("it",), "it") == {"it": "Duke"}


def test_an_index_that_there_is_no_file_about(tmp_path, monkeypatch):
    register_tiny(monkeypatch)
    (tmp_path / "faces").mkdir()
    for name in ("guido-reni_a-saint.jpg.1.png", "guido-reni_a-saint.jpg.2.png", "duke.png"):
        Image.new("RGB", (48, 48), (90, 60, 30)).save(tmp_path / "faces" / name)
    make_index(tmp_path / "faces", tmp_path / "index", ModelPlaces(backbone="tiny", weights="random"), quiet=True)
    found = plain_museum(open_index(tmp_path / "index"))
    assert {name: found.works[name].title["it"] for name in found.works} == {
        "duke.png": "Duke",
        "guido-reni_a-saint.jpg": "A saint",
    }
    assert (found.plan, found.rooms, found.language, found.languages) == (None, {}, "en", LANGUAGES)
    assert found.title.keys() == set(LANGUAGES)
