"""Numbers formatted for display, in reports, on pages and in the terminal."""


def counted(count: int, noun: str) -> str:
    """1 ranking, 2 rankings: the plural of regular nouns."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def number(value: float | None, digits: int = 2) -> str:
    """A number with ``digits`` decimals and a true minus sign, which 0 never has; an en dash if unknown."""
    return "–" if value is None else f"{value:z.{digits}f}".replace("-", "−")


def percent(value: float | None, digits: int = 0) -> str:
    """A share as a percentage, 74 %; an en dash if unknown."""
    return "–" if value is None else f"{100 * value:z.{digits}f} %"
