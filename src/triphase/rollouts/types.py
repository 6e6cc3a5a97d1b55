"""Input and output of generation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Request:
    """One response to be sampled: the prompt's token ids, and its own seed.

    The response depends on these two (and the policy), not on what is sampled in the same batch.
    """

    prompt: tuple[int, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Generated:
    """A sampled response. ``finished`` says whether the end token was sampled; it is then the last of ``ids``.

    ``logprobs`` are those of its tokens under the sampling distribution, as computed by the sampler, if its arithmetic
    differs from the trainer's.
    """

    ids: tuple[int, ...]
    finished: bool
    logprobs: tuple[float, ...] | None = None


class Generator(Protocol):
    """Anything that samples responses: the decode loop in this process, or a server."""

    def generate(self, requests: Sequence[Request], *, temperature: float, max_response_tokens: int) -> list[Generated]:
        """One response for each request, in order."""
        ...


@runtime_checkable
class AheadGenerator(Generator, Protocol):
    """A generator that samples elsewhere, so that this process may train meanwhile."""

    def begin(
        self, requests: Sequence[Request], *, temperature: float, max_response_tokens: int
    ) -> Callable[[], list[Generated]]:
        """Begin to sample from the policy as it is now; the result waits for the responses, and returns them in order.

        Nothing else may be begun or generated before the result was called.
        """
        ...
