"""The plan for a described machine, on the screen."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from triphase.errors import RunError, SettingsError
from triphase.planning.wording import shortage, size_text
from triphase.records.files import write_json
from triphase.records.visible import visible

if TYPE_CHECKING:
    from triphase.footprints.moments import Footprint
    from triphase.planning.machine_plan import MachinePlan

_PASSES = ("training", "forward", "decoding")


def refuse_without_gpus(**given: object) -> None:
    """Refuse the description of a machine without ``--gpus``.

    Raises:
        SettingsError: names the first that was given.
    """
    for name, value in given.items():
        if value is not None:
            raise SettingsError(f"--{name}: describes a machine, but --gpus is missing; add --gpus 1")


def show_machine_plan(found: "MachinePlan", json_file: Path | None) -> None:
    """Print the plan, and write it if requested.

    Raises:
        RunError: a phase does not fit.
    """
    if json_file is not None:
        write_json(json_file, found.as_json())
    machine, console = found.machine, Console(soft_wrap=True, highlight=False)
    console.print(
        f"{machine.gpus} × {machine.card.name} with {size_text(machine.memory)} each"
        f"{' (the slowest card of this size; --card names another)' if machine.assumed else ''}: {found.strategy} "
        f"({_WHY[found.strategy]})"
    )
    console.print(_table(found))
    for note in found.notes:
        console.print(Text(visible(f"note: {note}")))
    for phase in found.phases:
        for setting, saved in phase.remedies[:2]:
            console.print(f"{phase.phase}: {setting} saves about {size_text(saved)} on each card")
    console.print(
        "times are data-sheet rates scaled by the utilization measured on one H200 "
        "(docs/performance.md): an order of magnitude for other cards"
    )
    if found.too_large:
        raise RunError("; ".join(shortage(found.as_json(), phase.phase) for phase in found.too_large))


_WHY = {
    "one process": "one card",
    "replicated": "every card holds the whole base, and only gradients of trained weights are exchanged",
    "fsdp2": "every card stores a part of the base, and gathers each layer to compute it",
}


def _table(found: "MachinePlan") -> Table:
    table = Table(title="at the peak of each phase, on each card", title_justify="left")
    table.add_column("part")
    for phase in found.phases:
        table.add_column(phase.phase, justify="right")

    def row(name: str, text: "Callable[[Footprint], str]", style: str = "") -> None:
        table.add_row(name, *map(text, found.phases), style=style)

    parts = [part for phase in found.phases for part in phase.peak.parts]
    for part in dict.fromkeys(parts):
        if any(phase.peak.parts.get(part) for phase in found.phases):
            row(part, lambda phase, part=part: size_text(phase.peak.parts.get(part, 0.0)))  # type: ignore[misc]
    table.add_section()
    row("peak", lambda phase: size_text(phase.peak.total), "bold")
    row("when", lambda phase: phase.peak.name)
    row("allowed", lambda phase: size_text(found.allowed))
    table.add_section()
    for kind in _PASSES:
        row(f"tokens, {kind}", lambda phase, kind=kind: _count(found.tokens(phase, kind)))  # type: ignore[misc]
    row("time, roughly", lambda phase: _hours(found.hours(phase)))
    if found.machine.price is not None:
        row("cost, roughly", lambda phase: f"{found.cost(phase):,.2f}")
    row("a checkpoint", lambda phase: size_text(found.checkpoint.get(phase.phase, 0.0)))
    return table


def _count(tokens: float) -> str:
    if not tokens:
        return "–"
    for size, unit in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if tokens >= size:
            return f"{tokens / size:.1f}{unit}"
    return f"{tokens:.0f}"


def _hours(hours: float) -> str:
    return f"{hours:.2f} h" if hours >= 0.1 else f"{hours * 60:.1f} min"
