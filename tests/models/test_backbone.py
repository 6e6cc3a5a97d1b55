"""The divided decoder is the undivided one, bit for bit; what stands at padding changes nothing."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.small import random_model, samples

from triphase.batches.padding import Layout, pad_batch
from triphase.errors import ModelError
from triphase.models.adapters import Adapters
from triphase.models.backbone import Backbone
from triphase.models.language_head import logit_map_of

LAYERS = 4
FAMILIES = {
    "llama": ("llama", {}),
    "llama with a head of its own": ("llama", {"tie_word_embeddings": False}),
    "mistral": ("mistral", {}),
    "mistral with a window": ("mistral", {"sliding_window": 4}),
    "qwen2": ("qwen2", {}),
    "qwen2 with windows above": ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}),
    "qwen3": ("qwen3", {}),
    "gemma": ("gemma", {}),
    "gemma3": ("gemma3_text", {"sliding_window": 4}),
    "smollm3, some layers without positions": ("smollm3", {}),
}


def ids(rows: int = 3, length: int = 14) -> torch.Tensor:
    return torch.randint(3, 26, (rows, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("trunk", range(LAYERS))
@pytest.mark.parametrize(("kind", "config"), FAMILIES.values(), ids=FAMILIES.keys())
def test_trunk_and_upper_layers_are_the_model_bit_for_bit(kind: str, config: dict[str, Any], trunk: int) -> None:
    model = random_model(kind, layers=LAYERS, **config)
    backbone = Backbone(model, adapted_layers=LAYERS - trunk)
    assert (backbone.trunk_layers, backbone.layer_count) == (trunk, LAYERS)
    with torch.no_grad():
        divided = backbone.upper(backbone.trunk(ids()))
        whole = model(input_ids=ids(), use_cache=False, output_hidden_states=True)
    assert torch.equal(divided, whole.hidden_states[-1])
    assert torch.equal(torch.nn.functional.linear(divided, backbone.head_weight), whole.logits)
    assert torch.equal(backbone.whole(ids()), divided)


def test_the_boundary_is_the_hidden_state_below_the_first_adapted_layer() -> None:
    model = random_model()
    with torch.no_grad():
        states = model(input_ids=ids(), use_cache=False, output_hidden_states=True).hidden_states
        for trunk in range(LAYERS):
            assert torch.equal(Backbone(model, adapted_layers=LAYERS - trunk).trunk(ids()), states[trunk])


def test_all_layers_are_adapted_by_default_and_where_more_are_asked_for_than_there_are() -> None:
    assert Backbone(random_model(), adapted_layers=None).trunk_layers == 0
    assert Backbone(random_model(), adapted_layers=LAYERS + 1).trunk_layers == 0
    assert Backbone(random_model(), adapted_layers=LAYERS - 1).trunk_layers == 1


def test_both_parts_share_the_models_own_modules() -> None:
    model = random_model()
    backbone = Backbone(model, adapted_layers=2)
    before = backbone.upper(backbone.trunk(ids()))
    with torch.no_grad():
        for layer in (model.model.layers[0], model.model.layers[3]):
            layer.mlp.down_proj.weight.mul_(1.5)
    assert not torch.equal(backbone.upper(backbone.trunk(ids())), before)
    assert torch.equal(backbone.upper(backbone.trunk(ids())), model.model(input_ids=ids()).last_hidden_state)


CHANGED = {
    "positions added to the embeddings": ("gpt2", {"n_embd": 32, "n_head": 4}),
    "embeddings scaled inside": ("granite", {"embedding_multiplier": 3.0}),
    "embeddings normed inside": ("bloom", {"n_head": 4}),
}


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(("kind", "config"), CHANGED.values(), ids=CHANGED.keys())
def test_what_the_decoder_does_to_its_input_is_not_done_twice(
    kind: str, config: dict[str, Any], recompute: bool
) -> None:
    model = random_model(kind, **config)
    backbone = Backbone(model, adapted_layers=2, recompute_activations=recompute)
    with torch.no_grad():
        whole = model(input_ids=ids(), use_cache=False, output_hidden_states=True)
    boundary = backbone.trunk(ids())
    assert torch.equal(boundary, whole.hidden_states[2])
    assert torch.equal(backbone.upper(boundary), whole.hidden_states[-1])
    # The boundary is that of the call, in the backward pass too.
    adapted = Adapters(backbone, rank=2, alpha=2.0, targets="all-linear", seed=0)
    adapted.add("one")
    adapted.activate("one")
    adapted.train_only("one")
    loss = backbone.upper(boundary).square().sum()
    backbone.upper(torch.zeros_like(boundary))
    loss.backward()
    plain = Backbone(random_model(kind, **config), adapted_layers=None)
    reference = Adapters(plain, rank=2, alpha=2.0, targets="all-linear", seed=0)
    reference.add("one")
    same = reference.parameters("one")
    for name, parameter in adapted.parameters("one").items():
        same[name].data.copy_(parameter.data)
    reference.activate("one")
    reference.train_only("one")
    plain.whole(ids()).square().sum().backward()
    for name, parameter in adapted.parameters("one").items():
        assert parameter.grad is not None and same[name].grad is not None
        assert torch.allclose(parameter.grad, same[name].grad, rtol=1e-4, atol=1e-3)


def test_a_head_that_is_none_of_those_that_are_known_is_refused() -> None:
    model = random_model()
    own = model.forward

    def squared(**given: Any) -> Any:
        output = own(**given)
        output.logits = output.logits.square()
        return output

    model.forward = squared
    with pytest.raises(ModelError, match="head of LlamaForCausalLM is not a linear layer with an optional bias"):
        Backbone(model, adapted_layers=None)


HEADS = {
    "a cap": ("gemma2", {"final_logit_softcapping": 2.0}, {"cap": 3.0}),
    "a scale": ("cohere", {"logit_scale": 0.3}, {"scale": 0.32}),
    "a divisor": ("granite", {"logits_scaling": 3.0}, {"scale": 0.32}),
    "a bias": ("phi", {}, {"bias": torch.zeros(26)}),
}


@pytest.mark.parametrize(("kind", "config", "other"), HEADS.values(), ids=HEADS.keys())
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_a_head_is_accepted_and_a_wrong_one_refused(
    kind: str, config: dict[str, Any], other: dict[str, Any], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model(kind, layers=1, **config).to(dtype)
    Backbone(model, adapted_layers=None)
    wrong = replace(logit_map_of(model), **other)
    monkeypatch.setattr("triphase.models.backbone.logit_map_of", lambda _: wrong)
    with pytest.raises(ModelError, match="is not a linear layer with an optional bias"):
        Backbone(model, adapted_layers=None)


def test_what_is_no_decoder_is_refused() -> None:
    with pytest.raises(ModelError, match="BertModel has no list of layers"):
        Backbone(random_model("bert", is_decoder=True), adapted_layers=None)


# Padding


@pytest.mark.parametrize("pad_id", [1, 2, 9])
def test_what_stands_at_padding_changes_nothing_at_all(pad_id: int) -> None:
    backbone = Backbone(random_model(), adapted_layers=2)
    plain, other = (pad_batch(samples(5), pad_id=which) for which in (0, pad_id))
    mask = plain.attention_mask
    with torch.no_grad():
        found = [backbone.upper(backbone.trunk(batch.input_ids))[mask] for batch in (plain, other)]
    assert torch.equal(*found)


@pytest.mark.parametrize(("kind", "config"), FAMILIES.values(), ids=FAMILIES.keys())
def test_padding_and_neighbors_change_nothing_but_rounding(kind: str, config: dict[str, Any]) -> None:
    backbone = Backbone(random_model(kind, **config), adapted_layers=2)
    made = samples(6)
    with torch.no_grad():
        batch = pad_batch(made, pad_id=0)
        together = backbone.upper(backbone.trunk(batch.input_ids))
        for row, sample in enumerate(made):
            alone = pad_batch([sample], pad_id=0)
            expected = backbone.upper(backbone.trunk(alone.input_ids))[0]
            assert torch.allclose(together[row, : sample.length], expected, rtol=0, atol=1e-5)


# Several responses in one row behind their prompt

PACKS = {
    "llama": ("llama", {}, True),
    "qwen3": ("qwen3", {}, True),
    "gemma": ("gemma", {}, True),
    "a window": ("mistral", {"sliding_window": 4}, False),
    "windows in some layers": ("gemma3_text", {}, False),
    "positions counted by the attention": ("mpt", {"d_model": 32, "n_heads": 4, "n_layers": 4}, False),
    "a mask of another form": ("bloom", {"n_head": 4}, False),
    "a mask that is added": ("llama", {"attn_implementation": "eager"}, False),
}


@pytest.mark.parametrize(("kind", "config", "packs"), PACKS.values(), ids=PACKS.keys())
def test_responses_share_a_row_only_where_the_model_keeps_them_apart(
    kind: str, config: dict[str, Any], packs: bool
) -> None:
    backbone = Backbone(random_model(kind, **config), adapted_layers=None)
    assert backbone.packs is packs
    if packs:  # on longer rows than the backbone looked at
        own = ids(2, 12)
        own[1, :6] = own[0, :6]
        row = torch.cat([own[0], own[1, 6:]])[None]
        sees = torch.ones((18, 18), dtype=torch.bool).tril()
        sees[12:, 6:12] = False
        layout = Layout(torch.tensor([[*range(12), *range(6, 12)]]), sees[None, None])
        with torch.no_grad():
            packed = backbone.upper(backbone.trunk(row, layout), layout)[0]
            apart = backbone.upper(backbone.trunk(own))
        assert torch.allclose(packed, torch.cat([apart[0], apart[1, 6:]]), rtol=0, atol=1e-5)
