"""The record of a redraw under way, from which an interrupted one knows what it was about: OUT/journal/redraw.json."""

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass

from manifests.errors import RunError
from manifests.run import JOURNAL_FOLDER, REDRAW_FILE, RunDirectory

_PLACE = f"{JOURNAL_FOLDER}/{REDRAW_FILE}"


@dataclass(frozen=True)
class Strike:
    """What is known of a face whose proxy is struck.

    Attributes:
        reason: why.
        attempts: how many its row had before, each of another painting: the number of its next draw. A row with more
            of them has been redrawn.
        paintings_left: how many paintings of the catalogue it has not been tried with.
    """

    reason: str
    attempts: int
    paintings_left: int


def write_record(run: RunDirectory, strikes: Mapping[str, Strike]) -> None:
    """Write what is about to be redrawn, by image_id; RunError where the run cannot be written."""
    text = json.dumps({"strikes": {face: dataclasses.asdict(strike) for face, strike in strikes.items()}})
    try:
        with run.locked():  # so that nobody takes the journal away meanwhile
            run.publish(_PLACE, text.encode())
    except OSError as error:
        raise RunError(f'cannot write to "{run.url}": {error.strerror or error}; nothing was redrawn') from error


def read_record(run: RunDirectory) -> dict[str, Strike] | None:
    """Return the strikes of the redraw that was interrupted; None without one, or with one that is damaged."""
    try:
        content = json.loads(run.fs.cat_file(run.path(_PLACE)))
        return {face: Strike(**strike) for face, strike in content["strikes"].items()}
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


def remove_record(run: RunDirectory) -> None:
    """Remove the record of a redraw that is complete; OSError."""
    with run.locked(), contextlib.suppress(FileNotFoundError):
        run.fs.rm_file(run.path(_PLACE))
