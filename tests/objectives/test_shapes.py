import pytest
import torch
from tests.objectives.examples import response_mask

from triphase.objectives.shapes import (
    require_constant,
    require_mask,
    require_positive,
    require_response_prefix,
    require_rows,
    require_same_shape,
    require_shapes,
    require_share,
)


def test_one_letter_is_one_size() -> None:
    require_shapes(values=(torch.zeros(2, 3), "B R"), scores=(torch.zeros(2), "B"))
    with pytest.raises(ValueError, match=r"scores must have the shape \(B\) with B = 2 as in values; it has \(3,\)"):
        require_shapes(values=(torch.zeros(2, 3), "B R"), scores=(torch.zeros(3), "B"))


def test_the_number_of_dimensions_counts() -> None:
    with pytest.raises(ValueError, match=r"scores must have the shape \(B\); it has \(2, 1\)"):
        require_shapes(scores=(torch.zeros(2, 1), "B"))


def test_broadcasting_is_refused() -> None:
    require_same_shape(one=torch.zeros(2, 3), other=torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"other must have the shape of one, \(2, 3\); it has \(2, 1\)"):
        require_same_shape(one=torch.zeros(2, 3), other=torch.zeros(2, 1))


def test_a_mask_is_bool_and_counts_something() -> None:
    assert require_mask(response_mask([2, 1])) == 3
    with pytest.raises(ValueError, match="must be bool"):
        require_mask(torch.ones(2, 2))
    with pytest.raises(ValueError, match="selects no element"):
        require_mask(torch.zeros(2, 2, dtype=torch.bool))


def test_every_row_counts_something() -> None:
    require_rows(response_mask([1, 2]))
    with pytest.raises(ValueError, match=r"row \[1\]"):
        require_rows(response_mask([2, 0]))
    with pytest.raises(ValueError, match=r"\(B, R\)"):
        require_rows(torch.ones(3, dtype=torch.bool))


@pytest.mark.parametrize(
    ("row", "why"), [([True, False, True], "hole"), ([False, True, True], "padded on the left"), ([False] * 3, "empty")]
)
def test_a_response_mask_is_a_run_of_true_then_false(row: list[bool], why: str) -> None:
    require_response_prefix(torch.tensor([[True, True, False], [True, True, True], [True, False, False]]))
    with pytest.raises(ValueError, match=r"row \[1\]"):
        require_response_prefix(torch.tensor([[True, True, True], row]))


def test_constants_have_no_gradient() -> None:
    require_constant(returns=torch.zeros(1))
    with pytest.raises(ValueError, match="returns must be constant"):
        require_constant(returns=torch.zeros(1, requires_grad=True))


@pytest.mark.parametrize("number", [0.0, -1.0, float("nan")])
def test_positive_means_above_zero(number: float) -> None:
    require_positive(target=1e-9)
    with pytest.raises(ValueError, match="target must be above 0"):
        require_positive(target=number)


@pytest.mark.parametrize("number", [-0.1, 1.1, float("nan")])
def test_a_share_lies_between_0_and_1(number: float) -> None:
    require_share(discount=0, gae_lambda=1)
    with pytest.raises(ValueError, match="discount must lie between"):
        require_share(discount=number)
