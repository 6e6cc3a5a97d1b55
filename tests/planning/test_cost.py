"""The parts and tokens of a phase, number by number."""

from typing import Any

import pytest
import torch
from tests.small import shared_model

from triphase.footprints.cost import CostModel, tokens_of
from triphase.footprints.moments import ADAPTERS, BASE, GRADIENTS, HEADS, MOMENTS, TEMPORARY, TRUNK, Footprint
from triphase.footprints.work import Shape, Work
from triphase.footprints.workload import Lengths, Workload
from triphase.phases.ppo_footprint import ppo_footprint
from triphase.phases.reward_footprint import reward_footprint
from triphase.settings.phases import EnsembleSettings
from triphase.settings.schema import RunSettings

HIDDEN, PROMPTS = 64, Lengths([(20,), (10,)], 60)  # two of sixty prompts were looked at
SHAPE = Shape(1, 30, 1)


def costs(**changes: object) -> CostModel:
    optimizer = {"learning_rate": 1e-3}
    values = {
        "name": "x", "model": {"name": "small", "dtype": "float32"}, "data": {}, "adapters": {"layers": 1, "rank": 4},
        "sft": {"optimizer": optimizer}, "reward": {"optimizer": optimizer}, **changes,
    }  # fmt: skip
    settings, none = RunSettings.model_validate(values), Lengths()
    config = shared_model("llama", adapted=1, layers=2, hidden_size=HIDDEN).backbone.model.config
    work = Work(config, torch.float32, settings.adapters, recompute=False, trusted=False)
    return CostModel(settings, work, Workload(none, none, 0, PROMPTS, none, none), process_bytes=0.0)


def test_what_is_always_there_is_float32_and_adam_has_two_moments() -> None:
    for estimator, critic in (("gae", 1), ("rloo", 0)):
        cost = costs(ppo={"advantage_estimator": estimator, "responses_per_prompt": 2})
        assert cost.settings.has_critic == bool(critic)
        found = cost.static(adapters=3, trained=10.0)
        assert found[ADAPTERS] == 4 * 3 * cost.work.adapter_numbers and cost.work.adapter_numbers > 0
        assert found[HEADS] == 4 * (1 + critic) * (HIDDEN + 1)
        assert (found[GRADIENTS], found[MOMENTS]) == (40.0, 80.0)


def test_a_step_holds_two_copies_of_a_weight_and_a_checkpoint_two_of_all() -> None:
    found, cost = Footprint("x"), costs()
    cost.stepped(found, cost.static(adapters=1, trained=10.0), 10.0, 7.0)
    step, checkpoint = found.moments
    assert step.parts[TEMPORARY] == 2 * 4 * 7 and step.parts[GRADIENTS] == 40
    assert checkpoint.parts[TEMPORARY] == 2 * 4 * (1 + 2) * 10 and checkpoint.parts[GRADIENTS] == 0


def test_every_member_scores_but_of_averaged_ones_and_the_witness_scores_too() -> None:
    for combine, witness, count in (("worst", False, 4), ("average-weights", False, 1), ("average-weights", True, 2)):
        cost = costs()
        ensemble = EnsembleSettings(members=4, combine=combine)
        reward = cost.settings.reward.model_copy(update={"ensemble": ensemble, "witness": witness})
        cost.settings = cost.settings.model_copy(update={"reward": reward})
        assert cost.scorers() == count


@pytest.mark.parametrize(("penalty", "passes"), [(None, 2), (0.1, 3)])
def test_rankings_are_passed_over_for_the_trunk_for_the_judgment_and_for_the_fit_of_the_head(
    penalty: float | None, passes: int
) -> None:
    """Four rankings of 5 + 7 + 8 tokens, learned from twice."""
    cost = costs(reward={"optimizer": {"learning_rate": 1e-3}, "head_penalty": penalty, "epochs": 2})
    none = Lengths()
    cost.load = Workload(none, none, 0, none, none, Lengths([(5, 7, 8), (5, 7, 8)], 4))
    found = reward_footprint(cost)
    assert found.tokens == {"forward": passes * 80.0, "training": 2 * 80.0}


def test_rankings_whose_responses_stand_in_rows_of_their_own_fill_as_many_rows() -> None:
    """Eight rows of 5 + 7 and 5 + 8 tokens, four for a step of two rankings: 13 with padding, the trunk without."""
    cost = costs(reward={"optimizer": {"learning_rate": 1e-3}, "batch_size": 2, "epochs": 2})
    none = Lengths()
    cost.load = Workload(none, none, 0, none, none, Lengths([(5, 7, 8), (5, 7, 8)], 4))
    cost.work.packs = False
    found = reward_footprint(cost)
    assert found.tokens == {"training": 2 * 8 * 13, "forward": 4 * (12 + 13) + 2 * 8 * 13}
    assert found.peak.shape.rows == 4


@pytest.mark.parametrize("members", [2, 3])
def test_members_of_an_ensemble_train_on_the_rankings_that_each_has_drawn(members: int) -> None:
    """Four rankings of 20 tokens, learned from twice by members that each have 63 % of the prompts."""
    given = {"optimizer": {"learning_rate": 1e-3}, "head_penalty": 0.1, "epochs": 2}
    cost, none = costs(reward={**given, "ensemble": {"members": members}}), Lengths()
    cost.load = Workload(none, none, 0, none, none, Lengths([(5, 7, 8), (5, 7, 8)], 4))
    assert reward_footprint(cost).tokens["training"] == pytest.approx(members * 0.63 * 2 * 80)


def test_an_iteration_of_ppo_is_counted_in_tokens() -> None:
    """24 episodes of 20 + 10 tokens, twice; 12 steps on 4 demonstrations of 5 + 7; a critic doubles what is trained."""
    given = {"iterations": 3, "batch_size": 8, "minibatch_size": 4, "epochs": 2, "max_response_tokens": 10}
    none = Lengths()
    load = Workload(Lengths([(5, 7), (5, 7)], 4), none, 0, Lengths([(20,), (20,)], 6), none, none)
    changes: tuple[tuple[dict[str, object], float, int], ...] = (
        ({}, 0, 1), ({"sft_mix": 0.5}, 3 * 4 * 4 * 12, 1), ({"critic": "adapter"}, 0, 2),
    )  # fmt: skip
    for extra, mixed, trained in changes:
        cost = costs(ppo={**given, **extra}, data={"demonstrations": [{"path": "x"}]})
        cost.load = load
        found = ppo_footprint(cost, None)
        assert found.tokens == {
            "decoding": 24 * 10, "forward": 24 * 20 + 24 * 30 + mixed, "training": 2 * 24 * 30 + mixed,
        }  # fmt: skip
        step = next(moment for moment in found.moments if moment.name == "optimizer step")
        assert step.parts[GRADIENTS] == 4 * trained * cost.work.adapter_numbers


def test_tokens_of_sampling() -> None:
    """Prompts of 15 tokens on average are read for each of 90 responses, and 12 tokens written, twice over."""
    assert tokens_of(PROMPTS) == 30 * 30
    found, cost = Footprint("x"), costs()
    cost.sampled(found, cost.static(adapters=1, trained=0), PROMPTS, 90, 16, 12, times=2)
    assert found.tokens == pytest.approx({"forward": 2 * 90 * 15, "decoding": 2 * 90 * 12})
    assert found.passes["decoding"] == pytest.approx(2 * 90 * 12 / 16)


@pytest.mark.parametrize(
    ("share", "visits", "passes"), [(0.5, 3, 0.5 + 0.5 * 3), (2.0, 3, 1), (0.0, 3, 3), (2.0, 1, 1)]
)
def test_what_is_kept_of_the_trunk_is_computed_once_and_the_rest_at_each_visit(
    share: float, visits: int, passes: float
) -> None:
    size = 900 * HIDDEN * 4.0
    cost, found = (
        costs(adapters={"layers": 1, "rank": 4, "trunk_cache_gb": share * size / 1e9, "trunk_file_gb": 0}),
        Footprint("x"),
    )
    static = cost.with_trunk(found, {}, PROMPTS, visits, SHAPE, 64, packed=False)
    assert found.tokens["forward"] == pytest.approx(900 * passes)
    assert static.get(TRUNK, 0.0) == pytest.approx(min(share, 1.0) * size if visits > 1 else 0.0)


def test_a_piece_of_work_is_traced_once_and_each_shape_by_itself() -> None:
    work = costs().work
    small, large = Shape(1, 4, 2), Shape(2, 8, 2)
    assert work.policy(small, train=False) is work.policy(small, train=False)
    found = [work.policy(small, train=False), work.policy(large, train=False), work.policy(small, train=True)]
    found += [work.reward(small, train=False), work.trunk(small)]
    assert len({each.flops for each in found}) == 5


@pytest.mark.parametrize(
    ("changes", "trunk", "sampled"),
    [
        ({}, 1, 0),
        ({"sft_mix": 0.1}, 0, 0),
        ({"ranks": 2}, 0, 0),
        ({"reference_reset_every": 2}, 1, 0),
        ({"method": "full"}, 2, 2),
        ({"method": "full", "critic": "adapter"}, 1, 1),
    ],
)
def test_off_load_leaves_moments_to_the_step_alone_and_takes_from_the_updates_what_rests(
    changes: dict[str, Any], trunk: int, sampled: int
) -> None:
    ranks = int(changes.get("ranks", 1))
    mixed = {name: value for name, value in changes.items() if name != "ranks"}
    found = []
    for offload in (False, True):
        cost = costs(model={"name": "small", "dtype": "float32", "offload": offload})
        cost.ranks = ranks
        cost.settings = cost.settings.model_copy(update={"ppo": cost.settings.ppo.model_copy(update=mixed)})
        found.append({moment.name: moment.parts for moment in ppo_footprint(cost, None).moments})
    plain, offloaded = found
    for name, parts in plain.items():
        moments = parts[MOMENTS]
        assert moments > 0 and offloaded[name][MOMENTS] == (moments if name == "optimizer step" else 0.0)
        is_away = name in ("update", "optimizer step", "checkpoint", "sampling", "reading prompts")
        # The reference, the reward model, and a reference of the penalty; policy and critic stay.
        away = 2 + ("reference_reset_every" in changes)
        assert parts[ADAPTERS] - offloaded[name][ADAPTERS] == is_away * away * 4 * cost.work.adapter_numbers
        layers = sampled if name in ("sampling", "reading prompts") else trunk * is_away
        assert parts[BASE] - offloaded[name][BASE] == layers * cost.work.layer_bytes and cost.work.layer_bytes > 0
