"""More iterations for a finished PPO run."""

from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape

from triphase.cli.arguments import Overrides, RunPath, parse_overrides, require_run
from triphase.cli.steps import do_steps
from triphase.errors import SettingsError
from triphase.records.visible import visible
from triphase.runs.extending import Schedule, extend_run, target_of
from triphase.settings.loading import load_settings


def extend(
    path: RunPath,
    /,
    *overrides: Overrides,
    schedule: Annotated[
        Schedule, Parameter(help="Learning-rate schedule: restart it, or stretch it over all iterations.")
    ] = "stretch",
) -> None:
    """Continue a finished PPO run from its last checkpoint."""
    variant, iterations = target_of(parse_overrides(overrides))
    known = load_settings(require_run(path)).variants
    if variant is not None and variant not in known:
        raise SettingsError(f"--variants.{variant}: there is no such variant; known are {', '.join(known) or 'none'}")
    said = extend_run(path, variant, iterations, schedule)
    Console(highlight=False, soft_wrap=True).print(escape(visible(said)))
    do_steps(load_settings(path), "all")
