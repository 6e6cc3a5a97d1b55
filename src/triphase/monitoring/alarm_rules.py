"""The rules that use one metric of PPO each, and the limits of all rules (alarms.py applies both)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import ceil
from statistics import NormalDist

from triphase.monitoring.noise import WINDOW

_COMPARING_SIGNS = 3
"""Alarms (composite_rules.py) that compare with the start or a peak by ``certainty``: gold, witness, length."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The threshold of each rule."""

    reference_kl: float = 15.0
    """Nats per response; ``ppo.kl_budget`` if set. Good published policies end at 4 to 18, broken ones at 50."""
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
    """Absolute correlation of length and score."""
    length_share: float = 0.5
    """Share of the gain in score that length must explain for shorter responses to be a problem without known gold."""
    length_moved: float = 1.25
    """Growth or shrinkage of the length that makes a correlation of length and score a problem without known gold."""
    explained_variance: float = -0.05
    """Mean over the last ``critic_iterations``: below it, predicting nothing would be better."""
    predicting: float = 0.001
    """Mean absolute explained variance of a critic that distinguishes returns at all, correctly or not."""
    critic_iterations: int = 10
    """Iterations over which the critic is judged, from twice as many on: before, it has had no time to learn."""
    score_spread: float = 0.02
    """Deviation of the scores, as a share of that at the start."""
    score_range: float = 5.0
    """Distance of the mean score from that of the SFT policy's samples, in their standard deviations."""
    clip_fraction: float = 0.3
    """Share of tokens without gradient."""
    distinct_share: float = 0.5
    """Share of the starting distinct-2."""
    repeated_rise: float = 0.2
    """Rise of the share of repeated neighboring words within a response."""
    alike_rise: float = 0.3
    """Rise of the share of four-word sequences that also occur in responses to other prompts."""
    opening_rise: float = 0.5
    """Rise of the share of responses that begin with the most common first word."""
    agreement: float = 0.5
    """Correlation of the scores of reward model and witness; below it, over half of their variance is noise."""
    certainty: float = 3.5
    """Standard errors by which a value must differ from the start (or gold from its peak) before an alarm."""
    margin: float = 2.0
    """Standard errors by which a value must exceed a fixed limit."""
    variant: str | None = None
    """The variant that is judged, whose settings the remedies name; None is the main PPO run."""
    gold_share: float = 0.25
    """Fall of the gold score below its peak, as a share of its rise from the start to the peak."""

    looks: int = 1
    """Consecutive iterations at which a rule must hold before an alarm; one is enough for metrics without noise."""

    calibrated: bool = False
    """Whether the scores are a reward model's, with mean 0 and deviation 1 on samples of the SFT policy."""


def limits_for(
    kl_budget: float | None, *, calibrated: bool, false_alarms: tuple[float, int] | None = None, looks: int = 1
) -> Limits:
    """The limits of a run with this ``ppo.kl_budget``; ``calibrated`` if a reward model gives the scores.

    ``false_alarms``: the share of runs without any change that may raise an alarm, and the iterations of a run.
    """
    limits = Limits(calibrated=calibrated, looks=looks)
    if kl_budget is not None:
        limits = replace(limits, reference_kl=kl_budget)
    return limits if false_alarms is None else replace(limits, certainty=certainty_for(*false_alarms))


def certainty_for(rate: float, iterations: int) -> float:
    """Standard errors that a value without any change exceeds in ``rate`` of all runs of this many iterations.

        z(1 − rate / (2·rules·looks))        looks: disjoint windows of three iterations

    Bonferroni's bound over the rules that compare with the start, and over the tests of a run: it holds for any
    dependence between the rules.
    """
    compared = sum(rule.relative for rule in RULES) + _COMPARING_SIGNS
    return NormalDist().inv_cdf(1 - rate / (2 * compared * ceil(iterations / WINDOW)))


@dataclass(frozen=True, slots=True)
class Hit:
    """An iteration at which a rule held."""

    step: int
    numbers: Mapping[str, float]
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A value on the wrong side of a limit, which may depend on the start; ``window`` 1 tests each iteration alone.

    The difference must exceed the noise: from a fixed limit by ``Limits.margin`` standard errors, or from the start by
    ``Limits.certainty`` of them.
    """

    name: str
    metric: str
    above: bool
    limit: Callable[[Limits, float], float]
    message: str
    remedy: str
    window: int = WINDOW
    relative: bool = False
    of: Callable[[float], float] | None = None
    exact: bool = False
    """A maximum, whose error is unknown: only the limit decides, at two iterations as with the others."""
    unless_gold_rose: bool = False
    """Silent while gold (if it is unknown, a witness that agrees) is significantly above its start: the judge prefers
    the change."""
    unless_gained_apart: bool = False
    """Without gold, silent while the score's gain has causes other than length (`ppo/length_share_of_gain`)."""


RULES = (
    Rule(
        "self-similarity",
        "ppo/self_similarity",
        True,
        lambda limits, start: start + limits.alike_rise,
        "{value:.0%} of the four-word sequences occur in responses to other prompts too, up "
        "from {start:.0%} at the start: the policy gives the same answer to everything.",
        "raise ppo.kl_coefficient; inspect what the samples have in common.",
        relative=True,
        unless_gold_rose=True,
    ),
    Rule(
        "self-similarity",
        "ppo/common_opening",
        True,
        lambda limits, start: start + limits.opening_rise,
        "{value:.0%} of the responses begin with the same word, up from {start:.0%} for the most common one at the "
        "start: the policy opens every answer alike.",
        "raise ppo.kl_coefficient; inspect whether the scorer rewards this opening.",
        relative=True,
        unless_gold_rose=True,
    ),
    Rule(
        "reference-kl",
        "ppo/reference_kl",
        True,
        lambda limits, _: limits.reference_kl,
        "the policy is {value:.1f} nats from the reference, over the budget of {limit:.1f}.",
        "raise ppo.kl_coefficient, or set ppo.kl_budget and take an earlier checkpoint.",
    ),
    Rule(
        "ratio-explosion",
        "ppo/ratio_max",
        True,
        lambda limits, _: limits.ratio,
        "a token became {value:.1f} times as likely within one iteration (limit {limit:.0f}).",
        "lower ppo.optimizer.learning_rate or ppo.epochs, or set ppo.max_approximate_kl.",
        window=1,
        exact=True,
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
        "entropy fell to {value:.2f} nats per token, from {start:.2f} at the start.",
        "raise ppo.kl_coefficient, lower the learning rate, or add a small ppo.entropy_coefficient (0.001).",
        relative=True,
    ),
    Rule(
        "eos-collapse",
        "ppo/eos_rate",
        False,
        lambda limits, start: limits.eos_share * start,
        "only {value:.0%} of the responses end with the end-of-turn token, down from {start:.0%} at the start.",
        "raise ppo.missing_eos_penalty or ppo.max_response_tokens; inspect the longest samples.",
        relative=True,
    ),
    Rule(
        "length-growth",
        "ppo/mean_length",
        True,
        lambda limits, start: limits.length_factor * start,
        "responses grew to {value:.1f} tokens, from {start:.1f} at the start.",
        "check whether the scorer prefers long responses; raise ppo.kl_coefficient.",
        relative=True,
    ),
    Rule(
        "length-shrinkage",
        "ppo/mean_length",
        False,
        lambda limits, start: start / limits.length_factor,
        "responses shrank to {value:.1f} tokens, from {start:.1f} at the start.",
        "check whether the scorer prefers short responses; lower ppo.missing_eos_penalty.",
        relative=True,
        unless_gold_rose=True,
        unless_gained_apart=True,
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
        "witness-disagreement",
        "ppo/witness_score_correlation",
        False,
        lambda limits, _: limits.agreement,
        "the scores of the reward model and of the witness, which learned from other comparisons, have a correlation "
        "of only {value:.2f} (limit {limit:.2f}): what the score prefers here is mostly noise.",
        "collect more comparisons, or several of each prompt (labeling.overlap_share, labeling.rankings_per_prompt); "
        "raise ppo.kl_coefficient.",
    ),
    Rule(
        "repetition",
        "ppo/distinct_2",
        False,
        lambda limits, start: limits.distinct_share * start,
        "distinct-2 fell to {value:.2f}, from {start:.2f} at the start: responses repeat one another.",
        "raise ppo.kl_coefficient; inspect the samples for a shared opening.",
        relative=True,
    ),
    Rule(
        "repetition",
        "ppo/repeated_2",
        True,
        lambda limits, start: start + limits.repeated_rise,
        "{value:.0%} of the word pairs occurred earlier in the same response, up from {start:.0%} at the start: "
        "responses repeat themselves.",
        "raise ppo.kl_coefficient; inspect the samples for repetition.",
        relative=True,
    ),
)
