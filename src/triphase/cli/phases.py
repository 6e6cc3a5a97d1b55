"""The steps of a run, one command each."""

import os
from typing import Annotated

from cyclopts import Parameter

from triphase.cli.arguments import Checkpoint, Config, Overrides, settings_of
from triphase.cli.steps import do_steps
from triphase.datacheck.agenda import require_step
from triphase.errors import SettingsError
from triphase.runs.best_checkpoint import BEST
from triphase.training.distributed.environment import place_in


def sft(config: Config, /, *overrides: Overrides) -> None:
    """Phase 1: supervised fine-tuning."""
    settings = settings_of(config, overrides)
    require_step(settings, "sft")
    do_steps(settings, "sft", examined=("sft",))


def sample(config: Config, /, *overrides: Overrides) -> None:
    """Sample the responses that people rank."""
    settings = settings_of(config, overrides)
    require_step(settings, "sampling")
    do_steps(settings, "sampling", examined=("sampling",))


def reward(
    config: Config,
    /,
    *overrides: Overrides,
    learning_curve: Annotated[
        bool,
        Parameter(
            negative="",
            help="Also train on a quarter, half and all of the prompts, and report what more prompts would bring.",
        ),
    ] = False,
) -> None:
    """Phase 2: the reward model, from the rankings."""
    if learning_curve and place_in(os.environ).world > 1:
        raise SettingsError(
            "--learning-curve: needs a single process; train with several first, then run it without torchrun"
        )
    settings = settings_of(config, overrides)
    require_step(settings, "reward")
    steps = ("labeling", "reward", *(("learning curve",) if learning_curve else ()))
    do_steps(settings, *steps, examined=("labelling", "reward"))


def ppo(
    config: Config,
    /,
    *overrides: Overrides,
    variant: Annotated[
        str | None, Parameter(help="The variant to train, one of `variants` in the settings; the main run by default.")
    ] = None,
) -> None:
    """Phase 3: PPO against the reward model."""
    settings = settings_of(config, overrides)
    if variant is not None and variant not in settings.variants:
        raise SettingsError(
            f"--variant: there is no variant {variant!r}; known are {', '.join(settings.variants) or 'none'}"
        )
    do_steps(settings, "ppo", examined=("ppo",), variant=variant)


def evaluate(config: Config, /, *overrides: Overrides, checkpoint: Checkpoint = None) -> None:
    """Compare the policies on held-out prompts."""
    settings = settings_of(config, overrides)
    first = ("best",) if checkpoint == BEST else ()
    do_steps(settings, *first, "evaluation", "report", examined=("evaluation",), checkpoint=checkpoint)
