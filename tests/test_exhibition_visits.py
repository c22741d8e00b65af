"""Tokens, idle visits, the queue of work, and rates: by a clock and work that the tests hold in their hands."""

import asyncio
import re
import threading
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.exhibition.api_error import ApiError
from pipeline.exhibition.jobs import JobCancelled, JobQueue
from pipeline.exhibition.rate_limit import RateLimit
from pipeline.exhibition.visit import Choice, Visit
from pipeline.exhibition.visits import Visits

CHOICE = Choice(0.2)


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def visits(clock, most=3, **options):
    return Visits(most=most, idle_seconds=90, forget_seconds=180, clock=clock, **options)


# --- visits -----------------------------------------------------------------------------------------


def test_tokens_are_long_and_differ():
    everybody = visits(Clock(), most=500)
    tokens = {everybody.begin(f"{at}", CHOICE).token for at in range(500)}
    assert len(tokens) == 500
    assert min(map(len, tokens)) == 43  # 256 bits


def test_idle_visits_are_forgotten():
    clock = Clock()
    gone: list[Visit] = []
    everybody = visits(clock, on_forget=gone.append)
    first, second = everybody.begin("me", CHOICE), everybody.begin("you", CHOICE)
    first.portrait = first.head = first.query = object()
    clock.now += 100
    assert everybody.find(first.token, "me") is first  # and was heard of
    clock.now += 100
    everybody.sweep()
    assert gone == [second]
    assert len(everybody) == 1
    clock.now += 181
    with pytest.raises(ApiError) as caught:
        everybody.find(first.token, "me")
    assert (caught.value.status, caught.value.code) == (410, "forgotten")
    assert first.over
    assert (first.portrait, first.head, first.query, first.hits) == (None, None, None, [])


def test_nobody_finds_the_visit_of_another():
    everybody = visits(Clock())
    mine = everybody.begin("me", CHOICE)
    for token, visitor in ((mine.token, "you"), (mine.token[:-1], "me"), ("", "me"), (mine.token, "")):
        with pytest.raises(ApiError) as caught:
            everybody.find(token, visitor)
        assert caught.value.code == "forgotten"
    assert everybody.find(mine.token, "me") is mine


def test_too_many_visitors():
    clock = Clock()
    everybody = visits(clock)
    begun = []
    for _ in range(3):
        begun.append(everybody.begin("me", CHOICE))
        clock.now += 10
    with pytest.raises(ApiError) as caught:
        everybody.begin("you", CHOICE)
    assert (caught.value.status, caught.value.code) == (503, "busy")
    assert caught.value.retry_after == pytest.approx(60)
    everybody.find(begun[0].token, "me")
    clock.now += 71  # the second is idle now, and the first is not
    everybody.begin("you", CHOICE)
    assert [visit.over for visit in begun] == [False, True, False]
    everybody.close()
    assert all(visit.over for visit in begun)


def test_one_browser_has_a_few_visits_and_its_oldest_goes_first():
    clock = Clock()
    everybody = visits(clock, most=10, most_each=3)
    other = everybody.begin("you", CHOICE)
    mine = []
    for _ in range(3):
        clock.now += 1
        mine.append(everybody.begin("me", CHOICE))
    clock.now += 1
    everybody.find(mine[0].token, "me")
    mine.append(everybody.begin("me", CHOICE))
    assert [visit.over for visit in mine] == [False, True, False, False]
    assert not other.over


# --- the queue of work ------------------------------------------------------------------------------


class Bench:
    """Work that begins when the queue wants and ends when the test wants."""

    def __init__(self, queue):
        self.queue = queue
        self.begun, self.ended, self.errors = [], [], []
        self.gates = {}

    def submit(self, owner, kind, name):
        gate = self.gates[name] = threading.Event()

        def work(pause):
            self.begun.append(name)
            while not gate.wait(0.005):
                pause()
            pause()
            return name

        def done(result, error):
            (self.ended if error is None else self.errors).append(name if error else result)

        return self.queue.submit(owner, kind, work, done)

    async def until(self, condition):
        for _ in range(4000):
            if condition():
                return
            await asyncio.sleep(0.005)
        raise AssertionError((self.begun, self.ended))


def on_a_loop(test):
    async def run():
        queue = JobQueue()
        try:
            await test(Bench(queue))
        finally:
            await queue.close()

    asyncio.run(run())


def test_searches_are_done_in_their_order_and_know_how_many_are_before_them():
    async def test(bench):
        jobs = [bench.submit(name, "search", name) for name in "abc"]
        await bench.until(lambda: bench.begun == ["a"])
        assert [bench.queue.ahead(job) for job in jobs] == [0, 1, 2]
        bench.gates["a"].set()
        await bench.until(lambda: bench.begun == ["a", "b"])
        assert bench.ended == ["a"]
        assert [bench.queue.ahead(job) for job in jobs] == [0, 0, 1]
        bench.gates["b"].set()
        bench.gates["c"].set()
        await bench.until(lambda: bench.ended == ["a", "b", "c"])

    on_a_loop(test)


def test_an_explanation_pauses_for_a_search():
    async def test(bench):
        why = bench.submit("greedy", "explanation", "why")
        await bench.until(lambda: bench.begun == ["why"])
        search = bench.submit("other", "search", "search")
        await bench.until(lambda: bench.begun == ["why", "search"])
        assert bench.queue.ahead(search) == 0
        bench.gates["why"].set()  # it could end, and waits for the search
        await asyncio.sleep(0.1)
        assert bench.ended == []
        later = bench.submit("other", "explanation", "later")
        assert bench.queue.ahead(later) == 2
        bench.gates["search"].set()
        bench.gates["later"].set()
        await bench.until(lambda: bench.ended == ["search", "why", "later"])
        assert bench.queue.ahead(why) == 0

    on_a_loop(test)


def test_a_paused_explanation_of_somebody_who_left_lets_go_of_the_photograph():
    async def test(bench):
        class Photograph:
            pass

        photograph = Photograph()
        alive = weakref.ref(photograph)
        begun = threading.Event()

        def work(pause, photograph=photograph):
            while True:
                begun.set()
                pause()

        bench.queue.submit("a", "explanation", work, lambda result, error: None)
        del photograph, work
        await bench.until(begun.is_set)
        bench.submit("b", "search", "search")  # goes on until the test lets it end
        await bench.until(lambda: "search" in bench.begun)
        bench.queue.forget("a")
        await bench.until(lambda: alive() is None)
        bench.gates["search"].set()
        await bench.until(lambda: bench.ended == ["search"])

    on_a_loop(test)


@pytest.mark.parametrize("kind", ["search", "explanation"])
def test_work_that_fails_is_told_to_staff_without_its_words(kind, caplog):
    async def test(bench):
        def fails(pause):
            raise KeyError("blue eyes")

        failed = []
        bench.queue.submit("a", kind, fails, lambda result, error: failed.append(error))
        await bench.until(lambda: len(failed) == 1)
        bench.queue.forget(bench.submit("b", kind, "left").owner)  # no failure

    on_a_loop(test)
    (message,) = [record.getMessage() for record in caplog.records if record.name == "stylize.exhibition"]
    assert re.fullmatch(rf"an? {kind} failed: KeyError in test_exhibition_visits\.py:\d+", message)
    assert "blue eyes" not in caplog.text


def test_explanations_are_fair():
    async def test(bench):
        jobs = {name: bench.submit(name[0], "explanation", name) for name in ("a1", "a2", "a3", "b1", "c1", "b2")}
        await bench.until(lambda: bench.begun == ["a1"])
        assert {name: bench.queue.ahead(job) for name, job in jobs.items()} == {
            "a1": 0, "b1": 1, "c1": 2, "a2": 3, "b2": 4, "a3": 5,
        }  # fmt: skip
        for gate in bench.gates.values():
            gate.set()
        await bench.until(lambda: len(bench.ended) == 6)
        assert bench.ended == ["a1", "b1", "c1", "a2", "b2", "a3"]

    on_a_loop(test)


def test_whoever_leaves_takes_their_work_along():
    async def test(bench):
        for name in ("a1", "a2"):
            bench.submit("a", "explanation", name)
        bench.submit("b", "explanation", "b1")
        search = bench.submit("a", "search", "search")
        await bench.until(lambda: "search" in bench.begun)
        assert bench.queue.pending("a", "explanation") == 2
        bench.queue.forget("a")
        assert bench.queue.pending("a", "explanation") == 0
        bench.gates["b1"].set()
        await bench.until(lambda: bench.ended == ["b1"])
        assert search.cancelled
        assert bench.ended == ["b1"]
        assert bench.errors == []
        assert "a2" not in bench.begun

    on_a_loop(test)


def test_work_that_fails_does_not_stop_the_others():
    async def test(bench):
        failed = []

        def fails(pause):
            raise KeyError("x")

        bench.queue.submit("a", "search", fails, lambda result, error: failed.append((result, type(error))))
        bench.submit("b", "search", "b")
        bench.gates["b"].set()
        await bench.until(lambda: bench.ended == ["b"])
        assert failed == [(None, KeyError)]

    on_a_loop(test)


def test_closing_ends_what_is_at_work():
    async def run():
        queue = JobQueue()
        bench = Bench(queue)
        bench.submit("a", "explanation", "why")
        bench.submit("a", "explanation", "never")
        await bench.until(lambda: bench.begun == ["why"])
        await asyncio.wait_for(queue.close(), 20)
        assert (bench.ended, bench.errors) == ([], [])
        assert "never" not in bench.begun

    asyncio.run(run())
    assert issubclass(JobCancelled, Exception)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["search", "explanation"])), max_size=12))
@settings(max_examples=15, deadline=None)
def test_what_is_said_to_be_ahead_is_what_is_done_before(asked):
    async def test(bench):
        hold = bench.submit("z", "search", "hold")
        await bench.until(lambda: bench.begun == ["hold"])
        jobs = {f"{at}": bench.submit(owner, kind, f"{at}") for at, (owner, kind) in enumerate(asked)}
        said = {name: bench.queue.ahead(job) for name, job in jobs.items()}
        assert bench.queue.ahead(hold) == 0
        for gate in bench.gates.values():
            gate.set()
        await bench.until(lambda: len(bench.ended) == len(asked) + 1)
        for kind in ("search", "explanation"):
            own = [name for name in bench.ended if name != "hold" and asked[int(name)][1] == kind]
            assert own == sorted(own, key=lambda name: said[name])

    on_a_loop(test)


# --- rates ------------------------------------------------------------------------------------------


def test_a_burst_and_then_a_rate():
    clock = Clock()
    limit = RateLimit(2, 5, clock=clock)
    assert [limit.take("me") for _ in range(5)] == [0] * 5
    assert limit.take("me") == pytest.approx(0.5)
    assert limit.take("you") == 0
    clock.now += 0.5
    assert limit.take("me") == 0
    assert limit.take("me") > 0
    clock.now += 1e6
    assert [limit.take("me") for _ in range(6)][:5] == [0] * 5
    assert limit.take("me") > 0  # no more than a burst is saved


def test_keys_are_not_kept_for_ever():
    limit = RateLimit(1, 1, clock=Clock(), most=10)
    for key in range(1000):
        limit.take(key)
    assert len(limit) == 10


def test_keys_whose_buckets_are_full_again_are_forgotten():
    clock = Clock()
    limit = RateLimit(2, 4, clock=clock)
    for _ in range(4):
        limit.take("often")
    limit.take("once")
    clock.now += 0.5
    limit.sweep()
    assert len(limit) == 1
    assert [limit.take("often"), limit.take("once")] == [0, 0]
    clock.now += 1.9
    limit.sweep()
    assert len(limit) == 1
    clock.now += 0.2
    limit.sweep()
    assert len(limit) == 0


@given(st.lists(st.floats(0, 10), max_size=60), st.floats(0.1, 5), st.integers(1, 10))
@settings(deadline=None)
def test_never_more_than_burst_and_rate_allow(waits, rate, burst):
    clock = Clock()
    limit = RateLimit(rate, burst, clock=clock)
    start, taken = clock.now, 0
    for wait in waits:
        clock.now += wait
        taken += limit.take("me") == 0
        assert taken <= burst + (clock.now - start) * rate + 1e-6
