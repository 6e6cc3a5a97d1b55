"""The plan of a run that is under way: for a phase that ran out of memory, and beside what was measured."""

import logging
from pathlib import Path

from triphase.errors import TriphaseError
from triphase.planning.plan import FILE_NAME, make_plan
from triphase.planning.wording import shortage
from triphase.records.files import write_json
from triphase.settings.schema import RunSettings

_log = logging.getLogger(__name__)


def shortage_of(settings: RunSettings, phase: str, process_bytes: float | None) -> str | None:
    """`shortage` of a phase that has run out of memory; None where the plan finds no room, or nothing to lower."""
    try:
        found = make_plan(settings, process_bytes).as_json()
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
    write_json(run / FILE_NAME, found.as_json())
