"""The plan of a run in progress: for a phase that ran out of memory, and next to the measurements."""

import logging
from collections.abc import Callable
from pathlib import Path

from triphase.errors import TriphaseError
from triphase.planning.plan import FILE_NAME, make_plan
from triphase.planning.wording import shortage
from triphase.records.files import write_json
from triphase.settings.schema import RunSettings

_log = logging.getLogger(__name__)


def shortage_of(settings: RunSettings, phase: str, used: float | None, can_change: Callable[[str], bool]) -> str | None:
    """`shortage` of a phase that has run out of memory; None without a plan, or a setting to lower that can change."""
    try:
        found = make_plan(settings, used).as_json()
    except (TriphaseError, MemoryError, RuntimeError):
        return None
    entry = found["phases"].get(phase, {"remedies": ()})
    entry["remedies"] = [each for each in entry["remedies"] if can_change(each[0].partition(":")[0])]
    return shortage(found, phase) if entry["remedies"] else None


def write_plan(settings: RunSettings, run: Path, process_bytes: float | None) -> None:
    """Write the plan next to the measurements, for the report; without one, the log says why."""
    try:
        found = make_plan(settings, process_bytes)
    except TriphaseError as error:
        _log.warning("memory planning failed: %s", error)
        return
    write_json(run / FILE_NAME, found.as_json())
