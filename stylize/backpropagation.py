"""The gradient of VGG-19's features with respect to the image, written out: autograd would store and move more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from stylize.vgg import VGG19

# (name of a layer, gradient at its output, to be changed in place) → None
AddGradient = Callable[[str, Tensor], None]


@dataclass
class _Stage:
    """What the backward pass of one layer needs.

    Attributes:
        name: Of the layer.
        input: Of its convolution.
        weight: Of its convolution.
        output: After ReLU; for a layer that is pooled before ReLU, the pooled output.
        argmax: Positions of the maxima that the *next* layer's pooling took out of this layer; None without one.
        unpooled: Shape of this layer's output before that pooling.

    """

    name: str
    input: Tensor
    weight: Tensor
    output: Tensor
    argmax: Tensor | None = None
    unpooled: torch.Size | None = None


class ForwardPass:
    """One evaluation of the network that can be differentiated once.

    Max pooling and ReLU commute, so a layer that nobody taps is pooled first: a quarter of the values is left for ReLU,
    forwards and backwards, and the unpooled output need not be kept.

    Args:
        network: Frozen VGG-19.
        images: float32 [B, 3, H, W], in [0, 1].
        layers: Names of the layers to tap.

    Attributes:
        features: For each tapped layer [B, C, h, w], after ReLU, channels last.

    """

    def __init__(self, network: VGG19, images: Tensor, layers: Sequence[str]) -> None:
        self.features: dict[str, Tensor] = {}
        self._network = network
        self._stages: list[_Stage] = []
        wanted = set(layers)
        stages = list(network.stages())
        last = max(index for index, (name, _, _) in enumerate(stages) if name in wanted)
        x = network.normalise(images)
        for index, (name, convolution, _) in enumerate(stages[: last + 1]):
            stage = _Stage(name, x, convolution.weight, F.conv2d(x, convolution.weight, convolution.bias, padding=1))
            x = stage.output
            pooled_next = index < last and stages[index + 1][2]
            if name in wanted:
                self.features[name] = F.relu_(x)
            if pooled_next:
                stage.unpooled = x.shape
                x, stage.argmax = F.max_pool2d(x, 2, return_indices=True)
            if name not in wanted:
                stage.output = F.relu_(x)
            self._stages.append(stage)

    def backward(self, add_gradient: AddGradient) -> Tensor:
        """Compute the gradient of a loss of the features with respect to the images; to be called once.

        Args:
            add_gradient: Called for each tapped layer, last layer first, with the gradient that has reached its output;
                adds to it, in place, the loss's own gradient there.

        Returns:
            float32 (float64 for a float64 network) [B, 3, H, W].

        """
        top = self._stages[-1].output
        gradient = torch.zeros_like(top)
        while self._stages:
            stage = self._stages.pop()  # its activations are free from here on
            tapped = stage.name in self.features
            if not tapped:
                gradient = _through_relu(gradient, stage.output)
            if stage.argmax is not None:
                gradient = _through_pooling(gradient, stage)
            if tapped:
                add_gradient(stage.name, gradient)
                gradient = _through_relu(gradient, stage.output)
            gradient = _through_convolution(gradient, stage)
        exact = torch.promote_types(gradient.dtype, torch.float32)
        return (gradient.to(exact) / self._network.std).contiguous()


def _through_relu(gradient: Tensor, output: Tensor) -> Tensor:
    result: Tensor = torch.ops.aten.threshold_backward.grad_input(gradient, output, 0, grad_input=gradient)
    return result


def _through_pooling(gradient: Tensor, stage: _Stage) -> Tensor:
    assert stage.unpooled is not None
    # Only shape and layout of the pooling's input matter; its values are never read.
    like = torch.empty(stage.unpooled, dtype=gradient.dtype, device=gradient.device, memory_format=torch.channels_last)
    result: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(
        gradient, like, [2, 2], [2, 2], [0, 0], [1, 1], False, stage.argmax
    )
    return result


def _through_convolution(gradient: Tensor, stage: _Stage) -> Tensor:
    result: Tensor = torch.ops.aten.convolution_backward(
        gradient, stage.input, stage.weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, False, False]
    )[0]
    return result
