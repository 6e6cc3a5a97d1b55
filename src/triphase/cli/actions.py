"""The commands that work on a run: each prepares the run and calls the steps of the pipeline."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from triphase.cli.result_screen import print_outcome, print_place
from triphase.errors import RunError, SettingsError, TriphaseError
from triphase.settings.loading import RUN_CONFIG, load_settings
from triphase.settings.schema import RunSettings

if TYPE_CHECKING:
    from triphase.runs.session import Run

Config = Annotated[Path, Parameter(help="A settings file (YAML), or the directory of a run.")]
RunPath = Annotated[Path, Parameter(help="The directory of a run, for example runs/demo.")]
Checkpoint = Annotated[
    int | None, Parameter(help="The policy after this iteration of PPO, of those that are kept; the last by default.")
]
Overrides = Annotated[str, Parameter(allow_leading_hyphen=True, show=False)]


def demo(
    *,
    tiny: Annotated[bool, Parameter(help="A tiny model on a small grammar: about a minute.")] = False,
    output: Annotated[Path, Parameter(help="Parent of the run directory.")] = Path("runs"),
    seed: Annotated[int, Parameter(help="Every random number of the run derives from it.")] = 0,
) -> None:
    """The whole of RLHF on the embedded model and data."""
    from triphase.demo.configuration import demo_settings

    settings = demo_settings(tiny=tiny, output=str(output), seed=seed)
    from triphase.runs.pipeline import run_all

    _steps(settings, run_all)


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
    from triphase.runs.pipeline import run_all

    _steps(settings, run_all)
    return None


def sft(config: Config, /, *overrides: Overrides) -> None:
    """Phase 1: supervised fine-tuning."""
    settings = settings_of(config, overrides)
    from triphase.runs.pipeline import run_sft

    _steps(settings, run_sft, names=("sft",))


def sample(config: Config, /, *overrides: Overrides) -> None:
    """Sample the responses that people rank."""
    settings = settings_of(config, overrides)
    from triphase.runs.pipeline import run_sampling

    _steps(settings, run_sampling, names=("sampling",))


def reward(config: Config, /, *overrides: Overrides) -> None:
    """Phase 2: the reward model, from the rankings."""
    settings = settings_of(config, overrides)
    from triphase.runs.pipeline import run_labelling, run_reward

    _steps(settings, run_labelling, run_reward, names=("labelling", "reward"))


def ppo(
    config: Config,
    /,
    *overrides: Overrides,
    arm: Annotated[str | None, Parameter(help="One of the `arms` of the settings; the main run by default.")] = None,
) -> None:
    """Phase 3: PPO against the reward model."""
    settings = settings_of(config, overrides)
    if arm is not None and arm not in settings.arms:
        raise SettingsError(f"--arm: there is no arm {arm!r}; known are {', '.join(settings.arms) or 'none'}")
    from triphase.runs.pipeline import run_ppo

    _steps(settings, lambda run: run_ppo(run, arm), names=("ppo",))


def evaluate(config: Config, /, *overrides: Overrides, checkpoint: Checkpoint = None) -> None:
    """Compare the policies on held-out prompts."""
    settings = settings_of(config, overrides)
    from triphase.runs.pipeline import run_evaluation, run_report

    _steps(settings, lambda run: run_evaluation(run, checkpoint), run_report, names=("evaluation",))


def report(run: RunPath, /) -> None:
    """Write report.html and summary.json of a run again."""
    require_run(run)
    from triphase.reports.contents import gaps_of
    from triphase.reports.page import write_report
    from triphase.reports.summary import write_summary

    write_summary(run)
    path = write_report(run)
    for gap in gaps_of(run):
        print(f"note: {gap}", file=sys.stderr)
    print(path)


def chat(
    model: Annotated[str, Parameter(help="The directory of a run, a model's directory, or a hub id.")],
    /,
    *,
    checkpoint: Checkpoint = None,
) -> None:
    """Talk to a run's policy, or to any model."""
    from triphase.cli.chat import chat as talk

    talk(model, checkpoint=checkpoint)


def export(
    run: RunPath,
    /,
    *,
    to: Annotated[Path, Parameter(help="The new directory of the checkpoint.")],
    checkpoint: Checkpoint = None,
) -> None:
    """Merge a run's policy into an ordinary checkpoint."""
    require_run(run)
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise RunError(f"{to}: exists already; name a new directory with --to")
    from triphase.runs.merging import merge_policy

    merge_policy(run, to, checkpoint)
    print(to)


def settings_of(config: Path, overrides: tuple[str, ...]) -> RunSettings:
    """The settings of a file or run directory, with ``--name value`` or ``--name=value`` laid over them."""
    return load_settings(config, parse_overrides(overrides))


def parse_overrides(words: tuple[str, ...]) -> dict[str, str]:
    """``--ppo.kl-coefficient 0.02`` and ``--ppo.kl-coefficient=0.02`` as name → text."""
    found: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        if not word.startswith("--") or word == "--":
            raise SettingsError(f"{word}: unexpected; settings are given as --ppo.kl-coefficient 0.02")
        name, equals, text = word[2:].partition("=")
        value = text if equals else next(rest, None)
        if value is None:
            raise SettingsError(f"--{name}: needs a value, for example --{name} 1")
        if name in found:
            raise SettingsError(f"--{name}: is given twice")
        found[name] = value
    return found


def require_run(path: Path) -> Path:
    """``path``, which must be the directory of a run.

    Raises:
        RunError: it is none.
    """
    if not (path / RUN_CONFIG).is_file():
        raise RunError(f"{path}: is not the directory of a run (no {RUN_CONFIG} in it); runs stand in runs/NAME")
    return path


def _verify(path: Path) -> int:
    """Print whether the first steps of a run repeat; exit code 0 where all of them do, else 1."""
    from triphase.runs.verification import differences, verify_run

    found = verify_run(path)
    for verdict in found:
        print(
            f"{verdict.phase} step {verdict.step}: {'same' if verdict.same else 'DIFFERENT'}  {verdict.recorded[:16]}"
        )
    if all(verdict.same for verdict in found):
        print(f"{path}: all {len(found)} steps have the same weights again")
        return 0
    for line in differences(path) or ["versions are the same; the processor or its instructions may differ"]:
        print(f"note: {line}")
    return 1


def _steps(settings: RunSettings, *steps: Callable[["Run"], object], names: tuple[str, ...] = ()) -> None:
    """Prepare the run, do its steps, and show what came of it. A stop is passed on as an interruption.

    ``names`` are the steps of the pipeline for which the data is looked at first; `run_all` does that itself.
    """
    from triphase.runs.preflight import examine_run
    from triphase.runs.session import prepare
    from triphase.training.state import Stopped

    path: Path | None = None
    try:
        with prepare(settings) as run:
            path = run.path
            if names:
                examine_run(run, names)
            for step in steps:
                step(run)
    except (Stopped, KeyboardInterrupt):
        print_place(path)
        raise KeyboardInterrupt from None
    except TriphaseError:
        print_place(path)
        raise
    print_outcome(path)
