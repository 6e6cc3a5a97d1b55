"""Drawing tokens: inversion of the cumulative distribution at uniform numbers that follow from a seed.

No sort, and one temporary tensor of (vocabulary, rows).
"""

import math

import torch
from torch import Tensor


def sample(logits: Tensor, temperature: float, uniform: Tensor) -> Tensor:
    """Draw one token per row by inversion: the first index whose cumulative probability exceeds ``uniform``.

    The distribution is summed in blocks of the vocabulary: a block is drawn, then a token of it. That is one pass of
    sums where a cumulative sum over the whole would be a chain of as many additions as there are tokens.

    Args:
        logits: (B, V), any float type; the transpose of a contiguous (V, B) is the fastest.
        temperature: above 0.
        uniform: (B,) in [0, 1).

    Returns:
        (B,) token ids.
    """
    rows, vocabulary = logits.shape
    size = math.isqrt(vocabulary - 1) + 1
    count = -(-vocabulary // size)
    weights = torch.empty((count * size, rows), dtype=torch.float32, device=logits.device)
    shifted = weights[:vocabulary]
    shifted.copy_(logits.t())
    shifted.sub_(shifted.amax(dim=0)).div_(temperature).exp_()  # down the columns: along bfloat16 rows it is far slower
    weights[vocabulary:] = 0.0
    blocks = weights.view(count, size, rows)
    outer = blocks.sum(dim=1).double().cumsum(dim=0)
    block = _first_above(outer, uniform.double() * outer[-1])
    before = torch.where(block > 0, outer.gather(0, (block - 1).clamp(min=0)[None])[0], 0.0)
    inner = blocks[block, :, torch.arange(rows, device=logits.device)].t().double().cumsum(dim=0)
    return block * size + _first_above(inner, uniform.double() * outer[-1] - before)


def _first_above(cumulative: Tensor, threshold: Tensor) -> Tensor:
    """(N, B) rising sums, (B,) → (B,) the first index whose sum is above the threshold, or, if rounding puts the
    threshold at the total or beyond, the last one that adds to the sum: the indices after it have no probability."""
    total = cumulative[-1]
    bounded = torch.minimum(threshold, total.nextafter(torch.zeros_like(total)))
    return (cumulative <= bounded).sum(dim=0)


def draws(seed: int, count: int) -> Tensor:
    """(count,) uniform numbers of one seed, the same on every device."""
    return torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniforms(seed: int, count: int) -> list[float]:
    """`draws` as a list."""
    drawn: list[float] = draws(seed, count).tolist()
    return drawn
