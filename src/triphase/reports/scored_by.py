"""The name of the scorer of a PPO run's responses: the run's reward model, or another in its place."""

from collections.abc import Mapping
from typing import Any

from triphase.rewards.registry import KINDS
from triphase.settings.phase_names import variant_of
from triphase.settings.scorer import chosen_kind, laid_over

_IDENTITY = ("address", "format", "function", "options", "of")
_OTHERS = {"function": "the function", "remote": "the server", "classifier": "the classifier", "judge": "the judge"}
_RULES = ("length", "repetition", "pattern", "json", "sentiment")


def uses_reward_model(settings: Mapping[str, Any], variant: str | None = None) -> bool:
    """Whether the run's reward model scores the main PPO run, or a variant."""
    kind = KINDS.get(_kind(_section(settings, variant)))
    return kind is not None and kind.needs_reward_model


def has_own_scorer(settings: Mapping[str, Any], policy: str) -> bool:
    """Whether a policy is of a variant whose scores have another unit than those of the main run."""
    if (variant := variant_of(policy)) is None:
        return False
    main, own = _section(settings, None), _section(settings, variant)
    return _kind(main) != _kind(own) or any(main.get(name) != own.get(name) for name in _IDENTITY)


def scorer_of(settings: Mapping[str, Any], variant: str | None = None) -> str:
    """What scores the main PPO run, or a variant: the reward model, the function lengths:brevity."""
    if uses_reward_model(settings, variant):
        return "the reward model"
    section = _section(settings, variant)
    kind = _kind(section)
    if kind == "object":
        return "a Python object"
    name = section.get("function") if kind == "function" else section.get("address") if kind == "remote" else kind
    if kind == "sum":
        return f"the sum of {', '.join(str(part.get('name')) for part in section.get('of') or ())}"
    if kind in ("classifier", "judge"):
        name = _inner(section, "options").get("model")
    return f"{_OTHERS.get(kind, 'the rule' if kind in _RULES else 'the scorer')} {name}"


def score_of(settings: Mapping[str, Any]) -> str:
    """Its score: the reward model's score, the score of the function lengths:brevity."""
    return "the reward model's score" if uses_reward_model(settings) else f"the score of {scorer_of(settings)}"


def _section(settings: Mapping[str, Any], variant: str | None) -> Mapping[str, Any]:
    main = _inner(_inner(settings, "ppo"), "scorer")
    return main if variant is None else laid_over(main, _inner(_inner(_inner(settings, "variants"), variant), "scorer"))


def _inner(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}


def _kind(section: Mapping[str, Any]) -> str:
    return chosen_kind(section.get("kind"), section.get("address"), section.get("function"), section.get("of"))
