"""Sampling on a GPU as it is planned: captured rows, some of which stay, whatever processor the plan is made on."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.planning.test_footprint import PROMPT, RESPONSE, model, moment, planned, run_settings, tokens
from tests.planning.test_footprint import planner as on_processor

from triphase.footprints.cost import CostModel
from triphase.footprints.moments import CACHE, KEPT_ROWS
from triphase.footprints.work import Work
from triphase.footprints.workload import Lengths
from triphase.models.roles import REFERENCE
from triphase.models.simulated_card import as_on_a_card
from triphase.models.tracing import Meter
from triphase.phases.ppo_footprint import ppo_footprint
from triphase.phases.sampling_footprint import sampling_footprint
from triphase.rollouts.drawing import draws, sample
from triphase.rollouts.types import Request
from triphase.rollouts.writing import KEPT_SHARE, CapturedWriter
from triphase.settings.schema import RunSettings


def planner(
    settings: RunSettings, *, card_bytes: float = 0.0, dtype: torch.dtype = torch.float32, prompt: int = PROMPT
) -> CostModel:
    config = model().backbone.model.config
    work = Work(config, dtype, settings.adapters, recompute=False, trusted=False, on_card=True)
    prompts = Lengths([(prompt,)] * 64, 64)
    load = replace(on_processor(settings, model()).load, prompts=prompts)
    return CostModel(settings, work, load, process_bytes=0.0, card_bytes=card_bytes)


def test_it_needs_what_captured_rows_allocate() -> None:
    """Prompts are read next to the reserved rows, 8192 tokens at once."""
    settings, length = run_settings(sampling={"batch_size": 64, "max_response_tokens": RESPONSE}), 100
    shared = model()
    shared.adapters.add(REFERENCE)
    writer = CapturedWriter(shared, choose=sample, draws=draws, record=None)
    requests = [Request(tokens(length, n), n) for n in range(64)]
    with as_on_a_card(), Meter() as meter:
        writer.write(requests, batch_size=64, temperature=1.0, limit=RESPONSE)
    found = sampling_footprint(planner(settings, prompt=length))
    assert max(planned(found, each.name) for each in found.moments) == pytest.approx(meter.peak, rel=0.15)


@pytest.mark.parametrize("is_fast", [True, False])
def test_it_does_not_depend_on_the_processor(is_fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triphase.models.products.prefers_bfloat16", lambda device_type: is_fast)
    wide, narrow = (
        moment(sampling_footprint(planner(run_settings(), dtype=dtype)), "sampling").parts[CACHE]
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert narrow == pytest.approx(wide / 2, rel=0.05)


def kept(card_bytes: float, model_changes: dict[str, Any] | None = None) -> dict[str, float]:
    """The bytes of rows that stay after sampling, at each later moment of PPO."""
    settings = run_settings(model={"name": "small", "dtype": "float32", **(model_changes or {})})
    found = ppo_footprint(planner(settings, card_bytes=card_bytes), None)
    assert not any(each.parts.get(KEPT_ROWS) for each in found.moments if each.parts.get(CACHE))
    return {each.name: each.parts.get(KEPT_ROWS, 0.0) for each in found.moments if not each.parts.get(CACHE)}


def test_rows_that_stay_are_in_memory_in_scoring_and_updates() -> None:
    cache = moment(ppo_footprint(planner(run_settings()), None), "sampling").parts[CACHE]
    enough = cache / KEPT_SHARE
    later = {"scoring", "update", "optimizer step", "checkpoint"}
    assert kept(enough) == dict.fromkeys(later, cache)
    assert kept(0.99 * enough) == kept(enough, {"capture_decoding": "off"}) == dict.fromkeys(later, 0.0)
    rested = kept(enough, {"offload": True})  # they are released before the updates
    assert rested.pop("scoring") == cache and not any(rested.values())
    assert not any(
        moment.parts.get(KEPT_ROWS) for moment in ppo_footprint(on_processor(run_settings(), model()), None).moments
    )
