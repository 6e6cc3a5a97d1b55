"""The memory of servers that a run starts, in the plan: by hand, on a CPU and on cards, and what it replaces."""

from pathlib import Path

import pytest
from tests.planning.test_machine_plan import H100, part
from tests.runs.small_run import settings, write_data

from triphase.footprints.moments import CACHE, SERVERS
from triphase.footprints.server_memory import PROCESSES
from triphase.planning.machine import Machine
from triphase.planning.machine_plan import plan_for
from triphase.planning.plan import make_plan
from triphase.settings.schema import RunSettings

BASE_BYTES = 300032
"""Of the tiny model in float32 (by hand in `test_plan`)."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("served")
    write_data(made)
    return made


def chosen(folder: Path, **rollouts: object) -> RunSettings:
    ppo = {"batch_size": 8, "minibatch_size": 4, "iterations": 2, "max_response_tokens": 8}
    return settings(folder, method="lora", adapters={"layers": 1, "rank": 4}, ppo=ppo, rollouts=rollouts)


def test_on_a_cpu_each_server_has_the_base_its_cache_and_its_processes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "3")
    plan = make_plan(chosen(folder, servers=2, evaluation=True), 0.0)
    phases = {each.phase: each for each in plan.phases}
    servers = {name: each.peak.parts[SERVERS] for name, each in phases.items()}
    expected = 2 * (BASE_BYTES + 3 * 2**30 + PROCESSES)
    assert servers == {"sft": 0, "sampling": 0, "reward": 0, "ppo": expected, "evaluation": expected}
    assert phases["ppo"].remedies[0] == ("rollouts.servers: 1", pytest.approx(expected / 2))
    assert any("2 servers on this machine take about 10.38 GB in all" in note for note in plan.notes)
    # What servers sample needs no cache here; what this process samples does.
    caches = {name: max(moment.parts.get(CACHE, 0.0) for moment in each.moments) for name, each in phases.items()}
    assert caches["ppo"] == caches["evaluation"] == 0 < caches["sampling"]
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE")
    elsewhere = make_plan(chosen(folder, addresses=["http://h:1"], sampling=True), 0.0)
    assert not any(moment.parts[SERVERS] for each in elsewhere.phases for moment in each.moments)
    assert not elsewhere.notes and not elsewhere.phases[1].peak.parts.get(CACHE)


def test_a_trial_of_both_engines_has_the_cache_of_this_process_too(folder: Path) -> None:
    caches = {}
    for engine in ("vllm", "auto"):
        (ppo,) = (
            each for each in make_plan(chosen(folder, servers=1, engine=engine), 0.0).phases if each.phase == "ppo"
        )
        caches[engine] = max(moment.parts.get(CACHE, 0.0) for moment in ppo.moments)
    assert caches["vllm"] == 0 < caches["auto"]


@pytest.mark.parametrize(
    ("rollouts", "ranks", "share", "note"),
    [
        ({"servers": 1}, 1, 0.92, "each server takes 0.92 of its card"),
        ({"servers": 2, "arguments": ["--gpu-memory-utilization=0.3"]}, 2, 0.6, "all 2 48.00 GB of a card"),
        ({"servers": 2, "arguments": ["--gpu-memory-utilization", "0.25"], "devices": ["1", "2,3"]}, 2, 0.25, "0.25"),
        ({"servers": 3, "arguments": ["--gpu_memory_utilization=0.25"], "devices": ["0", "1,2", "1"]}, 2, 0.5, "0.25"),
        ({"servers": 2, "devices": ["1", "2"]}, 1, 0, "2 servers run on cards of their own"),
    ],
)
def test_on_a_card_a_server_takes_its_share_of_it(
    folder: Path, rollouts: dict[str, object], ranks: int, share: float, note: str
) -> None:
    plan = plan_for(chosen(folder, **rollouts), Machine(H100, ranks, 80e9))
    assert part(plan, "ppo", SERVERS) == pytest.approx(share * 80e9) and part(plan, "sampling", SERVERS) == 0
    assert len(plan.notes) == 1 and note in plan.notes[0]
