"""Replacing a committed shard: the old one or the new one, whole, wherever a crash falls."""

import dataclasses
import errno
import json
import os
import threading
from collections.abc import Callable

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import commit, redo_log
from manifests.errors import RunError
from manifests.run import REDRAW_FILE, RunDirectory
from manifests.shard import AttemptRecord, data_file, manifest_file, write_shard
from manifests.shard_name import ShardName
from manifests.shard_rewrite import ShardChanged, read_shard, replace_shard
from manifests.status import read_status
from manifests.verify import verify
from tests.small_run import MIXED, picture, row, run_content, write_run

FIRST = ShardName("train", 0, 3)
CRASH = 9


def redrawn(shard, face=0, number=77):
    """Return the rows of a shard with another picture for one of its accepted faces."""
    was = shard.rows[face]
    attempt = AttemptRecord("Dada/new.png", 3.0 + number, (1.0,) * 5, 0.5, 9, "converged")
    struck = dataclasses.replace(was.attempts[-1], error="struck: cross-eyed")
    now = dataclasses.replace(
        was,
        attempts=(*was.attempts[:-1], struck, attempt),
        painting=attempt.painting,
        loss=attempt.loss,
        image=picture(number),
    )
    return [*shard.rows[:face], now, *shard.rows[face + 1 :]]


def files(run):
    """Return the content of every file of the run but those in the journal."""
    paths = [path for path in run.fs.find(run.root) if "/journal/" not in path]
    return {path.removeprefix(run.root): run.fs.cat_file(path) for path in paths}


rows_of_any_kind = st.lists(
    st.builds(
        lambda number, status, name, suffix: dataclasses.replace(
            row(number, status=status),
            image_id=name,
            source_id=name,
            **({"image_suffix": suffix} if status == "accepted" else {}),
        ),
        st.integers(0, 30),
        st.sampled_from(["accepted", "rejected", "failed"]),
        st.from_regex(r"([a-zé0-9 ]{1,4}/)?[a-zé0-9]{1,5}(\.[a-z]{1,4})?(\.jpg|\.PNG|\.b)?", fullmatch=True),
        st.sampled_from([".png", ".jpg", ".webp"]),
    ),
    max_size=6,
    unique_by=lambda row: row.image_id,
)


@settings(deadline=None, max_examples=40)
@given(rows=rows_of_any_kind)
def test_what_is_read_is_what_was_written(rows):
    name = ShardName("train", 0, 1)
    run = RunDirectory.create("memory://rewrite-round-trip", run_content({"train": len(rows)}, max(len(rows), 1)))
    try:
        write_shard(run, name, rows)
        shard = read_shard(run, name)
        assert list(shard.rows) == rows
        assert data_file(name, shard.rows) == run.fs.cat_file(run.path(name.data_file))
        assert manifest_file(name, shard.rows) == run.fs.cat_file(run.path(name.manifest_file))
    finally:
        run.fs.rm(run.root, recursive=True)


@pytest.fixture(params=["folder", "store"])
def run(request, tmp_path):
    if request.param == "folder":
        yield write_run(tmp_path / "OUT", MIXED)
        return
    run = write_run("memory://rewrite", MIXED)
    yield run
    run.fs.rm(run.root, recursive=True)


def test_replaces_both_files_and_no_other(run):
    before = files(run)
    shard = read_shard(run, FIRST)
    replace_shard(run, shard, redrawn(shard))
    after = files(run)
    assert {path for path in before if before[path] != after[path]} == {
        f"/{FIRST.data_file}",
        f"/{FIRST.manifest_file}",
    }
    assert before.keys() == after.keys()
    now = read_shard(run, FIRST)
    assert list(now.rows) == redrawn(shard)
    assert now.version != shard.version
    assert verify(run.url).clean
    assert run.entries("journal") == []


def test_a_face_may_lose_its_proxy_or_get_one(run):
    shard = read_shard(run, FIRST)
    rejected = row(0, status="rejected")  # was accepted
    accepted = row(1)  # was rejected
    replace_shard(run, shard, [rejected, accepted, *shard.rows[2:]])
    assert verify(run.url).clean
    assert read_status(run).faces["train"] == read_status(run.url).faces["train"]
    assert [row.status for row in read_shard(run, FIRST).rows] == ["rejected", "accepted", "accepted", "failed"]


def crash_at(step, monkeypatch):
    """Let the process end, without any tidying, before its ``step``-th effect on the disk."""
    left = [step]

    def dying(real):
        def effect(*args, **kwargs):
            if left[0] == 0:
                os._exit(CRASH)
            left[0] -= 1
            return real(*args, **kwargs)

        return effect

    for name in ("open", "fsync", "replace", "unlink", "remove", "rmdir"):
        monkeypatch.setattr(os, name, dying(getattr(os, name)))


def test_a_crash_at_any_point_leaves_the_old_or_the_new(tmp_path, monkeypatch):
    name = ShardName("train", 0, 1)
    outcomes: list[str] = []
    while "ended" not in outcomes:
        run = write_run(tmp_path / str(len(outcomes)), {"train": MIXED["train"][:4]})
        old = files(run)
        shard = read_shard(run, name)
        new = redrawn(shard)
        child = os.fork()
        if child == 0:
            crash_at(len(outcomes), monkeypatch)
            try:
                replace_shard(run, shard, new)
            finally:
                os._exit(0)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        again = RunDirectory.open(run.url)
        assert again.half_replaced() == []
        assert verify(run.url).clean, (len(outcomes), verify(run.url).findings)
        if files(again) == old:
            outcomes.append("old")
        else:
            assert list(read_shard(again, name).rows) == new
            outcomes.append("ended" if ended else "new")
        assert again.finish()
        assert again.entries("journal") == []
    # Old until the log is there, new from then on, and at each of the many points between.
    assert outcomes == sorted(outcomes, key=["old", "new", "ended"].index)
    assert outcomes.count("old") >= 3
    assert outcomes.count("new") >= 8


@pytest.mark.parametrize("step", range(4))
def test_a_store_that_fails_at_any_put(step, monkeypatch):
    run = write_run("memory://rewrite-fault", MIXED)
    old = files(run)
    shard = read_shard(run, FIRST)
    store = type(run.fs)
    real = {"pipe_file": store.pipe_file, "rm_file": store.rm_file}
    left = [step]

    def failing(name):
        def effect(self, *args, **kwargs):
            if left[0] == 0:
                raise OSError(errno.EIO, "gone")
            left[0] -= 1
            return real[name](self, *args, **kwargs)

        return effect

    with monkeypatch.context() as patch:
        for name in real:
            patch.setattr(store, name, failing(name))
        with pytest.raises(OSError, match="gone"):
            replace_shard(run, shard, redrawn(shard))
    try:
        again = RunDirectory.open(run.url)
        assert again.entries("journal") == []
        assert verify(run.url).clean
        assert (files(again) == old) == (step == 0)
    finally:
        run.fs.rm(run.root, recursive=True)


def half_replace(run, monkeypatch, name=FIRST):
    """Leave a new data file beside the old manifest; return the rows that are to be there."""
    shard = read_shard(run, name)
    real = commit.publish

    def publish(fs, path, *args, **kwargs):
        if path.endswith(name.manifest_file):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(fs, path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(redo_log, "publish", publish)
        with pytest.raises(OSError, match="No space left"):
            replace_shard(run, shard, redrawn(shard))
    assert run.half_replaced() == [name]
    return redrawn(shard)


def test_every_command_that_opens_a_run_repairs_it(tmp_path, monkeypatch):
    commands: tuple[Callable[[str], object], ...] = (verify, read_status, RunDirectory.find, RunDirectory.open)
    for number, command in enumerate(commands):
        run = write_run(tmp_path / str(number), MIXED)
        new = half_replace(run, monkeypatch)
        with pytest.raises(RunError, match="damaged"):
            read_shard(run, FIRST)
        command(run.url)
        assert list(read_shard(run, FIRST).rows) == new
        assert verify(run.url).clean
        assert run.half_replaced() == []


def test_the_end_of_a_build_repairs_before_it_tidies(run, monkeypatch):
    new = half_replace(run, monkeypatch)
    run.publish(f"journal/{REDRAW_FILE}", b"{}")
    assert run.finish()
    assert list(read_shard(run, FIRST).rows) == new
    assert run.entries("journal") == [REDRAW_FILE]
    run.fs.rm_file(run.path(f"journal/{REDRAW_FILE}"))
    assert run.finish()
    assert run.entries("journal") == []


def test_replacing_repairs_what_was_left_first(run, monkeypatch):
    new = half_replace(run, monkeypatch)
    shard = read_shard(run, ShardName("valid", 0, 1))
    replace_shard(run, shard, redrawn(shard, number=5))
    assert list(read_shard(run, FIRST).rows) == new
    assert verify(run.url).clean


def test_a_run_that_may_only_be_read_opens_as_it_is(run, monkeypatch):
    half_replace(run, monkeypatch)

    def read_only(*args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(redo_log, "publish", read_only)
        again = RunDirectory.open(run.url)
    assert again.half_replaced() == [FIRST]
    assert RunDirectory.open(run.url).half_replaced() == []


def test_a_log_of_another_content_is_of_no_effect(run, monkeypatch):
    half_replace(run, monkeypatch)
    # The user has followed an older advice: the shard is to be built again.
    run.fs.rm_file(run.path(FIRST.manifest_file))
    again = RunDirectory.open(run.url)
    assert FIRST not in again.committed()
    assert again.half_replaced() == []


@pytest.mark.parametrize("cut", [0, 7, 20, 41, 100, -1])
def test_a_torn_log_is_no_log(run, monkeypatch, cut):
    half_replace(run, monkeypatch)
    log = run.path(f"journal/{FIRST}.rewrite")
    whole = run.fs.cat_file(log)
    before = files(run)
    run.fs.pipe_file(log, whole[:cut])
    assert files(RunDirectory.open(run.url)) == before
    run.fs.pipe_file(log, whole)
    assert files(RunDirectory.open(run.url)) != before


def test_of_two_that_rewrite_a_shard_the_second_is_told(run):
    first, second = read_shard(run, FIRST), read_shard(run, FIRST)
    replace_shard(run, first, redrawn(first))
    before = files(run)
    with pytest.raises(ShardChanged, match=r"train-00000-of-00003.*changed by another command"):
        replace_shard(run, second, redrawn(second, number=5))
    assert files(run) == before
    run.fs.rm_file(run.path(FIRST.manifest_file))
    with pytest.raises(ShardChanged):
        replace_shard(run, second, redrawn(second, number=5))
    assert run.entries("journal") == []


def test_many_at_once_and_one_wins(tmp_path):
    run = write_run(tmp_path, MIXED)
    shard = read_shard(run, FIRST)
    start = threading.Barrier(6)
    won, told = [], []

    def rewriter(number):
        start.wait()
        try:
            replace_shard(run, shard, redrawn(shard, number=number))
            won.append(number)
        except ShardChanged:
            told.append(number)

    threads = [threading.Thread(target=rewriter, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert len(told) == 5
    assert list(read_shard(run, FIRST).rows) == redrawn(shard, number=won[0])
    assert verify(tmp_path).clean


def test_a_reader_waits_for_the_second_file(tmp_path, monkeypatch):
    run = write_run(tmp_path, MIXED)
    shard = read_shard(run, FIRST)
    seen, readers = [], []

    def publish(fs, path, *args, **kwargs):
        if path.endswith(FIRST.manifest_file):
            readers.append(threading.Thread(target=lambda: seen.append(verify(tmp_path).clean)))
            readers[0].start()
            readers[0].join(timeout=0.3)
            assert not seen
        commit.publish(fs, path, *args, **kwargs)

    monkeypatch.setattr(redo_log, "publish", publish)
    replace_shard(run, shard, redrawn(shard))
    readers[0].join()
    assert seen == [True]


def test_damage_is_not_rewritten_as_if_it_were_right(run):
    data = run.fs.cat_file(run.path(FIRST.data_file))
    inside = data.index(picture(0)) + 60
    run.fs.pipe_file(run.path(FIRST.data_file), data[:inside] + bytes([data[inside] ^ 1]) + data[inside + 1 :])
    with pytest.raises(RunError, match=r"train-00000-of-00003.*damaged.*000000\.jpg.*run stylize verify"):
        read_shard(run, FIRST)
    run.fs.pipe_file(run.path(FIRST.data_file), data[:500])
    with pytest.raises(RunError, match="damaged"):
        read_shard(run, FIRST)
    # The data file of another shard of the same run.
    other = ShardName("train", 1, 3)
    run.fs.pipe_file(run.path(FIRST.data_file), run.fs.cat_file(run.path(other.data_file)))
    with pytest.raises(RunError, match="damaged"):
        read_shard(run, FIRST)
    run.fs.rm_file(run.path(FIRST.data_file))
    with pytest.raises(RunError, match="not committed"):
        read_shard(run, FIRST)


def test_only_the_same_faces_in_the_same_order(run):
    shard = read_shard(run, FIRST)
    before = files(run)
    inconsistent = dataclasses.replace(shard.rows[0], loss=1.0)
    for rows in (shard.rows[:-1], shard.rows[::-1], [row(40), *shard.rows[1:]], [inconsistent, *shard.rows[1:]]):
        with pytest.raises(ValueError, match="train-00000-of-00003"):
            replace_shard(run, shard, rows)
    assert files(run) == before
    assert run.entries("journal") == []


def test_another_process_of_the_run_is_kept_out(tmp_path):
    run = write_run(tmp_path, MIXED)
    shard = read_shard(run, FIRST)
    start, end = os.pipe()
    child = os.fork()
    if child == 0:
        with run.locked():
            os.write(end, b"held")
            threading.Event().wait(0.3)
            (tmp_path / "held").write_text(json.dumps(run.half_replaced() == []))
        os._exit(0)
    assert os.read(start, 4) == b"held"
    replace_shard(run, shard, redrawn(shard))
    assert (tmp_path / "held").read_text() == "true"
    os.waitpid(child, 0)


def test_no_locks_is_no_error(tmp_path, monkeypatch):
    import fcntl  # noqa: PLC0415

    def unsupported(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    run = write_run(tmp_path, MIXED)
    shard = read_shard(run, FIRST)
    replace_shard(run, shard, redrawn(shard))
    assert verify(tmp_path).clean
    assert fsspec.filesystem("file").find(str(tmp_path / "journal")) == []
