"""Every step of one configuration; or the first steps of a run again, to compare."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from triphase.cli import deferred
from triphase.cli.arguments import Overrides, require_run, settings_of
from triphase.cli.steps import do_steps
from triphase.errors import SettingsError


def run(
    config: Annotated[Path | None, Parameter(help="A settings file (YAML), or the directory of a run.")] = None,
    /,
    *overrides: Overrides,
    verify: Annotated[
        Path | None, Parameter(help="Repeat the first steps of each phase of this run and compare the weights.")
    ] = None,
) -> int | None:
    """Every step of one configuration, from demonstrations to the report."""
    if verify is not None:
        if config is not None:
            raise SettingsError("--verify takes the directory of a run, and no CONFIG beside it")
        return _verify(require_run(verify))
    if config is None:
        raise SettingsError("CONFIG is missing; name a settings file (YAML) or the directory of a run")
    settings = settings_of(config, overrides)
    do_steps(settings, "all")
    return None


def _verify(path: Path) -> int:
    """Print whether the first steps of a run repeat; exit code 0 where all of them do, else 1."""
    found = deferred.verify_run(path)
    for verdict in found:
        print(
            f"{verdict.phase} step {verdict.step}: {'same' if verdict.same else 'DIFFERENT'}  {verdict.recorded[:16]}"
        )
    if all(verdict.same for verdict in found):
        print(f"{path}: all {len(found)} steps have the same weights again")
        return 0
    for line in deferred.differences(path) or ["versions are the same; the processor or its instructions may differ"]:
        print(f"note: {line}")
    return 1
