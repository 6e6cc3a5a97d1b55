"""A base sharded among ranks: the results of one process with part of the memory, whatever each rank does."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.runs.small_run import settings, write_data
from tests.training.worlds import begin, ended

from triphase.errors import SettingsError
from triphase.runs import ranks
from triphase.runs.ranks import is_divided, ranks_of
from triphase.settings.schema import RunSettings
from triphase.training.distributed.agreed_needs import FIRST_BLOCK, HERE, LOADS, choose
from triphase.training.distributed.environment import Place

BLOCK = FIRST_BLOCK


def launched(folder: Path, world: int, *words: str) -> list[dict[str, Any]]:
    results = ended(begin(["-m", "tests.training.sharded", str(folder), *words], each=[{}] * world))
    assert [code for code, _ in results] == [0] * world, results
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(world)]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The results of each of two ranks."""
    return launched(tmp_path_factory.mktemp("sharded"), 2)


def require_equal(told: list[dict[str, Any]]) -> None:
    for phase, found in told[0]["equality"].items():
        assert found["one start"] and found["same start"] and found["one end"] and found["steps"] >= 3, phase
        assert max(found["gradients"], found["parameters"], found["metrics"]) < 1e-6, phase
        assert found["extremes"] < 5e-6, phase
    assert {"sft-full", "ppo-full"} <= set(told[0]["change_of_world"])
    for phase, found in told[0]["change_of_world"].items():
        assert found["stopped at"] == 2 and found["parameters"] < 1e-6, phase
        assert found["files"] == ["manifest.json", "tensors.safetensors", "values.json"]
    for found in told:
        assert found["generation"]["offloaded"] == [True]
        assert found["second_model"]["same"]  # whatever the other ranks do not compute themselves
        assert found["generation"]["same"] and found["generation"]["led"] and found["generation"]["apart"] < 1e-5
        assert found["generation"]["probed"] < 5e-6
        assert 1e-3 < found["recomputation"]["largest"]
        assert found["recomputation"]["gradients"] < 1e-6 * max(1.0, found["recomputation"]["largest"])


def test_a_divided_base_does_what_a_whole_one_does(told: list[dict[str, Any]]) -> None:
    assert {"sft", "sft-full", "reward", "ppo", "ppo-mixed", "ppo-critic", "ppo-full", "ppo-full-critic"} <= set(
        told[0]["equality"]
    )
    require_equal(told)
    # No rank stops early while another still writes.
    assert max(told[0]["generation"]["lengths"]) <= 2 < max(told[1]["generation"]["lengths"])


def test_each_rank_keeps_half_of_the_layers_and_all_that_is_outside(told: list[dict[str, Any]]) -> None:
    for found in (each["memory"] for each in told):
        assert found["kept"] == [found["layers"] / 2] * 2  # nothing whole is left behind by a pass
        assert found["outside"] == found["outside alone"] > 0
    assert told[0]["memory"]["digest"] == told[1]["memory"]["digest"]


def test_each_rank_reads_its_part_of_the_files_alone(told: list[dict[str, Any]]) -> None:
    for found in (each["loading"] for each in told):
        assert all(each["same"] for each in found.values()), found
        for kind in ("llama", "gpt2"):
            assert found[kind]["read"] == found[kind]["half"]
            assert found[kind]["dtypes"] == ["torch.float32"]
        assert [each["offloaded"] for each in found.values()] == [[False], [True], [False]]
        # Files of float32 become what the settings say.
        assert found["qwen3"]["dtypes"] == ["torch.bfloat16"]
        assert found["qwen3"]["read"] == 2 * found["qwen3"]["half"]


@pytest.mark.slow
def test_three_ranks_whose_parts_are_uneven(tmp_path: Path) -> None:
    """32 and 48 rows in three parts: the last is smaller, and padded when it is sent."""
    told = launched(tmp_path, 3, "all")
    assert {"ppo-groups", "ppo-packed"} <= set(told[0]["equality"])
    require_equal(told)
    kept = [found["memory"]["kept"][0] for found in told]
    assert sum(kept) == told[0]["memory"]["layers"] and max(kept) < 0.4 * sum(kept) and len(set(kept)) > 1


@pytest.mark.parametrize(
    ("needs", "chosen"),
    [
        ([HERE, HERE, HERE], HERE),
        ([HERE, LOADS], LOADS),
        ([LOADS, BLOCK + 3], BLOCK + 3),  # whoever loads waits: its part of the old model is still asked for
        ([BLOCK + 3, BLOCK + 1, BLOCK + 3, HERE], BLOCK + 3),
        ([BLOCK + 3, BLOCK + 1], BLOCK + 1),
        ([HERE, BLOCK], BLOCK),
    ],
)
def test_what_ranks_do_next(needs: list[int], chosen: int) -> None:
    assert choose(needs) == chosen and choose(needs[::-1]) == chosen


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> RunSettings:
    folder = tmp_path_factory.mktemp("chosen")
    write_data(folder)
    return settings(folder, method="lora")


def test_auto_divides_a_base_that_does_not_fit(chosen: RunSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(strategy: str = "auto", **changes: Any) -> bool:
        parallel = chosen.parallel.model_copy(update={"strategy": strategy})
        return is_divided(chosen.model_copy(update={"parallel": parallel, **changes}), Place(0, 2, 0, 2), cpu)

    cpu, asked = torch.device("cpu"), []

    class Planned:
        strategy = "fsdp2"

    def plan(given: RunSettings, machine: Any) -> type[Planned]:
        asked.append((machine.gpus, machine.memory))
        return Planned

    monkeypatch.setattr(ranks, "plan_for", plan)
    assert not found() and not asked  # ample: no plan is made
    assert found("fsdp2") and not found("replicated") and not asked
    monkeypatch.setattr(ranks, "available_gb", lambda: 0.001)
    assert found() and asked == [(2, 0.0005e9)]
    Planned.strategy = "replicated"
    assert not found()
    assert not found(sft=chosen.sft.model_copy(update={"method": "full"}))


def test_parts_of_a_base_that_is_not_divided_are_not_offloaded(tmp_path: Path) -> None:
    for strategy in ("auto", "replicated"):
        with pytest.raises(ValueError, match=f"cpu_offload .* parallel.strategy is {strategy}; set it to fsdp2"):
            settings(tmp_path, method="lora", parallel={"strategy": strategy, "cpu_offload": True})
    chosen = settings(tmp_path, method="lora", parallel={"strategy": "fsdp2", "cpu_offload": True})
    with (
        pytest.raises(SettingsError, match=r"cpu_offload: .* a single process has the whole"),
        ranks_of(chosen, Place()),
    ):
        pass
