"""Rounds: each samples the newest policy, trains on all rankings so far, and continues from the previous one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.runs.small_run import ppo_alone, settings, write_data

from triphase.cli import label
from triphase.errors import RunError, WaitingForPeople
from triphase.monitoring.metrics import read_metrics
from triphase.monitoring.progress import SilentProgress
from triphase.reports.contents import read_pairs
from triphase.reports.rounds import rounds_before, rounds_of
from triphase.runs.directory import RunDirectory
from triphase.runs.execution import perform
from triphase.runs.opening import open_policy, open_run
from triphase.runs.reward_training import rankings_of
from triphase.runs.rounds import earlier_rankings, further_rounds
from triphase.settings.loading import load_settings
from triphase.settings.phase_names import PPO
from triphase.settings.schema import RunSettings
from triphase.store import open_store
from triphase.training.artifacts import is_whole, place_of


def chosen(folder: Path, **changes: Any) -> RunSettings:
    return settings(folder, **{"rounds": 3, "evaluation": {"gold": "grammar", "samples_per_prompt": 1}, **changes})


def whole(folder: Path, **changes: Any) -> Path:
    perform(chosen(folder, **changes), ["all"], lambda path: None, progress=SilentProgress())
    return folder / "runs" / "small"


def test_a_further_round_has_the_settings_of_the_first_but_where_it_starts(tmp_path: Path) -> None:
    write_data(tmp_path)
    first = chosen(tmp_path, variants={"more": {"epochs": 2}})
    second, third = further_rounds(first)
    place = (tmp_path / "runs" / "small").resolve()
    assert (second.output, second.name, third.name) == (str(place / "rounds"), "2", "3")
    assert second.earlier_rounds == (str(place),)
    assert third.earlier_rounds == (str(place), str(place / "rounds" / "2"))
    assert second.sft.taken_from == third.sft.taken_from == str(place)
    assert (second.rounds, second.variants) == (1, {}) and len({first.seed, second.seed, third.seed}) == 3
    assert second.ppo == first.ppo and second.reward == first.reward
    assert RunSettings.model_validate(third.model_dump(mode="json")) == third


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"labeling": {"source": "none"}}, "labeling.source is none"),
        ({"reward": {"from": "runs/other"}}, "reward.from takes it from runs/other"),
        ({"ppo": {"method": "full"}}, "ppo.method is full"),
    ],
)
def test_what_leaves_nothing_to_repeat_is_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    write_data(tmp_path)
    with pytest.raises(ValueError, match=says):
        chosen(tmp_path, **changes)
    with pytest.raises(ValueError, match="rounds"):
        ppo_alone(tmp_path, ppo={}, rounds=2)


def test_rounds_that_were_moved_together_go_on(tmp_path: Path) -> None:
    write_data(tmp_path)
    (second, third) = further_rounds(chosen(tmp_path))
    with RunDirectory(second).held(), RunDirectory(third).held():
        (RunDirectory(third).path / "labelling.json").write_text("{}")  # so a phase has begun with these settings
    (tmp_path / "runs" / "small").rename(tmp_path / "runs" / "renamed")
    (_, moved) = further_rounds(chosen(tmp_path).model_copy(update={"name": "renamed"}))
    with RunDirectory(moved).held():
        kept = load_settings(RunDirectory(moved).path)
    assert kept.earlier_rounds == moved.earlier_rounds and kept.earlier_rounds[0].endswith("/renamed")
    assert kept.sft.taken_from == moved.earlier_rounds[0]
    elsewhere = moved.model_copy(update={"earlier_rounds": (moved.earlier_rounds[0], str(tmp_path / "other"))})
    with pytest.raises(RunError, match="earlier_rounds is"), RunDirectory(elsewhere).held():
        pass


def test_branches_beside_the_rounds_are_no_rounds(tmp_path: Path) -> None:
    for name in ("2b", "12-colder", "²"):
        place = tmp_path / "rounds" / name
        (place / "reward").mkdir(parents=True)
        for file in ("before.jsonl", "heldout.jsonl"):
            (place / "reward" / file).write_text("")
        assert rounds_before(place) == []
    assert rounds_of(tmp_path, 0) == []


@pytest.mark.parametrize("text", ["{", "[1]", "7", "[" * 100_000, '[["a", NaN]'])
def test_a_round_whose_summary_is_damaged_is_told(tmp_path: Path, text: str) -> None:
    place = tmp_path / "rounds" / "2"
    (place / "reward").mkdir(parents=True)
    for file in ("before.jsonl", "heldout.jsonl"):
        (place / "reward" / file).write_text("")
    (place / "summary.json").write_text(text)
    with pytest.raises(RunError, match=r"2/summary\.json is damaged; `triphase report .*2` writes it again"):
        rounds_of(tmp_path, 0)


@pytest.mark.slow
def test_each_round_ranks_the_newest_policy_and_goes_on_from_it(tmp_path: Path) -> None:
    write_data(tmp_path)
    run = whole(tmp_path)
    places = [run, run / "rounds" / "2", run / "rounds" / "3"]
    assert all(is_whole(place_of(place, PPO)) for place in places)
    names = []
    for place in places:
        with open_store(place / "labels.sqlite") as store:
            names.append({response.model for response in store.responses()})
            assert store.rankings()
    assert names == [{"sft"}, {"ppo-round-1"}, {"ppo-round-2"}]
    third = open_run(places[2])
    assert len(earlier_rankings(third)) == 32  # of 16 prompts in each of the two before
    trained, held = rankings_of(third)
    assert len(trained.groups) == 48 and len(held.groups) == 6
    # PPO goes on: the policy is not the reference at the first iteration, and its KL counts from the SFT policy.
    kls = [read_metrics(place / "ppo" / "metrics.jsonl")[0]["ppo/reference_kl"] for place in places]
    assert kls[0] == 0 and kls[1] != 0 and kls[2] != 0
    summary = json.loads((run / "summary.json").read_text())["rounds"]
    assert [each["round"] for each in summary] == [2, 3]
    for each, place in zip(summary, places[1:], strict=True):
        for name, file in (("accuracy_before", "before.jsonl"), ("accuracy_after", "heldout.jsonl")):
            pairs = read_pairs(place / "reward" / file)
            right = [
                (pair.score_first > pair.score_second) + (pair.score_first == pair.score_second) / 2 for pair in pairs
            ]
            assert each[name]["value"] == pytest.approx(sum(right) / len(right))
        assert each["ppo"]["reference_kl"] is not None
    # The same command again does nothing, and more rounds begin behind the last one.
    before = (places[2] / "ppo" / "final" / "manifest.json").read_bytes()
    perform(load_settings(run).model_copy(update={"rounds": 4}), ["all"], lambda path: None, progress=SilentProgress())
    assert (places[2] / "ppo" / "final" / "manifest.json").read_bytes() == before
    assert is_whole(place_of(run / "rounds" / "4", PPO))


@pytest.mark.slow
def test_a_run_that_is_killed_in_a_round_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []
    for name in ("whole", "killed"):
        folder = tmp_path / name
        write_data(folder)
        if name == "killed":
            for at in ("earlier_rankings", "continue_policy"):
                with monkeypatch.context() as patch:
                    patch.setattr(f"triphase.runs.{_USER[at]}.{at}", _power_cut)
                    with pytest.raises(RuntimeError, match="power cut"):
                        whole(folder, rounds=2)
        shared, adapter, _ = open_policy(whole(folder, rounds=2) / "rounds" / "2", policy=PPO)
        assert adapter is not None
        ends.append(shared.adapters.state(adapter))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


_USER = {"earlier_rankings": "reward_training", "continue_policy": "phases"}


def _power_cut(run: Any, *_: Any) -> Any:
    if run.settings.earlier_rounds:
        raise RuntimeError("power cut")
    return [] if not _ else None


@pytest.mark.slow
def test_people_are_waited_for_in_each_round(tmp_path: Path) -> None:
    write_data(tmp_path)
    people = {"source": "people", "required_share": 0.5}
    waits = []
    for _ in range(3):
        try:
            run = whole(tmp_path, rounds=2, labeling=people)
            break
        except WaitingForPeople as stopped:
            place = tmp_path / "runs" / "small" / ("rounds/2" if waits else "")
            waits.append(str(stopped))
            assert f"`triphase label serve {place.resolve()}`" in waits[-1].replace(
                str(tmp_path), str(tmp_path.resolve())
            )
            label.simulate(str(place), labelers=2, gold="grammar")
    assert len(waits) == 2 and is_whole(place_of(run / "rounds" / "2", PPO))
