"""Loading ahead: order, bounds, errors in their place, and no thread left behind."""

import threading
import time

import pytest

from stylize.prefetch import prefetch


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.parametrize("count", [0, 1, 3, 8, 9, 40])
@pytest.mark.parametrize("threads", [1, 3])
def test_items_come_in_order_each_with_its_own(count, threads):
    def load(number: int) -> int:
        time.sleep(0.001 * (number % 3))
        return number * number

    loaded = list(prefetch(range(count), load, threads=threads))
    assert loaded == [(number, number * number) for number in range(count)]
    assert not workers()


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_no_more_than_depth_are_loaded_ahead(depth):
    loaded: list[int] = []
    pulled: list[int] = []

    def items():
        for number in range(30):
            pulled.append(number)
            yield number

    def load(number: int) -> int:
        loaded.append(number)
        return number

    for position, _ in enumerate(prefetch(items(), load, depth=depth)):
        assert len(pulled) <= position + depth + 1
        assert len(loaded) <= position + depth + 1
    assert loaded == list(range(30))


def test_an_exception_of_a_load_comes_where_its_item_would():
    def load(number: int) -> int:
        if number == 4:
            raise KeyError("four")
        return number

    stream = prefetch(range(20), load)
    assert [next(stream)[0] for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(KeyError, match="four"):
        next(stream)
    assert not workers()


def test_an_exception_of_the_items_is_passed_on():
    def items():
        yield 1
        raise LookupError("source")

    with pytest.raises(LookupError, match="source"):
        list(prefetch(items(), lambda number: number))
    assert not workers()


def test_closing_stops_loading_and_the_thread():
    loaded: list[int] = []

    def load(number: int) -> int:
        time.sleep(0.005)
        loaded.append(number)
        return number

    stream = prefetch(range(1000), load, depth=6)
    next(stream)
    stream.close()  # type: ignore[attr-defined,unused-ignore]
    count = len(loaded)
    assert count <= 8
    assert not workers()
    time.sleep(0.03)
    assert len(loaded) == count


def test_a_stream_that_is_never_begun_starts_nothing():
    stream = prefetch(range(3), lambda number: number)
    assert not workers()
    stream.close()  # type: ignore[attr-defined,unused-ignore]
    assert not workers()
