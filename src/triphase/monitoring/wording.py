"""Numbers as people read them, in reports, on pages and in the terminal."""


def counted(count: int, noun: str) -> str:
    """1 ranking, 2 rankings: the plural of what takes an s."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def number(value: float | None, digits: int = 2) -> str:
    """A number with ``digits`` after the point and a true minus sign, which 0 never has; an en dash for an unknown."""
    return "–" if value is None else f"{value:z.{digits}f}".replace("-", "−")


def percent(value: float | None, digits: int = 0) -> str:
    """A share as a percentage, 74 %; an en dash where it is unknown."""
    return "–" if value is None else f"{100 * value:z.{digits}f} %"
