"""The metrics of PPO that several reward models give, declared: the disagreement of an ensemble, and the witness."""

from triphase.monitoring.declaration import Condition, Metric
from triphase.settings.schema import RunSettings

_EPISODES = "responses of the rollout"


def _scores(run: RunSettings) -> bool:
    return any(run.ppo_of(variant).scorer.by_reward_model for variant in (None, *run.variants))


def _is_ensemble(run: RunSettings) -> bool:
    ensemble = run.reward.ensemble
    several = ensemble.members > 1 and ensemble.combine != "average-weights"
    return _scores(run) and (several or run.reward.taken_from is not None)


def _has_witness(run: RunSettings) -> bool:
    return _scores(run) and (run.reward.witness or run.reward.taken_from is not None)


_ENSEMBLE = Condition("where reward.ensemble has members whose scores are combined", _is_ensemble, certain=False)
_WITNESS = Condition("where reward.witness is set", _has_witness, certain=False)

PPO_REWARD_METRICS = (
    Metric(
        "ppo/reward_disagreement",
        "times that of reference samples",
        "standard deviation of the members' scores of a response, over its mean on reference samples",
        _EPISODES,
        "near 1 at the first iteration; a rise shows responses unlike the training data. A fall proves nothing: "
        "members that share data share errors",
        when=_ENSEMBLE,
    ),
    Metric(
        "ppo/reward_disagreement_deviation",
        "times that of reference samples",
        "standard deviation of the responses' own disagreement",
        _EPISODES,
        "near constant",
        when=_ENSEMBLE,
    ),
    Metric(
        "ppo/witness_score",
        "standard deviations of reference samples",
        "score of the reward model that was trained on the other half of the prompts; never used in training",
        _EPISODES,
        "rises with the proxy, at a slower pace; falling while the proxy rises is reward hacking",
        better="higher",
        when=_WITNESS,
    ),
    Metric(
        "ppo/witness_score_deviation",
        "standard deviations of reference samples",
        "standard deviation of the witness's scores",
        _EPISODES,
        "near constant",
        when=_WITNESS,
    ),
    Metric(
        "ppo/witness_score_correlation",
        "−1 to 1",
        "Pearson's correlation of the witness's score and the proxy score",
        _EPISODES,
        "well above 0; a fall means that the two no longer prefer the same responses",
        better="higher",
        when=_WITNESS,
    ),
)
