"""A run with further seeds: branches of it that differ in the seed alone, which the report takes together."""

import os
from pathlib import Path

from triphase.errors import SettingsError
from triphase.records.files import write_json
from triphase.reports.contents import SEEDS
from triphase.runs.sweeping import SweepPoint, note_points, plan_points
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
        TriphaseError: as in `plan_points`.
    """
    require_count(count)
    settings, here = load_settings(run), run.absolute()
    directory, varied = here.parent / f"{here.name}-seeds", varied_by(settings)
    named = [(f"seed-{changes[varied]}", changes) for changes in (seeded(settings, each) for each in range(1, count))]
    return directory, note_points(directory, here, plan_points(run, directory, named))


def seeded(settings: RunSettings, number: int) -> dict[str, str]:
    """The changes that give a run the seed of this number, from 0 for its own: dotted name → value as text.

    A `ppo.seed` moves with `seed`: all seeds would share PPO's random numbers otherwise, and seem to differ less.
    """
    of_ppo = settings.ppo.seed
    if varied_by(settings) == "ppo.seed":
        return {"ppo.seed": str((settings.seed if of_ppo is None else of_ppo) + number)}
    changes = {"seed": str(settings.seed + number)}
    return changes if of_ppo is None else changes | {"ppo.seed": str(of_ppo + number)}


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
