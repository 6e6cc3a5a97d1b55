"""A run's policy as an ordinary checkpoint."""

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from triphase.cli import deferred
from triphase.cli.arguments import Checkpoint, RunPath, require_run
from triphase.errors import RunError
from triphase.runs.choice import step_of


def export(
    run: RunPath,
    /,
    *,
    to: Annotated[Path, Parameter(help="The new directory of the checkpoint.")],
    checkpoint: Checkpoint = None,
) -> None:
    """Merge a run's policy into an ordinary checkpoint."""
    require_run(run)
    if os.path.exists(to) and (not to.is_dir() or any(to.iterdir())):  # False for a name that is too long
        raise RunError(f"{to}: exists already; name a new directory with --to")
    deferred.merge_policy(run, to, step_of(run, checkpoint))
    print(to)
