"""The objective of style transfer: style and content losses of a batch, and its gradient with respect to the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stylize.backpropagation import ForwardPass
from stylize.gram import add_style_gradient_, gram_matrix, style_loss
from stylize.vgg import VGG19


@dataclass(frozen=True)
class Targets:
    """What the generated images are compared with, one row per image.

    Attributes:
        grams: For each style layer the paintings' Gram matrices, float32 [B, C, C].
        content: The faces' features at the content layer, [B, C, h, w] in the network's type.

    """

    grams: tuple[Tensor, ...]
    content: Tensor


@dataclass(frozen=True)
class Losses:
    """Losses per image in loss units: `total` = Σ `style` + α `content`.

    Attributes:
        total: [B].
        style: [B, number of style layers], E_s of each layer.
        content: [B], E_c without its weight α.

    """

    total: Tensor
    style: Tensor
    content: Tensor


class Objective:
    """L = Σ_l E_s^l + α E_c (PersonArt Sec. 3.1 and 5), per image of a batch.

    E_s^l = ¼ ‖G^l(painting) − G^l(x)‖²_F (Eq. 2) and E_c = ½ mean((F(face) − F(x))²) (Eq. 3 with its sum read as a
    mean, so that α does not depend on the image size).

    Args:
        network: Frozen VGG-19, scales folded in.
        alpha: Weight of the content loss.
        style_layers: Names of the layers of E_s.
        content_layer: Name of the layer of E_c.
        loss_unit: Factor on every loss.

    """

    def __init__(
        self, network: VGG19, alpha: float, style_layers: Sequence[str], content_layer: str, loss_unit: float
    ) -> None:
        self.network = network
        self.alpha = alpha
        self.style_layers = tuple(style_layers)
        self.content_layer = content_layer
        self.loss_unit = loss_unit
        self._layers = (*self.style_layers, content_layer)

    def style_targets(self, paintings: Tensor) -> tuple[Tensor, ...]:
        """Gram matrices of paintings, float32 [B, 3, H, W] in [0, 1], at every style layer."""
        with torch.no_grad():
            features = self.network(paintings, self.style_layers)
            return tuple(gram_matrix(features[layer]) for layer in self.style_layers)

    def content_target(self, faces: Tensor) -> Tensor:
        """Features of faces, float32 [B, 3, H, W] in [0, 1], at the content layer."""
        with torch.no_grad():
            features: Tensor = self.network(faces, (self.content_layer,))[self.content_layer]
            return features

    def losses(self, images: Tensor, targets: Targets) -> Losses:
        """Evaluate the losses of images, float32 [B, 3, H, W] in [0, 1]; differentiable with respect to them."""
        features = self.network(images, self._layers)
        grams = [gram_matrix(features[layer]) for layer in self.style_layers]
        return self._losses(grams, features[self.content_layer], targets)

    def value_and_gradient(self, images: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """Evaluate the total losses [B] and their gradients with respect to the images [B, 3, H, W], both detached."""
        with torch.no_grad():
            passed = ForwardPass(self.network, images, self._layers)
            grams = {layer: gram_matrix(passed.features[layer]) for layer in self.style_layers}
            content = passed.features[self.content_layer]
            total = self._losses(list(grams.values()), content, targets).total

            def add_gradient(layer: str, gradient: Tensor) -> None:
                features = passed.features[layer]
                if layer in grams:
                    target = targets.grams[self.style_layers.index(layer)]
                    add_style_gradient_(gradient, features, grams[layer], target, self.loss_unit)
                if layer == self.content_layer:
                    factor = self.loss_unit * self.alpha / features[0].numel()
                    gradient.add_(_difference(features, targets.content), alpha=factor)

            return total, passed.backward(add_gradient)

    def _losses(self, grams: Sequence[Tensor], content: Tensor, targets: Targets) -> Losses:
        style = torch.stack(
            [style_loss(gram, target) for gram, target in zip(grams, targets.grams, strict=True)], dim=1
        )
        distance = 0.5 * _difference(content, targets.content).square().mean((1, 2, 3))
        style, distance = style * self.loss_unit, distance * self.loss_unit
        return Losses(style.sum(1) + self.alpha * distance, style, distance)


def _difference(features: Tensor, target: Tensor) -> Tensor:
    """Difference of nearly equal activations, in fp32 or better: half precision would lose it."""
    exact = torch.promote_types(features.dtype, torch.float32)
    return features.to(exact) - target.to(exact)
