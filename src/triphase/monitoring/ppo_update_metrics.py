"""The metrics of PPO's updates, declared."""

from triphase.monitoring.declaration import Condition, Metric

_UPDATES = "response tokens of a minibatch, then the updates of the iteration"
_RESPONSE_TOKENS = "response tokens of the rollout"
_CRITIC = Condition("where ppo.advantage_estimator is gae", lambda run: run.ppo.has_critic)
_RETURNS_VARY = Condition(f"{_CRITIC.words} and Var(returns) > 0", _CRITIC.allows, certain=False)
_MIXED = Condition("where ppo.sft_mix is not 0, once the policy learns", lambda run: run.ppo.sft_mix > 0)
_GUARDED = Condition("where guards.on_alarm is not continue", lambda run: run.guards.on_alarm != "continue")

PPO_UPDATE_METRICS = (
    Metric(
        "ppo/clip_fraction",
        "share",
        "share of tokens with the ratio outside 1 ± clip_range and the clipped branch chosen: they give no gradient",
        _UPDATES,
        "0.01 to 0.2",
    ),
    Metric(
        "ppo/approximate_kl",
        "nats per token",
        "(r − 1) − log r, r = π/π_rollout (k3 to the rollout policy)",
        _UPDATES,
        "0 at the first update; under max_approximate_kl",
    ),
    Metric("ppo/ratio_mean", "1", "π(a_t) / π_rollout(a_t)", _UPDATES, "0.99 to 1.01; exactly 1 at the first update"),
    Metric(
        "ppo/ratio_max",
        "1",
        "largest π(a_t) / π_rollout(a_t)",
        "maximum over response tokens and updates",
        "under about 5",
        better="lower",
    ),
    Metric(
        "ppo/explained_variance",
        "share, at most 1",
        "1 − Var(returns − values) / Var(returns), values as in the rollout",
        _RESPONSE_TOKENS,
        "rises from about 0 towards 0.3 to 0.9",
        better="higher",
        when=_RETURNS_VARY,
    ),
    Metric(
        "ppo/policy_loss",
        "advantage",
        "−min(r·Â, clip(r, 1 − ε, 1 + ε)·Â)",
        _UPDATES,
        "small, around 0; not to be read as progress",
    ),
    Metric(
        "ppo/value_loss",
        "score²",
        "½·max of squared errors, clipped and not",
        _UPDATES,
        "falls, then levels off",
        better="lower",
        when=_CRITIC,
    ),
    Metric(
        "ppo/sft_loss",
        "nats per token",
        "−log π(token | tokens before) on the demonstrations of each step (ppo.sft_mix), before the step",
        "response tokens of minibatch_size demonstrations, then the updates of the iteration",
        "near sft/loss at its end; rising is forgetting",
        better="lower",
        when=_MIXED,
    ),
    Metric(
        "ppo/gradient_norm",
        "loss per unit of weight",
        "√Σ g² over trained weights, before clipping",
        "the updates of the iteration",
        "steady",
    ),
    Metric("ppo/learning_rate", "1", "peak × schedule", "the updates of the iteration", "follows the schedule"),
    Metric(
        "ppo/steps",
        "steps",
        "optimizer steps; fewer than epochs × minibatches where approximate KL passed max_approximate_kl",
        "sum over the iteration",
        "epochs × minibatches, mostly",
    ),
    Metric(
        "ppo/mean_return",
        "score as used",
        "Â_t + V(s_t), the target of the critic; without a critic the whole return of the response",
        _RESPONSE_TOKENS,
        "under raw it rises with the score; else it stays around −coefficient·KL, since scores are centered",
    ),
    Metric(
        "ppo/seconds_generation",
        "seconds",
        "time to generate the responses, or to wait for those sampled ahead",
        "the iteration",
        "steady",
        better="lower",
    ),
    Metric(
        "ppo/seconds_scoring",
        "seconds",
        "time for scores, reference and values",
        "the iteration",
        "steady",
        better="lower",
    ),
    Metric("ppo/seconds_update", "seconds", "time of the updates", "the iteration", "steady", better="lower"),
    Metric(
        "ppo/skipped_steps",
        "steps",
        "updates left out because a gradient was not finite; 1 where the rollout's own numbers were not",
        "sum over the iteration",
        "0",
        better="lower",
    ),
    Metric(
        "ppo/rollbacks",
        "times",
        "number of alarms acted on (guards.on_alarm): earlier weights, a lower learning rate, a higher KL coefficient",
        "sum since the start",
        "0",
        better="lower",
        when=_GUARDED,
    ),
)
