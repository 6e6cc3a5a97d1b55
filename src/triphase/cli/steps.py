"""Steps of a run from the command line: whatever the outcome, the last lines show the run's directory."""

import os
from pathlib import Path

from triphase.cli import deferred
from triphase.cli.result_screen import print_place, print_result
from triphase.errors import TriphaseError
from triphase.runs.best_checkpoint import Checkpoint
from triphase.settings.schema import RunSettings
from triphase.training.distributed.environment import place_in
from triphase.training.stopping import Stopped


def do_steps(
    settings: RunSettings,
    *steps: str,
    examined: tuple[str, ...] = (),
    variant: str | None = None,
    checkpoint: Checkpoint = None,
    is_part: bool = False,
) -> None:
    """Prepare the run, do its steps, and show the results. A stop is passed on as an interruption.

    With several processes (`torchrun -m triphase …`) each takes part, and the first one prints.

    ``examined`` are the steps of the pipeline whose data is checked first; the step "all" does that itself. The results
    of steps that are part of a longer command (``is_part``) are left to it.
    """
    begun: list[Path] = []
    try:
        deferred.perform(
            settings,
            steps,
            begun.append,
            examined=examined,
            variant=variant,
            checkpoint=checkpoint,
            place=place_in(os.environ),
        )
    except (Stopped, KeyboardInterrupt):
        if begun or place_in(os.environ).rank == 0:
            print_place(begun[0] if begun else None)
        raise KeyboardInterrupt from None
    except TriphaseError:
        if begun or place_in(os.environ).rank == 0:
            print_place(begun[0] if begun else None)
        raise
    if begun and not is_part:
        print_result(begun[0])
