"""Reward models of several: what each learns from, what they share, and how they become one."""

import dataclasses
from pathlib import Path

import pytest
import torch
from tests.phases.test_reward import groups_of, pairs_of, phase, settings
from tests.small import Lines, samples, shared_model, stir

from triphase.models.members import Combination, Ensemble, RewardMember, member_adapter
from triphase.models.roles import REFERENCE, REWARD, SharedModel
from triphase.objectives import combine_scores, within_group_slope
from triphase.phases.reward import RewardPhase
from triphase.phases.reward_calibration import average_members, calibrate, join_members, take_length_off
from triphase.phases.reward_member import Member, alone, bootstrap_counts, halves_of, members_of
from triphase.rewards.model import ModelScorer, figures_of, score_samples
from triphase.settings.phases import EnsembleSettings
from triphase.training.loop import LoopOptions, run_loop

PROMPTS = [f"p{number // 2}" for number in range(40)]  # two rankings of each prompt


def member_phase(shared: SharedModel, member: Member, groups, like=None, **values: object) -> RewardPhase:
    pairs = [pairs_of(group) for group in groups]
    return RewardPhase(shared, groups, pairs, [], [], settings(**values), seed=0, member=member, like=like)


def test_prompts_are_drawn_with_replacement_and_their_rankings_together() -> None:
    counts = [bootstrap_counts(PROMPTS, 0, number) for number in range(200)]
    for found in counts:
        assert sum(found) == 40 and found[::2] == found[1::2]
    absent = sum(count == 0 for found in counts for count in found) / 8000
    assert absent == pytest.approx((1 - 1 / 20) ** 20, abs=0.02)  # 0.358
    assert len(set(counts)) == 200 and bootstrap_counts(PROMPTS, 0, 3) == counts[3]
    assert bootstrap_counts(PROMPTS, 1, 0) != counts[0]


def test_halves_share_no_prompt_and_leave_none_out() -> None:
    first, second = halves_of(PROMPTS[:-2], seed=0)
    assert sorted(first + second) == list(range(38))
    assert not {PROMPTS[place] for place in first} & {PROMPTS[place] for place in second}
    assert (len(first), len(second)) == (20, 18)
    assert halves_of(["p"], seed=0) == ([0], [])


def test_a_ranking_that_counts_twice_pulls_as_if_it_were_there_twice() -> None:
    """The gradient of a step with counts is that of a step in which the rankings stand as often as they count."""
    groups, counts = groups_of(4), (2, 0, 1, 3)
    found = []
    for chosen, given in (
        (groups, counts),
        ([groups[n] for n, count in enumerate(counts) for _ in range(count)], None),
    ):
        shared = shared_model()
        stir(shared, REFERENCE)
        subject = member_phase(shared, dataclasses.replace(alone(shared), counts=given), chosen, batch_size=6)
        assert subject.total_steps == 1
        kept: dict[str, torch.Tensor] = {}
        step = subject.state.updater.step

        def spied(subject: RewardPhase = subject, kept: dict[str, torch.Tensor] = kept, step=step):
            kept.update({name: value.grad.clone() for name, value in subject.state.updater.parameters.items()})
            return step()

        subject.state.updater.step = spied
        found.append((subject.advance(0)["reward/objective"], kept))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-6)
    for name, gradient in found[0][1].items():
        assert torch.allclose(gradient, found[1][1][name], rtol=1e-4, atol=1e-6), name


def test_every_ranking_that_counts_is_trained_on_once_an_epoch_and_no_other() -> None:
    shared = shared_model()
    stir(shared, REFERENCE)
    groups = groups_of(30)
    member = members_of(shared, range(30), 3, seed=0)[2]
    subject = member_phase(shared, member, groups, batch_size=4, epochs=2)
    assert subject.total_steps == 15  # as many steps as a reward model alone makes
    seen = [number for step in range(15) for number in subject._rankings_of(step)]
    assert sorted(seen) == sorted(2 * [number for number in range(30) if member.counts[number]])
    assert all(subject._rankings_of(step) for step in range(15))


def test_members_read_the_same_trunk_once_and_start_alike(tmp_path: Path) -> None:
    shared = shared_model()
    stir(shared, REFERENCE)
    groups = groups_of(12)
    visited: list[int] = []
    trunk = shared.trunk
    shared.trunk = lambda batch: visited.append(len(batch.input_ids)) or trunk(batch)
    members = members_of(shared, range(12), 3, seed=0)
    first = member_phase(shared, members[0], groups, head_penalty=0.1)
    run_loop(first, LoopOptions(tmp_path / "1", Lines(), keep=1, every=99))
    after_one = sum(visited)
    assert after_one == 12
    for number, member in enumerate(members[1:], start=2):
        subject = member_phase(shared, member, groups, first, head_penalty=0.1)
        run_loop(subject, LoopOptions(tmp_path / str(number), Lines(), keep=1, every=99))
        assert subject.start_features is None  # those of the first
    assert sum(visited) == after_one
    assert [member.model.head is shared.score_head for member in members] == [True, False, False]
    states = [shared.adapters.state(member.model.adapter) for member in members]
    assert [member.model.adapter for member in members] == [REWARD, "reward-2", "reward-3"]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert any(not torch.equal(value, states[b][name]) for name, value in states[a].items())
        assert not torch.equal(members[a].model.head.linear.weight, members[b].model.head.linear.weight)


@pytest.mark.parametrize("combine", ["mean", "average-weights"])
def test_adapters_that_change_nothing_start_apart_unless_their_weights_are_averaged(combine: str) -> None:
    shared = shared_model()
    shared.adapters.add(REFERENCE)  # as after full fine-tuning
    for member in members_of(shared, range(8), 2, seed=0):
        ensemble = {"members": 2, "combine": combine}
        member_phase(shared, member, groups_of(8), ensemble=EnsembleSettings(**ensemble))
    first, second = shared.adapters.state(REWARD), shared.adapters.state("reward-2")
    differ = [name for name in first if not torch.equal(first[name], second[name])]
    assert all("lora_A" in name for name in differ)
    assert bool(differ) == (combine == "mean")


def ensemble_of(shared: SharedModel, count: int) -> list[RewardMember]:
    members = []
    for number in range(count):
        adapter = member_adapter(REWARD, number)
        stir(shared, adapter, seed=number)
        members.append(RewardMember(adapter, shared.score_head if number == 0 else shared.fresh_score_head(0, number)))
    return members


@pytest.mark.parametrize("combine", ["mean", "worst", "mean-minus-variance"])
def test_the_combined_score_is_calibrated_and_is_made_of_calibrated_members(combine: str) -> None:
    shared, made = shared_model(), samples(60)
    members = ensemble_of(shared, 3)
    with torch.no_grad():
        members[1].head.linear.bias.add_(50.0)  # an offset that training leaves free must not decide who is the worst
        members[2].head.linear.weight.mul_(30.0)
    join_members(shared, members, EnsembleSettings(members=3, combine=combine, penalty=0.7), made, max_tokens=400)
    each = figures_of(shared, made, shared.member_scores, max_tokens=100)
    assert each.mean(1).tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    assert each.std(1, correction=0).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    total = score_samples(shared, made, max_tokens=100)
    assert float(total.mean()) == pytest.approx(0, abs=1e-5)
    assert float(total.std(correction=0)) == pytest.approx(1, abs=1e-5)
    plain = combine_scores(each, combine, penalty=0.7)
    assert torch.allclose(total, (plain - plain.mean()) / plain.std(correction=0), rtol=0, atol=1e-4)
    assert shared.ensemble is not None
    assert float(shared.ensemble.disagreement(each).mean()) == pytest.approx(1, abs=1e-5)


def test_the_order_of_the_members_does_not_matter() -> None:
    shared, made = shared_model(), samples(30)
    members = ensemble_of(shared, 3)
    how = Combination("mean-minus-variance", 0.5, center=0.1, scale=2.0)
    found = []
    for order in ((0, 1, 2), (2, 0, 1)):
        shared.ensemble = Ensemble(tuple(members[number] for number in order), how)
        found.append(score_samples(shared, made, max_tokens=400))
    assert torch.equal(*found)


def test_the_mean_of_the_weights_is_one_reward_model() -> None:
    shared, made = shared_model(), samples(40)
    members = ensemble_of(shared, 2)
    states = [shared.adapters.state(member.adapter) for member in members]
    weights = [member.head.linear.weight.detach().clone() for member in members]
    average_members(shared, members)
    found = shared.adapters.state(REWARD)
    for name, value in found.items():
        assert torch.allclose(value, (states[0][name] + states[1][name]) / 2, rtol=0, atol=1e-7)
    assert torch.allclose(shared.score_head.linear.weight, (weights[0] + weights[1]) / 2, rtol=0, atol=1e-7)
    assert not shared.adapters.has("reward-2") and shared.ensemble is None
    members = ensemble_of(shared, 2)
    join_members(shared, members, EnsembleSettings(members=2, combine="average-weights"), made, max_tokens=400)
    assert float(score_samples(shared, made, max_tokens=400).std(correction=0)) == pytest.approx(1, abs=1e-5)


def test_members_and_witness_are_told_beside_the_score() -> None:
    from triphase.records.types import Message, Prompt
    from triphase.rewards.types import Answer

    shared, made = shared_model(), samples(20)
    members = ensemble_of(shared, 3)
    join_members(shared, members, EnsembleSettings(members=3, combine="worst"), made, max_tokens=400)
    stir(shared, "witness", seed=9)
    shared.witness = RewardMember("witness", shared.fresh_score_head(0, "witness"))
    calibrate(shared, made, max_tokens=400, member=shared.witness)
    prompt = Prompt("p", (Message("user", "oak"),))
    answers = [Answer(prompt, "", True, sample) for sample in made]
    scores = ModelScorer(shared).score(answers)
    assert scores.total == pytest.approx(score_samples(shared, made, max_tokens=400).tolist(), abs=1e-5)
    assert scores.monitors.keys() == {"reward_disagreement", "witness_score"}
    assert sum(scores.monitors["reward_disagreement"]) / 20 == pytest.approx(1, abs=1e-4)
    assert sum(scores.monitors["witness_score"]) / 20 == pytest.approx(0, abs=1e-5)
    assert scores.monitors["witness_score"] != scores.total and not scores.parts


def test_length_is_taken_off_a_score_that_pays_for_it() -> None:
    shared, made = shared_model(), samples(200, response=(1, 12))
    stir(shared, REWARD)
    lengths = torch.tensor([len(sample.response) for sample in made])
    group = torch.arange(200) // 4
    before = score_samples(shared, made, max_tokens=400)
    calibrate(shared, made, max_tokens=400)
    slope = within_group_slope(score_samples(shared, made, max_tokens=400), lengths, group)
    assert slope is not None
    deviation = take_length_off(shared, slope, made, max_tokens=400)
    after = score_samples(shared, made, max_tokens=90)
    assert within_group_slope(after, lengths, group) == pytest.approx(0, abs=1e-5)
    assert float(after.mean()) == pytest.approx(0, abs=1e-5)
    assert float(after.std(correction=0)) == pytest.approx(1, abs=1e-5)
    plain = (before - before.mean()) / before.std(correction=0)
    expected = (plain - slope * lengths - (plain - slope * lengths).mean()) / deviation
    assert torch.allclose(after, expected, rtol=0, atol=1e-4)


def test_one_reward_model_tells_nothing_beside() -> None:
    subject = phase(shared_model())
    assert not ModelScorer(subject.shared).score([]).monitors
