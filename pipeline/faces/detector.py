"""A face detector as the rest of the program sees it: a function of one picture."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.faces.face_box import FaceBox, merged

Pixels = npt.NDArray[np.uint8]

LONG_SIDES: Final = (1280, 640)
"""Pixels of the longer side, at which a picture is looked at."""

OVERLAP: Final = 0.3
"""Intersection over union above which two boxes are one face."""

_SMALLEST = 16  # pixels of a side, under which nobody sees a face


@dataclass(frozen=True, eq=False)
class Detector:
    """An opened detector. It may be used from several threads at once: nothing in it changes.

    Attributes:
        name: of the kind of detector.
        weights: hex SHA-256 of the file of its weights.
        confidence: score from which a box counts as a face.
        find: (uint8 [H, W, 3] RGB, least score) → faces in pixels of that array, overlaps resolved, by falling score.
        long_sides: pixels of the longer side, falling, at which a picture is looked at.
    """

    name: str
    weights: str
    confidence: float
    find: Callable[[Pixels, float], tuple[FaceBox, ...]]
    long_sides: tuple[int, ...] = LONG_SIDES

    def detect(self, picture: Pixels) -> tuple[FaceBox, ...]:
        """Find the faces of a picture.

        It is reduced to each of `long_sides` that is under its own, or looked at as it is if the first is not; what is
        found is merged. The paper says nothing of scale. The largest bounds time and memory whatever the picture's
        size: in a painting of 8,000 pixels a face of 100 is then one of 16, about the smallest that these detectors
        know. The smaller ones find large faces more surely, painted ones above all (docs/faces.md).

        Args:
            picture: uint8 [H, W, 3], RGB.

        Returns:
            Faces in pixels of `picture`, by falling score; of any size, not enlarged.
        """
        height, width = picture.shape[:2]
        if min(height, width) < _SMALLEST:
            return ()
        longer = max(height, width)
        found: list[FaceBox] = []
        for seen in dict.fromkeys(min(side, longer) for side in self.long_sides):
            if seen == longer:
                found += self.find(picture, self.confidence)
                continue
            size = max(_SMALLEST, round(width * seen / longer)), max(_SMALLEST, round(height * seen / longer))
            # Averages pixels: without that canvas and craquelure become a noise in which less is seen.
            small = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
            found += [face.scaled(width / size[0], height / size[1]) for face in self.find(small, self.confidence)]
        return merged(found, OVERLAP)
