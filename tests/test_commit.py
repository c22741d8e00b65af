"""Commit: a file is there whole or not at all, whatever goes wrong on the way."""

import errno
import os
import resource
import threading
from pathlib import Path

import fsspec
import pytest

from manifests.commit import publish

FS = fsspec.filesystem("file")


@pytest.fixture
def target(tmp_path):
    return str(tmp_path / "data" / "train-00000-of-00001.parquet")


@pytest.fixture
def journal(tmp_path):
    return str(tmp_path / "journal")


def files_below(path):
    return sorted(os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)


def test_publishes_and_replaces(tmp_path, target, journal):
    publish(FS, target, b"old", journal=journal)
    publish(FS, target, b"new", journal=journal)
    assert Path(target).read_bytes() == b"new"
    assert files_below(tmp_path) == [target]


def test_mode_follows_the_umask(target, journal):
    old = os.umask(0o022)
    try:
        publish(FS, target, b"x", journal=journal)
    finally:
        os.umask(old)
    assert os.stat(target).st_mode & 0o777 == 0o644


def full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failure_leaves_the_old_file_and_no_temporary(target, journal, monkeypatch, step):
    publish(FS, target, b"old", journal=journal)
    monkeypatch.setattr(os, step, full_disk)
    with pytest.raises(OSError, match="No space left"):
        publish(FS, target, b"new", journal=journal)
    assert files_below(Path(target).parents[1]) == [target]
    assert Path(target).read_bytes() == b"old"


@pytest.mark.parametrize("step", ["fsync", "replace", "link"])
def test_failure_leaves_nothing_where_nothing_was(target, journal, monkeypatch, step):
    monkeypatch.setattr(os, step, full_disk)
    with pytest.raises(OSError, match="No space left"):
        publish(FS, target, b"new", journal=journal, exclusive=step == "link")
    assert files_below(Path(target).parents[1]) == []


def test_a_write_that_fails_half_way(tmp_path, target, journal):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            publish(FS, target, b"x" * 100_000, journal=journal)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files_below(tmp_path) == []


def test_interruption_tidies_too(tmp_path, target, journal, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publish(FS, target, b"new", journal=journal)
    assert files_below(tmp_path) == []


@pytest.mark.parametrize("exclusive", [False, True])
def test_publishers_at_once_leave_one_whole_file(tmp_path, target, journal, exclusive):
    contents = [bytes([number]) * 200_000 for number in range(8)]
    lost = []
    start = threading.Barrier(len(contents))

    def publisher(content):
        start.wait()
        try:
            publish(FS, target, content, journal=journal, exclusive=exclusive)
        except FileExistsError:
            lost.append(content)

    threads = [threading.Thread(target=publisher, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    left = Path(target).read_bytes()
    assert left in contents
    assert left not in lost
    assert len(lost) == (7 if exclusive else 0)
    assert files_below(tmp_path) == [target]


def test_exclusive_without_hard_links(target, journal, monkeypatch):
    def no_links(*args):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    publish(FS, target, b"first", journal=journal, exclusive=True)
    with pytest.raises(FileExistsError):
        publish(FS, target, b"second", journal=journal, exclusive=True)
    assert Path(target).read_bytes() == b"first"


def test_directory_without_fsync_is_accepted(target, journal, monkeypatch):
    real = os.fsync

    def files_only(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, "not for directories")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", files_only)
    publish(FS, target, b"x", journal=journal)
    assert Path(target).read_bytes() == b"x"


def test_remote_is_one_put(monkeypatch):
    fs = fsspec.filesystem("memory")
    puts: list[str] = []
    real = type(fs).pipe_file

    def counted(self, path, *args, **kwargs):
        puts.append(path)
        real(self, path, *args, **kwargs)

    monkeypatch.setattr(type(fs), "pipe_file", counted)
    publish(fs, "/commit-test/data/a.parquet", b"1", journal="/commit-test/journal")
    assert puts == ["/commit-test/data/a.parquet"]
    assert fs.find("/commit-test") == ["/commit-test/data/a.parquet"]
    with pytest.raises(FileExistsError):
        publish(fs, "/commit-test/data/a.parquet", b"2", journal="/commit-test/journal", exclusive=True)
    assert fs.cat_file("/commit-test/data/a.parquet") == b"1"
    fs.rm("/commit-test", recursive=True)
