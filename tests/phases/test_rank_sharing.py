"""Two ranks sample together: each its own share, and both know all responses in the order of the requests."""

import json
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from triphase.phases.rank_sharing import LedGenerator, LedScorer, SharedGenerator
from triphase.records.types import Prompt
from triphase.rewards.model import ModelScorer
from triphase.rewards.types import Answer, Answers
from triphase.rollouts.types import Generated, Request
from triphase.training.distributed.types import Strategy

REQUESTS = [Request((3, 4), seed=seed) for seed in range(3)]
ANSWERS = [Generated((7, 8, 9), False), Generated((1,), True), Generated((5, 2), True)]


class Echo:
    """Answers by the request's seed."""

    def generate(self, requests: Sequence[Request], *, temperature: float, max_response_tokens: int) -> list[Generated]:
        return [ANSWERS[request.seed] for request in requests]

    def begin(
        self, requests: Sequence[Request], *, temperature: float, max_response_tokens: int
    ) -> Callable[[], list[Generated]]:
        return lambda: self.generate(requests, temperature=temperature, max_response_tokens=max_response_tokens)


class Half(Strategy):
    """One of two ranks, which takes ``own``."""

    world = 2

    def __init__(self, own: list[int], meet: Callable[[Tensor], None]) -> None:
        self._own, self._meet = own, meet

    def mine(self, costs: Sequence[int], owners: Sequence[int] | None = None) -> list[int]:
        return self._own

    def sum_tensors(self, tensors: Sequence[Tensor]) -> None:
        (rows,) = tensors
        self._meet(rows)


def test_each_rank_answers_its_share_and_knows_all() -> None:
    sent: list[Tensor] = []

    def sample(own: list[int], meet: Callable[[Tensor], None]) -> list[Generated]:
        together = SharedGenerator(Echo(), Half(own, meet), torch.device("cpu"))
        return together.generate(REQUESTS, temperature=1.0, max_response_tokens=3)

    alone = sample([1], lambda rows: sent.append(rows.clone()))
    assert alone == [Generated((), False), ANSWERS[1], Generated((), False)]
    found = sample([0, 2], lambda rows: rows.add_(sent[0]))
    assert [(each.ids, each.finished) for each in found] == [(each.ids, each.finished) for each in ANSWERS]


def test_rank_0_asks_the_servers_and_both_know_all() -> None:
    class Told(Half):
        def from_lead(self, value: Callable[[], Any]) -> Any:
            return json.loads(json.dumps(value())) if self.rank == 0 else told

    lead, other = Told([], list.append), Told([], list.append)
    lead.rank, other.rank = 0, 1
    answers = [Generated((7, 8), True, (-0.5, -1.0)), Generated((), False)]
    servers = SimpleNamespace(generate=lambda requests, **_: answers[: len(requests)])
    told = [[[7, 8], True, [-0.5, -1.0]], [[], False, None]]
    for generator in (LedGenerator(servers, lead), LedGenerator(None, other)):
        found = generator.generate(REQUESTS[:2], temperature=1.0, max_response_tokens=3)
        assert [(each.ids, each.finished, each.logprobs) for each in found] == [
            ((7, 8), True, (-0.5, -1.0)),
            ((), False, None),
        ]


def test_what_the_first_rank_has_begun_both_know_when_they_need_it() -> None:
    sent: list[str] = []

    class Told(Strategy):
        world = 2

        def __init__(self, rank: int) -> None:
            self.rank = rank

        def from_lead(self, make: Callable[[], Any]) -> Any:
            if self.is_lead:
                sent.append(json.dumps(make()))
            return json.loads(sent[-1])

    ranks = [LedGenerator(Echo() if rank == 0 else None, Told(rank)) for rank in range(2)]
    begun = [each.begin(REQUESTS, temperature=1.0, max_response_tokens=3) for each in ranks]
    assert not sent
    assert [result() for result in begun] == [ANSWERS, ANSWERS] and len(sent) == 1


def test_a_rank_scores_its_share_once_rank_0_does() -> None:
    """Rank 0 may ask a server or a function first, for longer than ranks wait for each other in a step."""
    events: list[str] = []

    class Told(Half):
        rank = 1

        def from_lead(self, make: Callable[[], Any]) -> Any:
            events.append("rank 0")
            return ["a sum", False] if len(events) == 1 else [[0.5], {}, {}]

    def parts() -> Iterator[Any]:
        events.append("share")
        return iter(())

    shared: Any = SimpleNamespace(device=torch.device("cpu"), ensemble=None, witness=None)
    ranks = Told([], lambda rows: events.append("sum"))
    scorer = LedScorer(None, [ModelScorer(shared, strategy=ranks)], ranks)
    answer = Answer(Prompt("p", ()), "an answer", finished=True)
    assert scorer.score(Answers((answer,), parts)).total == (0.5,)
    assert events == ["rank 0", "rank 0", "share", "sum", "rank 0"]  # of the first the name
