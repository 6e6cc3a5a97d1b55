"""Importance weights for samples from an inference engine, whose policy equals the trained one up to rounding."""

import torch
from torch import Tensor

from triphase.objectives.masking import at_least_float32
from triphase.objectives.proximal import LOG_RATIO_LIMIT
from triphase.objectives.shapes import require_constant, require_mask, require_positive, require_same_shape


def truncated_importance_weights(logprobs: Tensor, sampler_logprobs: Tensor, mask: Tensor, *, limit: float) -> Tensor:
    """Truncated importance sampling: what a token's gradient is multiplied by.

        w_t = min( exp(log π(y_t) - log μ(y_t)) , C )

    With μ = π it is 1 everywhere. A factor above 0 can go into the advantage: min(r·wÂ, clip(r)·wÂ) = w·min(r·Â,
    clip(r)·Â).

    Args:
        logprobs: (B, R) of the policy before its updates, by the trainer; constant.
        sampler_logprobs: the same shape, of the same policy by the engine that sampled; constant.
        mask: the same shape, bool.
        limit: C > 0.

    Returns:
        The same shape, float32 or float64; 1 at padding.

    Raises:
        ValueError: shapes differ, the mask is not bool or counts nothing, an input requires a gradient, or limit is not
            above 0.

    Source: Ionides, Truncated Importance Sampling (2008), token by token. Departure: the log-ratio is clamped to ±20.
    """
    require_same_shape(logprobs=logprobs, sampler_logprobs=sampler_logprobs, mask=mask)
    require_constant(logprobs=logprobs, sampler_logprobs=sampler_logprobs)
    require_positive(limit=limit)
    require_mask(mask)
    log_ratio = torch.where(mask, at_least_float32(logprobs) - at_least_float32(sampler_logprobs), 0)
    return torch.where(mask, log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp().clamp(max=limit), 1)
