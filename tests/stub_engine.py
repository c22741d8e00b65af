"""A stand-in for the engine of `stylize`: same contract, no network; a loss is a hash of face and painting."""

import hashlib
import io
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pipeline.plan import ShardSpec
from pipeline.shard_task import OnAttempt
from stylize.decode import decode_image
from stylize.errors import ImageError
from stylize.jobs import Draw, FaceJob, FaceResult
from stylize.retry import Attempt


@dataclass(frozen=True)
class StubEngine:
    """Picklable; attempts take `sleep` seconds; the process that takes the file `fuse` away kills itself.

    `raises` is an exception for the third face. Results come in reverse order, as an engine with slots may have it.
    """

    sleep: float = 0.0
    fuse: str | None = None
    raises: BaseException | None = None

    def __call__(
        self, spec: ShardSpec, faces: Sequence[FaceJob], draw: Draw, on_attempt: OnAttempt
    ) -> Iterator[FaceResult]:
        for number, face in enumerate(reversed(faces)):
            if self.fuse is not None and _take(Path(self.fuse)):
                os.kill(os.getpid(), signal.SIGKILL)
            if number == 2 and self.raises is not None:
                raise self.raises
            yield self._face(spec, face, draw, on_attempt)

    def _face(self, spec: ShardSpec, face: FaceJob, draw: Draw, on_attempt: OnAttempt) -> FaceResult:
        settings = spec.settings
        try:
            height, width, _ = decode_image(face.read()).shape
        except ImageError as error:
            return _result(face.key, "failed", [], error=str(error))
        attempts: list[Attempt] = []
        number = usable = 0
        while usable < settings.max_attempts and (painting := draw(face.key, number)) is not None:
            number += 1
            time.sleep(self.sleep)
            try:
                decode_image(painting.read())
            except ImageError as error:
                attempts.append(Attempt(painting.painting, None, None, None, 0, "unreadable_painting", str(error)))
            else:
                usable += 1
                loss = loss_of(face.key, painting.painting)
                attempts.append(Attempt(painting.painting, loss, (loss / 10,) * 5, loss / 2, 7, "evaluations", None))
            on_attempt(face.key, attempts[-1])
            last = attempts[-1].loss
            if last is not None and last < settings.threshold:
                picture = io.BytesIO()
                Image.new("RGB", (width, height), (int(last), 0, 0)).save(picture, "PNG")
                return _result(face.key, "accepted", attempts, image=picture.getvalue(), width=width, height=height)
        return _result(face.key, "rejected", attempts)


def _take(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def loss_of(face: str, painting: str) -> float:
    """Return a number in [0, 60) that depends on the pair alone: a third of all pairs are at 40 or more."""
    return int.from_bytes(hashlib.sha256(f"{face}|{painting}".encode()).digest()[:4], "big") / 2**32 * 60


def _result(  # noqa: PLR0917
    key: str,
    status: str,
    attempts: list[Attempt],
    image: bytes | None = None,
    width: int | None = None,
    height: int | None = None,
    error: str | None = None,
) -> FaceResult:
    return FaceResult(
        key=key,
        status=status,
        attempts=tuple(attempts),
        image=image,
        width=width,
        height=height,
        error=error,
        precision="fp32",
    )
