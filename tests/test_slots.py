"""Slots: memory that stays in place, rows that leave each other alone, and a step that never waits for the device."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import stylize.transfer
from stylize import captured_step
from stylize.lbfgs import Stop
from stylize.preconditioner import PRECONDITIONERS
from stylize.settings import TransferSettings
from stylize.slots import Slots
from stylize.transfer import StyleTransfer
from stylize.vgg import VGG19
from tests.tiny_transfer import picture, scales, transfer, weights

SIZE = (20, 24)
FACES = [picture(seed, *SIZE) for seed in range(4)]
PAINTINGS = [picture(100 + seed, *SIZE) for seed in range(4)]


def slots(count: int = 3, *, evaluations: int = 10, precision: str = "fp32", target: float | None = None) -> Slots:
    return Slots(transfer(evaluations=evaluations, precision=precision), count, SIZE, target)


def start(subject: Slots, rows: list[int], pairs: list[int] | None = None, **options: Any) -> list[Tensor]:
    """Start pairs of a face and a painting of the same number, by default those of the rows' numbers."""
    pairs = rows if pairs is None else pairs
    contents, budgets = options.get("contents", [None] * len(rows)), options.get("budgets", [None] * len(rows))
    return subject.start(rows, [FACES[n] for n in pairs], [PAINTINGS[n] for n in pairs], contents, budgets)


def state(subject: object, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor that an object of this package holds, however deep, by the way to it."""
    if isinstance(subject, Tensor):
        yield name, subject
    elif isinstance(subject, tuple | list):
        for number, item in enumerate(subject):
            yield from state(item, f"{name}[{number}]")
    elif type(subject).__module__.startswith("stylize.") and not isinstance(subject, StyleTransfer):
        for key, value in vars(subject).items():
            if key != "_captured":  # it holds the slots again
                yield from state(value, f"{name}.{key}")


def addresses(subject: Slots) -> dict[str, tuple[int, tuple[int, ...], tuple[int, ...]]]:
    return {name: (tensor.data_ptr(), tuple(tensor.shape), tensor.stride()) for name, tensor in state(subject)}


def snapshot(subject: Slots) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state(subject)}


def curve(subject: Slots, evaluations: int) -> tuple[Tensor, Tensor]:
    """Values [evaluations, B] and points [evaluations, B, 3, H, W] of so many further evaluations."""
    values, points = [], []
    for _ in range(evaluations):
        subject.advance()
        values.append(subject.optimiser.value.clone())
        points.append(subject.optimiser.x.clone())
    return torch.stack(values), torch.stack(points)


# Memory


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_tensor_of_the_state_moves_in_memory(precision):
    subject = slots(precision=precision, evaluations=40, target=1e-3)
    start(subject, [0, 1, 2])
    before = addresses(subject)
    assert any("history" in name for name in before)
    assert any("grams" in name for name in before)
    assert len(before) > 20
    for _ in range(15):  # more than the ring of pairs is long
        subject.advance()
        assert addresses(subject) == before
    start(subject, [1], [3])
    assert addresses(subject) == before
    subject.advance(3)
    start(subject, [0, 2], [1, 0])
    subject.advance(2)
    assert addresses(subject) == before


def test_after_keeping_some_rows_no_tensor_moves_either():
    subject = slots()
    start(subject, [0, 1, 2])
    subject.advance(2)
    subject.keep([0, 2])
    before = addresses(subject)
    subject.advance(12)
    start(subject, [1], [3])
    subject.advance()
    assert addresses(subject) == before


# Rows


def test_starting_a_row_leaves_every_bit_of_the_others():
    subject = slots()
    start(subject, [0, 1, 2])
    subject.advance(4)
    before = snapshot(subject)
    start(subject, [1], [3])
    changed = set()
    for name, tensor in state(subject):
        if tensor.dim() and len(tensor) == 3:
            for row in (0, 2):
                assert torch.equal(tensor[row], before[name][row]), name
            if not torch.equal(tensor[1], before[name][1]):
                changed.add(name)
        else:
            assert torch.equal(tensor, before[name]), name
    assert any("trial" in name for name in changed)
    assert any("content" in name for name in changed)


def test_rows_go_their_way_whatever_is_started_beside_them():
    alone, subject = slots(1), slots(3)
    start(alone, [0], [2])
    values, points = curve(alone, 9)
    start(subject, [0, 1, 2])
    subject_values, subject_points = [], []
    for number in range(9):
        if number in (3, 4, 7):
            start(subject, [0], [3])
        if number == 5:
            start(subject, [0, 1], [1, 0])
        value, point = curve(subject, 1)
        subject_values.append(value[0, 2])
        subject_points.append(point[0, 2])
    assert torch.equal(torch.stack(subject_values), values[:, 0])
    assert torch.equal(torch.stack(subject_points), points[:, 0])


def test_a_row_started_anew_is_as_if_it_were_the_first_time():
    fresh, used = slots(1), slots(1)
    start(fresh, [0], [1])
    start(used, [0], [3])
    used.advance(8)
    start(used, [0], [1])
    for a, b in zip(curve(fresh, 10), curve(used, 10), strict=True):
        assert torch.equal(a, b)
    assert fresh.stops() == used.stops() == [Stop.EVALUATIONS]


def test_free_rows_do_nothing():
    subject = slots()
    start(subject, [1])
    subject.advance(3)
    assert subject.stops() == [Stop.EVALUATIONS, Stop.RUNNING, Stop.EVALUATIONS]
    assert subject.optimiser.evaluations.tolist() == [0, 3, 0]
    assert torch.isfinite(subject.optimiser.x).all()


def test_a_fresh_row_starts_at_its_face_and_its_own_painting():
    subject = slots(2)
    start(subject, [1, 0], [2, 3])
    network = transfer()
    for row, pair in ((1, 2), (0, 3)):
        assert torch.equal(subject.optimiser.trial[row], network.to_device(FACES[pair]))
    subject.advance()
    for row, pair in ((1, 2), (0, 3)):
        wanted = network.losses(FACES[pair], FACES[pair], PAINTINGS[pair])
        assert float(subject.optimiser.value[row]) == pytest.approx(float(wanted.total), rel=1e-5)


def test_kept_rows_go_on_in_their_new_order_as_if_nothing_had_been_dropped():
    whole, part = slots(4), slots(4)
    for subject in (whole, part):
        start(subject, [0, 1, 2, 3])
        subject.advance(4)
    part.keep([2, 0])
    assert len(part.stops()) == 2
    values, points = curve(whole, 5)
    kept_values, kept_points = curve(part, 5)
    assert torch.equal(kept_values, values[:, [2, 0]])
    assert torch.equal(kept_points, points[:, [2, 0]])
    part.keep([1])
    start(part, [0], [3])
    again = slots(1)
    start(again, [0], [3])
    for a, b in zip(curve(part, 4), curve(again, 4), strict=True):
        assert torch.equal(a, b)


# Budgets


def test_each_row_has_its_own_budget_and_stays_where_it_ends():
    subject = slots(4, evaluations=6)
    start(subject, [0, 1, 2, 3], budgets=[3, None, 8, 1])
    seen = []
    for _ in range(10):
        subject.advance()
        seen.append((subject.optimiser.evaluations.tolist(), subject.optimiser.x.clone()))
    assert seen[-1][0] == [3, 6, 8, 1]
    assert subject.stops() == [Stop.EVALUATIONS] * 4
    for row, budget in enumerate((3, 6, 8, 1)):
        assert [evaluations[row] for evaluations, _ in seen] == [min(n, budget) for n in range(1, 11)]
        assert all(torch.equal(x[row], seen[budget - 1][1][row]) for _, x in seen[budget:])


def test_a_budget_is_of_one_start_only():
    subject = slots(1, evaluations=4)
    start(subject, [0], budgets=[2])
    subject.advance(6)
    assert subject.optimiser.evaluations.tolist() == [2]
    start(subject, [0])
    subject.advance(6)
    assert subject.optimiser.evaluations.tolist() == [4]


def test_what_a_row_does_before_its_budget_ends_does_not_depend_on_the_budget():
    short, long = slots(1), slots(1)
    start(short, [0], budgets=[4])
    start(long, [0], budgets=[9])
    for a, b in zip(curve(short, 4), curve(long, 4), strict=True):
        assert torch.equal(a, b)


# Content targets


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_content_targets_given_back_give_the_same_result(precision):
    first, second = slots(precision=precision), slots(precision=precision)
    contents = start(first, [0, 1, 2])
    assert all(content.shape == contents[0].shape and len(content) == 1 for content in contents)
    again = start(second, [0, 1, 2], contents=[contents[0], None, contents[2]])
    assert all(torch.equal(a, b) for a, b in zip(contents, again, strict=True))
    for a, b in zip(curve(first, 6), curve(second, 6), strict=True):
        assert torch.equal(a, b)


def test_content_targets_that_are_known_are_not_computed_again(monkeypatch):
    subject = slots()
    counted: list[int] = []
    network = transfer(evaluations=10, precision="fp32")
    plain = network.content_target

    def counting(faces: Tensor) -> Tensor:
        counted.append(len(faces))
        return plain(faces)

    monkeypatch.setattr(network, "content_target", counting)
    contents = start(subject, [0, 1, 2])
    start(subject, [0], contents=[contents[0]])
    start(subject, [0, 2, 1], [0, 3, 1], contents=[contents[0], None, contents[1]])
    assert sum(counted) == 4


def test_a_content_target_is_a_copy_that_shares_no_memory():
    subject = slots()
    contents = start(subject, [0, 1, 2])
    kept = [content.clone() for content in contents]
    assert len({content.untyped_storage().data_ptr() for content in contents}) == 3
    for content in contents:  # a view would keep the features of the whole batch
        assert content.untyped_storage().nbytes() == content.numel() * content.element_size()
    start(subject, [0, 1, 2], [3, 3, 3])
    assert all(torch.equal(a, b) for a, b in zip(contents, kept, strict=True))
    again = start(subject, [0], contents=[contents[0]])
    before = snapshot(subject)
    again[0].fill_(7.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state(subject))
    assert torch.equal(contents[0], kept[0])


# Never waiting for the device


class NoWait(TorchDispatchMode):
    """Fail at what makes the host wait for a CUDA device without asking for a value, which fakes let pass."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = str(func)
        if name.startswith(("aten.index.", "aten.index_put")):
            indices = [leaf for leaf in tree_leaves(args[1]) if isinstance(leaf, Tensor)]
            assert all(index.dtype not in (torch.bool, torch.uint8) for index in indices), f"{name} with a mask"
            assert all(index.is_cuda for index in indices), f"{name} with an index on the host"
        if name.startswith(("aten._to_copy", "aten.copy_", "aten.to.")):
            devices = {leaf.device.type for leaf in tree_leaves((args, result)) if isinstance(leaf, Tensor)}
            assert devices == {"cuda"}, f"{name} between {devices}"
        return result


class FakeVGG19(VGG19):
    """A network whose tensors, once it is moved, are fakes on a device that need not exist."""

    def __init__(self, *arguments: Any) -> None:
        with unset_fake_temporarily():
            super().__init__(*arguments)

    def to(self, *arguments: Any, **options: Any) -> Any:
        for module in self.modules():
            for tensors in (module._parameters, module._buffers):
                for name, tensor in tensors.items():
                    assert tensor is not None
                    fake: Any = torch.empty_like(tensor, device=arguments[0])
                    tensors[name] = torch.nn.Parameter(fake, False) if tensors is module._parameters else fake
        return self


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def to_device(self: StyleTransfer, image: np.ndarray) -> Tensor:  # its pinned memory does need a device
        return torch.empty(3, *image.shape[:2], device=self.device)

    monkeypatch.setattr(stylize.transfer, "VGG19", FakeVGG19)
    monkeypatch.setattr(StyleTransfer, "to_device", to_device)
    # Only inputs of the network's construction are no fakes.
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("preconditioner", PRECONDITIONERS)
def test_the_step_asks_the_device_for_no_value(precision, preconditioner):
    chosen = TransferSettings(precision=precision, preconditioner=preconditioner)
    network = StyleTransfer(weights(), scales(), chosen, "cuda")
    subject = Slots(network, 3, SIZE, chosen.threshold)
    assert start(subject, [0, 1, 2])[0].device.type == "cuda"
    with NoWait():
        subject.advance(captured_step.WARM_UP)
    assert {tensor.device.type for _, tensor in state(subject)} == {"cuda"}
    assert subject.optimiser.trial.shape == (3, 3, *SIZE)
    assert start(subject, [1])[0].device.type == "cuda"  # nor does a start


def waits(make: Callable[[], object]) -> bool:
    try:
        with NoWait():
            make()
    except (AssertionError, DataDependentOutputException, DynamicOutputShapeException):
        return True
    return False


@pytest.mark.usefixtures("fakes")
def test_the_test_would_notice_a_step_that_waits():
    on_device = torch.zeros(3, 2, device="cuda")
    mask = on_device[:, 0] > 0
    assert waits(lambda: on_device.sum().item())
    assert waits(lambda: bool(mask.any()))
    assert waits(lambda: on_device.masked_fill_(mask[:, None], 1.0).tolist())
    assert waits(lambda: on_device.__setitem__(mask, on_device[0]))
    assert waits(lambda: on_device[mask])
    assert waits(on_device.cpu)
    assert waits(lambda: on_device[torch.tensor([0, 1])])
    assert waits(lambda: torch.zeros(3).to("cuda"))
    assert not waits(lambda: torch.where(mask[:, None], 0.0, on_device).add_(1))
