"""A run with further seeds: branches of it that differ in the seed alone, which the report takes together."""

import os
from pathlib import Path

from triphase.errors import SettingsError
from triphase.records.files import write_json
from triphase.reports.contents import SEEDS
from triphase.runs.sweeping import SweepPoint, note_points, plan_sweep
from triphase.settings.loading import load_settings
from triphase.settings.schema import RunSettings

_MOST = 100


def varied_by(settings: RunSettings) -> str:
    """The setting that further seeds vary: `seed`, or `ppo.seed` if people rank a policy's responses.

    With another `seed` they would have to rank other responses.
    """
    return "ppo.seed" if settings.labeling.source == "people" else "seed"


def seed_points(run: Path, count: int) -> tuple[Path, list[SweepPoint]]:
    """The runs of ``run`` with the further of ``count`` seeds, and their directory; only that is created yet.

    Raises:
        SettingsError: ``count`` is not a valid number.
        TriphaseError: as in `plan_sweep`.
    """
    require_count(count)
    settings = load_settings(run)
    varied = varied_by(settings)
    first = settings.seed if varied == "seed" or settings.ppo.seed is None else settings.ppo.seed
    here = run.absolute()
    directory = here.parent / f"{here.name}-seeds"
    values = ",".join(str(first + number) for number in range(1, count))
    return directory, note_points(directory, here, plan_sweep(run, directory, {varied: values}))


def require_count(count: int) -> None:
    """Check the number of seeds.

    Raises:
        SettingsError: ``count`` is not a valid number.
    """
    if not 1 <= count <= _MOST:
        raise SettingsError(f"--seeds {count}: must lie between 1 and {_MOST}")


def note_seeds(run: Path, points: list[SweepPoint]) -> None:
    """Make the report of ``run`` combine those of its seeds that are finished."""
    places = [os.path.relpath(point.path, run.absolute()) for point in points if point.is_finished]
    write_json(run / SEEDS, {"varied": varied_by(load_settings(run)), "runs": places})
