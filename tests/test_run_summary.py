"""The summary of a run: its figures against plain counting, and a page that is whole, safe and honest about gaps."""

import collections
import html.parser
import math
import random
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from manifests.errors import InputError, RunError
from manifests.event_log import Event, EventLog
from manifests.run import RunDirectory
from manifests.shard import AttemptRecord, write_shard
from pipeline.inspection import write_summary
from pipeline.run_history import MAX_BINS, NO_END, bin_width, read_executions, throughput
from pipeline.run_plots import plot_attempts, plot_losses
from pipeline.run_summary import duration, headlines, render_summary, summarise
from pipeline.run_tallies import UNKNOWN_STYLE, RunTallies, Tally, tally_run, wilson_interval
from tests.small_run import MIXED, row, run_content, write_run

THRESHOLD = 40.0


def attempt(painting, loss, error=None):
    return AttemptRecord(painting, loss, None, None, 9, "evaluations", error)


def face(number, attempts, style=None, status=None, error=None):
    """A row whose last attempt is the accepted one if its loss is under the threshold."""
    last = attempts[-1] if attempts else None
    if status is None and last is not None and last.loss is not None and last.loss < THRESHOLD:
        return row(number, attempts=tuple(attempts), painting=last.painting, style=style, loss=last.loss)
    return row(number, status=status or "rejected", attempts=tuple(attempts), error=error)


def make_run(place, rows, shard_size=4):
    run = RunDirectory.create(place, run_content({"train": len(rows)}, shard_size))
    for name, positions in run.planned().items():
        write_shard(run, name, [rows[position] for position in positions])
    return run


@pytest.fixture(scope="module")
def drawn():
    """Sixty seeded faces: unreadable paintings, struck proxies, losses that are no numbers, failures."""
    lot = random.Random(0)
    paintings = [(f"{style}/p{number}.jpg", style) for style in ("Cubism", "Rococo", "Realism") for number in range(5)]
    rows = []
    for number in range(60):
        if number % 20 == 7:
            error = f"face /data/faces/{number:06d}.jpg: truncated"
            rows.append(face(number, [], status="failed", error=error))
            continue
        attempts: list[AttemptRecord] = []
        style = None
        while len(attempts) < 6:
            painting, style = lot.choice(paintings)
            kind = lot.random()
            if kind < 0.1:
                attempts.append(attempt(painting, None, "cannot be decoded"))
            elif kind < 0.15:
                attempts.append(attempt(painting, math.nan))
            elif kind < 0.25:
                attempts.append(attempt(painting, 12.5, "struck: a moustache on the wrong face"))
            else:
                attempts.append(attempt(painting, lot.uniform(0, 70)))
            loss = attempts[-1].loss
            if loss is not None and loss < THRESHOLD and attempts[-1].error is None:
                break
        done = attempts[-1].loss is not None and attempts[-1].loss < THRESHOLD and attempts[-1].error is None
        rows.append(face(number, attempts, style, None if done else "rejected"))
    return rows


def test_tallies_are_what_plain_counting_finds(tmp_path, drawn):
    tallies = tally_run(make_run(tmp_path, drawn, 16), THRESHOLD)
    attempts = [one for each in drawn for one in each.attempts]
    with_loss = [one for one in attempts if one.loss is not None]
    kept = [one.loss for one in with_loss if one.loss < THRESHOLD]
    assert sorted(tallies.kept) == sorted(kept)
    assert len(tallies.thrown) == len(with_loss) - len(kept) > 0
    assert np.isnan(tallies.thrown).sum() == sum(math.isnan(one.loss) for one in with_loss) > 0
    faces = collections.Counter((r.status, sum(one.loss is not None for one in r.attempts)) for r in drawn)
    assert tallies.faces_by_attempts == faces
    assert [tally.name for tally in tallies.paintings] == sorted({one.painting for one in attempts})
    for tally in tallies.paintings:
        mine = [one for one in attempts if one.painting == tally.name]
        assert tally.tried == sum(one.loss is not None for one in mine)
        assert tally.rejected == sum(one.loss is not None and not one.loss < THRESHOLD for one in mine)
        assert tally.unreadable == sum(one.loss is None for one in mine)
        assert tally.struck == sum((one.error or "").startswith("struck") for one in mine)
        assert tally.style == tally.name.split("/")[0]
    for style in tallies.styles:
        members = [tally for tally in tallies.paintings if tally.style == style.name]
        for count in ("tried", "rejected", "unreadable", "struck"):
            assert getattr(style, count) == sum(getattr(member, count) for member in members)
    assert tallies.failures == [("face …: truncated", 3)]


def test_styles_of_paintings_that_were_never_accepted(tmp_path):
    rows = [
        face(0, [attempt("ukiyo/a.jpg", 50), attempt("ukiyo/b.jpg", 10)], "Ukiyo-e"),  # of the folder
        face(1, [attempt("mixed/a.jpg", 50), attempt("mixed/b.jpg", 10)], "Cubism"),  # a folder of two styles
        face(2, [attempt("mixed/c.jpg", 10)], "Rococo"),
        face(3, [attempt("top.jpg", 50), attempt("other.jpg", 10)], "Dada"),  # no folder at all
        face(4, [attempt("nobody/a.jpg", 50), attempt("none.jpg", 10)], None),  # no label
    ]
    tallies = tally_run(make_run(tmp_path, rows), THRESHOLD)
    assert {tally.name: tally.style for tally in tallies.paintings} == {
        "ukiyo/a.jpg": "Ukiyo-e",
        "ukiyo/b.jpg": "Ukiyo-e",
        "mixed/a.jpg": UNKNOWN_STYLE,
        "mixed/b.jpg": "Cubism",
        "mixed/c.jpg": "Rococo",
        "top.jpg": UNKNOWN_STYLE,
        "other.jpg": "Dada",
        "nobody/a.jpg": UNKNOWN_STYLE,
        "none.jpg": UNKNOWN_STYLE,
    }


@given(st.integers(1, 500).flatmap(lambda tries: st.tuples(st.integers(0, tries), st.just(tries))))
def test_wilson_interval_as_scipy_has_it(counts):
    hits, tries = counts
    expected = stats.binomtest(hits, tries).proportion_ci(0.95, "wilson")
    assert wilson_interval(hits, tries) == pytest.approx((expected.low, expected.high), abs=1e-6)


def tally(name, tried, rejected):
    return Tally(name, "Cubism", tried, rejected, 0, 0)


def tallies_of(*paintings):
    return RunTallies(np.empty(0), np.empty(0), {}, paintings, (), ())


def test_one_rejection_in_one_try_is_not_the_worst_painting():
    tallies = tallies_of(tally("once", 1, 1), tally("never", 9, 0), tally("often", 20, 18), tally("half", 2, 1))
    assert [worst.name for worst in tallies.most_rejected(3)] == ["often", "once", "half"]
    assert wilson_interval(0, 0) == (0, 1)
    assert math.isnan(tally("unread", 0, 0).share)


@pytest.mark.parametrize(
    ("rejected", "paintings"), [([], 0), ([0, 0], 0), ([1], 1), ([5, 1, 1, 1], 1), ([1, 1, 1, 1], 2), ([3, 3, 3], 2)]
)
def test_how_many_paintings_make_half_of_all_rejections(rejected, paintings):
    assert tallies_of(*(tally(str(n), 9, count) for n, count in enumerate(rejected))).paintings_of_half() == paintings


def events(number, *lines):
    """Events as (kind, elapsed, fields)."""
    return tuple(
        Event(number, f"e{number}", place, "2026-11-22T09:39:12.345Z", float(elapsed), kind, fields)
        for place, (kind, elapsed, fields) in enumerate(lines)
    )


FIRST = events(
    1,
    ("execution_started", 0, {"command": "build"}),
    ("worker_joined", 1, {"worker": "h:1", "workers": 1}),
    ("worker_joined", 2, {"worker": "h:2", "workers": 2}),
    ("progress", 10, {"faces": 100, "resumed": 0}),
    ("worker_lost", 15, {"worker": "h:2", "workers": 1, "expected": False}),
    ("progress", 20, {"faces": 60, "resumed": 0}),  # forty were lost with the worker
    ("progress", 30, {"faces": 180, "resumed": 20}),  # and twenty of them were in its journal
    ("shard_committed", 30, {"faces": 180, "resumed": 20}),
)
SECOND = events(
    2,
    ("execution_started", 0, {"command": "redraw"}),
    ("worker_lost", 5, {"worker": "h:1", "workers": 0, "expected": True}),
    ("shard_committed", 8, {"faces": 40, "resumed": 0}),
    ("shard_committed", 10, {"faces": 40, "resumed": 0}),
    ("execution_ended", 10, {"outcome": "failed", "reason": "disk full"}),
)


def test_faces_count_once_however_often_they_were_done():
    first, second = read_executions((*FIRST, *SECOND))
    assert (first.faces, first.resumed, first.outcome, first.reason) == (160, 20, NO_END, None)
    assert (second.faces, second.resumed, second.outcome, second.reason) == (80, 0, "failed", "disk full")
    assert (first.command, second.command) == ("build", "redraw")
    assert first.started == "2026-11-22 09:39"
    assert (first.most_workers, len(first.lost_workers), len(second.lost_workers)) == (2, 1, 0)
    assert (np.diff(first.work[1]) >= 0).all()


def test_throughput_adds_up_to_the_faces_that_were_done():
    speed = throughput(read_executions((*FIRST, *SECOND)))
    assert speed is not None
    assert speed.seconds == 40
    assert speed.faces == 240
    assert (speed.rates * np.diff(speed.edges)).sum() == pytest.approx(240)
    assert speed.mean == pytest.approx(6)
    assert speed.boundaries == [30]
    assert speed.losses == [15]
    assert (speed.rates >= 0).all()
    assert (speed.worker_times, speed.workers) == ([0, 1, 2, 15, 30, 35], [0, 1, 2, 1, 0, 0])
    assert speed.rates[:10] == pytest.approx([10.0] * 10)
    assert speed.rates[10:20] == pytest.approx([0.0] * 10)


def test_no_throughput_without_work():
    assert throughput([]) is None
    assert throughput(read_executions(events(1, ("execution_started", 0, {})))) is None
    assert throughput(read_executions(events(1, ("progress", 0, {"faces": 9})))) is None
    assert throughput(read_executions(events(1, ("progress", 9, {"faces": 0})))) is None


@given(st.floats(0.001, 1e8))
def test_bins_are_few_enough(seconds):
    width = bin_width(seconds)
    assert seconds / width <= MAX_BINS * (1 + 1e-9)
    assert width <= 1 or seconds / width > MAX_BINS / 4


@given(
    st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**6)), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**6)), max_size=12),
)
def test_whatever_was_logged_no_rate_is_negative_and_none_is_lost(first, second):
    logs = [
        events(number, *(("progress", milliseconds / 1000, {"faces": faces}) for milliseconds, faces in sorted(lines)))
        for number, lines in ((1, first), (2, second))
        if lines
    ]
    executions = read_executions(event for log in logs for event in log)
    speed = throughput(executions)
    if speed is not None:
        assert (speed.rates >= 0).all()
        assert len(speed.edges) == len(speed.rates) + 1
        assert (speed.rates * np.diff(speed.edges)).sum() == pytest.approx(speed.faces, abs=1e-3)


def test_the_threshold_parts_the_bins_of_the_histogram():
    lot = np.random.default_rng(0)
    kept, thrown = lot.uniform(0, 40, 500), lot.uniform(40, 900, 60)
    plot = plot_losses(RunTallies(kept, thrown, {}, (), (), ()), 40.0)
    assert plot is not None
    assert "560 attempts" in plot.caption
    assert "500 are under the threshold of 40, 60 are not" in plot.caption
    for nothing in (np.empty(0), np.array([math.nan, math.inf])):
        assert plot_losses(RunTallies(np.empty(0), nothing, {}, (), (), ()), 40.0) is None
    assert plot_losses(RunTallies(np.zeros(3), np.empty(0), {}, (), (), ()), math.inf) is not None


def test_faces_with_very_many_attempts_share_a_bar():
    faces = {("accepted", number): 1 for number in range(1, 30)}
    plot = plot_attempts(RunTallies(np.empty(0), np.empty(0), faces, (), (), ()))
    assert plot is not None
    assert "29 at most" in plot.caption
    assert "12 +" in plot.svg
    assert plot_attempts(RunTallies(np.empty(0), np.empty(0), {}, (), (), ())) is None


class Page(html.parser.HTMLParser):
    """Checks that tags close in order, and collects text and attributes."""

    VOID = ("meta", "br", "img", "link", "input")

    def __init__(self, text):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def logged(tmp_path_factory, drawn):
    """A finished run with two executions in its log, the first of which failed."""
    run = make_run(tmp_path_factory.mktemp("logged") / "faces & <paintings>", drawn, 16)
    seconds = [0.0]
    for token, end in (("aaaa", "failed"), ("bbbb", "complete")):
        log = EventLog(run, token, flush_seconds=0.01, monotonic=lambda: seconds[0])
        log.append("execution_started", command="build", faces=60, shards=4)
        for worker in (1, 2):
            log.append("worker_joined", worker=f"10.0.0.{worker}:4000", workers=worker)
        for step in range(1, 6):
            seconds[0] += 60
            log.append("progress", faces=6 * step, resumed=0)
        log.append("worker_lost", worker="10.0.0.2:4000", workers=1, expected=False)
        log.append("shard_retried", shard="train-00000-of-00004", reason="its worker died")
        log.append("shard_committed", shard="train-00000-of-00004", faces=30, resumed=0)
        log.append("poison", shard="train-00000-of-00004", faces=1)
        log.close(end, "the volume is full" if end == "failed" else None)
    return run


def test_the_page_is_whole_and_asks_nobody_for_anything(logged):
    text = render_summary(summarise(logged.url))
    page = Page(text)
    assert not {"script", "img", "link", "iframe", "object", "base", "form"} & set(page.tags)
    assert not re.search(r"(?:https?:)?//(?!www\.w3\.org/)", text)
    assert "url(" not in text.replace("url(#", "")
    assert "default-src 'none'" in text
    assert not [a for a in page.attributes if a[1].startswith("on")]
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert page.tags.count("svg") == 3
    assert len([a for a in page.attributes if a[1] == "aria-label"]) == 3
    assert render_summary(summarise(logged.url)) == text


def test_the_page_has_the_figures(logged, drawn):
    summary = summarise(logged.url)
    text = Page(render_summary(summary)).text
    accepted = sum(each.status == "accepted" for each in drawn)
    rejected = sum(each.status == "rejected" for each in drawn)
    first = headlines(summary)[0]
    assert first.value == f"{100 * accepted / 60:.1f}"
    assert f"{rejected} found no painting that suits them and 3 could not be read or repainted" in first.sentence
    assert [headline.value for headline in headlines(summary)][-1] == "6.0"  # sixty faces in ten minutes
    for words in (
        "4 of 4 shards with 60 of 60 faces are committed: the run is complete. 15 paintings were drawn.",
        "faces & <paintings>",
        "threshold 40",
        "struck by a curator",
        "face …: truncated",
        "Cubism",
        "Rococo",
        "Throughput, faces per minute",
        "a worker was lost",
        "another execution begins",
        "1 2026-",
        "Execution 1: the volume is full",
        "5 min 1 30 \N{EN DASH} 6.0 / min 2 1 1 1 failed",
    ):
        assert words in text, words


def test_nothing_from_outside_is_taken_for_html(tmp_path):
    evil = "<script>alert(1)</script>"
    rows = [
        face(0, [attempt(f"{evil}/a.jpg", 50), attempt(f"{evil}/b.jpg", 10)], f"{evil}&amp;"),
        face(1, [], status="failed", error=f"bad <b onload='x'>{evil}"),
    ]
    content = run_content({"train": 2}, 4)
    content["config"] |= {"note": evil}
    content["versions"] |= {evil: "1"}
    run = RunDirectory.create(tmp_path / "OUT", content)
    write_shard(run, next(iter(run.planned())), rows)
    with EventLog(run, "aaaa") as log:
        log.append("execution_started", command="<i>build</i>")
        log.append("progress", faces=1)
    page = Page(render_summary(summarise(run.url)))
    assert not {"script", "b onload", "i>"} & set(page.tags)
    assert "<script>alert(1)" in page.text
    assert not [a for a in page.attributes if a[1].startswith("on")]


def test_an_unfinished_run_says_so(tmp_path):
    write_run(tmp_path, MIXED, skip={"train-00000-of-00003", "valid-00000-of-00001"})
    summary = summarise(tmp_path)
    assert summary.remarks[0].startswith("This run is not complete: 2 shards are missing of 5.")
    text = Page(render_summary(summary)).text
    assert "3 of 5 shards with 8 of 15 faces are committed: the run is not complete." in text
    assert "This run has no event log" in text


def test_a_run_with_nothing_in_it_has_a_page(tmp_path):
    RunDirectory.create(tmp_path, run_content({"train": 5}, 2))
    text = Page(render_summary(summarise(tmp_path))).text
    assert "3 shards are missing of 3" in text
    assert headlines(summarise(tmp_path)) == []


def test_a_run_of_failures_alone_has_a_page(tmp_path):
    make_run(tmp_path, [face(number, [], status="failed", error="the file is empty") for number in range(3)])
    text = Page(render_summary(summarise(tmp_path))).text
    assert "0.0 % of 3 faces have a proxy; 3 could not be read or repainted." in text
    assert "the file is empty 3" in text


def test_damaged_files_are_named_and_the_rest_is_shown(tmp_path):
    run = write_run(tmp_path, MIXED)
    broken = tmp_path / "manifest" / "valid-00000-of-00001.parquet"
    broken.write_bytes(broken.read_bytes()[:500])
    with EventLog(run, "aaaa"):
        pass
    (log,) = (tmp_path / "events").iterdir()
    log.write_text(log.read_text() + "half a li")
    summary = summarise(tmp_path)
    assert any("valid-00000-of-00001.parquet cannot be read" in remark for remark in summary.remarks)
    assert any("1 of 2 lines are damaged" in remark for remark in summary.remarks)
    assert sum(summary.tallies.faces_by_attempts.values()) == 12
    assert "cannot be read" in render_summary(summary)


def test_no_credential_of_an_address_is_on_the_page(tmp_path):
    run = make_run(tmp_path / "OUT", [face(0, [attempt("a.jpg", 10)], "Dada")])
    summary = summarise(run.url)
    for url in (
        "s3://KEY:hunter2hunter2@bucket",
        "https://h/OUT?X-Amz-Signature=hunter2hunter2",
        "s3://KEY:hunter2hunter2@bucket/a/OUT/",
    ):
        object.__setattr__(summary.status, "url", url)
        assert "hunter2" not in render_summary(summary)
        assert summary.title in ("OUT", "bucket")


def test_struck_proxies_count_as_attempts_and_not_as_rejections(tmp_path):
    struck = attempt("Dada/a.jpg", 12.0, "struck: two noses")
    run = make_run(tmp_path, [face(0, [struck, attempt("Dada/b.jpg", 13.0)], "Dada")])
    tallies = tally_run(run, THRESHOLD)
    assert [(each.tried, each.rejected, each.struck) for each in tallies.styles] == [(2, 0, 1)]
    assert "No attempt was rejected. 1 proxy was struck by a curator and redrawn." in render_summary(summarise(run.url))


def test_the_file_is_written_whole_or_not_at_all(tmp_path, logged):
    target = tmp_path / "new" / "summary.html"
    write_summary(logged.url, target)
    assert target.read_text() == render_summary(summarise(logged.url))
    assert [path.name for path in target.parent.iterdir()] == ["summary.html"]
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        write_summary(logged.url, tmp_path / "file" / "summary.html")
    with pytest.raises(InputError, match=r"no run\.json"):
        write_summary(tmp_path / "new", target)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0.0 s"), (4.26, "4.3 s"), (59.6, "1 min"), (725, "12 min 5 s"), (34_800, "9 h 40 min"), (7200, "2 h")],
)
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words


def test_a_summary_changes_nothing_in_the_run(logged):
    def state():
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in Path(logged.root).rglob("*")}

    before = state()
    render_summary(summarise(logged.url))
    assert state() == before
