"""Everything loaded that style transfer needs on one device: the objective to optimise and the one to judge by."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from stylize.convention import CONVENTIONS
from stylize.drift import is_faithful
from stylize.objective import Losses, Objective, Targets
from stylize.precision import DTYPES, convolution_precision, precisions_to_try
from stylize.settings import TransferSettings
from stylize.vgg import VGG19
from stylize.weights import VGGWeights

_JUDGED_AT_ONCE = 16  # on CUDA


class StyleTransfer:
    """VGG-19 and the objective on one device, in the precision to optimise in and in fp32 to judge by.

    Args:
        weights: VGG-19's, from `stylize.weights.load_weights`.
        scales: Unit-RMS scales from `stylize.unit_rms.feature_scales`; None for conventions without them.
        settings: What to do.
        device: By default the current CUDA device, else the CPU.

    Raises:
        ValueError: Scales are missing where the convention needs them, or the precision is not to be had here.

    """

    def __init__(
        self,
        weights: VGGWeights,
        scales: Sequence[float] | None,
        settings: TransferSettings,
        device: torch.device | str | None = None,
    ) -> None:
        convention = CONVENTIONS[settings.convention]
        if convention.unit_rms != (scales is not None):
            raise ValueError(f"convention {convention.name} takes {'thirteen' if convention.unit_rms else 'no'} scales")
        self.settings = settings
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.exact_network = VGG19(weights, scales).to(self.device)

        def objective(network: VGG19) -> Objective:
            return Objective(
                network, settings.alpha, settings.style_layers, settings.content_layer, convention.loss_unit
            )

        self._judge = objective(self.exact_network)
        *checked, last = precisions_to_try(settings.precision, self.device)

        def working(precision: str) -> Objective:
            dtype = DTYPES[precision]
            exact = dtype == torch.float32
            return objective(self.exact_network if exact else VGG19(weights, scales, dtype).to(self.device))

        for self.precision in checked:
            self.objective = working(self.precision)
            if is_faithful(self.objective, self._judge, self.precision, self.device):
                break
        else:
            self.precision, self.objective = last, working(last)
        # On the CPU in fp32 the network sees one image at a time: it is as fast, and an image's bits then cannot depend
        # on its batchmates.
        self._at_once = 1 if self.device.type == "cpu" and self.precision == "fp32" else 1024

    def to_device(self, image: np.ndarray) -> Tensor:
        """Move an image, uint8 [H, W, 3], to the device as float32 [3, H, W] in [0, 1]; does not wait for CUDA."""
        pixels = torch.tensor(image)
        if self.device.type == "cuda":
            pixels = pixels.pin_memory().to(self.device, non_blocking=True)
        return pixels.permute(2, 0, 1).float().div(255).contiguous()

    def fetch_pixels(self, image: Tensor) -> Callable[[], np.ndarray]:
        """Start moving an image on the device, [3, H, W] in [0, 1], to uint8 [H, W, 3] as it will be stored.

        Returns:
            What waits for the pixels and returns them, in any thread; `image` may change meanwhile.

        """
        pixels = image.mul(255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
        if self.device.type != "cuda":
            return pixels.numpy
        landed = torch.empty(pixels.shape, dtype=torch.uint8, pin_memory=True).copy_(pixels, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))

        def wait() -> np.ndarray:
            event.synchronize()
            return landed.numpy()

        return wait

    def style_targets(self, paintings: Tensor) -> tuple[Tensor, ...]:
        """Gram matrices of paintings [B, 3, H, W] in the working precision."""
        with convolution_precision(self.precision):
            parts = [self.objective.style_targets(part) for part in torch.split(paintings, self._at_once)]
        return tuple(torch.cat(layer) for layer in zip(*parts, strict=True))

    def content_target(self, faces: Tensor) -> Tensor:
        """Content features of faces [B, 3, H, W] in the working precision."""
        with convolution_precision(self.precision):
            return torch.cat([self.objective.content_target(part) for part in torch.split(faces, self._at_once)])

    def value_and_gradient(self, images: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """Total losses [B] and gradients [B, 3, H, W] of images in the working precision."""
        rows = len(images)
        parts = []
        # Shapes here are always the same, so it pays that cuDNN tries its algorithms.
        with convolution_precision(self.precision, autotune=True):
            if rows <= self._at_once:
                return self.objective.value_and_gradient(images, targets)
            for first in range(0, rows, self._at_once):
                part = slice(first, first + self._at_once)
                chosen = Targets(tuple(gram[part] for gram in targets.grams), targets.content[part])
                parts.append(self.objective.value_and_gradient(images[part], chosen))
        return torch.cat([value for value, _ in parts]), torch.cat([gradient for _, gradient in parts])

    def losses(self, image: np.ndarray, face: np.ndarray, painting: np.ndarray) -> Losses:
        """Losses in fp32 of one stored image against its face and painting, each uint8 [H, W, 3], on the CPU.

        This is the recorded loss: anybody can recompute it from the stored pixels, whatever the image was made with.
        """
        return self.losses_of_all([image], [face], [painting])

    def losses_of_all(
        self, images: Sequence[np.ndarray], faces: Sequence[np.ndarray], paintings: Sequence[np.ndarray]
    ) -> Losses:
        """`losses` of several images of one size, one row each; on the CPU, the very same as one by one."""
        at_once = 1 if self.device.type == "cpu" else _JUDGED_AT_ONCE
        parts = []
        with torch.inference_mode(), convolution_precision("fp32"):
            for first in range(0, len(images), at_once):
                image, face, painting = (
                    torch.stack([self.to_device(picture) for picture in pictures[first : first + at_once]])
                    for pictures in (images, faces, paintings)
                )
                targets = Targets(self._judge.style_targets(painting), self._judge.content_target(face))
                losses = self._judge.losses(image, targets)
                parts.append(torch.cat((losses.total[:, None], losses.content[:, None], losses.style), dim=1))
        judged = torch.cat(parts).cpu()  # waits for the device once
        return Losses(judged[:, 0], judged[:, 2:], judged[:, 1])
