"""A training run on disk: config.json, and where its other files are.

OUT/config.json                       settings, fingerprint of the data, number of processes, versions
OUT/state.pt                          the last state: everything needed to go on; this file is the commit of an epoch
OUT/best.safetensors, best.json       the weights of the best epoch; its number, score and metrics
OUT/metrics.jsonl, metrics.parquet    one line, one row per epoch; no times, so that two equal runs have equal files
OUT/curves.png                        the same as a picture
OUT/tensorboard/                      the same for TensorBoard, where asked for
OUT/journal/                          files in flight

A stage may keep files of its own here, once the run is created.
"""

import contextlib
import errno
import hashlib
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import torch
from fsspec.implementations.local import LocalFileSystem

from manifests.commit import TEMPORARY_NAME, publish
from manifests.errors import InputError, RunError
from manifests.run import open_filesystem
from pipeline.config import canonical_json
from pipeline.training import ranks

if sys.platform != "win32":
    import fcntl

CONFIG_FILE: Final = "config.json"
STATE_FILE: Final = "state.pt"
JOURNAL_FOLDER: Final = "journal"
FORMAT: Final = 1
"""Version of the layout above; a reader refuses any other."""

_DECIDING = ("config", "data", "processes")
_VERSIONED = ("stylize", "numpy", "safetensors", "pyarrow")
_EXACT_UNDER = ("python", "torch", "numpy")  # versions under which resuming is exact


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """An opened training run. Get one from ``create_or_resume`` or ``open``.

    Attributes:
        out: its folder, absolute.
        content: config.json.
    """

    out: Path
    content: Mapping[str, Any]

    @classmethod
    def create_or_resume(
        cls,
        out: str | os.PathLike[str],
        config: Mapping[str, Any],
        data: Mapping[str, Any],
        *,
        notify: Callable[[str], None] = lambda sentence: None,
    ) -> "TrainingRun":
        """Make a run in a new or empty folder, or open the one that is there if it is the same.

        Call it before anything else is put into the folder. Under torchrun the first process decides for all; the
        others see what it sees, errors included.

        Args:
            out: a local folder.
            config: every setting that decides the result, as JSON has them (tuples become lists). How long to train
                (epochs, patience) is not among them: a run may be trained further.
            data: what identifies the data and the weights that training begins with: digests, counts.
            notify: called with sentences the user should see.

        Raises:
            InputError: a folder that holds something else, or the same run with other settings or data (each changed
                field is named; the number of processes is one of them).
            RunError: the folder cannot be written.
        """
        document = json.loads(canonical_json({"config": config, "data": data, "processes": ranks.world_size()}))
        folder = _local_folder(out)
        content = ranks.on_first_rank(lambda: _create_or_read(folder, document))
        if ranks.rank() == 0:
            for sentence in _version_changes(folder, content):
                notify(sentence)
        return cls(folder, content)

    @classmethod
    def open(cls, out: str | os.PathLike[str]) -> "TrainingRun":
        """Open an existing run to read it; InputError where there is none."""
        folder = _local_folder(out)
        content = _find(folder)
        if content is None:
            raise InputError(f'"{folder}" has no {CONFIG_FILE}, so there is no training run; check the path')
        return cls(folder, content)

    @property
    def config(self) -> Mapping[str, Any]:
        """The settings that decide the result."""
        config: Mapping[str, Any] = self.content["config"]
        return config

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over everything that decides the result."""
        deciding = {part: self.content[part] for part in _DECIDING}
        return hashlib.sha256(canonical_json(deciding).encode()).hexdigest()

    def path(self, name: str) -> Path:
        """Return the path of a file of the run."""
        return self.out / name

    def write(self, name: str, data: bytes) -> None:
        """Write a file of the run whole or not at all, replacing an earlier one; OSError.

        Does nothing in any but the first process of torchrun.
        """
        if ranks.rank() == 0:
            publish(LocalFileSystem(), str(self.path(name)), data, journal=str(self.path(JOURNAL_FOLDER)))

    def write_json(self, name: str, value: object) -> None:
        """Write a JSON file of the run as ``write`` does; numbers must be finite."""
        self.write(name, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training in this folder meanwhile; RunError if one is at it.

        A process that dies gives the folder free. Where the file system has no locks nothing is kept out.
        """
        lock = ranks.on_first_rank(lambda: _lock(self.out))
        try:
            yield
        finally:
            if lock is not None and ranks.rank() == 0:
                os.close(lock)

    def tidy(self) -> None:
        """Remove what a process that died has left in flight, and the journal if nothing is left in it."""
        journal = self.path(JOURNAL_FOLDER)
        for entry in _entries(journal):
            if TEMPORARY_NAME.fullmatch(entry):
                with contextlib.suppress(OSError):
                    (journal / entry).unlink()
        with contextlib.suppress(OSError):
            journal.rmdir()


def _lock(folder: Path) -> int | None:
    """Lock a folder; return the descriptor that holds the lock."""
    if sys.platform == "win32":
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            return None
        raise RunError(
            f'another process is training in "{folder}"; wait for it, or train into another folder'
        ) from None
    return descriptor


def _local_folder(out: str | os.PathLike[str]) -> Path:
    fs, root, url = open_filesystem(out)
    if not isinstance(fs, LocalFileSystem):
        raise InputError(f'a training run is kept in a local folder, not in "{url}"; copy it there afterwards')
    return Path(root)


def _create_or_read(folder: Path, document: Mapping[str, Any]) -> dict[str, Any]:
    content = _find(folder)
    if content is None:
        text = json.dumps({"format": FORMAT, **document, "versions": _versions()}, indent=2, ensure_ascii=False) + "\n"
        try:
            journal = str(folder / JOURNAL_FOLDER)
            publish(LocalFileSystem(), str(folder / CONFIG_FILE), text.encode(), journal=journal, exclusive=True)
        except FileExistsError:
            pass
        except OSError as error:
            reason = error.strerror or error
            raise RunError(f'cannot write to "{folder}": {reason}; choose a folder that you may write to') from error
        content = _find(folder)
        assert content is not None
    _refuse_changes(folder, content, document)
    return content


def _find(folder: Path) -> dict[str, Any] | None:
    """Read config.json; None where there is nothing yet."""
    if folder.is_file():
        raise InputError(f'"{folder}" is a file, not a folder; choose an empty or new folder')
    entries = _entries(folder)
    if CONFIG_FILE in entries:
        return _read_config(folder / CONFIG_FILE)
    # A creator that died before its config.json was whole has left the journal alone.
    in_flight = all(TEMPORARY_NAME.fullmatch(name) for name in _entries(folder / JOURNAL_FOLDER))
    if entries and not (entries == [JOURNAL_FOLDER] and in_flight):
        first = ", ".join(entries[:3])
        raise InputError(
            f'"{folder}" holds something else (first entries: {first}) and has no {CONFIG_FILE}; '
            "choose an empty or new folder"
        )
    return None


def _entries(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise RunError(f'cannot list "{folder}": {error.strerror or error}') from error


def _read_config(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(
            f'"{path}" is not readable JSON ({error}); restore the file, or train into a new folder'
        ) from error
    except OSError as error:
        raise RunError(f'cannot read "{path}": {error.strerror or error}') from error
    if not isinstance(content, dict) or not all(part in content for part in _DECIDING):
        raise InputError(f'"{path}" is not the {CONFIG_FILE} of a training run; choose an empty or new folder')
    if content.get("format") != FORMAT:
        raise InputError(
            f'"{path}" has format {content.get("format")!r} and this version of stylize reads format {FORMAT}; '
            "use the version that wrote it, or train into a new folder"
        )
    return content


def _refuse_changes(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    lines = [
        f"\n  {name}: this run has {_shown(was)}, now it would be {_shown(now)}"
        for part in _DECIDING
        for name, was, now in _changes(part, old[part], new[part])
    ]
    if lines:
        raise InputError(
            f'"{folder}" holds a training run with other settings; train into another folder, or ask for what it has:'
            + "".join(lines)
        )


def _changes(name: str, old: object, new: object) -> Iterator[tuple[str, object, object]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            # Settings are known by their own names; only the data's fields need to say whose they are.
            yield from _changes(key if name == "config" else f"{name}.{key}", old.get(key), new.get(key))
    elif old != new:
        yield name, old, new


def _shown(value: object) -> str:
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}  # with its build, as "+cu132"
    for package in _VERSIONED:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def _version_changes(folder: Path, content: Mapping[str, Any]) -> Iterator[str]:
    then, now = content.get("versions", {}), _versions()
    for name in _EXACT_UNDER:
        if then.get(name) != now.get(name):
            yield (
                f'"{folder}" was begun with {name} {then.get(name)} and this is {now.get(name)}: '
                "what follows may differ in the last digits"
            )
