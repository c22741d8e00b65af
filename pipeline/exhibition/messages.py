"""What the exhibition says, in every language: TOML files whose keys and placeholders have to be the same."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from manifests.errors import InputError

FOLDER: Final = Path(__file__).parent / "messages"
PLURALS: Final = ("one", "other")
"""Forms of a message with a number, as Unicode's plural rules name those that the page uses; a message has all."""

_LANGUAGE: Final = re.compile(r"[a-z]{2,3}")
_PLACEHOLDER: Final = re.compile(r"\{([A-Za-z]\w*)\}")
_BRACES: Final = re.compile(r"[{}]")


def read_messages(folder: Path = FOLDER) -> dict[str, dict[str, str]]:
    """Return language → key → text; languages are the names of the files, keys of nested tables are joined by dots.

    Args:
        folder: with one file ``LANGUAGE.toml`` for each language, UTF-8.

    Raises:
        InputError: there is no file; one cannot be read, or has something else than texts that say something; two
            languages differ in their keys, or in the ``{names}`` of a text. A page that would show a key, or
            "{count}", to visitors does not open at all.
    """
    files = sorted(path for path in folder.glob("*.toml") if _LANGUAGE.fullmatch(path.stem))
    if not files:
        raise InputError(f'"{folder}" has no messages, such as en.toml; install stylize again')
    messages = {path.stem: _read(path) for path in files}
    first, *others = files
    for other in others:
        _compare(first, messages[first.stem], other, messages[other.stem])
    return messages


def placeholders(text: str) -> frozenset[str]:
    """Return the names in braces that the page fills in: of "{count} visitors" it is count."""
    return frozenset(_PLACEHOLDER.findall(text))


def _read(path: Path) -> dict[str, str]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f'the messages "{path}" cannot be read ({error.strerror})') from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f'the messages "{path}" are no TOML file in UTF-8: {error}') from error
    texts = {}
    for key, value in _flat(document):
        if not isinstance(value, str) or not value.strip():
            raise InputError(f'"{path}", key "{key}": a message is a text that says something, not {value!r}')
        if _BRACES.search(_PLACEHOLDER.sub("", value)):
            raise InputError(f'"{path}", key "{key}": a brace without a name and its other brace')
        texts[key] = value
    for key in texts:
        stem, dot, form = key.rpartition(".")
        if dot and form in PLURALS and (absent := [one for one in PLURALS if f"{stem}.{one}" not in texts]):
            raise InputError(f'"{path}" has "{key}" and no "{stem}.{absent[0]}"; a message with a number has both')
    return texts


def _flat(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _compare(file: Path, texts: Mapping[str, str], other: Path, others: Mapping[str, str]) -> None:
    for here, there, known, wanted in ((file, other, texts, others), (other, file, others, texts)):
        if missing := sorted(wanted.keys() - known.keys()):
            raise InputError(f'"{here}" has no message "{missing[0]}", which "{there}" has; add it')
    for key, text in texts.items():
        if placeholders(text) != placeholders(others[key]):
            names = ", ".join(sorted(f"{{{name}}}" for name in placeholders(text) ^ placeholders(others[key])))
            raise InputError(f'message "{key}": "{file}" and "{other}" differ in {names}')
