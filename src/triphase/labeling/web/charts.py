"""Small charts as SVG inside the page; their colors come from the style sheet, their text from ``title``."""

from collections.abc import Mapping, Sequence
from math import ceil

from markupsafe import Markup, escape

from triphase.labeling.quality.agreement import Agreement, Estimate
from triphase.monitoring.wording import percent
from triphase.records.visible import visible

_WIDTH, _ROW = 560, 26
_WORD, _LETTER, _MOST_GUTTER, _MOST_LETTERS = 46, 8, 190, 22
"""Widths of a day's label with its margin, of a letter, and of the widest column of names; the longest name in it."""


def bars(points: Sequence[tuple[str, float]], title: str) -> Markup:
    """Vertical bars, one for each label, with the value on each; labels are thinned out where they would overlap."""
    if not points:
        return Markup("")
    height, top = 150, max(value for _, value in points) or 1.0
    width = _WIDTH / max(len(points), 8)
    step = ceil(_WORD / width)
    parts = [f'<line class="grid" x1="0" y1="{height - 21.5}" x2="{_WIDTH}" y2="{height - 21.5}"/>']
    for index, (label, value) in enumerate(points):
        tall = (height - 44) * value / top
        left, upper, middle = (index + 0.1) * width, height - 22 - tall, (index + 0.5) * width
        parts.append(
            f'<rect class="bar" x="{left:.1f}" y="{upper:.1f}" width="{0.8 * width:.1f}" height="{tall:.1f}" rx="2">'
            f"<title>{_words(label)}: {value:g}</title></rect>"
        )
        if (len(points) - 1 - index) % step == 0:
            parts.append(
                f'<text class="value" x="{middle:.1f}" y="{upper - 5:.1f}">{value:g}</text>'
                f'<text class="tick" x="{middle:.1f}" y="{height - 6}">{_words(label)}</text>'
            )
    return _svg(height, title, "".join(parts))


def intervals(rows: Sequence[tuple[str, Estimate | None]], title: str, mark: float | None = None) -> Markup:
    """Shares with their 95 % intervals on a scale from 0 to 100 %; ``mark`` draws a line (for example at 0.5, no
    bias)."""
    rows = [row for row in rows if row[1] is not None]
    if not rows:
        return Markup("")
    left = min(_MOST_GUTTER, 24 + _LETTER * max(len(label) for label, _ in rows))
    span = _WIDTH - left - 60
    height = _ROW * len(rows) + 24
    parts = [
        f'<line class="grid" x1="{left + span * share:.1f}" y1="4" x2="{left + span * share:.1f}" y2="{height - 20}"/>'
        f'<text class="tick" x="{left + span * share:.1f}" y="{height - 6}">{100 * share:.0f}</text>'
        for share in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    if mark is not None:
        x = left + span * mark
        parts.append(f'<line class="mark" x1="{x:.1f}" y1="4" x2="{x:.1f}" y2="{height - 20}"/>')
    for index, (label, estimate) in enumerate(rows):
        if estimate is None:
            continue
        y = _ROW * index + 16
        low, value, high = (left + span * share for share in (estimate.low, estimate.value, estimate.high))
        parts.append(
            f'<text class="label" x="{left - 10}" y="{y + 4}">{_name(label)}</text>'
            f'<line class="whisker" x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}"/>'
            f'<circle class="dot" cx="{value:.1f}" cy="{y}" r="5"/>'
            f'<text class="value end" x="{_WIDTH - 4}" y="{y + 4}">{percent(estimate.value)}</text>'
        )
    return _svg(height, title, "".join(parts))


def matrix(by_pair: Mapping[tuple[str, str], Agreement], title: str) -> Markup:
    """Agreement of each two labelers as a table of shaded squares."""
    names = sorted({name for pair in by_pair for name in pair})
    if not names or len(names) > 24:
        return Markup("")
    left = min(_MOST_GUTTER, 16 + _LETTER * max(len(name) for name in names))
    cell = min(46.0, (_WIDTH - left) / len(names))
    top = 12 + 0.7 * (left - 16)
    parts = []
    for row, name in enumerate(names):
        x, y = left + cell * (row + 0.5), top + cell * row
        parts.append(
            f'<text class="label start" x="{x:.1f}" y="{top - 6:.1f}" transform="rotate(-40 {x:.1f} {top - 6:.1f})">'
            f"{_name(name)}</text>"
        )
        parts.append(f'<text class="label" x="{left - 8}" y="{y + cell / 2 + 4:.1f}">{_name(name)}</text>')
        for column, other in enumerate(names):
            found = by_pair.get((min(name, other), max(name, other)))
            if name == other or found is None or found.value is None:
                continue
            share = found.value.value
            x = left + cell * column
            level = max(0, min(9, int((share - 0.4) / 0.06)))
            side = f"{cell - 2:.1f}"
            parts.append(
                f'<rect class="cell heat{level}" x="{x:.1f}" y="{y:.1f}" width="{side}" height="{side}">'
                f"<title>{_words(name)} and {_words(other)}: {percent(share)} of {found.value.pairs} pairs</title>"
                f'</rect><text class="incell heat{level}" x="{x + cell / 2 - 1:.1f}" y="{y + cell / 2 + 1:.1f}">'
                f'{100 * share:.0f}</text><text class="incell pairs heat{level}" x="{x + cell / 2 - 1:.1f}" '
                f'y="{y + cell / 2 + 13:.1f}">n {found.value.pairs}</text>'
            )
    return _svg(top + cell * len(names) + 4, title, "".join(parts))


def _words(text: str) -> Markup:
    return escape(visible(text))


def _name(text: str) -> Markup:
    """A name as its column has room for it, in full under the pointer."""
    short = text if len(text) <= _MOST_LETTERS else f"{text[: _MOST_LETTERS - 1]}…"
    return _words(short) if short == text else _words(short) + Markup("<title>{}</title>").format(_words(text))


def _svg(height: float, title: str, inner: str) -> Markup:
    return Markup(  # noqa: S704 (words are escaped)
        f'<div class="wide" tabindex="0" role="region" aria-label="{_words(title)}">'
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{_words(title)}">'
        f"<title>{_words(title)}</title>{inner}</svg></div>"
    )
