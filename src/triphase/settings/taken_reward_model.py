"""Settings without effect on a reward model that is taken from elsewhere (`reward.from`)."""

import logging
from collections.abc import Mapping
from typing import Any

_log = logging.getLogger(__name__)

_OF_TRAINED_ONES = ("ensemble", "length", "witness")
"""How a reward model is trained: one of `reward.from` has or lacks them, whatever is set here."""


def note_idle_remedies(values: Mapping[str, Any]) -> None:
    """Log which remedies against reward hacking are given to a reward model that is taken from elsewhere."""
    given = values.get("reward", {})
    idle = [name for name in _OF_TRAINED_ONES if given.get("from") is not None and name in given]
    if idle:
        _log.warning("reward: %s: no effect with reward.from, which takes the reward model as it is", ", ".join(idle))
