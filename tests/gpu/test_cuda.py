"""Every phase on a CUDA device: it computes what the processor computes, resumes exactly, and learns.

Each test needs a CUDA device: `make test-gpu`.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.devices.steps import STEPS, model_of, ppo_phase, shared_on
from tests.small import Lines

from triphase.cli.main import main
from triphase.errors import RunError
from triphase.monitoring.memory import memory_errors
from triphase.training.loop import LoopOptions, run_loop

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _exact_products() -> Any:
    """Products in float32 as they are, not in the 10 bits of TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def steady(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if "seconds" not in name}


@pytest.mark.parametrize("name", STEPS)
def test_the_card_computes_what_the_processor_computes(name: str) -> None:
    there, here = (steady(STEPS[name](model_of(name, device))) for device in ("cuda", "cpu"))
    assert there.keys() == here.keys()
    assert there == pytest.approx(here, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen3", "gpt_neox"])
def test_logprobs_and_gradients_agree_in_float32(kind: str) -> None:
    found = []
    for device in ("cpu", "cuda"):
        phase = ppo_phase(shared_on(device, kind))
        phase.state.updater.step = _keep(phase, gradients := {})
        metrics = phase.advance(0)
        found.append((steady(metrics), {name: value.cpu() for name, value in gradients.items()}))
    (here, ours), (there, theirs) = found
    assert there == pytest.approx(here, rel=1e-4, abs=1e-4)
    assert ours
    for name, value in ours.items():
        assert torch.allclose(value, theirs[name], atol=1e-4 * float(value.abs().max() + 1e-3)), name


def _keep(phase: Any, gradients: dict[str, torch.Tensor]) -> Any:
    from triphase.training.step import StepResult

    def step() -> StepResult:
        if not gradients:
            gradients.update({name: p.grad.clone() for name, p in phase.state.updater.parameters.items()})
        return StepResult(0.0, 0.0, False)

    return step


@pytest.mark.parametrize("changes", [{}, {"responses_per_prompt": 4}], ids=["rows", "groups"])
def test_the_invariants_hold_in_bfloat16(changes: dict[str, Any]) -> None:
    phase = ppo_phase(shared_on("cuda", dtype=torch.bfloat16), **changes)
    for iteration in range(3):
        metrics = phase.advance(iteration)
        assert metrics["ppo/skipped_steps"] == 0.0


def state_of(phase: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu().clone() for name, value in phase.state.updater.parameters.items()}


def fitted(device: str, directory: Path, iterations: int) -> Any:
    phase = ppo_phase(shared_on(device), iterations=iterations)
    run_loop(phase, LoopOptions(directory, Lines(), keep=1))
    return phase


def resumed(
    first: str, second: str, directory: Path, *, cut: int, quantization: str | None = None
) -> dict[str, torch.Tensor]:
    """What a run ends with that was cut in an iteration on one device, and went on on another."""
    begun, lines = ppo_phase(shared_on(first, quantized_to=quantization), iterations=3), Lines()
    advance = begun.advance

    def stopped(iteration: int) -> dict[str, float]:
        if iteration == cut:
            raise KeyboardInterrupt
        return advance(iteration)

    begun.advance = stopped  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        run_loop(begun, LoopOptions(directory, lines, keep=1))
    again = ppo_phase(shared_on(second, quantized_to=quantization), iterations=3)
    run_loop(again, LoopOptions(directory, lines, keep=1))
    return state_of(again)


def test_a_resumed_run_on_the_card_ends_the_same_to_the_bit(tmp_path: Path) -> None:
    """With rows this short no kernel adds in an order that differs from run to run (docs/performance.md)."""
    whole = state_of(fitted("cuda", tmp_path / "whole", 3))
    ended = resumed("cuda", "cuda", tmp_path / "cut", cut=2)
    assert all(torch.equal(value, ended[name]) for name, value in whole.items())


@pytest.mark.parametrize(("first", "second"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_a_checkpoint_of_one_device_resumes_on_the_other(first: str, second: str, tmp_path: Path) -> None:
    expected = state_of(fitted("cpu", tmp_path / "whole", 3))
    for name, value in resumed(first, second, tmp_path / "cut", cut=1).items():
        # Adam divides by the root of the second moment: where a gradient is near 0, its rounding shows.
        assert torch.allclose(value, expected[name], atol=2e-3), name


def test_a_card_without_room_gives_the_line_of_the_plan() -> None:
    with pytest.raises(RunError, match=r"^ppo: not enough memory .* lower ppo\.microbatch_tokens"):
        with memory_errors("ppo"):
            torch.empty(1 << 42, dtype=torch.uint8, device="cuda")


def test_the_tiny_pipeline_learns_on_the_card(tmp_path: Path) -> None:
    from tests.resolved import resolved_yaml

    from triphase.demo.configuration import demo_settings

    configuration = tmp_path / "tiny.yaml"
    configuration.write_text(resolved_yaml(demo_settings(tiny=True, output=str(tmp_path))))
    few = ["--ppo.iterations", "25", "--evaluation.samples-per-prompt", "4"]
    assert main(["run", str(configuration), "--model.device", "cuda", *few]) == 0
    summary = json.loads((tmp_path / "tiny" / "summary.json").read_text())
    reward, ppo = summary["reward_model"], summary["ppo"]
    assert reward["accuracy"] >= 0.85 * reward["noise_ceiling"]
    assert ppo["gold_win_rate_low"] > 0.5
    assert ppo["gold_mean"] > summary["sft"]["gold_mean"]
