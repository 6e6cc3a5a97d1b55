"""Samples of an engine, by hand: the difference, the weights, what is cut, and that the advantages are multiplied."""

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from triphase.errors import TrainingError
from triphase.objectives.advantages import Advantages
from triphase.phases.sampler import against_sampler
from triphase.rollouts.types import Generated
from triphase.settings.ppo import PPOSettings

MASK = torch.tensor([[True, True], [True, False]])
OURS = torch.tensor([[-1.0, -2.0], [-3.0, 9.0]])
RATIOS = (1.1, 1.5, 1.0)
PLAIN = Advantages(torch.tensor([[2.0, -1.0], [4.0, 0.0]]), torch.tensor([[5.0, 6.0], [7.0, 8.0]]))


def sampled(ratios: tuple[float, ...] = RATIOS) -> list[Generated]:
    """π over the server's μ is ``ratios`` at the three tokens."""
    first, second, third = (ours - math.log(ratio) for ours, ratio in zip(OURS[MASK].tolist(), ratios, strict=True))
    return [Generated((1, 2), True, (first, second)), Generated((3,), True, (third,))]


def against(limit: float | None, generated: list[Generated], staleness: int = 0) -> tuple[Advantages, dict[str, float]]:
    experience = cast(Any, SimpleNamespace(batch=SimpleNamespace(response_mask=MASK), logprobs=OURS))
    return against_sampler(PLAIN, experience, generated, PPOSettings(importance_limit=limit), staleness=staleness)


def test_advantages_are_weighed_and_what_is_cut_is_counted() -> None:
    found, figures = against(1.2, sampled())
    torch.testing.assert_close(found.advantages, torch.tensor([[2.2, -1.2], [4.0, 0.0]]))  # 1.5 is cut to 1.2
    assert torch.equal(found.returns, PLAIN.returns)
    assert figures == pytest.approx(
        {
            "ppo/sampler_difference": (math.log(1.1) + math.log(1.5)) / 3,
            "ppo/sampler_difference_max": math.log(1.5),
            "ppo/importance_weight": (1.1 + 1.2 + 1.0) / 3,
            "ppo/importance_cut": 1 / 3,
            "ppo/staleness": 0,
        },
        abs=1e-6,
    )


def test_equal_numbers_at_a_limit_of_one_cut_nothing() -> None:
    found, figures = against(1.0, sampled((1.0, 1.0, 1.0)))
    assert torch.equal(found.advantages, PLAIN.advantages) and figures["ppo/importance_cut"] == 0


def test_without_a_limit_nothing_is_weighed_and_the_difference_is_told() -> None:
    found, figures = against(None, sampled((3.0, 3.0, 3.0)))
    assert found is PLAIN and figures["ppo/sampler_difference"] == pytest.approx(math.log(3))
    assert against(None, [Generated((1, 2), True), Generated((3,), True)]) == (PLAIN, {})


def test_what_is_no_rounding_or_not_known_is_not_weighed() -> None:
    with pytest.raises(TrainingError, match="which is more than rounding"):
        against(2.0, sampled((3.0, 3.0, 3.0)))
    with pytest.raises(TrainingError, match="a response has none; sample"):
        against(2.0, [*sampled()[:1], Generated((3,), True)])


def test_an_older_policy_may_be_far_and_is_weighed() -> None:
    _, figures = against(2.0, sampled((3.0, 3.0, 1.0)), staleness=1)
    assert figures["ppo/staleness"] == 1 and figures["ppo/importance_cut"] == pytest.approx(2 / 3)
