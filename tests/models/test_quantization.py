"""A base in few bits: its products, their gradients, and what is refused. Here the packing is one written by hand.

That the libraries' own packings learn, resume and plan is in `tests/quantization` (`make test-quantization`).
"""

import sys
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tests.small import ByHand, random_model, samples, tokenizer
from torch import Tensor, nn

from triphase.cli.extras import missing_package
from triphase.errors import ModelError
from triphase.models import quantization
from triphase.models.backbone import Backbone
from triphase.models.loading import LoadedModel
from triphase.models.lora import LoraLinear
from triphase.models.products import FusedLinear
from triphase.models.quantization import (
    LIBRARIES,
    QuantizedLinear,
    kept_codes,
    note_of,
    quantize,
    require_library,
)
from triphase.models.roles import REFERENCE, SharedModel
from triphase.objectives.invariants import InvariantError
from triphase.phases.frozen import FrozenWeights
from triphase.phases.sft import SupervisedPhase
from triphase.planning.machine import CARDS, Machine
from triphase.planning.machine_plan import strategies_for
from triphase.runs.provenance import versions
from triphase.settings.phases import SupervisedSettings
from triphase.settings.schema import AdapterSettings, RunSettings


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "_packing_of", lambda kind: ByHand())


def linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    torch.manual_seed(inputs + outputs)
    return nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)


def wide(quantized: QuantizedLinear) -> nn.Linear:
    made = nn.Linear(quantized.in_features, quantized.out_features, bias=quantized.bias is not None)
    made.weight, made.bias = nn.Parameter(quantized.weight, False), quantized.bias
    return made


def lora(base: nn.Module) -> LoraLinear:
    module = LoraLinear(base, rank=4, alpha=8.0)
    module.add("a", torch.Generator().manual_seed(0), torch.device("cpu"))
    module.active = "a"
    with torch.no_grad():
        module.lora_b["a"].copy_(torch.linspace(-1, 1, module.lora_b["a"].numel()).view_as(module.lora_b["a"]))
    module.requires_grad_(True)
    return module


@pytest.mark.parametrize("bias", [True, False])
def test_product_and_gradients_are_those_of_the_widened_weight(bias: bool) -> None:
    quantized = QuantizedLinear(linear(24, 40, bias=bias), ByHand())
    found = []
    for base in (quantized, wide(quantized)):
        module, x = lora(base), torch.linspace(-1, 1, 3 * 5 * 24).view(3, 5, 24).requires_grad_()
        y = module(x)
        y.square().sum().backward()
        gradients = [x.grad, module.lora_a["a"].grad, module.lora_b["a"].grad]
        found.append([y.detach(), *[each for each in gradients if each is not None]])
    assert len(found[0]) == 4
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*found, strict=True))


def test_the_backward_pass_widens_again_and_keeps_nothing_wide() -> None:
    quantized = QuantizedLinear(linear(24, 40), ByHand())
    kept: list[tuple[int, ...]] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tuple(tensor.shape))
        return tensor

    ByHand.widened_times = 0
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        y = quantized(torch.ones(2, 24, requires_grad=True))
    y.sum().backward()
    assert kept == [] and ByHand.widened_times == 2


def test_joint_maps_widen_each_time_and_add_biases_and_updates() -> None:
    quantized = [QuantizedLinear(linear(24, size, bias=size == 8), ByHand()) for size in (16, 8)]
    columns = torch.linspace(-1, 1, 24 * 3).view(24, 3)
    plain = torch.cat([nn.functional.linear(columns.T, q.weight, q.bias).T for q in quantized])
    bare = FusedLinear(quantized)
    for _ in range(2):
        ByHand.widened_times = 0
        assert torch.allclose(bare(columns), plain, atol=1e-6)
        assert ByHand.widened_times == len(quantized)  # nothing wide is kept between products
    ours, theirs = (FusedLinear([lora(base) for base in bases]) for bases in (quantized, [wide(q) for q in quantized]))
    assert ours.sizes == [16, 8]
    with torch.no_grad():
        assert torch.equal(ours(columns), theirs(columns))


def test_every_linear_map_of_the_layers_is_quantized_and_nothing_else(by_hand: None) -> None:
    model = random_model()
    before = {name: value.clone() for name, value in model.named_parameters()}
    quantize(model, "int8")
    codes = kept_codes(model)
    maps = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert len(codes) == 2 * 4 * len(maps)
    left = dict(model.named_parameters())
    assert set(before) - set(left) == {name for name in before if name.split(".")[-2] in maps}
    assert all(torch.equal(before[name], value) for name, value in left.items())


def shared(model: Any) -> SharedModel:
    return SharedModel(LoadedModel(model, tokenizer(), "small"), AdapterSettings(layers=2, rank=4, alpha=8.0), seed=0)


def test_adapters_learn_over_it_while_its_codes_stay(by_hand: None) -> None:
    model = random_model()
    quantize(model, "int8")
    made = shared(model)
    texts = samples(12, response=(4, 9))
    settings = SupervisedSettings(batch_size=12, optimizer={"learning_rate": 1e-2, "schedule": "constant"})
    phase = SupervisedPhase(made, texts, list(range(12)) * 12, [], settings)
    before = {name: value.clone() for name, value in made.backbone.base_tensors().items()}
    losses = [phase.advance(step)["sft/loss"] for step in range(12)]
    assert losses[-1] < 0.8 * losses[0]
    assert {value.dtype for value in made.adapters.parameters(REFERENCE).values()} == {torch.float32}
    assert all(torch.equal(before[name], value) for name, value in made.backbone.base_tensors().items())
    frozen = FrozenWeights(made)
    frozen.require_unchanged()
    next(iter(kept_codes(model).values()))[0, 0] += 1
    with pytest.raises(InvariantError, match="the frozen base has changed since the phase started"):
        frozen.require_unchanged()


def test_what_it_computes_stays_near_the_wide_base(by_hand: None) -> None:
    ids = torch.arange(8, 20)[None]
    before = Backbone(random_model(), adapted_layers=2).whole(ids)
    model = random_model()
    quantize(model, "int8")
    after = Backbone(model, adapted_layers=2).whole(ids)
    distance = float((after - before).norm() / before.norm())
    assert 0 < distance < 0.03


def test_codes_take_no_adapter_up(by_hand: None) -> None:
    model = random_model()
    quantize(model, "int8")
    made = shared(model)
    made.adapters.add(REFERENCE)
    with pytest.raises(ModelError, match=r"load the model without model\.quantization"):
        made.adapters.merge(REFERENCE)


def test_a_model_without_linear_maps_is_refused(by_hand: None) -> None:
    with pytest.raises(ModelError, match=r"model\.quantization: int8 needs linear layers"):
        quantize(random_model("gpt2", n_embd=32, n_head=4, n_layer=2, n_positions=64), "int8")


@pytest.mark.parametrize(("kind", "library"), [("int8", "torchao"), ("nf4", "bitsandbytes")])
def test_an_absent_library_is_one_line(kind: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ModuleNotFoundError) as caught:
        require_library(kind)
    line = f"triphase run needs the package {library}; install it with: pip install 'triphase[quantization]'"
    assert missing_package(caught.value, ["run"]) == line
    require_library(None)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"ppo": {"method": "full"}}, "ppo.method full trains the weights that quantization freezes"),
        ({"sft": {"method": "full"}}, "sft.method full trains the weights that quantization freezes"),
        ({"parallel": {"strategy": "fsdp2"}}, "shards weights, not quantized codes"),
        ({"rollouts": {"addresses": ["http://127.0.0.1:8000"]}}, "load the unquantized base"),
    ],
)
def test_what_does_not_go_with_it_is_refused(changes: dict[str, Any], problem: str) -> None:
    data = {"demonstrations": [{"path": "d.jsonl"}], "prompts": [{"path": "p.jsonl"}]}
    values = {"name": "q", "model": {"name": "x", "quantization": "nf4"}, "data": data}
    with pytest.raises(ValidationError, match=problem):
        RunSettings.model_validate(values | changes)


@pytest.mark.parametrize("changes", [{"offload": True}, {"compile_layers": True}, {"quantization": "nf4"}])
def test_layers_that_are_moved_compiled_or_quantized_are_not_divided(changes: dict[str, Any]) -> None:
    values = {"name": "q", "model": {"name": "x", **changes}, "data": {}}
    machine = Machine(CARDS["h100"], 2, 80e9)
    assert strategies_for(machine, RunSettings.model_validate(values)) == ("replicated",)
    assert len(strategies_for(machine, RunSettings.model_validate({**values, "model": {"name": "x"}}))) == 2
    with pytest.raises(ValidationError, match=f"model.{next(iter(changes))} is .*fsdp2"):
        RunSettings.model_validate({**values, "parallel": {"strategy": "fsdp2"}})


def test_an_export_says_what_the_adapter_was_trained_over() -> None:
    assert note_of(None) == ""
    assert 'bnb_4bit_quant_type="nf4"' in note_of("nf4") and "torchao" in note_of("int8")


def test_a_run_records_the_versions_of_its_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes depend on them: `run --verify` names versions that differ."""
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.0")
    assert set(LIBRARIES.values()) <= set(versions())
