"""Artifacts of other runs replace those of a run's own phases, by reference."""

import logging
from pathlib import Path

from triphase.datacheck.reuse_checks import taken_artifacts
from triphase.errors import RunError
from triphase.runs.session import Run
from triphase.runs.shared import require_shared
from triphase.settings.phase_names import REWARD
from triphase.settings.schema import RunSettings
from triphase.training.artifacts import Taken, has_trained, note_taken, taken_of

_VERDICT = "verdict.json"
_log = logging.getLogger(__name__)


def take_artifacts(run: Run) -> None:
    """Record the artifacts in `sft.from` and `reward.from`.

    Raises:
        TriphaseError: as in `require_taken`.
    """
    for phase, taken in require_taken(run.path, run.settings).items():
        before = taken_of(run.path, phase)
        if taken is None and before is not None and before.shared:
            continue
        if taken is not None and phase == REWARD:
            _note_doubt(taken)
        note_taken(run.path, phase, taken)


def require_taken(run: Path, settings: RunSettings) -> dict[str, Taken | None]:
    """The artifacts that a run, which may not have started, takes from elsewhere; unchanged since the run started.

    Raises:
        TriphaseError: one cannot be used, is gone, has changed, or the run has its own.
    """
    require_shared(run)
    found = taken_artifacts(settings)
    for phase, taken in found.items():
        before = taken_of(run, phase)
        if taken is None:
            continue
        if before is not None and before.origin == taken.origin and before.manifest != taken.manifest:
            raise RunError(
                f"{phase}.from: {taken.place} is not what this run started with (it was created "
                f"again); restore it, or start under another name (--name)"
            )
        if has_trained(run, phase):
            raise RunError(f"{phase}.from: {run} has trained {phase} itself; leave {phase}.from out")
    return found


def _note_doubt(taken: Taken) -> None:
    verdict = Path(taken.place).parent / _VERDICT
    if verdict.is_file():
        _log.warning("reward.from: %s was not shown to be better than chance (%s)", taken.place, verdict)
