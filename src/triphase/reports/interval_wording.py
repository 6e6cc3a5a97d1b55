"""Values with their intervals, as formatted in sentences and tables."""

from triphase.monitoring.wording import percent
from triphase.reports.intervals import ALIKE, Interval


def capital(text: str) -> str:
    """With its first letter capitalized."""
    return text[:1].upper() + text[1:]


def percent_interval(interval: Interval | None) -> str:
    """74 % (68 to 80 %)."""
    if interval is None:
        return "–"
    low, high = written_bounds(interval)
    return percent(interval.value) if low is None else f"{percent(interval.value)} ({100 * low:.0f} to {percent(high)})"


def signed(interval: Interval | None) -> str:
    """+1.06 (+0.95 to +1.17)."""
    if interval is None:
        return "–"
    low, high = written_bounds(interval)
    bounds = "" if low is None else f" ({low:+.2f} to {high:+.2f})"
    return f"{interval.value:+.2f}{bounds}".replace("-", "−")


def interval_text(interval: Interval | None, digits: int = 2) -> str:
    """1.06 (0.95 to 1.17)."""
    if interval is None:
        return "–"
    low, high = written_bounds(interval)
    bounds = "" if low is None else f" ({low:.{digits}f} to {high:.{digits}f})"
    return f"{interval.value:.{digits}f}{bounds}".replace("-", "−")


def written_bounds(interval: Interval) -> tuple[float, float] | tuple[None, None]:
    """The bounds as formatted: empty if they are equal, since the value is no more certain for it."""
    if interval.low is None or interval.high is None or interval.high - interval.low <= ALIKE:
        return None, None
    return interval.low, interval.high


def is_above(interval: Interval | None, level: float) -> bool:
    """Whether the whole interval is above ``level``."""
    return interval is not None and interval.low is not None and interval.low > level


def is_below(interval: Interval | None, level: float) -> bool:
    """Whether the whole interval is below ``level``."""
    return interval is not None and interval.high is not None and interval.high < level


def moved(value: float) -> str:
    """+1.06, −0.80."""
    return f"{value:+z.2f}".replace("-", "−")
