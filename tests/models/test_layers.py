"""The last layer for chosen tokens gives the states that it gives them among all, and the same gradients."""

from typing import Any

import pytest
import torch
from tests.models.test_backbone import FAMILIES, ids
from tests.small import random_model

from triphase.batches.padding import Layout
from triphase.models.backbone import Backbone
from triphase.models.layers import LastLayer

# Rows in no order, one token twice, a first and a last one.
AT = (torch.tensor([2, 0, 0, 1, 1, 2]), torch.tensor([13, 0, 5, 7, 7, 1]))


def plain(backbone: Backbone, boundary: torch.Tensor, layout: Layout | None = None) -> torch.Tensor:
    return backbone.upper(boundary, layout)[AT]


@pytest.mark.parametrize(("kind", "config"), FAMILIES.values(), ids=FAMILIES.keys())
def test_chosen_tokens_get_their_states_and_gradients(kind: str, config: dict[str, Any]) -> None:
    backbone = Backbone(random_model(kind, layers=4, **config), adapted_layers=2)
    assert backbone.chooses == (kind != "gemma3_text")
    assert backbone.upper(backbone.trunk(ids())).shape == (3, 14, backbone.hidden_size)
    found = []
    for states in (lambda x: backbone.upper(x, at=AT), lambda x: plain(backbone, x)):
        boundary = backbone.trunk(ids()).requires_grad_()
        hidden = states(boundary)
        (hidden * torch.linspace(-1, 1, hidden.numel()).view_as(hidden)).sum().backward()
        found.append((hidden.detach(), boundary.grad))
    assert torch.allclose(found[0][0], found[1][0], rtol=1e-5, atol=1e-5)
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-5, atol=1e-5)
    assert torch.equal(backbone.whole(ids())[AT], found[1][0])
    assert torch.allclose(backbone.whole(ids(), at=AT), found[1][0], rtol=1e-5, atol=1e-5)


def test_a_layout_holds_for_chosen_tokens_too() -> None:
    backbone = Backbone(random_model(), adapted_layers=2)
    sees = torch.ones((14, 14), dtype=torch.bool).tril()
    sees[8:, 4:8] = False
    layout = Layout(torch.tensor([[*range(8), *range(4, 10)]]).expand(3, -1), sees.expand(3, 1, -1, -1))
    boundary = backbone.trunk(ids(), layout)
    assert torch.allclose(backbone.upper(boundary, layout, at=AT), plain(backbone, boundary, layout), atol=1e-5)
    assert not torch.allclose(backbone.upper(boundary, at=AT), plain(backbone, boundary, layout), atol=1e-3)


def test_the_layer_computes_its_projection_and_mlp_for_chosen_tokens_alone() -> None:
    backbone = Backbone(random_model(), adapted_layers=2)
    seen: dict[str, list[int]] = {}
    for name in ("self_attn.k_proj", "self_attn.o_proj", "mlp.up_proj"):
        for number in (2, 3):
            module = backbone.layers[number].get_submodule(name)
            module.register_forward_hook(
                lambda _m, given, _o, key=name: seen.setdefault(key, []).append(given[0].shape[:-1].numel())
            )
    backbone.upper(backbone.trunk(ids()), at=AT)
    assert seen == {"self_attn.k_proj": [42, 42], "self_attn.o_proj": [42, 6], "mlp.up_proj": [42, 6]}


def test_a_layer_of_the_same_shape_that_computes_otherwise_is_found_out() -> None:
    config = {"residual_multiplier": 0.5, "embedding_multiplier": 1.0, "logits_scaling": 1.0}
    backbone = Backbone(random_model("granite", layers=4, **config), adapted_layers=2)
    assert not backbone.chooses
    boundary = backbone.trunk(ids())
    assert torch.equal(backbone.upper(boundary, at=AT), plain(backbone, boundary))


def test_the_choice_ends_with_the_call() -> None:
    layer = LastLayer(torch.nn.Identity())
    with layer.selecting(AT):
        again = layer.as_now()
        assert layer.at is AT
    assert layer.at is None
    with again:
        assert layer.at is AT
    assert layer.at is None
