"""How features are normalised and in which unit the loss is reported: what the paper leaves open, by name."""

from __future__ import annotations

from dataclasses import dataclass

STYLE_LAYERS = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")  # PersonArt Sec. 5
CONTENT_LAYER = "conv4_2"


@dataclass(frozen=True)
class Convention:
    """A reading of Eq. 2 and 3.

    Attributes:
        name: As recorded in every manifest row.
        unit_rms: Whether each layer's features are divided by their RMS on the reference batch (`stylize.unit_rms`).
        loss_unit: What every reported loss is multiplied by.

    """

    name: str
    unit_rms: bool
    loss_unit: float


# The loss unit puts the paper's threshold of 40 at the worst tenth of real pairs: docs/objective.md has the histogram.
CONVENTIONS = {
    "personart": Convention("personart", unit_rms=True, loss_unit=3000.0),
    "raw": Convention("raw", unit_rms=False, loss_unit=1.0),
}
