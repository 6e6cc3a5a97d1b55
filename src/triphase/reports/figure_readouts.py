"""Tooltips of a figure: values in the SVG itself, shown by the style sheet, without any script.

Every value has an area that reacts to the pointer (a column over the whole height, or a disc around a point) and a box
of text that the style sheet hides until the pointer is there. A box never leaves the figure.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import floor, isfinite, log10

from triphase.monitoring.wording import number, percent
from triphase.records.visible import visible

_ADVANCE, _LINE, _PAD = 6.2, 15.0, 7.0
"""Width of a character and height of a line at 11 px, and the margin around the text."""
_REACH = 7.0
"""Radius around a point that reacts to the pointer."""
_LONGEST = 22
MOST_COLUMNS = 64
"""Maximum columns of a figure; with more steps an evenly spaced selection has one, with the first and the last."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a box: the variable of the style sheet for its mark (none for no mark), and the text."""

    color: str
    text: str


@dataclass(frozen=True, slots=True)
class Readout:
    """The text at a position in the units of the axes; ``y`` is None for a column over the whole height."""

    x: float
    y: float | None
    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Frame:
    """The inside of the axes in units of the SVG, and the size of the whole."""

    left: float
    right: float
    top: float
    bottom: float
    width: float
    height: float


def reading(value: float) -> str:
    """A number with three significant digits: 0.0123, 1.23, 12.3, 123."""
    if value == 0 or not isfinite(value):
        return number(value, 0)
    return number(value, max(0, min(5, 2 - floor(log10(abs(value))))))


def percent_reading(value: float) -> str:
    """A share with one decimal."""
    return percent(value, 1)


def columns(
    title: str,
    curves: Mapping[str, tuple[str, Sequence[float], Sequence[float]]],
    text: Callable[[float], str] = reading,
) -> list[Readout]:
    """One readout for each step of curves over steps: label → (color, steps, values)."""
    tables = {label: (color, dict(zip(steps, values, strict=True))) for label, (color, steps, values) in curves.items()}
    steps = evenly(sorted({step for _, table in tables.values() for step in table}), MOST_COLUMNS)
    return [
        Readout(
            step,
            None,
            f"{title} {step:g}",
            tuple(
                Line(color, f"{_short(label)} {text(table[step])}".strip())
                for label, (color, table) in tables.items()
                if step in table
            ),
        )
        for step in steps
    ]


def evenly(values: Sequence[float], most: int) -> list[float]:
    """At most this many of them, with the first and the last."""
    if len(values) <= most:
        return list(values)
    return [values[round(place * (len(values) - 1) / (most - 1))] for place in range(most)]


def overlay(readouts: Sequence[tuple[Readout, float, float | None]], frame: Frame) -> str:
    """The SVG of readouts, each positioned in units of the SVG."""
    across = sorted({x for _, x, y in readouts if y is None})
    drawn = []
    for readout, x, y in readouts:
        if y is None:
            left, right = _column(x, across, frame)
            target = _rectangle(left, frame.top, right - left, frame.bottom - frame.top)
            mark = f'<path d="M{x:.1f} {frame.top:.1f}V{frame.bottom:.1f}"/>'
        else:
            target, mark = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{_REACH:g}"/>', ""
        drawn.append(f'<g class="at">{target}<g class="says">{mark}{_box(readout, x, y, frame)}</g></g>')
    return "".join(drawn)


def _column(x: float, across: Sequence[float], frame: Frame) -> tuple[float, float]:
    place = bisect_left(across, x)
    left = (across[place - 1] + x) / 2 if place else frame.left
    right = (across[place + 1] + x) / 2 if place + 1 < len(across) else frame.right
    return max(min(left, x), 0.0), min(max(right, x), frame.width)


def _box(readout: Readout, x: float, y: float | None, frame: Frame) -> str:
    marked = any(line.color for line in readout.lines)
    longest = max([len(readout.title), *(len(line.text) + 2 * marked for line in readout.lines)])
    width = min(frame.width, longest * _ADVANCE + 2 * _PAD)
    height = min(frame.height, (1 + len(readout.lines)) * _LINE + _PAD)
    left = x + 8 if x + 8 + width <= frame.width else x - 8 - width
    left = min(max(0.0, left), frame.width - width)
    top = frame.top if y is None else min(max(0.0, y - height / 2), frame.height - height)
    texts = [f'<text x="{left + _PAD:.1f}" y="{top + _LINE - 1:.1f}" class="title">{_shown(readout.title)}</text>']
    for place, line in enumerate(readout.lines, start=2):
        below = top + place * _LINE - 1
        shift = 0.0
        if line.color:
            shift = 12.0
            texts.append(_rectangle(left + _PAD, below - 8, 8, 8, f' class="{line.color}"'))
        texts.append(f'<text x="{left + _PAD + shift:.1f}" y="{below:.1f}">{_shown(line.text)}</text>')
    return _rectangle(left, top, width, height, ' rx="4" class="box"') + "".join(texts)


def _rectangle(left: float, top: float, width: float, height: float, rest: str = "") -> str:
    return f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}"{rest}/>'


def _shown(text: str) -> str:
    return escape(visible(text))


def _short(text: str) -> str:
    shown = visible(text)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"
