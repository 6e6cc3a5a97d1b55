"""Sampling in this process: one decode loop with a key-value cache.

Requests are taken in the order of their prompt length, so that little is padded; rows that are finished leave the
batch, and with them their cache. A token is chosen by inverting the cumulative distribution at a uniform number drawn
from the row's own seed: no sort, one temporary of (rows, vocabulary).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from triphase.models.roles import SharedModel
from triphase.models.stepping import TokenStepper
from triphase.rollouts.types import Generated, Request

# Rows are dropped from the batch once this share of it is finished: dropping copies the cache.
_COMPACT_SHARE = 0.25


class LocalGenerator:
    """Samples from one adapter of the shared model.

    Attributes:
        adapter: the adapter that samples; None is the bare base.
        batch_size: responses that are sampled side by side.
    """

    def __init__(self, shared: SharedModel, *, adapter: str | None, batch_size: int) -> None:
        self._shared = shared
        self.adapter = adapter
        self.batch_size = batch_size

    @torch.no_grad()
    def generate(
        self,
        requests: Sequence[Request],
        *,
        temperature: float,
        max_response_tokens: int,
        on_finished: Callable[[int], None] | None = None,
    ) -> list[Generated]:
        """One response for each request, in order. ``on_finished`` is told how many more are done."""
        order = sorted(range(len(requests)), key=lambda index: (len(requests[index].prompt), index))
        results: dict[int, Generated] = {}
        with self._shared.role(self.adapter):
            for first in range(0, len(order), self.batch_size):
                indices = order[first : first + self.batch_size]
                batch = [requests[index] for index in indices]
                found = self._generate_batch(batch, temperature, max_response_tokens)
                results.update(zip(indices, found, strict=True))
                if on_finished is not None:
                    on_finished(len(indices))
        return [results[index] for index in range(len(requests))]

    def _generate_batch(self, requests: Sequence[Request], temperature: float, limit: int) -> list[Generated]:
        end_id, device = self._shared.template.end_id, self._shared.device
        uniforms = _uniforms([request.seed for request in requests], limit).to(device)
        stepper = TokenStepper(self._shared.backbone, direct=self._shared.steps_directly)
        stepper.read([request.prompt for request in requests], pad_id=self._shared.template.pad_id, room=limit)
        responses: list[list[int]] = [[] for _ in requests]
        rows = list(range(len(requests)))  # rows[i] is the request that row i of the batch answers
        for position in range(limit):
            logits = nn.functional.linear(stepper.hidden, self._shared.backbone.head_weight)
            tokens = sample(logits, temperature, uniforms[rows, position])
            for row, token in zip(rows, tokens.tolist(), strict=True):
                if not responses[row] or responses[row][-1] != end_id:
                    responses[row].append(token)
            alive = [index for index, row in enumerate(rows) if responses[row][-1] != end_id]
            if not alive or position == limit - 1:
                break
            if len(alive) <= (1 - _COMPACT_SHARE) * len(rows):
                stepper.keep(alive)
                tokens = tokens[alive]
                rows = [rows[index] for index in alive]
            stepper.step(tokens)
        return [Generated(tuple(ids), ids[-1] == end_id) for ids in responses]


def sample(logits: Tensor, temperature: float, uniform: Tensor) -> Tensor:
    """Draw one token a row by inversion: the first index whose cumulative probability exceeds ``uniform``.

    Args:
        logits: (B, V), any float type.
        temperature: above 0.
        uniform: (B,) in [0, 1).

    Returns:
        (B,) token ids.
    """
    scaled = logits.float() / temperature
    cumulative = torch.softmax(scaled, dim=-1).cumsum(dim=-1)
    total = cumulative[:, -1:]
    # Below the total even where the uniform is rounded to 1: beyond it stand only tokens without probability.
    threshold = torch.minimum(uniform.to(cumulative.dtype)[:, None] * total, total.nextafter(torch.zeros_like(total)))
    return torch.searchsorted(cumulative, threshold, right=True).squeeze(-1)


def _uniforms(seeds: Sequence[int], count: int) -> Tensor:
    rows = [torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in seeds]
    return torch.stack(rows)
