"""A stand-in for the engine that dies of some faces; in a file of its own, so that its processes load no more."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from stylize.errors import WeightsError
from tests.stub_engine import StubEngine


@dataclass(frozen=True)
class DeadlyEngine:
    """Picklable; takes one face after the other, and dies of those in `poison`; logs its process and faces.

    `how` is the name of a signal, "exit" or "raise". The process that takes the file `fuse` away dies of any face. With
    `hangs`, it names its process in that file at its first face, and goes on in ten minutes.
    """

    log: str
    poison: tuple[str, ...] = ()
    how: str = "SIGKILL"
    fuse: str | None = None
    hangs: str | None = None

    def __call__(self, spec, faces, draw, on_attempt):
        with open(self.log, "a", encoding="utf-8") as file:
            file.write(f"{os.getpid()} {' '.join(face.key for face in faces)}\n")
        print("an engine may print what it likes")
        for face in faces:
            face.read()
            if self.hangs is not None:
                Path(self.hangs).write_text(str(os.getpid()))
                time.sleep(600)
            if face.key in self.poison or self._burnt():
                self._die()
            yield from StubEngine()(spec, [face], draw, on_attempt)

    def _burnt(self):
        if self.fuse is None:
            return False
        try:
            Path(self.fuse).unlink()
        except FileNotFoundError:
            return False
        return True

    def _die(self):
        if self.how == "exit":
            os._exit(7)
        if self.how == "raise":
            raise WeightsError("the weights are of another network")
        os.kill(os.getpid(), getattr(signal, self.how))
