"""A run that shares what another has finished, and does only the rest."""

import shlex
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape

from triphase.cli.arguments import Overrides, RunPath, parse_overrides, require_run
from triphase.cli.steps import do_steps
from triphase.errors import SettingsError
from triphase.records.visible import visible
from triphase.runs.branching import Branch, make_branch
from triphase.settings.loading import load_settings
from triphase.settings.overrides import as_scalar
from triphase.settings.phase_names import shown_phase
from triphase.store.database import FILE_NAME as STORE


def branch(
    path: RunPath,
    name: Annotated[str, Parameter(help="Name of the new run; its directory is created next to RUN.")],
    /,
    *overrides: Overrides,
    again: Annotated[
        tuple[str, ...],
        Parameter(help="A phase to repeat although none of its settings changed, for example after more labels."),
    ] = (),
    run: Annotated[bool, Parameter(help="Run the remaining steps right away.")] = False,
) -> None:
    """Create a run that shares the finished phases of another."""
    changes = parse_overrides(overrides)
    if "name" in changes:
        raise SettingsError(f"--name: the branch is already named {name}; give its name once")
    settings = load_settings(require_run(path), {**changes, "name": as_scalar(name)})
    made = make_branch(path, settings, again)
    print_branch(made)
    if run:
        do_steps(load_settings(made.path), "all")
    else:
        Console(highlight=False, soft_wrap=True).print(
            f"[bold]next[/bold]    {escape(shlex.join(['triphase', 'run', str(made.path)]))}"
        )


def print_branch(made: Branch) -> None:
    """Print what is shared, what is copied, and what will be repeated and why."""
    rows = [("shared", phase, str(place)) for phase, place in made.shared.items()]
    if made.copied is not None:
        rows.append(("copied", STORE, made.copied))
    rows += [("to do", shown_phase(phase), why) for phase, why in made.remaining.items()]
    if not made.remaining:
        rows.append(("to do", "report", "nothing else: no phase depends on what has changed"))
    console, width = Console(highlight=False, soft_wrap=True), max(len(row[1]) for row in rows)
    console.print(f"[bold]run[/bold]     {escape(visible(str(made.path)))}")
    for kind, phase, text in rows:
        console.print(f"[bold]{kind:6}[/bold]  {phase:{width}}  {escape(visible(text))}")
