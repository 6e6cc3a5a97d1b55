"""A run: what was trained, with which settings, and the results."""

from pathlib import Path
from typing import Any

from triphase.api.memory_data import Place, place_text
from triphase.api.policy import LoadedPolicy, load_policy
from triphase.api.reward_model import RewardModel, load_reward_model
from triphase.errors import RunError
from triphase.monitoring.metrics import FILE_NAME as METRICS
from triphase.monitoring.metrics import read_metrics
from triphase.records.files import read_json_lines
from triphase.reports.page import write_report
from triphase.reports.summary import write_summary
from triphase.reports.summary_file import FILE_NAME as SUMMARY
from triphase.reports.summary_file import read_summary
from triphase.settings.loading import RUN_CONFIG, load_settings
from triphase.settings.phase_names import PPO, REWARD, SFT, ppo_phase
from triphase.settings.schema import RunSettings


class Run:
    """A run directory, opened for reading; its contents are read at each call.

    A run can be passed wherever a path can: as the model or the reward of another, too.

    Attributes:
        path: the directory.
    """

    def __init__(self, path: Place) -> None:
        """Raises RunError if there is no run."""
        self.path = Path(place_text("Run", path))
        if not (self.path / RUN_CONFIG).is_file():
            raise RunError(f"{self.path}: is not a run directory (no {RUN_CONFIG} in it); give a run directory")

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def settings(self) -> RunSettings:
        """Its settings, resolved: `run.settings.ppo.kl_coefficient`."""
        return load_settings(self.path)

    @property
    def summary(self) -> dict[str, Any]:
        """The results of the run by name, as in its summary.json; an unknown value is None."""
        path = self.path / SUMMARY
        if not path.is_file():  # a training phase removes an older one
            write_summary(self.path)
        return read_summary(path)

    def metrics(self, phase: str = PPO) -> list[dict[str, Any]]:
        """The metrics of a phase (`sft`, `reward`, `ppo`, or a variant by its name), a mapping for each step.

        Raises:
            RunError: there is no such phase.
        """
        return read_metrics(self.path / self._folder(phase) / METRICS)

    def samples(self) -> list[dict[str, Any]]:
        """The evaluated responses to held-out prompts, a mapping for each; empty before an evaluation."""
        return read_json_lines(self.path / "evaluation" / "samples.jsonl")

    def policy(self, name: str | None = None, *, checkpoint: int | None = None) -> LoadedPolicy:
        """A policy, opened: the newest by default (`triphase.load_policy`)."""
        return load_policy(self, name, checkpoint=checkpoint)

    def reward_model(self) -> RewardModel:
        """The reward model, opened (`triphase.load_reward_model`)."""
        return load_reward_model(self)

    def report(self) -> Path:
        """Write summary.json and report.html again; returns the page's path."""
        write_summary(self.path)
        return write_report(self.path)

    def _folder(self, phase: str) -> str:
        variants = tuple(self.settings.variants)
        if phase in (SFT, REWARD, PPO):
            return phase
        if phase not in variants:
            raise RunError(f"{self.path}: has no phase {phase!r}; it has {', '.join((SFT, REWARD, PPO, *variants))}")
        return ppo_phase(phase)
