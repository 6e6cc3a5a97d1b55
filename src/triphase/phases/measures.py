"""Small figures over texts and numbers that PPO reports of each rollout."""

import math
from collections.abc import Sequence
from itertools import pairwise


def correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Pearson's correlation; None where one of the two does not vary."""
    count = len(first)
    mean_first, mean_second = sum(first) / count, sum(second) / count
    covariance = sum((a - mean_first) * (b - mean_second) for a, b in zip(first, second, strict=True))
    variance = sum((a - mean_first) ** 2 for a in first) * sum((b - mean_second) ** 2 for b in second)
    return covariance / math.sqrt(variance) if variance > 0 else None


def distinct_bigrams(texts: Sequence[str]) -> float | None:
    """Distinct two-word sequences over all of them, in all texts together; None where there are none."""
    words_of = (text.lower().split() for text in texts)
    bigrams = [pair for words in words_of for pair in pairwise(words)]
    return len(set(bigrams)) / len(bigrams) if bigrams else None
