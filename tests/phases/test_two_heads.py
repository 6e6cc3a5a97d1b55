"""A quality and a length head: the gradient written out plainly, the split of the fit, planted length, cuts."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.phases.test_reward import groups_of, pairs_of, settings
from tests.small import Lines, shared_model, stir

from triphase.models.roles import REFERENCE, REWARD, SharedModel
from triphase.monitoring.progress import SilentProgress
from triphase.objectives.length import within_group_correlation
from triphase.objectives.preference import bradley_terry_loss
from triphase.phases.pair_loss import stack_pairs
from triphase.phases.reward import RewardPhase
from triphase.phases.two_heads import TwoHeadPhase, preferred_length
from triphase.records.types import Pair
from triphase.settings.phases import RewardSettings
from triphase.tokens.encoding import EncodedGroup
from triphase.training.loop import LoopOptions, run_loop


def uneven(count: int, seed: int = 0) -> list[EncodedGroup]:
    """Groups whose responses differ in length, whatever they hold."""
    draw = random.Random(seed)
    return [
        EncodedGroup(group.prompt, tuple((*([9] * draw.randint(0, 5)), *response) for response in group.responses))
        for group in groups_of(count, seed=seed)
    ]


def built(chosen: RewardSettings, kind: type[RewardPhase] = TwoHeadPhase, pairs: object = None) -> RewardPhase:
    shared = shared_model()
    stir(shared, REFERENCE)
    groups = uneven(8)
    return kind(shared, groups, pairs or [pairs_of(group) for group in groups], [], [], chosen, seed=0)


def two_heads(**values: object) -> RewardSettings:
    return settings(length="two-heads", **values)


def plain_correlation(scores: torch.Tensor, groups: list[EncodedGroup]) -> torch.Tensor:
    off, rated, start = [], [], 0
    for group in groups:
        lengths = torch.tensor([float(len(response)) for response in group.responses], dtype=torch.float64)
        part = scores[start : start + len(lengths)].double()
        off.append(lengths - lengths.mean())
        rated.append(part - part.mean())
        start += len(lengths)
    a, b = torch.cat(off), torch.cat(rated)
    return (a * b).sum() / (a.square().sum() * b.square().sum()).sqrt()


@pytest.mark.parametrize(("microbatch_tokens", "sign"), [(10_000, 1), (1, 1), (10_000, -1)])
def test_the_gradient_of_a_step_is_that_of_the_whole_objective_at_once(microbatch_tokens: int, sign: int) -> None:
    chosen = two_heads(length_penalty=0.7, microbatch_tokens=microbatch_tokens)
    compared = longer_wins(uneven(8))
    if sign < 0:
        compared = [[replace(pair, target=1 - pair.target) for pair in pairs] for pairs in compared]
    made = built(chosen, pairs=compared)
    assert isinstance(made, TwoHeadPhase) and made.preferred_length == sign
    stir_again(made.shared)
    members = made._rankings_of(0)
    made._look(members)
    value = 0.0
    for places in made._parts(members):
        found = made._loss([members[place] for place in places], len(members))
        found.objective.backward()
        value += float(found.objective.detach())
    ours = {name: each.grad.clone() for name, each in made.state.updater.parameters.items()}
    made.state.updater.discard()

    groups, pairs = made._records(members)
    hidden = []
    for group in groups:
        for response in group.responses:
            ids = torch.tensor([[*group.prompt, *response]])
            with made.shared.role(REWARD):
                hidden.append(made.shared.backbone.model(ids, output_hidden_states=True).hidden_states[-1][0, -1])
    states = torch.stack(hidden)
    quality, length = made.head(states), made.length_head(states)
    stacked = stack_pairs(groups, pairs)
    loss, _ = bradley_terry_loss(
        quality + length,
        stacked.first,
        stacked.second,
        stacked.target,
        group=stacked.group,
        margin=stacked.margin,
        centering=chosen.centering,
        group_count=len(members),
    )
    a, b = made.head.linear.weight[0], made.length_head.linear.weight[0]
    apart = ((a @ b) / (a.norm() * b.norm())).abs()
    penalty = plain_correlation(quality, groups).square() - sign * plain_correlation(length, groups) + apart
    total = loss + 0.7 * penalty
    total.backward()
    assert value == pytest.approx(total.item(), rel=1e-5)
    assert torch.allclose(made._loss(members, len(members)).scores, quality.detach(), atol=1e-5)
    for name, parameter in made.state.updater.parameters.items():
        assert torch.allclose(ours[name], parameter.grad, rtol=2e-4, atol=2e-5 * float(ours[name].abs().max())), name
    assert {"score_head.linear.weight", "length_head.linear.weight"} < ours.keys()


def stir_again(shared: SharedModel) -> None:
    draw = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in shared.adapters.parameters(REWARD).items():
            if "lora_B" in name:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))


def longer_wins(groups: list[EncodedGroup], seed: int = 0) -> list[list[Pair]]:
    """The planted preference; in three quarters of the pairs the longer response is better."""
    draw = random.Random(seed)
    return [
        [
            pair
            if draw.random() < 0.25 or len(group.responses[pair.first]) == len(group.responses[pair.second])
            else Pair(
                pair.first,
                pair.second,
                float(len(group.responses[pair.first]) > len(group.responses[pair.second])),
                pair.margin,
            )
            for pair in pairs_of(group)
        ]
        for group in groups
    ]


def test_one_fit_becomes_two_heads_whose_sum_it_is_and_of_which_one_has_nothing_of_the_length_map() -> None:
    pairs = longer_wins(uneven(8))
    whole = built(settings(head_penalty=0.1), RewardPhase, pairs)
    whole.fit_head(SilentProgress())
    made = built(two_heads(head_penalty=0.1), pairs=pairs)
    made.fit_head(SilentProgress())
    assert isinstance(made, TwoHeadPhase) and made.start_features is not None
    features = made.start_features
    with torch.no_grad():
        quality, length, fitted = made.head(features), made.length_head(features), whole.head(features)
    assert torch.allclose(quality + length, fitted, atol=1e-4)
    assert float(quality.mean()) == pytest.approx(float(fitted.mean()), abs=1e-4)  # what is let go has no level
    lengths, prompts = made._lengths(made.trained)
    left = within_group_correlation(quality, length, prompts)
    assert left is not None and abs(float(left)) < 1e-4
    before, after = (within_group_correlation(scores, lengths, prompts) for scores in (fitted, quality))
    assert before is not None and after is not None and abs(float(after)) < abs(float(before)) - 0.2
    made.fit_head(SilentProgress())  # once is enough
    with torch.no_grad():
        assert made.head(features).equal(quality) and made.length_head(features).equal(length)


def test_the_preferred_length_is_that_of_all_comparisons_weighed_by_how_sure_they_are() -> None:
    one, three = EncodedGroup((1,), ((5,), (5, 5, 5))), EncodedGroup((1,), ((5,), (5, 5, 5, 5, 5)))
    assert preferred_length([one], [[Pair(0, 1, 1.0)]]) == -1
    assert preferred_length([one], [[Pair(1, 0, 1.0)]]) == 1
    assert preferred_length([one], [[Pair(0, 1, 0.5)]]) == 1  # neither
    # −2·1 + 4·0.4: the shorter one; with −2·1 + 4·0.6 the longer one
    assert preferred_length([one, three], [[Pair(0, 1, 1.0)], [Pair(1, 0, 0.7)]]) == -1
    assert preferred_length([one, three], [[Pair(0, 1, 1.0)], [Pair(1, 0, 0.8)]]) == 1


def test_planted_length_goes_to_the_head_that_is_let_go() -> None:
    pairs, ends = longer_wins(uneven(8)), []
    for kind, chosen in ((RewardPhase, settings(epochs=8)), (TwoHeadPhase, two_heads(epochs=8))):
        made, told = built(chosen, kind, pairs), {}
        for step in range(made.total_steps):
            told = made.advance(step)
        scores = torch.cat(made.scores_of(made.trained))
        groups = list(made.groups)
        ends.append(float(plain_correlation(scores, groups)))
        assert ("reward/quality_length_correlation" in told) is (kind is TwoHeadPhase)
    assert ends[0] > 0.3 and abs(ends[1]) < ends[0] - 0.2, ends
    assert abs(told["reward/length_head_correlation"]) > 0.6


def test_after_a_cut_the_end_is_the_same_to_the_bit(tmp_path: Path) -> None:
    chosen = two_heads(epochs=2, head_penalty=0.5)

    def run(folder: Path, stop: int | None) -> RewardPhase:
        made, lines = built(chosen), kept

        def fail(_: object) -> None:
            if stop is not None and len(lines.rows) == stop:
                raise RuntimeError("power cut")

        made.begin(folder, SilentProgress())
        run_loop(made, LoopOptions(folder, lines, keep=1, every=1, on_step=fail))
        return made

    kept = Lines()
    whole = run(tmp_path / "whole", None)
    kept = Lines()
    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path / "cut", 2)
    resumed = run(tmp_path / "cut", None)
    ours, theirs = resumed.state.updater.tensors(), whole.state.updater.tensors()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_where_no_length_differs_nothing_is_penalized_but_the_angle() -> None:
    shared = shared_model()
    stir(shared, REFERENCE)
    groups = groups_of(4)  # all responses have six tokens
    made = TwoHeadPhase(
        shared, groups, [pairs_of(group) for group in groups], [], [], two_heads(head_penalty=0.5), seed=0
    )
    made.fit_head(SilentProgress())
    told = made.advance(0)
    assert "reward/quality_length_correlation" not in told and told["reward/skipped_steps"] == 0
