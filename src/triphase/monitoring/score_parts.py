"""The metrics of the parts of a score: a family whose names a scorer defines."""

import re

PREFIX = "ppo/score_part/"
"""The prefix of a part's name."""
LONGEST = 40
NAME = re.compile(rf"[a-z][a-z0-9_]{{0,{LONGEST - 1}}}")
"""Allowed names of a part."""


def is_score_part(metric: str) -> bool:
    """Whether a metric is the mean of a part of the score."""
    return metric.startswith(PREFIX) and NAME.fullmatch(metric.removeprefix(PREFIX)) is not None
