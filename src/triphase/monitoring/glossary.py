"""Every metric: its name, formula, unit, what it is averaged over, and what healthy looks like.

The one place where a metric is defined. docs/metrics.md is written from it:
``python -m triphase.monitoring.glossary > docs/metrics.md``.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a phase, as it stands in metrics.jsonl."""

    name: str
    """The phase and the noun, with a slash between."""
    formula: str
    """How it is computed."""
    unit: str
    """Its unit."""
    averaged_over: str
    """What the figure is a mean (or sum, or maximum) over."""
    healthy: str
    """What a sound run shows."""


_TOKENS = "response tokens of the step"
_PAIRS = "pairs of each ranking, then rankings of the step"
_HELDOUT = "pairs of each held-out ranking, then held-out rankings"
_NATS = "nats a pair"
_FIRST = "once, before the adapter is trained; in the first line"
_EPISODES = "responses of the rollout"
_RESPONSE_TOKENS = "response tokens of the rollout"
_UPDATES = "response tokens of a minibatch, then the updates of the iteration"

_TABLE = (
    Metric("sft/loss", "−log π(token | tokens before)", "nats a token", _TOKENS, "falls, then levels off"),
    Metric(
        "sft/heldout_loss",
        "−log π(token | tokens before) on held-out demonstrations",
        "nats a token",
        "response tokens of the held-out demonstrations",
        "falls; a rise while sft/loss falls is overfitting",
    ),
    Metric("sft/learning_rate", "peak × schedule", "1", "none: the step's value", "follows the schedule"),
    Metric(
        "sft/gradient_norm",
        "√Σ g² over trained weights, before clipping",
        "loss per unit of weight",
        "none: the step's value",
        "steady; mostly under max_gradient_norm after warm-up",
    ),
    Metric("sft/skipped_steps", "1 where loss or gradient was not finite", "steps", "none: the step's value", "0"),
    Metric("sft/tokens", "number of response tokens in the loss", "tokens", "sum over the step", "near constant"),
    Metric(
        "reward/loss",
        "−[t·log σ(Δ) + (1−t)·log σ(−Δ)], Δ = score(first) − score(second), t = probability that first is preferred",
        "nats a pair",
        _PAIRS,
        "starts near log 2 = 0.693 and falls; under about 0.3 on noisy labels is overfitting",
    ),
    Metric(
        "reward/preference_accuracy",
        "share of pairs with Δ > 0 for the preferred response; equal scores count ½, pairs with t = ½ are left out",
        "share",
        "pairs of the step",
        "rises from 0.5 towards the noise ceiling, not past it",
    ),
    Metric(
        "reward/score_deviation",
        "standard deviation of the scores",
        "score",
        "responses of the step",
        "well above 0: a constant reward model shows 0",
    ),
    Metric("reward/learning_rate", "peak × schedule", "1", "none: the step's value", "follows the schedule"),
    Metric(
        "reward/gradient_norm",
        "√Σ g² over trained weights, before clipping",
        "loss per unit of weight",
        "none: the step's value",
        "steady",
    ),
    Metric("reward/skipped_steps", "1 where loss or gradient was not finite", "steps", "none: the step's value", "0"),
    Metric("reward/pairs", "number of pairs in the loss", "pairs", "sum over the step", "near constant"),
    Metric("reward/objective", "reward/loss with margins, smoothing, centering; minimized", _NATS, _PAIRS, "falls"),
    Metric("reward/head_penalty", "weight of the squared norm in the fit of the head alone", _NATS, _FIRST, "steady"),
    Metric("reward/head_loss", "reward/loss of the head alone, cross-validated", _NATS, _FIRST, "under 0.693"),
    Metric("reward/head_heldout_loss", "reward/heldout_loss of the head alone", _NATS, _FIRST, "under 0.693"),
    Metric("reward/head_heldout_accuracy", "reward/heldout_accuracy of the head alone", "share", _FIRST, "above 0.5"),
    Metric("reward/heldout_loss", "as reward/loss, on held-out prompts", "nats a pair", _HELDOUT, "under 0.693"),
    Metric(
        "reward/heldout_accuracy",
        "as reward/preference_accuracy, on held-out prompts",
        "share",
        "held-out pairs",
        "above the “longer wins” baseline, near the noise ceiling",
    ),
    Metric(
        "ppo/proxy_score",
        "reward model's score r_θ(x, y), calibrated (or a server's, as it gives it), before score_normalization, "
        "clipping and penalty",
        "standard deviations of reference samples",
        _EPISODES,
        "rises from about 0",
    ),
    Metric(
        "ppo/gold_score",
        "gold score, where one is known; never used in training",
        "gold score",
        _EPISODES,
        "rises with the proxy; falling while the proxy rises is reward hacking",
    ),
    Metric(
        "ppo/gold_deviation",
        "standard deviation of the gold score, where one is known",
        "gold score",
        _EPISODES,
        "near constant",
    ),
    Metric(
        "ppo/reference_kl",
        "Σ_t [log π(a_t) − log π_ref(a_t)] under the rollout policy (k1, sum over tokens)",
        "nats a response",
        _EPISODES,
        "0 at the first iteration, then rises slowly; short responses: under about 10",
    ),
    Metric(
        "ppo/reference_kl_deviation",
        "standard deviation of Σ_t [log π(a_t) − log π_ref(a_t)]",
        "nats",
        _EPISODES,
        "0 at the first iteration, then grows with reference_kl",
    ),
    Metric(
        "ppo/kl_coefficient",
        "β, weight of the KL penalty in the token rewards",
        "score as used per nat",
        "none: the iteration's value",
        "constant, or slowly moving where kl_target is set",
    ),
    Metric(
        "ppo/effective_kl_coefficient",
        "β · s, s = what the scores were divided by (score_normalization): 1 under raw; the run's scale under "
        "calibrated (1 for a calibrated reward model) and running; the rollout's deviation under batch; absent where "
        "all scores are equal",
        "score as the scorer gives it, per nat",
        "none: the iteration's value",
        "constant; under batch it falls as the policy concentrates, and the penalty with it",
    ),
    Metric(
        "ppo/entropy",
        "logsumexp(z) − Σ_v p_v·z_v over the full vocabulary, z = logits / temperature",
        "nats a token",
        _RESPONSE_TOKENS,
        "falls slowly; a fall to under a third of its start is collapse",
    ),
    Metric(
        "ppo/entropy_deviation",
        "standard deviation of the responses' own mean entropies",
        "nats a token",
        _EPISODES,
        "near constant",
    ),
    Metric("ppo/mean_length", "response tokens, the end token included", "tokens", _EPISODES, "near the SFT policy's"),
    Metric(
        "ppo/length_deviation",
        "standard deviation of the response tokens",
        "tokens",
        _EPISODES,
        "near constant; near 0 where all responses reach the limit or end at once",
    ),
    Metric("ppo/eos_rate", "share of responses that end by themselves", "share", _EPISODES, "near the start or rising"),
    Metric(
        "ppo/clip_fraction",
        "share of tokens with the ratio outside 1 ± clip_range and the clipped branch chosen: they give no gradient",
        "share",
        _UPDATES,
        "0.01 to 0.2",
    ),
    Metric(
        "ppo/approximate_kl",
        "(r − 1) − log r, r = π/π_rollout (k3 to the rollout policy)",
        "nats a token",
        _UPDATES,
        "0 at the first update; under max_approximate_kl",
    ),
    Metric("ppo/ratio_mean", "π(a_t) / π_rollout(a_t)", "1", _UPDATES, "0.99 to 1.01; exactly 1 at the first update"),
    Metric(
        "ppo/ratio_max",
        "largest π(a_t) / π_rollout(a_t)",
        "1",
        "maximum over response tokens and updates",
        "under about 5",
    ),
    Metric(
        "ppo/explained_variance",
        "1 − Var(returns − values) / Var(returns), values as in the rollout; absent where Var(returns) = 0",
        "share, at most 1",
        _RESPONSE_TOKENS,
        "rises from about 0 towards 0.3 to 0.9",
    ),
    Metric(
        "ppo/policy_loss",
        "−min(r·Â, clip(r, 1 − ε, 1 + ε)·Â)",
        "advantage",
        _UPDATES,
        "small, around 0; not to be read as progress",
    ),
    Metric("ppo/value_loss", "½·max of squared errors, clipped and not", "score²", _UPDATES, "falls, then levels off"),
    Metric(
        "ppo/gradient_norm",
        "√Σ g² over trained weights, before clipping",
        "loss per unit of weight",
        "the updates of the iteration",
        "steady",
    ),
    Metric("ppo/learning_rate", "peak × schedule", "1", "the updates of the iteration", "follows the schedule"),
    Metric(
        "ppo/score_deviation",
        "standard deviation of the reward model's scores",
        "standard deviations of reference samples",
        _EPISODES,
        "above 0; near 0 there is nothing left to tell apart",
    ),
    Metric(
        "ppo/length_score_correlation",
        "Pearson's correlation of response length and score; absent where either is constant",
        "−1 to 1",
        _EPISODES,
        "within ± 0.4, or near ppo/length_gold_correlation",
    ),
    Metric(
        "ppo/length_gold_correlation",
        "Pearson's correlation of response length and gold score; absent where no gold is known or either is constant",
        "−1 to 1",
        _EPISODES,
        "what the judge itself makes of length",
    ),
    Metric(
        "ppo/distinct_2",
        "distinct pairs of neighbouring words / all pairs of neighbouring words",
        "share",
        "all responses of the rollout together",
        "near its start; a fall by half is repetition",
    ),
    Metric(
        "ppo/repeated_2",
        "pairs of neighbouring words that stood in the same response before / its pairs of neighbouring words",
        "share",
        _EPISODES,
        "near its start; a rise by 0.2 is repetition",
    ),
    Metric(
        "ppo/repeated_2_deviation",
        "standard deviation of the responses' own shares",
        "share",
        _EPISODES,
        "near constant",
    ),
    Metric(
        "ppo/clipped_scores",
        "share of responses whose score was cut at score_limit",
        "share",
        _EPISODES,
        "near 0",
    ),
    Metric("ppo/episodes", "responses so far", "responses", "sum since the start", "rises by batch_size"),
    Metric(
        "ppo/steps",
        "optimizer steps; fewer than epochs × minibatches where approximate KL passed max_approximate_kl",
        "steps",
        "sum over the iteration",
        "epochs × minibatches, mostly",
    ),
    Metric(
        "ppo/mean_return",
        "Â_t + V(s_t), what the critic is fitted to",
        "score as used",
        _RESPONSE_TOKENS,
        "under raw it rises with the score; else it stays around −coefficient·KL, since scores are centered",
    ),
    Metric("ppo/seconds_generation", "time to write the responses", "seconds", "the iteration", "steady"),
    Metric("ppo/seconds_scoring", "time for scores, reference and values", "seconds", "the iteration", "steady"),
    Metric("ppo/seconds_update", "time of the updates", "seconds", "the iteration", "steady"),
    Metric(
        "ppo/skipped_steps",
        "updates left out because a gradient was not finite; 1 where the rollout's own figures were not",
        "steps",
        "sum over the iteration",
        "0",
    ),
    Metric(
        "ppo/rollbacks",
        "times that an alarm sent PPO back to earlier weights (guards.on_alarm)",
        "times",
        "sum since the start",
        "0",
    ),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _TABLE}
"""The registry: a name that is not here is refused by the writer."""

_HEADINGS = {"sft": "Supervised fine-tuning", "reward": "Reward model", "ppo": "PPO"}

_TABLE_HEAD = "| metric | formula | unit | averaged over | healthy |\n|---|---|---|---|---|\n"

_INTRODUCTION = """# Metrics

Each phase appends one JSON object a step to `metrics.jsonl` in its folder (`sft/`, `reward/`, `ppo/`, `arms/NAME/`),
and the same figures to TensorBoard event files beside it (`tensorboard --logdir runs/NAME`):

    {"step": 12, "time": 1767225600.0, "sft/loss": 1.832, "sft/learning_rate": 0.0003}

`step` counts optimizer steps for `sft` and `reward`, and iterations (a rollout and its updates) for `ppo`. `time` is
seconds since 1970, UTC. A figure that is not defined is absent, never 0; one that came out as NaN or infinite is absent
too, and its name stands in the line's `nonfinite` list. Held-out figures may come in a second line of the same step.
Means are over real tokens only: padding counts nowhere.

This page is written from `triphase.monitoring.glossary`; a test keeps the two alike.
"""


def glossary_page() -> str:
    """The text of docs/metrics.md."""
    parts = [_INTRODUCTION]
    for phase, heading in _HEADINGS.items():
        parts.append(f"\n## {heading}\n\n{_TABLE_HEAD}")
        parts.extend(_row(metric) for metric in _TABLE if metric.name.startswith(f"{phase}/"))
    return "".join(parts)


def _row(metric: Metric) -> str:
    cells = (f"`{metric.name}`", metric.formula, metric.unit, metric.averaged_over, metric.healthy)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    print(glossary_page(), end="")
