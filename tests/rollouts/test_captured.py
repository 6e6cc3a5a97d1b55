"""The step that a card captures, run on the processor: the tokens are those of the plain decode loop."""

import random
from typing import Any

import pytest
import torch
from tests.small import shared_model, stir

from triphase.models.direct import DirectStepper
from triphase.rollouts.captured import CapturedRows, write_captured
from triphase.rollouts.decoding import LocalGenerator, _draws, sample
from triphase.rollouts.types import Request

ADAPTER = "policy"


def requests(count: int) -> list[Request]:
    draw = random.Random(0)
    return [Request(tuple(draw.randrange(6, 26) for _ in range(draw.randint(1, 9))), seed) for seed in range(count)]


def shared() -> Any:
    made = shared_model("qwen3")
    stir(made, ADAPTER)
    return made


def captured(made: Any, asked: list[Request], *, batch_size: int, limit: int, temperature: float = 1.0) -> Any:
    told: list[int] = []
    with made.role(ADAPTER):
        found = write_captured(
            made,
            asked,
            _draws,
            batch_size=batch_size,
            temperature=temperature,
            limit=limit,
            choose=sample,
            on_finished=told.append,
        )
    assert sum(told) == len(asked)
    return [tuple(ids) for ids in found]


@pytest.mark.parametrize("batch_size", [1, 3, 8, 40])
@pytest.mark.parametrize("limit", [1, 8, 13])
def test_the_tokens_are_those_of_the_decode_loop(batch_size: int, limit: int) -> None:
    made, asked = shared(), requests(21)
    plain = LocalGenerator(made, adapter=ADAPTER, batch_size=5)
    expected = plain.generate(asked, temperature=0.9, max_response_tokens=limit)
    found = captured(made, asked, batch_size=batch_size, limit=limit, temperature=0.9)
    assert found == [each.ids for each in expected]
    assert len({len(ids) for ids in found}) > 1 or limit == 1  # rows leave at different times


def test_rows_without_a_token_of_their_own_stay_as_they_are() -> None:
    """What a finished row reads on the way changes neither it nor the others."""
    made, asked = shared(), requests(4)
    with made.role(ADAPTER), torch.no_grad():
        rows = CapturedRows(
            made, DirectStepper(made.backbone), 4, capacity=30, limit=12, temperature=1.0, choose=sample
        )
        reader = DirectStepper(made.backbone)
        reader.read([each.prompt for each in asked], pad_id=0, room=0)
        rows.put(range(4), reader, torch.stack([_draws(each.seed, 12) for each in asked]))
        rows.advance(12)
        written, counts = rows.written.clone(), rows.counts.clone()
        assert rows.ended.all()
        rows.advance(9)
    assert torch.equal(rows.written, written)
    assert torch.equal(rows.counts, counts)
