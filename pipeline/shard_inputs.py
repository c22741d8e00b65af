"""What the engine is given for the faces of one shard: their images, and the paintings in the order of their draws."""

import dataclasses
import errno
from collections.abc import Callable, Collection, Iterable, Sequence

import pyarrow as pa

from manifests import schema
from manifests.errors import InputError, RunError
from manifests.image_source import ImageSource
from pipeline.plan import ShardSpec
from stylize.errors import ImageError
from stylize.jobs import Draw, FaceJob, FaceResult, PaintingDraw
from stylize.retry import Attempt

OnAttempt = Callable[[str, Attempt], None]
Engine = Callable[[ShardSpec, Sequence[FaceJob], Draw, OnAttempt], Iterable[FaceResult]]

# These say that the machine or its storage is unwell, not that one image is: rows must not blame the image.
_MACHINE_ERRORS = frozenset(
    {
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOTCONN,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.EHOSTDOWN,
    }
)


def part_of(spec: ShardSpec, faces: Collection[str]) -> ShardSpec:
    """Return the task cut down to some of its faces, by image_id; their order stays the shard's."""
    ids = spec.faces[schema.IMAGE_ID].to_pylist()
    places = [place for place, face in enumerate(ids) if face in faces]
    return dataclasses.replace(spec, faces=spec.faces.take(pa.array(places, pa.int64())), draws=spec.draws[places])


def face_jobs(spec: ShardSpec, begin: Callable[[str], None]) -> list[FaceJob]:
    """Return a job for every face of the task; `begin` is told of a face before it is read, in the reading thread."""

    def job(face: str, locator: str) -> FaceJob:
        def read() -> bytes:
            begin(face)
            return _read(spec.face_source, locator)

        return FaceJob(face, read)

    return [
        job(face, locator)
        for face, locator in zip(
            spec.faces[schema.IMAGE_ID].to_pylist(), spec.faces["locator"].to_pylist(), strict=True
        )
    ]


def painting_draws(spec: ShardSpec) -> Draw:
    """Return what draws the paintings of the task's faces, as the plan has decided."""
    ids, locators = spec.paintings[schema.PAINTING].to_pylist(), spec.paintings["locator"].to_pylist()
    order = dict(zip(spec.faces[schema.IMAGE_ID].to_pylist(), spec.draws.tolist(), strict=True))

    def draw(face: str, number: int) -> PaintingDraw | None:
        row = order[face]
        if number >= len(row):
            return None
        index = row[number]
        return PaintingDraw(ids[index], lambda: _read(spec.painting_source, locators[index]))

    return draw


def _read(source: ImageSource, locator: str) -> bytes:
    """Read one image; whatever is wrong with it alone becomes an `ImageError`, the kind the engine knows."""
    try:
        return source.read(locator)
    except InputError as error:
        raise ImageError(str(error)) from error
    except OSError as error:
        if error.errno in _MACHINE_ERRORS or isinstance(error, (ConnectionError, TimeoutError)):
            reason = error.strerror or str(error)
            raise RunError(f'reading "{locator}" from "{source.root}" failed ({reason})') from error
        raise ImageError(f'"{locator}" cannot be read ({error.strerror or error})') from error
