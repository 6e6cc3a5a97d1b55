"""The trunk states of prompts and responses, recorded while the responses are sampled.

No adapter changes the trunk, so its state of a token is the same in sampling and in training. Decoding computes it for
each token but the last one of a response, which predicts nothing: a finished row therefore processes its last token,
too, before it leaves the batch.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from triphase.batches.transfers import index_on
from triphase.models.backbone import Backbone
from triphase.models.direct import FastDecoder
from triphase.rollouts.types import Generated, Generator, Request


@runtime_checkable
class TrunkGenerator(Generator, Protocol):
    """A generator that computes, while it samples, what training needs of the frozen trunk."""

    def generate_with_trunk(
        self, requests: Sequence[Request], *, temperature: float, max_response_tokens: int
    ) -> tuple[list[Generated], Tensor | None]:
        """`generate`, and (N, L, d) the trunk states of each prompt and its response, 0 after them; None if these
        are not at hand."""
        ...


class TrunkRecord:
    """The states of each request, read from the stepper that samples.

    Attributes:
        values: (N, L, d) of N requests: the tokens of the prompt and those of the response, then 0.
    """

    def __init__(self, stepper: FastDecoder, values: Tensor) -> None:
        self._stepper, self.values = stepper, values
        stepper.keeps_boundary = True

    @classmethod
    def of(cls, stepper: FastDecoder, backbone: Backbone, requests: Sequence[Request], limit: int) -> Self:
        """Room for these requests, each with a response of at most ``limit`` tokens."""
        length = max(len(request.prompt) for request in requests) + limit
        shape = (len(requests), length, backbone.hidden_size)
        return cls(stepper, torch.zeros(shape, dtype=backbone.dtype, device=backbone.device))

    def add_prompts(self, requests: Sequence[int]) -> None:
        """The stepper has processed the prompts of the requests with these numbers."""
        for request, states in zip(requests, self._stepper.read_boundary, strict=True):
            self.values[request, : len(states)] = states

    def step(self, tokens: Tensor, new: Mapping[int, tuple[int, int]], *, ends: bool) -> None:
        """The stepper processes (B,) a token of each row; ``ends``: no row needs another one.

        ``new`` are the rows whose token is new: the request of each, and the token's place in it.
        """
        if ends:
            self._stepper.step_trunk(tokens)
        else:
            self._stepper.step(tokens)
        requests, places, rows = (
            index_on(each, self.values.device) for each in (*zip(*new.values(), strict=True), list(new))
        )
        self.values[requests, places] = self._stepper.boundary[rows].to(self.values.dtype)
