"""The journal of a shard: what is finished survives a death, damage does no harm, nothing outlives the commit."""

import errno
import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import shard_journal
from manifests.attributes import ATTRIBUTES
from manifests.commit import publish
from manifests.run import RunDirectory
from manifests.shard import AttemptRecord, ShardRow
from manifests.shard_journal import (
    ShardJournal,
    journal_key,
    journal_size,
    read_journal,
    remove_journal,
)
from manifests.shard_name import ShardName
from tests.small_run import row, run_content

NAME = ShardName("train", 0, 1)
ROWS = [row(number, status=("accepted", "rejected")[number % 2]) for number in range(40)]
FACES = [row.image_id for row in ROWS]
PLACES = ["local", "memory"]


@pytest.fixture(params=PLACES)
def run(request, tmp_path):
    url = tmp_path / "OUT" if request.param == "local" else f"memory://{tmp_path}/OUT"
    return RunDirectory.create(url, run_content({"train": 40}, 40))


@pytest.fixture
def local(tmp_path):
    return RunDirectory.create(tmp_path / "OUT", run_content({"train": 40}, 40))


def key_of(run):
    return journal_key(run, NAME, FACES)


def open_journal(run):
    return ShardJournal(run, NAME, key_of(run), FACES)


def die(journal):
    """Write what is finished and leave the record, as a process does that is killed after its last segment."""
    with journal._changed:
        journal._closing = True
        journal._changed.notify_all()
    journal._writer.join()


def read(run, key=None):
    return read_journal(run, NAME, key or key_of(run))


def entries(run):
    return run.entries(f"journal/{NAME}")


def test_finished_faces_are_read_back_as_they_were(run):
    journal = open_journal(run)
    for done in ROWS:
        journal.begin(done.image_id)
        journal.finish(done)
    journal.close()
    found = read(run)
    assert list(found.rows.values()) == ROWS
    assert found.deaths == {}
    assert all(entry.endswith(".faces") for entry in entries(run))
    assert journal_size(run, NAME) == len(entries(run)) >= 1
    remove_journal(run, NAME)
    assert entries(run) == []
    assert read(run).rows == {}


TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
LOSS = st.none() | st.floats(allow_nan=False)
ATTEMPTS = st.builds(
    AttemptRecord,
    painting=TEXT,
    loss=LOSS,
    style_losses=st.none() | st.tuples(*[st.floats(allow_nan=False)] * 5),
    content_loss=LOSS,
    evaluations=st.integers(0, 2**31 - 1),
    stop_reason=TEXT,
)
ANY_ROW = st.builds(
    ShardRow,
    image_id=TEXT,
    source_id=TEXT,
    split=TEXT,
    identity=st.none() | st.integers(-(2**63), 2**63 - 1),
    attributes=st.tuples(*[st.sampled_from([True, False, None])] * len(ATTRIBUTES)),
    status=st.sampled_from(["accepted", "rejected"]),
    convention=TEXT,
    precision=TEXT,
    attempts=st.lists(ATTEMPTS, max_size=3).map(tuple),
    error=st.none() | TEXT,
    painting=st.none() | TEXT,
    loss=LOSS,
    image=st.none() | st.binary(max_size=20),
    width=st.none() | st.integers(1, 9999),
    image_suffix=st.none() | TEXT,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ANY_ROW, max_size=4))
def test_any_row_survives_the_form_of_a_segment(rows):
    sealed = shard_journal._segment(rows, "key")
    payload = sealed[len(shard_journal._MAGIC) + 32 :]
    assert shard_journal._sealed(payload) == sealed
    assert shard_journal._read_segment(payload, "key") == rows
    assert shard_journal._read_segment(payload, "another") == []


def test_a_record_left_behind_is_a_death_of_what_was_not_finished(run):
    first, second = open_journal(run), open_journal(run)
    for journal, count in ((first, 3), (second, 1)):
        for face in FACES[:4]:
            journal.begin(face)
        for done in ROWS[:count]:
            journal.finish(done)
        die(journal)
    found = read(run)
    assert list(found.rows) == FACES[:3]
    assert found.deaths == dict.fromkeys(FACES[3 : shard_journal.AHEAD], 2)
    third = open_journal(run)  # works on, and ends in an orderly way without having finished anything
    third.begin(FACES[3])
    assert read(run).deaths[FACES[3]] == 3  # alive or dead, nobody can tell
    third.close()
    third.close()
    assert read(run) == found


def test_begun_is_known_before_it_is_read_and_nothing_is_suspected_that_was_not_near(run):
    journal = open_journal(run)
    journal.begin(FACES[39])
    assert set(read(run).deaths) == {FACES[39]}
    journal.begin(FACES[10])
    assert set(read(run).deaths) == {FACES[39], *FACES[10 : 10 + shard_journal.AHEAD]}
    before = entries(run)
    journal.begin(FACES[12])  # one of those marked already
    assert entries(run) == before
    journal.close()
    assert entries(run) == []
    journal.begin(FACES[20])  # a reading thread that comes late leaves no false death
    assert entries(run) == []


def test_rows_with_errors_are_done_again(run):
    """Whether the image or a volume that has just vanished is to blame, nobody knows yet."""
    journal = open_journal(run)
    unreadable = AttemptRecord("Dada/p.jpg", None, None, None, 0, "unreadable_painting", "gone")
    rejected = row(1, status="rejected")
    late = row(1, status="rejected", attempts=(unreadable, *rejected.attempts))
    for done in (row(0, status="failed"), late, ROWS[2]):
        journal.begin(done.image_id)
        journal.finish(done)
    die(journal)
    found = read(run)
    assert list(found.rows) == [FACES[2]]
    journal = open_journal(run)
    journal.begin(FACES[0])
    journal.finish(row(0, status="failed"))
    journal.begin(FACES[30])  # from now on the record no longer has the one that failed: it was not in progress
    die(journal)
    assert FACES[0] not in {face for face, deaths in read(run).deaths.items() if deaths > 1}


@pytest.mark.parametrize("damage", ["torn", "flipped", "empty", "garbage", "other form"])
def test_a_damaged_file_is_no_file(local, damage):
    journal = open_journal(local)
    journal.begin(FACES[0])
    journal.finish(ROWS[0])
    die(journal)
    good = open_journal(local)
    good.begin(FACES[1])
    good.finish(ROWS[1])
    good.close()
    folder = local.path(f"journal/{NAME}")
    for entry in entries(local):
        if entry.startswith(journal._execution):
            path = os.path.join(folder, entry)
            with open(path, "rb") as file:
                data = file.read()
            changed = {
                "torn": data[: len(data) // 2],
                "flipped": data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
                "empty": b"",
                "garbage": os.urandom(len(data)),
                "other form": b"STYLJ999" + data[8:],
            }[damage]
            with open(path, "wb") as file:
                file.write(changed)
    found = read(local)
    assert list(found.rows.values()) == [ROWS[1]]
    assert found.deaths == {}


def test_files_in_flight_and_strange_files_are_ignored(local):
    folder = local.path(f"journal/{NAME}")
    os.makedirs(f"{folder}/a.faces")
    for name in (f"x.faces.{'0' * 32}.tmp", "notes.txt", ".begun"):
        with open(f"{folder}/{name}", "wb") as file:
            file.write(b"?")
    os.rmdir(f"{folder}/a.faces")
    assert read(local).rows == {}


def test_a_journal_of_another_run_or_plan_is_ignored(run):
    journal = open_journal(run)
    journal.begin(FACES[0])
    journal.finish(ROWS[0])
    die(journal)
    assert read(run).rows
    others = [
        journal_key(run, NAME, FACES[:-1]),
        journal_key(run, NAME, FACES[::-1]),
        journal_key(run, ShardName("train", 1, 2), FACES),
        journal_key(RunDirectory(run.fs, run.root, run.url, {**run.content, "fingerprint": "other"}), NAME, FACES),
    ]
    for key in others:
        found = read(run, key)
        assert (found.rows, found.deaths) == ({}, {})


def test_the_one_who_finishes_never_waits_for_storage(local, monkeypatch):
    """Storage answers only after every face has been handed over."""
    handed_over = threading.Event()

    def slow(*arguments, **options):
        assert handed_over.wait(30)
        publish(*arguments, **options)

    journal = open_journal(local)
    monkeypatch.setattr(shard_journal, "publish", slow)
    for done in ROWS:
        journal.finish(done)
    handed_over.set()
    journal.close()
    assert list(read(local).rows.values()) == ROWS


def test_storage_that_fails_for_a_moment_costs_nothing(local, monkeypatch):
    monkeypatch.setattr(shard_journal, "FLUSH_SECONDS", 0.01)
    failures = [OSError(errno.EIO, "I/O error"), RuntimeError("a client's own kind of error")]

    def unwell(*arguments, **options):
        if failures:
            raise failures.pop()
        publish(*arguments, **options)

    monkeypatch.setattr(shard_journal, "publish", unwell)
    journal = open_journal(local)
    journal.finish(ROWS[0])
    while failures:
        assert journal._writer.is_alive()
    journal.check()
    journal.finish(ROWS[1])
    journal.close()
    assert read(local).rows.keys() == {FACES[0], FACES[1]}


def test_storage_that_stays_unwell_is_told(local, monkeypatch):
    monkeypatch.setattr(shard_journal, "FLUSH_SECONDS", 0.01)

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shard_journal, "publish", full)
    journal = open_journal(local)
    journal.check()
    journal.finish(ROWS[0])
    journal._writer.join(30)
    with pytest.raises(OSError, match="No space left"):
        journal.check()
    journal.close()


def test_a_face_that_cannot_be_marked_is_not_begun(local):
    journal = open_journal(local)
    folder = local.path("journal")
    os.rmdir(folder)
    with open(folder, "wb"):  # in the way
        pass
    with pytest.raises(OSError, match=r"journal"):
        journal.begin(FACES[0])
    os.unlink(folder)
    journal.begin(FACES[0])
    assert FACES[0] in read(local).deaths
    journal.close()


def test_a_commit_by_somebody_else_does_not_stop_the_second_execution(local):
    """Its folder may vanish at any time, between any two calls of the one who writes."""
    journal = open_journal(local)
    stop = threading.Event()

    def remove():
        while not stop.is_set():
            remove_journal(local, NAME)

    thread = threading.Thread(target=remove)
    thread.start()
    try:
        for done in ROWS:
            for _ in range(20):  # as often as it may lose the race, which no other execution runs again and again
                try:
                    journal.begin(done.image_id)
                    break
                except FileNotFoundError:
                    continue
            journal.finish(done)
    finally:
        stop.set()
        thread.join()
    journal.close()
    remove_journal(local, NAME)
    assert not os.path.exists(local.path("journal"))


def test_two_executions_at_once_share_what_they_finish(run):
    one, two = open_journal(run), open_journal(run)
    for number, done in enumerate(ROWS):
        for journal in (one, two) if number % 4 == 0 else (one,) if number % 2 else (two,):
            journal.begin(done.image_id)
            journal.finish(done)
    one.close()
    two.close()
    found = read(run)
    assert found.rows == {done.image_id: done for done in ROWS}
    assert found.deaths == {}
