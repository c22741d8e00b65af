"""S3FD's weights from a local file, in either of the two namings that are published."""

import os
from collections.abc import Mapping
from typing import Final, NamedTuple

import torch
from torch import Tensor

from manifests.errors import InputError
from pipeline.backbones.state_dict import read_state_dict, shown
from pipeline.faces.s3fd import HEADS, S3FD, Geometry


class Convention(NamedTuple):
    """A published training: how the layers are called, how the network is built and what it is shown.

    Attributes:
        title: for people.
        geometry: of the network.
        bgr: channels come in the order blue, green, red; else red, green, blue. The means are the same.
        names: layer of `S3FD` → its name in the file; None if they are the same.
    """

    title: str
    geometry: Geometry
    bgr: bool
    names: Mapping[str, str] | None


_VGG: Final = {
    f"conv{block}_{position}": f"vgg.{index}"
    for block, indices in enumerate(((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)), 1)
    for position, index in enumerate(indices, 1)
}

CAFFE: Final = Convention(
    "the authors' Caffe model with its own layer names (s3fd-619a316812.pth of face-alignment)",
    Geometry(fc6_padding=3, fc6_dilation=1, ceil_pool3=False),
    bgr=True,
    names=None,
)
SSD: Final = Convention(
    "S3FD.pytorch with the layer names of ssd.pytorch (sfd_face.pth)",
    Geometry(fc6_padding=6, fc6_dilation=6, ceil_pool3=True),
    bgr=False,
    names=_VGG
    | {"fc6": "vgg.31", "fc7": "vgg.33"}
    | {name: f"extras.{index}" for index, name in enumerate(("conv6_1", "conv6_2", "conv7_1", "conv7_2"))}
    | {f"conv{block}_3_norm": f"L2Norm{block}_3" for block in (3, 4, 5)}
    | {f"{name}_mbox_loc": f"loc.{index}" for index, name in enumerate(HEADS)}
    | {f"{name}_mbox_conf": f"conf.{index}" for index, name in enumerate(HEADS)},
)


def load_s3fd(path: str | os.PathLike[str]) -> tuple[S3FD, Convention]:
    """Load S3FD from a checkpoint; the naming of its layers tells which training it is of.

    Nothing in the file can run (see `read_state_dict`). Keys may have the prefix "module.". Neither published file was
    at hand: layer names, geometry and preprocessing are those of the programs that they are published with, and are
    tested with random weights only.

    Returns:
        The network in evaluation mode on the CPU, and the convention.

    Raises:
        InputError: the file is missing, damaged, unsafe, or not S3FD.
    """
    tensors = {key.removeprefix("module."): value for key, value in read_state_dict(path).items()}
    convention = SSD if any(key.startswith("vgg.") for key in tensors) else CAFFE
    network = S3FD(convention.geometry)
    state: dict[str, Tensor] = {}
    for key, wanted in network.state_dict().items():
        layer, _, kind = key.rpartition(".")
        name = f"{(convention.names or {}).get(layer, layer)}.{kind}"
        value = tensors.get(name)
        if value is None:
            first = ", ".join(shown(known) for known in list(tensors)[:3])
            raise InputError(
                f'weights "{os.fspath(path)}" are not S3FD: {name} is missing, the file begins with {first}; give '
                "s3fd-619a316812.pth of face-alignment, or sfd_face.pth of S3FD.pytorch"
            )
        if value.shape != wanted.shape:
            raise InputError(
                f'weights "{os.fspath(path)}" are not S3FD: {name} is {list(value.shape)}, expected '
                f"{list(wanted.shape)}; give a checkpoint of S3FD for two classes"
            )
        if not bool(torch.isfinite(value).all()):
            raise InputError(f'weights "{os.fspath(path)}" hold a value in {name} that is not finite; copy them again')
        state[key] = value.float()
    network.load_state_dict(state)
    return network.eval().requires_grad_(False), convention
