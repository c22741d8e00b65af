"""What the names of number formats mean, and that asking for one leaves PyTorch as it was."""

import pytest
import torch

from stylize.precision import PRECISIONS, convolution_precision, native_precisions, precisions_to_try

CPU = torch.device("cpu")


def flags() -> tuple[object, ...]:
    cudnn = torch.backends.cudnn
    return (
        cudnn.enabled,
        cudnn.benchmark,
        cudnn.deterministic,
        cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_tf32,
    )


def test_tf32_needs_cuda():
    with pytest.raises(ValueError, match="tf32"):
        precisions_to_try("tf32", CPU)
    assert precisions_to_try("tf32", torch.device("cuda")) == ("tf32",)


def test_names_other_than_auto_mean_themselves():
    assert precisions_to_try("fp32", CPU) == ("fp32",)
    assert precisions_to_try("bf16", CPU) == ("bf16",)


def test_auto_is_the_same_every_time_and_ends_with_fp32():
    chosen = {precisions_to_try("auto", CPU) for _ in range(5)}
    assert len(chosen) == 1
    assert chosen.pop()[-1] == "fp32"


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((7, 5), ("fp32",)), ((8, 0), ("bf16", "tf32", "fp32")), ((9, 0), ("bf16", "tf32", "fp32"))],
)
def test_what_is_native_on_cuda_goes_by_the_generation(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert native_precisions(torch.device("cuda")) == expected


@pytest.mark.parametrize(
    ("capabilities", "first"),
    [({}, "fp32"), ({"avx512_bf16": False}, "fp32"), ({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16")],
)
def test_what_is_native_on_the_cpu_goes_by_its_instructions(monkeypatch, capabilities, first):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert native_precisions(CPU)[0] == first


@pytest.mark.parametrize("name", [name for name in PRECISIONS if name != "auto"])
def test_tf32_is_allowed_for_tf32_alone_and_all_is_put_back(name):
    before = flags()
    with convolution_precision(name):
        assert torch.backends.cudnn.allow_tf32 == (name == "tf32")
        assert torch.backends.cuda.matmul.allow_tf32 == (name == "tf32")
    assert flags() == before
    with pytest.raises(RuntimeError, match="inside"), convolution_precision(name):
        raise RuntimeError("inside")
    assert flags() == before


@pytest.mark.parametrize("name", ["fp32", "tf32", "bf16"])
def test_cudnn_and_its_other_switches_are_left_as_they_are(monkeypatch, name):
    """`torch.backends.cudnn.flags` switches cuDNN off unless it is told otherwise."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    before = flags()
    with convolution_precision(name):
        cudnn = torch.backends.cudnn
        assert cudnn.enabled
        assert (cudnn.enabled, cudnn.benchmark, cudnn.deterministic) == before[:3]
