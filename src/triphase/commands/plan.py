"""What each phase will need, before anything runs: memory by part, time, and what to lower where it does not fit."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from triphase.commands.actions import Config, Overrides, settings_of
from triphase.commands.planning import FILE_NAME, Plan, as_json, make_plan
from triphase.errors import RunError, TriphaseError
from triphase.records.files import write_json
from triphase.settings.schema import RunSettings

_log = logging.getLogger(__name__)


def plan(
    config: Config,
    /,
    *overrides: Overrides,
    json_file: Annotated[Path | None, Parameter(name="--json", help="Write the plan to this file too.")] = None,
) -> None:
    """What each phase will need, before anything runs: memory by part, time, and what to lower."""
    settings = settings_of(config, overrides)
    found = make_plan(settings)
    if json_file is not None:
        write_json(json_file, as_json(found))
    console = Console(soft_wrap=True, highlight=False)
    console.print(_weights(found))
    console.print(_phases(found))
    for phase in found.phases:
        for setting, saved in phase.remedies[:2]:
            console.print(f"{phase.phase}: {setting} saves about {_size(saved)}")
    too_large = [phase for phase in found.phases if phase.peak.total > found.allowed]
    if too_large:
        raise RunError("; ".join(shortage(as_json(found), phase.phase) for phase in too_large))
    console.print(f"all phases fit: {_size(found.allowed)} are allowed or there")


def shortage(plan: Mapping[str, Any], phase: str) -> str:
    """One line on a phase that does not fit: its peak, its largest parts, and what to lower."""
    entry = plan["phases"][phase]
    parts = sorted(entry["parts"].items(), key=lambda item: -item[1])[:2]
    largest = ", ".join(f"{part} {_size(size)}" for part, size in parts)
    advice = "; ".join(f"{setting} saves about {_size(saved)}" for setting, saved in entry["remedies"][:2])
    return f"{phase} needs about {_size(entry['peak_bytes'])} ({largest}) of {_size(plan['allowed_bytes'])}" + (
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


def _weights(found: Plan) -> Table:
    table = Table(title="what parameters take", title_justify="left")
    for heading in ("part", "number type", "numbers", "bytes each", "in all"):
        table.add_column(heading, justify="left" if heading in ("part", "number type") else "right")
    for part, dtype, numbers, each, total in found.weights:
        table.add_row(part, dtype, f"{numbers:,.0f}", f"{each:g}", _size(total))
    return table


def _phases(found: Plan) -> Table:
    from triphase.phases.footprint import PARTS

    table = Table(title="at the peak of each phase", title_justify="left")
    table.add_column("part")
    for phase in found.phases:
        table.add_column(phase.phase, justify="right")
    for part in PARTS:
        if any(phase.peak.parts.get(part) for phase in found.phases):
            table.add_row(part, *(_size(phase.peak.parts.get(part, 0.0)) for phase in found.phases))
    table.add_section()
    table.add_row("peak", *(_size(phase.peak.total) for phase in found.phases), style="bold")
    table.add_row("when", *(phase.peak.name for phase in found.phases))
    table.add_row("its microbatch", *(f"{p.peak.shape.rows} × {p.peak.shape.length}" for p in found.phases))
    table.add_row("allowed", *(_size(found.allowed) for _ in found.phases))
    table.add_row("seconds, roughly", *(f"{found.seconds(phase):.0f}" for phase in found.phases))
    return table


def _size(size: float) -> str:
    if not size:
        return "–"
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
