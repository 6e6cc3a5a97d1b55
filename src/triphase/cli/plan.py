"""The needs of each phase, before anything runs: memory by part, time, and what to lower if it does not fit."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from triphase.cli import deferred
from triphase.cli.arguments import Config, Overrides, settings_of
from triphase.cli.machine_plan import refuse_without_gpus, show_machine_plan
from triphase.errors import RunError
from triphase.planning.machine import machine_of
from triphase.planning.wording import shortage, size_text
from triphase.records.files import write_json
from triphase.records.visible import visible
from triphase.runs.base_dtype import in_kept_dtype
from triphase.settings.places import expanded

if TYPE_CHECKING:
    from triphase.planning.plan import Plan


def plan(
    config: Config,
    /,
    *overrides: Overrides,
    model: Annotated[str | None, Parameter(help="Plan for this model instead of the one in the settings.")] = None,
    gpus: Annotated[
        int | None, Parameter(help="Plan for this number of GPUs, which this machine need not have.")
    ] = None,
    memory: Annotated[str | None, Parameter(help="Memory of each GPU, for example 80GB.")] = None,
    card: Annotated[str | None, Parameter(help="Kind of GPU, for example h100.")] = None,
    price: Annotated[float | None, Parameter(help="Price of one GPU for an hour, in any currency.")] = None,
    json_file: Annotated[Path | None, Parameter(name="--json", help="Also write the plan to this file.")] = None,
) -> None:
    """Estimate each phase's memory and time, and what to lower."""
    settings = settings_of(config, overrides if model is None else (*overrides, "--model.name", model))
    if gpus is not None:
        show_machine_plan(deferred.plan_for(settings, machine_of(gpus, memory, card, price)), json_file)
        return
    refuse_without_gpus(memory=memory, card=card, price=price)
    found = deferred.make_plan(in_kept_dtype(settings, expanded(settings.output) / settings.name))
    if json_file is not None:
        write_json(json_file, found.as_json())
    console = Console(soft_wrap=True, highlight=False)
    console.print(_weights(found))
    console.print(_phases(found))
    for note in found.notes:
        console.print(Text(visible(f"note: {note}")))
    for phase in found.phases:
        for setting, saved in phase.remedies[:2]:
            console.print(f"{phase.phase}: {setting} saves about {size_text(saved)}")
    too_large = [phase for phase in found.phases if phase.peak.total > found.allowed]
    if too_large:
        raise RunError("; ".join(shortage(found.as_json(), phase.phase) for phase in too_large))
    console.print(f"all phases fit: {size_text(found.allowed)} are allowed or available")


def _weights(found: "Plan") -> Table:
    table = Table(title="memory of the parameters", title_justify="left")
    for heading in ("part", "dtype", "numbers", "bytes per number", "total"):
        table.add_column(heading, justify="left" if heading in ("part", "dtype") else "right")
    for part, dtype, numbers, each, total in found.weights:
        table.add_row(part, dtype, f"{numbers:,.0f}", f"{each:g}", size_text(total))
    return table


def _phases(found: "Plan") -> Table:
    table = Table(title="at the peak of each phase", title_justify="left")
    table.add_column("part")
    for phase in found.phases:
        table.add_column(phase.phase, justify="right")
    for part in found.parts:
        table.add_row(part, *(size_text(phase.peak.parts.get(part, 0.0)) for phase in found.phases))
    table.add_section()
    table.add_row("peak", *(size_text(phase.peak.total) for phase in found.phases), style="bold")
    table.add_row("when", *(phase.peak.name for phase in found.phases))
    table.add_row("its microbatch", *(f"{p.peak.shape.rows} × {p.peak.shape.length}" for p in found.phases))
    table.add_row("allowed", *(size_text(found.allowed) for _ in found.phases))
    table.add_row("seconds, roughly", *(f"{found.seconds(phase):.0f}" for phase in found.phases))
    return table
