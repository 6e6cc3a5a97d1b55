"""The rules that look at one metric of PPO each, and the limits of all rules. alarms.py applies them."""

from collections.abc import Callable
from dataclasses import dataclass

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
    """Fall of the gold score under its peak, and rise of the proxy since then, in standard errors of the difference."""
    gold_share: float = 0.25
    """Fall of the gold score under its peak, as a share of its rise from the start to the peak."""


@dataclass(frozen=True, slots=True)
class Rule:
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


RULES = (
    Rule(
        "reference-kl",
        "ppo/reference_kl",
        True,
        lambda limits, _: limits.reference_kl,
        "the policy is {value:.1f} nats from the reference, over the budget of {limit:.1f}.",
        "raise ppo.kl_coefficient, or set ppo.kl_budget and take an earlier checkpoint.",
        window=1,
    ),
    Rule(
        "ratio-explosion",
        "ppo/ratio_max",
        True,
        lambda limits, _: limits.ratio,
        "a token became {value:.1f} times as likely within one iteration (limit {limit:.0f}).",
        "lower ppo.optimizer.learning_rate or ppo.epochs, or set ppo.max_approximate_kl.",
        window=1,
    ),
    Rule(
        "ratio-bias",
        "ppo/ratio_mean",
        True,
        lambda limits, _: limits.ratio_bias,
        "the mean ratio is {value:.2f} away from 1 (limit {limit:.2f}); sampling and training may disagree.",
        "check that temperature and precision are the same in sampling and training.",
        of=lambda ratio: abs(ratio - 1),
    ),
    Rule(
        "entropy-collapse",
        "ppo/entropy",
        False,
        lambda limits, start: limits.entropy_share * start,
        "entropy fell to {value:.2f} nats a token, from {start:.2f} at the start.",
        "raise ppo.kl_coefficient, lower the learning rate, or add a small ppo.entropy_coefficient (0.001).",
        relative=True,
    ),
    Rule(
        "eos-collapse",
        "ppo/eos_rate",
        False,
        lambda limits, start: limits.eos_share * start,
        "only {value:.0%} of the responses end by themselves, against {start:.0%} at the start.",
        "raise ppo.missing_eos_penalty or ppo.max_response_tokens; look at the longest samples.",
        relative=True,
    ),
    Rule(
        "length-growth",
        "ppo/mean_length",
        True,
        lambda limits, start: limits.length_factor * start,
        "responses grew to {value:.1f} tokens, from {start:.1f} at the start.",
        "check the reward model for a preference for length; raise ppo.kl_coefficient.",
        relative=True,
    ),
    Rule(
        "length-shrinkage",
        "ppo/mean_length",
        False,
        lambda limits, start: start / limits.length_factor,
        "responses shrank to {value:.1f} tokens, from {start:.1f} at the start.",
        "check the reward model for a preference for short answers; lower ppo.missing_eos_penalty.",
        relative=True,
    ),
    Rule(
        "length-score-correlation",
        "ppo/length_score_correlation",
        True,
        lambda limits, _: limits.length_correlation,
        "length and score go together (size of the correlation {value:.2f}, limit {limit:.2f}).",
        "collect comparisons of equal length, or train the reward model on more of them.",
        of=abs,
    ),
    Rule(
        "clip-fraction",
        "ppo/clip_fraction",
        True,
        lambda limits, _: limits.clip_fraction,
        "{value:.0%} of the tokens are clipped and give no gradient (limit {limit:.0%}).",
        "lower ppo.optimizer.learning_rate or ppo.epochs.",
    ),
    Rule(
        "repetition",
        "ppo/distinct_2",
        False,
        lambda limits, start: limits.distinct_share * start,
        "distinct-2 fell to {value:.2f}, from {start:.2f} at the start: responses repeat one another.",
        "raise ppo.kl_coefficient; look at the samples for one opening that all share.",
        relative=True,
    ),
)
