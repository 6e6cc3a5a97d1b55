"""The settings of a run's reaction to abnormal numbers."""

from typing import Annotated, Literal

from pydantic import Field

from triphase.settings.base import Positive, Settings

AlarmName = Literal[
    "clip-fraction",
    "critic-not-learning",
    "entropy-collapse",
    "eos-collapse",
    "length-growth",
    "length-score-correlation",
    "length-shrinkage",
    "not-finite",
    "proxy-without-gold",
    "proxy-without-witness",
    "ratio-bias",
    "ratio-explosion",
    "reference-kl",
    "repetition",
    "score-out-of-range",
    "score-without-spread",
    "self-similarity",
    "witness-disagreement",
]


class GuardSettings(Settings):
    """What a run does when its numbers go wrong (docs/resilience.md)."""

    skipped_in_a_row: Positive = 5
    """Consecutive steps that may be skipped for a loss, gradient or score that is not finite; then the run stops."""
    on_alarm: Literal[
        "continue", "lower-learning-rate", "raise-kl-coefficient", "rollback", "rollback-to-best", "stop"
    ] = "continue"
    """What PPO does at an alarm: `continue` logs it; `lower-learning-rate` and `raise-kl-coefficient` continue with
    only that change; `rollback` continues from the weights before the alarm with both; `rollback-to-best` likewise,
    from the best judged checkpoint before it (by score minus KL penalty, and the witness if there is one); `stop` ends
    with the weights from before it. After `rollbacks` of them the next alarm stops."""
    false_alarm_rate: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    """Share of PPO runs without any change that may raise an alarm which compares with the SFT policy's own samples
    (the first rollout): the limit in standard errors follows from it, from the rules and from ppo.iterations."""
    looks: Annotated[int, Field(ge=1, le=20)] = 2
    """Consecutive iterations at which a rule must hold before an alarm (each is the mean of three iterations)."""
    alarms: tuple[AlarmName, ...] = ("reference-kl", "ratio-explosion", "entropy-collapse", "eos-collapse")
    """The alarms that are acted on; the others are logged."""
    back: Positive = 3
    """How many iterations before the alarm the weights are taken from; alarms average three iterations at a time."""
    rollbacks: Positive = 2
    """How often an alarm is acted on before the next one stops."""
    learning_rate_factor: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Factor of the learning rates, each time."""
    kl_coefficient_factor: Annotated[float, Field(ge=1)] = 2.0
    """Factor of the KL coefficient, each time; a coefficient of 0 becomes `ppo.kl_coefficient`'s default."""
