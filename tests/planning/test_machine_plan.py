"""The plan for a machine that is described: shares of the work, sharded weights, hours and prices by hand."""

import json
from pathlib import Path

import pytest
import torch
from tests.resolved import resolved_yaml
from tests.runs.small_run import settings, write_data

from triphase.cli.main import main
from triphase.demo.tiny import tiny_directory
from triphase.errors import SettingsError
from triphase.footprints.moments import ADAPTERS, BASE, CACHE, GRADIENTS, MOMENTS, TEMPORARY, Footprint, Moment
from triphase.footprints.work import Shape
from triphase.planning.machine import CARDS, Machine, machine_of
from triphase.planning.machine_plan import SHARES, MachinePlan, plan_for, share_of, strategies_for
from triphase.settings.schema import RunSettings

H100 = CARDS["h100"]


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> RunSettings:
    folder = tmp_path_factory.mktemp("machine")
    write_data(folder)
    ppo = {"batch_size": 8, "minibatch_size": 4, "iterations": 3, "max_response_tokens": 8}
    variants = {"other": {"kl_coefficient": 0.0}}
    return settings(folder, method="lora", adapters={"layers": 1, "rank": 4}, ppo=ppo, variants=variants)


@pytest.fixture(scope="module")
def one(chosen: RunSettings) -> MachinePlan:
    return plan_for(chosen, Machine(H100, 1, 80e9))


def part(plan: MachinePlan, phase: str, name: str) -> float:
    found = next(each for each in plan.phases if each.phase == phase)
    return max(moment.parts.get(name, 0.0) for moment in found.moments)


@pytest.mark.parametrize("has_gpu", [False, True])
def test_passes_are_those_of_the_machine_and_not_of_this_one(
    chosen: RunSettings, has_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    ppo = chosen.ppo.model_copy(update={"batch_size": 512, "minibatch_size": 512})
    peaks = {}
    for most in (None, 512, 4096):
        sized = chosen.model_copy(update={"ppo": ppo.model_copy(update={"microbatch_tokens": most})})
        plan = plan_for(sized, Machine(H100, 1, 80e9))
        peaks[most] = next(each for each in plan.phases if each.phase == "ppo").peak.total
    assert peaks[None] == peaks[4096] > peaks[512]


def test_two_cards_share_the_work_of_one(chosen: RunSettings, one: MachinePlan) -> None:
    two = plan_for(chosen, Machine(H100, 2, 80e9))
    assert (one.strategy, two.strategy) == ("one process", "replicated") and not two.too_large
    assert [each.phase for each in one.phases] == ["sft", "sampling", "reward", "ppo", "arms/other", "evaluation"]
    for whole, half in zip(one.phases, two.phases, strict=True):
        # All cards together do what one does, and rank 0 alone what is its own; each may read held-out records.
        for kind in whole.tokens:
            share = two.tokens(half, kind) / one.tokens(whole, kind)
            assert share == pytest.approx(1, rel=0.25) or (kind == "forward" and 1 < share < 2), (whole.phase, kind)
        assert half.moments[0].parts[BASE] == whole.moments[0].parts[BASE]
    assert two.hours(two.phases[5]) == one.hours(one.phases[5]) and two.hours(two.phases[3]) < one.hours(one.phases[3])
    for found in (one, two):  # PPO: 3 iterations of 8 episodes of 8 tokens
        assert found.tokens(found.phases[3], "decoding") == 3 * 8 * 8
    assert two.phases[3].passes["decoding"] == 3 * 8 and one.phases[3].passes["decoding"] == 3 * 8


def test_a_rank_has_the_larger_share_of_what_does_not_divide(chosen: RunSettings) -> None:
    """Of 8 records on 3 cards 3; of 6 prompts a minibatch 2, with 2 responses each, and as many minibatches."""
    ppo = chosen.ppo.model_copy(update={"minibatch_size": 12, "batch_size": 24, "responses_per_prompt": 2})
    changes = {name: getattr(chosen, name).model_copy(update={"batch_size": 8}) for name in ("sft", "reward")}
    found = share_of(chosen.model_copy(update={**changes, "ppo": ppo}), 4)
    assert (found.sft.batch_size, found.reward.batch_size) == (2, 2)
    assert (found.ppo.minibatch_size, found.ppo.batch_size) == (4, 8)
    found = share_of(chosen.model_copy(update={**changes, "ppo": ppo}), 3)
    assert (found.sft.batch_size, found.reward.batch_size) == (3, 3)
    assert (found.ppo.minibatch_size, found.ppo.batch_size) == (4, 8)
    other = found.ppo_of("other")
    assert other.kl_coefficient == 0.0 and (other.minibatch_size, other.batch_size) == (4, 8)


LAYER = 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128 + 2 * 64
"""Numbers in a layer of the tiny model, which has two."""


def test_beyond_one_card_layers_are_divided_and_what_is_trained_is_not(chosen: RunSettings, one: MachinePlan) -> None:
    whole = one
    total = part(whole, "sft", BASE)
    # The replicated base no longer fits, whatever else there is; the context alone takes 0.6 GB.
    sharded = plan_for(chosen, Machine(H100, 4, 0.6e9))
    assert sharded.strategy == "fsdp2" and sharded.too_large
    # What a card holds: a quarter of the layers, all outside of them, and a layer that is gathered, twice.
    assert part(sharded, "sft", BASE) == pytest.approx(total - 4 * 2 * LAYER * 3 / 4 + 4 * 2 * LAYER)
    for name in (ADAPTERS, GRADIENTS, MOMENTS):
        assert part(sharded, "ppo", name) == part(whole, "ppo", name) > 0
    assert sharded.gathered == 4 * 2 * LAYER * 3 / 4 and whole.gathered == 0.0


def test_a_policy_with_all_weights_is_divided_like_its_base(chosen: RunSettings) -> None:
    ppo = chosen.ppo.model_copy(update={"method": "full"})
    model = chosen.model.model_copy(update={"dtype": "float32"})
    parallel = chosen.parallel.model_copy(update={"strategy": "fsdp2"})
    chosen = chosen.model_copy(update={"ppo": ppo, "model": model, "parallel": parallel, "variants": {}})
    whole, sharded = (plan_for(chosen, Machine(H100, gpus, 80e9)) for gpus in (1, 4))
    assert (whole.strategy, sharded.strategy) == ("one process", "fsdp2")
    size, given = 4 * LAYER, 2 * 4 * LAYER * 3 / 4  # two layers in float32; of each a quarter stays
    for phase, models in (("ppo", 2), ("evaluation", 2), ("sft", 1)):  # the base, and the policy beside it
        assert part(sharded, phase, BASE) == pytest.approx(part(whole, phase, BASE) - models * given + 2 * size)
    assert part(sharded, "ppo", MOMENTS) == pytest.approx(part(whole, "ppo", MOMENTS) - 2 * given)
    assert part(sharded, "sft", MOMENTS) == part(whole, "sft", MOMENTS) > 0
    assert part(sharded, "ppo", GRADIENTS) == part(whole, "ppo", GRADIENTS) > given
    # What a checkpoint takes to be written is not on the card.
    found = next(each for each in sharded.phases if each.phase == "ppo")
    assert {each.name: each.parts[TEMPORARY] for each in found.moments}["checkpoint"] == 0.0


def test_the_settings_narrow_what_is_planned(chosen: RunSettings) -> None:
    def found(gpus: int = 4, strategy: str = "auto", method: str = "lora") -> tuple[str, ...]:
        changes = {"parallel": {"strategy": strategy}, "sft": {"method": method}}
        parts = {name: getattr(chosen, name).model_copy(update=values) for name, values in changes.items()}
        return strategies_for(Machine(H100, gpus, 80e9), chosen.model_copy(update=parts))

    assert found() == ("replicated", "fsdp2")
    assert found(strategy="replicated") == ("replicated",) and found(strategy="fsdp2") == ("fsdp2",)
    assert found(method="full") == ("replicated",)  # what is trained whole is not divided
    assert found(gpus=1, strategy="fsdp2") == ("one process",)


def test_hours_and_prices_by_hand() -> None:
    parts = {BASE: 2e9, ADAPTERS: 1e7, CACHE: 5e8}
    found = Footprint("ppo", [Moment("sampling", parts, Shape(1, 1, 1))])
    found.flops = {"training": 1e15, "forward": 5e14, "decoding": 9e99}
    found.passes = {"training": 10.0, "forward": 4.0, "decoding": 100.0}
    machine = Machine(H100, 8, 80e9, price=2.0)
    rate, bandwidth, link = 989e12, 3350e9, 450e9
    seconds = 1.5e15 / (rate * SHARES["training"]) + 100 * 2.51e9 / (bandwidth * SHARES["decoding"])
    plain = MachinePlan(machine, "replicated", [found], 0.0, {})
    assert plain.hours(found) == pytest.approx(seconds / 3600)
    assert plain.cost(found) == pytest.approx(8 * 2.0 * seconds / 3600)
    sharded = MachinePlan(machine, "fsdp2", [found], 1.75e9, {})
    seconds += 100 * 1.75e9 / (bandwidth * SHARES["decoding"])  # what was gathered is read too
    assert sharded.hours(found) == pytest.approx((seconds + (2 * 10 + 4 + 100) * 1.75e9 / link) / 3600)
    found.by_servers = True  # they gather nothing
    assert sharded.hours(found) == pytest.approx((seconds + (2 * 10 + 4) * 1.75e9 / link) / 3600)
    assert MachinePlan(Machine(H100, 8, 80e9), "replicated", [found], 0.0, {}).cost(found) is None


def test_a_checkpoint_is_the_weights_that_are_trained_and_two_moments_of_each(one: MachinePlan) -> None:
    numbers = 4 * (2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 128))
    assert one.checkpoint == dict.fromkeys(("sft", "reward", "ppo", "arms/other"), 12.0 * numbers)


@pytest.mark.parametrize(
    ("changes", "ranks", "problem"),
    [
        ({}, 3, "sft.batch_size: 2 gives 2"),
        ({"sft": {"batch_size": 8, "optimizer": {"learning_rate": 1e-3}}}, 5, "ppo.minibatch_size: 4 gives 4"),
        (
            {
                "sft": {"batch_size": 8, "optimizer": {"learning_rate": 1e-3}},
                "ppo": {"batch_size": 16, "minibatch_size": 8, "responses_per_prompt": 4, "max_response_tokens": 8},
            },
            3,
            "ppo.minibatch_size: 8 gives 2",
        ),
        (
            {
                "sft": {"batch_size": 8, "optimizer": {"learning_rate": 1e-3}},
                "variants": {"small": {"minibatch_size": 2}},
            },
            3,
            "variants.small.minibatch_size: 2 gives 2",
        ),
    ],
)
def test_more_cards_than_a_step_has_work_for_are_refused(
    tmp_path: Path, changes: dict[str, object], ranks: int, problem: str
) -> None:
    write_data(tmp_path)
    ppo = {"batch_size": 8, "minibatch_size": 4, "iterations": 3, "max_response_tokens": 8}
    sft = {"batch_size": 2, "optimizer": {"learning_rate": 1e-3}}
    reward = {"batch_size": 8, "optimizer": {"learning_rate": 1e-3}}
    values = settings(tmp_path, **{"ppo": ppo, "sft": sft, "reward": reward, **changes})
    with pytest.raises(SettingsError, match=problem):
        share_of(values, ranks)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--gpus", "2"), "--memory 80GB or --card h100"),
        (("--gpus", "0", "--card", "h100"), "--gpus: 0"),
        (("--gpus", "2", "--memory", "huge"), "--memory: 'huge'"),
        (("--gpus", "2", "--memory", "nan"), "--memory: 'nan'"),
        (("--gpus", "2", "--card", "voodoo"), "--card: 'voodoo' is not known; choose one of l4"),
        (("--gpus", "2", "--card", "h100", "--price", "-1"), "--price"),
        (("--card", "h100"), "--card: describes a machine"),
        (("--price", "2"), "--price: describes a machine"),
    ],
)
def test_a_machine_that_is_not_described_well_is_one_line(
    tmp_path: Path, words: tuple[str, ...], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data(tmp_path)
    (tmp_path / "run.yaml").write_text(resolved_yaml(settings(tmp_path)))
    assert main(["plan", str(tmp_path / "run.yaml"), *words]) == 2
    error = capsys.readouterr().err
    assert problem in error and len(error.splitlines()) == 1


def test_memory_alone_takes_the_slowest_card_of_that_size() -> None:
    assert machine_of(8, "80GB", None, None) == Machine(CARDS["a100-80gb"], 8, 80e9, assumed=True)
    assert machine_of(1, "24 gb", None, 1.5) == Machine(CARDS["rtx-3090"], 1, 24e9, 1.5, assumed=True)
    assert machine_of(1, "40GB", "H100", None) == Machine(H100, 1, 40e9)


def deep_model(folder: Path) -> Path:
    """The tiny model's configuration and tokenizer with 40 layers, and no weights."""
    folder.mkdir()
    for path in tiny_directory().joinpath("model").glob("*"):
        if path.suffix != ".safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_hidden_layers": 40}
    config.pop("layer_types", None)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_the_command_prints_what_it_writes(
    tmp_path: Path, chosen: RunSettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "run.yaml").write_text(resolved_yaml(chosen))
    plan = tmp_path / "plan.json"
    words = ["plan", str(tmp_path / "run.yaml"), "--gpus", "2", "--card", "h100", "--price", "3"]
    assert main([*words, "--json", str(plan)]) == 0
    shown, found = capsys.readouterr().out, json.loads(plan.read_text())
    assert shown.startswith("2 × h100 with 80.00 GB each: replicated") and "cost, roughly" in shown
    assert "time, roughly" in shown and " min " in shown
    assert main([*words[:-4], "--memory", "80GB"]) == 0
    assert (
        "a100-80gb with 80.00 GB each (the slowest card of this size; --card names another)" in capsys.readouterr().out
    )
    assert found["phases"]["ppo"]["cost"] == pytest.approx(6 * found["phases"]["ppo"]["hours"])
    # Cards between what a whole base takes and what a part of many layers does.
    deep = deep_model(tmp_path / "deep")
    words = ["plan", str(tmp_path / "run.yaml"), "--model", str(deep), "--adapters.layers", "1", "--gpus", "2"]
    assert main([*words, "--memory", "80GB", "--json", str(plan)]) == 0
    assert ": replicated (every card holds the whole base" in capsys.readouterr().out
    needs = max(each["peak_bytes"] for each in json.loads(plan.read_text())["phases"].values())
    monkeypatch.setattr("triphase.planning.machine_plan._ROOM", (needs - 4 * LAYER * 10) / 1e9)
    assert main([*words, "--memory", "1GB"]) == 0
    assert ": fsdp2 (every card stores a part of the base" in capsys.readouterr().out
    assert main(["plan", str(tmp_path / "run.yaml"), "--model", str(tmp_path), "--gpus", "1", "--card", "l4"]) == 2
    assert "model.name" in capsys.readouterr().err
