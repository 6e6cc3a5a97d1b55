"""Generation and scoring with several processes: each rank does its share, and all get the whole.

What depends on the weights alone is divided among ranks. External calls (servers, a function, a judge) are made once,
by rank 0, and the results are sent to the others: no more requests than with one process, and the same responses
everywhere.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from triphase.rewards.types import Answer, Scorer, Scores
from triphase.rollouts.types import AheadGenerator, Generated, Generator, Request
from triphase.training.distributed.types import Strategy


class SharedGenerator:
    """The decode loop of each rank, on its share of the prompts."""

    def __init__(self, inner: Generator, strategy: Strategy, device: torch.device) -> None:
        """``inner`` samples on this rank alone, on ``device``."""
        self._inner = inner
        self._strategy = strategy
        self._device = device

    def generate(self, requests: Sequence[Request], *, temperature: float, max_response_tokens: int) -> list[Generated]:
        """See Generator. A request keeps its seed, whichever rank serves it."""
        mine = self._strategy.mine([len(request.prompt) for request in requests])
        found = self._inner.generate(
            [requests[place] for place in mine], temperature=temperature, max_response_tokens=max_response_tokens
        )
        # A row: its tokens, their number, and whether the last of them is the end token.
        rows = torch.zeros((len(requests), max_response_tokens + 2), dtype=torch.int64)
        for place, each in zip(mine, found, strict=True):
            rows[place, : len(each.ids)] = torch.tensor(each.ids)
            rows[place, -2:] = torch.tensor([len(each.ids), int(each.finished)])
        rows = rows.to(self._device)
        self._strategy.sum_tensors([rows])
        return [Generated(tuple(row[: row[-2]]), bool(row[-1])) for row in rows.tolist()]


class LedGenerator:
    """Generation servers that rank 0 calls."""

    def __init__(self, inner: Generator | None, strategy: Strategy) -> None:
        """``inner`` calls the servers; only rank 0 has it."""
        self._inner = inner
        self._strategy = strategy

    def generate(self, requests: Sequence[Request], *, temperature: float, max_response_tokens: int) -> list[Generated]:
        """See Generator."""

        def asked() -> list[Generated]:
            assert self._inner is not None  # noqa: S101 - rank 0 has it
            return self._inner.generate(requests, temperature=temperature, max_response_tokens=max_response_tokens)

        return self._sent(asked)

    def begin(
        self, requests: Sequence[Request], *, temperature: float, max_response_tokens: int
    ) -> Callable[[], list[Generated]]:
        """See AheadGenerator."""
        if self._inner is None:
            return lambda: self._sent(list)
        assert isinstance(self._inner, AheadGenerator)  # noqa: S101 - servers
        result = self._inner.begin(requests, temperature=temperature, max_response_tokens=max_response_tokens)
        return lambda: self._sent(result)

    def _sent(self, found: Callable[[], list[Generated]]) -> list[Generated]:
        """The responses of rank 0, on every rank."""

        def plain() -> list[Any]:
            return [[list(each.ids), each.finished, each.logprobs and list(each.logprobs)] for each in found()]

        return [
            Generated(tuple(ids), finished, logprobs and tuple(logprobs))
            for ids, finished, logprobs in self._strategy.from_lead(plain)
        ]


class LedScorer(Scorer):
    """The scorer of rank 0, whose scores all ranks get."""

    def __init__(self, inner: Scorer | None, shares: Sequence[Scorer], strategy: Strategy) -> None:
        """``inner`` scores on rank 0, which alone has it; ``shares`` are the reward models inside it, on the other
        ranks: each scores its rank's share of the responses that ``inner`` passes to it."""
        self._inner, self._shares, self._strategy = inner, shares, strategy
        told = strategy.from_lead(lambda: [_known(inner).name, _known(inner).calibrated])
        self.name, self.calibrated = str(told[0]), bool(told[1])

    def score(self, answers: Sequence[Answer]) -> Scores:
        """See Scorer."""
        for share in self._shares:
            share.score(answers)

        def scored() -> list[Any]:
            found = _known(self._inner).score(answers)
            return [found.total, dict(found.parts), dict(found.monitors)]

        total, *beside = self._strategy.from_lead(scored)
        parts, monitors = ({name: tuple(values) for name, values in each.items()} for each in beside)
        return Scores(tuple(total), parts, monitors)


def _known(scorer: Scorer | None) -> Scorer:
    assert scorer is not None  # noqa: S101 - rank 0 has it
    return scorer
