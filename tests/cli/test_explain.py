"""The worked example, and that its numbers are those of the training functions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triphase.cli.main import main
from triphase.objectives.worked_step import worked_step

EXAMPLE = {
    "reward": 5.0,
    "value": 1.5,
    "next_value": 0.0,
    "discount": 0.9,
    "probability_old": 0.60,
    "probability_new": 0.75,
    "clip_range": 0.2,
}


def test_the_worked_example() -> None:
    step = worked_step(**EXAMPLE)
    assert (step.advantage, step.objective) == pytest.approx((3.5, 4.2), abs=1e-12)
    assert (step.ratio, step.unclipped, step.clipped) == pytest.approx((1.25, 4.375, 4.2), abs=1e-12)
    assert step.value_loss == pytest.approx(0.5 * 3.5**2)
    assert step.is_clipped and step.gradient == 0


def test_a_next_state_counts_by_its_discounted_value() -> None:
    step = worked_step(**{**EXAMPLE, "next_value": 2.0})
    assert step.advantage == pytest.approx(5 + 0.9 * 2 - 1.5)


def test_a_bad_action_is_clipped_on_the_other_side() -> None:
    step = worked_step(**{**EXAMPLE, "reward": 0.0, "probability_new": 0.3})
    assert (step.advantage, step.ratio) == pytest.approx((-1.5, 0.5))
    assert step.objective == pytest.approx(0.8 * -1.5)
    assert step.is_clipped


def test_a_step_within_the_range_is_not_clipped() -> None:
    step = worked_step(**{**EXAMPLE, "probability_new": 0.66})
    assert step.unclipped == step.clipped and not step.is_clipped
    assert step.gradient == pytest.approx(1.1 * 3.5)


@given(st.floats(-5, 5), st.floats(0.05, 1), st.floats(0.05, 1), st.floats(0.05, 0.9))
def test_the_objective_is_the_smaller_term_and_the_gradient_follows(
    reward: float, old: float, new: float, clip_range: float
) -> None:
    step = worked_step(
        **{**EXAMPLE, "reward": reward, "probability_old": old, "probability_new": new, "clip_range": clip_range}
    )
    assert step.objective == pytest.approx(min(step.unclipped, step.clipped), rel=1e-9, abs=1e-12)
    if step.clipped < step.unclipped - 1e-9:
        assert step.gradient == 0
    elif step.clipped > step.unclipped + 1e-9:
        assert step.gradient == pytest.approx(step.unclipped)  # d(r·Â)/d log π = r·Â


def test_the_command_shows_every_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain"]) == 0
    shown = capsys.readouterr().out
    for number in ("3.5", "1.25", "4.375", "4.2"):
        assert number in shown
    assert "clipped branch" in shown


def test_numbers_out_of_range_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for option, number in (("--probability-old", "0"), ("--discount", "2"), ("--clip-range", "1"), ("--value", "nan")):
        assert main(["explain", option, number]) == 2
        assert capsys.readouterr().err.startswith(f"error: {option}: ")
