"""Boxes of faces: enlarging, clipping, shorter edges, and which of overlapping ones stays."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.faces.face_box import FaceBox, PixelBox, head_box, merged, suppressed

coordinates = st.floats(-50, 150, allow_nan=False)
boxes = st.lists(
    st.tuples(coordinates, coordinates, st.floats(0.5, 80), st.floats(0.5, 80), st.floats(0.01, 1)), max_size=14
)


def greedy(corners, scores, overlap):
    """Non-maximum suppression by its definition: indices that stay, best first."""
    kept: list[int] = []
    for at in sorted(range(len(scores)), key=lambda index: -scores[index]):
        if all(union_share(corners[at], corners[other]) <= overlap for other in kept):
            kept.append(at)
    return kept


def union_share(a, b):
    common = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return common / (area - common)


def clear_cut(corners, overlap):
    """Whether no pair is so near the threshold that float32 could decide otherwise."""
    pairs = [(a, b) for at, a in enumerate(corners) for b in corners[:at]]
    return all(abs(union_share(a, b) - overlap) > 1e-4 for a, b in pairs)


@given(boxes, st.floats(0.1, 0.9))
def test_suppression_keeps_what_its_definition_keeps(found, overlap):
    corners = [(x, y, x + width, y + height) for x, y, width, height, _ in found]
    scores = np.linspace(0.9, 0.1, len(found)).tolist()[::-1] if found else []
    if not clear_cut(corners, overlap):
        return
    kept = suppressed(torch.tensor(corners).reshape(-1, 4), torch.tensor(scores), None, overlap)
    wanted = [corners[at] for at in greedy(corners, scores, overlap)]
    assert [pytest.approx((face.left, face.top, face.right, face.bottom), abs=1e-4) for face in kept] == wanted
    assert [face.score for face in kept] == sorted((face.score for face in kept), reverse=True)
    faces = [FaceBox(*box, score) for box, score in zip(corners, scores, strict=True)]
    assert [faces.index(face) for face in merged(faces, overlap)] == greedy(corners, scores, overlap)


def test_boxes_without_area_or_with_values_that_are_not_finite_are_no_faces():
    corners = torch.tensor([[0, 0, 9, 9], [0, 0, torch.nan, 9], [5, 5, 5, 9], [0, 0, torch.inf, 9.0]])
    kept = suppressed(corners, torch.tensor([0.1, 0.9, 0.9, 0.9]), None, 0.3)
    assert [face.right for face in kept] == [9]


def test_landmarks_stay_with_their_box():
    corners = torch.tensor([[0, 0, 9, 9], [100, 100, 109, 109.0]])
    points = torch.arange(20.0).reshape(2, 5, 2)
    first, second = suppressed(corners, torch.tensor([0.2, 0.8]), points, 0.3)
    assert first.left == 100
    assert list(first.landmarks or ()) == [(10, 11), (12, 13), (14, 15), (16, 17), (18, 19)]
    assert next(iter(second.landmarks or ())) == (0, 1)


def test_every_side_moves_outwards_by_the_share_of_its_edge():
    face = FaceBox(100, 200, 150, 300, 0.9)  # 50 x 100
    assert head_box(face, (1000, 1000), 0.4) == PixelBox(80, 160, 170, 340)
    assert head_box(face, (1000, 1000), 0.0) == PixelBox(100, 200, 150, 300)


def test_the_head_is_cut_off_at_the_edges_of_the_picture():
    assert head_box(FaceBox(-10, 5, 40, 65, 0.9), (60, 70), 0.4) == PixelBox(0, 0, 60, 70)
    assert head_box(FaceBox(200, 5, 240, 65, 0.9), (60, 70), 0.4) is None


@given(coordinates, coordinates, st.floats(0.5, 80), st.floats(0.5, 80), st.floats(0, 2))
def test_a_head_lies_in_the_picture_and_has_what_of_its_face_does(x, y, width, height, enlarge):
    face = FaceBox(x, y, x + width, y + height, 0.5)
    box = head_box(face, (100, 90), enlarge)
    if box is None:
        assert x >= 100 or y >= 90 or face.right <= 0 or face.bottom <= 0
        return
    assert 0 <= box.left < box.right <= 100
    assert 0 <= box.top < box.bottom <= 90
    assert box.left <= max(x, 0)
    assert box.right >= min(face.right, 100)
    assert box.top <= max(y, 0)
    assert box.bottom >= min(face.bottom, 90)


def test_the_shorter_edge_is_that_of_the_box_as_it_was_found():
    assert FaceBox(0, 0, 99, 150, 0.5).shorter_edge == 99
    assert FaceBox(0, 0, 150, 99, 0.5).shorter_edge == 99


def test_a_box_scales_with_its_picture():
    face = FaceBox(1, 2, 3, 5, 0.5, ((1, 2),) * 5).scaled(2, 10)
    assert (face.left, face.top, face.right, face.bottom, face.score) == (2, 20, 6, 50, 0.5)
    assert list(face.landmarks or ()) == [(2, 20)] * 5
    assert FaceBox(1, 2, 3, 5, 0.5).scaled(2, 10).landmarks is None
