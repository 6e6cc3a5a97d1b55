"""Several scores as one: values by hand, a slow reference, and what must not matter."""

import itertools
import math
import statistics

import pytest
import torch

from triphase.objectives import combine_scores, member_deviation

# Three members, of a response on which one of them is alone, and of one on which they agree.
SCORES = torch.tensor([[1.0, 1.0], [1.2, 1.1], [2.6, 1.2]])


@pytest.mark.parametrize(
    ("combine", "expected"),
    [
        ("mean", [1.6, 1.1]),
        ("worst", [1.0, 1.0]),
        ("mean-minus-variance", [1.6 - 0.5 * 1.52 / 3, 1.1 - 0.5 * 0.02 / 3]),
    ],
)
def test_values_by_hand(combine: str, expected: list[float]) -> None:
    """Variances: (0.6² + 0.4² + 1.0²)/3 = 1.52/3, and (0.1² + 0 + 0.1²)/3."""
    assert combine_scores(SCORES, combine, penalty=0.5).tolist() == pytest.approx(expected, abs=1e-6)
    assert expected[0] == pytest.approx({"mean": 1.6, "worst": 1.0}.get(combine, 1.346667), abs=1e-6)


def test_the_deviation_is_the_populations() -> None:
    expected = [statistics.pstdev(SCORES[:, column].tolist()) for column in range(2)]
    assert member_deviation(SCORES).tolist() == pytest.approx(expected, abs=1e-6)
    assert member_deviation(SCORES[:1]).tolist() == [0, 0]


@pytest.mark.parametrize("combine", ["mean", "worst", "mean-minus-variance"])
def test_the_order_of_the_members_changes_no_bit(combine: str) -> None:
    scores = torch.randn(4, 50, generator=torch.Generator().manual_seed(0)) * 100
    whole = combine_scores(scores, combine, penalty=0.3)
    for order in itertools.permutations(range(4)):
        assert torch.equal(combine_scores(scores[list(order)], combine, penalty=0.3), whole)
        assert torch.equal(member_deviation(scores[list(order)]), member_deviation(scores))


def test_members_that_are_one_are_one() -> None:
    scores = torch.randn(20, generator=torch.Generator().manual_seed(0)).double()
    for combine in ("mean", "worst", "mean-minus-variance"):
        assert torch.allclose(combine_scores(scores.expand(4, 20), combine, penalty=2.0), scores, rtol=0, atol=1e-12)
        assert torch.equal(combine_scores(scores[None], combine, penalty=2.0), scores)


def test_one_member_without_a_score_is_no_score() -> None:
    scores = torch.tensor([[1.0, 2.0], [math.nan, 3.0], [0.0, 4.0]])
    for combine in ("mean", "worst", "mean-minus-variance"):
        found = combine_scores(scores, combine, penalty=0.5)
        assert math.isnan(found[0]) and math.isfinite(found[1])


@pytest.mark.parametrize(
    ("scores", "combine", "penalty", "match"),
    [
        (torch.zeros(0, 3), "mean", 0.0, "no member"),
        (torch.zeros(3), "mean", 0.0, r"\(M, N\)"),
        (torch.zeros(2, 3), "median", 0.0, "'median'"),
        (torch.zeros(2, 3), "mean", -1.0, "not negative"),
        (torch.zeros(2, 3), "mean", math.nan, "not negative"),
    ],
)
def test_what_cannot_be_combined_is_refused(scores: torch.Tensor, combine: str, penalty: float, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        combine_scores(scores, combine, penalty=penalty)
