"""What the staff of an exhibition can choose."""

import math
from dataclasses import dataclass
from typing import Final

from manifests.errors import InputError

MEGABYTE: Final = 1 << 20


@dataclass(frozen=True)
class ExhibitionSettings:
    """Settings of the server; the page is told those that concern it.

    Attributes:
        language: that pages open in; None is the museum's.
        weight: λ that a search begins with; None is 0.2, or 0 where the index has no attributes.
        weight_max: the end of the slider.
        k: how many paintings are shown.
        idle_seconds: without a touch, after which the page asks whether anybody is there; the server forgets a visit
            that it has not heard of for twice as long.
        max_upload_bytes, max_pixels: of a photograph. Phones' largest ordinary pictures are within them; decoding takes
            about ten bytes a pixel for a moment.
        max_visits: at once. When a new one comes, the one unheard of for longest goes, if that is over `idle_seconds`.
        body_seconds: in which a request has to be sent.
        allowed_hosts: names that the server may be called by, beside those of this machine.
        explanation_steps: of integrated gradients. The library's 50 take 5 s of one core with MobileFaceNet and 40
            heads; 32 take 3 s, and the coloured regions are the same to the eye: their correlation with those of 200
            steps is 0.988 to 0.994 (50: 0.991 to 0.998; 24: 0.947 to 0.992; 16: 0.89 to 0.98).
        demo: the page says that this is a demonstration.

    Raises:
        InputError: a number is out of range.
    """

    language: str | None = None
    weight: float | None = None
    weight_max: float = 1.0
    k: int = 12
    idle_seconds: float = 90.0
    max_upload_bytes: int = 15 * MEGABYTE
    max_pixels: int = 50_000_000
    max_visits: int = 64
    body_seconds: float = 30.0
    allowed_hosts: tuple[str, ...] = ()
    explanation_steps: int = 32
    demo: bool = False

    def __post_init__(self) -> None:
        if self.weight is not None and not 0 <= self.weight <= self.weight_max:
            raise InputError(
                f"the weight of the attributes (lambda) of an exhibition must be from 0 to {self.weight_max:g}, not "
                f"{self.weight}"
            )
        if not 0 < self.weight_max < math.inf:
            raise InputError(f"the largest weight of the attributes must be a number above 0, not {self.weight_max}")
        if not 1 <= self.k <= 100:
            raise InputError(f"the number of paintings to show must be from 1 to 100, not {self.k}")
        if not 10 <= self.idle_seconds <= 3600:
            raise InputError(f"an exhibition starts over after 10 to 3600 seconds, not {self.idle_seconds:g}")
        for name in ("max_upload_bytes", "max_pixels", "max_visits", "body_seconds", "explanation_steps"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} of an exhibition must be above 0, not {getattr(self, name)}")

    @property
    def forget_seconds(self) -> float:
        """After how long without a request a visit is forgotten."""
        return 2 * self.idle_seconds
