"""The metrics of PPO that are measured on a rollout, declared."""

from triphase.monitoring.declaration import Condition, Metric
from triphase.settings.schema import RunSettings


def _has_gold(run: RunSettings) -> bool:
    return run.evaluation.gold is not None


_EPISODES = "responses of the rollout"
_ITERATION = "none: the iteration's value"
_RESPONSE_TOKENS = "response tokens of the rollout"
_GOLD = Condition("where evaluation.gold is set", _has_gold)
_DIVIDED = Condition("unless all scores are equal, so that there is nothing to divide by", certain=False)
_VARIES = Condition("where neither length nor score is constant", certain=False)
_GOLD_VARIES = Condition(
    "where evaluation.gold is set and neither length nor gold score is constant", _has_gold, certain=False
)
_SEVERAL = Condition("where responses to one prompt differ in length, and such responses in score", certain=False)
_WORDS = Condition("where a response has two words", certain=False)
_WORD = Condition("where a response has a word", certain=False)
_FOUR_WORDS = Condition("where a response has four words", certain=False)
_SINCE_START = Condition("unless the run was started by an older version", certain=False)
_GAINED = Condition("where the mean score is 2 standard errors above that of the first rollout", certain=False)
_RESET = Condition(
    "from the first reset on, where ppo.reference_reset_every is set",
    lambda run: run.ppo.reference_reset_every is not None,
)
_LIMITED = Condition("where ppo.score_clip is set", lambda run: run.ppo.score_clip is not None)
_SERVED = Condition("where servers sample (rollouts)", lambda run: run.rollouts.by_servers, certain=False)
_WEIGHED = Condition(  # settings allow the limit with servers alone
    "where servers sample and ppo.importance_limit is set", lambda run: run.ppo.importance_limit is not None
)

PPO_ROLLOUT_METRICS = (
    Metric(
        "ppo/proxy_score",
        "standard deviations of reference samples",
        "reward model's score r_θ(x, y), calibrated (or a server's, unchanged), before score_normalization, "
        "clipping and penalty",
        _EPISODES,
        "rises from about 0",
        better="higher",
    ),
    Metric(
        "ppo/gold_score",
        "gold score",
        "gold score; never used in training",
        _EPISODES,
        "rises with the proxy; falling while the proxy rises is reward hacking",
        better="higher",
        when=_GOLD,
    ),
    Metric(
        "ppo/gold_deviation",
        "gold score",
        "standard deviation of the gold score",
        _EPISODES,
        "near constant",
        when=_GOLD,
    ),
    Metric(
        "ppo/reference_kl",
        "nats per response",
        "Σ_t [log π(a_t) − log π_ref(a_t)] under the rollout policy (k1, sum over tokens)",
        _EPISODES,
        "0 at the first iteration, then rises slowly; short responses: under about 10",
        better="lower",
    ),
    Metric(
        "ppo/reference_kl_per_token",
        "nats per token",
        "log π(a_t) − log π_ref(a_t) under the rollout policy (k1)",
        _RESPONSE_TOKENS,
        "0 at the first iteration, then rises slowly; a rise of ppo/reference_kl alone is longer responses",
        better="lower",
    ),
    Metric(
        "ppo/penalty_kl",
        "nats per response",
        "Σ_t [log π(a_t) − log π_reset(a_t)], π_reset the reference of the KL penalty since its last reset",
        _EPISODES,
        "falls to 0 at each reset, then rises",
        better="lower",
        when=_RESET,
    ),
    Metric(
        "ppo/reference_kl_deviation",
        "nats per response",
        "standard deviation of Σ_t [log π(a_t) − log π_ref(a_t)]",
        _EPISODES,
        "0 at the first iteration, then grows with reference_kl",
    ),
    Metric(
        "ppo/kl_coefficient",
        "score as used per nat",
        "β, weight of the KL penalty in the token rewards",
        _ITERATION,
        "constant, or slowly moving where kl_target is set",
    ),
    Metric(
        "ppo/effective_kl_coefficient",
        "scorer's own unit per nat",
        "β · s, s = the divisor of the scores (score_normalization): 1 under raw; the run's scale under "
        "calibrated (1 for a calibrated reward model) and running; the rollout's deviation under batch",
        _ITERATION,
        "constant; under batch it falls as the policy concentrates, and the penalty with it",
        when=_DIVIDED,
    ),
    Metric(
        "ppo/entropy",
        "nats per token",
        "logsumexp(z) − Σ_v p_v·z_v over the full vocabulary, z = logits / temperature",
        _RESPONSE_TOKENS,
        "falls slowly; a fall to under a third of its start is collapse",
    ),
    Metric(
        "ppo/entropy_deviation",
        "nats per token",
        "standard deviation of the responses' own mean entropies",
        _EPISODES,
        "near constant",
    ),
    Metric("ppo/mean_length", "tokens", "response tokens, the end token included", _EPISODES, "near the SFT policy's"),
    Metric(
        "ppo/length_deviation",
        "tokens",
        "standard deviation of the response tokens",
        _EPISODES,
        "near constant; near 0 where all responses reach the limit or end at once",
    ),
    Metric(
        "ppo/eos_rate",
        "share",
        "share of responses that end by themselves",
        _EPISODES,
        "near the start or rising",
        better="higher",
    ),
    Metric(
        "ppo/score_deviation",
        "standard deviations of reference samples",
        "standard deviation of the reward model's scores",
        _EPISODES,
        "above 0; near 0 the scores no longer distinguish responses",
    ),
    Metric(
        "ppo/length_score_correlation",
        "−1 to 1",
        "Pearson's correlation of response length and score",
        _EPISODES,
        "within ± 0.4, or near ppo/length_gold_correlation",
        when=_VARIES,
    ),
    Metric(
        "ppo/length_score_correlation_within",
        "−1 to 1",
        "the same of both less their means over the responses to the same prompt",
        "responses of the rollout to prompts that have several",
        "within ± 0.4; unlike ppo/length_score_correlation it does not depend on which prompts get long responses",
        when=_SEVERAL,
    ),
    Metric(
        "ppo/length_gold_correlation",
        "−1 to 1",
        "Pearson's correlation of response length and gold score",
        _EPISODES,
        "the gold score's own dependence on length",
        when=_GOLD_VARIES,
    ),
    Metric(
        "ppo/distinct_2",
        "share",
        "distinct pairs of neighboring words / all pairs of neighboring words",
        "all responses of the rollout together",
        "near its start; a fall by half is repetition",
        better="higher",
        when=_WORDS,
    ),
    Metric(
        "ppo/repeated_2",
        "share",
        "pairs of neighboring words that occurred earlier in the same response / its pairs of neighboring words",
        _EPISODES,
        "near its start; a rise by 0.2 is repetition",
        better="lower",
    ),
    Metric(
        "ppo/repeated_2_deviation",
        "share",
        "standard deviation of the responses' own shares",
        _EPISODES,
        "near constant",
    ),
    Metric(
        "ppo/common_opening",
        "share",
        "share of responses that begin with the most common first word",
        "responses of the rollout that have a word",
        "near its start; a rise by 0.5 is one opening for everything",
        better="lower",
        when=_WORD,
    ),
    Metric(
        "ppo/self_similarity",
        "share",
        "four-word sequences of a response that also occur in a response to another prompt / its four-word sequences",
        "responses of the rollout that have four words",
        "near its start; a rise by 0.3 is one answer to everything",
        better="lower",
        when=_FOUR_WORDS,
    ),
    Metric(
        "ppo/self_similarity_deviation",
        "share",
        "standard deviation of the responses' own shares",
        "responses of the rollout that have four words",
        "near constant",
        when=_FOUR_WORDS,
    ),
    Metric(
        "ppo/reference_perplexity",
        "tokens",
        "exp(−mean of log π_ref(token)), at the sampling temperature",
        _RESPONSE_TOKENS,
        "near its start; falling while responses grow is collapse into what the reference finds most likely, rising is "
        "text that it would not write",
    ),
    Metric(
        "ppo/scores_beyond_start",
        "share",
        "share of responses whose score is above the highest or below the lowest of the first rollout",
        _EPISODES,
        "rises slowly; near 1 the scorer judges what it has never seen from the SFT policy",
        when=_SINCE_START,
    ),
    Metric(
        "ppo/length_share_of_gain",
        "of the gain",
        "Σ_b (p_b − p⁰_b)·m⁰_b / (mean score − that of the first rollout); b quarters of the first rollout's lengths, "
        "p shares, m mean scores, ⁰ of the first rollout",
        _EPISODES,
        "near 0; near 1 the score rose by length alone; under 0 it rose in spite of it",
        when=_GAINED,
    ),
    Metric(
        "ppo/clipped_scores",
        "share",
        "share of responses whose score was cut at score_clip",
        _EPISODES,
        "near 0",
        better="lower",
        when=_LIMITED,
    ),
    Metric(
        "ppo/sampler_difference",
        "nats per token",
        "|log π(a_t) − log π_server(a_t)|, of one policy by the trainer and by the server that sampled",
        _RESPONSE_TOKENS,
        "under 0.01 in float32, under 0.1 in half precision; a jump is a server with another adapter",
        better="lower",
        when=_SERVED,
    ),
    Metric(
        "ppo/sampler_difference_max",
        "nats per token",
        "largest |log π(a_t) − log π_server(a_t)|",
        "maximum over response tokens",
        "some ten times the mean",
        better="lower",
        when=_SERVED,
    ),
    Metric(
        "ppo/importance_weight",
        "1",
        "min(π(a_t) / π_server(a_t), importance_limit), the factor of the advantages",
        _RESPONSE_TOKENS,
        "0.99 to 1.01",
        when=_WEIGHED,
    ),
    Metric(
        "ppo/importance_cut",
        "share",
        "share of tokens whose weight was cut at importance_limit",
        _RESPONSE_TOKENS,
        "near 0",
        better="lower",
        when=_WEIGHED,
    ),
    Metric(
        "ppo/staleness",
        "iterations",
        "iterations by which the policy that sampled the rollout is older than the one that is trained on it",
        _ITERATION,
        "0; with rollouts.ahead 1 it is 1 from the second iteration on, and 0 after a rollback",
        when=_SERVED,
    ),
    Metric("ppo/episodes", "responses", "responses so far", "sum since the start", "rises by batch_size"),
)
