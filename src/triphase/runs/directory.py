"""The run directory: one configuration, one owner process, timings, and what the run consists of.

runs/NAME/
  config.yaml      resolved settings, versions, seeds, git revision, data fingerprints
  labels.sqlite    prompts, responses, rankings, audit
  sft/ reward/ ppo/ arms/NAME/    checkpoints/STEP/, final/, metrics.jsonl, samples.jsonl
  evaluation/ labelling.json timings.json summary.json report.html
"""

import errno
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from triphase.errors import RunError
from triphase.monitoring.memory import card_peak_gb, memory_errors, peak_gb, restart_peak
from triphase.monitoring.sums import is_changed, seal, seal_phase
from triphase.records.files import clear_leftovers, disk_errors, make_directory, write_atomically, write_json
from triphase.records.paths import refuse_links, refuse_pipes
from triphase.reports.file_shapes import problem_of
from triphase.reports.rounds import rounds_before
from triphase.runs.base_dtype import dtype_in, with_dtype
from triphase.runs.data_files import fingerprints_of, roles_of, scorer_files
from triphase.runs.dependence import EVALUATION, FREE, begun_phases, dependent, is_bound
from triphase.runs.differences import completed, conflict, differences, is_of_a_server, shown
from triphase.runs.kept_engine import require_same_engine
from triphase.runs.leftovers import not_there, removed_if_refused
from triphase.runs.locking import locked
from triphase.runs.provenance import as_yaml, day_begun, provenance, read_config
from triphase.runs.stale_results import set_evaluation_aside
from triphase.settings.phase_names import shown_phase
from triphase.settings.places import expanded
from triphase.settings.schema import RunSettings

TIMINGS = "timings.json"
_FROM = ("sft.from", "reward.from")
_log = logging.getLogger(__name__)


class RunDirectory:
    """A run directory that this process has locked.

    Attributes:
        notes: allowed differences from the run as it was started, for the log.
        shortage_of: what a phase that ran out of memory needs, and what to lower, if the caller can tell.
    """

    def __init__(self, settings: RunSettings) -> None:
        self.settings = settings
        self.path = expanded(settings.output) / settings.name
        self.shortage_of: Callable[[str], str | None] = lambda phase: None
        self.notes: list[str] = []
        self._is_held = False
        self._peak = 0.0

    @contextmanager
    def held(self, measure: Callable[[], str] | None = None) -> Iterator["RunDirectory"]:
        """Lock the directory; a second process is refused, the lock of a dead one is void.

        ``measure`` returns what `model.dtype: auto` is on this machine, which needs torch.

        Raises:
            RunError: another process has locked it, or it belongs to another configuration.
        """
        _require_place(self.path)
        made = not_there(self.path)
        make_directory(self.path)
        with locked(self.path, "wait for it, stop it, or choose another name (--name)"), removed_if_refused(made):
            try:
                refuse_links(self.path)
                clear_leftovers(self.path)
                self._write_config(measure)
                self._is_held = True
                yield self
            finally:
                self._is_held = False

    def examine(self) -> None:
        """Refuse what `held` would refuse, except another process that works on it; nothing is written.

        Raises:
            RunError: as in `held`.
        """
        _require_place(self.path)
        if not self.path.is_dir():
            return
        refuse_links(self.path)
        refuse_pipes(self.path)
        if (self.path / "config.yaml").exists():
            settings = self.settings.model_dump(mode="json")
            self._compare(read_config(self.path / "config.yaml"), fingerprints_of(self.settings), settings)

    def _write_config(self, measure: Callable[[], str] | None) -> None:
        path, model = self.path / "config.yaml", self.settings.model
        fingerprints, settings = fingerprints_of(self.settings), self.settings.model_dump(mode="json")
        new = (settings, fingerprints, self.begun)
        if not path.exists():
            self._write(path, with_dtype(provenance(self.settings, *new), model, measure, begun=False)[0])
            return
        kept = read_config(path)
        begun, changed, stale = self._compare(kept, fingerprints, settings)
        if stale:
            aside = set_evaluation_aside(self.path)
            self.notes.append(f"{'; '.join(stale)}: the policies are evaluated again; the old evaluation is in {aside}")
        now = {**kept, "settings": settings, "begun": self.begun, "data_fingerprints": fingerprints}
        now = now if begun else provenance(self.settings, *new)
        now, note = with_dtype(now, model, measure, begun=bool(begun))
        self.notes += [note] if note else []
        if changed or stale or dtype_in(now) != dtype_in(kept):
            self._write(path, now)

    def _compare(
        self, kept: Mapping[str, Any], fingerprints: Mapping[str, str], settings: Mapping[str, Any]
    ) -> tuple[Sequence[str], bool, list[str]]:
        """The phases that have started, whether settings or data differ, and what makes the evaluation stale.

        Raises:
            RunError: a started phase depends on a difference.
        """
        path = self.path / "config.yaml"
        if is_changed(self.path, path.name):
            self.notes.append(f"{path} has changed since this run wrote it (damaged or edited); check its settings")
        before = completed(kept["settings"])
        begun = begun_phases(self.path, {*(before.get("variants") or {}), *self.settings.variants})
        require_same_engine(self.path, self.settings, begun)
        changed, stale = self._changed_settings(before, settings, path, begun)
        changed |= self._changed_data(kept.get("data_fingerprints") or {}, fingerprints, before, begun)
        return begun, changed, stale

    def _write(self, path: Path, config: Mapping[str, Any]) -> None:
        write_atomically(path, as_yaml(config))
        seal(self.path, [path.name])

    def _changed_settings(
        self, kept: Mapping[str, Any], wanted: Mapping[str, Any], path: Path, begun: Sequence[str]
    ) -> tuple[bool, list[str]]:
        """Compare settings with those of the run: whether any changed that no started phase depends on (they are
        recorded), and sentences on those that the evaluation depends on.

        Raises:
            RunError: a started phase depends on one.
        """
        changed, stale = False, list[str]()
        refused: list[tuple[str, Any, Any, str]] = []
        for key, old, new in differences(kept, wanted):
            if key in FREE or (key in _FROM and str(old).endswith(f"/{new}")):
                continue  # a directory that is gone cannot be made absolute, and is reported by name
            if self._is_of_moved_rounds(key, old):
                changed = True
                continue
            if is_bound(key):
                self.notes.append(
                    f"{key} was {shown(old)} when this run was started and is {shown(new)} now: rounding may differ"
                )
                continue
            phase = None if is_of_a_server(key, old, new) else dependent(key, begun, kept)
            if phase == EVALUATION:
                stale.append(f"{key} was {shown(old)} and is {shown(new)} now")
                continue
            if phase is not None:
                refused.append((key, old, new, phase))
                continue
            if begun or not is_of_a_server(key, old, new):
                self.notes.append(
                    f"{key} was {shown(old)} and is {shown(new)} now; nothing that has started depends on it"
                )
            changed = True
        if refused:
            raise RunError(f"{path} belongs to another configuration: {conflict(self.path, refused)}")
        return changed, stale

    def _is_of_moved_rounds(self, key: str, old: Any) -> bool:
        """Whether a setting names the rounds before this one, which were moved together with it."""
        before, there = [str(each) for each in rounds_before(self.path.resolve())], self.settings.earlier_rounds
        if not before or list(there) != before:
            return False
        return (key == "earlier_rounds" and len(old or ()) == len(before)) or (
            key == "sft.from" and self.settings.sft.taken_from == before[0]
        )

    def _changed_data(
        self, kept: Mapping[str, str], found: Mapping[str, str], settings: Mapping[str, Any], begun: Sequence[str]
    ) -> bool:
        """Whether files have changed that no started phase has read; those are recorded.

        Raises:
            RunError: a started phase has read one.
        """
        changed, scorers = False, scorer_files(self.settings)
        for name, old in kept.items():
            if name not in found or found[name] == old:
                continue
            changed = True
            scored = [phase for phase in scorers.get(name, ()) if phase in begun]
            if scored:  # allowed: a function that fails is fixed, and its run continues
                self.notes.append(
                    f"{name} has changed since this run was started: {', '.join(scored)} started "
                    f"with the scores of the old function, and continues with those of the new one"
                )
                continue
            for role in roles_of(name, self.settings):
                phase = dependent(f"data.{role}", begun, settings)
                if phase is not None:
                    raise RunError(
                        f"{name} has changed since {self.path} was started, and {shown_phase(phase)} has read it; "
                        "restore the file, or create a run that shares the finished phases: "
                        f"triphase branch {self.path} NAME"
                    )
            self.notes.append(f"{name} has changed since this run was started; nothing that has started has read it")
        return changed or bool(found.keys() - kept.keys())

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """One phase: its seconds and the peak memory go to `timings.json`, its start and end to the log.

        Raises:
            RunError: the block ran out of memory; the message says which setting to lower.
        """
        start = time.perf_counter()
        self.restart_peak()
        _log.info("%s begins", phase)
        try:
            with memory_errors(phase, lambda: self.shortage_of(phase)):
                yield
        except BaseException:
            with suppress(RunError):  # the error of the block is the one to report
                self._add_seconds(phase, time.perf_counter() - start)
            raise
        seconds = time.perf_counter() - start
        self._add_seconds(phase, seconds)
        seal_phase(self.path, phase)
        _log.info("%s ends after %.1f s", phase, seconds)

    def _add_seconds(self, phase: str, seconds: float) -> None:
        timings = self.timings()
        timings[phase] = timings.get(phase, 0.0) + seconds
        peaks = timings.setdefault("peaks_gb", {})
        peaks[phase] = round(max(card_peak_gb() or peak_gb(), peaks.get(phase, 0.0)), 3)
        timings["peak_gb"] = round(max(peak_gb(), self._peak, timings.get("peak_gb", 0.0)), 3)
        write_json(self.path / TIMINGS, timings)

    @property
    def is_held(self) -> bool:
        """Whether this process has locked it, and does not only read it."""
        return self._is_held

    @property
    def begun(self) -> str:
        """The date (YYYY-MM-DD) on which the run was started; today if it has not been."""
        return day_begun(self.path)

    def restart_peak(self) -> None:
        """Restart the peak of memory: opening a model may take more than its phase."""
        self._peak = max(self._peak, restart_peak())

    def timings(self) -> dict[str, Any]:
        """Seconds of each phase so far, ``peak_gb`` of all, and ``peaks_gb`` of each phase once its model is open,
        on the GPU if the model is on one, as it is planned.

        If they cannot be read they start again, with a warning.
        """
        path = self.path / TIMINGS
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            problem = problem_of("timings", found)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            problem = str(error)
        if problem is None:
            return dict(found)
        _log.warning("%s is damaged (%s): the times of earlier phases are lost", path, problem)
        return {}


def _require_place(run: Path) -> None:
    """Check that a run is a writable directory, or can become one.

    Raises:
        RunError: something else is there, or above it, or its place is read-only or forbidden.
    """
    nearest = run
    with disk_errors(run):
        while not os.path.lexists(nearest) and nearest != nearest.parent:
            with suppress(FileNotFoundError, NotADirectoryError):
                os.lstat(nearest)
            nearest = nearest.parent
    if not nearest.is_dir():
        raise RunError(
            f"{nearest}: is not a directory; choose another name (--name), or another directory with `output`"
        )
    if not os.access(nearest, os.W_OK | os.X_OK):
        reason = errno.EROFS if os.statvfs(nearest).f_flag & os.ST_RDONLY else errno.EACCES
        with disk_errors(run):
            raise OSError(reason, os.strerror(reason))
