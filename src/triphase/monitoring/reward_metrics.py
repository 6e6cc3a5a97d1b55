"""The metrics of the reward model's phase, declared."""

from triphase.monitoring.declaration import HELDOUT, Condition, Metric

_PAIRS = "pairs of each ranking, then rankings of the step"
_STEP = "none: the step's value"
_FIRST = "once, before the adapter is trained; in the first line"
_DECIDED = Condition("where a pair of the step has a preferred response", certain=False)
_HEAD = Condition(
    "in the first line, where reward.head_penalty is set", lambda run: run.reward.head_penalty is not None
)
_HEAD_CHOSEN = Condition(
    "in the first line, where reward.head_penalty is auto and there are rankings of several prompts",
    lambda run: run.reward.head_penalty == "auto",
    certain=False,
)
_TWO_HEADS = Condition(
    "where reward.length is two-heads and responses to one prompt differ in length",
    lambda run: run.reward.length == "two-heads",
    certain=False,
)
_HEAD_HELDOUT = Condition(
    "in the first line, where reward.head_penalty is set and rankings are held out",
    lambda run: run.reward.head_penalty is not None,
    certain=False,
)

REWARD_METRICS = (
    Metric(
        "reward/loss",
        "nats per pair",
        "−[t·log σ(Δ) + (1−t)·log σ(−Δ)], Δ = score(first) − score(second), t = probability that first is preferred; "
        "after a fit of the head, with the fit to the prompts of other folds (cross-fitting)",
        _PAIRS,
        "under log 2 = 0.693; after a fit of the head it starts near reward/head_loss, and is that of new prompts "
        "in the first pass; otherwise under about 0.3 on noisy labels is overfitting",
        better="lower",
    ),
    Metric(
        "reward/preference_accuracy",
        "share",
        "share of pairs with Δ > 0 (Δ as in reward/loss) for the preferred response; equal scores count ½, pairs with "
        "t = ½ are left out",
        "pairs of the step",
        "above 0.5, rises towards the noise ceiling, not past it",
        better="higher",
        when=_DECIDED,
    ),
    Metric(
        "reward/score_deviation",
        "score",
        "standard deviation of the scores",
        "responses of the step",
        "well above 0: a constant reward model shows 0",
    ),
    Metric("reward/learning_rate", "1", "peak × schedule", _STEP, "follows the schedule"),
    Metric(
        "reward/gradient_norm",
        "loss per unit of weight",
        "√Σ g² over trained weights, before clipping",
        _STEP,
        "steady",
    ),
    Metric("reward/skipped_steps", "steps", "1 where loss or gradient was not finite", _STEP, "0", better="lower"),
    Metric("reward/pairs", "pairs", "number of pairs in the loss", "sum over the step", "near constant"),
    Metric(
        "reward/objective",
        "nats per pair",
        "reward/loss with margins, smoothing, centering; minimized",
        _PAIRS,
        "falls",
        better="lower",
    ),
    Metric(
        "reward/quality_length_correlation",
        "1",
        "ρ of score and tokens among responses to one prompt, of the head that scores",
        "responses of the step, before it",
        "near 0",
        when=_TWO_HEADS,
    ),
    Metric(
        "reward/length_head_correlation",
        "1",
        "the same for the length head, which is dropped after training",
        "responses of the step, before it",
        "near 1 (−1 where the shorter response is preferred)",
        when=_TWO_HEADS,
    ),
    Metric(
        "reward/head_penalty",
        "nats per pair",
        "weight of the squared norm in the fit of the head alone",
        _FIRST,
        "steady",
        when=_HEAD,
    ),
    Metric(
        "reward/head_loss",
        "nats per pair",
        "reward/loss of the head alone, cross-validated",
        _FIRST,
        "under 0.693",
        better="lower",
        when=_HEAD_CHOSEN,
    ),
    Metric(
        "reward/head_heldout_loss",
        "nats per pair",
        "reward/heldout_loss of the head alone",
        _FIRST,
        "under 0.693",
        better="lower",
        when=_HEAD_HELDOUT,
    ),
    Metric(
        "reward/head_heldout_accuracy",
        "share",
        "reward/heldout_accuracy of the head alone",
        _FIRST,
        "above 0.5",
        better="higher",
        when=_HEAD_HELDOUT,
    ),
    Metric(
        "reward/heldout_loss",
        "nats per pair",
        "as reward/loss, on held-out prompts and with the head itself",
        "pairs of each held-out ranking, then held-out rankings",
        "under 0.693",
        better="lower",
        when=HELDOUT,
    ),
    Metric(
        "reward/heldout_accuracy",
        "share",
        "as reward/preference_accuracy, on held-out prompts and with the head itself",
        "held-out pairs",
        "above the “longer wins” baseline, near the noise ceiling",
        better="higher",
        when=HELDOUT,
    ),
)
