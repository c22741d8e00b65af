"""Every setting of style transfer that decides what a proxy looks like and whether it is kept."""

from __future__ import annotations

import math
from dataclasses import dataclass

from stylize.convention import CONTENT_LAYER, CONVENTIONS, STYLE_LAYERS
from stylize.encode import IMAGE_FORMATS
from stylize.precision import PRECISIONS
from stylize.preconditioner import PRECONDITIONERS
from stylize.weights import LAYERS, MINIMUM_SIDE

# Faces are repainted at their own size unless one is given; beyond this one of them takes gigabytes.
MAX_WORKING_PIXELS = 1024 * 1024


@dataclass(frozen=True)
class TransferSettings:
    """Settings of style transfer; the defaults are the paper's (PersonArt Sec. 5) where it gives one.

    Attributes:
        evaluations: Of the objective, per attempt, at most. Default chosen from docs/objective.md.
        alpha: α, weight of the content loss.
        threshold: An attempt whose final loss is this or more is thrown away and another painting drawn.
        max_attempts: Attempts per face, unreadable paintings not counted; then the face is rejected.
        convention: Name of a reading of the loss, see `stylize.convention`.
        precision: Of the convolutions while optimising: "fp32", "tf32", "bf16", or "auto", see `stylize.precision`.
            The recorded loss is always computed in fp32.
        size: Working size (width, height) in pixels; None leaves every face at its own size.
        image_format: In which proxies are stored: "png" or "webp" (both lossless), or "jpeg" (quality 95).
        style_layers, content_layer: Layers of VGG-19, after ReLU.
        give_up: Stop an attempt early when it will clearly not get under the threshold, see docs/optimiser.md.
        tolerance: Stop when the loss fell by less than this, relatively, over ten evaluations.
        history: Pairs that L-BFGS keeps.
        preconditioner: Of L-BFGS, see `stylize.preconditioner`: "adaptive", "colour", "low-pass" or "none".

    Raises:
        ValueError: A value is out of range; the message names it.

    """

    evaluations: int = 100
    alpha: float = 0.02
    threshold: float = 40.0
    max_attempts: int = 10
    convention: str = "personart"
    precision: str = "auto"
    size: tuple[int, int] | None = None
    image_format: str = "png"
    style_layers: tuple[str, ...] = STYLE_LAYERS
    content_layer: str = CONTENT_LAYER
    give_up: bool = True
    tolerance: float = 5e-3
    history: int = 30
    preconditioner: str = "adaptive"

    def __post_init__(self) -> None:
        _require(self.evaluations >= 1, f"evaluations must be at least 1, got {self.evaluations}")
        _require(0 <= self.alpha < math.inf, f"alpha must be a number of at least 0, got {self.alpha}")
        _require(self.threshold > 0, f"the threshold must be above 0, got {self.threshold}")
        _require(self.max_attempts >= 1, f"max-attempts must be at least 1, got {self.max_attempts}")
        _require_one_of("convention", self.convention, CONVENTIONS)
        _require_one_of("precision", self.precision, PRECISIONS)
        _require_one_of("image format", self.image_format, IMAGE_FORMATS)
        if self.size is not None:
            _require(
                len(self.size) == 2 and min(self.size) >= MINIMUM_SIDE,
                f"size must be WIDTHxHEIGHT with sides of at least {MINIMUM_SIDE}, got {'x'.join(map(str, self.size))}",
            )
            _require(
                self.size[0] * self.size[1] <= MAX_WORKING_PIXELS,
                f"size {self.size[0]}x{self.size[1]} is more than {MAX_WORKING_PIXELS:,} pixels, too large to repaint",
            )
        _require(bool(self.style_layers), "at least one style layer is needed")
        _require(
            len(set(self.style_layers)) == len(self.style_layers),
            f"style layers are named once each, got {','.join(self.style_layers)}",
        )
        for layer in (*self.style_layers, self.content_layer):
            _require_one_of("layer", layer, LAYERS)
        _require(0 <= self.tolerance < 1, f"the tolerance must be in [0, 1), got {self.tolerance}")
        _require(self.history >= 1, f"the history must be at least 1, got {self.history}")
        _require_one_of("preconditioner", self.preconditioner, PRECONDITIONERS)


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise ValueError(sentence)


def _require_one_of(what: str, value: str, allowed: object) -> None:
    names = list(allowed)  # type: ignore[call-overload]
    _require(value in names, f'{what} "{value}" is unknown; choose from {", ".join(names)}')
