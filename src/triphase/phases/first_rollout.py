"""The scores of the first rollout, which the SFT policy writes: the baseline for later rollouts.

With the lengths of the first rollout in quarters b, p_b the share of a rollout's responses in them and m_b their mean
score, the gain of a later rollout is the sum of the change in lengths and the change within lengths:

    Σ_b p_b·m_b − Σ_b p⁰_b·m⁰_b  =  Σ_b (p_b − p⁰_b)·m⁰_b  +  Σ_b p_b·(m_b − m⁰_b)

The first part over the whole is the share of the gain that length explains. Source: the Oaxaca–Blinder decomposition;
by length strata as in Singhal et al. (arXiv 2310.03716), Sec. 4.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

_QUARTERS = 4
_CERTAINTY = 2.0


@dataclass(frozen=True, slots=True)
class FirstRollout:
    """Scores of the first rollout.

    Attributes:
        edges: lengths at which the next part begins; at most four parts, of about equal size.
        shares, means: of the responses, by part.
        mean, error: of all scores; the standard error of the mean.
        lowest, highest: of all scores.
        deviation: the population's, of all scores; None in checkpoints of older versions.
    """

    edges: tuple[float, ...]
    shares: tuple[float, ...]
    means: tuple[float, ...]
    mean: float
    error: float
    lowest: float
    highest: float
    deviation: float | None = None

    @classmethod
    def of(cls, lengths: Sequence[int], scores: Sequence[float]) -> Self:
        """Computed from the first rollout's lengths and scores."""
        ordered = sorted(lengths)
        quarters = {float(ordered[len(ordered) * edge // _QUARTERS]) for edge in range(1, _QUARTERS)}
        edges = tuple(sorted(quarters - {float(ordered[0])}))
        shares, means = _parts(edges, lengths, scores)
        mean, error = _mean(scores)
        deviation = error * math.sqrt(max(1, len(scores) - 1))
        return cls(edges, shares, tuple(means), mean, error, min(scores), max(scores), deviation)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """From the fields as a checkpoint stores them: tuples are lists."""
        lists = {name: tuple(values[name]) for name in ("edges", "shares", "means")}
        return cls(**{**values, **lists})

    def figures(self, lengths: Sequence[int], scores: Sequence[float]) -> dict[str, float]:
        """The metrics of a later rollout relative to it."""
        beyond = sum(not self.lowest <= score <= self.highest for score in scores)
        found = {"ppo/scores_beyond_start": beyond / len(scores)}
        share = self.length_share(lengths, scores)
        return found if share is None else {**found, "ppo/length_share_of_gain": share}

    def length_share(self, lengths: Sequence[int], scores: Sequence[float]) -> float | None:
        """The share of the gain explained by changed lengths; None while the gain is not significant."""
        mean, error = _mean(scores)
        gain = mean - self.mean
        if gain <= _CERTAINTY * math.hypot(error, self.error):
            return None
        shares, _ = _parts(self.edges, lengths, scores)
        moved = sum((now - then) * level for now, then, level in zip(shares, self.shares, self.means, strict=True))
        return moved / gain


def _parts(
    edges: Sequence[float], lengths: Sequence[int], scores: Sequence[float]
) -> tuple[tuple[float, ...], list[float]]:
    """The share of each part, and its mean score (0 if it has none: its share is 0 then)."""
    members: list[list[float]] = [[] for _ in range(len(edges) + 1)]
    for length, score in zip(lengths, scores, strict=True):
        members[bisect_right(edges, length)].append(score)
    shares = tuple(len(part) / len(scores) for part in members)
    return shares, [sum(part) / len(part) if part else 0.0 for part in members]


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """The mean and its standard error."""
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
    return mean, math.sqrt(variance / len(values))
