"""Small charts as SVG inside the page; their colors come from the style sheet, their text from ``title``."""

from collections.abc import Mapping, Sequence
from math import ceil

from markupsafe import Markup, escape

from triphase.labeling.quality.agreement import Agreement, Estimate
from triphase.monitoring.wording import percent
from triphase.records.visible import visible

_WIDTH, _PHONE, _ROW = 560, 330, 26
_WORD, _DIGIT, _LETTER, _MOST_GUTTER, _MOST_LETTERS = 46, 9, 7, 190, 22
"""Widths of a day's label with its margin, of a digit, of a letter, and of the widest column of names of the matrix;
the longest name in it. Charts in percent of the width have texts of full size on a phone too, ``_PHONE`` wide."""


def bars(points: Sequence[tuple[str, float]], title: str) -> Markup:
    """Vertical bars, one for each label, with the value on each; labels are thinned out where they would overlap."""
    if not points:
        return Markup("")
    height, top = 150, max(value for _, value in points) or 1.0
    columns = max(len(points), 8)
    width, phone = 100 / columns, _PHONE / columns
    day, figure = ceil(_WORD / phone), ceil(_DIGIT * (len(f"{top:g}") + 1) / phone)
    parts = [f'<line class="grid" x1="0" y1="{height - 21.5}" x2="100%" y2="{height - 21.5}"/>']
    for index, (label, value) in enumerate(points):
        tall = (height - 44) * value / top
        left, upper, middle = (index + 0.1) * width, height - 22 - tall, (index + 0.5) * width
        parts.append(
            f'<rect class="bar" x="{left:.2f}%" y="{upper:.1f}" width="{0.8 * width:.2f}%" height="{tall:.1f}" rx="2">'
            f"<title>{_words(label)}: {value:g}</title></rect>"
        )
        before_last = len(points) - 1 - index
        if before_last % figure == 0:
            parts.append(f'<text class="value" x="{middle:.2f}%" y="{upper - 5:.1f}">{value:g}</text>')
        if before_last % day == 0:
            parts.append(f'<text class="tick" x="{middle:.2f}%" y="{height - 6}">{_words(label)}</text>')
    return _fluid(height, title, "".join(parts))


def intervals(rows: Sequence[tuple[str, Estimate | None]], title: str, mark: float | None = None) -> Markup:
    """Shares with their 95 % intervals on a scale from 0 to 100 %; ``mark`` draws a line (for example at 0.5, no
    bias)."""
    rows = [row for row in rows if row[1] is not None]
    if not rows:
        return Markup("")
    most = _MOST_LETTERS * 2 // 3
    left = 100 * (16 + _LETTER * min(most, max(len(label) for label, _ in rows))) / _PHONE
    span = 100 - left - 100 * 50 / _PHONE
    height = _ROW * len(rows) + 24
    parts = [
        f'<line class="grid" x1="{x:.2f}%" y1="4" x2="{x:.2f}%" y2="{height - 20}"/>'
        f'<text class="tick" x="{x:.2f}%" y="{height - 6}">{100 * share:.0f}</text>'
        for share in (0.0, 0.25, 0.5, 0.75, 1.0)
        for x in (left + span * share,)
    ]
    if mark is not None:
        x = left + span * mark
        parts.append(f'<line class="mark" x1="{x:.2f}%" y1="4" x2="{x:.2f}%" y2="{height - 20}"/>')
    for index, (label, estimate) in enumerate(rows):
        if estimate is None:
            continue
        y = _ROW * index + 16
        low, value, high = (left + span * share for share in (estimate.low, estimate.value, estimate.high))
        parts.append(
            f'<text class="label" x="{left:.2f}%" dx="-10" y="{y + 4}">{_name(label, most)}</text>'
            f'<line class="whisker" x1="{low:.2f}%" y1="{y}" x2="{high:.2f}%" y2="{y}"/>'
            f'<circle class="dot" cx="{value:.2f}%" cy="{y}" r="5">'
            f"<title>{_words(label)}: {_estimate_text(estimate)}</title></circle>"
            f'<text class="value end" x="100%" dx="-2" y="{y + 4}">{percent(estimate.value)}</text>'
        )
    return _fluid(height, title, "".join(parts))


def matrix(by_pair: Mapping[tuple[str, str], Agreement], title: str) -> Markup:
    """Agreement of each two labelers as a table of shaded squares: percent, 95 % interval where there is room, and
    number of pairs."""
    names = sorted({name for pair in by_pair for name in pair})
    if not names or len(names) > 24:
        return Markup("")
    left = min(_MOST_GUTTER, 16 + (_LETTER + 1) * max(len(name) for name in names))
    cell = min(60.0, (_WIDTH - left) / len(names))
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
            parts.append(_cell(f"{_words(name)} and {_words(other)}", found.value, left + cell * column, y, cell))
    return _svg(top + cell * len(names) + 4, title, "".join(parts))


def _cell(who: str, share: Estimate, x: float, y: float, cell: float) -> str:
    """One square; its interval stands in it where three lines have room, and always under the pointer."""
    heat = f"heat{max(0, min(9, int((share.value - 0.4) / 0.06)))}"
    lines = [("incell", f"{100 * share.value:.0f}")]
    if cell >= 52 and share.prompts > 1:
        lines.append(("incell pairs", f"{100 * share.low:.0f}–{100 * share.high:.0f}"))
    lines.append(("incell pairs", f"n {share.pairs}"))
    side, middle, first = f"{cell - 2:.1f}", x + cell / 2 - 1, y + cell / 2 + 8 - 6.5 * len(lines)
    texts = "".join(
        f'<text class="{kind} {heat}" x="{middle:.1f}" y="{first + 12.5 * line:.1f}">{text}</text>'
        for line, (kind, text) in enumerate(lines)
    )
    return (
        f'<rect class="cell {heat}" x="{x:.1f}" y="{y:.1f}" width="{side}" height="{side}">'
        f"<title>{who}: {_estimate_text(share)}, {share.pairs} pairs</title></rect>{texts}"
    )


def _estimate_text(share: Estimate) -> str:
    if share.prompts < 2:
        return f"{percent(share.value)}, one prompt"
    return f"{percent(share.value)}, {100 * share.low:.0f} to {percent(share.high)}"


def _words(text: str) -> Markup:
    return escape(visible(text))


def _name(text: str, most: int = _MOST_LETTERS) -> Markup:
    """A name as its column has room for it, in full under the pointer."""
    short = text if len(text) <= most else f"{text[: most - 1]}…"
    return _words(short) if short == text else _words(short) + Markup("<title>{}</title>").format(_words(text))


def _svg(height: float, title: str, inner: str) -> Markup:
    return Markup(  # noqa: S704 (words are escaped)
        f'<div class="wide" tabindex="0" role="region" aria-label="{_words(title)}">'
        f'<svg class="chart fixed" viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{_words(title)}">'
        f"<title>{_words(title)}</title>{inner}</svg></div>"
    )


def _fluid(height: float, title: str, inner: str) -> Markup:
    """A chart in percent of the width: its texts keep their size whatever the screen."""
    return Markup(  # noqa: S704 (words are escaped)
        f'<svg class="chart" height="{height:.0f}" role="img" aria-label="{_words(title)}">'
        f"<title>{_words(title)}</title>{inner}</svg>"
    )
