"""The metrics of the parts of a score: a family whose names a scorer defines."""

import re

PREFIX = "ppo/score_part/"
"""The prefix of a part's name."""
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
"""Allowed names of a part."""
_DEEPEST = 2


def is_score_part(metric: str) -> bool:
    """Whether a metric is the mean of a part of the score, `NAME`, or of a part of a part, `NAME/PART`."""
    names = metric.removeprefix(PREFIX).split("/")
    return metric.startswith(PREFIX) and len(names) <= _DEEPEST and all(NAME.fullmatch(name) for name in names)
