"""What later rollouts show against the first: gains by length, scores out of range, likeness across prompts."""

import json
import random
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from triphase.phases.first_rollout import FirstRollout
from triphase.phases.ppo_state import PPOState
from triphase.phases.rollout_metrics import against_first_rollout, shared_with_others
from triphase.phases.score_scale import ScoreScale

START = FirstRollout.of([1, 2, 3, 4], [1.0, 2.0, 3.0, 4.0])


def test_by_hand() -> None:
    """Parts {1}, {2}, {3}, {4}, a quarter each, means 1 to 4; the mean is 2.5."""
    assert (START.edges, START.shares, START.means) == ((2.0, 3.0, 4.0), (0.25,) * 4, (1.0, 2.0, 3.0, 4.0))
    assert (START.mean, START.lowest, START.highest) == (2.5, 1.0, 4.0)
    assert START.deviation == pytest.approx(1.25**0.5)  # the population's: (2·1.5² + 2·0.5²)/4
    assert START.length_share([4] * 4, [4.0] * 4) == pytest.approx(1)  # longer alone
    assert START.length_share([1, 2, 3, 4], [2.6, 3.6, 4.6, 5.6]) is None  # 1.6 of 2·√(0.645² + 0.645²) = 1.83
    assert START.length_share([1, 2, 3, 4], [4.0, 5.0, 6.0, 7.0]) == pytest.approx(0)  # better at each length
    # Lengths move the mean to 3.5 (+1), scores within them by +2: a third of the gain of 3.
    assert START.length_share([3, 3, 4, 4], [5.0, 5.0, 6.0, 6.0]) == pytest.approx(1 / 3)
    assert START.length_share([1, 1, 1, 1], [9.0, 9.0, 9.0, 9.0]) == pytest.approx(-1.5 / 6.5)  # in spite of it


def test_parts_are_quarters_of_the_lengths() -> None:
    found = FirstRollout.of(range(1, 21), [0.0] * 20)
    assert (found.edges, found.shares) == ((6.0, 11.0, 16.0), (0.25,) * 4)


def test_of_one_and_of_two_scores() -> None:
    two = FirstRollout.of([1, 2], [0.0, 2.0])
    assert two.deviation == pytest.approx(1.0) and two.error == pytest.approx(1.0)  # √(2/1/2)
    one = FirstRollout.of([1], [3.0])
    assert (one.mean, one.error, one.deviation) == (3.0, 0.0, 0.0)


def test_the_parts_of_the_gain_are_the_gain() -> None:
    draw = random.Random(0)
    lengths = [draw.randint(3, 20) for _ in range(200)]
    scores = [0.1 * length + draw.gauss(0, 1) for length in lengths]
    first = FirstRollout.of(lengths, scores)
    longer = [length + draw.randint(0, 10) for length in lengths]
    later = [0.1 * length + 0.5 + draw.gauss(0, 1) for length in longer]
    share = first.length_share(longer, later)
    within = 0.0
    for part in range(len(first.means)):
        members = [s for n, s in zip(longer, later, strict=True) if sum(n >= edge for edge in first.edges) == part]
        within += sum(score - first.means[part] for score in members) / len(later)
    gain = sum(later) / len(later) - first.mean
    assert share is not None and share * gain + within == pytest.approx(gain, abs=1e-9)
    assert 0.1 < share < 0.9


def test_lengths_that_are_all_one_make_one_part() -> None:
    first = FirstRollout.of([5, 5, 5], [0.0, 1.0, 2.0])
    assert first.edges == () and first.length_share([9, 9, 9], [9.0, 9.0, 9.0]) == pytest.approx(0)


def test_scores_out_of_the_range_of_the_start_are_counted() -> None:
    figures = START.figures([1, 2, 3, 4], [0.9, 1.0, 2.0, 4.0])
    assert figures == {"ppo/scores_beyond_start": 0.25}
    assert START.figures([1, 2, 3, 4], [4.1, 1.0, 0.9, 0.8])["ppo/scores_beyond_start"] == 0.75


def test_a_checkpoint_keeps_it_and_an_old_one_has_none() -> None:
    state = PPOState(first_rollout=START)
    again = PPOState.from_json(json.loads(json.dumps(state.as_json())))
    assert again == state and again.first_rollout == START
    assert PPOState.from_json({"kl_coefficient": 0.1}).first_rollout is None


def test_the_unit_of_scores_is_known_whatever_they_are_divided_by() -> None:
    state = PPOState(score_scale=ScoreScale(scale=3.0), first_rollout=START)
    assert state.unit_of_scores("calibrated") == 3.0
    assert [state.unit_of_scores(kind) for kind in ("raw", "batch", "running")] == [START.deviation] * 3
    state.first_rollout = None
    assert state.unit_of_scores("raw") == 3.0 and PPOState().unit_of_scores("raw") is None


def test_sequences_that_stand_in_responses_to_other_prompts() -> None:
    found = shared_with_others(
        [
            ("a", "one two three four five"),  # the first of its two stands in c
            ("a", "one two three four five"),  # the same prompt is no other
            ("b", "Red green blue grey"),
            ("c", "zero one two three four"),
            ("d", "too short"),
        ]
    )
    assert found == [0.5, 0.5, 0.0, 0.5]
    assert shared_with_others([("a", "a b c")]) == []


def test_the_first_rollout_is_that_of_iteration_0_and_stays() -> None:
    def rollout(*scores: float) -> Any:
        lengths = torch.arange(1, len(scores) + 1)
        return SimpleNamespace(batch=SimpleNamespace(response_lengths=lengths), scores=torch.tensor(scores))

    state = PPOState()
    assert against_first_rollout(state, 1, rollout(1.0, 2.0)) == {}  # of a checkpoint that has none
    assert against_first_rollout(state, 0, rollout(1.0, 2.0)) == {"ppo/scores_beyond_start": 0.0}
    first = state.first_rollout
    assert first == FirstRollout.of([1, 2], [1.0, 2.0])
    assert against_first_rollout(state, 1, rollout(1.5, 9.0))["ppo/scores_beyond_start"] == 0.5
    assert state.first_rollout is first
