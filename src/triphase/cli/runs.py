"""Lists of runs: all of a directory with their main metrics, and a comparison of two."""

import json as json_text
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from triphase.cli.arguments import RunPath, require_run
from triphase.errors import RunError
from triphase.records.visible import visible
from triphase.reports.run_list import FIGURES, RunLine, line_of, runs_in, setting_differences

Json = Annotated[bool, Parameter(help="Print one JSON document instead of a table.")]


def runs(
    directory: Annotated[Path, Parameter(help="The directory that holds the run directories.")] = Path("runs"),
    /,
    *,
    json: Json = False,
) -> None:
    """List the runs of a directory with their main metrics."""
    if not directory.is_dir():
        raise RunError(f"{directory}: no such directory; give the directory of the runs (the setting `output`)")
    found = runs_in(directory)
    if json:
        _print_json([_plain(line) for line in found])
        return
    if not found:
        raise RunError(f"{directory}: contains no run; `triphase run CONFIG` creates one")
    shown = [name for name in FIGURES if any(line.figures[name] is not None for line in found)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("run", "begun", "state"):
        table.add_column(title, overflow="fold")
    for name in shown:
        table.add_column(FIGURES[name].title, justify="right")
    for line in found:
        begun = datetime.fromtimestamp(line.begun).strftime("%Y-%m-%d %H:%M")
        cells = [visible(line.path.name), begun, visible(line.stands)]
        table.add_row(*(Text(cell) for cell in [*cells, *(FIGURES[name].text(line.figures[name]) for name in shown)]))
    _console().print(table)


def diff(first: RunPath, second: RunPath, /, *, json: Json = False) -> None:
    """Show how two runs differ: settings and metrics."""
    sides = [line_of(require_run(run)) for run in (first, second)]
    changed = setting_differences(first, second)
    names = [name for name in FIGURES if any(side.figures[name] is not None for side in sides)]
    if json:
        settings = [{"setting": key, "first": old, "second": new} for key, old, new in changed]
        _print_json({"settings": settings, "runs": [_plain(side) for side in sides]})
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", visible(str(first)), visible(str(second))):
        table.add_column(Text(title), overflow="fold")
    for key, old, new in changed:
        table.add_row(*(Text(visible(cell)) for cell in (key, old, new)))
    if not changed:
        table.add_row(Text("settings"), Text("the same"), Text("the same"))
    table.add_section()
    for name in names:
        table.add_row(
            *(Text(cell) for cell in (FIGURES[name].title, *(FIGURES[name].text(side.figures[name]) for side in sides)))
        )
    if not names or any(side.problem for side in sides):
        table.add_row(Text("state"), *(Text(visible(side.stands)) for side in sides))
    _console().print(table)


def _plain(line: RunLine) -> Mapping[str, Any]:
    return {"run": str(line.path), "begun": line.begun, "finished": line.finished, "stands": line.stands} | dict(
        line.figures
    )


def _print_json(found: Any) -> None:
    json_text.dump(found, sys.stdout, indent=2)
    print()


def _console() -> Console:
    """As wide as the terminal; for a file or a pipe, lines are not wrapped."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=400)
