"""The modern backbones against networks written out again, plainly, in float64 and in the names of the checkpoints."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from manifests.errors import InputError
from pipeline.backbones import adaface, inception_resnet, iresnet, vggface2_resnet
from pipeline.backbones.registry import Backbone, find_backbone
from pipeline.backbones.timm_models import timm_backbone

PARAMETERS = {
    "vggface2-resnet50": 23_508_032,
    "vggface2-senet50": 26_039_024,
    "arcface-iresnet50": 43_590_848,
    "arcface-iresnet100": 65_156_160,
    "adaface-ir50": 43_585_600,
    "adaface-ir101": 65_150_912,
    "inception-resnet-v1": 23_482_624,
}
MODULES = (adaface, inception_resnet, iresnet, vggface2_resnet)
State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Subject:
    backbone: Backbone
    network: nn.Module
    images: Tensor
    fresh: Tensor


@pytest.fixture(scope="module", params=PARAMETERS)
def subject(request):
    """A backbone, in evaluation mode, with weights that are nowhere trivial, two images for it, and what its fresh
    weights made of them. Each is built once: the largest has 65 million parameters.
    """
    backbone = find_backbone(request.param)
    card = backbone.card
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(len(request.param))
        network = backbone.build().eval()
        images = torch.randn(2, 3, card.height, card.width)
        with torch.no_grad():
            fresh = network(images)
        randomise(network)
    return Subject(backbone, network, images, fresh)


def randomise(network: nn.Module) -> None:
    """Give batch normalisation and PReLU values that show when they are left out or swapped."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.0)
                nn.init.normal_(module.bias, 0, 0.2)
        elif isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight, 0.1, 0.4)


# --- what every card promises ----------------------------------------------------------------------


def test_parameters_and_output(subject):
    card = subject.backbone.card
    assert card.parameters == PARAMETERS[card.name]
    assert sum(parameter.numel() for parameter in subject.network.parameters()) == card.parameters
    assert subject.fresh.shape == (2, card.embedding)
    norms = subject.fresh.norm(dim=1)
    # Random weights in evaluation mode serve smoke runs: nothing may vanish or overflow on the way.
    assert 1e-3 < norms.min() <= norms.max() < 1e6
    assert (subject.fresh[0] - subject.fresh[1]).norm() > 1e-3 * norms.max()
    assert not torch.allclose(norms, torch.ones(2), rtol=1e-3)  # raw, not on the unit sphere


def test_forward_and_backward_in_training(subject):
    """Finite, and every weight is reached."""
    network = subject.network.train()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network(subject.images).square().mean().backward()
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, name
                assert parameter.grad.isfinite().all(), name
                assert parameter.grad.any(), name
    finally:
        network.eval().zero_grad()
    frozen = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
    assert frozen == (["features.weight"] if subject.backbone.card.name.startswith("arcface") else [])


@pytest.mark.parametrize("name", PARAMETERS)
def test_card(name):
    card = find_backbone(name).card
    assert len(card.mean) == len(card.std) == 3
    assert all(0 < value < 255 for value in card.mean)
    assert card.crop is not None
    left, top, right, bottom = card.crop
    assert 0 <= left < right <= 1
    assert 0 <= top < bottom <= 1
    assert left + right == pytest.approx(1, abs=0.01)  # faces of Celeb-A are centred
    for eye_or_mouth in (111.4 / 218, 152.3 / 218):
        assert top < eye_or_mouth < bottom
    if name != "inception-resnet-v1":  # facenet squeezes an upright box to a square
        assert (right - left) * 178 == pytest.approx((bottom - top) * 218, abs=0.2)
    assert card.source
    assert card.licence


@pytest.mark.parametrize("name", [name for name in PARAMETERS if name.startswith(("arcface", "adaface"))])
def test_crop_is_that_of_the_five_point_template(name):
    celeba = np.array([(69.5, 111.4), (108.2, 111.5), (87.7, 134.0), (72.4, 152.2), (105.1, 152.3)])
    template = np.array(
        [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
    )
    # template = scale · celeba + shift, all pixels counted from their centres
    system = np.concatenate([np.column_stack([celeba[:, axis], np.eye(2)[[axis] * 5]]) for axis in (0, 1)])
    (scale, *shift), *_ = np.linalg.lstsq(system, template.T.reshape(-1), rcond=None)
    corner = (-0.5 - np.array(shift)) / scale + 0.5
    expected = np.concatenate([corner, corner + 112 / scale]) / [178, 218, 178, 218]
    assert find_backbone(name).card.crop == pytest.approx(expected, abs=1e-4)


def test_normalisation():
    def normalised(name: str, pixel: tuple[int, int, int]) -> list[float]:  # RGB
        card = find_backbone(name).card
        values = pixel if card.channels == "rgb" else pixel[::-1]
        return [(value - mean) / std for value, mean, std in zip(values, card.mean, card.std, strict=True)]

    # Facts of the ports: ((x / 255) − 0.5) / 0.5; AdaFace in BGR; (x − 127.5) / 128; Caffe's mean, BGR.
    assert normalised("arcface-iresnet50", (0, 255, 51)) == pytest.approx([-1, 1, -0.6])
    assert normalised("adaface-ir50", (0, 255, 51)) == pytest.approx([-0.6, 1, -1])
    assert normalised("inception-resnet-v1", (0, 255, 51)) == pytest.approx([-127.5 / 128, 127.5 / 128, -76.5 / 128])
    assert normalised("vggface2-resnet50", (131, 103, 91)) == pytest.approx([-0.4953, -0.8827, -0.0912])


# --- checkpoints: made in the foreign names, computed with in float64, and loaded -------------------


def batch_norm(x: Tensor, state: State, name: str, *, eps: float = 1e-5) -> Tensor:
    shape = (1, -1, 1, 1)[: x.ndim]
    x = (x - state[f"{name}.running_mean"].view(shape)) / (state[f"{name}.running_var"].view(shape) + eps).sqrt()
    if f"{name}.weight" in state:
        x = x * state[f"{name}.weight"].view(shape) + state[f"{name}.bias"].view(shape)
    return x


def vggface2(state: State, bgr: Tensor) -> Tensor:
    """In the names of cydonia999's port."""
    x = F.conv2d(bgr, state["conv1.weight"], stride=2, padding=3)
    x = F.relu(batch_norm(x, state, "bn1"))
    x = F.pad(x, (0, 1, 0, 1), value=-torch.inf)  # 112 → 113: the last window of three reaches over the edge by one
    x = F.max_pool2d(x, 3, 2)
    for stage, count in enumerate((3, 4, 6, 3), start=1):
        for unit in range(count):
            name = f"layer{stage}.{unit}"
            stride = 2 if stage > 1 and unit == 0 else 1
            y = F.conv2d(x, state[f"{name}.conv1.weight"], stride=stride)
            y = F.relu(batch_norm(y, state, f"{name}.bn1"))
            y = F.conv2d(y, state[f"{name}.conv2.weight"], padding=1)
            y = F.relu(batch_norm(y, state, f"{name}.bn2"))
            y = batch_norm(F.conv2d(y, state[f"{name}.conv3.weight"]), state, f"{name}.bn3")
            if f"{name}.conv4.weight" in state:
                gate = F.avg_pool2d(y, y.shape[-1])
                gate = F.relu(F.conv2d(gate, state[f"{name}.conv4.weight"], state[f"{name}.conv4.bias"]))
                y = y * F.conv2d(gate, state[f"{name}.conv5.weight"], state[f"{name}.conv5.bias"]).sigmoid()
            if unit == 0:
                x = F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride)
                x = batch_norm(x, state, f"{name}.downsample.1")
            x = F.relu(x + y)
    assert x.shape[2:] == (7, 7)
    return F.avg_pool2d(x, 7).flatten(1)


def vggface2_dag(state: State, rgb: Tensor) -> Tensor:
    """In the names of Albanie's import; reads RGB."""
    x = F.conv2d(rgb, state["conv1_7x7_s2.weight"], stride=2, padding=3)
    x = F.relu(batch_norm(x, state, "conv1_7x7_s2_bn"))
    x = F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 3, 2)
    for stage, count in ((2, 3), (3, 4), (4, 6), (5, 3)):
        for unit in range(1, count + 1):
            name = f"conv{stage}_{unit}_"
            stride = 2 if stage > 2 and unit == 1 else 1
            y = F.conv2d(x, state[f"{name}1x1_reduce.weight"], stride=stride)
            y = F.relu(batch_norm(y, state, f"{name}1x1_reduce_bn"))
            y = F.relu(batch_norm(F.conv2d(y, state[f"{name}3x3.weight"], padding=1), state, f"{name}3x3_bn"))
            y = batch_norm(F.conv2d(y, state[f"{name}1x1_increase.weight"]), state, f"{name}1x1_increase_bn")
            if f"{name}1x1_down.weight" in state:
                gate = y.mean(dim=(2, 3), keepdim=True)
                gate = F.relu(F.conv2d(gate, state[f"{name}1x1_down.weight"], state[f"{name}1x1_down.bias"]))
                y = y * F.conv2d(gate, state[f"{name}1x1_up.weight"], state[f"{name}1x1_up.bias"]).sigmoid()
            if unit == 1:
                x = F.conv2d(x, state[f"{name}1x1_proj.weight"], stride=stride)
                x = batch_norm(x, state, f"{name}1x1_proj_bn")
            x = F.relu(x + y)
    return F.avg_pool2d(x, 7).flatten(1)


def insightface(depths: tuple[int, ...]) -> Callable[[State, Tensor], Tensor]:
    def reference(state: State, rgb: Tensor) -> Tensor:
        x = batch_norm(F.conv2d(rgb, state["conv1.weight"], padding=1), state, "bn1")
        x = F.prelu(x, state["prelu.weight"])
        for stage, depth in enumerate(depths, start=1):
            for unit in range(depth):
                name = f"layer{stage}.{unit}"
                stride = 2 if unit == 0 else 1
                y = F.conv2d(batch_norm(x, state, f"{name}.bn1"), state[f"{name}.conv1.weight"], padding=1)
                y = F.prelu(batch_norm(y, state, f"{name}.bn2"), state[f"{name}.prelu.weight"])
                y = F.conv2d(y, state[f"{name}.conv2.weight"], padding=1, stride=stride)
                if unit == 0:
                    x = F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=2)
                    x = batch_norm(x, state, f"{name}.downsample.1")
                x = x + batch_norm(y, state, f"{name}.bn3")
        x = F.linear(batch_norm(x, state, "bn2").flatten(1), state["fc.weight"], state["fc.bias"])
        return batch_norm(x, state, "features")

    return reference


def adaface_body(depths: tuple[int, ...]) -> Callable[[State, Tensor], Tensor]:
    def reference(state: State, bgr: Tensor) -> Tensor:
        x = batch_norm(F.conv2d(bgr, state["input_layer.0.weight"], padding=1), state, "input_layer.1")
        x = F.prelu(x, state["input_layer.2.weight"])
        starts = {sum(depths[:stage]) for stage in range(4)}
        for unit in range(sum(depths)):
            name = f"body.{unit}.res_layer"
            stride = 2 if unit in starts else 1
            y = F.conv2d(batch_norm(x, state, f"{name}.0"), state[f"{name}.1.weight"], padding=1)
            y = F.prelu(batch_norm(y, state, f"{name}.2"), state[f"{name}.3.weight"])
            y = batch_norm(F.conv2d(y, state[f"{name}.4.weight"], padding=1, stride=stride), state, f"{name}.5")
            if unit == 0:
                x = x[:, :, ::2, ::2]
            elif unit in starts:
                x = F.conv2d(x, state[f"body.{unit}.shortcut_layer.0.weight"], stride=2)
                x = batch_norm(x, state, f"body.{unit}.shortcut_layer.1")
            x = x + y
        x = batch_norm(x, state, "output_layer.0").flatten(1)
        x = F.linear(x, state["output_layer.3.weight"], state["output_layer.3.bias"])
        return batch_norm(x, state, "output_layer.4")

    return reference


def facenet(state: State, rgb: Tensor) -> Tensor:
    def unit(x: Tensor, name: str, stride: int = 1, padding: int | tuple[int, int] = 0) -> Tensor:
        x = F.conv2d(x, state[f"{name}.conv.weight"], stride=stride, padding=padding)
        return F.relu(batch_norm(x, state, f"{name}.bn", eps=1e-3))

    def residual(x: Tensor, name: str, scale: float, *branches: Tensor) -> Tensor:
        y = F.conv2d(torch.cat(branches, 1), state[f"{name}.conv2d.weight"], state[f"{name}.conv2d.bias"])
        return x + scale * y

    def block8(x: Tensor, name: str, scale: float) -> Tensor:
        y = unit(unit(x, f"{name}.branch1.0"), f"{name}.branch1.1", padding=(0, 1))
        return residual(x, name, scale, unit(x, f"{name}.branch0"), unit(y, f"{name}.branch1.2", padding=(1, 0)))

    x = unit(unit(unit(rgb, "conv2d_1a", 2), "conv2d_2a"), "conv2d_2b", padding=1)
    x = unit(F.max_pool2d(x, 3, 2), "conv2d_3b")
    x = unit(unit(x, "conv2d_4a"), "conv2d_4b", 2)
    for block in range(5):
        name = f"repeat_1.{block}"
        y = unit(unit(x, f"{name}.branch1.0"), f"{name}.branch1.1", padding=1)
        z = unit(unit(x, f"{name}.branch2.0"), f"{name}.branch2.1", padding=1)
        z = unit(z, f"{name}.branch2.2", padding=1)
        x = F.relu(residual(x, name, 0.17, unit(x, f"{name}.branch0"), y, z))
    y = unit(unit(x, "mixed_6a.branch1.0"), "mixed_6a.branch1.1", padding=1)
    y = unit(y, "mixed_6a.branch1.2", 2)
    x = torch.cat([unit(x, "mixed_6a.branch0", 2), y, F.max_pool2d(x, 3, 2)], 1)
    for block in range(10):
        name = f"repeat_2.{block}"
        y = unit(unit(x, f"{name}.branch1.0"), f"{name}.branch1.1", padding=(0, 3))
        y = unit(y, f"{name}.branch1.2", padding=(3, 0))
        x = F.relu(residual(x, name, 0.10, unit(x, f"{name}.branch0"), y))
    w, y, z = (unit(x, f"mixed_7a.branch{branch}.0") for branch in range(3))
    z = unit(unit(z, "mixed_7a.branch2.1", padding=1), "mixed_7a.branch2.2", 2)
    w, y = unit(w, "mixed_7a.branch0.1", 2), unit(y, "mixed_7a.branch1.1", 2)
    x = torch.cat([w, y, z, F.max_pool2d(x, 3, 2)], 1)
    for block in range(5):
        x = F.relu(block8(x, f"repeat_3.{block}", 0.20))
    x = block8(x, "block8", 1.0).mean(dim=(2, 3))
    return batch_norm(F.linear(x, state["last_linear.weight"]), state, "last_bn", eps=1e-3)


def own(key: str) -> str:
    return key


def dag(key: str) -> str:
    """Our key → Albanie's."""
    names = {"conv1": "1x1_reduce", "conv2": "3x3", "conv3": "1x1_increase", "conv4": "1x1_down", "conv5": "1x1_up"}
    *path, value = key.split(".")
    if len(path) == 1:
        return {"conv1": "conv1_7x7_s2", "bn1": "conv1_7x7_s2_bn"}[path[0]] + f".{value}"
    stage, unit, layer = int(path[0][-1]) + 1, int(path[1]) + 1, ".".join(path[2:])
    if layer.startswith("downsample"):
        module = "1x1_proj" if layer.endswith("0") else "1x1_proj_bn"
    else:
        module = names["conv" + layer[-1]] + ("_bn" if layer.startswith("bn") else "")
    return f"conv{stage}_{unit}_{module}.{value}"


def adaface_key(depths: tuple[int, ...]) -> Callable[[str], str]:
    def rename(key: str) -> str:
        module, _, value = key.rpartition(".")
        ends = ("conv1", "bn1", "prelu", "bn2", "", "", "fc", "features")
        if module in ends:
            index = ends.index(module)
            return f"{'input_layer' if index < 3 else 'output_layer'}.{index if index < 3 else index - 3}.{value}"
        stage, unit, *layer = module.split(".")
        number = sum(depths[: int(stage[-1]) - 1]) + int(unit)
        if layer[0] == "downsample":
            return f"body.{number}.shortcut_layer.{layer[1]}.{value}"
        return f"body.{number}.res_layer.{('bn1', 'conv1', 'bn2', 'prelu', 'conv2', 'bn3').index(layer[0])}.{value}"

    return rename


@dataclass(frozen=True)
class Format:
    """A checkpoint in circulation: its keys, what it holds beside the network, and what it computes."""

    name: str
    backbones: tuple[str, ...]
    key: Callable[[str], str]
    extra: Mapping[str, tuple[int, ...]]
    reference: Callable[[State, Tensor], Tensor]
    reads_rgb_for_bgr: bool = False


IR50, IR100 = (3, 4, 14, 3), (3, 13, 30, 3)
VGGFACE2 = ("vggface2-resnet50", "vggface2-senet50")
FORMATS = (
    Format("cydonia999", VGGFACE2, own, {"fc.weight": (8631, 2048), "fc.bias": (8631,)}, vggface2),
    Format(
        "dag",
        VGGFACE2,
        dag,
        {"classifier.weight": (8631, 2048, 1, 1), "classifier.bias": (8631,)},
        vggface2_dag,
        reads_rgb_for_bgr=True,
    ),
    Format("insightface50", ("arcface-iresnet50",), own, {}, insightface(IR50)),
    Format("insightface100", ("arcface-iresnet100",), own, {}, insightface(IR100)),
    Format(
        "adaface50",
        ("adaface-ir50",),
        adaface_key(IR50),
        {"head.kernel": (512, 70722), "head.t": (1,)},
        adaface_body(IR50),
    ),
    Format("adaface101", ("adaface-ir101",), adaface_key(IR100), {}, adaface_body(IR100)),
    Format(
        "facenet-pytorch",
        ("inception-resnet-v1",),
        own,
        {"logits.weight": (8631, 512), "logits.bias": (8631,)},
        facenet,
    ),
)


def checkpoint(state: State, form: Format) -> dict[str, Tensor]:
    """Write a state dict in a foreign format, with tensors for what the format holds besides."""
    foreign = {form.key(key): tensor for key, tensor in state.items()}
    assert len(foreign) == len(state)
    return foreign | {key: torch.zeros(()).expand(shape) for key, shape in form.extra.items()}


def readings(backbone: Backbone, foreign: State) -> list[dict[str, Tensor]]:
    return [read for rename in backbone.renamings if (read := rename(foreign)) is not None]


def test_checkpoints_compute_what_they_did_elsewhere(subject):
    """Strides, pooling, epsilons, order of layers and channels, and every name: the whole network at once."""
    name = subject.backbone.card.name
    formats = [form for form in FORMATS if name in form.backbones]
    assert formats
    original = {key: value.clone() for key, value in subject.network.state_dict().items()}
    for form in formats:
        foreign = checkpoint(original, form)
        image = subject.images[:1].double()
        if form.reads_rgb_for_bgr:
            image = image.flip(1)
        weights = {form.key(key): tensor.double() for key, tensor in original.items()}
        expected = form.reference(weights, image)
        found = readings(subject.backbone, foreign) if form.extra or form.key is not own else [foreign]
        assert len(found) == 1, form.name
        subject.network.load_state_dict(found[0], strict=True)  # every tensor lands, nothing is left over
        with torch.no_grad():
            embedding = subject.network(subject.images[:1])
        assert (embedding.double() - expected).norm() < 1e-5 * expected.norm(), form.name
    subject.network.load_state_dict(original)


def test_other_formats_are_not_taken(subject):
    name = subject.backbone.card.name
    for form in FORMATS:
        if name in form.backbones:
            continue
        with torch.device("meta"):
            other = checkpoint(find_backbone(form.backbones[-1]).build().state_dict(), form)
        own_keys = set(subject.network.state_dict())
        for read in readings(subject.backbone, other):
            # Only the deeper AdaFace looks like the shallower: units are left over, under their own names.
            assert (name, form.name) == ("adaface-ir50", "adaface101")
            assert "body.48.res_layer.5.weight" in set(read) - own_keys


def test_keys_that_do_not_fit_keep_their_names():
    """The 256-d variant of Albanie's has a layer that the network does not have."""
    backbone = find_backbone("vggface2-resnet50")
    with torch.device("meta"):
        state = backbone.build().state_dict()
        extra = {"feat_extract.weight": torch.empty(256, 2048, 1, 1)}
        (read,) = readings(backbone, checkpoint(state, FORMATS[1]) | extra)
    assert set(read) - set(state) == {"feat_extract.weight"}


def test_imagenet_resnet50_is_not_vggface2():
    """torchvision's has the same keys and shapes, but strides in the 3×3: it would load and be wrong."""
    from torchvision.models import resnet50  # noqa: PLC0415

    backbone = find_backbone("vggface2-resnet50")
    with torch.device("meta"):
        state = resnet50(weights=None).state_dict()
        (read,) = readings(backbone, state | {"fc.weight": torch.empty(8631, 2048), "fc.bias": torch.empty(8631)})
        backbone.build().load_state_dict(read, strict=True)
    assert readings(backbone, state) == []


def test_squeeze_and_excitation_is_that_of_timm():
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        theirs = timm.create_model("legacy_seresnet50", pretrained=False, num_classes=0).eval()
        randomise(theirs)
        state = {
            key.removeprefix("layer0.").replace("se_module.fc1", "conv4").replace("se_module.fc2", "conv5"): tensor
            for key, tensor in theirs.state_dict().items()
        }
        ours = find_backbone("vggface2-senet50").build().eval()
        ours.load_state_dict(state, strict=True)
        images = torch.randn(1, 3, 224, 224)
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-5)


# --- timm ------------------------------------------------------------------------------------------


def test_timm_card():
    state = torch.random.get_rng_state()
    backbone = timm_backbone("timm:mobilenetv3_small_100")
    assert torch.equal(torch.random.get_rng_state(), state)
    card = backbone.card
    network = backbone.build().eval()
    assert sum(parameter.numel() for parameter in network.parameters()) == card.parameters
    with torch.no_grad():
        assert network(torch.zeros(1, 3, card.height, card.width)).shape == (1, card.embedding)
    assert (card.name, card.width, card.height, card.channels) == ("timm:mobilenetv3_small_100", 224, 224, "rgb")
    assert card.embedding == 1024  # of its head, not of its last feature map
    assert card.mean == pytest.approx((123.675, 116.28, 103.53))
    assert card.std == pytest.approx((58.395, 57.12, 57.375))
    assert card.crop is None
    assert card.licence == "apache-2.0"
    assert "mobilenetv3_small_100.lamb_in1k" in card.source
    (read,) = readings(backbone, timm.create_model("mobilenetv3_small_100").state_dict())
    network.load_state_dict(read, strict=True)
    assert readings(backbone, read) == []


def test_timm_tag_decides_the_normalisation():
    plain, tagged = timm_backbone("timm:resnetv2_50"), timm_backbone("timm:vit_tiny_patch16_224.augreg_in21k")
    assert plain.card.mean == tagged.card.mean == (127.5, 127.5, 127.5)
    assert tagged.card.name == "timm:vit_tiny_patch16_224.augreg_in21k"
    assert timm_backbone("timm:resnet18").card.mean != plain.card.mean


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnet81", r'has no model "resnet81" \(did you mean "timm:resnet\d+'),
        ("timm:resnet18.nonsense", "no such weights"),
        ("timm:hf-hub:someone/something", "has no model"),
        ("timm:local-dir:weights", "has no model"),
        ("timm:", "has no model"),
    ],
)
def test_timm_wrong_name(name, message):
    with pytest.raises(InputError, match=message):
        timm_backbone(name)


def test_timm_model_of_another_kind(monkeypatch):
    for network, message in ((nn.Conv2d(3, 8, 1), "one vector"), (nn.Conv2d(5, 8, 1), "cannot be used as a backbone")):
        asked: list[tuple[str, dict[str, object]]] = []

        def create(name, *, _network=network, _asked=asked, **settings):
            _asked.append((name, settings))
            return _network.to("meta")

        monkeypatch.setattr(timm, "create_model", create)
        with pytest.raises(InputError, match=message):
            timm_backbone("timm:resnet18")
        assert asked == [("resnet18", {"pretrained": False, "num_classes": 0})]  # nothing is downloaded


def test_timm_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r'needs timm.*pip install "stylize\[timm\]"'):
        timm_backbone("timm:resnet18")
