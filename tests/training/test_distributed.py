"""Several processes train as one does: shares, equality with one process, resuming with another world size, NaN.

One launch of two ranks (`tests.training.together`) serves all comparisons; whole runs are in
`test_distributed_runs.py`.
"""

import json
import random
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.training.together import PHASES
from tests.training.worlds import begin, ended
from torch.distributed import HashStore

from triphase.cli.main import main
from triphase.errors import RunError, SettingsError
from triphase.runs.ranks import require_alike
from triphase.settings.parallel import require_work
from triphase.settings.schema import RunSettings
from triphase.training.distributed import joining, presence
from triphase.training.distributed.environment import Place, place_in
from triphase.training.distributed.joining import start_name
from triphase.training.distributed.replicated import Replicated
from triphase.training.distributed.shares import divide
from triphase.training.distributed.types import ALONE, RankLost

WORLD = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The results of each of two ranks."""
    folder = tmp_path_factory.mktemp("together")
    results = ended(begin(["-m", "tests.training.together", str(folder)]))
    assert [code for code, _ in results] == [0, 0], results
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("phase", PHASES)
def test_two_ranks_do_the_steps_of_one(told: list[dict[str, Any]], phase: str) -> None:
    found = told[0]["equality"][phase]
    assert found["one start"] and found["same start"]  # heads included: nothing is drawn per process
    assert found["one end"] and told[1]["equality"][phase]["one end"]
    assert found["steps"] >= 3
    assert max(found["gradients"], found["parameters"], found["metrics"]) < 1e-6
    assert found["extremes"] < 5e-6


@pytest.mark.parametrize("phase", ["sft", "reward", "ppo", "ppo-mixed"])
def test_a_phase_goes_on_under_another_world(told: list[dict[str, Any]], phase: str) -> None:
    found = told[0]["change_of_world"][phase]
    assert found["stopped at"] == 2  # a step by two ranks, a step by one
    assert found["parameters"] < 1e-6
    assert found["files"] == ["manifest.json", "tensors.safetensors", "values.json"]


def test_what_is_not_finite_on_one_rank_is_skipped_by_all(told: list[dict[str, Any]]) -> None:
    for found in (each["not_finite"] for each in told):
        assert found["loss is nan"] and found["skipped"] == [1.0, 1.0, 0.0] and found["unchanged"]
        assert found["named"][0].startswith("the gradient of ")
        assert "not finite in one step" in found["error"]


def test_what_a_strategy_promises(told: list[dict[str, Any]]) -> None:
    for found in (each["primitives"] for each in told):
        assert found["absent"] and found["here"] == [1.0, 2.0] and found["both"] == [3.0, 3.0]
        assert found["ints"] == [2**40, 2**40 + 1] and found["floats"] == [0.5, 0.5]
        assert found["total"] == {"a": 3.0, "b_max": 0.0}
        assert found["any"] == [True, False]
        assert found["lead"] == {"rank": 0, "nan": [1e-300, 0.1]}
        assert found["gather"] == [[0, "x"], [1, "x"]]
        assert found["refusal"].startswith("the weights of rank 1 and rank 0 differ")
        assert found["servers"] == [[[5, 1], True], [[6, 1], False]]


def test_ranks_try_engines_together_and_choose_one(told: list[dict[str, Any]]) -> None:
    both = [["local", ["local", "vllm"], ""], ["vllm", ["local", "vllm"], ""], ["local", [], "nobody is there"]]
    for rank, found in enumerate(each["engines"] for each in told):
        assert [each["choice"] for each in found.values()] == both
        assert [each["written"] for each in found.values()] == [[5, 1]] * 3
        assert {each["said"] for each in found.values()} == {1 - rank}  # rank 0 tells it


def test_alone_everything_is_its_own() -> None:
    assert ALONE.is_lead and ALONE.mine([3, 1, 2]) == [0, 1, 2] and ALONE.divided([3, 1]) == [0, 0]
    assert ALONE.total({"a_max": 2.0}) == {"a_max": 2.0} and ALONE.any(True) and not ALONE.any(False)
    ALONE.require_same("the weights", "x")


def test_shares_are_even_and_stay_where_they_are() -> None:
    draw = random.Random(0)
    for world in (2, 3, 8):
        costs = [draw.randint(1, 100) for _ in range(64)]
        owners = divide(costs, world)
        loads = Counter[int]()
        for rank, cost in zip(owners, costs, strict=True):
            loads[rank] += cost
        assert max(loads.values()) - min(loads.values()) <= min(costs) + 1
        assert divide(costs, world, owners) == owners  # nothing moves that need not
    assert divide([5, 5, 1], 2, [0, 0, 0]) == [1, 0, 0]
    assert divide([7], 2) == [0] and divide([], 2) == [] and divide([3, 4], 1) == [0, 0]
    # A large sample is not thrown from one rank to the other.
    assert divide([100, 1], 2, [0, 1]) == [0, 1]


def test_the_place_of_a_process() -> None:
    assert place_in({}) == Place()
    assert place_in(WORLD) == Place(1, 2, 1, 2)
    assert place_in(WORLD | {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}) == Place(1, 2, 0, 1)
    with pytest.raises(SettingsError, match="lacks WORLD_SIZE"):
        place_in({"RANK": "0", "MASTER_ADDR": "h", "MASTER_PORT": "1", "LOCAL_WORLD_SIZE": "1"})
    for wrong in ({"RANK": "2"}, {"RANK": "-1"}, {"WORLD_SIZE": "two"}, {"LOCAL_RANK": "3"}):
        with pytest.raises(SettingsError, match="is not a valid rank"):
            place_in(WORLD | wrong)


def small(**changes: Any) -> RunSettings:
    values = {"name": "x", "model": {"name": "embedded:tiny"}, "data": {"demonstrations": [{"path": "d.jsonl"}]}}
    return RunSettings.model_validate(values | changes)


def test_every_process_needs_work() -> None:
    require_work(small(), 8)
    with pytest.raises(SettingsError, match=r"sft.batch_size: 3 gives 3 samples .* at most 3 processes"):
        require_work(small(sft={"batch_size": 3}), 4)
    with pytest.raises(SettingsError, match=r"variants.b.minibatch_size: 8 gives 2 prompts"):
        require_work(small(ppo={"batch_size": 8, "minibatch_size": 8}, variants={"b": {"responses_per_prompt": 4}}), 4)


def test_ranks_that_differ_are_named_with_what_differs() -> None:
    lead = {"the code of triphase": "a", "the setting seed": "0"}
    require_alike([lead, dict(lead)], ["cpu", "cpu"])
    with pytest.raises(RunError, match=r'rank 1 \(host b\) differs from rank 0 in the setting seed \("1" there, "0"'):
        require_alike([lead, lead | {"the setting seed": "1"}], ["host a", "host b"])
    with pytest.raises(RunError, match=r"the file x \(s there, null on rank 0\)"):
        require_alike([lead, lead | {"the file x": "s"}], ["host a", "host b"])


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_a_world_that_was_not_asked_for_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("name: x\nmodel: {name: embedded:tiny}\ndata: {demonstrations: [{path: d.jsonl}]}\n")
    assert "--processes: 0 is not allowed" in refused(capsys, "run", str(config), "--processes", "0")
    many = refused(capsys, "run", str(config), "--processes", "1000", "--sft.batch-size", "8")
    assert "sft.batch_size: 8 gives 8 samples" in many
    assert "without CONFIG or --processes" in refused(capsys, "run", "--verify", str(tmp_path), "--processes", "2")
    for name, value in WORLD.items():
        monkeypatch.setenv(name, value)
    three = refused(capsys, "run", str(config), "--processes", "3")
    assert three == "rank 1: error: --processes: 3 requested, but 2 are running already (WORLD_SIZE)"
    assert "check runs in one process, but 2 were started" in refused(capsys, "check", str(config))


def test_a_port_in_use_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import socket

    config = tmp_path / "c.yaml"
    config.write_text("name: x\nmodel: {name: embedded:tiny}\ndata: {demonstrations: [{path: d.jsonl}]}\n")
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        monkeypatch.setenv("MASTER_PORT", str(taken.getsockname()[1]))
        assert "the port is in use" in refused(capsys, "run", str(config), "--processes", "2")
    for wrong in ("http", "²", "65536", "9" * 5000):
        monkeypatch.setenv("MASTER_PORT", wrong)
        assert f"MASTER_PORT={wrong[:20]}: is not a port" in refused(capsys, "run", str(config), "--processes", "2")


def test_ranks_wait_no_longer_than_a_clock_can_count() -> None:
    for wrong in (0, 1e20, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=r"parallel\.timeout_seconds"):
            small(parallel={"timeout_seconds": wrong})


def test_a_store_that_torchrun_keeps_has_no_say_in_the_next_start() -> None:
    """Three ranks in threads at one store, twice: each start has its own name, equal on all ranks."""
    store, names = HashStore(), []
    store.set("hello/1", "of a rank that ended before it was answered")
    for _ in range(2):
        with ThreadPoolExecutor(3) as ranks:
            found = {*ranks.map(lambda rank: start_name(store, Place(rank, 3, rank, 3)), range(3))}
        assert len(found) == 1
        names += found
    assert len(set(names)) == 2


def test_what_rank_0_fails_at_while_others_wait_for_it_is_told_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    store = HashStore()
    lead, other = (Replicated(store, rank, 2) for rank in (0, 1))
    try:
        for strategy in (lead, other):
            assert strategy.from_lead(lambda: "a plan") == "a plan"
        monkeypatch.setattr(joining, "_met", lambda place, **_: lead if place.rank == 0 else other)

        def divided(strategy: Any) -> bool:
            return bool(strategy.from_lead(lambda: 1 / 0))

        options = {"on_gpu": False, "timeout_seconds": 5.0, "shards": divided}
        with pytest.raises(ZeroDivisionError), joining.joined(Place(0, 2, 0, 2), **options):
            pass
        with (
            pytest.raises(RankLost, match="rank 0 ended before training started; see"),
            joining.joined(Place(1, 2, 1, 2), **options),
        ):
            pass
    finally:
        lead.leave()
        other.leave()


def test_a_rank_waits_for_rank_0_as_long_as_that_has_a_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "_BEAT_SECONDS", 0.05)
    store = HashStore()
    lead, other = (Replicated(store, rank, 2, timeout_seconds=0.3) for rank in (0, 1))
    try:
        with ThreadPoolExecutor(1) as waiting:
            told = waiting.submit(other.from_lead, lambda: "")
            time.sleep(0.8)  # evaluates, say
            assert lead.from_lead(lambda: "done") == "done" == told.result(5)
            lead.leave()  # as if its machine were gone
            told = waiting.submit(other.from_lead, lambda: "")
            try:
                with pytest.raises(RankLost, match=r"^rank 0 did not arrive in time \(parallel\.timeout_seconds\)"):
                    told.result(5)
            finally:
                lead.from_lead(lambda: "")  # ends what still waits
    finally:
        lead.leave()
        other.leave()


def test_torch_distributed_is_imported_in_one_folder() -> None:
    package = Path(__file__).parents[2] / "src" / "triphase"
    importing = {path.parent for path in package.rglob("*.py") if "torch.distributed" in path.read_text()}
    importing -= {package / "training" / "distributed"}
    assert importing == set()
    code = "import sys, triphase.cli.main, triphase.cli.run; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
