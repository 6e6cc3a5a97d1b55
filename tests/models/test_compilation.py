"""Compiled layers compute what the layers compute; without a compiler one line says why."""

import logging
from typing import Any

import pytest
import torch
from tests.devices.steps import ppo_phase, shared_on

from triphase.models.compilation import CompiledLayer
from triphase.models.layers import LastLayer
from triphase.models.roles import SharedModel


def layers_of(shared: SharedModel) -> list[Any]:
    return list(getattr(shared.backbone._upper, shared.backbone.layers_name))


def compiled(monkeypatch: pytest.MonkeyPatch, compiler: Any, **options: Any) -> SharedModel:
    monkeypatch.setattr(torch, "compile", compiler)
    shared = shared_on("cpu", **options)
    shared.backbone.compile_layers()
    return shared


@pytest.mark.parametrize("recompute", [False, True])
def test_every_adapted_layer_but_the_last_runs_compiled(recompute: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def compiler(run: Any, **options: Any) -> Any:
        assert options == {"dynamic": True, "options": {"emulate_precision_casts": True}}

        def noted(layer: Any, arguments: Any, named: Any) -> Any:
            calls.append(layer)
            return run(layer, arguments, named)

        return noted

    shared = compiled(monkeypatch, compiler, recompute=recompute)
    metrics = ppo_phase(shared).advance(0)
    assert set(calls) == set(shared.backbone.layers[shared.backbone.trunk_layers : -1])
    found = [layer.layer if recompute else layer for layer in layers_of(shared)]
    assert [type(layer) for layer in found] == [CompiledLayer] * (len(found) - 1) + [LastLayer]
    plain = ppo_phase(shared_on("cpu", recompute=recompute)).advance(0)
    assert {k: v for k, v in metrics.items() if "seconds" not in k} == {
        k: v for k, v in plain.items() if "seconds" not in k
    }


def test_without_a_compiler_the_layers_run_and_one_line_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def compiler(run: Any, **options: Any) -> Any:
        def failing(*_: Any) -> Any:
            raise torch._dynamo.exc.BackendCompilerFailed(None, RuntimeError("no g++ here\nmore"), None)

        return failing

    shared = compiled(monkeypatch, compiler)
    with caplog.at_level(logging.WARNING):
        metrics = ppo_phase(shared).advance(0)
    said = [each.getMessage() for each in caplog.records if "compile_layers" in each.getMessage()]
    assert len(said) == 1 and "no g++ here" in said[0] and "\n" not in said[0]
    plain = ppo_phase(shared_on("cpu")).advance(0)
    assert metrics["ppo/policy_loss"] == plain["ppo/policy_loss"]


# torch's compiler uses deprecated functions of torch, and a warning inside it ends the compilation.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("times", [1, 4])
def test_losses_and_gradients_are_those_of_the_layers(dtype: torch.dtype, times: int) -> None:
    """And the invariants of the first minibatch hold: a rollout and its first update agree."""
    found = []
    for compiles in (False, True):
        shared = shared_on("cpu", dtype=dtype)
        if compiles:
            shared.backbone.compile_layers()
        phase = ppo_phase(shared, responses_per_prompt=times)
        metrics = [phase.advance(number) for number in range(2)]
        if compiles:
            assert shared.backbone.compilation is not None and shared.backbone.compilation.reason is None
        parameters = {name: value.detach().clone() for name, value in phase.policy.parameters().items()}
        found.append((metrics, parameters))
    (plain, ours), (made, theirs) = found
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    for name in ("ppo/policy_loss", "ppo/value_loss", "ppo/gradient_norm"):
        assert made[0][name] == pytest.approx(plain[0][name], rel=tolerance, abs=tolerance)
    if dtype == torch.float32:
        for name, value in ours.items():
            assert torch.allclose(value, theirs[name], atol=1e-3), name
