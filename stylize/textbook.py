"""The textbook loop: what a competent user writes without this package; the yardstick of every speed claim."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stylize.vgg import IMAGENET_MEAN, IMAGENET_STD, VGG19
from stylize.weights import LAYERS


@dataclass(frozen=True)
class TextbookResult:
    """One finished pair.

    Attributes:
        image: float32 [3, H, W] in [0, 1].
        curve: The loss at each evaluation, in loss units.

    """

    image: Tensor
    curve: tuple[float, ...]


class TextbookLoop:
    """One pair at a time by `torch.optim.LBFGS`, in fp32 under PyTorch's default flags, after PyTorch's own tutorial.

    The objective is the package's (PersonArt Sec. 3.1 and 5), written the plain way: Gram matrices by `F @ F.T`,
    autograd, PyTorch's default memory layout, the image clamped at the start of each closure and once at the end. Like
    the tutorial's, the loss carries a factor (there 10⁶, here the loss unit): `torch.optim.LBFGS` stops on absolute
    changes of 10⁻⁹.

    Args:
        network: Frozen VGG-19 in float32, scales folded in; its layers are copied.
        alpha: Weight of the content loss.
        style_layers: Names of the layers of E_s.
        content_layer: Name of the layer of E_c.
        loss_unit: Factor on the loss.

    """

    def __init__(
        self, network: VGG19, alpha: float, style_layers: Sequence[str], content_layer: str, loss_unit: float
    ) -> None:
        self._features = nn.Sequential(
            *(nn.ReLU() if isinstance(module, nn.ReLU) else copy.deepcopy(module) for module in network.features)
        ).to(memory_format=torch.contiguous_format)
        self._alpha = alpha
        self._style_layers = tuple(style_layers)
        self._content_layer = content_layer
        self._loss_unit = loss_unit
        device = network.mean.device
        self._mean = torch.tensor(IMAGENET_MEAN, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(IMAGENET_STD, device=device).view(1, 3, 1, 1)

    def run(self, face: Tensor, painting: Tensor, evaluations: int) -> TextbookResult:
        """Repaint one face, float32 [3, H, W] in [0, 1] on the network's device, by so many evaluations."""
        with torch.no_grad():
            painted = self._taps(painting[None])
            style_targets = [self._gram(painted[layer]) for layer in self._style_layers]
            content_target = self._taps(face[None])[self._content_layer]
        image = face[None].clone(memory_format=torch.contiguous_format).requires_grad_(True)
        optimiser = torch.optim.LBFGS([image])
        curve: list[float] = []

        def closure() -> float:
            with torch.no_grad():
                image.clamp_(0, 1)
            optimiser.zero_grad()
            features = self._taps(image)
            loss = self._alpha * 0.5 * (features[self._content_layer] - content_target).square().mean()
            for layer, target in zip(self._style_layers, style_targets, strict=True):
                loss = loss + 0.25 * (self._gram(features[layer]) - target).square().sum()
            loss = loss * self._loss_unit
            loss.backward()  # type: ignore[no-untyped-call]
            curve.append(loss.item())
            return curve[-1]

        while len(curve) < evaluations:
            before = len(curve)
            # A step is 20 iterations of one evaluation each; the last one must not overshoot.
            optimiser.param_groups[0]["max_iter"] = min(20, evaluations - before)
            optimiser.step(closure)  # type: ignore[no-untyped-call]
            if len(curve) - before <= 1 and len(curve) < evaluations:  # it does not move any more
                break
        with torch.no_grad():
            image.clamp_(0, 1)
        return TextbookResult(image.detach()[0], tuple(curve))

    def _taps(self, x: Tensor) -> dict[str, Tensor]:
        wanted = {*self._style_layers, self._content_layer}
        x = (x - self._mean) / self._std
        found: dict[str, Tensor] = {}
        names = iter(LAYERS)
        for module in self._features:
            x = module(x)
            if isinstance(module, nn.ReLU):
                name = next(names)
                if name in wanted:
                    found[name] = x
                    if len(found) == len(wanted):
                        break
        return found

    @staticmethod
    def _gram(features: Tensor) -> Tensor:
        _, channels, height, width = features.shape
        flat = features.view(channels, height * width)
        return flat @ flat.t() / (channels * height * width)
