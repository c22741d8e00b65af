"""How many slots are chosen: monotone, at least one, within the memory that is free."""

import builtins
import io
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stylize import batch_size
from stylize.batch_size import choose_batch_size, slot_bytes
from stylize.settings import TransferSettings
from tests.tiny_transfer import transfer

PRECISIONS = ("fp32", "tf32", "bf16")
GIB = 1 << 30


def asking(device: str, precision: str = "bf16", history: int = 10) -> Any:
    """As much of a transfer as the choice depends on."""
    settings = replace(TransferSettings(), history=history)
    return SimpleNamespace(device=torch.device(device), precision=precision, settings=settings)


def chosen(device: str, free: int, height: int, width: int, *, precision: str = "bf16", history: int = 10) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "mem_get_info", lambda device=None: (free, 1 << 60))
        patch.setattr(torch.cuda, "memory_reserved", lambda device=None: 0)
        patch.setattr(torch.cuda, "memory_allocated", lambda device=None: 0)
        patch.setattr(batch_size, "free_memory", lambda: free)
        patch.setattr(torch, "get_num_threads", os.cpu_count)
        return choose_batch_size(asking(device, precision, history), height, width)


@given(
    device=st.sampled_from(["cpu", "cuda"]),
    precision=st.sampled_from(PRECISIONS),
    history=st.integers(1, 50),
    free=st.integers(0, 1 << 42),
    height=st.integers(16, 1024),
    width=st.integers(16, 1024),
)
def test_at_least_one_slot_and_never_more_than_sixty_percent_of_the_free_memory(
    *, device, precision, history, free, height, width
):
    count = chosen(device, free, height, width, precision=precision, history=history)
    assert count >= 1
    assert count == 1 or count * slot_bytes(precision, history, height, width) <= 0.6 * free


@given(
    device=st.sampled_from(["cpu", "cuda"]),
    free=st.integers(0, 1 << 40),
    height=st.integers(16, 1024),
    width=st.integers(16, 1024),
    more=st.integers(0, 500),
)
def test_larger_images_never_get_more_slots_and_more_memory_never_fewer(device, free, height, width, more):
    count = chosen(device, free, height, width)
    assert chosen(device, free, height + more, width) <= count
    assert chosen(device, free, height, width + more) <= count
    assert chosen(device, free + more * GIB // 10, height, width) >= count
    assert chosen(device, free, width, height) == count


@given(
    precision=st.sampled_from(PRECISIONS),
    history=st.integers(1, 50),
    height=st.integers(16, 1000),
    width=st.integers(16, 1000),
)
def test_a_slot_takes_more_for_more_pixels_pairs_and_digits(precision, history, height, width):
    one = slot_bytes(precision, history, height, width)
    assert 0 < one < slot_bytes(precision, history + 1, height, width)
    assert one < slot_bytes(precision, history, height + 1, width)
    assert slot_bytes("bf16", history, height, width) < slot_bytes("fp32", history, height, width)


def test_a_slot_is_no_less_than_what_surely_is_in_memory():
    """The pairs of the optimiser, and every activation that the backward pass needs."""
    pixels = 218 * 178
    pairs = 2 * 10 * 3 * 4 * pixels
    activations = (2 * 64 + 2 * 128 // 4 + 4 * 256 // 16 + 4 * 512 // 64 + 512 // 256) * pixels
    assert slot_bytes("bf16", 10, 218, 178) >= pairs + 2 * activations
    assert slot_bytes("fp32", 10, 218, 178) >= pairs + 4 * activations


def test_the_published_size_fills_a_gpu_and_a_cpu_keeps_a_few():
    assert chosen("cuda", 80 * GIB, 218, 178) == 64
    assert chosen("cpu", 80 * GIB, 218, 178) == 4
    assert chosen("cuda", 80 * GIB, 109, 89) > 64  # small images do not fill the chip by so few
    assert chosen("cuda", 80 * GIB, 1024, 1024) < 64


def without_meminfo(monkeypatch: pytest.MonkeyPatch, answer: object, limit: str = "max\n") -> None:
    real = builtins.open

    def opened(path: Any, *arguments: Any, **options: Any) -> Any:
        if str(path) == "/sys/fs/cgroup/memory.max":
            return io.StringIO(limit)
        if str(path) != "/proc/meminfo":
            return real(path, *arguments, **options)
        if isinstance(answer, Exception):
            raise answer
        return io.StringIO(str(answer))

    monkeypatch.setattr(builtins, "open", opened)
    monkeypatch.setattr(torch, "get_num_threads", os.cpu_count)


def test_meminfo_is_believed(monkeypatch):
    one = slot_bytes("fp32", 10, 218, 178)
    without_meminfo(monkeypatch, f"MemTotal: 99999999 kB\nMemAvailable:   {3 * one // 1024} kB\nHugePages_Total: 0\n")
    assert choose_batch_size(asking("cpu", "fp32"), 218, 178) == 1
    without_meminfo(monkeypatch, f"MemAvailable:   {4 * one // 1024} kB\n")
    assert choose_batch_size(asking("cpu", "fp32"), 218, 178) == 2


def test_a_containers_limit_and_the_workers_beside_this_one_count(monkeypatch):
    one = slot_bytes("fp32", 10, 218, 178)
    without_meminfo(monkeypatch, f"MemAvailable:   {99 * one // 1024} kB\n", limit=f"{4 * one}\n")
    assert choose_batch_size(asking("cpu", "fp32"), 218, 178) == 2
    without_meminfo(monkeypatch, f"MemAvailable:   {21 * one // 1024} kB\n")
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    for threads, slots in ((16, 4), (4, 3), (1, 1)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert choose_batch_size(asking("cpu", "fp32"), 218, 178) == slots


@pytest.mark.parametrize(
    "answer",
    [FileNotFoundError("no /proc"), PermissionError("no"), "", "MemTotal: 3 kB\n", "MemAvailable: much\n", "torn"],
)
def test_without_a_usable_meminfo_half_of_the_physical_memory_counts(monkeypatch, answer):
    without_meminfo(monkeypatch, answer)
    one = slot_bytes("fp32", 10, 218, 178)
    answers = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2 * 4 * one // 4096}
    monkeypatch.setattr(os, "sysconf", lambda name: answers[name])
    assert choose_batch_size(asking("cpu", "fp32"), 218, 178) == 2


@pytest.mark.parametrize("error", [ValueError("unknown name"), OSError("no"), AttributeError("sysconf")])
def test_a_machine_that_says_nothing_of_its_memory_gets_slots_all_the_same(monkeypatch, error):
    def unknown(name: str) -> int:
        raise error

    without_meminfo(monkeypatch, FileNotFoundError("no /proc"))
    monkeypatch.setattr(os, "sysconf", unknown)
    assert choose_batch_size(asking("cpu", "fp32"), 218, 178) >= 1
    assert choose_batch_size(asking("cpu", "fp32"), 1024, 1024) == 1


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="not Linux")
def test_on_this_machine_a_tiny_picture_gets_the_most():
    assert choose_batch_size(transfer(), 16, 16) == 4
