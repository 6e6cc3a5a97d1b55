"""The direct decode step is the model's own forward pass; a model of another shape takes the slower way."""

from typing import Any

import pytest
import torch
from tests.small import random_model, shared_model, stir

from triphase.demo.embedded import model_directory
from triphase.models.backbone import Backbone
from triphase.models.direct import FastDecoder
from triphase.models.direct_layer import DirectLayer
from triphase.models.loading import load_model
from triphase.models.roles import POLICY, SharedModel
from triphase.models.stepping import HFDecoder, WholeStepper, stepper_for, steps_directly, steps_rightly
from triphase.rollouts.decoding import LocalGenerator
from triphase.rollouts.types import Request
from triphase.settings.schema import AdapterSettings, ModelSettings

PROMPTS = [(7, 8, 9), (10,), (11, 1, 12, 13, 14)]
DIRECT = {
    "llama": ("llama", {}),
    "llama, one key head": ("llama", {"num_key_value_heads": 1}),
    "llama, as many key heads": ("llama", {"num_key_value_heads": 4}),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama with stretched positions": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}},
    ),
    "mistral": ("mistral", {"sliding_window": None}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
}
OWN = {
    "a window": ("mistral", {"sliding_window": 4}),
    "windows in some layers": ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}),
    "layers without positions": ("smollm3", {}),
    "experts": ("mixtral", {"num_local_experts": 4}),
    "four norms": ("gemma3_text", {}),
    "scaled residuals": ("granite", {"residual_multiplier": 0.5}),
    "one projection": ("gpt_neox", {}),
}
BOTH = DIRECT | OWN


def forced(shared, tokens: list[int]) -> list[torch.Tensor]:
    """Hidden states of all rows while each is given the same tokens; the middle row leaves after the second."""
    with shared.role(POLICY):
        stepper = shared.stepper(POLICY)
        stepper.read(PROMPTS, pad_id=0, room=len(tokens))
        found = [stepper.hidden]
        for number, token in enumerate(tokens):
            if number == 2:
                stepper.keep([0, 2])
            stepper.step(torch.full((len(stepper.hidden),), token))
            found.append(stepper.hidden)
    return found


@pytest.mark.parametrize(("kind", "config"), BOTH.values(), ids=BOTH.keys())
def test_each_step_is_the_forward_pass_over_all_tokens_so_far(kind: str, config: dict[str, Any]) -> None:
    shared = shared_model(kind, **config)
    stir(shared, POLICY)
    tokens = [6, 1, 20, 15]
    states = forced(shared, tokens)
    for place in range(len(tokens) + 1):
        rows = [0, 1, 2] if place < 3 else [0, 2]
        assert len(states[place]) == len(rows)
        for row, found in zip(rows, states[place], strict=True):
            ids = torch.tensor([[*PROMPTS[row], *tokens[:place]]])
            with torch.no_grad(), shared.role(POLICY):
                expected = shared.backbone.upper(shared.backbone.trunk(ids))[0, -1]
            assert torch.allclose(found, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("kind", "config"), DIRECT.values(), ids=DIRECT.keys())
def test_models_of_the_common_shape_are_stepped_directly(kind: str, config: dict[str, Any]) -> None:
    assert steps_directly(Backbone(random_model(kind, **config), adapted_layers=None))


@pytest.mark.parametrize(("kind", "config"), OWN.values(), ids=OWN.keys())
def test_others_are_stepped_by_their_own_forward_pass(kind: str, config: dict[str, Any]) -> None:
    assert not steps_directly(Backbone(random_model(kind, **config), adapted_layers=None))


@pytest.mark.parametrize("half", ["project", "finish"])
def test_a_layer_that_would_go_wrong_is_noticed(half: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = Backbone(random_model(), adapted_layers=None)
    right = getattr(DirectLayer, half)

    def wrong(self: DirectLayer, x: torch.Tensor, other: Any) -> Any:
        return right(self, x * 1.001 if half == "finish" else x.roll(1, 1), other)

    monkeypatch.setattr(DirectLayer, half, wrong)
    assert not steps_directly(backbone)


def test_bfloat16_without_instructions_is_widened_and_close_to_the_model() -> None:
    """Products in float32 of weights that are bfloat16 stay near to the exact ones."""
    exact = shared_model("llama")
    stir(exact, POLICY)
    exact.backbone.model.load_state_dict(
        {name: value.bfloat16().float() for name, value in exact.backbone.model.state_dict().items()}
    )
    expected = forced(exact, [6, 1, 20])
    exact.backbone.model.bfloat16()
    for parameter in exact.adapters.parameters(POLICY).values():
        parameter.data = parameter.data.float()
    assert steps_directly(exact.backbone)
    for found, wanted in zip(forced(exact, [6, 1, 20]), expected, strict=True):
        assert float((found.float() - wanted).norm()) <= 0.03 * float(wanted.norm())


def test_rows_that_join_see_their_own_prompt_alone() -> None:
    shared = shared_model("llama")
    stir(shared, POLICY)
    with shared.role(POLICY):
        alone, joined = FastDecoder(shared.backbone), FastDecoder(shared.backbone)
        joined.read([(9, 10, 11, 12), (13, 14)], pad_id=0, room=5)
        joined.step(torch.tensor([8, 9]))
        joined.step(torch.tensor([10, 11]))
        joined.join([(7, 8, 9), (6,), (7, 8, 9)], pad_id=0, room=5)
        alone.read([(13, 14, 9, 11), (7, 8, 9), (6,), (7, 8, 9)], pad_id=0, room=5)
        assert torch.allclose(joined.hidden[1:], alone.hidden, rtol=0, atol=2e-5)
        joined.keep([4, 1])
        joined.step(torch.tensor([12, 13]))
        alone.read([(7, 8, 9, 12), (13, 14, 9, 11, 13)], pad_id=0, room=0)
        assert torch.allclose(joined.hidden, alone.hidden, rtol=0, atol=2e-5)


HYBRID = {
    "linear attention in some layers": ("qwen3_next", HFDecoder),
    "a cache of its own": ("minimax", WholeStepper),
    "a state alone": ("mamba", WholeStepper),
    "half of a head is turned": ("stablelm", HFDecoder),
    "pads that the state does not leave out": ("rwkv", WholeStepper),
}


@pytest.mark.parametrize(("kind", "expected"), HYBRID.values(), ids=HYBRID.keys())
def test_whatever_a_model_keeps_its_tokens_are_those_of_the_full_pass(kind: str, expected: type) -> None:
    shared = shared_model(kind, adapted="all")
    stir(shared, POLICY)
    assert stepper_for(shared.backbone) is expected
    prompts = [(7, 8, 9), (10,), (11, 1, 12, 13, 14)]
    requests = [Request(prompt, seed) for seed, prompt in enumerate(prompts)]
    found = LocalGenerator(shared, adapter=POLICY, batch_size=2).generate(
        requests, temperature=1e-6, max_response_tokens=4
    )
    for prompt, generated in zip(prompts, found, strict=True):
        ids = list(prompt)
        for token in generated.ids:
            with torch.no_grad(), shared.role(POLICY):
                state = shared.backbone.upper(shared.backbone.trunk(torch.tensor([ids])))[0, -1]
            assert int((shared.backbone.head_weight @ state).argmax()) == token
            ids.append(token)


def _forgets_the_newest(right: Any) -> Any:
    def wrong(self: Any, tokens: torch.Tensor) -> None:
        right(self, torch.zeros_like(tokens))

    return wrong


def _turns_too_far(right: Any) -> Any:
    def wrong(self: Any, tokens: torch.Tensor) -> None:
        if isinstance(self, HFDecoder):
            self._positions = self._positions + 1
        else:
            self._places = self._places + 1
        right(self, tokens)

    return wrong


def _keeps_the_wrong_rows(right: Any) -> Any:
    return lambda self, rows: right(self, [0] * len(rows))


@pytest.mark.parametrize("kind", [FastDecoder, HFDecoder])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("part", "fault"),
    [("step", _forgets_the_newest), ("step", _turns_too_far), ("keep", _keeps_the_wrong_rows)],
    ids=["token", "position", "rows"],
)
def test_a_cache_that_goes_wrong_is_not_used(
    kind: Any, part: str, fault: Any, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = Backbone(random_model().to(dtype), adapted_layers=None)
    assert steps_rightly(kind, backbone)
    monkeypatch.setattr(kind, part, fault(getattr(kind, part)))
    assert not steps_rightly(kind, backbone)
    assert stepper_for(backbone) is not kind


def test_rows_join_and_leave_where_everything_is_read_again() -> None:
    shared = shared_model("llama")
    whole = WholeStepper(shared.backbone)
    whole.read([(9, 10, 11), (13, 14)], pad_id=0, room=5)
    whole.step(torch.tensor([8, 9]))
    whole.join([(7, 8)], pad_id=0, room=5)
    whole.keep([2, 1])
    direct = FastDecoder(shared.backbone)
    direct.read([(7, 8), (13, 14, 9)], pad_id=0, room=0)
    assert torch.allclose(whole.hidden, direct.hidden, rtol=0, atol=2e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_embedded_model_is_stepped_directly_in_both_dtypes(dtype: str) -> None:
    """Its rare tokens upset bfloat16: a probe of those alone called its cache wrong, and sampling ten times slower."""
    settings = ModelSettings(name=str(model_directory("embedded:smollm2")), dtype=dtype)
    shared = SharedModel(load_model(settings), AdapterSettings(layers=10), seed=0)
    assert stepper_for(shared.backbone) is FastDecoder
