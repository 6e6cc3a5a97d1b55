"""The phases as functions: each does what the command of its name does, and returns the run.

The same call again continues unfinished work, as the same command does.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch

from triphase.api.keywords import changed_settings, settings_of
from triphase.api.memory_data import Place, Prompts, Records, place_text, source_of
from triphase.api.run import Run
from triphase.datacheck.agenda import require_step
from triphase.errors import SettingsError
from triphase.monitoring.progress import SilentProgress
from triphase.runs.execution import perform
from triphase.runs.leftovers import not_there, removed_if_refused
from triphase.settings.loading import RUN_CONFIG
from triphase.settings.places import expanded
from triphase.settings.schema import RunSettings
from triphase.training.stopping import Stopped

Reward: TypeAlias = Callable[..., Any] | Place | Mapping[str, Any]
"""A function; a run with a reward model, or a function by its name; or settings of another scorer."""


def train_sft(
    model: Place | Mapping[str, Any], demonstrations: Records, *, name: str, progress: bool = True, **settings: Any
) -> Run:
    """Phase 1: supervised fine-tuning of a model on demonstrations.

    Args:
        model: a directory, a hub id, an embedded name (`embedded:smollm2`), or a run, which means its newest policy; or
            settings of the section `model`, including its ``name``, as a mapping.
        demonstrations: a data file, a hub id, or rows with its columns (for example `prompt` and `completion`).
        name: the run's name; its directory is `runs/NAME` (``output`` for another parent).
        progress: whether bars and notes go to standard error.
        settings: any setting: a section as a mapping, or one by its dotted name.

    Raises:
        TriphaseError: an error in the arguments, in one line.
    """
    with removed_if_refused(_new_places(name, settings)):
        chosen = _begun("train_sft", model, "demonstrations", demonstrations, name, settings)
        require_step(chosen, "sft")
        return _performed(chosen, "sft", "report", examined=("sft",), progress=progress)


def train_reward_model(
    model: Place | Mapping[str, Any], preferences: Records, *, name: str, progress: bool = True, **settings: Any
) -> Run:
    """Phase 2: a reward model from comparisons.

    Args:
        model: as in `train_sft`; the policy that PPO will start from, so that both share one base.
        preferences: a data file, a hub id, or rows with its columns (for example `prompt`, `chosen` and `rejected`).
        name: as in `train_sft`.
        progress: as in `train_sft`.
        settings: as in `train_sft`.

    Raises:
        TriphaseError: an error in the arguments, in one line.
    """
    with removed_if_refused(_new_places(name, settings)):
        chosen = _begun("train_reward_model", model, "preferences", preferences, name, settings)
        require_step(chosen, "reward")
        steps = ("labelling", "reward")
        return _performed(chosen, "labeling", "reward", "report", examined=steps, progress=progress)


def train_ppo(
    model: Place | Mapping[str, Any],
    prompts: Place | Prompts,
    *,
    reward: Reward,
    name: str,
    progress: bool = True,
    **settings: Any,
) -> Run:
    """Phase 3: PPO of a policy against a reward, with its variants (``variants``).

    Args:
        model: as in `train_sft`: the start of the policy, and the reference.
        prompts: a data file, a hub id, texts, conversations, or rows with the columns of such a file.
        reward: a function, which is called like `ppo.scorer.function`; the name of one (`module:function`); a run with
            a reward model; or settings of another scorer (`ppo.scorer`), as a mapping.
        name: as in `train_sft`.
        progress: as in `train_sft`.
        settings: as in `train_sft`.

    Raises:
        TriphaseError: an error in the arguments, in one line.
    """
    scored = {**settings, **_reward_keywords(reward)}
    with removed_if_refused(_new_places(name, settings)):
        chosen = _begun("train_ppo", model, "prompts", prompts, name, scored)
        return _performed(
            chosen,
            "ppo and variants",
            "report",
            examined=("ppo",),
            progress=progress,
            scorer_object=_scorer_object(reward),
        )


def evaluate(
    run: Place,
    *,
    reward: Callable[..., Any] | None = None,
    checkpoint: int | None = None,
    progress: bool = True,
    **settings: Any,
) -> Run:
    """Compare the policies of a run on held-out prompts: `run.summary` and `run.samples()` have the result.

    Args:
        run: a `Run`, or its directory.
        reward: the function, if one was passed to `train_ppo`.
        checkpoint: an iteration of PPO that is evaluated too.
        settings: those of ``evaluation`` may change in an existing run; the older evaluation is set aside.

    Raises:
        TriphaseError: an error in the arguments, in one line.
    """
    chosen = changed_settings("evaluate", Run(run).path, settings)
    if reward is not None and not any(
        chosen.ppo_of(variant).scorer.chosen == "object" for variant in (None, *chosen.variants)
    ):
        raise SettingsError(
            f"evaluate: reward: {Run(run)} was trained by a scorer of kind {chosen.ppo.scorer.chosen}, not by a "
            "function passed to train_ppo, and scores by it; leave reward out"
        )
    steps = ("evaluation", "report")
    return _performed(
        chosen, *steps, examined=("evaluation",), progress=progress, checkpoint=checkpoint, scorer_object=reward
    )


def _begun(
    caller: str,
    model: Place | Mapping[str, Any],
    role: str,
    records: Records | Prompts,
    name: str,
    settings: Mapping[str, Any],
) -> RunSettings:
    """The settings of the run, whose records are in files from now on."""
    if not isinstance(name, str):
        raise SettingsError(f"{caller}: name: is {type(name).__name__}; give the run's name as a string")
    base = model if isinstance(model, Mapping) else {"name": place_text(f"{caller}: model", model)}
    parent = Path(place_text(f"{caller}: output", settings.get("output", "runs"))).expanduser()
    source = source_of(role, records, parent / name)
    own = {"name": name, "model": base, f"data.{role}": [{"path": source.path}]}
    chosen = settings_of(caller, {**own, **settings})
    source.write()
    return chosen


def _new_places(name: object, settings: Mapping[str, Any]) -> list[Path]:
    """The directories to be created for the run; an invalid name is reported where it is read."""
    output = settings.get("output", "runs")
    if not (isinstance(name, str) and isinstance(output, str | os.PathLike)):
        return []
    return not_there(expanded(os.fspath(output)) / name)


def _scorer_object(reward: Reward) -> Callable[..., Any] | None:
    return reward if callable(reward) else None


def _reward_keywords(reward: Reward) -> dict[str, Any]:
    if callable(reward):
        return {"ppo.scorer.kind": "object"}
    if isinstance(reward, Mapping):
        return {"ppo.scorer": reward}
    text = place_text("train_ppo: reward", reward)
    if (Path(text) / RUN_CONFIG).is_file():
        return {"reward.from": text}
    if ":" in text:
        return {"ppo.scorer.function": text}
    raise SettingsError(
        f"train_ppo: reward: {text} is neither a run directory nor a function; give a function as module:function"
    )


def _performed(
    settings: RunSettings,
    *steps: str,
    examined: Sequence[str],
    progress: bool,
    checkpoint: int | None = None,
    scorer_object: Callable[..., Any] | None = None,
) -> Run:
    begun: list[Path] = []
    threads = torch.get_num_threads()
    try:
        perform(
            settings,
            steps,
            begun.append,
            examined=tuple(examined),
            checkpoint=checkpoint,
            progress=None if progress else SilentProgress(),
            scorer_object=scorer_object,
        )
    except Stopped:
        raise KeyboardInterrupt("stopped; finished work is kept, and the same call resumes it") from None
    finally:
        torch.set_num_threads(threads)  # a run's are not the program's
    return Run(begun[0])
