"""A run on disk: run.json, where its files are, and which shards are committed.

OUT/README.md                                dataset card
OUT/run.json                                 configuration, fingerprint, plan, versions
OUT/data/train-00000-of-00396.parquet        accepted proxies
OUT/manifest/train-00000-of-00396.parquet    one row per input face; this file is the commit of the shard
OUT/journal/                                 work in flight, one folder for each shard; gone when the run is complete
OUT/events/                                  what happened when (see `manifests.event_log`)
"""

import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pyarrow.parquet as pq
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from manifests.commit import TEMPORARY_NAME, publish
from manifests.errors import InputError, RunError
from manifests.file_lock import locked
from manifests.object_store import open_store
from manifests.redaction import has_credentials, redact
from manifests.redo_log import logged, redo
from manifests.shard_name import MANIFEST_FOLDER, ShardName, planned_shards

RUN_FILE: Final = "run.json"
CARD_FILE: Final = "README.md"
JOURNAL_FOLDER: Final = "journal"
EVENTS_FOLDER: Final = "events"
EVENT_SEGMENT_NAME: Final = re.compile(r"(\d{5,})-([0-9a-z]+)-(\d{5,})\.jsonl")
REDRAW_FILE: Final = "redraw.json"
"""In the journal: the redraw that is under way or was interrupted. It outlives a build in between."""
FORMAT: Final = 1
"""Version of the layout above, the schemas and run.json; a reader refuses any other."""


@dataclass(frozen=True, eq=False)
class RunDirectory:
    """An opened run. Picklable; ``content`` is run.json as it was when the run was opened.

    Get one from ``create``, ``find`` or ``open``.
    """

    fs: AbstractFileSystem
    root: str
    url: str
    content: Mapping[str, Any]

    @classmethod
    def create(cls, url: str | os.PathLike[str], content: Mapping[str, Any]) -> "RunDirectory":
        """Make a run with this run.json, or open the one that is there already.

        Of several creators at once one wins and all get the winner's content: compare fingerprints afterwards. The
        format version is added here. Raises InputError for a folder that holds something else and RunError where
        ``url`` cannot be written.
        """
        existing = cls.find(url)
        if existing is not None:
            return existing
        fs, root, url = open_filesystem(url)
        planned_shards(content)
        text = json.dumps({"format": FORMAT, **content}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            publish(fs, f"{root}/{RUN_FILE}", text.encode(), journal=f"{root}/{JOURNAL_FOLDER}", exclusive=True)
        except FileExistsError:
            pass
        except OSError as error:
            reason = error.strerror or error
            raise RunError(f"cannot write to {url}: {reason}; choose a folder that you may write to") from error
        return cls.open(url)

    @classmethod
    def find(cls, url: str | os.PathLike[str]) -> "RunDirectory | None":
        """Open the run at ``url``; None where there is nothing yet (no such folder, or an empty one).

        A shard whose replacement was interrupted is brought to its end first, as far as the run can be written. Raises
        InputError for a file, a folder that holds something else, and an unreadable or foreign run.json.
        """
        fs, root, url = open_filesystem(url)
        entries = _list(fs, root)
        if RUN_FILE in entries:
            run = cls(fs, root, url, _read_run_file(fs, root, url))
            if JOURNAL_FOLDER in entries and run.half_replaced():
                with contextlib.suppress(OSError), run.locked():  # one that may only be read is read as it is
                    run.repair()
            return run
        if not entries and fs.isfile(root):
            raise InputError(
                f"{url} is a file, not a folder; choose an empty or new folder to build, or the folder of a run to read"
            )
        if not all(_is_leftover(fs, root, name) for name in entries):
            first = ", ".join(entries[:3])
            raise InputError(
                f"{url} holds something else (first entries: {first}) and has no run.json; "
                "choose an empty or new folder to build, or the folder of a run to read"
            )
        return None

    @staticmethod
    def exists(url: str | os.PathLike[str]) -> bool:
        """Whether there is a run.json at ``url``, of whatever content."""
        fs, root, _ = open_filesystem(url)
        return bool(fs.exists(f"{root}/{RUN_FILE}"))

    @classmethod
    def open(cls, url: str | os.PathLike[str]) -> "RunDirectory":
        """Open an existing run; InputError where there is none."""
        run = cls.find(url)
        if run is None:
            raise InputError(f"{os.fspath(url)} has no run.json, so there is no run to read; check the path")
        return run

    def path(self, relative: str) -> str:
        """Return the path of a file of the run (``data/….parquet``) as ``fs`` has it."""
        return f"{self.root}/{relative}"

    def publish(self, relative: str, data: bytes) -> None:
        """Write a file of the run whole or not at all, replacing an earlier one; OSError."""
        publish(self.fs, self.path(relative), data, journal=self.path(JOURNAL_FOLDER))

    def parquet(self, relative: str) -> pq.ParquetFile:
        """Open a Parquet file of the run; OSError or ArrowException where it is missing or damaged."""
        if isinstance(self.fs, LocalFileSystem):
            return pq.ParquetFile(self.path(relative), memory_map=True)
        # fsspec's read-ahead fetches what the reader then jumps over; pre_buffer asks for the column chunks at once.
        return pq.ParquetFile(self.fs.open(self.path(relative), "rb", cache_type="none"), pre_buffer=True)

    def entries(self, folder: str) -> list[str]:
        """List the names in a folder of the run, sorted; empty where there is no such folder."""
        return _list(self.fs, self.path(folder))

    def planned(self) -> dict[ShardName, range]:
        """Return every planned shard with the positions of its faces in their split; InputError."""
        return planned_shards(self.content)

    def committed(self) -> set[ShardName]:
        """Return the shards whose manifest file exists (one listing); a data file alone does not count."""
        names = (ShardName.parse(entry) for entry in self.entries(MANIFEST_FOLDER) if entry.endswith(".parquet"))
        return {name for name in names if name is not None}

    def is_committed(self, name: ShardName) -> bool:
        """Whether this shard's manifest file exists: what a run of any size costs the same to ask; RunError."""
        self.fs.invalidate_cache(self.path(MANIFEST_FOLDER))
        try:
            self.fs.info(self.path(name.manifest_file))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise RunError(f"cannot look for {self.path(name.manifest_file)}: {error.strerror or error}") from error
        return True

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Hold the run's lock meanwhile: whoever replaces a committed shard, or takes the journal away, has it."""
        return locked(self.fs, self.path(RUN_FILE))

    def half_replaced(self) -> list[ShardName]:
        """Return the committed shards whose replacement has begun and not ended; it may be under way."""
        return logged(self.entries(JOURNAL_FOLDER))

    def repair(self) -> None:
        """Bring begun replacements of shards to their end; OSError. To be called by the holder of the lock."""
        for name in self.half_replaced():
            redo(self.fs, self.root, self.path(JOURNAL_FOLDER), name)

    def finish(self) -> bool:
        """Remove the journal if every planned shard is committed, and return whether that is so; OSError.

        Only the record of an unfinished redraw stays in it.
        """
        if not self.planned().keys() <= self.committed():
            return False
        journal = self.path(JOURNAL_FOLDER)
        with self.locked():
            self.repair()
            entries = self.entries(JOURNAL_FOLDER)
            gone = [journal] if REDRAW_FILE not in entries else [f"{journal}/{entry}" for entry in entries]
            for path in gone:
                if path != f"{journal}/{REDRAW_FILE}":
                    with contextlib.suppress(FileNotFoundError):
                        self.fs.rm(path, recursive=True)
        return True


def open_filesystem(url: str | os.PathLike[str]) -> tuple[AbstractFileSystem, str, str]:
    """Return the file system, the root path in it, and the address to open it again from another process.

    The address of a local folder is absolute, so that a worker with another working directory finds it too. Raises
    InputError for a protocol that fsspec does not know or whose package is not installed, and for an address that
    carries credentials: it is shown and stored in many places, and every worker needs it.
    """
    text = os.fspath(url)
    if not text:
        raise InputError("the run folder is an empty name; give a folder or a URL")
    if has_credentials(text):
        raise InputError(
            f"the address of {redact(text)} carries credentials; leave them to the environment, a profile or fsspec's "
            "configuration, on every machine that takes part"
        )
    try:
        fs, root = open_store(text)
    except (ValueError, ImportError) as error:
        raise InputError(f"cannot open {text}: {redact(str(error))}") from error
    root = root.rstrip("/")
    return fs, root, root if isinstance(fs, LocalFileSystem) else text


def _is_leftover(fs: AbstractFileSystem, root: str, entry: str) -> bool:
    """Whether this is all that stylize leaves of a run without run.json.

    A creator that has just started, or died before its run.json was whole, leaves the journal alone. Where a run is
    deleted under its workers, they may still write a journal, and its event log a segment: journals are of use to the
    run of their fingerprint only, and no command decides by events.
    """
    names = _list(fs, f"{root}/{entry}")
    if entry == JOURNAL_FOLDER:
        return all(TEMPORARY_NAME.fullmatch(name) or ShardName.parse(name) is not None for name in names)
    return entry == EVENTS_FOLDER and all(
        TEMPORARY_NAME.fullmatch(name) or EVENT_SEGMENT_NAME.fullmatch(name) for name in names
    )


def _list(fs: AbstractFileSystem, folder: str) -> list[str]:
    fs.invalidate_cache(folder)
    try:
        paths = fs.ls(folder, detail=False)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise RunError(f"cannot list {folder}: {error.strerror or error}") from error
    # A file lists as itself, and object stores may list a folder's own marker.
    names = {path.rstrip("/").removeprefix(folder).strip("/") for path in paths}
    return sorted(name for name in names if name)


def _read_run_file(fs: AbstractFileSystem, root: str, url: str) -> dict[str, Any]:
    try:
        content = json.loads(fs.cat_file(f"{root}/{RUN_FILE}"))
    except ValueError as error:
        raise InputError(
            f"{url}/{RUN_FILE} is not readable JSON ({error}); restore the file, or build into a new folder"
        ) from error
    except OSError as error:
        raise RunError(f"cannot read {url}/{RUN_FILE}: {error.strerror or error}") from error
    version = content.get("format") if isinstance(content, dict) else None
    if version != FORMAT:
        raise InputError(
            f"{url}/{RUN_FILE} has format {version!r} and this version of stylize reads format {FORMAT}; "
            "use the version that wrote it, or build into a new folder"
        )
    assert isinstance(content, dict)
    return content
