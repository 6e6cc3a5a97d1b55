"""The softmax over the vocabulary of a few rows at a time, in place, with the factors of its derivatives."""

from torch import Tensor

from triphase.objectives.logits import LogitMap

NEVER = -1e30
"""A logit whose probability is 0, finite so that 0 times it is 0."""
# Logits of a few rows in float32: 1 MB, as much as the cache of a core has.
_CACHED_LOGITS, _LEAST_ROWS = 1 << 18, 4


def rows_at_once(products: Tensor) -> int:
    """Rows whose logits stay in a processor's cache; on a GPU, where each pass is a launch, all."""
    if products.is_cuda:
        return max(1, len(products))
    return max(_LEAST_ROWS, _CACHED_LOGITS // products.shape[1])


def softmax_in_place(
    shifted: Tensor,
    targets: Tensor,
    temperature: float,
    with_entropy: bool,
    absent: Tensor | None,
    logit_map: LogitMap,
    factors: tuple[Tensor, Tensor | None] | None,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """(b, V) products, changed in place → (b,) log-probabilities, entropies if requested, and sums of exponentials.

    ``factors`` receive what the derivatives multiply with the head: of the log-probability, and of the entropy.
    """
    logit_map.apply_(shifted)
    slope = logit_map.slope(shifted) if factors is not None else None
    if temperature != 1:
        shifted.div_(temperature)
    if absent is not None:
        shifted.index_fill_(1, absent, NEVER)
    shifted.sub_(shifted.amax(1, keepdim=True))
    at_target = shifted.gather(1, targets[:, None]).squeeze(1)
    exponentials = shifted.exp() if with_entropy else shifted.exp_()  # p·total
    total = exponentials.sum(1)
    log_total = total.log()
    entropies = None
    if with_entropy:
        weighted = shifted.mul_(exponentials)
        entropies = log_total - weighted.sum(1) / total
        if factors is not None and factors[1] is not None:
            weighted.addcmul_(exponentials, (entropies - log_total)[:, None])  # p∘(log p + H)·total
            _times(weighted, slope)
            factors[1].copy_(weighted)
    if factors is not None:
        # The target is subtracted before rounding to the weight's dtype: W_y - pᵀW would cancel where p_y is near 1.
        exponentials.scatter_add_(1, targets[:, None], -total[:, None])
        _times(exponentials, slope)
        if exponentials is not factors[0]:
            factors[0].copy_(exponentials)
    return at_target - log_total, entropies, total


def _times(values: Tensor, slope: Tensor | None) -> None:
    if slope is not None:
        values.mul_(slope)
