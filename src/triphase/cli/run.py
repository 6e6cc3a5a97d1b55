"""Every step of one configuration; or the first steps of a run again, for comparison."""

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from triphase.cli import deferred
from triphase.cli.arguments import Overrides, require_run, settings_of
from triphase.cli.launching import launch
from triphase.cli.steps import do_steps
from triphase.cli.sweep import carry, print_failures, print_gaps, require_parallel
from triphase.errors import SettingsError
from triphase.records.visible import visible
from triphase.runs.locking import locked
from triphase.runs.seeds import note_seeds, require_count, seed_points
from triphase.settings.loading import load_settings
from triphase.settings.parallel import require_work
from triphase.settings.places import expanded
from triphase.training.distributed.environment import RANKS, place_in


def run(
    config: Annotated[Path | None, Parameter(help="A settings file (YAML) or a run directory.")] = None,
    /,
    *overrides: Overrides,
    verify: Annotated[
        Path | None, Parameter(help="Repeat the first steps of each phase of this run and compare the weights.")
    ] = None,
    seeds: Annotated[
        int, Parameter(help="Number of seeds in total: further seeds run as branches, and a report covers all of them.")
    ] = 1,
    parallel: Annotated[int, Parameter(help="Number of further seeds to run at a time.")] = 1,
    processes: Annotated[
        int | None, Parameter(help="Number of processes on this machine that train together (docs/distributed.md).")
    ] = None,
) -> int | None:
    """Run every step of a configuration, from data to report."""
    require_count(seeds)
    require_parallel(parallel)
    if verify is not None:
        if config is not None or processes is not None:
            raise SettingsError("--verify takes a run directory, without CONFIG or --processes")
        return _verify(require_run(verify))
    if seeds > 1 and (processes or place_in(os.environ).world) > 1:
        raise SettingsError(
            "--seeds and several processes cannot be combined; run once with --processes, then again with --seeds"
        )
    if config is None:
        raise SettingsError("CONFIG is missing; give a settings file (YAML) or a run directory")
    settings, place = settings_of(config, overrides), place_in(os.environ)
    if settings.rounds > 1 and (processes or place.world) > 1:
        raise SettingsError("rounds and several processes cannot be combined; set rounds: 1, or run one process")
    if processes is not None and processes < 1:
        raise SettingsError(f"--processes: {processes} is not allowed; it must be a whole number above 0")
    if place.world == 1 and processes is not None and processes > 1:
        require_work(settings, processes)
        words = ["run", str(config), *overrides, "--processes", str(processes)]
        return launch(words, processes, expanded(settings.output) / settings.name / RANKS)
    if processes not in (None, place.world):
        raise SettingsError(f"--processes: {processes} requested, but {place.world} are running already (WORLD_SIZE)")
    do_steps(settings, "all")
    return _further_seeds(expanded(settings.output) / settings.name, seeds, parallel) if seeds > 1 else None


def _further_seeds(path: Path, seeds: int, parallel: int) -> int:
    """Run the branches with other seeds, and report over all of them; exit code 1 if one of them fails."""
    directory, points = seed_points(path, seeds)
    with locked(directory, "another process is working on these seeds: wait for it, or stop it"):
        failures = carry(points, parallel)
        note_seeds(path, points)
    do_steps(load_settings(path), "report")
    print_gaps(points)
    print_failures(failures)
    return 1 if failures else 0


def _verify(path: Path) -> int:
    """Print whether the first steps of a run repeat; exit code 0 if all of them do, else 1."""
    found = deferred.verify_run(path)
    for verdict in found:
        print(
            f"{verdict.phase} step {verdict.step}: {'same' if verdict.same else 'DIFFERENT'}  {verdict.recorded[:16]}"
        )
    if all(verdict.same for verdict in found):
        print(visible(f"{path}: all {len(found)} steps reproduced the same weights"))
        return 0
    for line in deferred.differences(path) or ["versions are the same; the processor or its instructions may differ"]:
        print(visible(f"note: {line}"))
    return 1
