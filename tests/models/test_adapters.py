"""Adapters against peft, and against each other."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.small import random_model, samples, shared_model, stir

from triphase.batches.padding import pad_batch
from triphase.errors import ModelError
from triphase.models.lora import LoraLinear
from triphase.models.roles import POLICY, REFERENCE, REWARD, SharedModel

# peft asks transformers for a name that it is about to drop.
PEFT_IS_BEHIND = "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
BATCH = pad_batch(samples(5), pad_id=0)


def hidden(shared: SharedModel, adapter: str | None) -> torch.Tensor:
    with shared.role(adapter):
        return shared.backbone.upper(shared.trunk(BATCH))


def test_a_low_rank_update_by_hand() -> None:
    # x = (1, 2), W = I, A = (3, -1), B = (2, 5), alpha/rank = 4: x·Aᵀ = 1, times B = (2, 5), times 4 = (8, 20).
    base = torch.nn.Linear(2, 2, bias=False).requires_grad_(False)
    base.weight.copy_(torch.eye(2))
    layer = LoraLinear(base, rank=1, alpha=4.0)
    layer.add("x", torch.Generator(), torch.device("cpu"))
    with torch.no_grad():
        layer.lora_a["x"].copy_(torch.tensor([[3.0, -1.0]]))
        layer.lora_b["x"].copy_(torch.tensor([[2.0], [5.0]]))
    x = torch.tensor([[1.0, 2.0]])
    assert layer(x).tolist() == [[1.0, 2.0]]
    layer.active = "x"
    assert layer(x).tolist() == [[9.0, 22.0]]


@pytest.mark.filterwarnings(PEFT_IS_BEHIND)
@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma"])  # qwen2 has biases
@pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "down_proj")])
def test_outputs_and_gradients_are_those_of_peft(kind: str, targets: tuple[str, ...] | str) -> None:
    shared = shared_model(kind, adapted=2) if targets == "all-linear" else _targeting(kind, targets)
    stir(shared, POLICY)
    shared.adapters.train_only(POLICY)
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=list(shared.adapters.targets),
        layers_to_transform=[2, 3],
        layers_pattern="layers",
        task_type="CAUSAL_LM",
    )
    theirs = get_peft_model(random_model(kind), config)
    named = {name.replace(".default", ""): parameter for name, parameter in theirs.named_parameters()}
    ours = shared.adapters.parameters(POLICY)
    assert set(ours) == {name for name in named if "lora_" in name}
    with torch.no_grad():
        for name, parameter in ours.items():
            named[name].copy_(parameter)

    expected = theirs.base_model.model.model(input_ids=BATCH.input_ids, use_cache=False).last_hidden_state
    found = hidden(shared, POLICY)
    assert torch.allclose(found, expected, rtol=0, atol=1e-5)
    assert not torch.allclose(found, hidden(shared, None), atol=0.1)

    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(2))
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    for name, parameter in ours.items():
        assert torch.allclose(
            parameter.grad, named[name].grad, rtol=1e-5, atol=1e-5 * float(parameter.grad.abs().max())
        )


def _targeting(kind: str, targets: tuple[str, ...]) -> SharedModel:
    from tests.small import tokenizer

    from triphase.models.loading import LoadedModel
    from triphase.settings.schema import AdapterSettings

    loaded = LoadedModel(random_model(kind), tokenizer(), "small")
    return SharedModel(loaded, AdapterSettings(layers=2, rank=4, alpha=8, targets=targets), seed=0)


def test_only_the_chosen_maps_of_the_chosen_layers_are_adapted() -> None:
    shared = _targeting("llama", ("q_proj", "down_proj"))
    shared.adapters.add(POLICY)
    names = {name.removeprefix("base_model.model.model.layers.") for name in shared.adapters.parameters(POLICY)}
    places = [f"{layer}.{path}" for layer in (2, 3) for path in ("self_attn.q_proj", "mlp.down_proj")]
    assert names == {f"{place}.lora_{which}.weight" for place in places for which in "AB"}


def test_a_target_that_the_layers_do_not_have_is_refused_with_those_they_have() -> None:
    with pytest.raises(ModelError, match=r"adapters.targets has c_attn, .* they have down_proj, gate_proj, .*v_proj"):
        _targeting("llama", ("q_proj", "c_attn"))


# A fresh adapter


def test_a_fresh_adapter_changes_not_one_bit() -> None:
    shared = shared_model()
    shared.adapters.add(REFERENCE)
    assert torch.equal(hidden(shared, REFERENCE), hidden(shared, None))
    plain = random_model()
    assert torch.equal(hidden(shared, None), plain.model(input_ids=BATCH.input_ids).last_hidden_state)


def test_its_start_is_that_of_peft_and_follows_from_the_seed() -> None:
    shared = shared_model(rank=64, hidden_size=128, intermediate_size=96)
    shared.adapters.add(REFERENCE)
    state = shared.adapters.state(REFERENCE)
    for name, tensor in state.items():
        if "lora_B" in name:
            assert not tensor.any()
        else:  # uniform in ±1/√in: deviation 1/√(3·in)
            width = tensor.shape[1]
            assert float(tensor.abs().max()) <= width**-0.5
            assert float(tensor.std()) == pytest.approx((3 * width) ** -0.5, rel=0.05)
    again = shared_model(rank=64, hidden_size=128, intermediate_size=96)
    again.adapters.add(POLICY)
    assert all(torch.equal(again.adapters.state(POLICY)[name], tensor) for name, tensor in state.items())
    other = shared_model(rank=64, hidden_size=128, intermediate_size=96, seed=1)
    other.adapters.add(POLICY)
    assert any(not torch.equal(other.adapters.state(POLICY)[name], tensor) for name, tensor in state.items())


# Several adapters


def test_training_one_adapter_leaves_the_others_and_the_base_as_they_were() -> None:
    shared = shared_model()
    for number, adapter in enumerate((REFERENCE, POLICY, REWARD)):
        stir(shared, adapter, seed=number)
    frozen = {name: parameter.detach().clone() for name, parameter in shared.backbone.model.named_parameters()}
    before = {adapter: shared.adapters.state(adapter) for adapter in (REFERENCE, POLICY, REWARD)}
    shared.adapters.train_only(POLICY)
    optimizer = torch.optim.AdamW(shared.backbone.model.parameters(), lr=0.1)
    hidden(shared, POLICY).square().sum().backward()
    optimizer.step()
    for adapter in (REFERENCE, REWARD):
        assert all(torch.equal(shared.adapters.state(adapter)[name], old) for name, old in before[adapter].items())
    assert all(not torch.equal(shared.adapters.state(POLICY)[name], old) for name, old in before[POLICY].items())
    moved = {
        name for name, parameter in shared.backbone.model.named_parameters() if not torch.equal(parameter, frozen[name])
    }
    assert moved and all("lora_" in name and name.endswith(f".{POLICY}") for name in moved)


def test_a_state_is_a_copy_and_loading_one_makes_equal_adapters() -> None:
    shared = shared_model()
    stir(shared, REFERENCE)
    shared.adapters.load(POLICY, shared.adapters.state(REFERENCE))
    assert torch.equal(hidden(shared, POLICY), hidden(shared, REFERENCE))
    kept = shared.adapters.state(POLICY)
    stir(shared, POLICY, seed=5)
    assert not torch.equal(hidden(shared, POLICY), hidden(shared, REFERENCE))
    shared.adapters.load(POLICY, kept)
    assert torch.equal(hidden(shared, POLICY), hidden(shared, REFERENCE))


@pytest.mark.parametrize("other", [{"rank": 8}, {"adapted": 1}])
def test_an_adapter_of_other_settings_is_refused(other: dict[str, int]) -> None:
    made = shared_model(**other)
    made.adapters.add(POLICY)
    with pytest.raises(
        ModelError, match=r"'policy' was trained with other values of adapters\.layers, adapters\.targets"
    ):
        shared_model().adapters.load(POLICY, made.adapters.state(POLICY))


def test_nothing_is_trained_where_no_adapter_is_named() -> None:
    shared = shared_model()
    stir(shared, POLICY)
    shared.adapters.train_only(POLICY)
    assert hidden(shared, POLICY).requires_grad
    shared.adapters.train_only(None)
    assert not hidden(shared, POLICY).requires_grad


# Merging and taking off


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_merged_adapter_is_the_active_adapter(kind: str, tmp_path: Path) -> None:
    shared = shared_model(kind)
    stir(shared, POLICY)
    active, bare = hidden(shared, POLICY), hidden(shared, None)
    shared.adapters.merge(POLICY)
    assert torch.allclose(hidden(shared, None), active, rtol=0, atol=1e-5)
    assert not torch.allclose(bare, active, atol=0.1)


def test_taken_off_the_model_is_an_ordinary_one_and_afterwards_as_before() -> None:
    shared = shared_model()
    stir(shared, POLICY)
    before = hidden(shared, POLICY)
    with shared.adapters.removed():
        assert shared.backbone.model.state_dict().keys() == random_model().state_dict().keys()
    assert torch.equal(hidden(shared, POLICY), before)


def test_after_an_error_inside_a_role_the_bare_base_is_back() -> None:
    shared = shared_model()
    stir(shared, POLICY)
    with pytest.raises(RuntimeError), shared.role(POLICY):
        raise RuntimeError
    assert torch.equal(hidden(shared, None), random_model().model(input_ids=BATCH.input_ids).last_hidden_state)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("with_input", [False, True])
@pytest.mark.parametrize("shape", [(4, 7), (2, 3, 7), (2, 0, 7)])
def test_gradients_of_a_layer_are_autograds_in_float64(bias: bool, with_input: bool, shape: tuple[int, ...]) -> None:
    layer = LoraLinear(torch.nn.Linear(7, 5, bias=bias).requires_grad_(False), rank=3, alpha=5.1)
    layer.add("x", torch.Generator().manual_seed(0), torch.device("cpu"))
    layer.active = "x"
    a, b = (each["x"].requires_grad_() for each in (layer.lora_a, layer.lora_b))
    with torch.no_grad():
        b.normal_(generator=torch.Generator().manual_seed(1))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2)).requires_grad_(with_input)
    given = [a, b, *([x] if with_input else [])]
    wide = x.double(), layer.base.weight.double(), a.double(), b.double()
    expected = wide[0] @ wide[1].T + 1.7 * (wide[0] @ wide[2].T) @ wide[3].T
    expected = expected if layer.base.bias is None else expected + layer.base.bias.double()
    found, g = layer(x), torch.arange(1.0, expected.numel() + 1).view(expected.shape)
    assert torch.allclose(found.double(), expected, atol=1e-5)
    pairs = zip(*(torch.autograd.grad(y, given, g.to(y.dtype)) for y in (found, expected)), strict=True)
    assert all(torch.allclose(mine, wanted, rtol=1e-4, atol=1e-4) for mine, wanted in pairs)


def test_second_derivatives_of_a_layer_are_refused_instead_of_wrong() -> None:
    layer = LoraLinear(torch.nn.Linear(2, 2).requires_grad_(False), rank=1, alpha=1.0)
    layer.add("x", torch.Generator(), torch.device("cpu"))
    layer.active = "x"
    layer.lora_a["x"].requires_grad_()
    x = torch.ones(1, 2, requires_grad=True)
    (slope,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()
