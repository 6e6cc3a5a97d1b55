"""Repeats the first steps of each phase of a run and compares checksums of the trained weights with the run's.

Each phase starts from the run's own previous artifacts (its `sft/final`, its labels, its `reward/final`), in a
directory of its own that is removed afterwards. The run is only read.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from triphase.errors import RunError
from triphase.monitoring.progress import SilentProgress, SilentTrack
from triphase.runs import pipeline
from triphase.runs.base_dtype import kept_dtype
from triphase.runs.directory import RunDirectory
from triphase.runs.kept_engine import kept_choice
from triphase.runs.provenance import day_begun, git_revision, read_config, versions
from triphase.runs.reward_training import run_reward
from triphase.runs.session import Run
from triphase.settings.loading import load_settings
from triphase.settings.phase_names import REWARD, SFT, ppo_phase
from triphase.settings.schema import RunSettings
from triphase.store.copying import copy_file
from triphase.training.artifacts import has_left, place_of
from triphase.training.checkpoint import load_latest
from triphase.training.state import FINGERPRINTED
from triphase.training.stopping import Stopped, StopRequest

_COPIED = ("labels.sqlite",)
_LINKED = (SFT, REWARD)
_REVISION = "the git revision of this directory"


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether one step of one phase gave the same weights as in the run."""

    phase: str
    step: int
    recorded: str
    repeated: str | None

    @property
    def same(self) -> bool:
        return self.recorded == self.repeated


def verify_run(path: Path, steps: int = FINGERPRINTED) -> list[Verification]:
    """Repeat up to ``steps`` steps of each phase of a run.

    Raises:
        RunError: the run has no phase with recorded checksums.
    """
    settings = load_settings(path)
    dated = settings.model.template_date or day_begun(path)
    alike = {"template_date": dated}
    if settings.sft.method != "full":  # its first phase has another dtype
        alike["dtype"] = kept_dtype(path) or settings.model.dtype
    settings = settings.model_copy(update={"model": settings.model.model_copy(update=alike)})
    threads = read_config(path / "config.yaml").get("machine", {}).get("threads")
    phases: list[tuple[str, str | None]] = [("sft", None), ("reward", None), ("ppo", None)]
    phases += [(ppo_phase(variant), variant) for variant in settings.variants]
    found: list[Verification] = []
    for phase, variant in phases:
        recorded = _fingerprints(path / phase)
        if recorded:
            with tempfile.TemporaryDirectory() as folder:
                copy = settings.model_copy(update={"output": folder, "threads": threads or settings.threads})
                repeated = _repeat(path, copy, phase, variant, min(steps, len(recorded)))
            wanted = sorted(recorded.items(), key=lambda item: int(item[0]))[:steps]
            found += [Verification(phase, int(step), value, repeated.get(step)) for step, value in wanted]
    if not found:
        raise RunError(
            f"{path}: no phase has recorded checksums of its first steps; run it first (older versions recorded none)"
        )
    return found


def differences(path: Path) -> list[str]:
    """Differences from the start of the run: versions of what the numbers depend on, and the code in this directory."""
    config = read_config(path / "config.yaml")
    before: dict[str, str | None] = config.get("versions", {})
    now: dict[str, str | None] = {**versions()}
    if config.get("git_revision"):
        before, now = before | {_REVISION: config["git_revision"]}, now | {_REVISION: git_revision()}
    return [
        f"{name} was {before.get(name, 'absent')} and is {now[name] or 'unknown'}"
        for name in now
        if before.get(name) != now[name]
    ]


def _fingerprints(phase: Path) -> dict[str, str]:
    checkpoint = load_latest(phase / "checkpoints")
    return {} if checkpoint is None else dict(checkpoint.values.get("fingerprints", {}))


def _repeat(path: Path, settings: RunSettings, phase: str, variant: str | None, steps: int) -> dict[str, str]:

    def again(run: Run) -> None:
        if phase == "sft":
            pipeline.run_sft(run)
        elif phase == "reward":
            run_reward(run)
        else:
            pipeline.run_ppo(run, variant)

    settings = _as_sampled(path, settings, phase)
    directory = RunDirectory(settings)
    _furnish(path, directory.path, phase)
    stop = StopRequest()
    run = Run(settings, directory, _Stopping(stop, steps), stop)
    try:
        with directory.held(), _threads(settings.threads):
            again(run)
    except Stopped:
        pass
    return _fingerprints(directory.path / phase)


def _as_sampled(path: Path, settings: RunSettings, phase: str) -> RunSettings:
    """The settings with the engine that a trial chose for PPO, which another trial may not choose."""
    rollouts = settings.rollouts
    choice = kept_choice(path, phase) if rollouts.tries_both and phase not in (SFT, REWARD) else None
    if choice is None:
        return settings
    changed: dict[str, Any] = {"engine": choice.engine}
    if not choice.by_servers:
        changed |= {"servers": 0, "addresses": ()}
    return settings.model_copy(update={"rollouts": rollouts.model_copy(update=changed)})


def _furnish(path: Path, copy: Path, phase: str) -> None:
    """Give the copy the inputs of the run's phase."""
    copy.mkdir(parents=True)
    for name in _COPIED:
        if (path / name).is_file():
            copy_file(path / name, copy / name)
    for name in _LINKED:
        if has_left(path, name) and name != phase:
            (copy / name).mkdir()
            shutil.copytree(place_of(path, name), place_of(copy, name), symlinks=False)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Stopping(SilentProgress):
    """Progress whose tracks of steps request a stop after this many."""

    def __init__(self, stop: StopRequest, steps: int) -> None:
        super().__init__()
        self._stop, self._steps = stop, steps

    @contextmanager
    def track(self, description: str, total: int, *, done: int = 0, unit: str = "steps") -> Iterator[SilentTrack]:
        """See Progress. Work before the steps of a phase is not counted."""
        if unit != "steps":
            yield SilentTrack(description, total, done, unit)
            return
        yield _StoppingTrack(self._stop, self._steps, SilentTrack(description, total, done, unit))


class _StoppingTrack(SilentTrack):
    def __init__(self, stop: StopRequest, steps: int, like: SilentTrack) -> None:
        super().__init__(like.description, like.total, like.done, like.unit)
        self._stop, self._left = stop, steps

    def advance(self, n: int = 1, **figures: float) -> None:
        self._left -= n
        self._stop.asked = self._stop.asked or self._left <= 0
