"""S3FD: the network and its boxes against a plain second reading of the published programs; random weights only."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from manifests.errors import InputError
from pipeline.faces.open_detector import open_detector
from pipeline.faces.s3fd import S3FD, STRIDES, decode
from pipeline.faces.s3fd_checkpoint import CAFFE, SSD, load_s3fd
from pipeline.faces.s3fd_detector import MEAN_RGB, find_faces

VGG = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # convolutions of ssd.pytorch's `vgg`, then fc6 and fc7
POOLS_BEFORE = {5, 10, 17, 24, 31}
SHAPES = (
    *((f"vgg.{at}", (outputs, inputs, 3, 3)) for at, inputs, outputs in zip(
        VGG,
        (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512),
        (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512),
        strict=True,
    )),
    ("vgg.31", (1024, 512, 3, 3)),
    ("vgg.33", (1024, 1024, 1, 1)),
    ("extras.0", (256, 1024, 1, 1)),
    ("extras.1", (512, 256, 3, 3)),
    ("extras.2", (128, 512, 1, 1)),
    ("extras.3", (256, 128, 3, 3)),
    *((f"loc.{at}", (4, inputs, 3, 3)) for at, inputs in enumerate((256, 512, 512, 1024, 512, 256))),
    *((f"conf.{at}", (4 if at == 0 else 2, inputs, 3, 3)) for at, inputs in enumerate((256, 512, 512, 1024, 512, 256))),
)  # fmt: skip
CAFFE_NAMES = [
    *(f"conv{block}_{at}" for block, count in enumerate((2, 2, 3, 3, 3), 1) for at in range(1, count + 1)),
    *("fc6", "fc7", "conv6_1", "conv6_2", "conv7_1", "conv7_2"),
    *(f"{layer}_mbox_{kind}" for kind in ("loc", "conf") for layer in (
        "conv3_3_norm", "conv4_3_norm", "conv5_3_norm", "fc7", "conv6_2", "conv7_2",
    )),
]  # fmt: skip


@pytest.fixture(scope="module")
def ssd_state():
    generator = torch.Generator().manual_seed(3)
    state = {}
    for name, shape in SHAPES:
        deviation = math.sqrt(2 / math.prod(shape[1:])) * (3 if name.startswith(("loc", "conf")) else 1)
        state[f"{name}.weight"] = torch.randn(shape, generator=generator) * deviation
        state[f"{name}.bias"] = torch.randn(shape[0], generator=generator) * 0.1
    state["vgg.0.weight"] /= 60  # pixels: features of about 1, as heads expect them
    for block, channels, scale in ((3, 256, 10.0), (4, 512, 8.0), (5, 512, 5.0)):
        state[f"L2Norm{block}_3.weight"] = scale * (1 + 0.1 * torch.randn(channels, generator=generator))
    return state


@pytest.fixture(scope="module")
def caffe_state(ssd_state):
    renamed = {name: caffe for (name, _), caffe in zip(SHAPES, CAFFE_NAMES, strict=True)}
    renamed |= {f"L2Norm{block}_3": f"conv{block}_3_norm" for block in (3, 4, 5)}
    return {f"{renamed[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": value for key, value in ssd_state.items()}


@pytest.fixture(scope="module")
def files(ssd_state, caffe_state, tmp_path_factory):
    folder = tmp_path_factory.mktemp("s3fd")
    torch.save(ssd_state, folder / "sfd_face.pth")
    torch.save(caffe_state, folder / "s3fd.pth")
    return {"ssd": folder / "sfd_face.pth", "caffe": folder / "s3fd.pth"}


def naive(state, picture, convention):
    """Boxes above 0.5 of all six levels, before suppression, one anchor at a time, from a state in ssd.pytorch's names.

    Written after the programs that the two checkpoints are published with, and not after ours.
    """
    x = torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)
    if convention == "ssd":  # RGB, to BGR, minus the means of BGR, to RGB
        x = x[[2, 1, 0]] - torch.tensor([104.0, 117.0, 123.0]).view(3, 1, 1)
        x = x[[2, 1, 0]]
    else:
        x = x.flip(0) - torch.tensor([104.0, 117.0, 123.0]).view(3, 1, 1)
    x = x[None]

    def conv(name, x, **how):
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **how)

    def normed(block, x):
        return x / (x.pow(2).sum(1, keepdim=True).sqrt() + 1e-10) * state[f"L2Norm{block}_3.weight"].view(1, -1, 1, 1)

    sources = []
    for at in VGG:
        if at in POOLS_BEFORE:
            x = F.max_pool2d(x, 2, 2, ceil_mode=at == 17 and convention == "ssd")
        x = F.relu(conv(f"vgg.{at}", x, padding=1))
        if at in (14, 21, 28):
            sources.append(normed({14: 3, 21: 4, 28: 5}[at], x))
    x = F.max_pool2d(x, 2, 2)
    x = F.relu(conv("vgg.31", x, padding=6, dilation=6) if convention == "ssd" else conv("vgg.31", x, padding=3))
    x = F.relu(conv("vgg.33", x))
    sources.append(x)
    for at in range(4):
        x = F.relu(conv(f"extras.{at}", x, **({"stride": 2, "padding": 1} if at % 2 else {})))
        if at % 2:
            sources.append(x)
    found = []
    for level, features in enumerate(sources):
        scores = conv(f"conf.{level}", features, padding=1)[0]
        if level == 0:
            scores = torch.stack([scores[:3].max(0).values, scores[3]])
        probabilities = F.softmax(scores, 0)[1].numpy()
        offsets = conv(f"loc.{level}", features, padding=1)[0].numpy()
        stride = 4 * 2**level
        for row in range(probabilities.shape[0]):
            for column in range(probabilities.shape[1]):
                if probabilities[row, column] > 0.5:
                    dx, dy, dw, dh = (float(value) for value in offsets[:, row, column])
                    x0, y0 = (
                        stride / 2 + column * stride + dx * 0.1 * 4 * stride,
                        stride / 2 + row * stride + dy * 0.1 * 4 * stride,
                    )
                    width, height = 4 * stride * math.exp(dw * 0.2), 4 * stride * math.exp(dh * 0.2)
                    box = x0 - width / 2, y0 - height / 2, x0 + width / 2, y0 + height / 2
                    found.append((float(probabilities[row, column]), box))
    return sorted(found, reverse=True)


def unsuppressed(network, convention, picture):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.faces.s3fd_detector.OVERLAP", 1.0)
        return find_faces(network, convention, picture, 0.5)


@pytest.mark.parametrize("name", ["ssd", "caffe"])
def test_boxes_are_those_of_the_published_program(name, files, ssd_state):
    network, convention = load_s3fd(files[name])
    assert convention is {"ssd": SSD, "caffe": CAFFE}[name]
    picture = np.random.default_rng(5).integers(0, 256, (68, 100, 3), np.uint8)  # 17 rows at stride 4: odd poolings
    with torch.inference_mode():
        wanted = naive(ssd_state, picture, name)
    found = unsuppressed(network, convention, picture)
    assert len(wanted) > 20
    assert all(math.isfinite(value) and abs(value) < 1e4 for _, box in wanted for value in box)
    assert len(found) == len(wanted)
    for face, (score, box) in zip(found, wanted, strict=True):
        assert face.score == pytest.approx(score, abs=1e-4)
        assert (face.left, face.top, face.right, face.bottom) == pytest.approx(box, abs=2e-2)


def test_the_two_trainings_are_not_shown_the_same_and_do_not_see_the_same(files):
    picture = np.random.default_rng(5).integers(0, 256, (68, 100, 3), np.uint8)
    ssd, caffe = (unsuppressed(*load_s3fd(files[name]), picture) for name in ("ssd", "caffe"))
    assert [face.score for face in ssd] != [face.score for face in caffe]
    assert MEAN_RGB == (123.0, 117.0, 104.0)


def test_anchors_are_squares_of_four_strides_around_the_middles_of_their_cells():
    for stride in STRIDES:
        probabilities = torch.zeros(3, 5)
        probabilities[2, 4] = 0.9
        (box,), (score,) = decode(probabilities, torch.zeros(4, 3, 5), stride, 0.5)
        assert box.tolist() == [4.5 * stride - 2 * stride, 0.5 * stride, 6.5 * stride, 4.5 * stride]
        assert score == pytest.approx(0.9)


def test_offsets_move_by_a_tenth_and_grow_by_e_to_a_fifth_of_an_anchor():
    offsets = torch.zeros(4, 1, 1)
    offsets[:, 0, 0] = torch.tensor([1.0, -2.0, 5.0, 0.0])
    (box,), _ = decode(torch.ones(1, 1), offsets, 4, 0.5)
    width = 16 * math.e
    assert box.tolist() == pytest.approx([2 + 1.6 - width / 2, 2 - 3.2 - 8, 2 + 1.6 + width / 2, 2 - 3.2 + 8])


def test_strides_cover_the_picture():
    network = S3FD(SSD.geometry).eval()
    with torch.inference_mode():
        levels = network(torch.zeros(1, 3, 128, 256))
    assert [tuple(probabilities.shape[1:]) for probabilities, _ in levels] == [
        (128 // stride, 256 // stride) for stride in STRIDES
    ]


def test_pictures_too_small_for_the_network_have_no_faces(files):
    network, convention = load_s3fd(files["ssd"])
    assert find_faces(network, convention, np.zeros((31, 400, 3), np.uint8), 0.0) == ()


def test_a_detector_of_a_checkpoint(files):
    detector = open_detector(weights=files["caffe"])
    assert detector.name == "s3fd"
    assert len(detector.weights) == 64
    picture = np.random.default_rng(5).integers(0, 256, (96, 96, 3), np.uint8)
    faces = detector.detect(picture)
    assert faces
    assert all(face.score > detector.confidence for face in faces)


def test_keys_of_data_parallel_training_are_known(ssd_state, tmp_path):
    torch.save({f"module.{key}": value for key, value in ssd_state.items()}, tmp_path / "w.pth")
    network, _ = load_s3fd(tmp_path / "w.pth")
    assert torch.equal(network.state_dict()["fc6.bias"], ssd_state["vgg.31.bias"])


def test_wrong_files_are_refused_in_one_sentence(ssd_state, tmp_path):
    with pytest.raises(InputError, match="do not exist"):
        load_s3fd(tmp_path / "missing.pth")
    torch.save({"conv1.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(
        InputError, match=r"are not S3FD: conv1_1\.weight is missing, the file begins with conv1\.weight"
    ):
        load_s3fd(tmp_path / "other.pth")
    torch.save(ssd_state | {"conf.2.weight": torch.zeros(21, 512, 3, 3)}, tmp_path / "classes.pth")
    with pytest.raises(InputError, match=r"conf\.2\.weight is \[21, 512, 3, 3\], expected \[2, 512, 3, 3\]"):
        load_s3fd(tmp_path / "classes.pth")
    torch.save(ssd_state | {"vgg.0.bias": torch.full((64,), torch.nan)}, tmp_path / "nan.pth")
    with pytest.raises(InputError, match="not finite"):
        load_s3fd(tmp_path / "nan.pth")
    torch.save(torch.nn.Linear(1, 1), tmp_path / "pickled.pth")
    with pytest.raises(InputError, match="refused"):
        load_s3fd(tmp_path / "pickled.pth")
    (tmp_path / "torn.pth").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(InputError, match=r"torn\.pth"):
        load_s3fd(tmp_path / "torn.pth")


def test_s3fd_without_a_checkpoint_says_where_one_is():
    with pytest.raises(InputError, match="needs a checkpoint, which stylize neither has nor downloads"):
        open_detector("s3fd")
