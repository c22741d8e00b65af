"""The captured step with a CUDA that the tests made up, and with the real one where there is one."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch

from stylize.captured_step import WARM_UP, CapturedStep

CUDA = torch.device("cuda")


class FakeGraph:
    """Remembers the step that was captured; a replay does what it does."""

    def __init__(self) -> None:
        self.work: list[Callable[[], None]] = []
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1
        for work in self.work:
            work()


class FakeCUDA:
    """`torch.cuda` as far as the captured step uses it; `failure` is raised at the end of the capture."""

    def __init__(self) -> None:
        self.graphs: list[FakeGraph] = []
        self.events: list[str] = []
        self.capturing: FakeGraph | None = None
        self.failure: Exception | None = None

    def make_graph(self) -> FakeGraph:
        self.graphs.append(FakeGraph())
        return self.graphs[-1]

    @contextmanager
    def capture(self, graph: FakeGraph, **options: object) -> Iterator[None]:
        self.events.append("capture")
        self.capturing = graph
        try:
            yield
            if self.failure is not None:
                raise self.failure
        finally:
            self.capturing = None

    def launch(self, work: Callable[[], None]) -> None:
        """Give the device an order: it is done at once, or, in a capture, noted."""
        if self.capturing is None:
            work()
        else:
            self.capturing.work.append(work)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCUDA:
    fake = FakeCUDA()
    monkeypatch.setattr(torch.cuda, "CUDAGraph", fake.make_graph)
    monkeypatch.setattr(torch.cuda, "graph", fake.capture)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: fake.events.append("synchronize"))
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "Stream", lambda device=None: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: fake.events.append("empty_cache"))
    return fake


class Counter:
    """A step that tells the device to count, and counts how often Python ran it."""

    def __init__(self, cuda: FakeCUDA) -> None:
        self.cuda = cuda
        self.python = self.device = 0

    def __call__(self) -> None:
        self.python += 1
        self.cuda.launch(self.count)

    def count(self) -> None:
        self.device += 1


def test_after_the_warm_up_python_runs_once_more_and_then_never(cuda):
    counter = Counter(cuda)
    step = CapturedStep(CUDA)
    for call in range(1, 11):
        step(counter)
        assert counter.device == call  # not one step is left out or done twice, the capture's included
        assert counter.python == min(call, WARM_UP + 1)
        assert len(cuda.graphs) == (call > WARM_UP)
    assert cuda.graphs[0].replays == 10 - WARM_UP


def test_the_device_is_idle_when_the_capture_begins(cuda):
    counter = Counter(cuda)
    step = CapturedStep(CUDA)
    for _ in range(WARM_UP + 3):
        step(counter)
    assert cuda.events.count("capture") == 1
    assert "synchronize" in cuda.events[: cuda.events.index("capture")]


def test_on_the_cpu_every_step_is_a_plain_one(cuda):
    counter = Counter(cuda)
    step = CapturedStep(torch.device("cpu"))
    for _ in range(WARM_UP + 5):
        step(counter)
    assert counter.python == counter.device == WARM_UP + 5
    assert not cuda.graphs
    assert not cuda.events


def test_each_captured_step_has_a_graph_of_its_own(cuda):
    counters = [Counter(cuda), Counter(cuda)]
    steps = [CapturedStep(CUDA) for _ in counters]
    for _ in range(WARM_UP + 2):
        for step, counter in zip(steps, counters, strict=True):
            step(counter)
    assert [graph.replays for graph in cuda.graphs] == [2, 2]
    assert [counter.device for counter in counters] == [WARM_UP + 2] * 2


def test_where_no_graph_can_be_captured_one_warning_says_so_and_steps_are_plain(cuda):
    cuda.failure = RuntimeError("operation not permitted when stream is capturing")
    counter = Counter(cuda)
    step = CapturedStep(CUDA)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for call in range(1, 11):
            step(counter)
            assert counter.device == call
    assert len(caught) == 1
    assert "not permitted when stream is capturing" in str(caught[0].message)
    assert "graph" in str(caught[0].message)
    assert cuda.events.count("capture") == 1
    assert cuda.graphs[0].replays == 0


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no room"), KeyError("a bug"), KeyboardInterrupt()])
def test_memory_that_runs_out_and_bugs_are_no_reason_for_plain_steps(cuda, error):
    cuda.failure = error
    counter = Counter(cuda)
    step = CapturedStep(CUDA)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(WARM_UP):
            step(counter)
        with pytest.raises(type(error)):
            step(counter)
    assert counter.device == WARM_UP


@pytest.mark.parametrize("call", [1, WARM_UP])
def test_an_exception_of_a_plain_step_is_passed_on(cuda, call):
    calls = 0

    def failing() -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise RuntimeError("wrong shape")

    step = CapturedStep(CUDA)
    for _ in range(call - 1):
        step(failing)
    with pytest.raises(RuntimeError, match="shape"):
        step(failing)


# With a device


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_a_replay_does_the_step():
    x, count = torch.zeros(1000, device="cuda"), 0
    weight = torch.randn(1000, 1000, device="cuda") / 100

    def work() -> None:
        nonlocal count
        count += 1
        x.copy_((weight @ x).tanh_().add_(1))

    step = CapturedStep(CUDA)
    expected = torch.zeros(1000, dtype=torch.float64)
    for _ in range(12):
        step(work)
        expected = (weight.double().cpu() @ expected).tanh() + 1
    assert count == WARM_UP + 1
    assert float((x.double().cpu() - expected).abs().max()) < 1e-3
    x.zero_()  # what is written to the tensors between two replays is what the next one finds
    step(work)
    assert x.tolist() == [1.0] * 1000


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_a_step_that_waits_is_done_plainly():
    x = torch.zeros(8, device="cuda")

    def work() -> None:
        x.add_(1 if float(x.sum()) >= 0 else -1)

    step = CapturedStep(CUDA)
    for _ in range(WARM_UP):
        step(work)
    with pytest.warns(UserWarning, match="graph"):
        step(work)
    for _ in range(3):
        step(work)
    assert x.tolist() == [WARM_UP + 4.0] * 8
