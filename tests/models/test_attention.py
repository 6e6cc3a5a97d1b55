"""Attention of short rows in bfloat16 on a CPU is computed in float32, and nothing else is."""

from typing import Any

import pytest
import torch
from tests.small import random_model
from torch import Tensor

from triphase.models import attention
from triphase.models.backbone import Backbone
from triphase.models.simulated_card import as_on_a_card

IDS = torch.arange(24).reshape(2, 12) % 20 + 3


def seen_dtypes(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    seen: list[torch.dtype] = []
    real = attention.sdpa_attention_forward

    def noted(module: Any, query: Tensor, *given: Any, **options: Any) -> Any:
        seen.append(query.dtype)
        return real(module, query, *given, **options)

    monkeypatch.setattr(attention, "sdpa_attention_forward", noted)
    return seen


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_only_bfloat16_is_widened_and_its_output_has_the_dtype_of_the_model(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model("llama").to(dtype)
    backbone = Backbone(model, adapted_layers=1)
    seen = seen_dtypes(monkeypatch)
    states = backbone.upper(backbone.trunk(IDS))
    assert states.dtype == dtype
    assert seen == ([torch.float32] * backbone.layer_count if dtype == torch.bfloat16 else [])


def test_long_rows_and_a_plan_for_a_card_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = Backbone(random_model("llama").to(torch.bfloat16), adapted_layers=1)
    seen = seen_dtypes(monkeypatch)
    with as_on_a_card():
        backbone.trunk(IDS)
    monkeypatch.setattr(attention, "_LONGEST", 11)
    backbone.trunk(IDS)
    assert set(seen) == {torch.bfloat16}


def test_its_gradients_are_at_least_as_close_to_those_in_float64() -> None:
    draw = torch.Generator().manual_seed(0)
    query, key, value, g = (torch.randn(2, 3, 40, 16, generator=draw).to(torch.bfloat16) for _ in range(4))

    def gradients(dtype: torch.dtype, function: Any) -> list[Tensor]:
        given = [each.to(dtype).requires_grad_() for each in (query, key, value)]
        module = torch.nn.Module()
        mixed = function(module, *given, None, scaling=0.25, is_causal=True)[0]
        assert mixed.dtype == dtype
        return list(torch.autograd.grad(mixed, given, g.transpose(1, 2).to(dtype)))

    exact = gradients(torch.float64, attention.sdpa_attention_forward)
    ours, theirs = (gradients(torch.bfloat16, each) for each in (attention._forward, attention.sdpa_attention_forward))
    for wanted, mine, other in zip(exact, ours, theirs, strict=True):
        assert (mine.double() - wanted).norm() <= 1.05 * (other.double() - wanted).norm()


def test_a_mask_that_is_added_to_the_scores_is_widened_too() -> None:
    model = random_model("llama").to(torch.bfloat16)
    Backbone(model, adapted_layers=1)
    causal = torch.ones(12, 12, dtype=torch.bool).tril().expand(2, 1, 12, 12)
    added = torch.zeros(2, 1, 12, 12, dtype=torch.bfloat16).masked_fill(~causal, torch.finfo(torch.bfloat16).min)
    states = [model.model(input_ids=IDS, attention_mask=mask).last_hidden_state for mask in (None, causal, added)]
    assert torch.equal(states[0], states[1]) and torch.equal(states[0], states[2])


def test_another_attention_is_kept() -> None:
    model = random_model("llama").to(torch.bfloat16)
    model.config._attn_implementation = "eager"
    attention.use_for(model)
    assert model.config._attn_implementation == "eager"
