"""The loss of supervised fine-tuning: negative log-likelihood of response tokens, and of nothing else."""

from dataclasses import dataclass

from torch import Tensor

from triphase.objectives.masking import masked_sum, token_divisor
from triphase.objectives.shapes import require_mask


@dataclass(frozen=True, slots=True)
class SupervisedMetrics:
    """Metrics of the tokens counted here, independent of the divisor of the loss.

    Attributes:
        nll_sum: () sum of the negative log-probabilities; sums of microbatches add up.
        token_count: tokens counted.
        mean_nll: () nll_sum / token_count, nats per token.
    """

    nll_sum: Tensor
    token_count: int
    mean_nll: Tensor


def response_nll(
    logprobs: Tensor, mask: Tensor, *, token_count: int | Tensor | None = None
) -> tuple[Tensor, SupervisedMetrics]:
    """Negative log-likelihood per response token.

        L = -(1/n) · Σ_{b,t: mask} log π(y_{b,t} | x_b, y_{b,<t})

    n is the token count of the whole optimizer step: losses of microbatches then add up to the loss of the step, and
    every token has the same weight however the step is divided. A mean of microbatch means gives tokens of short
    microbatches more weight.

    Args:
        logprobs: any shape, usually (B, R) or (N,): log-probabilities of the target tokens.
        mask: the same shape, bool: response tokens, the end token included.
        token_count: n; None when this is the whole step.

    Raises:
        ValueError: shapes differ, the mask is not bool or counts nothing, or token_count is below the tokens here.

    Source: Ouyang et al. (arXiv 2203.02155), §3.5. Departure: the token count of the step as divisor, not of the batch.
    """
    nll_sum = -masked_sum(logprobs, mask)
    loss = nll_sum / token_divisor(mask, token_count)
    counted = require_mask(mask)
    return loss, SupervisedMetrics(nll_sum.detach(), counted, nll_sum.detach() / counted)
