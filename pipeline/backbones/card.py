"""What has to be known of a face recognition network to feed it and to trust its numbers."""

from dataclasses import dataclass
from typing import Literal

ChannelOrder = Literal["rgb", "bgr", "grey"]


@dataclass(frozen=True)
class BackboneCard:
    """One network and the weights that are in circulation for it.

    Attributes:
        name: as users give it.
        width, height: of the input in pixels.
        channels: order of the input's channels; "grey" is one channel, ITU-R BT.601 luma.
        mean, std: per input channel, in that order, of pixels in 0–255: the input is (pixel - mean) / std.
        crop: what the network wants to see of an aligned Celeb-A image: left, top, right, bottom as fractions of its
            width and height. None is the whole image.
        embedding: D, the width of the embedding.
        parameters: how many, without the classifier.
        source: where weights come from: project, data set, address of the page.
        licence: of those weights, as stated there.
        note: traps.
    """

    name: str
    width: int
    height: int
    channels: ChannelOrder
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: tuple[float, float, float, float] | None
    embedding: int
    parameters: int
    source: str
    licence: str
    note: str = ""
