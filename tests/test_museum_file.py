"""A museum's TOML file: what is read from it, and one sentence for everything that can be wrong in it."""

import os
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cli import main
from manifests.errors import InputError
from pipeline.exhibition import museum_file
from pipeline.exhibition.floor_plan import draw_floor_plan
from pipeline.exhibition.museum import Point, Room, Work
from pipeline.exhibition.museum_file import read_museum

WHOLE = """
[museum]
title = { en = "Faces of the palace", it = "I volti del palazzo" }
language = "it"
languages = ["it", "en"]

[map]
file = "plan.svg"
you = { x = 0.5, y = 1 }

[[room]]
id = "throne"
name = { en = "Throne room", it = "Sala del trono" }
x = 0.25
y = 0.5

[[room]]
id = "stairs"
name = "Scalone"

[[work]]
id = "duke"
title = { en = "The Duke", it = "Il Duca" }
artist = "Anna Rossi"
year = 1638
room = "throne"
x = 0.3
y = 0
text = { it = '''
Prima riga.
Seconda riga.
''' }
credit = "Foto: museo"
picture = "paintings/duke.png"
faces = ["duke.png.1.png", "duke.png.2.png"]

[[work]]
id = "page"
title = "Il paggio"
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "plan.svg").write_bytes(draw_floor_plan().data)
    (tmp_path / "paintings").mkdir()
    Image.new("RGB", (8, 6)).save(tmp_path / "paintings" / "duke.png")
    return tmp_path


def read(place: Path, text: str):
    (place / "museum.toml").write_text(text, encoding="utf-8")
    return read_museum(place / "museum.toml")


def refused(place: Path, text: str) -> str:
    with pytest.raises(InputError) as caught:
        read(place, text)
    sentence = str(caught.value)
    assert str(place / "museum.toml") in sentence or str(place) in sentence
    assert "\n" not in sentence
    return sentence.replace(f'"{place / "museum.toml"}"', "FILE")


def test_a_whole_museum(place):
    museum = read(place, WHOLE)
    assert museum.title == {"it": "I volti del palazzo", "en": "Faces of the palace"}
    assert (museum.language, museum.languages) == ("it", ("it", "en"))
    assert museum.plan is not None
    assert museum.plan.data == (place / "plan.svg").read_bytes()
    assert (museum.plan.width, museum.plan.height, museum.plan.you) == (1200, 900, Point(0.5, 1))
    assert [*museum.rooms.values()] == [
        Room("throne", {"en": "Throne room", "it": "Sala del trono"}, 0.25, 0.5),
        Room("stairs", {"en": "Scalone", "it": "Scalone"}),
    ]
    duke, page = museum.works.values()
    assert duke == Work(
        id="duke",
        title={"en": "The Duke", "it": "Il Duca"},
        artist="Anna Rossi",
        year="1638",
        room="throne",
        x=0.3,
        y=0.0,
        text={"it": "Prima riga.\nSeconda riga.", "en": "Prima riga.\nSeconda riga."},
        credit="Foto: museo",
        picture=place / "paintings" / "duke.png",
        faces=("duke.png.1.png", "duke.png.2.png"),
    )
    assert page == Work("page", {"it": "Il paggio", "en": "Il paggio"})
    assert museum.place_of(duke) == Point(0.3, 0.0)
    assert museum.work_of("duke.png.2.png", "duke.png.2.png") is duke


def test_nothing_has_to_be_said(place):
    museum = read(place, "")
    assert museum.title["it"]
    assert (museum.plan, museum.rooms, museum.works, museum.languages) == (None, {}, {}, ("en", "it"))
    assert museum.language == "en"
    assert read(place, '[museum]\nlanguages = ["it"]').language == "it"


def test_what_windows_writes_is_read(place):
    (place / "museum.toml").write_bytes(b"\xef\xbb\xbf" + WHOLE.replace("\n", "\r\n").encode())
    assert read_museum(place / "museum.toml").works["duke"].text == {
        "it": "Prima riga.\nSeconda riga.",
        "en": "Prima riga.\nSeconda riga.",
    }


def test_files_are_beside_the_file_wherever_it_is_read_from(place, monkeypatch):
    (place / "museum.toml").write_text(WHOLE, encoding="utf-8")
    monkeypatch.chdir(place)
    assert read_museum("museum.toml").works["duke"].picture == Path("paintings/duke.png")
    monkeypatch.setenv("HOME", str(place))
    assert read_museum("~/museum.toml").works["duke"].picture == place / "paintings/duke.png"


ROOM = '[[room]]\nid = "throne"\nname = "Trono"\n'
WORK = '[[work]]\nid = "duke"\ntitle = "Duca"\n'


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[muesum]", 'FILE, the file, key "muesum": there is no such table; did you mean "museum"?'),
        ("[museum]\ntitel = 1", 'table [museum], key "titel": there is no such key; did you mean "title"?'),
        (
            "[museum]\ntitle = 1",
            'key "title": it is a text in quotes, or one for each language, { en = "…", it = "…" }',
        ),
        ('[museum]\ntitle = { ti = "T" }', 'key "title": "ti" is no language that the pages speak; did you mean "it"?'),
        ("[museum]\ntitle = { it = 5 }", 'key "title.it": it is a text in quotes, not 5'),
        ('[museum]\nlanguages = ["it", "fr"]', "the pages do not speak 'fr'; choose from en, it"),
        ('[museum]\nlanguages = ["it", "it"]', "a language is there twice"),
        ("[museum]\nlanguages = []", 'it is a list such as ["en", "it"]'),
        ('[museum]\nlanguages = ["it"]\nlanguage = "en"', "'en' is not one of the languages of this exhibition, it"),
        ("[[museum]]", "FILE, museum: it is once in the file, as [museum]"),
        ("museum = 5", "FILE, museum: write it as a table, [museum]"),
        ("[room]\nid = 'a'", "FILE, room: there is one for each, so write it with two brackets, [[room]]"),
        ("room = [1]", "FILE, room: there is one for each, so write it with two brackets, [[room]]"),
        ('[[room]]\nid = "a"', 'room 1 ("a"), key "name": it is missing; a room needs one'),
        ('[[room]]\nname = "A"', 'room 1, key "id": it is missing'),
        ('[[room]]\nid = ""\nname = "A"', 'room 1, key "id": it is missing'),
        (ROOM + ROOM, 'room 2 ("throne"), key "id": "throne" is the id of another room, too'),
        (ROOM + "x = 0.5", 'room 1 ("throne"), key "y": it is missing; a place has both x and y'),
        (ROOM + "y = 0.5", 'key "x": it is missing; a place has both x and y'),
        (
            ROOM + "x = 0.5\ny = 1.2",
            'key "y": it is a fraction of the map\'s height from the top, from 0 to 1, not 1.2',
        ),
        (ROOM + "x = 37\ny = 0.5", 'key "x": it is a fraction of the map\'s width from the left, from 0 to 1, not 37'),
        (ROOM + "x = -0.1\ny = 0.5", "from 0 to 1, not -0.1"),
        (ROOM + "x = nan\ny = 0.5", "it is a number from 0 to 1, not nan"),
        (ROOM + "x = inf\ny = 0.5", "it is a number from 0 to 1, not inf"),
        (ROOM + 'x = "0.5"\ny = 0.5', "it is a number from 0 to 1, not '0.5'"),
        (ROOM + "x = true\ny = 0.5", "it is a number from 0 to 1, not True"),
        (WORK + WORK, 'work 2 ("duke"), key "id": "duke" is the id of another work, too'),
        ('[[work]]\nid = "duke"', 'work 1 ("duke"), key "title": it is missing; a work needs one'),
        ('[[work]]\nid = "duke"\ntitle = { en = "" }', 'key "title": it is missing'),
        (
            ROOM + WORK + 'room = "trone"',
            'work 1 ("duke"), key "room": there is no room "trone"; did you mean "throne"?',
        ),
        (ROOM + WORK + 'room = "xyz"', 'there is no room "xyz"; there is throne'),
        (WORK + 'room = "throne"', 'there is no room "throne"; there is none'),
        (WORK + "year = 1.5", 'key "year": it is a text in quotes, not 1.5'),
        (WORK + "year = true", 'key "year": it is a text in quotes, not True'),
        (WORK + 'artist = "a\\nb"', 'key "artist": it has a line break or a control character; write it in one line'),
        (WORK + 'text = "a\\u0007b"', 'key "text.en": it has a line break or a control character'),
        (WORK + f'credit = "{"x" * 301}"', 'key "credit": it has 301 characters; at most 300 are shown'),
        (WORK + f'text = "{"x" * 4001}"', 'key "text.en": it has 4,001 characters; at most 4,000 are shown'),
        (WORK + 'faces = "duke.png"', 'key "faces": it is a list of ids of the index, such as ["duke.jpg"]'),
        (WORK + "faces = [1]", 'key "faces": it is a text in quotes, not 1'),
        (WORK + 'faces = ["a", "a"]', 'key "faces": an id is there twice'),
        (WORK + 'faces = [""]', 'key "faces": an id is empty'),
        (
            WORK + 'faces = ["a"]\n' + WORK.replace("duke", "page") + 'faces = ["a"]',
            'work 2 ("page"), key "faces": "a" is a face of work "duke", too; a face is in one work',
        ),
        (WORK + "wall = 1", 'work 1 ("duke"), key "wall": there is no such key; there are id, title, artist'),
        ("[map]", 'table [map], key "file": it is missing'),
        ('[map]\nfile = "plan.svg"\nyou = [0.5, 0.5]', 'key "you": it is a place, such as { x = 0.5, y = 0.9 }'),
        ('[map]\nfile = "plan.svg"\nyou = { x = 0.5 }', 'table [map.you], key "y": it is missing'),
        (
            '[map]\nfile = "plan.svg"\nyou = { x = 2, y = 0 }',
            'table [map.you], key "x": it is a fraction of the map\'s',
        ),
        ('[map]\nfile = "plan.svg"\nyou = { z = 2 }', 'table [map.you], key "z": there is no such key; there are x, y'),
        ("[museum]\ntitle = Hello", "FILE is not a TOML file: "),
        ("[museum]\ntitle = 'a'\ntitle = 'b'", "FILE is not a TOML file: "),
    ],
)
def test_mistakes_are_named(place, text, sentence):
    assert sentence in refused(place, text)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "paintings/duck.png",
            'there is no file "paintings/duck.png" in the folder of "museum.toml"; did you mean "duke.png"?',
        ),
        ("painting/duke.png", 'did you mean "paintings"?'),
        ("../duke.png", '"../duke.png" leads out of the folder of "museum.toml"; put the file in it'),
        ("paintings/../../duke.png", "leads out of the folder"),
        ("paintings/../paintings/duke.png", "leads out of the folder"),  # it does not, but who needs it
        ("/etc/duke.png", '"/etc/duke.png" is not relative to the folder of "museum.toml"'),
        ("~/duke.png", "is not relative to the folder"),
        ("paintings\\\\duke.png", "is not relative to the folder"),
        ("C:/duke.png", "is not relative to the folder"),
        ("file:///duke.png", "is not relative to the folder"),
        ("https://example.org/duke.png", "is not relative to the folder"),
        ("paintings/duke.png/x.png", "there is no file"),
        ("link.png", '"link.png" goes over a symbolic link, which may lead anywhere; put the file itself there'),
        ("linked/duke.png", "goes over a symbolic link"),
        ("folder.png", '"folder.png" is not a file'),
        ("pipe.png", '"pipe.png" is not a file'),
        ("text.png", '"text.png" is not a picture that can be read (not an image); replace it'),
        ("empty.png", '"empty.png" is not a picture that can be read'),
        ("paintings/duke.txt", '"paintings/duke.txt" does not end like a picture (.jpg, .jpeg, .png'),
        ("huge.png", '"huge.png" is 9000x9000; more than 64 million pixels are not decoded, shrink it'),
        ("x" * 280 + ".png", "there is no file"),
    ],
)
def test_pictures_lie_in_the_files_folder(place, name, sentence):
    (place / "link.png").symlink_to(place / "paintings" / "duke.png")
    (place / "linked").symlink_to(place / "paintings")
    (place / "folder.png").mkdir()
    os.mkfifo(place / "pipe.png")
    (place / "text.png").write_text("hello")
    (place / "empty.png").touch()
    Image.new("1", (9000, 9000)).save(place / "huge.png")
    assert sentence in refused(place, WORK + f'picture = "{name}"')
    if not name.endswith(".txt"):
        assert 'key "file"' in refused(place, f'[map]\nfile = "{name}"') or name == "huge.png"


def test_the_file_itself(place, monkeypatch):
    with pytest.raises(InputError, match=r"cannot be read .No such file or directory.; check the path"):
        read_museum(place / "other.toml")
    with pytest.raises(InputError, match="is a folder; give the museum's TOML file in it"):
        read_museum(place)
    (place / "latin.toml").write_bytes('[museum]\ntitle = "Città"'.encode("latin-1"))
    with pytest.raises(InputError, match=r"is not UTF-8 \(byte 22\); save it as UTF-8"):
        read_museum(place / "latin.toml")
    (place / "deep.toml").write_text("a = " + "[" * 5000 + "]" * 5000)
    with pytest.raises(InputError, match="is not a TOML file"):
        read_museum(place / "deep.toml")
    monkeypatch.setattr(museum_file, "MAX_BYTES", 3 << 20)
    (place / "large.toml").write_text("#" * (3 << 20) + "\n")
    with pytest.raises(InputError, match="has more than 3 MB"):
        read_museum(place / "large.toml")
    monkeypatch.setattr(museum_file, "MAX_WORKS", 1)
    assert "has 2 works; at most 1 are read" in refused(place, WORK + WORK)


LONG = "1" + "0" * 400


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (ROOM + f"x = {LONG}\ny = 0.5", "it is a fraction of the map's width from the left, from 0 to 1, not 1000"),
        (ROOM + f"x = -{LONG}\ny = 0.5", "from 0 to 1, not -1000"),
        (ROOM + f"x = 0x{'f' * 5000}\ny = 0.5", "from 0 to 1, not a number of thousands of digits"),
        (ROOM + f"x = {LONG}{LONG * 11}\ny = 0.5", "is not a TOML file: a number is too long"),
        (WORK + f"year = {LONG}", 'key "year": it has 401 characters'),
        (WORK + f"year = 0x{'f' * 5000}", 'key "year": it is a number of thousands of digits'),
        (WORK + f"artist = 0x{'f' * 5000}", "it is a text in quotes, not a number of thousands of digits"),
        (f"[museum]\nlanguages = [0x{'f' * 5000}]", "the pages do not speak a number of thousands of digits"),
        (f"[museum]\nlanguage = [0x{'f' * 5000}]", "a number of thousands of digits is not one of the languages"),
    ],
)
def test_numbers_that_are_too_long(place, text, sentence):
    said = refused(place, text)
    assert sentence in said
    assert len(said) < 400


def test_a_folder_of_somebody_whom_nobody_knows():
    with pytest.raises(InputError, match="~nosuchuser/museum"):
        read_museum("~nosuchuser/museum.toml")


def test_a_file_of_somebody_elses_folder_may_be_linked_as_a_whole(place, tmp_path_factory):
    """The folder is the user's own choice; only what the file names must not lead out of it."""
    (place / "museum.toml").write_text(WHOLE, encoding="utf-8")
    link = tmp_path_factory.mktemp("kiosk") / "museum"
    link.symlink_to(place)
    assert read_museum(link / "museum.toml").works["duke"].picture == link / "paintings/duke.png"


VALUES = st.recursive(
    st.one_of(st.booleans(), st.integers(-2, 2000), st.floats(), st.text(max_size=12)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["en", "it", "x", "y", "id", "title", "file", "name"]), inner, max_size=3),
    ),
    max_leaves=8,
)
KEYS = st.sampled_from(["id", "name", "title", "x", "y", "room", "faces", "picture", "text", "year", "you", "file"])
TABLE = st.dictionaries(KEYS, VALUES, max_size=5)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "museum": st.one_of(VALUES, TABLE),
        "map": st.one_of(VALUES, TABLE),
        "room": st.one_of(VALUES, st.lists(TABLE, max_size=3)),
        "work": st.one_of(VALUES, st.lists(TABLE, max_size=3)),
    },
)


@settings(max_examples=300, deadline=None)
@given(DOCUMENTS)
def test_anything_is_read_or_refused_in_a_sentence(tmp_path_factory, document):
    place = tmp_path_factory.getbasetemp() / "museum.toml"
    place.touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tomllib, "loads", lambda text: document)
        try:
            museum = read_museum(place)
        except InputError as error:
            assert re.match(r'".*museum\.toml"', str(error))  # noqa: PT017
        else:
            assert all(0 <= part <= 1 for room in museum.rooms.values() if room.x is not None for part in (room.x,))
            assert all(work.title.keys() == {*museum.languages} for work in museum.works.values())


def test_the_documentation_names_commands_that_there_are():
    page = (Path(__file__).parents[1] / "docs" / "exhibition.md").read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```(?:console|ini)\n(.*?)```", page, re.DOTALL) for line in joined(block)]
    used = [re.split(r"stylize (?=faces|index|exhibit)", line)[1] for line in lines if "stylize " in line]
    assert {line.split()[0] for line in used} == {"faces", "index", "exhibit"}
    for line in used:
        command, *words = line.split()
        known = {name for option in main.commands[command].params for name in option.opts}
        assert {word for word in words if word.startswith("--")} <= known, line
    for option in re.findall(r"`(--[a-z-]+)", page):
        known = {name for command in main.commands.values() for each in command.params for name in each.opts}
        assert option in known | {"--kiosk-printing", "--incognito"}, option


def joined(block: str) -> list[str]:
    return block.replace("\\\n", " ").splitlines()


def test_the_worked_example_of_the_documentation_is_a_museum(place):
    page = (Path(__file__).parents[1] / "docs" / "exhibition.md").read_text(encoding="utf-8")
    example = next(block for block in re.findall(r"```toml\n(.*?)```", page, re.DOTALL) if "[[work]]" in block)
    document = tomllib.loads(example)
    for name in [document["map"]["file"], *(work["picture"] for work in document["work"] if "picture" in work)]:
        (place / name).parent.mkdir(exist_ok=True)
        if name.endswith(".svg"):
            (place / name).write_bytes(draw_floor_plan().data)
        else:
            Image.new("RGB", (8, 6)).save(place / name)
    museum = read(place, example)
    assert museum.plan is not None
    assert museum.plan.you is not None
    assert len(museum.works) >= 3
    keys = {key for work in document["work"] for key in work}
    assert keys == {"id", "title", "artist", "year", "room", "x", "y", "text", "credit", "picture", "faces"}
