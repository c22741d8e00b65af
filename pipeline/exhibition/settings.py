"""What the staff of an exhibition can choose."""

import math
from dataclasses import dataclass
from typing import Final

from manifests.errors import InputError
from pipeline.exhibition.host_name import host_name

MEGABYTE: Final = 1 << 20
_AFTER_BODY: Final = 15.0  # seconds, for a photograph that has come at last to be looked at


@dataclass(frozen=True)
class ExhibitionSettings:
    """Settings of the server; the page is told those that concern it.

    Attributes:
        language: that pages open in; None is the museum's.
        weight: λ that a search begins with; None is 0.2, or 0 where the index has no attributes.
        weight_max: the end of the slider.
        k: how many paintings are shown.
        idle_seconds: without a touch, after which the page asks whether anybody is there; the server forgets a visit
            that it has not heard of for twice as long, and never sooner than a photograph may be on its way.
        max_upload_bytes, max_pixels: of a photograph. Phones' largest ordinary pictures are within them; decoding takes
            up to 26 bytes a pixel for a moment (`stylize.decode`; 1.3 GB at the most), and two are decoded at once.
        max_visits: at once. When a new one comes, the one unheard of for longest goes, if that is over `idle_seconds`.
        body_seconds: in which a request has to be sent.
        allowed_hosts: names and addresses that the server may be called by, beside those of this machine; as
            `host_name` takes them, and a port makes no difference.
        explanation_steps: of integrated gradients. The library's 50 take 5 s of one core with MobileFaceNet and 40
            heads; 32 take 3 s, and the coloured regions are the same to the eye: their correlation with those of 200
            steps is 0.988 to 0.994 (50: 0.991 to 0.998; 24: 0.947 to 0.992; 16: 0.89 to 0.98).
        demo: the page says that this is a demonstration.

    Raises:
        InputError: a number is out of range, or a host is no name and no address.
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
        for host in self.allowed_hosts:
            if host_name(host) is None:
                raise InputError(
                    f'"{host}" is neither a name nor an address by which browsers could call the exhibition; write one '
                    "such as faces.museum.example or 192.168.1.7, without http:// and without a path, international "
                    "names as xn--…"
                )
        for name in ("max_upload_bytes", "max_pixels", "max_visits", "body_seconds", "explanation_steps"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} of an exhibition must be above 0, not {getattr(self, name)}")

    @property
    def forget_seconds(self) -> float:
        """After how long without a request a visit is forgotten."""
        return max(2 * self.idle_seconds, self.body_seconds + _AFTER_BODY)
