"""The list of faces to redraw, as a curator writes it."""

import os

from manifests.errors import InputError

_EXPECTED = "one image_id per line, with a reason after a tab if it has one of its own"


def read_redraw_list(path: str | os.PathLike[str], reason: str | None = None) -> dict[str, str]:
    """Return the reason for every face to redraw, by image_id, in the order of the file.

    The file is UTF-8 text: one image_id per line, or an image_id, a tab and a reason. Empty lines and lines that begin
    with ``#`` are skipped, and so are blanks around what is left. A face may come twice with the same reason.

    Args:
        path: of the file.
        reason: for the lines without one.

    Raises:
        InputError: the file cannot be read or names no face, a face has no reason, or two.
    """
    place = os.fspath(path)
    try:
        with open(place, encoding="utf-8-sig") as file:
            lines = file.read().splitlines()
    except OSError as error:
        raise InputError(f'the list of faces "{place}" cannot be read: {error.strerror or error}') from error
    except UnicodeDecodeError as error:
        raise InputError(f'the list of faces "{place}" is not UTF-8 text; it takes {_EXPECTED}') from error
    reasons: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        face, _, own = map(str.strip, line.partition("\t"))
        if not line.strip() or face.startswith("#"):
            continue
        why = own or (reason or "").strip()
        if not face:
            raise InputError(f'line {number} of "{place}" has no image_id; the file takes {_EXPECTED}')
        if not why:
            raise InputError(f'line {number} of "{place}" has no reason; write it after a tab, or give --reason')
        if reasons.setdefault(face, why) != why:
            raise InputError(f'line {number} of "{place}" gives a second reason for {face}; keep one of them')
    if not reasons:
        raise InputError(f'the list of faces "{place}" names no face; it takes {_EXPECTED}')
    return reasons
