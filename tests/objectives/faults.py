"""Nine mistakes of published PPO implementations, each planted in an otherwise correct one."""

import torch
from tests.objectives.toy import Method, Rollout, sound_advantages, sound_token_rewards
from torch import Tensor

from triphase import objectives


def _sign_of_kl(rollout: Rollout, kl_coefficient: float) -> Tensor:
    return objectives.token_rewards(
        rollout.scores,
        rollout.reference_logprobs,
        rollout.rollout_logprobs,
        rollout.mask,
        kl_coefficient=kl_coefficient,
    )


def _k3_in_reward(rollout: Rollout, kl_coefficient: float) -> Tensor:
    penalty = kl_coefficient * objectives.kl_k3(rollout.rollout_logprobs, rollout.reference_logprobs)
    last = objectives.last_true_index(rollout.mask)[:, None]
    return torch.where(rollout.mask, -penalty, 0).scatter_add(1, last, rollout.scores[:, None])


def _no_kl_on_last_token(rollout: Rollout, kl_coefficient: float) -> Tensor:
    last = objectives.last_true_index(rollout.mask)[:, None]
    return sound_token_rewards(rollout, kl_coefficient).scatter(1, last, rollout.scores[:, None])


def _score_on_padding(rollout: Rollout, kl_coefficient: float) -> Tensor:
    last = objectives.last_true_index(rollout.mask)[:, None]
    penalty = objectives.kl_penalty(
        rollout.rollout_logprobs, rollout.reference_logprobs, rollout.mask, kl_coefficient=kl_coefficient
    )
    return (-penalty).scatter_add(1, last + 1, rollout.scores[:, None])


def _advantages_with_padding_slot(rollout: Rollout, token_rewards: Tensor, gae_lambda: float) -> objectives.Advantages:
    """What makes a score on padding survive: the slot after the response taken for a state of value 0."""
    last = objectives.last_true_index(rollout.mask)[:, None]
    longer = rollout.mask.scatter(1, last + 1, True)
    values = rollout.values * rollout.mask
    estimate = objectives.generalized_advantages(token_rewards, values, longer, discount=1.0, gae_lambda=gae_lambda)
    return objectives.Advantages(estimate.advantages * rollout.mask, estimate.returns * rollout.mask)


def _whiten_shifting_mean(rollout: Rollout, kl_coefficient: float) -> Tensor:
    return objectives.standardize(sound_token_rewards(rollout, kl_coefficient), rollout.mask)


def _whiten_keeping_mean(rollout: Rollout, kl_coefficient: float) -> Tensor:
    return objectives.rescale_token_rewards(sound_token_rewards(rollout, kl_coefficient), rollout.mask)


def _bootstrap_at_cut(rollout: Rollout, token_rewards: Tensor, gae_lambda: float) -> objectives.Advantages:
    """A cut response is credited with the value of its last state, as if it went on."""
    last = objectives.last_true_index(rollout.mask)[:, None]
    continued = rollout.values.gather(1, last) * ~rollout.finished[:, None]
    return sound_advantages(rollout, token_rewards.scatter_add(1, last, continued), gae_lambda)


def _pads_in_whitening(advantages: Tensor, mask: Tensor) -> Tensor:
    return objectives.standardize(advantages, torch.ones_like(mask)) * mask


FAULTS = {
    "sign of the KL": Method(token_rewards=_sign_of_kl),
    "k3 in the reward": Method(token_rewards=_k3_in_reward),
    "no KL on the last token": Method(token_rewards=_no_kl_on_last_token),
    "temperature mismatch": Method(sampling_temperature=0.7),
    "score on padding": Method(token_rewards=_score_on_padding, advantages=_advantages_with_padding_slot),
    "token rewards whitened, mean shifted": Method(token_rewards=_whiten_shifting_mean),
    "token rewards whitened, mean kept": Method(token_rewards=_whiten_keeping_mean),
    "bootstrap at the cut": Method(advantages=_bootstrap_at_cut),
    "padding in advantage whitening": Method(whiten=_pads_in_whitening),
}
