"""Exports the trained models of a run for other tools."""

import os
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from triphase.cli import deferred
from triphase.cli.arguments import Checkpoint, RunPath, require_run
from triphase.errors import RunError
from triphase.records.visible import visible
from triphase.runs.best_checkpoint import step_of
from triphase.settings.loading import load_settings


def export(
    run: RunPath,
    /,
    *,
    to: Annotated[Path, Parameter(help="The directory to create.")],
    what: Annotated[
        Literal["policy", "sft", "reward"], Parameter(help="The newest policy, the SFT policy, or the reward model.")
    ] = "policy",
    adapter: Annotated[
        bool, Parameter(help="Copy the adapter as PEFT files instead of merging it into the base.")
    ] = False,
    variant: Annotated[str | None, Parameter(help="The policy of this variant, not of the main PPO run.")] = None,
    checkpoint: Checkpoint = None,
) -> None:
    """Write a policy or reward model for other tools."""
    require_run(run)
    if os.path.exists(to) and (not to.is_dir() or any(to.iterdir())):  # False for a name that is too long
        raise RunError(f"{to}: already exists; give a new directory with --to")
    if checkpoint is not None and (adapter or what != "policy"):
        raise RunError(f"--checkpoint {checkpoint}: selects a merged PPO policy; leave --what and --adapter out")
    if variant is not None and what != "policy":
        raise RunError(f"--variant {variant}: selects a PPO policy; leave --what out")
    if variant is not None and variant not in (known := load_settings(run).variants):
        raise RunError(f"--variant {variant}: {run} has no such variant; it has {', '.join(known) or 'none'}")
    if adapter:
        deferred.copy_adapter(run, to, what=what, variant=variant)
    else:
        deferred.merge_policy(run, to, step_of(run, checkpoint, variant), what=what, variant=variant)
    print(visible(str(to)))
