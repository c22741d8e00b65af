"""Visible CUDA devices, found without touching CUDA: a process that has initialised CUDA cannot hand devices out."""

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

_GPU_LINE = re.compile(r"^GPU \d+:.*\(UUID: (GPU-[0-9a-fA-F-]+)\)")
_MIG_LINE = re.compile(r"^\s+MIG .*\(UUID: (MIG-[^)]+)\)")


def visible_gpus(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return one ``CUDA_VISIBLE_DEVICES`` token per device that a worker may use; empty without a usable GPU.

    Inherited tokens (indices, GPU or MIG UUIDs) are handed on as they are, up to the first invalid one, as the CUDA
    driver reads them. Otherwise every device that ``nvidia-smi -L`` lists, by UUID because indices depend on
    ``CUDA_DEVICE_ORDER``; a GPU cut into MIG instances counts as its instances.
    """
    tokens = environ.get("CUDA_VISIBLE_DEVICES")
    if tokens is None:
        return parse_listing(_nvidia_smi_listing())
    usable: list[str] = []
    for token in (part.strip() for part in tokens.split(",")):
        if not re.fullmatch(r"\d+|GPU-\S+|MIG-\S+", token):
            break
        usable.append(token)
    # A token does not prove a device: job scripts set the variable on machines without a driver, too.
    return tuple(usable) if usable and _driver_present() else ()


def parse_listing(listing: str) -> tuple[str, ...]:
    """Return the UUIDs in the output of ``nvidia-smi -L``; MIG instances stand for the GPU they were cut from."""
    devices: list[list[str]] = []
    for line in listing.splitlines():
        if found := _GPU_LINE.match(line):
            devices.append([found[1]])
        elif devices and (found := _MIG_LINE.match(line)):
            devices[-1].append(found[1])
    return tuple(token for gpu, *instances in devices for token in (instances or [gpu]))


def _nvidia_smi_listing() -> str:
    try:
        return subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True, stdin=subprocess.DEVNULL
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _driver_present() -> bool:
    return Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists() or bool(_nvidia_smi_listing())
