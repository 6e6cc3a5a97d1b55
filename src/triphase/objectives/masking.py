"""Statistics over the elements that count.

The mask is always required, bool, and True counts. The values of the other elements, NaN and infinity included, change
nothing, neither in the result nor in its gradient. A mask that counts nothing is an error.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from triphase.objectives.shapes import require_mask, require_rows, require_same_shape


def at_least_float32(x: Tensor) -> Tensor:
    """The tensor in float32, or in float64 if it is float64 already: sums in bf16 lose precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def masked_sum(x: Tensor, mask: Tensor) -> Tensor:
    """Sum of the elements that count.

        Σ_{i: mask_i} x_i

    Args:
        x: any shape.
        mask: the same shape, bool.

    Returns:
        () float32, or float64 for a float64 input.

    Raises:
        ValueError: shapes differ, the mask is not bool, or counts nothing.
    """
    require_same_shape(x=x, mask=mask)
    require_mask(mask)
    return torch.where(mask, at_least_float32(x), 0).sum()


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of the elements that count.

        (1/n) · Σ_{i: mask_i} x_i,   n = Σ mask

    Args, returns and errors as in :func:`masked_sum`.
    """
    return masked_sum(x, mask) / mask.sum()


def masked_variance(x: Tensor, mask: Tensor) -> Tensor:
    """Population variance of the elements that count (divided by n, not n - 1).

        (1/n) · Σ_{i: mask_i} (x_i - mean)²

    Args, returns and errors as in :func:`masked_sum`.
    """
    deviation = torch.where(mask, at_least_float32(x) - masked_mean(x, mask), 0)
    return masked_mean(deviation.square(), mask)


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean and population variance of a set of numbers, each () float64.

    Float64, so that moments merged over microbatches or processes are those of the whole set to 1e-12.
    """

    count: Tensor
    mean: Tensor
    variance: Tensor

    def merge(self, other: "Moments") -> "Moments":
        """The moments of both sets together.

            n = n_a + n_b,   d = m_b - m_a
            mean = m_a + d · n_b/n
            variance = (n_a·v_a + n_b·v_b)/n + d² · n_a·n_b/n²

        Source: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances"
        (1979), Eq. 2.1.
        """
        count = self.count + other.count
        difference = other.mean - self.mean
        share = other.count / count
        within = (self.count * self.variance + other.count * other.variance) / count
        return Moments(count, self.mean + difference * share, within + difference.square() * share * (1 - share))

    def has_spread(self, dtype: torch.dtype) -> Tensor:
        """() bool: whether the standard deviation is above the resolution of this dtype at their mean."""
        return self.variance.sqrt() > torch.finfo(dtype).eps * self.mean.abs()


def moments(x: Tensor, mask: Tensor) -> Moments:
    """Count, mean and population variance of the elements that count; constants, no gradient flows into them.

    Args:
        x: any shape.
        mask: the same shape, bool.

    Returns:
        Moments of () float64 tensors on the device of x.

    Raises:
        ValueError: shapes differ, the mask is not bool, or counts nothing.
    """
    require_same_shape(x=x, mask=mask)
    require_mask(mask)
    wide = x.detach().double()
    pivot = torch.where(mask, wide, -torch.inf).amax()  # so that equal numbers have a variance of exactly 0
    shifted = wide - pivot
    return Moments(mask.sum().double(), pivot + masked_mean(shifted, mask), masked_variance(shifted, mask))


def standardize_with(x: Tensor, mask: Tensor, moments: Moments) -> Tensor:
    """Subtract a given mean and divide by a given standard deviation; elements that do not count become 0.

        y_i = (x_i - mean) / √variance

    With the merged moments of all processes, each process whitens its share exactly as one process would the whole.

    Args:
        x: any shape.
        mask: the same shape, bool.
        moments: of the whole set that x is part of.

    Returns:
        The shape and dtype of x.

    Raises:
        ValueError: shapes differ, the mask is not bool, or counts nothing.

    Departure: the sources divide by √(variance + 1e-8). Here nothing is added; where the standard deviation is below
    the resolution of x's dtype (all elements equal but for rounding) every element becomes 0, since there is no
    difference to scale and scaling would blow up the rounding.
    """
    require_same_shape(x=x, mask=mask)
    require_mask(mask)
    centered = x.double() - moments.mean
    return torch.where(mask, centered * _scale(x, moments), 0).to(x.dtype)


def standardize(x: Tensor, mask: Tensor) -> Tensor:
    """Shift and scale to mean 0 and variance 1; the elements that do not count become 0.

        y_i = (x_i - mean(x)) / std(x)

    For a batch of scores (B,) the mask is all True.

    Args, returns, errors and departure as in :func:`standardize_with`.

    Source: Huang et al., "The N implementation details of RLHF with PPO" (arXiv 2403.17031), advantage whitening.
    """
    return standardize_with(x, mask, moments(x, mask))


def rescale_keep_mean_with(x: Tensor, mask: Tensor, moments: Moments) -> Tensor:
    """Scale the deviations from a given mean to variance 1 and keep that mean; what does not count becomes 0.

        y_i = (x_i - mean) / √variance + mean

    Args, returns, errors and departure as in :func:`standardize_with`.
    """
    require_same_shape(x=x, mask=mask)
    require_mask(mask)
    centered = x.double() - moments.mean
    return torch.where(mask, centered * _scale(x, moments) + moments.mean, 0).to(x.dtype)


def rescale_keep_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Scale the deviations from the mean to variance 1 and keep the mean; the elements that do not count become 0.

        y_i = (x_i - mean(x)) / std(x) + mean(x)

    This is no pure scaling: against x/std(x) it adds mean·(1 - 1/std) to every element.

    Args, returns, errors and departure as in :func:`standardize_with`.

    Source: Ziegler et al. (arXiv 1909.08593), code ``whiten(shift_mean=False)``.
    """
    return rescale_keep_mean_with(x, mask, moments(x, mask))


def last_true_index(mask: Tensor) -> Tensor:
    """The position of the last element that counts, of each row.

    Args:
        mask: (B, R) bool.

    Returns:
        (B,) int64.

    Raises:
        ValueError: the mask is not bool, or a row counts nothing.
    """
    require_rows(mask)
    positions = torch.arange(mask.shape[1], device=mask.device)
    return torch.where(mask, positions, -1).amax(1)


def token_divisor(mask: Tensor, token_count: int | Tensor | None) -> int:
    """The divisor of a token loss: the tokens counted here, or those of the whole optimizer step.

    Args:
        mask: any shape, bool.
        token_count: int or (), the tokens of all microbatches of all processes of the step; None: this mask's own.

    Raises:
        ValueError: the mask is not bool or counts nothing, or token_count is below the tokens counted here.
    """
    counted = require_mask(mask)
    if token_count is None:
        return counted
    if int(token_count) < counted:
        raise ValueError(
            f"token_count is {int(token_count)}, but {counted} tokens count here: "
            "it must be the number of tokens of the whole optimizer step"
        )
    return int(token_count)


def _scale(x: Tensor, moments: Moments) -> Tensor:
    """1/√variance, or 0 if there is no spread."""
    return torch.where(moments.has_spread(x.dtype), moments.variance.rsqrt(), 0)
