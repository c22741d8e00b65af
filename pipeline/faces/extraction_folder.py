"""An extraction on disk: its settings, what is done, its crops, and its strikes.

    OUT/
      faces.json            settings, by which another extraction is told from this one
      catalogue.parquet     one row per face
      pictures.parquet      one row per picture
      faces/…               crops: what `stylize index` reads
      struck/…              crops that somebody struck
      strikes.tsv           which, and why: id, tab, reason
      review.html …         to look at
      journal/              pictures that are done and not yet in the catalogue

Crops come before the journal's file that has their rows, and a journal's file is gone only when the catalogue has its
rows, so that a process that dies at any time loses the pictures since the last journal file, and no more. The strikes'
file is what counts: where a crop lies and what the catalogue says of it follow from it, and are put right by the next
command.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from manifests.commit import TEMPORARY_NAME, publish
from manifests.disagreement import first_occurrences
from manifests.errors import InputError, RunError
from manifests.file_lock import locked
from manifests.remote_path import is_url
from pipeline.faces.face_catalogue import (
    FACE_SCHEMA,
    FACES_FILE,
    PICTURE_SCHEMA,
    PICTURES_FILE,
    crop_path,
    encoded,
    read_table,
    with_strikes,
)
from pipeline.redraw_list import read_redraw_list

FORMAT: Final = 1
SETTINGS_FILE: Final = "faces.json"
STRIKES_FILE: Final = "strikes.tsv"
_JOURNAL: Final = "journal"
_FACES_PART: Final = ".faces.parquet"
_PICTURES_PART: Final = ".pictures.parquet"


def crops_of(place: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Return the folder of the crops where a place is an extraction, and the place itself where it is something else.

    Beside the crops an extraction holds tables, which readers of faces would take for a Parquet copy of some.
    """
    if not is_url(os.fspath(place)) and os.path.isfile(os.path.join(os.path.expanduser(place), SETTINGS_FILE)):
        return ExtractionFolder.at(place).crops
    return place


class ExtractionFolder:
    """The folder of one extraction."""

    def __init__(self, place: Path) -> None:
        self.place = place

    @classmethod
    def at(cls, out: str | os.PathLike[str]) -> "ExtractionFolder":
        """Return the folder that a user names; InputError for a URL."""
        if is_url(os.fspath(out)):
            raise InputError(f'faces are written to a local folder, and "{os.fspath(out)}" is a URL; give a folder')
        return cls(Path(os.path.abspath(os.path.expanduser(out))))

    @classmethod
    def existing(cls, out: str | os.PathLike[str]) -> "ExtractionFolder":
        """Return the folder of an extraction that has begun; InputError if there is none."""
        folder = cls.at(out)
        if not (folder.place / SETTINGS_FILE).is_file():
            raise InputError(f'"{folder.place}" holds no extracted faces; give a folder that stylize faces has made')
        return folder

    @property
    def crops(self) -> Path:
        """Folder of the crops that are not struck."""
        return self.place / "faces"

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Record the settings, or see that they are those of the extraction that is there.

        Raises:
            InputError: the folder holds something else, or an extraction with other settings.
            RunError: it cannot be written, or its settings are damaged.
        """
        file = self.place / SETTINGS_FILE
        if not file.exists():
            held = sorted(entry for entry in self._entries() if not TEMPORARY_NAME.fullmatch(entry))
            if [entry for entry in held if entry != _JOURNAL]:
                raise InputError(f'"{self.place}" holds other files (first: {held[0]}); give a new or an empty folder')
            document = json.dumps({"format": FORMAT, "settings": dict(settings)}, indent=2) + "\n"
            with contextlib.suppress(FileExistsError):  # another one has begun meanwhile: compared below
                self._publish(SETTINGS_FILE, document.encode(), exclusive=True)
        known = self.settings()
        for name, value in settings.items():
            if known.get(name) != value:
                raise InputError(
                    f'the faces in "{self.place}" were extracted with {name.replace("_", " ")} {known.get(name)}, not '
                    f"{value}; give that, or a new folder"
                )

    def settings(self) -> dict[str, Any]:
        """Return the settings that were recorded; InputError for a newer format, RunError if they are damaged."""
        file = self.place / SETTINGS_FILE
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
            version, settings = document["format"], dict(document["settings"])
        except OSError as error:
            raise RunError(f'"{file}" cannot be read: {error.strerror or error}') from error
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f'"{file}" is damaged; restore it from a copy, or extract into a new folder') from error
        if version != FORMAT:
            raise InputError(f'the faces in "{self.place}" are of format {version}, and this stylize reads {FORMAT}')
        return settings

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out meanwhile; waits for them."""
        with locked(LocalFileSystem(), str(self.place / SETTINGS_FILE)):
            yield

    def journal(self, faces: pa.Table, pictures: pa.Table) -> None:
        """Record pictures that are done. The second file is what counts: without it the first is not read."""
        parts = self._parts(_PICTURES_PART)
        last = int(parts[-1].name.removesuffix(_PICTURES_PART)) if parts else 0
        name = f"{last + 1:09d}"
        self._publish(f"{_JOURNAL}/{name}{_FACES_PART}", encoded(faces))
        self._publish(f"{_JOURNAL}/{name}{_PICTURES_PART}", encoded(pictures))

    def pictures(self) -> pa.Table:
        """Return PICTURE_SCHEMA of all pictures that are done, the catalogue's and the journal's; RunError if damaged.

        A picture that could not be used and was tried again has the row of its last trial.
        """
        tables = [read_table(path, PICTURE_SCHEMA) for path in reversed(self._parts(_PICTURES_PART))]
        table = pa.concat_tables([*tables, read_table(self.place / PICTURES_FILE, PICTURE_SCHEMA)])
        return table.filter(pa.array(first_occurrences(table["painting"].combine_chunks())))

    def faces(self) -> pa.Table:
        """Return FACE_SCHEMA of their faces, as they were found: without regard to strikes; RunError if damaged."""
        parts = [
            path.with_name(path.name.removesuffix(_PICTURES_PART) + _FACES_PART) for path in self._parts(_PICTURES_PART)
        ]
        tables = [read_table(self.place / FACES_FILE, FACE_SCHEMA), *(read_table(path, FACE_SCHEMA) for path in parts)]
        table = pa.concat_tables(tables)
        return table.filter(pa.array(first_occurrences(table["face"].combine_chunks())))

    def strikes(self) -> dict[str, str]:
        """Return the reason for every face that is struck, by id; InputError if the file is not a list of faces."""
        file = self.place / STRIKES_FILE
        return read_redraw_list(file) if file.exists() else {}

    def write_strikes(self, reasons: Mapping[str, str]) -> None:
        """Replace the strikes."""
        if reasons:
            lines = [f"{face}\t{' '.join(reason.split())}\n" for face, reason in sorted(reasons.items())]
            self._publish(STRIKES_FILE, "".join(lines).encode())
        else:
            (self.place / STRIKES_FILE).unlink(missing_ok=True)

    def commit(self) -> pa.Table:
        """Put every crop where the strikes want it, write the catalogue, and empty the journal.

        Returns:
            FACE_SCHEMA of all faces.

        Raises:
            RunError: a crop is missing or cannot be moved, or the catalogue cannot be written.
        """
        faces = with_strikes(self.faces(), self.strikes())
        pictures = self.pictures().sort_by("painting")
        for face, struck in zip(faces["face"].to_pylist(), faces["struck"].to_pylist(), strict=True):
            self._place_crop(face, struck=struck)
        self._publish(FACES_FILE, encoded(faces))
        self._publish(PICTURES_FILE, encoded(pictures))
        for path in [*self._parts(_PICTURES_PART), *self._parts(_FACES_PART)]:
            path.unlink(missing_ok=True)
        self._tidy()
        return faces

    def write_crop(self, face: str, image: bytes) -> None:
        """Write the crop of a face."""
        self._publish(crop_path(face, struck=False), image)

    def write_pages(self, pages: Mapping[str, bytes], pattern: str) -> None:
        """Write files by name, and remove others of that pattern, which an earlier call left."""
        for name, data in pages.items():
            self._publish(name, data)
        for path in self.place.glob(pattern):
            if path.name not in pages:
                path.unlink(missing_ok=True)
        self._tidy()

    def _place_crop(self, face: str, *, struck: bool) -> None:
        wanted, other = (self.place / crop_path(face, struck=which) for which in (struck, not struck))
        if wanted.exists():
            return
        try:
            wanted.parent.mkdir(parents=True, exist_ok=True)
            os.replace(other, wanted)
        except FileNotFoundError as error:
            raise RunError(
                f'the crop "{face}" is missing in "{self.place}"; restore it from a copy, or extract the faces into a '
                "new folder"
            ) from error
        except OSError as error:
            raise RunError(f'the crop "{face}" cannot be moved: {error.strerror or error}') from error
        with contextlib.suppress(OSError):  # not empty: others stay there
            os.removedirs(other.parent)

    def _tidy(self) -> None:
        with contextlib.suppress(OSError):  # not empty, or not there
            (self.place / _JOURNAL).rmdir()

    def _parts(self, suffix: str) -> Sequence[Path]:
        return sorted((self.place / _JOURNAL).glob(f"*{suffix}"))

    def _entries(self) -> list[str]:
        try:
            return os.listdir(self.place)
        except FileNotFoundError:
            return []
        except NotADirectoryError:
            raise InputError(f'"{self.place}" is a file; give a folder for the faces') from None
        except OSError as error:
            raise RunError(f'"{self.place}" cannot be read: {error.strerror or error}') from error

    def _publish(self, name: str, data: bytes, *, exclusive: bool = False) -> None:
        try:
            publish(
                LocalFileSystem(),
                str(self.place / name),
                data,
                journal=str(self.place / _JOURNAL),
                exclusive=exclusive,
            )
        except FileExistsError:
            if exclusive:
                raise
            raise RunError(
                f'"{self.place / name}" cannot be written: there is a file where a folder has to be'
            ) from None
        except OSError as error:
            raise RunError(f'"{self.place / name}" cannot be written: {error.strerror or error}') from error
