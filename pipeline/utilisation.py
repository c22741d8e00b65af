"""How busy the engine keeps its slots when faces need wildly different numbers of evaluations."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.sample_pairs import Pair
from stylize.engine import repaint
from stylize.jobs import FaceJob, PaintingDraw
from stylize.slots import Slots
from stylize.transfer import StyleTransfer

FEWEST, MOST = 5, 150  # evaluations of a face
ROUNDS = 6  # faces per slot


@dataclass(frozen=True)
class Utilisation:
    """Useful evaluations per second, of the same work in the same run.

    Attributes:
        faces: how many, with budgets between `FEWEST` and `MOST`, uniform in the logarithm.
        evaluations: of all of them together.
        steady: rate of the engine on as many faces that all have the mean budget, so that every slot is always busy.
        in_flight: rate of the engine, decoding, judging and encoding included.
        fixed: rate of fixed batches, each done when its slowest face is.
    """

    faces: int
    evaluations: int
    steady: float
    in_flight: float
    fixed: float


def measure_utilisation(transfer: StyleTransfer, pairs: Sequence[Pair], batch_size: int, seed: int = 0) -> Utilisation:
    """Repaint faces of random budgets in flight, then the same faces in fixed batches.

    Args:
        transfer: with settings that end no attempt before its budget.
        pairs: used again and again where they are fewer than the faces.
        batch_size: slots, and faces in a fixed batch.
        seed: of the budgets.
    """
    count = ROUNDS * batch_size
    random = np.random.default_rng(seed)
    budgets = np.exp(random.uniform(np.log(FEWEST), np.log(MOST + 1), count)).astype(int).tolist()
    chosen = [pairs[number % len(pairs)] for number in range(count)]
    by_key = {str(number): pair for number, pair in enumerate(chosen)}

    def draw(key: str, number: int) -> PaintingDraw:
        return PaintingDraw(by_key[key].painting_id, by_key[key].read_painting)

    def run(work: Sequence[tuple[str, int]]) -> float:
        """Return useful evaluations per second of (key, budget)s in flight."""
        jobs = [FaceJob(key, by_key[key].read_face, budget) for key, budget in work]
        start = time.perf_counter()
        results = list(repaint(jobs, draw, transfer, batch_size=batch_size))
        seconds = time.perf_counter() - start
        return sum(result.attempts[-1].evaluations for result in results) / seconds

    keys = list(by_key)
    mean = round(sum(budgets) / count)
    steady = run([(key, mean) for key in keys])
    in_flight = run(list(zip(keys, budgets, strict=True)))
    fixed = _run_fixed(transfer, chosen, budgets, batch_size)
    return Utilisation(count, sum(budgets), steady, in_flight, fixed)


def _run_fixed(transfer: StyleTransfer, pairs: Sequence[Pair], budgets: Sequence[int], batch_size: int) -> float:
    size = pairs[0].face.shape[:2]
    useful = 0
    start = time.perf_counter()
    for first in range(0, len(pairs), batch_size):
        batch, own = pairs[first : first + batch_size], budgets[first : first + batch_size]
        slots = Slots(transfer, len(batch), size)
        faces, paintings = [pair.face for pair in batch], [pair.painting for pair in batch]
        slots.start(range(len(batch)), faces, paintings, [None] * len(batch), own)
        slots.advance(max(own))
        useful += int(slots.optimiser.evaluations.sum())  # waits
    return useful / (time.perf_counter() - start)
