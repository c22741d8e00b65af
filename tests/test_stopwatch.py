"""The stopwatch, by a clock that the tests wind themselves."""

import pytest
import torch

from stylize.stopwatch import Stopwatch


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.waited: list[object] = []

    def __call__(self) -> float:
        return self.now

    def synchronize(self, device: object = None) -> None:
        """The device takes a quarter of a second to come to its end."""
        self.waited.append(device)
        self.now += 0.25


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("stylize.stopwatch.time.perf_counter", clock)
    monkeypatch.setattr(torch.cuda, "synchronize", clock.synchronize)
    return clock


def test_times_are_added_up_by_section(clock):
    stopwatch = Stopwatch()
    for name, seconds in (("input", 1.0), ("network", 2.0), ("input", 0.5)):
        with stopwatch.section(name):
            clock.now += seconds
        clock.now += 10  # between sections nobody counts
    assert stopwatch.seconds == {"input": 1.5, "network": 2.0}


def test_a_section_that_fails_is_counted_and_its_exception_passed_on(clock):
    def fail() -> None:
        clock.now += 3
        raise KeyError("inside")

    stopwatch = Stopwatch()
    with pytest.raises(KeyError, match="inside"), stopwatch.section("network"):
        fail()
    assert stopwatch.seconds == {"network": 3.0}


def test_stopwatches_count_for_themselves(clock):
    first, second = Stopwatch(), Stopwatch()
    with first.section("input"):
        clock.now += 1
    assert second.seconds == {}


@pytest.mark.parametrize("device", [None, torch.device("cpu")])
def test_without_a_cuda_device_nothing_is_waited_for(clock, device):
    stopwatch = Stopwatch(device)
    assert stopwatch.waits_for is None
    with stopwatch.section("network"):
        pass
    assert not clock.waited


def test_a_cuda_device_is_waited_for_at_both_ends_and_what_came_before_is_not_counted(clock):
    device = torch.device("cuda", 0)
    stopwatch = Stopwatch(device)
    with stopwatch.section("network"):
        clock.now += 1
    assert clock.waited == [device, device]
    assert stopwatch.seconds == {"network": 1.25}  # the wait at the end is the section's own work
