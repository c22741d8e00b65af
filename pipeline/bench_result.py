"""What a benchmark measured, and the ratios that follow from it."""

import statistics
from dataclasses import dataclass

from pipeline.utilisation import Utilisation


@dataclass(frozen=True)
class PrecisionMeasure:
    """What a precision costs and gains.

    Attributes:
        precision: its name.
        seconds_per_evaluation: of one image in a batch of the few pairs compared, optimiser included.
        loss_over_fp32: final fp32 losses after optimising in it, over those after optimising in fp32: median.
        lowest, highest: of these ratios.
    """

    precision: str
    seconds_per_evaluation: float
    loss_over_fp32: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Bench:
    """What was measured. Rates are per second; losses are final ones, in fp32, of 8-bit images.

    Attributes:
        device, cuda, precision, batch_size, size, threads, versions: of the machine and the run; threads are PyTorch's.
        evaluations: per image, asked of both.
        seconds, images, evaluations_done: of the engine: the whole run, decoding, judging and encoding included.
        textbook_seconds, textbook_images, textbook_evaluations_done: of the textbook loop: optimisation alone.
        textbook_diverged: pairs that the textbook loop ended with a loss that is not finite; they count for its time
            and not for its losses.
        losses, textbook_losses: per pair, of the pairs that both have repainted.
        evaluations_needed: per such pair, evaluations until the engine has the textbook's final loss; infinite where it
            never has it.
        peak: best rate of a matrix product in the same precision, FLOP/s.
        flops: of one evaluation of one image.
        shares: of the engine's time, by section; the rest is "other". On CUDA of a run without graphs, which waits for
            the device at every section.
        precisions: all that this device has natively.
        slot_bytes: memory of one slot; None where it cannot be measured.
        default_evaluations, utilisation: for the estimate of all of Celeb-A; of the run of its own, if asked for.
    """

    device: str
    cuda: bool
    precision: str
    batch_size: int
    size: tuple[int, int]
    threads: int
    versions: dict[str, str]
    weights: str
    evaluations: int
    seconds: float
    images: int
    evaluations_done: int
    textbook_seconds: float
    textbook_images: int
    textbook_evaluations_done: int
    textbook_diverged: int
    losses: tuple[float, ...]
    textbook_losses: tuple[float, ...]
    evaluations_needed: tuple[float, ...]
    peak: float
    flops: int
    shares: dict[str, float]
    precisions: tuple[PrecisionMeasure, ...]
    slot_bytes: int | None
    default_evaluations: int
    utilisation: Utilisation | None

    @property
    def images_per_second(self) -> float:
        """Return the engine's rate, for images of `evaluations` each."""
        return self.evaluations_done / self.evaluations / self.seconds

    @property
    def textbook_images_per_second(self) -> float:
        """Return the textbook loop's rate, for images of `evaluations` each."""
        return self.textbook_evaluations_done / self.evaluations / self.textbook_seconds

    @property
    def ratio_equal_evaluations(self) -> float:
        """Return how many times faster the engine is, both doing the same number of evaluations."""
        return self.images_per_second / self.textbook_images_per_second

    @property
    def median_evaluations_needed(self) -> float:
        """Return the median of `evaluations_needed`."""
        return statistics.median(self.evaluations_needed)

    @property
    def ratio_equal_quality(self) -> float:
        """Return how many times faster the engine reaches the textbook's final loss; 0 if half of the pairs do not.

        Only the time of network and optimiser is proportional to the evaluations.
        """
        proportional = self.shares.get("network", 0.0) + self.shares.get("optimiser", 0.0)
        time = 1 - proportional + proportional * self.median_evaluations_needed / self.evaluations
        return self.ratio_equal_evaluations / time

    @property
    def loss_over_textbook(self) -> float:
        """Return the median ratio of final losses at equal evaluations."""
        return statistics.median(a / b for a, b in zip(self.losses, self.textbook_losses, strict=True))

    @property
    def flops_per_second(self) -> float:
        """Return the rate at which the engine computes."""
        return self.images_per_second * self.evaluations * self.flops

    @property
    def share_of_peak(self) -> float:
        """Return the engine's rate over that of a matrix product."""
        return self.flops_per_second / self.peak
