"""What ranks put together of a rollout, and what an update computes only where it is wanted."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.phases.rollouts import PROMPT
from tests.phases.test_ppo import phase, rolled_out, settings
from tests.small import samples
from torch import Tensor

from triphase.models.critics import CRITIC
from triphase.models.policies import Reference
from triphase.models.roles import POLICY, REFERENCE, REWARD
from triphase.phases import ppo as ppo_module
from triphase.phases.experience import Experience, epochs_of, evaluate_rollout, open_rollout
from triphase.phases.minibatch import accumulate_gradients
from triphase.phases.ppo import PPOPhase
from triphase.rewards.model import ModelScorer
from triphase.rewards.types import Answer, Answers
from triphase.settings.ppo import PPOSettings
from triphase.training.distributed.types import ALONE, Strategy


class Twins(Strategy):
    """Two ranks with the same values everywhere, so that sums are twice those of one rank."""

    def sum_tensors(self, tensors: Sequence[Tensor]) -> None:
        for each in tensors:
            each.mul_(2)


def experience(ppo: PPOPhase, chosen: PPOSettings, strategy: Strategy, *, is_reset: bool) -> Experience:
    rollout = open_rollout(ppo.shared, samples(3), chosen, seed=0, iteration=1)
    answers = Answers(tuple(Answer(PROMPT, "", True, sample) for sample in samples(3)), rollout.parts)
    reset = Reference(ppo.shared, whole=False) if is_reset else None
    scored = ModelScorer(ppo.shared).score(answers)
    return evaluate_rollout(ppo.shared, rollout, scored, chosen, reset=reset, strategy=strategy)


@pytest.mark.parametrize("is_reset", [False, True])
@pytest.mark.parametrize("estimator", ["gae", "rloo"])
def test_ranks_put_together_all_that_each_computed_of_its_rows(estimator: str, is_reset: bool) -> None:
    changes: dict[str, Any] = {} if estimator == "gae" else {"advantage_estimator": "rloo", "responses_per_prompt": 3}
    chosen = settings(batch_size=3, minibatch_size=3, **changes)
    ppo = phase(settings())
    with torch.no_grad():  # a critic that says something
        for parameter in ppo.shared.value_head.parameters():
            parameter.add_(0.1)
    alone, twins = (experience(ppo, chosen, each, is_reset=is_reset) for each in (ALONE, Twins()))
    names = ["logprobs", "reference_logprobs", "entropy"]
    names += ["values"] * (estimator == "gae") + ["penalty_logprobs"] * is_reset
    for name in names:
        one, both = getattr(alone, name), getattr(twins, name)
        assert float(one.abs().sum()) > 0 and both.equal(2 * one), name


@pytest.mark.parametrize("coefficient", [0.0, 0.01])
def test_an_update_computes_the_entropy_only_where_it_is_rewarded(
    coefficient: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    ppo, asked = phase(settings(entropy_coefficient=coefficient)), []
    _, found, advantages = rolled_out(ppo)
    output = ppo.policy.output

    def watched(*arguments: Any, **options: Any) -> Any:
        asked.append(options["with_entropy"])
        return output(*arguments, **options)

    monkeypatch.setattr(ppo.policy, "output", watched)
    accumulate_gradients(ppo.policy, found.minibatches[0], found, advantages, ppo.settings, first=True)
    ppo.state.updater.discard()
    assert set(asked) == {coefficient > 0}


@pytest.mark.parametrize(("steps", "skipped", "told"), [(2, 2, 0), (5, 2, 3)])
def test_steps_that_were_skipped_are_no_updates_when_the_cause_of_a_nan_is_told(
    steps: int, skipped: int, told: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ppo, seen = phase(settings()), []
    _, found, _ = rolled_out(ppo)
    updater = ppo.state.updater
    updater.step_count, updater.skipped_in_a_row = steps, skipped
    monkeypatch.setattr(ppo_module, "cause_of", lambda *_, **options: seen.append(options["updates"]) or "Why.")
    monkeypatch.setattr(ppo, "_check_alarms", lambda iteration, figures: seen.append((iteration, *figures)))
    figures = ppo._refused(1, replace(found, nonfinite=("values",)))
    assert seen == [told, (1, *figures)], "an alarm about it could not be acted on"
    assert (updater.step_count, updater.skipped_in_a_row) == (steps + 1, skipped + 1)
    assert (figures["ppo/skipped_steps"], figures["ppo/steps"], figures["ppo/episodes"]) == (1, 0, 2 * 8)


class SecondOfTwo(Strategy):
    """The second of two ranks, which takes in a later epoch rows that were the first one's."""

    world, rank = 2, 1

    def mine(self, sizes: Sequence[int], owners: Sequence[int] | None = None) -> list[int]:
        return list(range(len(sizes)))


def test_rows_that_come_from_another_rank_in_a_later_epoch_get_their_trunk_states() -> None:
    chosen = settings(batch_size=4, minibatch_size=4, epochs=2)
    ppo = phase(chosen)
    rollout = open_rollout(ppo.shared, samples(4), chosen, seed=0, iteration=1)
    whole = rollout.boundary.values.clone()
    assert float(whole.abs().sum()) > 0
    theirs = [0, 2]
    rollout.boundary.values[theirs] = 0
    answers = Answers(tuple(Answer(PROMPT, "", True, sample) for sample in samples(4)), rollout.parts)
    found = evaluate_rollout(ppo.shared, rollout, ModelScorer(ppo.shared).score(answers), chosen)
    found = replace(found, owners=[0 if row in theirs else 1 for row in range(4)])
    steps = epochs_of(ppo.shared, found, chosen, seed=0, iteration=1, strategy=SecondOfTwo())
    assert [len(minibatch) for minibatch in steps] == [1, 1]
    assert found.boundary.values.equal(whole)


class Taking(Strategy):
    """One of two ranks: of each minibatch of two rows it takes one, and in the second epoch the first row too."""

    world = 2

    def __init__(self, rank: int) -> None:
        self.rank, self._asked = rank, 0

    def divided(self, costs: Sequence[int]) -> list[int]:
        return [0, 1]

    def mine(self, costs: Sequence[int], owners: Sequence[int] | None = None) -> list[int]:
        assert owners is not None
        self._asked += 1
        return [place for place, owner in enumerate(owners) if owner == self.rank or (self._asked > 2 and place == 0)]


def test_a_rank_has_room_for_the_trunk_states_of_its_rows_alone() -> None:
    chosen = settings(batch_size=4, minibatch_size=2, epochs=2)
    ppo = phase(chosen)
    whole = open_rollout(ppo.shared, samples(4), chosen, seed=0, iteration=1)
    found = open_rollout(ppo.shared, samples(4), chosen, seed=0, iteration=1, strategy=Taking(0))
    assert len(whole.boundary.values) == 4 > len(found.boundary.values) >= 2
    for row in (row for row, owner in enumerate(found.owners) if owner == 0):
        assert found.boundary.of([row], 3).equal(whole.boundary.of([row], 3))
    # What it takes in a later epoch has room from the start.
    other = open_rollout(ppo.shared, samples(4), chosen, seed=0, iteration=1, strategy=Taking(1))
    assert set(other.boundary.places) > {row for row, owner in enumerate(other.owners) if owner == 1}


def test_nothing_is_trained_any_more_once_ppo_is_finished() -> None:
    ppo = phase(settings(iterations=1, critic="adapter"))
    ppo.advance(0)
    adapters = ppo.shared.adapters
    for name in (POLICY, CRITIC):
        assert any(each.requires_grad for each in adapters.parameters(name).values())
    ppo.finish()
    names = (POLICY, REFERENCE, REWARD, CRITIC)
    assert not any(each.requires_grad for name in names for each in adapters.parameters(name).values())


def test_alarms_are_looked_for_after_each_iteration() -> None:
    ppo, seen = phase(settings()), []
    ppo.guard = SimpleNamespace(keep=0, check_alarms=lambda state, step, metrics: seen.append((step, metrics)))
    metrics = [ppo.advance(iteration) for iteration in range(2)]
    assert [step for step, _ in seen] == [1, 2] and [found for _, found in seen] == metrics
    ppo.state.values.finished = "it has stopped"
    ppo.advance(2)
    assert len(seen) == 2
