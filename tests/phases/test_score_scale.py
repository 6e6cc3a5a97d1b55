"""Scores of a run keep one unit and no offset: what they become before the KL penalty, and what PPO makes of them."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.phases.test_ppo import phase, settings, whole_state
from tests.small import Lines
from torch import Tensor

from triphase.models.roles import POLICY, REFERENCE
from triphase.objectives.advantages import center_scores
from triphase.phases.guards import judge_rollout
from triphase.phases.ppo import PPOPhase
from triphase.phases.rewards import shape_scores
from triphase.phases.score_scale import ScoreScale, next_scale
from triphase.rewards.types import Answer, Scorer, Scores
from triphase.settings.ppo import PPOSettings
from triphase.training.loop import LoopOptions, run_loop

FIRST = torch.tensor([-1.5, -0.5, 0.0, 1.0, 1.5, 2.5])
LATER = torch.tensor([2.0, 2.2, 1.9, 2.1, 9.0, 2.0])
ENDED = torch.ones(6, dtype=torch.bool)


class Planted(Scorer):
    """Any number for a response."""

    def __init__(self, score: Any) -> None:
        self._score = score

    def score(self, answers: Sequence[Answer]) -> Scores:
        return Scores(tuple(float(self._score(answer.response)) for answer in answers))


def shaped(
    rollouts: list[Tensor], *, calibrated: bool = True, finished: Tensor = ENDED, **changes: Any
) -> tuple[Tensor, float | None, dict[str, float]]:
    """What becomes of the last of these rollouts."""
    chosen, kept = PPOSettings.model_validate(changes), None
    for scores in rollouts:
        kept = next_scale(kept, scores, chosen, calibrated=calibrated)
    assert kept is not None
    return shape_scores(rollouts[-1], finished, chosen, kept)


def scored(score: Any, **changes: Any) -> PPOPhase:
    ppo = phase(settings(**changes))
    ppo.scorer = Planted(score)
    return ppo


# Centering


def test_each_score_is_measured_by_the_others() -> None:
    found = center_scores(torch.tensor([1.0, 2.0, 6.0]))
    assert found.tolist() == [1.0 - 4.0, 2.0 - 3.5, 6.0 - 1.5]
    assert center_scores(torch.full((5,), 0.3)).tolist() == [0.0] * 5
    assert center_scores(torch.tensor([0.7])).tolist() == [pytest.approx(0.7)]


# One scale for the run


def test_a_calibrated_score_is_never_rescaled() -> None:
    for rollouts in ([FIRST], [FIRST, LATER], [FIRST, 0.1 * FIRST]):
        scores, divisor, _ = shaped(rollouts, missing_eos_penalty=0.0, score_clip=None)
        assert divisor == 1.0
        assert torch.allclose(scores, center_scores(rollouts[-1]), atol=1e-6)


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1000.0])
def test_a_scorers_scale_is_that_of_its_first_rollout_and_stays(factor: float) -> None:
    first = factor * FIRST + 500.0 * factor
    expected = float(FIRST.std(unbiased=False))
    for rollouts in ([first], [first, factor * LATER], [first, 0.1 * first]):
        assert shaped(rollouts, calibrated=False)[1] == pytest.approx(expected * factor, rel=1e-3)


def test_running_moments_never_amplify() -> None:
    divisors = [
        shaped([FIRST, 3 * FIRST, 0.01 * FIRST][:count], score_normalization="running")[1] or 0.0 for count in (1, 2, 3)
    ]
    assert divisors[0] == pytest.approx(float(FIRST.std(unbiased=False)))
    both = torch.cat([FIRST, 3 * FIRST])
    assert divisors[1] == divisors[2] == pytest.approx(float(both.std(unbiased=False)))
    assert shaped([0.1 * FIRST], score_normalization="running")[1] == 1.0


def test_batch_follows_the_rollout() -> None:
    scores, divisor, _ = shaped([FIRST, 0.1 * FIRST], score_normalization="batch", missing_eos_penalty=0.0)
    assert divisor == pytest.approx(0.1 * float(FIRST.std(unbiased=False)))
    assert float(scores.std(unbiased=False)) == pytest.approx(1.0)


def test_raw_is_as_it_comes() -> None:
    scores, divisor, _ = shaped([LATER], score_normalization="raw", missing_eos_penalty=0.0, score_clip=None)
    assert torch.equal(scores, LATER) and divisor == 1.0


# The limit and the penalty count from the SFT policy's mean, in its deviations


def test_the_limit_is_around_the_first_rollouts_mean_and_the_penalty_comes_after_it() -> None:
    finished = torch.tensor([True, True, True, True, True, False])
    scale = float(FIRST.std(unbiased=False))
    for calibrated, offset, unit in ((True, 0.0, 1.0), (True, -7.0, 1.0), (False, 700.0, scale)):
        scores, _, figures = shaped(
            [FIRST + offset, LATER + offset], calibrated=calibrated, finished=finished, score_clip=3.0
        )
        in_units = ((LATER - FIRST.mean()) / unit).clamp(-3.0, 3.0)
        expected = center_scores(in_units - torch.tensor([0.0] * 5 + [1.0]))
        assert torch.allclose(scores, expected, atol=1e-4)
        assert figures["ppo/clipped_scores"] == pytest.approx(1 / 6)


def test_under_raw_and_batch_the_limit_is_around_nought() -> None:
    for kind in ("raw", "batch"):
        assert shaped([LATER], score_normalization=kind, score_clip=2.05)[2]["ppo/clipped_scores"] == 0.5


# Scores without spread teach nothing


@pytest.mark.parametrize("constant", [0.3, 0.5, -2.0, 1e6])
@pytest.mark.parametrize("kind", ["calibrated", "running", "batch"])
@pytest.mark.parametrize("calibrated", [True, False])
def test_equal_scores_are_nought(constant: float, kind: str, calibrated: bool) -> None:
    noise = torch.tensor([0.0, 1.0, -1.0, 1.0, 0.0, -1.0]) * abs(constant) * torch.finfo(torch.float32).eps
    for scores in (torch.full((6,), constant), constant + noise):
        for before in ([], [FIRST]):
            found = shaped([*before, scores], calibrated=calibrated, score_normalization=kind)[0]
            assert found.tolist() == [0.0] * 6


def test_a_deviation_far_below_the_usual_is_rounding() -> None:
    assert shaped([FIRST, 0.5 + 1e-6 * FIRST])[0].tolist() == [0.0] * 6
    assert shaped([FIRST, 0.5 + 1e-3 * FIRST])[0].abs().max() > 1e-4


@pytest.mark.parametrize("constant", [0.3, 0.5, 700.0])
def test_a_constant_scorer_leaves_the_policy_where_it_is(constant: float) -> None:
    ppo = scored(lambda response: constant, missing_eos_penalty=0.0, iterations=4)
    for iteration in range(4):
        metrics = ppo.advance(iteration)
        assert metrics["ppo/reference_kl"] == 0.0
        assert "ppo/effective_kl_coefficient" not in metrics
    start = ppo.shared.adapters.state(REFERENCE)
    assert all(torch.equal(value, start[name]) for name, value in ppo.shared.adapters.state(POLICY).items())


def test_a_scorers_scale_waits_for_scores_that_differ() -> None:
    kept = [torch.zeros(6), torch.zeros(6), torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 0.0])]
    assert shaped(kept[:2], calibrated=False)[1] is None
    assert shaped(kept, calibrated=False)[1] == pytest.approx(math.sqrt(1 / 6 - 1 / 36))


# PPO


def test_an_offset_gives_the_same_curve() -> None:
    curves = []
    for offset in (0.0, -3.0, 3.0):
        ppo = phase(settings(iterations=4))
        with torch.no_grad():
            ppo.shared.score_head.linear.bias.add_(offset)
        rows = [ppo.advance(iteration) for iteration in range(4)]
        curves.append(
            [(row["ppo/proxy_score"] - offset, row["ppo/reference_kl"], row["ppo/mean_length"]) for row in rows]
        )
    assert curves[0][-1][1] > 0
    for curve in curves[1:]:
        for row, expected in zip(curve, curves[0], strict=True):
            assert row == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {"kl_coefficient": 1000.0},
        {"kl_coefficient": 1e6, "score_normalization": "raw"},
        {"score_clip": None, "score_normalization": "calibrated"},
        {"score_clip": None, "score_normalization": "running"},
        {"score_clip": None, "score_normalization": "batch"},
        {"score_clip": None, "score_normalization": "raw"},
    ],
)
def test_large_coefficients_and_scores_end_in_no_error(changes: dict[str, Any]) -> None:
    ppo = scored(lambda response: 1000.0 * (len(response) % 7) / 6, iterations=3, **changes)
    for iteration in range(3):
        metrics = ppo.advance(iteration)
        assert metrics["ppo/steps"] > 0 and all(math.isfinite(value) for value in metrics.values())
    assert metrics["ppo/reference_kl"] != 0


def test_a_coefficient_beyond_float32_is_named() -> None:
    ppo = scored(len, iterations=3)
    ppo.state.values.kl_coefficient = 1e39  # more than the settings allow, and not more than an alarm can raise it to
    with pytest.raises(Exception, match=r"ppo\.kl_coefficient: 1e\+39 .* float32; lower it"):
        for iteration in range(3):
            ppo.advance(iteration)


def test_the_best_checkpoint_is_judged_in_the_scorers_unit() -> None:
    metrics = {"ppo/proxy_score": 500.0, "ppo/kl_coefficient": 0.1, "ppo/reference_kl": 5.0}
    assert judge_rollout(3, metrics | {"ppo/effective_kl_coefficient": 20.0}) == (2, 400.0)


@pytest.mark.parametrize("kind", ["calibrated", "running"])
def test_the_scale_is_resumed(kind: str, tmp_path: Path) -> None:
    changes = {"iterations": 4, "score_normalization": kind}
    expected = scored(len, **changes)
    run_loop(expected, LoopOptions(tmp_path / "whole", Lines(), keep=1))
    kept = Lines()

    def fail(_: object) -> None:
        if len(kept.rows) == 3:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        run_loop(scored(len, **changes), LoopOptions(tmp_path / "cut", kept, keep=1, on_step=fail))
    resumed = scored(len, **changes)
    run_loop(resumed, LoopOptions(tmp_path / "cut", kept, keep=1))
    assert resumed.state.values == expected.state.values
    assert resumed.state.values.score_scale.count == 4 * 8
    assert whole_state(resumed) == whole_state(expected)


def test_the_metric_of_the_effective_coefficient() -> None:
    def effective(kind: str) -> tuple[float, ScoreScale | None]:
        ppo = scored(lambda response: 100.0 * len(response), score_normalization=kind, kl_coefficient=0.1)
        metrics = ppo.advance(0)
        return metrics["ppo/effective_kl_coefficient"], ppo.state.values.score_scale

    value, scale = effective("calibrated")
    assert value == pytest.approx(0.1 * scale.scale) and value > 1
    assert effective("running")[0] == pytest.approx(value)
    assert effective("raw")[0] == pytest.approx(0.1)
    assert phase(settings(kl_coefficient=0.1)).advance(0)["ppo/effective_kl_coefficient"] == 0.1
