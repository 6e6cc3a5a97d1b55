"""What is killed and restarted: a whole run, or a branch, an extension or a sweep of a finished one."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from tests.crash import pipeline, processes

from triphase.errors import RunError
from triphase.settings.schema import RunSettings

Work = Callable[[RunSettings], None]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing that a person does.

    Attributes:
        work: does it, from wherever it was broken off.
        places: the runs that must end with the same bytes, in the directory of runs.
        of_a_finished_run: whether the run of `pipeline` is there before.
    """

    work: Work
    places: tuple[str, ...] = ("small",)
    of_a_finished_run: bool = False

    def digests(self, runs: Path) -> dict[str, str]:
        """The sums of all that must be there at the end."""
        return {
            f"{place}/{name}": each for place in self.places for name, each in pipeline.digests(runs / place).items()
        }

    def leftovers(self, runs: Path) -> list[str]:
        """What killed processes left and the last one should have cleared."""
        return [f"{place}/{name}" for place in self.places for name in pipeline.leftovers(runs / place)]


def run(*, report: bool = False) -> Scenario:
    """Every step of `triphase run`."""
    return Scenario(functools.partial(processes.pipeline, report=report))


def _branch(settings: RunSettings) -> None:
    """`triphase branch`, and `triphase run` where the branch is there."""
    from triphase.cli import branch, steps
    from triphase.settings.loading import load_settings

    source, target = _place(settings, "small"), _place(settings, "other")
    with _without_pages():
        if target.is_dir():
            steps.do_steps(load_settings(target), "all")
        else:
            branch.branch(
                source, "other", "--ppo.kl-coefficient", "0.3", "--evaluation.samples-per-prompt", "3", run=True
            )


def _extend(settings: RunSettings) -> None:
    """`triphase extend`, the same call each time."""
    from triphase.cli import extend

    with _without_pages():
        extend.extend(_place(settings, "small"), "--ppo.iterations", "6")


def _sweep(settings: RunSettings) -> None:
    """`triphase sweep`, the same call each time; a point that fails is a failure of the call."""
    from triphase.cli import sweep

    with _without_pages():
        if sweep.sweep(_place(settings, "small"), "--ppo.kl-coefficient", "0.02,0.3", name="sweep"):
            raise RunError("a run of the sweep failed")


SCENARIOS: Mapping[str, Scenario] = {
    "run": run(),
    "branch": Scenario(_branch, ("small", "other"), of_a_finished_run=True),
    "extend": Scenario(_extend, of_a_finished_run=True),
    "sweep": Scenario(_sweep, ("small", *(f"sweep/kl-coefficient-{each}" for each in ("0.02", "0.3"))), True),
}


def _place(settings: RunSettings, name: str) -> Path:
    return Path(settings.output) / name


def _without_pages() -> "mock._patch[object]":
    """Pages are drawn from what is compared anyway, and take longer than all the rest."""
    from triphase.runs import pipeline as steps

    def write(run: Path) -> Path:
        (run / "report.html").write_text("not drawn")
        return run / "report.html"

    return mock.patch.object(steps, "write_report", write)
