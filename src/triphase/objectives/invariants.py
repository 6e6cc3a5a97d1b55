"""Invariants of any model, checked during training, so that a wrong number stops the run."""

import torch
from torch import Tensor

from triphase.objectives.divergence import kl_k1
from triphase.objectives.masking import last_true_index
from triphase.objectives.shapes import require_response_prefix, require_same_shape, require_shapes


class InvariantError(ArithmeticError):
    """A number violates what holds by construction: the run would train on wrong numbers."""


def require_finite(**tensors: Tensor) -> None:
    """Check that tensors hold neither NaN nor infinity.

    Args:
        tensors: any shapes, by name. Pass masked values: padding is checked too.

    Raises:
        InvariantError: naming the tensor, how many elements are not finite, and where the first is.
    """
    for name, tensor in tensors.items():
        broken = ~torch.isfinite(tensor)
        if bool(broken.any()):
            position = tuple(broken.nonzero()[0].tolist())
            raise InvariantError(
                f"{name} is {float(tensor[position])} at {position} and not finite at {int(broken.sum())} of "
                f"{tensor.numel()} elements; likely causes: a learning rate too high, an overflow of half precision, "
                "or a broken batch"
            )


def require_lengths(mask: Tensor, lengths: Tensor) -> None:
    """Check that a response mask is right-padded and counts exactly the tokens of each response.

        Σ_t mask_{b,t} = length_b

    Args:
        mask: (B, R) bool.
        lengths: (B,) real tokens of each response, the end token included.

    Raises:
        ValueError: shapes do not fit, or the mask is no right-padded response mask.
        InvariantError: a sum differs from its length; the first such row is named.
    """
    require_shapes(mask=(mask, "B R"), lengths=(lengths, "B"))
    require_response_prefix(mask)
    counted = mask.sum(1)
    if bool((counted != lengths).any()):
        row = int((counted != lengths).nonzero()[0])
        raise InvariantError(
            f"the response mask of row {row} counts {int(counted[row])} tokens, but the response has "
            f"{int(lengths[row])}; likely causes: a mask made from token ids where the padding token is the end token, "
            "or a batch cut shorter than its longest response"
        )


def require_first_minibatch(logprobs: Tensor, rollout_logprobs: Tensor, mask: Tensor, *, tolerance: float) -> None:
    """Check that before the first optimizer step the policy is the rollout policy, token by token.

        |exp(log π(y_t) - log π_rollout(y_t)) - 1| ≤ tolerance   at every real token

    With a tolerance below the clip range the clip fraction is then 0.

    Args:
        logprobs: (B, R) or (N,), of the training forward.
        rollout_logprobs: the same shape, stored at the rollout.
        mask: the same shape, bool.
        tolerance: 1e-4 in float32; more in half precision.

    Raises:
        ValueError: shapes differ.
        InvariantError: giving the worst ratio and its position.
    """
    require_same_shape(logprobs=logprobs, rollout_logprobs=rollout_logprobs, mask=mask)
    ratio = torch.where(mask, kl_k1(logprobs, rollout_logprobs), 0).exp()
    _require_near(
        "the ratio of policy and rollout policy in the first minibatch, before any step,",
        ratio,
        1.0,
        tolerance,
        "dropout is on, the temperature differs, rollout logprobs come from the generating engine and not from this "
        "forward, an adapter is merged in only one of them, positions or padding differ, or a step was taken before",
    )


def require_zero_reference_kl(
    logprobs: Tensor, reference_logprobs: Tensor, mask: Tensor, *, tolerance: float = 0.0
) -> None:
    """Check that at iteration 0 the policy is the reference, token by token.

        |log π(y_t) - log π_ref(y_t)| ≤ tolerance   at every real token

    Args:
        logprobs: (B, R) or (N,).
        reference_logprobs: the same shape.
        mask: the same shape, bool.
        tolerance: 0 where both run the same operations, as a fresh copy of an adapter does.

    Raises:
        ValueError: shapes differ.
        InvariantError: giving the worst log-ratio and its position.
    """
    require_same_shape(logprobs=logprobs, reference_logprobs=reference_logprobs, mask=mask)
    _require_near(
        "the log-ratio of policy and reference at iteration 0",
        torch.where(mask, kl_k1(logprobs, reference_logprobs), 0),
        0.0,
        tolerance,
        "the policy does not start as a copy of the reference, the temperature differs, dropout is on, or the wrong "
        "adapter is active",
    )


def require_scores_on_last_token(
    token_rewards: Tensor, scores: Tensor, kl_penalty: Tensor, mask: Tensor, *, tolerance: float = 1e-6
) -> None:
    """Check that token rewards are minus the KL penalty, plus the score at the last real token and nowhere else.

        |R_t + penalty_t - r·[t is the last token]| ≤ tolerance · (1 + |penalty_t| + |r|·[t is the last token])

    everywhere, padding included: the sum of a penalty of 5,000 and a score of 2 is rounded like 5,000.

    Args:
        token_rewards: (B, R).
        scores: (B,).
        kl_penalty: (B, R), positive where it costs; 0 at padding.
        mask: (B, R) bool.
        tolerance: of the sums, relative; a few roundings of float32.

    Raises:
        ValueError: shapes do not fit, or a response has no token.
        InvariantError: a score or a penalty is not finite; or giving the worst difference and its position.
    """
    require_shapes(
        token_rewards=(token_rewards, "B R"), scores=(scores, "B"), kl_penalty=(kl_penalty, "B R"), mask=(mask, "B R")
    )
    _require_representable(scores, kl_penalty)
    expected = torch.zeros_like(token_rewards)
    expected.scatter_(1, last_true_index(mask)[:, None], scores.to(expected.dtype)[:, None])
    _require_near(
        "the token reward without KL penalty and score",
        token_rewards + kl_penalty - expected,
        0.0,
        tolerance * (1 + kl_penalty.detach().double().abs() + expected.double().abs()),
        "the score is on padding or on another token than the last, the KL penalty was not taken on every token or "
        "has the wrong sign, or the token rewards were rescaled before",
    )


def _require_representable(scores: Tensor, kl_penalty: Tensor) -> None:
    """Raise InvariantError if a term of a reward overflows float32: a sum with it means nothing."""
    terms = {"the score": (scores, "the scorer's scale"), "the KL penalty": (kl_penalty, "the KL coefficient")}
    for name, (values, cause) in terms.items():
        broken = ~torch.isfinite(values)
        if bool(broken.any()):
            place = tuple(broken.nonzero()[0].tolist())
            raise InvariantError(
                f"{name} is {float(values[place])} at {place}: {cause} exceeds the range of {values.dtype}; lower it"
            )


def _require_near(quantity: str, actual: Tensor, wanted: float, tolerance: float | Tensor, causes: str) -> None:
    """Raise InvariantError unless every element is within its tolerance of the expected value; NaN never is."""
    distance = (actual.detach().double() - wanted).abs()
    if bool((distance <= tolerance).all()):
        return
    allowed = torch.as_tensor(tolerance, dtype=torch.float64, device=distance.device).expand_as(distance)
    worst = int(torch.nan_to_num(distance - allowed, nan=float("inf")).argmax())
    place = tuple(int(i) for i in torch.unravel_index(torch.tensor(worst), distance.shape))
    raise InvariantError(
        f"{quantity} must be {wanted:g} within {float(allowed[place]):g}, but is {float(actual[place]):.6g} at "
        f"{place}; likely causes: {causes}"
    )
