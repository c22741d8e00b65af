"""What the exhibition says: complete in every language, nothing missing on the page, nothing left over."""

import re
from pathlib import Path

import pytest

from manifests.attributes import ATTRIBUTES
from manifests.errors import InputError
from pipeline.exhibition.app import HERE
from pipeline.exhibition.messages import placeholders, read_messages
from pipeline.exhibition.museum import LANGUAGES

MESSAGES = read_messages()
SCRIPTS = "\n".join(path.read_text(encoding="utf-8") for path in sorted((HERE / "static").rglob("*.js")))
MARKUP = "\n".join(path.read_text(encoding="utf-8") for path in sorted((HERE / "templates").rglob("*.jinja")))
# Keys that the page puts together; what comes after the dot is checked by other tests here, or is in the markup.
MADE = ("attribute.", "error.")
BUILT = {
    *(f"consent.{name}" for name in re.findall(r'"(\w+):\w+"', MARKUP)),
    *(f"refine.{name}" for name in ("any", "with", "without")),
    *("camera.refused", "camera.absent"),
}


def named() -> set[str]:
    """Every key that markup or scripts name, plural forms by both of their keys."""
    plain = set(re.findall(r'data-t(?:-label|-alt)?="([\w.]+)"', MARKUP)) | set(
        re.findall(r'messages\["(\w+)"\]', MARKUP)
    )
    plain |= set(re.findall(r'"([a-z_]+\.[a-z_]+)"', SCRIPTS)) | {"language"}
    plural = {key for key in plain if f"{key}.other" in MESSAGES["en"]}
    return (plain - plural) | {f"{key}.{form}" for key in plural for form in ("one", "other")} | BUILT


def test_there_are_messages_of_every_language_of_a_museum():
    assert set(LANGUAGES) <= set(MESSAGES)


def test_the_page_says_nothing_that_has_no_message():
    assert {key for key in named() if "." in key and not key.endswith(".js")} - MESSAGES["en"].keys() == set()


def test_no_message_is_left_over():
    left = {key for key in MESSAGES["en"] if not key.startswith(MADE)} - named()
    assert left == set()


def test_every_refusal_of_the_server_has_a_sentence():
    source = "\n".join(path.read_text(encoding="utf-8") for path in HERE.glob("*.py"))
    codes = set(re.findall(r'(?:ApiError\(\s*\d+, |PhotoError\(\s*)"(\w+)"', source))
    assert {"no_face", "busy", "forgotten", "internal"} <= codes
    sentences = {key.removeprefix("error.") for key in MESSAGES["en"] if key.startswith("error.")}
    assert codes <= sentences
    own = {"network", "unexpected", "search_failed"}
    assert sentences <= codes | own


def test_every_attribute_has_a_name():
    assert {key.removeprefix("attribute.") for key in MESSAGES["en"] if key.startswith("attribute.")} == set(ATTRIBUTES)


def test_texts_fill_in_what_the_page_gives():
    known = {"seconds", "title", "count", "number", "round", "feature", "features", "percent", "room", "megabytes"}
    assert {name for text in MESSAGES["en"].values() for name in placeholders(text)} <= known


def test_italian_is_not_english():
    same = {key for key, text in MESSAGES["it"].items() if text == MESSAGES["en"][key]}
    assert same <= {"results.no", "refine.without"}  # "No"


def test_italian_is_typeset_as_italian():
    for key, text in MESSAGES["it"].items():
        assert "'" not in text, key
        assert not re.search(r"“|”", text), key  # guillemets
        assert not re.search(r"[Pp]erchè|\bE\u2019 ", text), key


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    return folder


def test_tables_are_joined_by_dots(tmp_path):
    write(tmp_path, en='a = "One"\n[b]\nc = "Two {x}"\n[b.d]\ne = "Three"')
    assert read_messages(tmp_path) == {"en": {"a": "One", "b.c": "Two {x}", "b.d.e": "Three"}}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "has no messages"),
        ({"en": 'a = "One"', "it": 'b = "Uno"'}, 'no message "b"'),
        ({"en": 'a = "One"\nb = "Two"', "it": 'a = "Uno"'}, 'it.toml" has no message "b"'),
        ({"en": 'a = "{n} faces"', "it": 'a = "{m} volti"'}, "{m}, {n}"),
        ({"en": "a = 3"}, 'key "a"'),
        ({"en": 'a = "  "'}, "says something"),
        ({"en": "a = ["}, "no TOML file"),
        ({"en": 'a = "an open { brace"'}, "brace"),
        ({"en": '[a]\none = "One face"'}, 'no "a.other"'),
    ],
)
def test_mistakes_are_said_with_file_and_key(tmp_path, files, said):
    with pytest.raises(InputError, match=re.escape(said)):
        read_messages(write(tmp_path, **files))


def test_a_file_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "it.toml").write_bytes('a = "perché"'.encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        read_messages(tmp_path)
