"""Rules over the metrics of PPO: signs of reward hacking and of a collapsing policy, each with its numbers and remedy.

Pure functions of the rows of ppo/metrics.jsonl. Rules that compare with the start take the mean of the first three
iterations as the start, and the mean of three iterations in a row as the value, so that one odd batch raises nothing.
The spread of an ensemble's scores is no rule here: where its members share data it falls while gold collapses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import Any

from triphase.monitoring.rules import RULES, WINDOW, Limits, Rule

__all__ = ["WINDOW", "Alarm", "Limits", "find_alarms"]


@dataclass(frozen=True, slots=True)
class Alarm:
    """One rule that spoke."""

    name: str
    """Short and fixed: ``entropy-collapse``."""
    iteration: int
    """The first at which the rule held."""
    lasting: bool
    """Whether it still held at the last iteration."""
    numbers: Mapping[str, float]
    """What triggered it, at that iteration: ``value``, ``limit``, and ``start`` where the rule compares with it."""
    message: str
    """What happened, in one sentence."""
    remedy: str
    """What to try."""

    def line(self) -> str:
        """For the terminal."""
        return f"alarm {self.name} at iteration {self.iteration}: {self.message} Remedy: {self.remedy}"


Rows = Sequence[Mapping[str, Any]]
Series = list[tuple[int, float]]


def find_alarms(rows: Rows, limits: Limits | None = None) -> list[Alarm]:
    """The alarms of the iterations in ``rows`` (as ``read_metrics`` gives them), by first iteration."""
    limits = limits or Limits()
    found = [_threshold_alarm(rule, rows, limits) for rule in RULES]
    found += [_proxy_without_gold(rows, limits), _idle_critic(rows, limits), _not_finite(rows)]
    return sorted((alarm for alarm in found if alarm), key=lambda alarm: (alarm.iteration, alarm.name))


def _threshold_alarm(rule: Rule, rows: Rows, limits: Limits) -> Alarm | None:
    series = [(iteration, rule.of(value)) for iteration, value in _series(rows, rule.metric)]
    if len(series) < (WINDOW + 1 if rule.relative else rule.window):
        return None
    start = _mean(series[:WINDOW])
    limit = rule.limit(limits, start)
    smoothed = _smoothed(series, rule.window)
    hits = [(at, value) for at, value in smoothed if (value > limit if rule.above else value < limit)]
    if not hits:
        return None
    iteration, value = hits[0]
    numbers = {"value": value, "limit": limit} | ({"start": start} if rule.relative else {})
    lasting = hits[-1][0] == smoothed[-1][0]
    return Alarm(rule.name, iteration, lasting, numbers, _filled(rule.message, numbers), rule.remedy)


def _proxy_without_gold(rows: Rows, limits: Limits) -> Alarm | None:
    """Gold well under its peak while the proxy has risen since: the mark of reward hacking.

    The peak of many noisy iterations is always a little too high, so the fall must also be a good part of what had
    been gained, and the rise of the proxy more than noise.
    """
    both = [row for row in rows if "ppo/gold_score" in row and "ppo/proxy_score" in row]
    gold, proxy = _series(both, "ppo/gold_score"), _series(both, "ppo/proxy_score")
    if len(both) < 2 * WINDOW:
        return None
    noise, proxy_noise = (limits.gold_noise * _noise(series) * sqrt(2 / WINDOW) for series in (gold, proxy))
    smooth_gold, smooth_proxy = _smoothed(gold, WINDOW), _smoothed(proxy, WINDOW)
    peak = 0
    hits: list[tuple[int, int, float]] = []
    for at, (_, value) in enumerate(smooth_gold):
        if value > smooth_gold[peak][1]:
            peak = at
        fall = max(noise, limits.gold_share * (smooth_gold[peak][1] - smooth_gold[0][1]))
        risen = smooth_proxy[at][1] - smooth_proxy[peak][1] > proxy_noise
        if at - peak >= WINDOW and value < smooth_gold[peak][1] - fall and risen:
            hits.append((at, peak, fall))
    if not hits:
        return None
    at, peak, fall = hits[0]
    numbers = {
        "value": smooth_gold[at][1],
        "peak": smooth_gold[peak][1],
        "limit": smooth_gold[peak][1] - fall,
        "proxy": smooth_proxy[at][1],
        "proxy_at_peak": smooth_proxy[peak][1],
    }
    return Alarm(
        "proxy-without-gold",
        smooth_gold[at][0],
        hits[-1][0] == len(smooth_gold) - 1,
        numbers,
        _filled(
            "the reward model's score rose from {proxy_at_peak:.2f} to {proxy:.2f} while the gold score fell from "
            "{peak:.2f} to {value:.2f}: reward hacking.",
            numbers,
        ),
        f"stop near iteration {smooth_gold[peak][0]}, raise ppo.kl_coefficient, or rank samples of this policy and "
        "train the reward model again.",
    )


def _idle_critic(rows: Rows, limits: Limits) -> Alarm | None:
    series = _series(rows, "ppo/explained_variance")
    if len(series) < limits.critic_iterations:
        return None
    half = series[len(series) // 2 :]
    value = _mean(half)
    if value >= limits.explained_variance:
        return None
    numbers = {"value": value, "limit": limits.explained_variance}
    return Alarm(
        "critic-not-learning",
        half[0][0],
        True,
        numbers,
        f"over the second half of the run the critic explains {value:.2f} of the variance of the returns.",
        "raise ppo.optimizer.head_learning_rate or ppo.value_coefficient; widen ppo.value_clip_range.",
    )


def _not_finite(rows: Rows) -> Alarm | None:
    hits = [row for row in rows if row.get("nonfinite")]
    if not hits:
        return None
    return Alarm(
        "not-finite",
        hits[0]["step"],
        hits[-1] is rows[-1],
        {"value": float(len(hits)), "limit": 0.0},
        f"{', '.join(hits[0]['nonfinite'])} came out as NaN or infinite.",
        "lower the learning rate, or set model.dtype: float32.",
    )


def _filled(message: str, numbers: Mapping[str, float]) -> str:
    return message.format(**numbers).replace("%", " %").replace(" -", " −")


def _series(rows: Rows, name: str) -> Series:
    return [(int(row["step"]), float(row[name])) for row in rows if name in row]


def _mean(series: Series) -> float:
    return sum(value for _, value in series) / len(series)


def _smoothed(series: Series, window: int) -> Series:
    """The mean of each ``window`` values in a row, at the iteration of the last of them."""
    return [(series[end - 1][0], _mean(series[end - window : end])) for end in range(window, len(series) + 1)]


def _noise(series: Series) -> float:
    """The standard deviation of one iteration around a slow trend: √(mean of squared differences / 2)."""
    steps = [later - earlier for (_, earlier), (_, later) in pairwise(series)]
    return sqrt(sum(step * step for step in steps) / (2 * len(steps)))
