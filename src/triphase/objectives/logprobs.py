"""Log-probabilities and entropies of a policy, fast, from its hidden states.

``response_logprobs`` gives the values of ``token_logprobs`` and ``entropy`` from hidden states and the language-model
head, in chunks, so that the logits of N positions × V tokens are never in memory together.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from triphase.objectives.logits import PLAIN, LogitMap, entropy, token_logprobs
from triphase.objectives.masking import at_least_float32
from triphase.objectives.shapes import require_positive, require_shapes
from triphase.objectives.softmax import NEVER, rows_at_once, softmax_in_place


@dataclass(frozen=True, slots=True)
class ResponseLogprobs:
    """What the fast path returns.

    Attributes:
        logprobs: (N,) log-probability of each target token.
        entropy: (N,) entropy at each position; None if it was not requested.
    """

    logprobs: Tensor
    entropy: Tensor | None


def response_logprobs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    temperature: float,
    chunk_size: int,
    with_entropy: bool,
    absent: Tensor | None = None,
    logit_map: LogitMap = PLAIN,
) -> ResponseLogprobs:
    """Log-probabilities, and entropies if requested, of N positions from their hidden states, without N × V logits.

        z = f(W h_i),   ℓ_i = z_y/T - log Σ_v exp(z_v/T),   H_i = -Σ_v p_v · log p_v,   p = softmax(z/T)
        ∂ℓ_i/∂h_i = (f'∘(e_y - p))ᵀW/T,   ∂H_i/∂h_i = -(f'∘p∘(log p + H_i))ᵀW/T

    With a frozen head (W requires no gradient) these two derivatives, (N, d) each, are computed in the forward while
    the chunk is in memory, so the backward neither stores nor recomputes a logit: it scales rows. With a trained head
    each chunk is computed again in the backward. Without gradients only the values are computed. The first and the last
    case use the same operations, so a rollout pass and a training pass agree to the bit.

    Request the entropy with gradients enabled only if it enters the loss: its derivative costs a second product.

    Args:
        hidden: (N, d) float, last hidden states of the policy at the positions that predict the targets.
        weight: (V, d) float, the language-model head. Products are taken in its dtype; maxima, sums and logarithms in
            float32 (float64 for a float64 weight).
        targets: (N,) int64 token ids in [0, V).
        temperature: T > 0.
        chunk_size: positions whose logits are in memory together.
        with_entropy: True adds the entropies.
        absent: (A,) int64 rows of the head without a token (a padded vocabulary); their probability is 0.
        logit_map: f, which the head applies after the product: bias, scale, soft cap. Its bias is a constant.

    Raises:
        ValueError: shapes do not fit, or temperature or chunk_size is not above 0.
    """
    require_shapes(hidden=(hidden, "N d"), weight=(weight, "V d"), targets=(targets, "N"))
    require_positive(temperature=temperature, chunk_size=chunk_size)
    if torch.is_grad_enabled() and weight.requires_grad:
        return _trained_head(hidden, weight, targets, temperature, chunk_size, with_entropy, absent, logit_map)
    if torch.is_grad_enabled() and hidden.requires_grad:
        apply: Callable[..., tuple[Tensor, Tensor | None]] = _FrozenHead.apply
        return ResponseLogprobs(
            *apply(hidden, weight, targets, temperature, chunk_size, with_entropy, absent, logit_map)
        )
    parts = _chunks(hidden, weight, targets, temperature, chunk_size, with_entropy, absent, logit_map)
    return ResponseLogprobs(parts.logprobs, parts.entropy)


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Values (n,) of some positions, and, if requested, their derivatives (n, d) with respect to the hidden state."""

    logprobs: Tensor
    entropy: Tensor | None
    logprobs_derivative: Tensor | None
    entropy_derivative: Tensor | None


def _chunk(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    temperature: float,
    with_entropy: bool,
    absent: Tensor | None,
    logit_map: LogitMap,
    with_derivatives: bool,
) -> _Chunk:
    """One chunk: the products of all its rows, and between them the softmax of a few rows at a time.

    Keeps one buffer of n × V alive, one more with the derivative of the entropy, and works in place. The passes over a
    few rows stay in a processor's cache.
    """
    products = hidden.to(weight.dtype) @ weight.T
    others = torch.empty_like(products) if with_entropy and with_derivatives else None
    rows = rows_at_once(products)
    wide = at_least_float32(products[:0]).dtype
    scratch = (
        None if products.dtype == wide else products.new_empty((min(rows, len(products)), len(weight)), dtype=wide)
    )
    found: list[tuple[Tensor, Tensor | None, Tensor]] = []
    for start in range(0, max(1, len(products)), rows):
        part = slice(start, start + rows)
        own = products[part]
        shifted = own if scratch is None else scratch[: len(own)].copy_(own)
        factors = (own, None if others is None else others[part]) if with_derivatives else None
        found.append(softmax_in_place(shifted, targets[part], temperature, with_entropy, absent, logit_map, factors))
    logprobs, entropies, totals = (_join([each[place] for each in found]) for place in range(3))
    assert logprobs is not None and totals is not None  # noqa: S101 - of each part
    scale = (totals * (temperature / logit_map.scale)).reciprocal_().neg_()[:, None]
    derivatives = [
        None if each is None or not with_derivatives else ((each @ weight) * scale).to(weight.dtype)
        for each in (products, others)
    ]
    return _Chunk(logprobs, entropies, *derivatives)


def _chunks(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    temperature: float,
    chunk_size: int,
    with_entropy: bool,
    absent: Tensor | None,
    logit_map: LogitMap,
    with_derivatives: bool = False,
) -> _Chunk:
    """All chunks one after the other, concatenated."""
    parts = [
        _chunk(rows, weight, tokens, temperature, with_entropy, absent, logit_map, with_derivatives)
        for rows, tokens in zip(torch.split(hidden, chunk_size), torch.split(targets, chunk_size), strict=True)
    ]
    return _Chunk(
        torch.cat([part.logprobs for part in parts]),
        _join([part.entropy for part in parts]),
        _join([part.logprobs_derivative for part in parts]),
        _join([part.entropy_derivative for part in parts]),
    )


def _join(parts: list[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.cat(present) if present else None


class _FrozenHead(torch.autograd.Function):
    """The head as a constant: the forward computes derivatives by the hidden state, the backward scales rows."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        temperature: float,
        chunk_size: int,
        with_entropy: bool,
        absent: Tensor | None,
        logit_map: LogitMap,
    ) -> tuple[Tensor, Tensor | None]:
        parts = _chunks(hidden, weight, targets, temperature, chunk_size, with_entropy, absent, logit_map, True)
        ctx.save_for_backward(parts.logprobs_derivative, parts.entropy_derivative)
        ctx.set_materialize_grads(False)
        ctx.hidden_dtype = hidden.dtype
        return parts.logprobs, parts.entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        terms = [
            gradient[:, None] * derivative
            for gradient, derivative in zip(gradients, ctx.saved_tensors, strict=True)
            if gradient is not None
        ]
        total = sum(terms[1:], terms[0]).to(ctx.hidden_dtype) if terms else None
        return total, None, None, None, None, None, None, None


def _trained_head(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    temperature: float,
    chunk_size: int,
    with_entropy: bool,
    absent: Tensor | None,
    logit_map: LogitMap,
) -> ResponseLogprobs:
    """The head as a parameter: each chunk by the definition, under activation checkpointing."""

    def numbers(rows: Tensor, weight: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        logits = rows.to(weight.dtype) @ weight.T
        if not logit_map.is_identity:
            logits = logit_map.apply(at_least_float32(logits))
        if absent is not None:
            logits = logits.index_fill(1, absent, NEVER)
        return token_logprobs(logits, tokens, temperature), entropy(logits, temperature) if with_entropy else None

    parts = [
        checkpoint(numbers, rows, weight, tokens, use_reentrant=False)
        for rows, tokens in zip(torch.split(hidden, chunk_size), torch.split(targets, chunk_size), strict=True)
    ]
    return ResponseLogprobs(torch.cat([part[0] for part in parts]), _join([part[1] for part in parts]))
