"""Floating-point operations of one evaluation of the objective."""

from __future__ import annotations

from collections.abc import Sequence

from stylize.convention import CONTENT_LAYER, STYLE_LAYERS
from stylize.weights import CONVOLUTIONS

_POOLED_FIRST = ("conv2_1", "conv3_1", "conv4_1", "conv5_1")


def evaluation_flops(
    height: int, width: int, style_layers: Sequence[str] = STYLE_LAYERS, content_layer: str = CONTENT_LAYER
) -> int:
    """Count the multiplications and additions of one evaluation for one image, by the textbook's formulas.

    A convolution takes 2·9·C_in·C_out·H·W forwards and as many for the gradient with respect to its input; a Gram
    matrix 2·C²·H·W, and as many backwards. Elementwise operations are not counted. 58 GFLOP at 178×218.

    """
    wanted = {*style_layers, content_layer}
    total = 0
    for name, _, outputs, inputs in CONVOLUTIONS:
        if name in _POOLED_FIRST:
            height, width = height // 2, width // 2
        total += 2 * (2 * 9 * inputs * outputs * height * width)
        if name in style_layers:
            total += 2 * (2 * outputs * outputs * height * width)
        wanted.discard(name)
        if not wanted:
            break
    return total
