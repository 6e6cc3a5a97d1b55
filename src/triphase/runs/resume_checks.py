"""What `run` would refuse about an existing directory, reported by `check`; nothing is written."""

from collections.abc import Iterator
from pathlib import Path

from triphase.datacheck.agenda import todo
from triphase.monitoring.progress import SilentProgress
from triphase.records.cells import MAIN
from triphase.runs.directory import RunDirectory
from triphase.runs.reused_artifacts import require_taken
from triphase.runs.rounds import further_rounds
from triphase.runs.session import Run
from triphase.runs.store_contents import examine_store, is_noted
from triphase.settings.schema import RunSettings
from triphase.training.stopping import StopRequest


def require_resumable(settings: RunSettings) -> list[str]:
    """Refuse a path that is not a directory, and a run that was started with other settings or data, is damaged, or
    lacks what it shares. Returns the allowed differences.

    Raises:
        TriphaseError: as `run` does.
    """
    directory = RunDirectory(settings)
    directory.examine()
    if directory.path.is_dir():
        require_taken(directory.path, settings)
        run = Run(settings, directory, SilentProgress(), StopRequest())
        if not all(run.is_done(step) for step in todo(settings)):
            examine_store(directory.path, settings.labeling.campaigns)
        for each in further_rounds(run.settings) if settings.rounds > 1 else ():
            RunDirectory(each).examine()
    return [*directory.notes, *_campaigns_to_begin(directory.path, settings)]


def _campaigns_to_begin(path: Path, settings: RunSettings) -> Iterator[str]:
    """Campaigns that can be started only when the responses are sampled; then the run waits for them."""
    named = [name for name in settings.labeling.campaigns or () if name != MAIN]
    if named and not is_noted(path):
        yield (
            f"labeling.campaigns: once the responses are sampled, the run waits for a campaign "
            f"{named[0]!r} (`triphase label campaigns add {path} …`)"
        )
