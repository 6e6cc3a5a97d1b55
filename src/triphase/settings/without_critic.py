"""Requirements of ``ppo.advantage_estimator`` on the other settings of PPO, and settings without effect under it."""

import logging
from collections.abc import Mapping
from typing import Any

_log = logging.getLogger(__name__)

WITH_CRITIC = ("gae",)
"""The estimators that need a critic."""
COMPARING = ("rloo", "grpo")
"""Those that compare the responses to one prompt."""

_WITH_CRITIC_ALONE = (
    "discount",
    "gae_lambda",
    "value_clip_range",
    "value_coefficient",
    "optimizer.head_learning_rate",
    "standardize_advantages",
)


def estimator_problem(estimator: str, *, responses_per_prompt: int, batch_size: int) -> str | None:
    """Why an estimator cannot work with these sizes; None if it can."""
    if estimator in COMPARING and responses_per_prompt < 2:
        return (
            f"advantage_estimator {estimator} compares the responses to a prompt, but responses_per_prompt is "
            f"{responses_per_prompt}; set it to 2 or more (for example 4), or choose gae or reinforce"
        )
    if estimator == "reinforce" and batch_size < 2:
        return (
            "advantage_estimator reinforce compares the responses of a rollout, but batch_size is 1; raise it, or "
            "choose gae"
        )
    return None


def idle_settings(estimator: str, given: Mapping[str, Any]) -> list[str]:
    """The names among the ``given`` settings of a PPO section that have no effect under an estimator."""
    return [] if estimator in WITH_CRITIC else [name for name in _WITH_CRITIC_ALONE if _is_given(name, given)]


def note_idle_settings(values: Mapping[str, Any]) -> None:
    """Log which of a run's given, valid settings have no effect for PPO or a variant of it."""
    base = values.get("ppo", {})
    sections = {"ppo": base, **{f"variants.{variant}": given for variant, given in values.get("variants", {}).items()}}
    for name, given in sections.items():
        estimator = given.get("advantage_estimator", base.get("advantage_estimator", "gae"))
        idle = idle_settings(estimator, given)
        if idle:
            _log.warning("%s: %s: no effect with advantage_estimator %s", name, ", ".join(idle), estimator)


def _is_given(name: str, given: Mapping[str, Any]) -> bool:
    section, _, key = name.rpartition(".")
    inner = given.get(section) if section else given
    return isinstance(inner, Mapping) and key in inner
