"""Read what a museum says of itself: one TOML file beside its map and its paintings (docs/exhibition.md)."""

import difflib
import math
import os
import re
import stat
import tomllib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, NoReturn

from PIL import Image, UnidentifiedImageError

from manifests.errors import InputError
from manifests.image_files import IMAGE_SUFFIXES
from pipeline.exhibition.map_file import read_map
from pipeline.exhibition.museum import LANGUAGES, PLAIN_TITLES, FloorPlan, Museum, Point, Room, Text, Work, translated
from stylize.decode import MAX_PIXELS

MAX_BYTES: Final = 16 << 20
"""Of the TOML file."""
MAX_WORKS: Final = 50_000
MAX_LINE: Final = 300
"""Characters of a title, a name, a year, a credit or an id."""
MAX_TEXT: Final = 4_000
"""Characters of a work's text."""

_MUSEUM: Final = ("title", "language", "languages")
_MAP: Final = ("file", "you")
_POINT: Final = ("x", "y")
_ROOM: Final = ("id", "name", "x", "y")
_WORK: Final = ("id", "title", "artist", "year", "room", "x", "y", "text", "credit", "picture", "faces")
_SHOWN: Final = 60  # characters of a value that is refused
_TABLES: Final = ("museum", "map", "room", "work")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")  # but tabs and line breaks


def read_museum(path: str | os.PathLike[str]) -> Museum:
    """Read a museum's file, check all of it, and read its map.

    A text is a string, or a table of strings by language; what is missing in a language is said in the museum's own
    (`museum.translated`). Files are named relative to the file's folder and lie in it: no path leads out of it, by
    ``..`` or by a symbolic link, so that a museum's file can only ever show what lies beside it. Files of works are
    looked at (there, a picture, at most 64 megapixels) but not decoded.

    Args:
        path: of the file, UTF-8; ``~`` is expanded.

    Raises:
        InputError: there is no such file, or something in it is wrong: one sentence with the table and the key.
    """
    place = Path(os.path.expanduser(path))
    document = _document(place)
    _known(_Table(place, "the file", document), _TABLES, "table")
    about = _one(place, document, "museum", _MUSEUM)
    languages = _languages(about)
    language = _language(about, languages)
    rooms: dict[str, Room] = {}
    for table in _many(place, document, "room", _ROOM):
        room = _room(table, languages, language)
        if room.id in rooms:
            table.refuse("id", f'"{room.id}" is the id of another room, too; give each its own')
        rooms[room.id] = room
    works: dict[str, Work] = {}
    listed: dict[str, str] = {}
    tables = _many(place, document, "work", _WORK)
    if len(tables) > MAX_WORKS:
        raise InputError(f'"{place}" has {len(tables):,} works; at most {MAX_WORKS:,} are read')
    for table in tables:
        work = _work(table, languages, language, rooms)
        if work.id in works:
            table.refuse("id", f'"{work.id}" is the id of another work, too; give each its own')
        for face in work.faces:
            if face in listed:
                table.refuse("faces", f'"{face}" is a face of work "{listed[face]}", too; a face is in one work')
            listed[face] = work.id
        works[work.id] = work
    return Museum(
        title=_text(about, "title", languages, language) or translated(PLAIN_TITLES, languages, language),
        language=language,
        languages=languages,
        plan=_plan(place, document),
        rooms=rooms,
        works=works,
    )


@dataclass(frozen=True)
class _Table:
    """A table of the file, and how to say where something in it is wrong."""

    file: Path
    name: str
    values: Mapping[str, Any]

    def refuse(self, key: str, reason: str) -> NoReturn:
        raise InputError(f'"{self.file}", {self.name}, key "{key}": {reason}')


def _document(place: Path) -> dict[str, Any]:
    try:
        if place.is_dir():
            raise InputError(f'"{place}" is a folder; give the museum\'s TOML file in it')
        if place.stat().st_size > MAX_BYTES:
            raise InputError(f'"{place}" has more than {MAX_BYTES >> 20} MB; is it the museum\'s TOML file?')
        return tomllib.loads(place.read_bytes().decode("utf-8-sig"))  # Windows' editors begin with a mark
    except InputError:  # which is a ValueError
        raise
    except OSError as error:
        raise InputError(f'the museum\'s file "{place}" cannot be read ({error.strerror}); check the path') from error
    except UnicodeDecodeError as error:
        raise InputError(f'"{place}" is not UTF-8 (byte {error.start:,}); save it as UTF-8') from error
    except (ValueError, RecursionError) as error:
        known = isinstance(error, tomllib.TOMLDecodeError)
        reason = "too deep" if isinstance(error, RecursionError) else str(error) if known else "a number is too long"
        raise InputError(
            f'"{place}" is not a TOML file: {reason}; texts need quotes, see docs/exhibition.md'
        ) from error


def _one(place: Path, document: Mapping[str, Any], name: str, keys: Sequence[str]) -> _Table:
    values = document.get(name, {})
    if not isinstance(values, dict):
        hint = f"it is once in the file, as [{name}]" if isinstance(values, list) else f"write it as a table, [{name}]"
        raise InputError(f'"{place}", {name}: {hint}')
    table = _Table(place, f"table [{name}]", values)
    _known(table, keys)
    return table


def _many(place: Path, document: Mapping[str, Any], name: str, keys: Sequence[str]) -> list[_Table]:
    entries = document.get(name, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f'"{place}", {name}: there is one for each, so write it with two brackets, [[{name}]]')
    tables = []
    for number, values in enumerate(entries, start=1):
        known = values.get("id")
        called = f' ("{known[:40]}")' if isinstance(known, str) and known else ""
        table = _Table(place, f"{name} {number}{called}", values)
        _known(table, keys)
        tables.append(table)
    return tables


def _known(table: _Table, keys: Sequence[str], what: str = "key") -> None:
    for key in table.values:
        if key not in keys:
            table.refuse(key, f"there is no such {what}; {_nearest(key, keys)}")


def _nearest(name: str, known: Iterable[str]) -> str:
    names = list(known)
    if near := difflib.get_close_matches(name.lower(), [each.lower() for each in names], n=1, cutoff=0.5):
        return f'did you mean "{next(each for each in names if each.lower() == near[0])}"?'
    if not names:
        return "there is none"
    return f"there {'is' if len(names) == 1 else 'are'} {', '.join(names[:12])}{', …' if len(names) > 12 else ''}"


def _languages(table: _Table) -> tuple[str, ...]:
    values = table.values.get("languages", list(LANGUAGES))
    if not isinstance(values, list) or not values:
        table.refuse("languages", f"it is a list such as {_listed(LANGUAGES)}")
    for value in values:
        if value not in LANGUAGES:
            table.refuse("languages", f"the pages do not speak {_shown(value)}; choose from {', '.join(LANGUAGES)}")
    if len(set(values)) < len(values):
        table.refuse("languages", "a language is there twice; name each once")
    return tuple(values)


def _listed(names: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"


def _language(table: _Table, languages: Sequence[str]) -> str:
    value = table.values.get("language", languages[0])
    if value not in languages:
        table.refuse(
            "language", f"{_shown(value)} is not one of the languages of this exhibition, {', '.join(languages)}"
        )
    return str(value)


def _room(table: _Table, languages: Sequence[str], language: str) -> Room:
    point = _point(table)
    name = _text(table, "name", languages, language)
    if name is None:
        table.refuse("name", 'it is missing; a room needs one, such as name = { en = "Room 5", it = "Sala 5" }')
    return Room(_required(table, "id"), name, *point)


def _work(table: _Table, languages: Sequence[str], language: str, rooms: Mapping[str, Room]) -> Work:
    title = _text(table, "title", languages, language)
    if title is None:
        table.refuse("title", 'it is missing; a work needs one, such as title = { en = "Portrait", it = "Ritratto" }')
    room = _string(table, "room")
    if room is not None and room not in rooms:
        table.refuse("room", f'there is no room "{room}"; {_nearest(room, rooms)}')
    x, y = _point(table)
    return Work(
        id=_required(table, "id"),
        title=title,
        artist=_string(table, "artist"),
        year=_string(table, "year", number=True),
        room=room,
        x=x,
        y=y,
        text=_text(table, "text", languages, language, most=MAX_TEXT),
        credit=_string(table, "credit"),
        picture=_picture(table),
        faces=_faces(table),
    )


def _string(table: _Table, key: str, *, number: bool = False) -> str | None:
    """Return a line of text, or a whole number as text; None where the key is not there or says nothing."""
    value = table.values.get(key)
    if value is None:
        return None
    if number and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = str(value)
        except ValueError:
            table.refuse(key, f"it is {_shown(value)}")
    return _words(table, key, value, MAX_LINE, lines=False) or None


def _required(table: _Table, key: str) -> str:
    value = _string(table, key)
    if value is None:
        table.refuse(key, "it is missing")
    return value


def _words(table: _Table, key: str, value: object, most: int, *, lines: bool) -> str:
    if not isinstance(value, str):
        table.refuse(key, f"it is a text in quotes, not {_shown(value)}")
    words = value.strip()
    if _CONTROL.search(words.replace("\r\n", "\n")) or (not lines and "\n" in words):
        table.refuse(key, "it has a line break or a control character; write it in one line")
    if len(words) > most:
        table.refuse(key, f"it has {len(words):,} characters; at most {most:,} are shown")
    return words


def _text(table: _Table, key: str, languages: Sequence[str], language: str, *, most: int = MAX_LINE) -> Text | None:
    """Return a text in all languages; None where the key is not there or says nothing."""
    value = table.values.get(key)
    if value is None:
        return None
    lines = most == MAX_TEXT
    if isinstance(value, str):
        value = {language: value}
    if not isinstance(value, dict):
        table.refuse(key, f"it is a text in quotes, or one for each language, {_by_language(languages)}")
    for name in value:
        if name not in LANGUAGES:
            table.refuse(key, f'"{name}" is no language that the pages speak; {_nearest(name, LANGUAGES)}')
    words = {name: _words(table, f"{key}.{name}", text, most, lines=lines) for name, text in value.items()}
    return translated(words, languages, language) if any(words.values()) else None


def _by_language(languages: Sequence[str]) -> str:
    return "{ " + ", ".join(f'{name} = "…"' for name in languages) + " }"


def _point(table: _Table) -> tuple[float | None, float | None]:
    x, y = (_fraction(table, name) for name in _POINT)
    if (x is None) != (y is None):
        table.refuse("x" if x is None else "y", "it is missing; a place has both x and y")
    return x, y


def _fraction(table: _Table, key: str) -> float | None:
    value = table.values.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or _endless(value):
        table.refuse(key, f"it is a number from 0 to 1, not {_shown(value)}")
    if not 0 <= value <= 1:
        side = "width from the left" if key == "x" else "height from the top"
        table.refuse(key, f"it is a fraction of the map's {side}, from 0 to 1, not {_shown(value)}")
    return float(value)


def _endless(value: int | float) -> bool:
    return isinstance(value, float) and not math.isfinite(value)  # whole numbers may be larger than any float


def _shown(value: object) -> str:
    """Return a value as a sentence can hold it."""
    try:
        words = repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits, which 0x… can be
        return "a number of thousands of digits"
    return words if len(words) <= _SHOWN else f"{words[:_SHOWN]}…"


def _faces(table: _Table) -> tuple[str, ...]:
    values = table.values.get("faces", [])
    if not isinstance(values, list):
        table.refuse("faces", 'it is a list of ids of the index, such as ["duke.jpg"]')
    names = [_words(table, "faces", value, MAX_LINE, lines=False) for value in values]
    if not all(names):
        table.refuse("faces", "an id is empty")
    if len(set(names)) < len(names):
        table.refuse("faces", "an id is there twice; name each once")
    return tuple(names)


def _picture(table: _Table) -> Path | None:
    name = _string(table, "picture")
    if name is None:
        return None
    if not name.lower().endswith(IMAGE_SUFFIXES):
        table.refuse("picture", f'"{name}" does not end like a picture ({", ".join(IMAGE_SUFFIXES)})')
    path = _inside(table, "picture", name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is looked at below
            with Image.open(path) as image:
                width, height = image.size
    except Exception as error:
        table.refuse("picture", f'"{name}" is not a picture that can be read ({_reason(error, path)}); replace it')
    if width * height > MAX_PIXELS:
        table.refuse("picture", f'"{name}" is {width}x{height}; more than 64 million pixels are not decoded, shrink it')
    return path


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).replace(str(path), path.name)


def _plan(place: Path, document: Mapping[str, Any]) -> FloorPlan | None:
    table = _one(place, document, "map", _MAP)
    if "map" not in document:
        return None
    name = _required(table, "file")
    path = _inside(table, "file", name)
    you = table.values.get("you")
    point: Point | None = None
    if you is not None:
        if not isinstance(you, dict):
            table.refuse("you", "it is a place, such as { x = 0.5, y = 0.9 }")
        inner = _Table(place, "table [map.you]", you)
        _known(inner, _POINT)
        x, y = _point(inner)
        point = Point(x, y) if x is not None and y is not None else None
    return _attempt(lambda: read_map(path, point), table, "file", name)


def _attempt(read: Callable[[], FloorPlan], table: _Table, key: str, name: str) -> FloorPlan:
    try:
        return read()
    except InputError as error:
        table.refuse(key, f'"{name}": {error}')


def _inside(table: _Table, key: str, name: str) -> Path:
    """Return the file that a relative path names; refuses one that is not there or not in the file's folder."""
    relative = PurePosixPath(name)
    if "\\" in name or relative.is_absolute() or re.match(r"[A-Za-z]:|[A-Za-z][A-Za-z0-9+.-]+://|~", name):
        table.refuse(
            key, f'"{name}" is not relative to the folder of "{table.file.name}"; write it as "folder/file.jpg"'
        )
    if ".." in relative.parts:
        table.refuse(key, f'"{name}" leads out of the folder of "{table.file.name}"; put the file in it')
    path = table.file.parent
    for part in relative.parts:
        path /= part
        try:
            mode = path.lstat().st_mode
        except (OSError, ValueError):
            table.refuse(key, f'there is no file "{name}" in the folder of "{table.file.name}"; {_beside(path)}')
        if stat.S_ISLNK(mode):
            table.refuse(key, f'"{name}" goes over a symbolic link, which may lead anywhere; put the file itself there')
    if not stat.S_ISREG(mode):
        table.refuse(key, f'"{name}" is not a file')
    return path


def _beside(path: Path) -> str:
    """Suggest what lies in the folder of a file that is not there."""
    try:
        names = sorted(entry.name for entry in path.parent.iterdir() if not entry.name.startswith("."))
    except (OSError, ValueError):
        return "check the path"
    return _nearest(path.name, names)
