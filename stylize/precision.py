"""Number formats of the convolutions: what each name means on a device, and which ones "auto" tries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

PRECISIONS = ("auto", "fp32", "tf32", "bf16")
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}


def native_precisions(device: torch.device) -> tuple[str, ...]:
    """Name the formats that this device multiplies natively, fastest first; fp32 is the last.

    bf16 counts where the hardware has it (CUDA of compute capability 8 on; CPUs with AVX-512 BF16 or AMX), TF32 on the
    same GPUs. This asks for capabilities and times nothing, so it is the same in every run on a machine; `stylize
    bench` times them all.
    """
    if device.type == "cuda":
        return ("bf16", "tf32", "fp32") if torch.cuda.get_device_capability(device)[0] >= 8 else ("fp32",)
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return ("bf16", "fp32") if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else ("fp32",)


def precisions_to_try(name: str, device: torch.device) -> tuple[str, ...]:
    """Turn a setting into formats in the order of preference; all but the last have to pass a check of their accuracy.

    Raises:
        ValueError: "tf32" without a CUDA device.

    """
    if name == "tf32" and device.type != "cuda":
        raise ValueError("precision tf32 needs a CUDA device; use fp32, bf16 or auto on the CPU")
    return native_precisions(device) if name == "auto" else (name,)


@contextmanager
def convolution_precision(name: str, *, autotune: bool = False) -> Iterator[None]:
    """Let CUDA's fp32 arithmetic use TF32 for "tf32" and for nothing else; PyTorch's default lets convolutions.

    `autotune` lets cuDNN time its algorithms at the first call with each shape.
    """
    allow = name == "tf32"
    # Not by `cudnn.flags`: what it is not told it sets to defaults of its own, cuDNN itself to off.
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    benchmark = torch.backends.cudnn.benchmark
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allow
    torch.backends.cudnn.benchmark = autotune or benchmark
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = convolutions, products
        torch.backends.cudnn.benchmark = benchmark
