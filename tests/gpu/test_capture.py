"""Sampling by CUDA graphs equals the plain decode loop, synchronizes once per eight tokens, and follows training.

Each test needs a CUDA device: `make test-gpu`.
"""

import importlib.util
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.devices.steps import ppo_phase, shared_on
from tests.resolved import resolved_yaml
from tests.small import random_model, tokenizer

from triphase.batches.transfers import to_device
from triphase.cli.main import main
from triphase.demo.configuration import demo_settings
from triphase.models.loading import LoadedModel
from triphase.models.quantization import LIBRARIES, quantize
from triphase.models.roles import REFERENCE, SharedModel
from triphase.phases import ppo as ppo_module
from triphase.rollouts.captured import CapturedRows
from triphase.rollouts.decoding import LocalGenerator
from triphase.rollouts.types import Request
from triphase.settings.schema import AdapterSettings

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _exact_products() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def requests(count: int) -> list[Request]:
    draw = random.Random(0)
    return [Request(tuple(draw.randrange(6, 26) for _ in range(draw.randint(1, 9))), seed) for seed in range(count)]


def written(shared: SharedModel, generator: LocalGenerator, asked: list[Request], limit: int = 20) -> list[Any]:
    return [each.ids for each in generator.generate(asked, temperature=0.9, max_response_tokens=limit)]


def without_capture(shared: SharedModel, asked: list[Request], limit: int = 20) -> list[Any]:
    """What the plain loop writes on the same device."""
    loaded, shared.loaded = shared.loaded, replace(shared.loaded, capture_decoding="off")
    try:
        return written(shared, LocalGenerator(shared, adapter=REFERENCE, batch_size=16), asked, limit)
    finally:
        shared.loaded = loaded


def captured_rows(generator: LocalGenerator) -> CapturedRows:
    assert generator._writer is not None and generator._writer._kept is not None
    return generator._writer._kept[1]


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("batch_size", [5, 40])
def test_graphs_write_what_the_decode_loop_writes(kind: str, batch_size: int) -> None:
    shared, asked = shared_on("cuda", kind), requests(70)
    shared.loaded = replace(shared.loaded, capture_decoding="on")
    generator = LocalGenerator(shared, adapter=REFERENCE, batch_size=batch_size)
    expected = without_capture(shared, asked)
    for number in range(3):  # the second call has the graphs of the first
        assert written(shared, generator, asked) == expected, number
    assert len(captured_rows(generator)._steps) >= 1


def test_kept_graphs_follow_the_adapter() -> None:
    shared, asked = shared_on("cuda"), requests(24)
    shared.loaded = replace(shared.loaded, capture_decoding="on")
    generator, seen = LocalGenerator(shared, adapter=REFERENCE, batch_size=8), []
    for number in range(3):
        draw = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for parameter in shared.adapters.parameters(REFERENCE).values():
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=draw).to(parameter.device))
        seen.append(tuple(written(shared, generator, asked)))
        assert list(seen[-1]) == without_capture(shared, asked)
    assert len(set(seen)) == 3


def test_graphs_that_are_gone_are_followed_by_others() -> None:
    """Rows that need more room are captured anew, and so are those that follow a release."""
    shared, asked = shared_on("cuda"), requests(24)
    shared.loaded = replace(shared.loaded, capture_decoding="on")
    generator = LocalGenerator(shared, adapter=REFERENCE, batch_size=8)
    for limit in (20, 90, 20):
        assert written(shared, generator, asked, limit) == without_capture(shared, asked, limit)
        generator.release()


def test_writing_waits_once_for_each_look(monkeypatch: pytest.MonkeyPatch) -> None:
    shared, asked = shared_on("cuda"), requests(40)
    generator = LocalGenerator(shared, adapter=REFERENCE, batch_size=16)
    written(shared, generator, asked)  # captures
    intervals, advance = [0], CapturedRows.advance

    def counted(rows: CapturedRows, tokens: int) -> None:
        intervals[0] += 1
        advance(rows, tokens)

    monkeypatch.setattr(CapturedRows, "advance", counted)
    with synchronizations() as waits:
        written(shared, generator, asked)
    assert 0 < len(waits) <= intervals[0], waits


@contextmanager
def synchronizations() -> Iterator[list[str]]:
    """Where the processor waits inside, as torch reports it."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")  # which warns of itself
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")
    found += [f"{each.filename}:{each.lineno}" for each in said if "called a synchronizing" in str(each.message)]


def test_the_updates_wait_as_often_as_on_the_fake_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a minibatch, and in each pass of the first (`tests.devices.test_discipline`)."""
    phase = ppo_phase(shared_on("cuda"), responses_per_prompt=4)
    phase.advance(0)  # libraries choose their kernels
    accumulate, passes, found = ppo_module.accumulate_gradients, list[int](), list[str]()

    def noted(policy: Any, minibatch: Any, *arguments: Any, **options: Any) -> Any:
        passes.append(len(minibatch))
        with synchronizations() as waits:
            figures = accumulate(policy, minibatch, *arguments, **options)
        found.extend(waits)
        return figures

    monkeypatch.setattr(ppo_module, "accumulate_gradients", noted)
    phase.advance(1)
    assert len(passes) == 4 and 0 < len(found) <= len(passes) + passes[0], found


@pytest.mark.parametrize("kind", list(LIBRARIES))
def test_a_base_in_few_bits_is_captured(kind: str) -> None:
    if importlib.util.find_spec(LIBRARIES[kind]) is None:
        pytest.skip(f"{LIBRARIES[kind]} is not installed")
    model = random_model("llama", hidden_size=64, intermediate_size=64, head_dim=16).to("cuda")
    quantize(model, kind, "cuda")
    loaded = LoadedModel(model, tokenizer(), "small", capture_decoding="on")
    shared, asked = SharedModel(loaded, AdapterSettings(layers=2, rank=4), seed=0), requests(24)
    shared.adapters.add(REFERENCE)
    generator = LocalGenerator(shared, adapter=REFERENCE, batch_size=8)
    for _ in range(2):
        assert written(shared, generator, asked) == without_capture(shared, asked)


def test_iterations_of_ppo_are_the_same_with_and_without_capture() -> None:
    found = []
    for setting in ("on", "off"):
        shared = shared_on("cuda")
        shared.loaded = replace(shared.loaded, capture_decoding=setting)  # type: ignore[arg-type]
        phase = ppo_phase(shared)
        found.append(
            [
                {name: value for name, value in phase.advance(number).items() if "seconds" not in name}
                for number in range(3)
            ]
        )
    for with_graph, without in zip(*found, strict=True):
        assert with_graph == pytest.approx(without, rel=1e-3, abs=1e-3)


def test_passes_that_the_plan_chose_fit_the_card(tmp_path: Path) -> None:
    """And are named before training; no pass is halved."""
    configuration = tmp_path / "tiny.yaml"
    made = demo_settings(tiny=True, output=str(tmp_path))
    automatic = {part: getattr(made, part).model_copy(update={"microbatch_tokens": "auto"}) for part in ("sft", "ppo")}
    configuration.write_text(resolved_yaml(made.model_copy(update=automatic)))
    few = ["--model.device", "cuda", "--ppo.iterations", "2", "--evaluation.samples-per-prompt", "1"]
    assert main(["run", str(configuration), *few]) == 0
    log = (tmp_path / "tiny" / "log.jsonl").read_text()
    assert "sft.microbatch_tokens: auto is" in log and "ppo.microbatch_tokens: auto is" in log
    assert "not enough memory" not in log


def test_the_optimizer_is_one_kernel_and_transfers_arrive() -> None:
    phase = ppo_phase(shared_on("cuda"))
    assert all(group["fused"] for group in phase.state.updater._optimizer.param_groups)
    values = torch.arange(100_000)
    assert torch.equal(to_device(values, "cuda").cpu(), values)
