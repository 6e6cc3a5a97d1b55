"""int8 by torchao and nf4 by bitsandbytes: they have the stated size, learn, resume exactly, and are planned."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.devices.steps import STEPS, ppo_phase, shared_on
from tests.gpu.test_cuda import resumed, state_of
from tests.planning.llama import llama_8b
from tests.resolved import resolved_yaml
from tests.small import Lines
from torch import nn

from triphase.cli.main import main
from triphase.demo.configuration import demo_settings
from triphase.footprints.cost import CostModel
from triphase.footprints.work import Work
from triphase.footprints.workload import Lengths, Workload
from triphase.models.quantization import QuantizedLinear, _packing_of
from triphase.planning.every_phase import footprints_of
from triphase.settings.schema import AdapterSettings, RunSettings
from triphase.training.loop import LoopOptions, run_loop

pytestmark = pytest.mark.quantization
KINDS = ("int8", "nf4")
# Of the largest weight of a row (int8) or of a block of 64 (nf4): half the widest gap between two levels.
WORST = {"int8": 0.5 / 127 + 2**-9, "nf4": 0.16}
BYTES = {"int8": 1.0, "nf4": 0.5}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_no_weight_is_further_off_than_half_a_gap(kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(256, 96, dtype=dtype).requires_grad_(False)
    linear.weight[5] = 0.0
    quantized = QuantizedLinear(linear, _packing_of(kind))
    assert quantized.codes.nbytes == BYTES[kind] * linear.weight.numel()
    group = 256 if kind == "int8" else 64
    rows, found = (x.float().reshape(-1, group) for x in (linear.weight, quantized.weight))
    assert quantized.weight.dtype == dtype
    off = (found - rows).abs().amax(1)
    assert bool((off <= WORST[kind] * rows.abs().amax(1) + 1e-9).all()) and float(off.max()) > 0


@pytest.mark.parametrize("name", ["sft", "reward", "ppo", "ppo-grpo"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_phase_takes_a_step(kind: str, name: str) -> None:
    metrics = STEPS[name](shared_on("cpu", quantized_to=kind))
    assert not any(value for key, value in metrics.items() if "skipped" in key)


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_ends_the_same_to_the_bit(kind: str, tmp_path: Path) -> None:
    whole = ppo_phase(shared_on("cpu", quantized_to=kind), iterations=3)
    run_loop(whole, LoopOptions(tmp_path / "whole", Lines(), keep=1))
    ended = resumed("cpu", "cpu", tmp_path / "cut", cut=2, quantization=kind)
    assert all(torch.equal(value, ended[name]) for name, value in state_of(whole).items())


@pytest.mark.parametrize("kind", KINDS)
def test_the_tiny_pipeline_learns_and_exports(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configuration = tmp_path / "tiny.yaml"
    configuration.write_text(resolved_yaml(demo_settings(tiny=True, output=str(tmp_path))))
    # The tiny model begins with random weights, all of which its SFT trains; what came of it is the base here.
    base, run = str(tmp_path / "base"), str(tmp_path / "quantized")
    assert main(["sft", str(configuration)]) == 0
    assert main(["export", str(tmp_path / "tiny"), "--what", "sft", "--to", base]) == 0
    changes = ["--name", "quantized", "--model.name", base, "--sft.method", "lora", "--ppo.iterations", "25"]
    assert main(["run", str(configuration), *changes, "--model.quantization", kind]) == 0
    summary = json.loads(Path(run, "summary.json").read_text())
    assert summary["reward_model"]["accuracy"] >= 0.85 * summary["reward_model"]["noise_ceiling"]
    assert summary["ppo"]["gold_win_rate_low"] > 0.5
    assert main(["run", str(configuration), *changes]) == 2  # without it, it is another run
    assert "model.quantization" in capsys.readouterr().err
    assert main(["export", run, "--to", str(tmp_path / "merged")]) == 0
    assert f"quantized to {kind}" in (tmp_path / "merged" / "README.md").read_text()
    assert main(["export", run, "--adapter", "--to", str(tmp_path / "adapter")]) == 0
    assert f"quantized to {kind}" in (tmp_path / "adapter" / "README.md").read_text()


def planned(kind: str | None, *, offload: bool = False) -> dict[str, float]:
    """Peak bytes of each phase of an 8 B decoder (Llama 3's shape) with the top third adapted, on a card."""
    config = llama_8b()
    adapters = AdapterSettings(layers=11)
    values: dict[str, Any] = {"name": "q", "model": {"name": "x", "quantization": kind, "offload": offload}, "data": {}}
    # What `auto` chooses for a card of 24 GB.
    values |= {section: {"microbatch_tokens": 1024} for section in ("sft", "reward", "ppo")}
    settings = RunSettings.model_validate(values).model_copy(update={"adapters": adapters})
    work = Work(config, torch.bfloat16, adapters, recompute=False, trusted=False, quantization=kind, on_card=True)
    shown = Lengths([(128, 128)] * 64, 64)
    prompts, groups = Lengths([(128,)] * 64, 64), Lengths([(128, 128, 128)] * 64, 64)
    cost = CostModel(
        settings, work, Workload(shown, shown, 192, prompts, prompts, groups), process_bytes=0.0, card_bytes=24e9
    )
    return {each.phase: each.peak.total for each in footprints_of(cost)}


def test_an_eight_billion_model_fits_24_gb_in_every_phase() -> None:
    plans = {kind: planned(kind) for kind in (None, *KINDS)}
    for kind in KINDS:
        rested = planned(kind, offload=True)
        assert all(rested[phase] <= planned for phase, planned in plans[kind].items())
        assert rested["ppo"] < plans[kind]["ppo"]
    assert {"sft", "reward", "ppo"} <= set(plans["nf4"])
    for kind in KINDS:
        assert max(plans[kind].values()) < 0.9 * 24e9, plans[kind]
    # 32 layers of 218 M weights: what the codes save, less what is widened for a product.
    for phase, wide in plans[None].items():
        assert 5.0e9 < wide - plans["int8"][phase] < 7.0e9
        assert 8.0e9 < wide - plans["nf4"][phase] < 10.5e9


def test_the_libraries_print_nothing_of_their_own(tmp_path: Path) -> None:
    """They are imported by transformers, also for a run that is not quantized."""
    configuration = tmp_path / "tiny.yaml"
    configuration.write_text(resolved_yaml(demo_settings(tiny=True, output=str(tmp_path))))
    command = [sys.executable, "-m", "triphase", "check", str(configuration)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "torchao" in sys.modules and done.stderr == ""
