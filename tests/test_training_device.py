"""The device of a training: names that are taken, and refusals in place of PyTorch's own errors."""

import pytest
import torch

from manifests.errors import InputError
from pipeline.training import ranks
from pipeline.training.device import check_device, training_device


@pytest.fixture
def gpus(monkeypatch):
    """Let there be so many GPUs."""

    def use(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)

    return use


@pytest.fixture
def processes(monkeypatch):
    def use(count, local):
        monkeypatch.setattr(ranks, "world_size", lambda: count)
        monkeypatch.setattr(ranks, "local_rank", lambda: local)

    return use


@pytest.mark.parametrize(
    "name",
    ["mps", "xpu", "meta", "hpu", "vulkan", "gpu", "", "CUDA", "cpu:0", "cuda:", "cuda:-1", "cuda:01", "cuda: 1"],
)
def test_other_names_are_refused(name, gpus):
    gpus(8)
    for check in (check_device, training_device):
        with pytest.raises(InputError, match=f'device "{name}" is none that training runs on; give cpu or cuda'):
            check(name)


def test_names_that_are_taken_need_no_gpu_to_be_checked(gpus):
    gpus(0)
    for name in (None, "cpu", "cuda", "cuda:0", "cuda:17"):
        check_device(name)


def test_without_a_gpu(gpus):
    gpus(0)
    assert training_device(None) == training_device("cpu") == torch.device("cpu")
    for name in ("cuda", "cuda:1"):
        with pytest.raises(InputError, match=f'device "{name}" is asked for and PyTorch finds no GPU; give cpu'):
            training_device(name)


def test_with_gpus(gpus):
    gpus(2)
    assert training_device("cpu") == torch.device("cpu")
    assert training_device(None) == training_device("cuda") == training_device("cuda:0") == torch.device("cuda", 0)
    assert training_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(InputError, match='device "cuda:7" is asked for'):
        training_device("cuda:7")


def test_under_torchrun(gpus, processes):
    gpus(4)
    processes(8, 3)
    assert training_device(None) == training_device("cuda") == torch.device("cuda", 3)
    assert training_device("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match='device "cuda:3" is one for all 8 processes of torchrun; give cuda'):
        training_device("cuda:3")
    processes(8, 4)
    with pytest.raises(InputError, match="PyTorch counts 4 GPU"):
        training_device("cuda")
    processes(1, 0)
    assert training_device("cuda:3") == torch.device("cuda", 3)
