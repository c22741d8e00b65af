"""A face's box in a picture: enlarging it to the head, clipping it, and which of overlapping boxes stays."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor
from torchvision.ops import nms

ENLARGE: Final = 0.4
MINIMUM: Final = 100

Point = tuple[float, float]


@dataclass(frozen=True)
class FaceBox:
    """A face that a detector has found; coordinates are pixels of the picture, x to the right and y down.

    Attributes:
        left, top, right, bottom: of the face without hair, forehead to chin; it may reach beyond the picture.
        score: the detector's confidence, 0 to 1.
        landmarks: (x, y) of the eye on the left of the picture, the one on the right, the tip of the nose, the left
            and the right corner of the mouth; None if the detector tells none.
    """

    left: float
    top: float
    right: float
    bottom: float
    score: float
    landmarks: tuple[Point, ...] | None = None

    @property
    def width(self) -> float:
        """In pixels."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """In pixels."""
        return self.bottom - self.top

    @property
    def shorter_edge(self) -> float:
        """In pixels, of the box as it was found.

        What must reach `MINIMUM`: "we keep all detected faces with a lower edge size of at least 100 pixels" (Cornia et
        al., TOMM 2022, Sec. 5). We read the lower of the two edge sizes, before the box is enlarged.
        """
        return min(self.width, self.height)

    def scaled(self, horizontal: float, vertical: float) -> "FaceBox":
        """Return the box in a picture that was resized by two factors."""
        points = self.landmarks and tuple((x * horizontal, y * vertical) for x, y in self.landmarks)
        return FaceBox(
            self.left * horizontal,
            self.top * vertical,
            self.right * horizontal,
            self.bottom * vertical,
            self.score,
            points,
        )


class PixelBox(NamedTuple):
    """Whole pixels of a picture: columns left … right-1, rows top … bottom-1."""

    left: int
    top: int
    right: int
    bottom: int


def head_box(face: FaceBox, size: tuple[int, int], enlarge: float = ENLARGE) -> PixelBox | None:
    """Return the part of a picture that shows a face's whole head.

    "To include the whole head, we extend face bounding boxes by a factor of 0.4" (Cornia et al., TOMM 2022, Sec. 5). We
    move every side outwards by 0.4 of the box's width or height, so that the box becomes 1.8 times as wide and as high:
    Celeb-A's aligned pictures, from which the networks learn what a face looks like, are 1.9 times as wide and 1.8
    times as high as the boxes that a detector finds in pictures framed like them (measured, see docs/faces.md). Whoever
    reads "1.4 times as wide and as high" enlarges by 0.2.

    Args:
        face: in pixels of the picture.
        size: width and height of the picture. What reaches beyond it is cut off; nothing is made up.
        enlarge: by how much of its width or height each side moves outwards, at least 0.

    Returns:
        The box, rounded outwards to whole pixels; None if nothing of it lies in the picture.
    """
    width, height = size
    x, y = enlarge * face.width, enlarge * face.height
    box = PixelBox(
        max(0, math.floor(face.left - x)),
        max(0, math.floor(face.top - y)),
        min(width, math.ceil(face.right + x)),
        min(height, math.ceil(face.bottom + y)),
    )
    return box if box.left < box.right and box.top < box.bottom else None


def suppressed(
    boxes: Tensor, scores: Tensor, landmarks: Tensor | None, overlap: float, most: int = 5000
) -> tuple[FaceBox, ...]:
    """Keep of boxes that overlap the one with the highest score (greedy non-maximum suppression).

    Args:
        boxes: float [N, 4]: left, top, right, bottom. Those that are not finite or have no area are left out.
        scores: float [N].
        landmarks: float [N, 5, 2]: x, y; or None.
        overlap: intersection over union above which a box gives way.
        most: boxes with the highest scores that are looked at, at most.

    Returns:
        What stays, by falling score.
    """
    usable = torch.isfinite(boxes).all(1) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    order = torch.nonzero(usable).flatten()
    order = order[scores[order].argsort(descending=True, stable=True)[:most]]
    kept = order[nms(boxes[order].float(), scores[order].float(), overlap)]
    points: Sequence[tuple[Point, ...] | None]
    points = [None] * len(kept) if landmarks is None else [_points(face) for face in landmarks[kept].tolist()]
    return tuple(
        FaceBox(box[0], box[1], box[2], box[3], score, known)
        for box, score, known in zip(boxes[kept].tolist(), scores[kept].tolist(), points, strict=True)
    )


def merged(faces: Sequence[FaceBox], overlap: float) -> tuple[FaceBox, ...]:
    """Keep of faces that overlap the one with the highest score, as `suppressed`; returned by falling score."""
    if not faces:
        return ()
    ranked = sorted(faces, key=lambda face: -face.score)
    boxes = torch.tensor([[face.left, face.top, face.right, face.bottom] for face in ranked], dtype=torch.float64)
    scores = torch.arange(len(ranked), 0, -1, dtype=torch.float64)  # the order, whatever scores are equal
    return tuple(ranked[int(at)] for at in nms(boxes, scores, overlap))


def _points(rows: list[list[float]]) -> tuple[Point, ...]:
    return tuple((x, y) for x, y in rows)
