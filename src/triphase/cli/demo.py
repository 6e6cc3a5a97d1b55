"""The whole of RLHF on the embedded model and data."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from triphase.cli.steps import do_steps
from triphase.demo.configuration import demo_settings


def demo(
    *,
    tiny: Annotated[bool, Parameter(help="A tiny model on a small grammar: about a minute.")] = False,
    output: Annotated[Path, Parameter(help="Parent of the run directory.")] = Path("runs"),
    seed: Annotated[int, Parameter(help="Every random number of the run derives from it.")] = 0,
) -> None:
    """The whole of RLHF on the embedded model and data."""
    settings = demo_settings(tiny=tiny, output=str(output), seed=seed)
    do_steps(settings, "all")
