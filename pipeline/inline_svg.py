"""A figure of matplotlib's as SVG inside an HTML page, in the page's own colours and type."""

import io
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def inline_svg(figure: "Figure", caption: str, variables: Mapping[str, str]) -> str:
    """Return a figure as an ``<svg>`` element, as wide as the page lets it be.

    Args:
        figure: drawn in the colours that `variables` names.
        caption: what a screen reader says.
        variables: colour of the figure, ``#rrggbb``, → what stands in its place, ``var(--name)``.
    """
    drawing = io.StringIO()
    figure.savefig(drawing, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None})
    svg = drawing.getvalue()
    svg = svg[svg.index("<svg") :]  # no XML declaration inside of HTML
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    used = set(re.findall(r"#([\w-]+)[\")]", svg))
    # Names of groups would be the same in every plot of a page, where they have to be unique; nobody refers to them.
    svg = re.sub(r' id="([\w.-]+)"', lambda found: found[0] if found[1] in used else "", svg)
    for side in ("width", "height"):
        svg = re.sub(rf'(<svg [^>]*?){side}="[^"]*"', r"\1", svg, count=1)
    for colour, variable in variables.items():
        svg = svg.replace(colour, variable)
    svg = re.sub(r"font-family: [^;\"]*|'DejaVu Sans'[^;\"]*", "font-family: inherit", svg)
    label = caption.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1).strip()
