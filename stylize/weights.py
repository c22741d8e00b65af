"""VGG-19 weights from torchvision, from a local file, or seeded random ones."""

from __future__ import annotations

import hashlib
import math
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from stylize.errors import WeightsError

# (layer, index of its convolution in torchvision's `vgg19().features`, output channels, input channels), up to the
# deepest layer that the paper taps (Sec. 5); in the naming of Simonyan & Zisserman, block_position.
CONVOLUTIONS: tuple[tuple[str, int, int, int], ...] = (
    ("conv1_1", 0, 64, 3),
    ("conv1_2", 2, 64, 64),
    ("conv2_1", 5, 128, 64),
    ("conv2_2", 7, 128, 128),
    ("conv3_1", 10, 256, 128),
    ("conv3_2", 12, 256, 256),
    ("conv3_3", 14, 256, 256),
    ("conv3_4", 16, 256, 256),
    ("conv4_1", 19, 512, 256),
    ("conv4_2", 21, 512, 512),
    ("conv4_3", 23, 512, 512),
    ("conv4_4", 25, 512, 512),
    ("conv5_1", 28, 512, 512),
)
MINIMUM_SIDE = 16  # pixels: four poolings come before conv5_1
LAYERS: tuple[str, ...] = tuple(layer for layer, *_ in CONVOLUTIONS)


@dataclass(frozen=True)
class VGGWeights:
    """The thirteen convolutions of VGG-19 up to conv5_1, as they come from their source.

    Attributes:
        tensors: float32, keyed by torchvision's names without the prefix ("0.weight" [64, 3, 3, 3], "0.bias" [64], …).
        digest: SHA-256 (hex) over the tensors; the same weights have the same digest in every file format.

    """

    tensors: Mapping[str, Tensor]
    digest: str


def load_weights(source: str, *, seed: int = 0) -> VGGWeights:
    """Load VGG-19's convolutions up to conv5_1.

    Args:
        source: "imagenet" (torchvision's IMAGENET1K_V1, from its cache or downloaded), "random" (He initialisation,
            for smoke runs: the pictures mean nothing), or a path to a torchvision checkpoint (`.pth`, `.pt`) or a
            `.safetensors` file, of the full network or of its features only.
        seed: Of the "random" weights; otherwise unused.

    Raises:
        WeightsError: The file is missing, unreadable, unsafe, or of another network, or the download failed.

    """
    state: Mapping[str, object]
    if source == "imagenet":
        state = _torchvision_state()
    elif source == "random":
        state = _random_state(seed)
    else:
        state = _read_checkpoint(source)
    tensors = _select_convolutions(state, source)
    return VGGWeights(tensors, _digest(tensors))


def _torchvision_state() -> Mapping[str, Tensor]:
    from torchvision.models import VGG19_Weights  # noqa: PLC0415  # slow to import, and needed for this source alone

    try:
        return dict(VGG19_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True))
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash is a RuntimeError
        cache = Path(torch.hub.get_dir(), "checkpoints")
        raise WeightsError(
            f"torchvision's ImageNet VGG-19 is not in {cache} and could not be downloaded ({error}); "
            "give the path of a local copy with --weights, or --weights random for a smoke run"
        ) from error


def _random_state(seed: int) -> Mapping[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for _, index, outputs, inputs in CONVOLUTIONS:
        deviation = math.sqrt(2.0 / (inputs * 9))  # He et al. 2015: keeps activations' scale through ReLU layers
        state[f"features.{index}.weight"] = torch.randn(outputs, inputs, 3, 3, generator=generator) * deviation
        state[f"features.{index}.bias"] = torch.zeros(outputs)
    return state


def _read_checkpoint(source: str) -> Mapping[str, object]:
    path = Path(os.path.expanduser(source))
    if not os.path.isfile(path):
        raise WeightsError(f'weights "{path}" do not exist; give imagenet, random, or the path of a VGG-19 checkpoint')
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f'weights "{path}" are not a plain state dict that can be read without running code; '
            "save model.state_dict() or convert the file to .safetensors"
        ) from error
    except Exception as error:  # PyTorch's reader raises IndexError, AttributeError, … on what is not a checkpoint
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f'weights "{path}" cannot be read ({reason}); is the file whole?') from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping):
        raise WeightsError(f'weights "{path}" hold a {type(state).__name__}, not a state dict of VGG-19')
    return state


def _select_convolutions(state: Mapping[str, object], source: str) -> dict[str, Tensor]:
    """Pick conv1_1 … conv5_1 out of a state dict, checking each shape (our own names: without "features.")."""
    tensors: dict[str, Tensor] = {}
    for layer, index, outputs, inputs in CONVOLUTIONS:
        for name, shape in ((f"{index}.weight", (outputs, inputs, 3, 3)), (f"{index}.bias", (outputs,))):
            tensor = state.get(f"features.{name}", state.get(name))
            if not isinstance(tensor, Tensor):
                keys = ", ".join(list(map(str, state))[:3])
                raise WeightsError(
                    f'weights "{os.fspath(source)}" are not VGG-19: features.{name} ({layer}) is missing, '
                    f"the file begins with {keys or 'nothing'}; give torchvision's vgg19 or its features"
                )
            if tuple(tensor.shape) != shape:
                raise WeightsError(
                    f'weights "{os.fspath(source)}" are not VGG-19: features.{name} ({layer}) is '
                    f"{list(tensor.shape)}, expected {list(shape)}"
                )
            value = tensor.detach().to(torch.float32).contiguous()
            if not bool(torch.isfinite(value).all()):
                raise WeightsError(f'weights "{os.fspath(source)}" hold a value in features.{name} that is not finite')
            tensors[name] = value
    return tensors


def _digest(tensors: Mapping[str, Tensor]) -> str:
    sha = hashlib.sha256()
    for name in sorted(tensors):
        sha.update(name.encode())
        sha.update(tensors[name].numpy().tobytes())
    return sha.hexdigest()
