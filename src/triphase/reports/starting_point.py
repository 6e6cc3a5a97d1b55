"""The starting point of a run and the steps that it omits, in words.

PPO's policies are compared with the SFT policy, or with the unmodified model if nothing was tuned.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from triphase.reports.scored_by import uses_reward_model
from triphase.settings.agenda import reasons_to_leave_out
from triphase.settings.schema import RunSettings


@dataclass(frozen=True, slots=True)
class Start:
    """The reference policy of a run: its short name, and as a noun; ``tuned`` if phase 1 made it."""

    name: str
    noun: str
    tuned: bool


_SFT = Start("SFT", "the SFT policy", tuned=True)
_AS_IT_IS = Start("start", "the original model", tuned=False)


def start_of(settings: Mapping[str, Any]) -> Start:
    """The reference of a run with these settings; the SFT policy if they do not say."""
    sft, data = settings.get("sft"), settings.get("data")
    if isinstance(sft, Mapping) and sft.get("from") is not None:
        return _SFT
    if isinstance(sft, Mapping) and sft.get("method") == "none":
        return _AS_IT_IS
    if isinstance(data, Mapping) and "demonstrations" in data and not data["demonstrations"]:
        return _AS_IT_IS
    return _SFT


def left_out_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """The steps that a run with these settings omits, each with the reason; empty if that is unknown."""
    try:
        read = RunSettings.model_validate(dict(settings))
    except ValueError:  # settings of another version
        return {}
    by_model = any(uses_reward_model(settings, variant) for variant in (None, *read.variants))
    return reasons_to_leave_out(read, by_reward_model=by_model)
