"""The style of figures: colors that follow the page's light or dark theme, and reproducible SVG."""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from triphase.monitoring.wording import percent
from triphase.reports.figure_readouts import Frame, Readout, overlay

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Each color represents a variable of the page's style sheet, which has a light and a dark value for it. The pairs of
# series colors can be told apart with all common kinds of color blindness; shapes and dashes differ as well.
INK, MUTED, GRID, PAPER = "#1a1b1c", "#5f6163", "#dfe1e3", "#fdfdfe"
BLUE, ORANGE, GREEN, PURPLE, AMBER = "#0b62a8", "#c44a17", "#117a5b", "#87479b", "#a87900"
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    PAPER: "paper",
    BLUE: "blue",
    ORANGE: "orange",
    GREEN: "green",
    PURPLE: "purple",
    AMBER: "amber",
}
SERIES = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (PURPLE, "D"), (AMBER, "v"))
"""Color and marker of the first, second … run."""

_MOST_DIGITS = 4
_ENLARGED = 500
"""From this width on a phone shrinks a figure and enlarges its words, which need room between ticks and axis labels."""

_STYLE: Any = {
    "axes.formatter.useoffset": False,
    "svg.fonttype": "none",
    "svg.id": None,
    "text.parse_math": False,
    "font.size": 11,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelsize": 11,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "text.color": INK,
    "axes.titlecolor": INK,
    "figure.facecolor": "none",
    "legend.frameon": True,
    "legend.facecolor": PAPER,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.85,
    "legend.fancybox": False,
    "legend.fontsize": 11,
    "lines.linewidth": 1.8,
    "lines.markersize": 4,
}


class Canvas:
    """A figure being drawn; ``svg`` holds the result once the ``drawing`` block has ended."""

    def __init__(self, figure: "Figure") -> None:
        self.figure = figure
        self.axes: Axes = figure.add_subplot()
        self.readouts: list[Readout] = []
        self.svg = ""

    def overlay(self, width: float, height: float) -> str:
        """The readouts as SVG; the figure must have been laid out."""
        corners = self.axes.get_position()
        frame = Frame(
            corners.x0 * width,
            corners.x1 * width,
            (1 - corners.y1) * height,
            (1 - corners.y0) * height,
            width,
            height,
        )
        to_figure = self.axes.transData - self.figure.transFigure
        placed = []
        for each in self.readouts:
            x, y = to_figure.transform((each.x, self.axes.get_ylim()[0] if each.y is None else each.y))
            placed.append((each, float(x) * width, None if each.y is None else (1 - float(y)) * height))
        return overlay(placed, frame)


@contextmanager
def drawing(name: str, description: str, *, width: int = 540, height: int = 300) -> Iterator[Canvas]:
    """A figure of ``width`` × ``height`` CSS pixels. ``name`` is unique on the page; ``description`` is read aloud."""
    from matplotlib import rc_context, rcdefaults, rcParams
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # A damaged file may contain 1e308, whose ticks are drawn as far as possible; the page says that it is damaged.
    with rc_context(), np.errstate(over="ignore", invalid="ignore"):
        rcdefaults()  # ignores the user's matplotlibrc
        rcParams.update({**_STYLE, "svg.hashsalt": name})
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        canvas = Canvas(figure)
        yield canvas
        if width >= _ENLARGED:
            canvas.axes.xaxis.labelpad, canvas.axes.yaxis.labelpad = 8, 14
        buffer = io.StringIO()
        FigureCanvasSVG(figure).print_svg(
            buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )  # type: ignore[no-untyped-call]
        svg = _inline(buffer.getvalue(), name, escape(description))
        canvas.svg = svg.removesuffix("</svg>") + canvas.overlay(width, height) + "</svg>"


def whole_steps(axes: "Axes", label: str) -> None:
    """Integer ticks on an x axis."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))


def percents(axis: "Axis", *, nbins: int = 6) -> None:
    """An axis of shares: ticks as percentages, with just enough decimals to distinguish neighbors."""
    from matplotlib.ticker import Formatter, MaxNLocator

    class Percents(Formatter):
        def format_ticks(self, values: Sequence[float]) -> list[str]:
            digits = next((digits for digits in range(_MOST_DIGITS) if _differ(values, digits)), _MOST_DIGITS)
            return [percent(value, digits).replace("-", "\N{MINUS SIGN}") for value in values]

        def __call__(self, x: float, pos: int | None = None) -> str:
            del pos
            return percent(x, 1)

    axis.set_major_locator(MaxNLocator(nbins=nbins, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(Percents())


def _differ(values: Sequence[float], digits: int) -> bool:
    return len({percent(value, digits) for value in values}) == len(set(values))


def marker_size(points: Sequence[object]) -> float:
    """Markers for few points, none for many."""
    return 4 if len(points) <= 30 else 0


def name_of(color: str) -> str:
    """The style sheet's variable for a color of this module."""
    return _VARIABLES[color]


def _inline(svg: str, name: str, description: str) -> str:
    """The svg element alone, with ids unique on the page, and the colors and font of the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = svg.replace("xlink:href=", "href=")
    svg = re.sub(r'(\bid="|\bhref="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", svg)
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, f"var(--{variable})")
    head, rest = svg.split(">", 1)
    head = re.sub(r' (width|height|version|xmlns|xmlns:xlink)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{description}">{rest.strip()}'
