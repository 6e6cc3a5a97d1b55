"""The steps of a run, and which are left out and why."""

from triphase.errors import SettingsError
from triphase.rewards import registry
from triphase.settings.agenda import STEPS, reasons_to_leave_out, reward_model_is_wanted
from triphase.settings.schema import RunSettings

TITLES = {
    "sft": "supervised fine-tuning",
    "sampling": "sampling for labelers",
    "labelling": "labeling",
    "reward": "the reward model",
    "ppo": "PPO",
    "evaluation": "the evaluation",
}


def needs_reward_model(settings: RunSettings) -> bool:
    """Whether a reward model is trained: not if other scorers score every PPO run and nobody ranks."""
    return reward_model_is_wanted(settings, by_reward_model=_by_reward_model(settings))


def left_out(settings: RunSettings) -> dict[str, str]:
    """The steps that `triphase run` does not do, each with the reason."""
    return reasons_to_leave_out(settings, by_reward_model=_by_reward_model(settings))


def todo(settings: RunSettings) -> tuple[str, ...]:
    """The steps of `triphase run`."""
    absent = left_out(settings)
    return tuple(step for step in STEPS if step not in absent)


def what_is_left_out(settings: RunSettings) -> list[str]:
    """`left_out`, one line for each reason."""
    reasons: dict[str, list[str]] = {}
    for step, why in left_out(settings).items():
        reasons.setdefault(why, []).append(TITLES[step])
    return [f"left out: {', '.join(titles)}: {why}" for why, titles in reasons.items()]


def require_step(settings: RunSettings, step: str) -> None:
    """Refuse a step that has nothing to do.

    Raises:
        SettingsError: says why.
    """
    why = left_out(settings).get(step)
    if why is not None:
        others = ", ".join(TITLES[name] for name in todo(settings))
        raise SettingsError(f"there is nothing to do for {TITLES[step]}: {why} (to do: {others})")


def _by_reward_model(settings: RunSettings) -> bool:
    return any(
        registry.needs_reward_model(
            settings.ppo_of(variant).scorer, "ppo.scorer" if variant is None else f"variants.{variant}.scorer"
        )
        for variant in (None, *settings.variants)
    )
