"""The plan of a run in progress: for a phase that ran out of memory, and next to the measurements."""

import logging
from pathlib import Path

from triphase.errors import TriphaseError
from triphase.planning.plan import FILE_NAME, make_plan
from triphase.planning.wording import shortage
from triphase.records.files import write_json
from triphase.settings.schema import RunSettings

_log = logging.getLogger(__name__)


def shortage_of(settings: RunSettings, phase: str, process_bytes: float | None) -> str | None:
    """`shortage` of a phase that has run out of memory; None if the plan cannot be made, or has nothing to lower."""
    try:
        found = make_plan(settings, process_bytes).as_json()
    except (TriphaseError, MemoryError, RuntimeError):
        return None
    helps = phase in found["phases"] and found["phases"][phase]["remedies"]
    return shortage(found, phase) if helps else None


def write_plan(settings: RunSettings, run: Path, process_bytes: float | None) -> None:
    """Write the plan next to the measurements, for the report; without one, the log says why."""
    try:
        found = make_plan(settings, process_bytes)
    except TriphaseError as error:
        _log.warning("memory planning failed: %s", error)
        return
    write_json(run / FILE_NAME, found.as_json())
