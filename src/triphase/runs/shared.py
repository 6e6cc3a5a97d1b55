"""What a branch shares with its source run: by reference, and unchanged since the branch was made."""

import os
from pathlib import Path

from triphase.errors import RunError
from triphase.settings.phase_names import VARIANTS
from triphase.training.artifacts import TAKEN, Taken, damage_of, note_taken, sum_of, taken_of


def share(folder: Path, target: Path, phase: str, run: Path, place: Path) -> None:
    """Record in ``folder``, which becomes ``target``, that ``place`` of ``run`` replaces a phase's artifact.

    Runs that are moved together keep finding each other.
    """
    relative = os.path.relpath(place.resolve(), target.resolve() / phase)
    note_taken(folder, phase, Taken(str(run), relative, sum_of(place), shared=True))


def require_shared(run: Path) -> None:
    """Require that what a run shares with another exists, undamaged and unchanged.

    Raises:
        RunError: it is not.
    """
    for note in sorted((*run.glob(f"*/{TAKEN}"), *run.glob(f"{VARIANTS}/*/{TAKEN}"))):
        phase = str(note.parent.relative_to(run))
        taken = taken_of(run, phase)
        if taken is None or not taken.shared:
            continue
        place = taken.directory(run / phase)
        problem = "is gone" if not place.is_dir() else None
        if problem is None and sum_of(place) != taken.manifest:
            problem = "has changed (it was created again, or extended)"
        if problem is None and (damage := damage_of(place)) is not None:
            problem = f"is damaged ({damage})"
        if problem is not None:
            remedy = (
                f"put it back; without it `triphase report {run}` alone works"
                if not place.is_dir()
                else "restore it, or create a branch of the run as it is now"
            )
            raise RunError(f"{place}, which {run} shares, {problem}; {remedy}")
