"""The plan: from configuration and tokenizer alone, before anything runs."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.resolved import resolved_yaml
from tests.runs.small_run import do, settings, write_data

from triphase.cli.main import main
from triphase.demo.tiny import tiny_directory
from triphase.errors import ModelError, RunError
from triphase.monitoring.memory import memory_errors
from triphase.planning import plan as planning
from triphase.planning.rates import Rates
from triphase.planning.shortage import shortage_of
from triphase.reports.contents import read_run
from triphase.reports.page import page_of
from triphase.runs import opening
from triphase.runs.pipeline import run_all
from triphase.tokens.template import Template


@pytest.fixture
def config(tmp_path: Path) -> Path:
    write_data(tmp_path)
    path = tmp_path / "run.yaml"
    path.write_text(resolved_yaml(settings(tmp_path, method="lora", adapters={"layers": 1, "rank": 4})))
    return path


def test_every_phase_is_planned_without_reading_a_weight(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = config.parent / "bare"
    bare.mkdir()
    for file in (tiny_directory() / "model").iterdir():
        if file.suffix != ".safetensors":
            (bare / file.name).write_bytes(file.read_bytes())
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["plan", str(config), "--model.name", str(bare), "--json", str(config.parent / "plan.json")]) == 0
    shown, plan = capsys.readouterr().out, json.loads((config.parent / "plan.json").read_text())
    assert list(plan["phases"]) == ["sft", "sampling", "reward", "ppo", "evaluation"]
    for part in ("base weights", "adapters", "KV cache", "activations", "kept trunk states", "peak", "seconds"):
        assert part in shown
    for phase in plan["phases"].values():
        assert phase["peak_bytes"] == pytest.approx(sum(phase["parts"].values()))
        assert phase["seconds"] > 0
    base, adapter = plan["parameters"][:2]
    assert (base["numbers"], base["bytes"]) == (
        15 * 64 + 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128 + 128) + 64,
        300032,
    )
    assert adapter["numbers"] == 4 * (2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 128))


@pytest.mark.parametrize(("threads", "used"), [(2, 2), (None, 3)])
def test_the_rate_is_measured_with_the_threads_of_the_run(
    threads: int | None, used: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(tmp_path)
    seen: list[int] = []

    def measured(*_: Any, **__: Any) -> Rates:
        seen.append(torch.get_num_threads())
        return Rates(1.0, 1.0)

    monkeypatch.setattr(planning, "measure_rates", measured)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        planning.make_plan(settings(tmp_path, threads=threads))
    finally:
        torch.set_num_threads(before)
    assert seen == [used]


def test_plans_share_the_work_of_one_model_and_of_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "_WORK", {})
    monkeypatch.setattr(planning, "Work", lambda *given, **options: [given, options])
    chosen = settings(tmp_path, method="lora")
    config = planning.opened(chosen.model)[0]
    first = planning.work_of(chosen, config, torch.float32)
    assert planning.work_of(chosen, planning.opened(chosen.model)[0], torch.float32) is first
    larger = planning.opened(chosen.model)[0]
    larger.intermediate_size += 8
    model = chosen.model.model_dump()
    others = [
        (chosen, config, torch.bfloat16),
        (chosen, larger, torch.float32),
        (settings(tmp_path, method="lora", adapters={"layers": "all", "rank": 5}), config, torch.float32),
        (settings(tmp_path, method="lora", model={**model, "recompute_activations": True}), config, torch.float32),
        (settings(tmp_path, method="lora", model={**model, "quantization": "int8"}), config, torch.float32),
    ]
    found = [planning.work_of(*other) for other in others]
    assert all(a is not b for a, b in itertools.combinations([first, *found], 2))
    trusting = (settings(tmp_path, model={**model, "trust_remote_code": model["name"]}), config, torch.float32)
    assert planning.work_of(*trusting) is not planning.work_of(*trusting)
    for rank in range(6, 20):
        planning.work_of(settings(tmp_path, adapters={"layers": "all", "rank": rank}), config, torch.float32)
    assert len(planning._WORK) <= 8 and planning.work_of(chosen, config, torch.float32) is not first


def test_sampled_responses_are_planned_as_long_as_the_demonstrations(tmp_path: Path) -> None:
    write_data(tmp_path)
    chosen = settings(tmp_path)
    template = Template(planning.opened(chosen.model)[1])
    load = planning.workload(chosen, template)
    shown = [min(response, 10) for _, response in load.demonstrations.sampled]
    planned = [response for _, *responses in load.groups.sampled for response in responses]
    assert len(planned) == 3 * load.prompts.count and set(planned) <= set(shown)
    assert sum(planned) / len(planned) == pytest.approx(sum(shown) / len(shown), rel=0.15)
    bare = chosen.model_copy(update={"data": chosen.data.model_copy(update={"demonstrations": []})})
    assert {length for _, *rest in planning.workload(bare, template).groups.sampled for length in rest} == {10}


def test_what_does_not_fit_is_named_with_what_to_lower(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(planning, "available_gb", lambda: 0.1)
    monkeypatch.setattr("triphase.batches.order._PASS_TOKENS", 10**6)  # microbatches of many rows
    monkeypatch.setattr(planning, "resident_bytes", lambda: 150e6)  # not what other tests left here
    assert main(["plan", str(config), "--sft.batch_size", "96", "--sft.microbatch_tokens", "100000"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: sft needs about") and "of 100.0 MB" in error and len(error.splitlines()) == 1
    assert "sft.microbatch_tokens: " in error and " saves about " in error


def test_a_model_that_cannot_be_read_is_a_clear_error(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = config.parent / "empty"
    empty.mkdir()
    assert main(["plan", str(config), "--model.name", str(empty)]) == 2
    assert f"{empty} has no config.json" in capsys.readouterr().err


def test_layers_that_cannot_be_traced_are_a_clear_error(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise NotImplementedError("no kernel\nmore")

    monkeypatch.setattr("triphase.footprints.work.Work.policy", refuse)
    write_data(config.parent)
    with pytest.raises(ModelError, match=r"cannot be planned: its layers do not run without data \(no kernel\)"):
        planning.make_plan(settings(config.parent))


def test_a_lack_of_memory_is_told_with_the_plans_numbers(tmp_path: Path) -> None:
    write_data(tmp_path)
    chosen = settings(tmp_path, sft={"batch_size": 32, "optimizer": {"learning_rate": 1e-3}})
    with (
        pytest.raises(RunError, match=r"^ppo: not enough memory \(.* peak use.*\); ppo needs about .* saves about .*"),
        memory_errors("ppo", lambda: shortage_of(chosen, "ppo", 1e6, lambda key: True)),
    ):
        raise MemoryError
    with pytest.raises(RunError, match=r"lower sft\.microbatch_tokens"), memory_errors("sft"):
        torch.empty(1 << 60)


def test_a_run_leaves_its_plan_beside_what_was_measured(tmp_path: Path) -> None:
    write_data(tmp_path)
    run = do(settings(tmp_path), run_all)
    plan, timings = (json.loads(run.part(name).read_text()) for name in ("plan.json", "timings.json"))
    for phase, entry in plan["phases"].items():
        assert entry["peak_bytes"] / 1e9 == pytest.approx(timings["peaks_gb"][phase], rel=0.15), phase
    page = page_of(read_run(run.path))
    assert "Memory at the peak of each phase" in page and "measured peak" in page and "planned peak" in page


@pytest.mark.parametrize("verb", ["plan", "check", "sft"])
def test_a_capture_that_is_demanded_without_a_card_is_refused_in_one_line(
    verb: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, str(config), "--model.device", "cpu", "--model.capture-decoding", "on"]) == 2
    assert "model.capture_decoding is on, but the model is on cpu" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["plan", "check", "sft"])
def test_off_load_without_a_card_is_refused_in_one_line(
    verb: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, str(config), "--model.device", "cpu", "--model.offload", "true"]) == 2
    error = capsys.readouterr().err
    assert "model.offload is true, but the model is on cpu" in error and "set it to false" in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("trained", "opened"),
    [
        ({"offload": True, "compile_layers": True}, {"offload": False, "compile_layers": False}),
        ({"device": "cuda", "capture_decoding": "on"}, {"device": "auto", "capture_decoding": "auto"}),
        ({"device": "cpu", "capture_decoding": "off"}, {"device": "cpu", "capture_decoding": "off"}),
    ],
)
def test_a_run_of_a_card_opens_on_a_machine_without_one(
    trained: dict[str, Any], opened: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = settings(tmp_path)
    model = plain.model.model_copy(update=trained)
    monkeypatch.setattr(opening, "load_settings", lambda path: plain.model_copy(update={"model": model}))
    monkeypatch.setattr(opening, "require_shared", lambda path: None)
    found = opening.open_run(tmp_path / "run").settings.model
    assert found.name == plain.model.name and {name: getattr(found, name) for name in trained} == opened
