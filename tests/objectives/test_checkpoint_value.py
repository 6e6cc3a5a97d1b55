"""What a checkpoint is worth without gold: values by hand, and what the rule is for, on planted courses."""

from math import inf, nan
from statistics import NormalDist

import pytest

from triphase.objectives.checkpoint_value import Measure, checkpoint_value

NORMAL = [NormalDist().inv_cdf((number + 0.5) / 200) for number in range(200)]
"""The SFT policy's scores: deviation 1, and 95 % of them up to 1.63."""


def shifted(by: float) -> list[float]:
    """The scores of a policy that writes better by ``by`` deviations."""
    return [score + by for score in NORMAL]


def test_the_range_is_that_of_the_sft_policys_scores() -> None:
    found = Measure.of_reward_model([*range(1, 21), nan, inf])
    assert (found.highest, found.price) == (19, 0.05)  # 95 % of 20
    assert found.deviation == pytest.approx(5.766281297335398)
    assert Measure.of_reward_model([3.0, 3.0]) == Measure(1.0, 0.05, 3.0)
    with pytest.raises(ValueError, match="no score is finite"):
        Measure.of_reward_model([nan])


def test_values_by_hand() -> None:
    assert Measure(2.0, 0.1).value([3.0, 5.0, nan], 5.0) == pytest.approx(4 / 2 - 0.5)
    assert Measure(2.0, 0.05, 4.0).value([3.0, 5.0, 90.0], 4.0) == pytest.approx((3 + 4 + 4) / 3 / 2 - 0.2)
    both = [(Measure(2.0, 0.1), [4.0]), (Measure(1.0, 0.05, 1.0), [7.0])]
    assert checkpoint_value(both, 10.0) == pytest.approx(((2 - 1) + (1 - 0.5)) / 2)
    assert checkpoint_value(both[:1], 10.0) == pytest.approx(1.0)


COURSES = {
    # Shift of the score, shift of the witness's, KL; of three checkpoints, the second of which is the one to take.
    "the score rises without end, and alone": ((1.0, None, 3.0), (2.0, None, 6.0), (5.0, None, 14.0)),
    "the witness rises with it": ((0.8, 0.7, 3.0), (2.0, 1.8, 7.0), (4.0, 3.0, 15.0)),
    "the witness falls before the KL shows it": ((0.5, 0.4, 1.0), (0.9, 0.6, 2.0), (1.6, -0.4, 3.0)),
    "the witness has learned nothing": ((0.4, 0.1, 1.0), (1.4, 0.0, 4.0), (1.6, 0.1, 12.0)),
}


@pytest.mark.parametrize("course", COURSES)
def test_the_turn_is_found(course: str) -> None:
    measure = Measure.of_reward_model(NORMAL)
    values = [
        checkpoint_value([(measure, shifted(by)) for by in shifts if by is not None], kl)
        for *shifts, kl in COURSES[course]
    ]
    assert max(range(3), key=lambda number: values[number]) == 1
