"""Rules over the metrics of PPO: signs of reward hacking and of a collapsing policy, each with its numbers and remedy.

Pure functions of the rows of ppo/metrics.jsonl. Rules that compare with the start take the mean of the first three
iterations as the start, and the mean of three iterations in a row as the value, so that one odd batch raises nothing.
The spread of an ensemble's scores is no rule here: where its members share data it falls while gold collapses.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import Any

WINDOW = 3
"""Iterations that a smoothed rule averages."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Where each rule begins to speak."""

    reference_kl: float = 15.0
    """Nats a response; ``ppo.kl_budget`` where it is set. Good published policies end at 4 to 18, broken ones at 50."""
    ratio: float = 10.0
    """Largest ratio of a token's probability to the rollout policy's."""
    ratio_bias: float = 0.1
    """Distance of the mean ratio from 1."""
    entropy_share: float = 1 / 3
    """Share of the starting entropy."""
    eos_share: float = 0.5
    """Share of the starting EOS rate."""
    length_factor: float = 1.5
    """Mean length over its start, and start over mean length."""
    length_correlation: float = 0.4
    """Size of the correlation of length and score."""
    explained_variance: float = 0.05
    """Mean over the second half of the run, of ``critic_iterations`` at least."""
    critic_iterations: int = 8
    """Iterations before the critic is judged."""
    clip_fraction: float = 0.3
    """Share of tokens without gradient."""
    distinct_share: float = 0.5
    """Share of the starting distinct-2."""
    gold_noise: float = 3.0
    """Fall of the gold score under its peak, in standard errors of the difference."""


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
    found = [_threshold_alarm(rule, rows, limits) for rule in _RULES]
    found += [_proxy_without_gold(rows, limits), _idle_critic(rows, limits), _not_finite(rows)]
    return sorted((alarm for alarm in found if alarm), key=lambda alarm: (alarm.iteration, alarm.name))


@dataclass(frozen=True, slots=True)
class _Rule:
    """A figure on the wrong side of a limit, which may depend on the start; ``window`` 1 takes each iteration alone."""

    name: str
    metric: str
    above: bool
    limit: Callable[[Limits, float], float]
    message: str
    remedy: str
    window: int = WINDOW
    relative: bool = False
    of: Callable[[float], float] = lambda value: value


_RULES = (
    _Rule(
        "reference-kl",
        "ppo/reference_kl",
        True,
        lambda limits, _: limits.reference_kl,
        "the policy is {value:.1f} nats from the reference, over the budget of {limit:.1f}.",
        "raise ppo.kl_coefficient, or set ppo.kl_budget and take an earlier checkpoint.",
        window=1,
    ),
    _Rule(
        "ratio-explosion",
        "ppo/ratio_max",
        True,
        lambda limits, _: limits.ratio,
        "a token became {value:.1f} times as likely within one iteration (limit {limit:.0f}).",
        "lower ppo.optimizer.learning_rate or ppo.epochs, or set ppo.max_approximate_kl.",
        window=1,
    ),
    _Rule(
        "ratio-bias",
        "ppo/ratio_mean",
        True,
        lambda limits, _: limits.ratio_bias,
        "the mean ratio is {value:.2f} away from 1 (limit {limit:.2f}); sampling and training may disagree.",
        "check that temperature and precision are the same in sampling and training.",
        of=lambda ratio: abs(ratio - 1),
    ),
    _Rule(
        "entropy-collapse",
        "ppo/entropy",
        False,
        lambda limits, start: limits.entropy_share * start,
        "entropy fell to {value:.2f} nats a token, from {start:.2f} at the start.",
        "raise ppo.kl_coefficient, lower the learning rate, or add a small ppo.entropy_coefficient (0.001).",
        relative=True,
    ),
    _Rule(
        "eos-collapse",
        "ppo/eos_rate",
        False,
        lambda limits, start: limits.eos_share * start,
        "only {value:.0%} of the responses end by themselves, against {start:.0%} at the start.",
        "raise ppo.missing_eos_penalty or ppo.max_response_tokens; look at the longest samples.",
        relative=True,
    ),
    _Rule(
        "length-growth",
        "ppo/mean_length",
        True,
        lambda limits, start: limits.length_factor * start,
        "responses grew to {value:.1f} tokens, from {start:.1f} at the start.",
        "check the reward model for a preference for length; raise ppo.kl_coefficient.",
        relative=True,
    ),
    _Rule(
        "length-shrinkage",
        "ppo/mean_length",
        False,
        lambda limits, start: start / limits.length_factor,
        "responses shrank to {value:.1f} tokens, from {start:.1f} at the start.",
        "check the reward model for a preference for short answers; lower ppo.missing_eos_penalty.",
        relative=True,
    ),
    _Rule(
        "length-score-correlation",
        "ppo/length_score_correlation",
        True,
        lambda limits, _: limits.length_correlation,
        "length and score go together (size of the correlation {value:.2f}, limit {limit:.2f}).",
        "collect comparisons of equal length, or train the reward model on more of them.",
        of=abs,
    ),
    _Rule(
        "clip-fraction",
        "ppo/clip_fraction",
        True,
        lambda limits, _: limits.clip_fraction,
        "{value:.0%} of the tokens are clipped and give no gradient (limit {limit:.0%}).",
        "lower ppo.optimizer.learning_rate or ppo.epochs.",
    ),
    _Rule(
        "repetition",
        "ppo/distinct_2",
        False,
        lambda limits, start: limits.distinct_share * start,
        "distinct-2 fell to {value:.2f}, from {start:.2f} at the start: responses repeat one another.",
        "raise ppo.kl_coefficient; look at the samples for one opening that all share.",
        relative=True,
    ),
)


def _threshold_alarm(rule: _Rule, rows: Rows, limits: Limits) -> Alarm | None:
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
    """Gold well under its peak while the proxy is no lower than it was there: the mark of reward hacking."""
    both = [row for row in rows if "ppo/gold_score" in row and "ppo/proxy_score" in row]
    gold, proxy = _series(both, "ppo/gold_score"), _series(both, "ppo/proxy_score")
    if len(both) < 2 * WINDOW:
        return None
    noise = limits.gold_noise * _noise(gold) * sqrt(2 / WINDOW)
    smooth_gold, smooth_proxy = _smoothed(gold, WINDOW), _smoothed(proxy, WINDOW)
    peak = 0
    hits: list[tuple[int, int]] = []
    for at, (_, value) in enumerate(smooth_gold):
        if value > smooth_gold[peak][1]:
            peak = at
        fallen = smooth_gold[peak][1] - value > noise
        if at - peak >= WINDOW and fallen and smooth_proxy[at][1] > smooth_proxy[peak][1]:
            hits.append((at, peak))
    if not hits:
        return None
    at, peak = hits[0]
    numbers = {
        "value": smooth_gold[at][1],
        "peak": smooth_gold[peak][1],
        "limit": smooth_gold[peak][1] - noise,
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
