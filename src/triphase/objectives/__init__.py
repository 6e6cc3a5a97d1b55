"""The mathematics of the three phases: pure functions of tensors, each with its equation and source.

Tensors in, tensors out: no model, no settings, no logging, nothing of Triphase imported from outside this folder. A
loss returns itself, differentiable, and a frozen record of detached metrics.
"""

from triphase.objectives.advantages import (
    Advantages,
    center_scores,
    clip_scores,
    generalized_advantages,
    kl_penalty,
    penalize_unfinished,
    replace_unfinished,
    rescale_token_rewards,
    token_rewards,
)
from triphase.objectives.baselines import (
    batch_mean_advantages,
    group_standardized_advantages,
    leave_one_out_advantages,
)
from triphase.objectives.calibration import (
    ReliabilityBin,
    expected_calibration_error,
    noise_ceiling_from_agreement,
    reliability,
)
from triphase.objectives.divergence import (
    AdaptiveKL,
    FixedKL,
    KLController,
    full_kl,
    kl_k1,
    kl_k2,
    kl_k3,
    reference_kl,
)
from triphase.objectives.ensembles import combine_scores, member_deviation
from triphase.objectives.invariants import (
    InvariantError,
    require_finite,
    require_first_minibatch,
    require_lengths,
    require_scores_on_last_token,
    require_zero_reference_kl,
)
from triphase.objectives.length import within_group_correlation, within_group_slope
from triphase.objectives.logits import LogitMap, entropy, token_logprobs
from triphase.objectives.logprobs import ResponseLogprobs, response_logprobs
from triphase.objectives.masking import (
    Moments,
    last_true_index,
    masked_mean,
    masked_sum,
    masked_variance,
    moments,
    rescale_keep_mean,
    rescale_keep_mean_with,
    standardize,
    standardize_with,
)
from triphase.objectives.preference import PreferenceMetrics, bradley_terry_loss, plackett_luce_nll
from triphase.objectives.proximal import (
    PolicyMetrics,
    ValueMetrics,
    clipped_policy_loss,
    clipped_value_loss,
    composite_objective,
    entropy_bonus,
    explained_variance,
)
from triphase.objectives.shapes import require_response_prefix
from triphase.objectives.supervised import SupervisedMetrics, response_nll

__all__ = [
    "AdaptiveKL",
    "Advantages",
    "FixedKL",
    "InvariantError",
    "KLController",
    "LogitMap",
    "Moments",
    "PolicyMetrics",
    "PreferenceMetrics",
    "ReliabilityBin",
    "ResponseLogprobs",
    "SupervisedMetrics",
    "ValueMetrics",
    "batch_mean_advantages",
    "bradley_terry_loss",
    "center_scores",
    "clip_scores",
    "clipped_policy_loss",
    "clipped_value_loss",
    "combine_scores",
    "composite_objective",
    "entropy",
    "entropy_bonus",
    "expected_calibration_error",
    "explained_variance",
    "full_kl",
    "generalized_advantages",
    "group_standardized_advantages",
    "kl_k1",
    "kl_k2",
    "kl_k3",
    "kl_penalty",
    "last_true_index",
    "leave_one_out_advantages",
    "masked_mean",
    "masked_sum",
    "masked_variance",
    "member_deviation",
    "moments",
    "noise_ceiling_from_agreement",
    "penalize_unfinished",
    "plackett_luce_nll",
    "reference_kl",
    "reliability",
    "replace_unfinished",
    "require_finite",
    "require_first_minibatch",
    "require_lengths",
    "require_response_prefix",
    "require_scores_on_last_token",
    "require_zero_reference_kl",
    "rescale_keep_mean",
    "rescale_keep_mean_with",
    "rescale_token_rewards",
    "response_logprobs",
    "response_nll",
    "standardize",
    "standardize_with",
    "token_logprobs",
    "token_rewards",
    "within_group_correlation",
    "within_group_slope",
]
