"""The demo's proxies as pictures for a screen: 89 x 109 pixels are too few to be looked at from a metre.

A proxy keeps where everything was in the drawing that it was made from, and that drawing can be made at any size. So a
picture is the proxy, enlarged, and what the larger drawing has beyond its own reduced copy: outlines and strands.
Reduced again it is the proxy, as far as 8 bits allow; so the network that describes it sees the proxy.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.demo import demo
from pipeline.demo.cartoon_faces import draw_celeba
from pipeline.training.run_faces import RunFaces
from stylize.decode import decode_image

Pixels = npt.NDArray[np.uint8]

ENLARGED: Final = 4
_QUALITY: Final = 92


def enlarge_proxies(run: RunFaces, folder: Path) -> None:
    """Write a JPEG of every accepted proxy of the demo's run, named by its image_id; the folder is made whole or not.

    Args:
        run: of `pipeline.demo.demo.run_demo`, whose drawings are made again, larger.
        folder: new; its parent is there.

    Raises:
        OSError: it cannot be written.
    """
    width, height = (ENLARGED * side for side in run.size)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".drawing-") as drawing:
        drawn, made = Path(drawing, "drawn"), Path(drawing, "made")
        made.mkdir()
        draw_celeba(
            drawn,
            identities=demo.IDENTITIES,
            images_per_identity=demo.IMAGES_PER_IDENTITY,
            size=(width, height),
        )
        for name, proxy in _proxies(run):
            large = decode_image((drawn / "img_align_celeba" / name).read_bytes())
            Image.fromarray(enlarged(proxy, large)).save(made / name, quality=_QUALITY, subsampling=0)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(made, folder)


def enlarged(proxy: Pixels, drawing: Pixels) -> Pixels:
    """Return a proxy at the size of a larger drawing of the same face, with that drawing's detail.

    Args:
        proxy: uint8 [h, w, 3].
        drawing: uint8 [H, W, 3], at least as large.

    Returns:
        uint8 [H, W, 3].
    """
    small, large = proxy.shape[1::-1], drawing.shape[1::-1]
    coarse = Image.fromarray(drawing).resize(small, Image.Resampling.BOX)
    enlarging = [_floats(Image.fromarray(proxy)), _floats(coarse)]
    base, without = (_resized(pixels, large) for pixels in enlarging)
    mixed: Pixels = (base + drawing.astype(np.float32) - without).clip(0, 255).round().astype(np.uint8)
    return mixed


def _proxies(run: RunFaces) -> Iterator[tuple[str, Pixels]]:
    for at, name in enumerate(run.table["image_id"].to_pylist()):
        yield name, run.proxies(np.array([at]))[0].permute(1, 2, 0).contiguous().numpy()


def _floats(image: Image.Image) -> npt.NDArray[np.float32]:
    return np.asarray(image, dtype=np.float32)


def _resized(pixels: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Enlarge without rounding in between, so that what is added and taken away cancel."""
    channels = [Image.fromarray(pixels[:, :, at]).resize(size, Image.Resampling.BICUBIC) for at in range(3)]
    return np.stack([np.asarray(channel) for channel in channels], axis=2)
