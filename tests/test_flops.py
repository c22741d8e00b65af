"""The count of operations against PyTorch's own counter and against the published network."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from stylize.convention import CONTENT_LAYER, STYLE_LAYERS
from stylize.flops import evaluation_flops
from stylize.objective import Objective, Targets
from stylize.weights import LAYERS
from tests.tiny_transfer import transfer


def counted(subject: Objective, images: torch.Tensor) -> tuple[int, int]:
    """Operations of convolutions, and of matrix products, in an evaluation of one image, by autograd."""
    targets = Targets(subject.style_targets(images), subject.content_target(images))
    leaf = images.clone().requires_grad_(True)
    with FlopCounterMode(display=False) as counter:
        subject.losses(leaf, targets).total.sum().backward()
    counts = {str(operation): count for operation, count in counter.get_flop_counts()["Global"].items()}
    return (
        sum(count for name, count in counts.items() if "convolution" in name),
        sum(count for name, count in counts.items() if "mm" in name),
    )


def written_out(subject: Objective, images: torch.Tensor) -> tuple[int, int]:
    """The same of the evaluation as it is done; in-place products are not seen by the counter."""
    targets = Targets(subject.style_targets(images), subject.content_target(images))
    with FlopCounterMode(display=False) as counter:
        subject.value_and_gradient(images, targets)
    counts = {str(operation): count for operation, count in counter.get_flop_counts()["Global"].items()}
    return (
        sum(count for name, count in counts.items() if "convolution" in name),
        sum(count for name, count in counts.items() if "mm" in name),
    )


CHOICES = [
    (STYLE_LAYERS, CONTENT_LAYER),
    (("conv1_1",), "conv1_1"),
    (("conv2_2", "conv1_2"), "conv3_4"),
    (("conv5_1",), "conv1_1"),
    (("conv4_2",), "conv4_2"),
    (LAYERS, "conv3_3"),
]


@pytest.mark.parametrize(("style", "content"), CHOICES)
@pytest.mark.parametrize("size", [(16, 16), (37, 41), (32, 50)])
def test_the_count_is_that_of_pytorchs_counter(style, content, size):
    subject = Objective(transfer().exact_network, 0.02, style, content, 1.0)
    images = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
    convolutions, forward_grams = written_out(subject, images)
    height, width = size
    total = evaluation_flops(height, width, style, content)
    assert total == convolutions + 2 * forward_grams
    # Autograd convolves as much, and takes a third product for each Gram matrix.
    assert counted(subject, images) == (convolutions, 3 * forward_grams)


def test_an_evaluation_at_celebas_size_is_58_gflop():
    assert evaluation_flops(218, 178) / 1e9 == pytest.approx(58, abs=0.5)
    assert evaluation_flops(218, 178) == pytest.approx(evaluation_flops(178, 218), rel=0.01)


def test_one_layer_by_hand():
    # 2 · 9 · 3 · 64 · 20 · 24 forwards and backwards, 2 · 64² · 20 · 24 for the Gram matrix and for its gradient
    assert evaluation_flops(20, 24, ("conv1_1",), "conv1_1") == 2 * (2 * 9 * 3 * 64 * 480) + 2 * (2 * 64 * 64 * 480)


def test_deeper_layers_and_larger_images_cost_more():
    by_depth = [evaluation_flops(64, 64, ("conv1_1",), layer) for layer in LAYERS]
    assert by_depth == sorted(set(by_depth))
    by_size = [evaluation_flops(side, 64) for side in range(16, 257, 16)]
    assert by_size == sorted(set(by_size))
