"""A phase that does not fit, in one line: its peak, its largest parts, and what to lower."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from triphase.errors import TriphaseError
from triphase.planning.plan import FILE_NAME, as_json, make_plan
from triphase.records.files import write_json
from triphase.settings.schema import RunSettings

_log = logging.getLogger(__name__)


def shortage(plan: Mapping[str, Any], phase: str) -> str:
    """One line on a phase that does not fit: its peak, its largest parts, and what to lower."""
    entry = plan["phases"][phase]
    parts = sorted(entry["parts"].items(), key=lambda item: -item[1])[:2]
    largest = ", ".join(f"{part} {size_text(size)}" for part, size in parts)
    advice = "; ".join(f"{setting} saves about {size_text(saved)}" for setting, saved in entry["remedies"][:2])
    return f"{phase} needs about {size_text(entry['peak_bytes'])} ({largest}) of {size_text(plan['allowed_bytes'])}" + (
        f": {advice}" if advice else ""
    )


def shortage_of(settings: RunSettings, phase: str, process_bytes: float | None) -> str | None:
    """`shortage` of a phase that has run out of memory; None where the plan finds no room, or nothing to lower."""
    try:
        found = as_json(make_plan(settings, process_bytes))
    except (TriphaseError, MemoryError, RuntimeError):
        return None
    helps = phase in found["phases"] and found["phases"][phase]["remedies"]
    return shortage(found, phase) if helps else None


def write_plan(settings: RunSettings, run: Path, process_bytes: float | None) -> None:
    """Put the plan beside what was measured, for the report; without one, the log says why."""
    try:
        found = make_plan(settings, process_bytes)
    except TriphaseError as error:
        _log.warning("no plan of the memory: %s", error)
        return
    write_json(run / FILE_NAME, as_json(found))


def size_text(size: float) -> str:
    """Bytes in GB or MB."""
    if not size:
        return "–"
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
