"""The share of a score due to length: by hand, by a regression with a column for each prompt, and invariances."""

import numpy as np
import pytest
import torch

from triphase.objectives import within_group_correlation, within_group_slope


def test_a_value_by_hand() -> None:
    """Centered lengths (−1, 1), (−2, 2) and scores (−½, ½), (½, −½): (½ + ½ − 1 − 1) / (1 + 1 + 4 + 4)."""
    scores, lengths = torch.tensor([0.0, 1.0, 5.0, 4.0]), torch.tensor([1, 3, 10, 14])
    assert within_group_slope(scores, lengths, torch.tensor([7, 7, 2, 2])) == pytest.approx(-0.1, abs=1e-12)
    # Between the prompts longer scores more: without a level for each prompt the slope would be positive.
    assert within_group_slope(scores, lengths, torch.zeros(4).long()) > 0.3


def test_shapes_that_do_not_fit_are_refused() -> None:
    scores, group = torch.tensor([0.0, 1.0, 5.0]), torch.tensor([0, 0, 1])
    for measure in (within_group_slope, within_group_correlation):
        with pytest.raises(ValueError, match="lengths"):
            measure(scores, torch.tensor([1]), group)  # which would be broadcast


def test_it_is_the_regression_with_a_column_for_each_prompt() -> None:
    draw = torch.Generator().manual_seed(0)
    lengths, scores = torch.randint(1, 30, (60,), generator=draw), torch.randn(60, generator=draw)
    group = torch.randint(0, 9, (60,), generator=draw)
    columns = np.column_stack([lengths.double(), torch.nn.functional.one_hot(group).double()])
    expected = np.linalg.lstsq(columns, scores.double().numpy(), rcond=None)[0][0]
    found = within_group_slope(scores, lengths, group)
    assert found == pytest.approx(expected, abs=1e-9)
    level = torch.randn(9, generator=draw)[group] * 100  # a level of a prompt is free
    assert within_group_slope((scores + level).double(), lengths, group) == pytest.approx(found, abs=1e-5)
    assert within_group_slope(scores - found * lengths, lengths, group) == pytest.approx(0, abs=1e-6)


def test_a_single_token_of_difference_is_enough() -> None:
    """Centered lengths (−½, ½): the sums are below 1, and only 0 means that there is no information."""
    scores, lengths, group = torch.tensor([0.25, 0.5]), torch.tensor([4, 5]), torch.tensor([3, 3])
    assert within_group_slope(scores, lengths, group) == pytest.approx(0.25)
    found = within_group_correlation(scores, lengths, group)
    assert found is not None and found.item() == pytest.approx(1)


def test_where_lengths_do_not_differ_within_a_prompt_there_is_none() -> None:
    assert within_group_slope(torch.randn(4), torch.tensor([3, 3, 5, 5]), torch.tensor([0, 0, 1, 1])) is None
    with pytest.raises(ValueError, match="lengths"):
        within_group_slope(torch.randn(4), torch.tensor([3, 3, 5]), torch.tensor([0, 0, 1, 1]))


def test_the_correlation_within_groups_by_hand_and_against_loops() -> None:
    # Deviations: lengths -1 1 | -2 2, scores -1 1 | 1 -1: (2 - 4) / √(10 · 4)
    scores, lengths = torch.tensor([5.0, 7.0, 2.0, 0.0]), torch.tensor([1, 3, 10, 14])
    group = torch.tensor([7, 7, 2, 2])
    found = within_group_correlation(scores, lengths, group)
    assert found is not None and found.item() == pytest.approx(-2 / 40**0.5)
    moved = within_group_correlation(3 * scores + torch.tensor([9.0, 9.0, -4.0, -4.0]), lengths, group)
    assert moved is not None and moved.item() == pytest.approx(found.item())  # level of a prompt and unit say nothing
    assert within_group_correlation(scores, torch.tensor([3, 3, 8, 8]), group) is None
    assert within_group_correlation(torch.zeros(4), lengths, group) is None


def test_the_gradient_of_the_correlation_is_that_of_finite_differences() -> None:
    scores = torch.tensor([0.3, -1.0, 2.0, 0.1, 0.7], dtype=torch.float64, requires_grad=True)
    lengths, group = torch.tensor([2, 5, 9, 1, 4]), torch.tensor([0, 0, 0, 1, 1])
    assert torch.autograd.gradcheck(lambda each: within_group_correlation(each, lengths, group), (scores,))
