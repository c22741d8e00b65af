"""SphereFace, LightCNN, VGG-Face and MobileFaceNet against plain float64 computations on their ports' own key names.

Key names and shapes are written down here once more, from the ports; nothing is derived from the modules under test.
"""

import functools
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.backbones import lightcnn, mobilefacenet, sphereface, vggface
from pipeline.backbones.registry import Backbone
from pipeline.backbones.renaming import rename_modules

BACKBONES = {
    backbone.card.name: backbone
    for backbone in (
        sphereface.SPHEREFACE20,
        lightcnn.LIGHTCNN9,
        lightcnn.LIGHTCNN29,
        vggface.VGGFACE,
        mobilefacenet.MOBILEFACENET,
    )
}
PUBLISHED = {  # parameters without classifier, embedding
    "sphereface20": (22_670_656, 512),
    "lightcnn9": (5_480_864, 256),
    "lightcnn29": (12_573_280, 256),
    "vggface": (134_260_544, 4096),
    "mobilefacenet": (999_552, 128),
}
Shapes = dict[str, tuple[int, ...]]
State = dict[str, Tensor]

# --- the ports --------------------------------------------------------------------------------------


def layer(name: str, after: int, before: int, *kernel: int) -> Shapes:
    return {f"{name}.weight": (after, before, *kernel), f"{name}.bias": (after,)}


def norm(name: str, channels: int) -> Shapes:
    vectors: Shapes = {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
    return vectors | {f"{name}.num_batches_tracked": ()}


# sphereface_pytorch: how many convolutions a stage has
SPHERE_STAGES = {1: (64, 3), 2: (128, 5), 3: (256, 9), 4: (512, 3)}


def sphereface_shapes() -> Shapes:
    shapes = layer("fc5", 512, 512 * 7 * 6) | {"fc6.weight": (512, 10574)}
    before = 3
    for stage, (channels, count) in SPHERE_STAGES.items():
        for number in range(1, count + 1):
            shapes |= layer(f"conv{stage}_{number}", channels, before, 3, 3)
            shapes |= {f"relu{stage}_{number}.weight": (channels,)}
            before = channels
    return shapes


def sphereface_reference(state: State, x: Tensor) -> Tensor:
    def step(x: Tensor, number: str, stride: int) -> Tensor:
        weight, bias, slope = (
            state[key].double() for key in (f"conv{number}.weight", f"conv{number}.bias", f"relu{number}.weight")
        )
        y = F.conv2d(x, weight, bias, stride, 1)
        return torch.where(y > 0, y, y * slope.view(1, -1, 1, 1))

    x = step(x, "1_1", 2)
    x = x + step(step(x, "1_2", 1), "1_3", 1)
    x = step(x, "2_1", 2)
    x = x + step(step(x, "2_2", 1), "2_3", 1)
    x = x + step(step(x, "2_4", 1), "2_5", 1)
    x = step(x, "3_1", 2)
    for first in (2, 4, 6, 8):
        x = x + step(step(x, f"3_{first}", 1), f"3_{first + 1}", 1)
    x = step(x, "4_1", 2)
    x = x + step(step(x, "4_2", 1), "4_3", 1)
    return x.flatten(1) @ state["fc5.weight"].double().T + state["fc5.bias"].double()


def mfm_shapes(name: str, after: int, before: int, kernel: int) -> Shapes:
    return layer(f"{name}.filter", 2 * after, before, kernel, kernel)


def group_shapes(name: str, after: int, before: int) -> Shapes:
    return mfm_shapes(f"{name}.conv_a", before, before, 1) | mfm_shapes(f"{name}.conv", after, before, 3)


def lightcnn9_shapes() -> Shapes:
    shapes = mfm_shapes("features.0", 48, 1, 5)
    for index, before, after in ((2, 48, 96), (4, 96, 192), (6, 192, 128), (7, 128, 128)):
        shapes |= group_shapes(f"features.{index}", after, before)
    return shapes | layer("fc1.filter", 512, 128 * 8 * 8) | layer("fc2", 79077, 256)


def lightcnn29_shapes() -> Shapes:
    shapes = mfm_shapes("conv1", 48, 1, 5)
    for stage, before, after in ((1, 48, 96), (2, 96, 192), (3, 192, 128), (4, 128, 128)):
        shapes |= group_shapes(f"group{stage}", after, before)
        for block in range(stage):
            for half in ("conv1", "conv2"):
                shapes |= mfm_shapes(f"block{stage}.{block}.{half}", before, before, 3)
    return shapes | layer("fc.filter", 512, 128 * 8 * 8) | layer("fc2", 79077, 256)


def lightcnn29v2_shapes() -> Shapes:
    shapes = {key: shape for key, shape in lightcnn29_shapes().items() if not key.startswith("fc")}
    return shapes | layer("fc", 256, 128 * 8 * 8) | {"fc2.weight": (80013, 256)}


def mfm(state: State, name: str, x: Tensor) -> Tensor:
    weight, bias = state[f"{name}.filter.weight"].double(), state[f"{name}.filter.bias"].double()
    y = F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2) if weight.ndim == 4 else x @ weight.T + bias
    half = y.shape[1] // 2
    return torch.where(y[:, :half] > y[:, half:], y[:, :half], y[:, half:])


def group(state: State, name: str, x: Tensor) -> Tensor:
    return mfm(state, f"{name}.conv", mfm(state, f"{name}.conv_a", x))


def ceil_pool(x: Tensor) -> Tensor:
    """2×2 maxima; a lone last row or column makes windows of its own."""
    x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2), value=-math.inf)
    return torch.stack([x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]).amax(0)


def lightcnn9_reference(state: State, x: Tensor) -> Tensor:
    x = ceil_pool(mfm(state, "features.0", x))
    x = ceil_pool(group(state, "features.2", x))
    x = ceil_pool(group(state, "features.4", x))
    x = ceil_pool(group(state, "features.7", group(state, "features.6", x)))
    return mfm(state, "fc1", x.flatten(1))


def lightcnn29_reference(state: State, x: Tensor) -> Tensor:
    def blocks(stage: int, x: Tensor) -> Tensor:
        for block in range(stage):
            name = f"block{stage}.{block}"
            x = mfm(state, f"{name}.conv2", mfm(state, f"{name}.conv1", x)) + x
        return x

    x = ceil_pool(mfm(state, "conv1", x))
    x = ceil_pool(group(state, "group1", blocks(1, x)))
    x = ceil_pool(group(state, "group2", blocks(2, x)))
    x = group(state, "group3", blocks(3, x))
    x = ceil_pool(group(state, "group4", blocks(4, x)))
    return mfm(state, "fc", x.flatten(1))


VGG_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


def vgg_shapes(convolution: str) -> Shapes:
    shapes = layer("fc6", 4096, 512 * 7 * 7) | layer("fc7", 4096, 4096) | layer("fc8", 2622, 4096)
    before = 3
    for block, (channels, count) in enumerate(VGG_BLOCKS, start=1):
        for number in range(1, count + 1):
            shapes |= layer(convolution.format(block, number), channels, before, 3, 3)
            before = channels
    return shapes


def vgg_reference(state: State, x: Tensor) -> Tensor:
    for block, (_, count) in enumerate(VGG_BLOCKS, start=1):
        for number in range(1, count + 1):
            name = f"conv{block}_{number}"
            x = F.conv2d(x, state[f"{name}.weight"].double(), state[f"{name}.bias"].double(), padding=1).clamp_min(0)
        x = torch.stack([x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]).amax(0)
    x = x.flatten(1)
    for name in ("fc6", "fc7"):
        x = (x @ state[f"{name}.weight"].double().T + state[f"{name}.bias"].double()).clamp_min(0)
    return x


# channels before, inside and after, stride: DESIGN's (t, c, n, s), written out
MOBILE_BLOCKS = (
    (64, 128, 64, 2),
    *[(64, 128, 64, 1)] * 4,
    (64, 256, 128, 2),
    *[(128, 256, 128, 1)] * 6,
    (128, 512, 128, 2),
    *[(128, 256, 128, 1)] * 2,
)


def mobilefacenet_shapes() -> Shapes:
    shapes: Shapes = {}
    for name, shape, linear in (
        ("conv1", (64, 3, 3, 3), False),
        ("dw_conv1", (64, 1, 3, 3), False),
        ("conv2", (512, 128, 1, 1), False),
        ("linear7", (512, 1, 7, 6), True),
        ("linear1", (128, 512, 1, 1), True),
    ):
        shapes |= {f"{name}.conv.weight": shape} | norm(f"{name}.bn", shape[0])
        shapes |= {} if linear else {f"{name}.prelu.weight": (shape[0],)}
    for number, (before, inside, after, _) in enumerate(MOBILE_BLOCKS):
        name = f"blocks.{number}.conv"
        shapes |= {f"{name}.0.weight": (inside, before, 1, 1), f"{name}.2.weight": (inside,)}
        shapes |= {f"{name}.3.weight": (inside, 1, 3, 3), f"{name}.5.weight": (inside,)}
        shapes |= {f"{name}.6.weight": (after, inside, 1, 1)}
        shapes |= norm(f"{name}.1", inside) | norm(f"{name}.4", inside) | norm(f"{name}.7", after)
    return shapes


def mobilefacenet_reference(state: State, x: Tensor) -> Tensor:
    def step(x: Tensor, conv: str, bn: str, prelu: str | None, *, stride: int = 1, padding: int = 0) -> Tensor:
        kernel = state[f"{conv}.weight"].double()
        x = F.conv2d(x, kernel, None, stride, padding, groups=x.shape[1] // kernel.shape[1])
        weight, bias, mean, var = (
            state[f"{bn}.{part}"].double().view(1, -1, 1, 1)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        x = (x - mean) / (var + 1e-5).sqrt() * weight + bias
        return x if prelu is None else torch.where(x > 0, x, x * state[f"{prelu}.weight"].double().view(1, -1, 1, 1))

    def named(x: Tensor, name: str, stride: int = 1, padding: int = 0, linear: bool = False) -> Tensor:
        return step(
            x, f"{name}.conv", f"{name}.bn", None if linear else f"{name}.prelu", stride=stride, padding=padding
        )

    x = named(named(x, "conv1", 2, 1), "dw_conv1", 1, 1)
    for number, (before, _, after, stride) in enumerate(MOBILE_BLOCKS):
        name = f"blocks.{number}.conv"
        y = step(x, f"{name}.0", f"{name}.1", f"{name}.2")
        y = step(y, f"{name}.3", f"{name}.4", f"{name}.5", stride=stride, padding=1)
        y = step(y, f"{name}.6", f"{name}.7", None)
        x = x + y if (before, stride) == (after, 1) else y
    return named(named(named(x, "conv2"), "linear7", linear=True), "linear1", linear=True).flatten(1)


@dataclass(frozen=True)
class Port:
    """A checkpoint format in circulation.

    Attributes:
        shapes: of all of its keys, classifier included.
        reference: embeddings, float64, from its state dict and normalised images.
        sides: height and width of the images to compare on.
        dtype: float32 where float64 would take minutes.
    """

    shapes: Callable[[], Shapes]
    reference: Callable[[State, Tensor], Tensor]
    sides: tuple[int, int]
    dtype: torch.dtype = torch.float64


PORTS = {
    "sphereface20": Port(sphereface_shapes, sphereface_reference, (112, 96)),
    "lightcnn9": Port(lightcnn9_shapes, lightcnn9_reference, (128, 128)),
    "lightcnn29": Port(lightcnn29_shapes, lightcnn29_reference, (128, 128)),
    "vggface": Port(lambda: vgg_shapes("conv{}_{}"), vgg_reference, (224, 224), torch.float32),
    "mobilefacenet": Port(mobilefacenet_shapes, mobilefacenet_reference, (112, 96)),
}
CLASSES = (10574, 79077, 80013, 2622)
names = pytest.mark.parametrize("name", PORTS)


def random_state(shapes: Shapes, dtype: torch.dtype, seed: int = 0) -> State:
    """Weights that keep activations near 1, so that no layer vanishes behind another; no classifier, which is large."""
    generator = torch.Generator().manual_seed(seed)
    state: State = {}
    for key, shape in shapes.items():
        if any(side in CLASSES for side in shape):
            state[key] = torch.zeros(1, dtype=dtype).expand(shape)
        elif not shape:
            state[key] = torch.tensor(7)
        elif len(shape) > 1:
            state[key] = torch.randn(shape, generator=generator, dtype=dtype) * (2 / math.prod(shape[1:])) ** 0.5
        else:
            low = 0.1 if key.endswith(("weight", "running_var")) else -0.2
            state[key] = torch.rand(shape, generator=generator, dtype=dtype) * 0.5 + low
    return state


@functools.cache
def foreign(name: str) -> State:
    return random_state(PORTS[name].shapes(), PORTS[name].dtype)


def skeleton(backbone: Backbone) -> nn.Module:
    with torch.device("meta"):
        return backbone.build().eval()


def readings(backbone: Backbone, state: State) -> Iterator[State]:
    yield state
    yield from (renamed for rename in backbone.renamings if (renamed := rename(state)) is not None)


def fits(backbone: Backbone, state: State) -> bool:
    """Whether some reading of a state dict has exactly the network's keys and shapes."""
    wanted = {key: tensor.shape for key, tensor in skeleton(backbone).state_dict().items()}
    return any({key: tensor.shape for key, tensor in each.items()} == wanted for each in readings(backbone, state))


@functools.cache
def network(name: str) -> nn.Module:
    """Filled from the port's state dict by strict keys."""
    module = skeleton(BACKBONES[name])
    *_, renamed = readings(BACKBONES[name], foreign(name))
    module.load_state_dict(renamed, strict=True, assign=True)
    return module


def images(name: str, height: int, width: int, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(height)
    channels = len(BACKBONES[name].card.mean)
    return torch.randn((batch, channels, height, width), generator=generator, dtype=torch.float64)


# --- architecture -----------------------------------------------------------------------------------


@names
def test_parameter_count_and_card(name):
    backbone, (parameters, embedding) = BACKBONES[name], PUBLISHED[name]
    card = backbone.card
    assert sum(parameter.numel() for parameter in skeleton(backbone).parameters()) == card.parameters == parameters
    assert card.embedding == embedding
    assert len(card.mean) == len(card.std) == (1 if card.channels == "grey" else 3)
    assert min(card.std) > 0
    assert card.source
    assert card.licence


@names
def test_forward_and_backward_of_fresh_weights(name):
    card = BACKBONES[name].card
    module = BACKBONES[name].build().eval()
    batch = 1 if name == "vggface" else 2
    faces = images(name, card.height, card.width, batch).float().requires_grad_()
    embeddings = module(faces)
    assert embeddings.shape == (batch, card.embedding)
    assert embeddings.dtype == torch.float32
    assert float(embeddings.detach().std()) > 0
    embeddings.square().sum().backward()
    for tensor in (faces, *module.parameters()):
        assert tensor.grad is not None
        assert bool(torch.isfinite(tensor.grad).all())
        assert float(tensor.grad.abs().max()) > 0


@names
def test_a_ports_weights_give_what_its_own_computation_gives(name):
    """Strides, paddings, pooling, activations, residual sums, order of flattening, and every key's place."""
    port = PORTS[name]
    faces = images(name, *port.sides)
    with torch.inference_mode():
        expected = port.reference(foreign(name), faces)
        embeddings = network(name)(faces.to(port.dtype))
    assert embeddings.shape == expected.shape
    tolerance = 1e-10 if port.dtype == torch.float64 else 1e-5
    assert float((embeddings - expected).norm() / expected.norm()) < tolerance


@pytest.mark.parametrize("name", [name for name in PORTS if name != "vggface"])  # which takes long
def test_each_image_is_embedded_alone(name):
    faces = images(name, *PORTS[name].sides, batch=2)
    with torch.inference_mode():
        together = network(name)(faces)
        assert torch.allclose(together[1:], network(name)(faces[1:]), rtol=1e-9)
    assert float((together[0] - together[1]).norm() / together.norm()) > 0.01


@pytest.mark.parametrize(
    ("name", "reference"), [("lightcnn9", lightcnn9_reference), ("lightcnn29", lightcnn29_reference)]
)
def test_lightcnn_pools_with_caffes_rounding(name, reference):
    faces = images(name, 113, 127)  # 57 × 64, 29 × 32, 15 × 16, 8 × 8
    with torch.inference_mode():
        assert torch.allclose(network(name)(faces), reference(foreign(name), faces), rtol=1e-9)


def test_sphereface_and_mobilefacenet_embeddings_are_raw_and_vggfaces_are_rectified():
    with torch.inference_mode():
        for name in ("sphereface20", "mobilefacenet"):
            assert float(network(name)(images(name, *PORTS[name].sides)).min()) < 0
        embedding = network("vggface")(images("vggface", 224, 224).float())
    assert float(embedding.min()) == 0
    assert 0.2 < float((embedding > 0).float().mean()) < 0.8


# --- key formats ------------------------------------------------------------------------------------


@names
def test_every_tensor_of_a_port_lands_and_only_the_classifier_goes(name):
    *_, renamed = readings(BACKBONES[name], foreign(name))
    landed = {id(tensor) for tensor in renamed.values()}
    assert len(landed) == len(renamed)
    assert renamed.keys() == skeleton(BACKBONES[name]).state_dict().keys()
    left = {key for key, tensor in foreign(name).items() if id(tensor) not in landed}
    assert (
        left
        == {
            "sphereface20": {"fc6.weight"},
            "lightcnn9": {"fc2.weight", "fc2.bias"},
            "lightcnn29": {"fc2.weight", "fc2.bias"},
            "vggface": {"fc8.weight", "fc8.bias"},
            "mobilefacenet": set(),
        }[name]
    )


@names
@pytest.mark.parametrize("other", PORTS)
def test_a_port_fits_its_own_network_alone(name, other):
    state = {key: torch.empty(shape, device="meta") for key, shape in PORTS[other].shapes().items()}
    assert fits(BACKBONES[name], state) == (name == other)


@names
def test_a_missing_key_is_not_made_up(name):
    state = dict(foreign(name))
    del state[next(iter(state))]
    assert not fits(BACKBONES[name], state)


def test_lightcnn29v2_does_not_fit_and_its_own_key_is_the_one_left_over():
    state = {key: torch.empty(shape, device="meta") for key, shape in lightcnn29v2_shapes().items()}
    assert not fits(lightcnn.LIGHTCNN29, state)
    *_, renamed = readings(lightcnn.LIGHTCNN29, state)
    wanted = skeleton(lightcnn.LIGHTCNN29).state_dict()
    assert renamed.keys() - wanted.keys() == {"fc.weight", "fc.bias"}
    assert wanted.keys() - renamed.keys() == {"fc.filter.weight", "fc.filter.bias"}


def test_vgg16_of_imagenet_is_not_taken_for_vggface():
    torchvision = pytest.importorskip("torchvision")
    with torch.device("meta"):
        state = torchvision.models.vgg16(weights=None).state_dict()
    assert not fits(vggface.VGGFACE, state)


def test_the_port_of_the_torch7_vggface_is_turned_from_bgr_to_rgb():
    state = {key: torch.empty(shape, device="meta") for key, shape in vgg_shapes("conv_{}_{}").items()}
    assert fits(vggface.VGGFACE, state)
    for key, shape in vgg_shapes("conv_{}_{}").items():
        if not key.startswith("fc"):
            state[key] = torch.randn(shape)
    *_, renamed = readings(vggface.VGGFACE, state)
    rgb = torch.randn(1, 3, 8, 8)
    bgr = rgb[:, [2, 1, 0]]
    assert torch.allclose(
        F.conv2d(rgb, renamed["features.0.weight"]), F.conv2d(bgr, state["conv_1_1.weight"]), atol=1e-4
    )
    assert renamed["features.2.weight"] is state["conv_1_2.weight"]
    assert renamed["features.28.weight"] is state["conv_5_3.weight"]


def test_a_renaming_goes_by_whole_module_names_and_the_longest():
    rename = rename_modules({"a": "x", "a.b": "y", "ab": "z"}, classifier=("head",))
    one, two, three, four = (torch.zeros(n) for n in (1, 2, 3, 4))
    assert rename(
        {"a.c.weight": one, "a.b.weight": two, "ab.bias": three, "head.weight": four, "header.weight": four}
    ) == {
        "x.c.weight": one,
        "y.weight": two,
        "z.bias": three,
        "header.weight": four,
    }


@pytest.mark.parametrize(
    "keys",
    [
        (),
        ("b.weight", "c.weight"),  # nothing of it
        ("one.weight", "c.weight"),  # half of it
        ("one.weight", "two.weight", "ours.weight"),  # two keys would become one
        ("one", "two"),  # parameters, not modules
    ],
)
def test_a_renaming_refuses_what_is_not_in_its_format(keys):
    rename = rename_modules({"one": "ours", "two": "theirs"})
    assert rename({key: torch.zeros(1) for key in keys}) is None


# --- cards ------------------------------------------------------------------------------------------

# eyes, nose, corners of the mouth, in pixels
CELEBA = np.array([(69.5, 111.4), (108.2, 111.5), (87.7, 134.0), (72.4, 152.2), (105.1, 152.3)])
SPHEREFACE = np.array(
    [(30.2946, 51.6963), (65.5318, 51.5014), (48.0252, 71.7366), (33.5493, 92.3655), (62.7299, 92.2041)]
)
VGG_EXAMPLE = np.array([(63.5, 113.5), (117, 113.5), (77, 149), (73, 168), (111, 169)])


def crop_in_pixels(name: str) -> np.ndarray:
    crop = BACKBONES[name].card.crop
    assert crop is not None
    return np.array(crop) * (178, 218, 178, 218)


def least_squares_crop(template: np.ndarray, width: int, height: int) -> np.ndarray:
    """What a template sees of Celeb-A: template ≈ scale · celeba + shift."""
    unknowns = np.zeros((10, 3))  # scale, shift in x, shift in y
    unknowns[:, 0], unknowns[0::2, 1], unknowns[1::2, 2] = CELEBA.ravel(), 1, 1
    scale, *shift = np.linalg.lstsq(unknowns, template.ravel(), rcond=None)[0].tolist()
    crop: np.ndarray = (np.array([0, 0, width, height]) - np.tile(shift, 2)) / scale
    return crop


@names
def test_crops_lie_in_the_image_and_do_not_distort(name):
    card, (left, top, right, bottom) = BACKBONES[name].card, crop_in_pixels(name)
    assert 0 <= left < right <= 178
    assert 0 <= top < bottom <= 218
    assert (right - left) / (bottom - top) == pytest.approx(card.width / card.height, rel=0.01)


def test_crops_follow_from_the_alignment_of_the_training():
    assert crop_in_pixels("mobilefacenet") == pytest.approx([35, 54, 142, 178])
    assert crop_in_pixels("sphereface20") == pytest.approx(least_squares_crop(SPHEREFACE, 96, 112), abs=0.1)
    left, top, right, bottom = least_squares_crop(VGG_EXAMPLE, 224, 224)
    side, middle = right - left, CELEBA[:2, 0].mean()
    assert crop_in_pixels("vggface") == pytest.approx([middle - side / 2, top, middle + side / 2, bottom], abs=0.1)
    eyes, mouth = CELEBA[:2].mean(0), CELEBA[3:].mean(0)
    scale = 48 / (mouth - eyes)[1]
    for name in ("lightcnn9", "lightcnn29"):
        expected = np.tile(eyes, 2) + (np.array([0, 0, 128, 128]) - np.tile([64, 40], 2)) / scale
        assert crop_in_pixels(name) == pytest.approx(expected, abs=0.1)


# --- real weights -----------------------------------------------------------------------------------


@pytest.mark.data
def test_the_shared_mobilefacenet_tells_people_apart():
    root = os.environ.get("STYLIZE_TEST_DATA")
    if not root:
        pytest.skip("STYLIZE_TEST_DATA is not set")
    path = Path(root, "facerec", "mobilefacenet_068.ckpt")
    state = torch.load(path, map_location="cpu", weights_only=True)["net_state_dict"]
    module = mobilefacenet.MOBILEFACENET.build().eval()
    module.load_state_dict(state, strict=True)
    card = mobilefacenet.MOBILEFACENET.card
    people = sorted(Path(root, "lfw").iterdir())
    pictures = [path for person in people for path in sorted(person.glob("*.jpg"))[:4]]
    faces = torch.stack([_lfw_face(path, card.width, card.height) for path in pictures])
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (card.mean, card.std))
    with torch.inference_mode():
        embeddings = F.normalize(module((faces - mean) / std))
    first, second = np.triu_indices(len(pictures), 1)
    scores = (embeddings @ embeddings.T).numpy()[first, second]
    same = np.array([pictures[a].parent == pictures[b].parent for a, b in zip(first, second, strict=True)])
    assert same.sum() == 40 * 6
    # the area under the ROC curve: how often a pair of one person scores above a pair of two
    below = np.searchsorted(np.sort(scores[~same]), scores[same])
    assert below.mean() / (~same).sum() > 0.98


def _lfw_face(path: Path, width: int, height: int) -> Tensor:
    with Image.open(path) as picture:
        face = picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR, box=(69, 52, 181, 182))
    return torch.from_numpy(np.array(face)).permute(2, 0, 1).float()
