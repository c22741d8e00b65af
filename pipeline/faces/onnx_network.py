"""A convolutional network out of an ONNX file, run by PyTorch.

PyTorch is there anyway and runs from several threads and on GPUs; an ONNX runtime would be a second one beside it, and
with a stored input size, such as CenterFace's 32x32, it needs the file rewritten first. Layers know no input size here.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manifests.errors import InputError

_DEFAULT_EPSILON: Final = 1e-5
_SQUARE: Final[Mapping[str, Any]] = {"group": 1, "dilations": [1, 1], "strides": [1, 1], "pads": [0, 0, 0, 0]}


class _Node:
    """One operation: which values it takes, which it makes, and how."""

    def __init__(self, operator: str, inputs: Sequence[str], output: str, attributes: Mapping[str, Any]) -> None:
        self.operator = operator
        self.inputs = tuple(inputs)
        self.output = output
        self.attributes = dict(attributes)


class OnnxNetwork(nn.Module):
    """The graph of an ONNX file of the operators in `OPERATORS`; its weights are buffers.

    Attributes:
        outputs: names of what it returns, in order.
    """

    def __init__(
        self, nodes: Sequence[_Node], weights: Mapping[str, Tensor], given: str, outputs: Sequence[str]
    ) -> None:
        super().__init__()
        self._nodes = tuple(nodes)
        self._given = given
        self.outputs = tuple(outputs)
        self._buffer_of = {name: f"weight_{number}" for number, name in enumerate(weights)}
        for name, value in weights.items():
            self.register_buffer(self._buffer_of[name], value)
        last = {name: number for number, node in enumerate(nodes) for name in node.inputs}
        kept = {*weights, *outputs, given}
        self._done = [
            [name for name in set(node.inputs) if last[name] == number and name not in kept]
            for number, node in enumerate(nodes)
        ]

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        """Run the graph on float [B, C, H, W]; returns `outputs`."""
        buffers = dict(self.named_buffers(recurse=False))
        values = {name: buffers[buffer] for name, buffer in self._buffer_of.items()}
        # With channels last PyTorch's CPU kernels for 1x1 and depthwise convolutions are about twice as fast.
        values[self._given] = pictures.contiguous(memory_format=torch.channels_last)
        for node, done in zip(self._nodes, self._done, strict=True):
            given = [values[name] for name in node.inputs]
            if node.operator == "Relu" and done:
                values[node.output] = given[0].relu_()
            else:
                values[node.output] = OPERATORS[node.operator](*given, **node.attributes)
            for name in done:
                del values[name]
        return tuple(values[name] for name in self.outputs)


def read_onnx(path: str | os.PathLike[str]) -> OnnxNetwork:
    """Read a network from an ONNX file; the `onnx` package must be installed.

    Returns:
        In evaluation mode, on the CPU, in float32.

    Raises:
        InputError: the file is missing, damaged, no ONNX, or has an operator or an attribute that is not known here.
    """
    import onnx  # noqa: PLC0415  # of an optional extra
    from onnx import numpy_helper  # noqa: PLC0415

    file = Path(os.path.expanduser(path))
    try:
        graph = onnx.load_model_from_string(file.read_bytes()).graph
        weights = {value.name: np.array(numpy_helper.to_array(value)) for value in graph.initializer}
        nodes = [
            _Node(
                node.op_type,
                list(node.input),
                node.output[0],
                {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute},
            )
            for node in graph.node
        ]
        given = [value.name for value in graph.input if value.name not in weights]
        outputs = [value.name for value in graph.output]
    except OSError as error:
        raise InputError(f'weights "{file}" cannot be read: {error.strerror or error}') from error
    except Exception as error:  # protobuf and onnx raise a dozen types for a damaged file
        raise InputError(f'weights "{file}" are no ONNX network that can be read; copy the file again') from error
    if len(given) != 1 or not nodes:
        raise InputError(f'weights "{file}" are an ONNX network of {len(given)} inputs, expected one picture')
    for node in nodes:
        _check(node, file)
    floats = {name: torch.from_numpy(value).float() for name, value in weights.items() if value.dtype.kind == "f"}
    known = {*floats, *given}
    for node in nodes:
        if missing := [name for name in node.inputs if name not in known]:
            raise InputError(f'weights "{file}" lack {missing[0]}, which {node.operator} takes; copy the file again')
        known.add(node.output)
    if lost := [name for name in outputs if name not in known]:
        raise InputError(f'weights "{file}" never make their output {lost[0]}; copy the file again')
    used = {name for node in nodes for name in node.inputs}
    network = OnnxNetwork(nodes, {name: value for name, value in floats.items() if name in used}, given[0], outputs)
    return network.eval().requires_grad_(False)


def _check(node: _Node, file: Path) -> None:
    if node.operator not in OPERATORS:
        raise InputError(
            f'weights "{file}" have an operator {node.operator}, which is not run here; those known are '
            f"{', '.join(OPERATORS)}"
        )
    node.attributes = {name: value for name, value in node.attributes.items() if name not in {"kernel_shape"}}
    taken = {
        "Conv": set(_SQUARE),
        "ConvTranspose": set(_SQUARE),
        "BatchNormalization": {"epsilon", "momentum"},
    }.get(node.operator, set())
    pads = node.attributes.get("pads", _SQUARE["pads"])
    if set(node.attributes) - taken or len(pads) != 4 or list(pads[:2]) != list(pads[2:]):
        raise InputError(f'weights "{file}" have a {node.operator} with settings that are not run here')


def _convolution(values: Tensor, weight: Tensor, bias: Tensor | None = None, **settings: Any) -> Tensor:
    pads, strides, dilations, group = _spatial(settings)
    return F.conv2d(values, weight, bias, strides, pads, dilations, group)


def _transposed(values: Tensor, weight: Tensor, bias: Tensor | None = None, **settings: Any) -> Tensor:
    pads, strides, dilations, group = _spatial(settings)
    return F.conv_transpose2d(values, weight, bias, strides, pads, 0, group, dilations)


def _spatial(settings: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int]:
    whole = dict(_SQUARE) | dict(settings)
    return tuple(whole["pads"][:2]), tuple(whole["strides"]), tuple(whole["dilations"]), int(whole["group"])


def _batch_normalisation(
    values: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    epsilon: float = _DEFAULT_EPSILON,
    momentum: float = 0.0,  # of training; here the means stay
) -> Tensor:
    return F.batch_norm(values, mean, variance, weight, bias, False, momentum, epsilon)


OPERATORS: Final[Mapping[str, Callable[..., Tensor]]] = {
    "Add": torch.add,
    "BatchNormalization": _batch_normalisation,
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
}
"""What is run: the operators of MobileNet-like detectors after export."""
