"""Run all of RLHF on the embedded model and data."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from triphase.cli.steps import do_steps
from triphase.demo.configuration import demo_settings


def demo(
    *,
    tiny: Annotated[bool, Parameter(help="Use a tiny model and a small grammar; takes about a minute.")] = False,
    output: Annotated[Path, Parameter(help="Directory in which the run directory is created.")] = Path("runs"),
    seed: Annotated[int, Parameter(help="Seed of every random number in the run.")] = 0,
) -> None:
    """Run all of RLHF on the embedded model and data."""
    settings = demo_settings(tiny=tiny, output=str(output), seed=seed)
    do_steps(settings, "all")
