"""The plan in words: sizes, and one line on a phase that does not fit."""

from collections.abc import Mapping
from typing import Any


def shortage(plan: Mapping[str, Any], phase: str) -> str:
    """One line on a phase that does not fit: its peak, its largest parts, and what to lower."""
    entry = plan["phases"][phase]
    parts = sorted(entry["parts"].items(), key=lambda item: -item[1])[:2]
    largest = ", ".join(f"{part} {size_text(size)}" for part, size in parts)
    advice = "; ".join(f"{setting} saves about {size_text(saved)}" for setting, saved in entry["remedies"][:2])
    return f"{phase} needs about {size_text(entry['peak_bytes'])} ({largest}) of {size_text(plan['allowed_bytes'])}" + (
        f": {advice}" if advice else ""
    )


def size_text(size: float) -> str:
    """Bytes in GB or MB."""
    if not size:
        return "–"
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
