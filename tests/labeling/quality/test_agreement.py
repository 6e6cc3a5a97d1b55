"""Agreement figures against textbook values and values worked by hand."""

import pytest

from triphase.labeling.quality.agreement import (
    agreement_by_pair,
    cohen_kappa,
    krippendorff_alpha,
    mean_places,
    pair_alpha,
    pair_kappa,
    pairwise_agreement,
    ranking_alpha,
    share_by_prompt,
)
from triphase.labeling.quality.labeler_quality import (
    gold_accuracy,
    length_bias,
    median_seconds,
    position_bias,
    self_consistency,
)
from triphase.records.types import Ranking


def ranking(labeler: str, places: dict[str, int], prompt: str = "p", shown: tuple[str, ...] = ()) -> Ranking:
    return Ranking(f"{labeler}-{prompt}", prompt, labeler, places, shown or tuple(places), 0.0, 10.0)


def test_krippendorff_nominal_of_three_raters() -> None:
    items = ["AAA", "AAB", "BBB", "ABB"]
    table = [[float(item[rater] == "A") for item in items] for rater in range(3)]
    assert krippendorff_alpha(table) == pytest.approx(0.389, abs=5e-4)


def test_krippendorff_textbook_table() -> None:
    n = None
    table = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, n, n, n],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, n, 3],
        [n, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, n],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, n],
    ]
    assert krippendorff_alpha(table) == pytest.approx(0.7434, abs=5e-5)
    assert krippendorff_alpha(table, "ordinal") == pytest.approx(0.815, abs=5e-4)
    assert krippendorff_alpha(table, "interval") == pytest.approx(0.849, abs=5e-4)


def test_alpha_over_nothing_is_absent() -> None:
    assert krippendorff_alpha([]) is None
    assert krippendorff_alpha([[1, None], [None, 2]]) is None
    assert krippendorff_alpha([[1, 1], [1, 1]]) is None


def test_kappa_of_a_hundred_pairs() -> None:
    # marginals 60/40 and 50/50, 70 agree: observed .70, by chance .6·.5 + .4·.5 = .50
    first = ["A"] * 60 + ["B"] * 40
    second = ["A"] * 40 + ["B"] * 20 + ["A"] * 10 + ["B"] * 30
    assert cohen_kappa(first, second) == pytest.approx(0.40)


def test_weighted_kappa() -> None:
    first, second = (1, 2, 3, 3, 2, 1), (1, 3, 3, 2, 2, 2)
    assert cohen_kappa(first, second) == pytest.approx(0.25)
    assert cohen_kappa(first, second, "quadratic") == pytest.approx(0.571, abs=5e-4)
    assert cohen_kappa([1, 1], [1, 1]) is None
    assert cohen_kappa([], []) is None
    with pytest.raises(ValueError, match="1 categories against 2"):
        cohen_kappa([1], [1, 2])


def test_pairwise_agreement_by_hand() -> None:
    one = ranking("one", {"a": 1, "b": 2, "c": 3})
    two = ranking("two", {"a": 1, "b": 3, "c": 2})
    assert pairwise_agreement([one, two]).value.value == pytest.approx(2 / 3)
    tied = ranking("two", {"a": 1, "b": 1, "c": 2})
    found = pairwise_agreement([one, tied])
    assert found.value.value == 1.0 and found.value.pairs == 2
    assert found.with_ties.value == pytest.approx(2.5 / 3) and found.with_ties.pairs == 3
    both_tied = [ranking("one", {"a": 1, "b": 1}), ranking("two", {"a": 2, "b": 2})]
    assert pairwise_agreement(both_tied).value is None
    assert pairwise_agreement(both_tied).with_ties.value == 1.0
    assert pairwise_agreement([one]).with_ties is None


def test_partial_rankings_meet_only_where_both_ranked() -> None:
    one = ranking("one", {"a": 1, "b": 2})
    two = ranking("two", {"b": 1, "c": 2})
    assert pairwise_agreement([one, two]).with_ties is None


def test_agreement_by_pair_of_labelers() -> None:
    rankings = [
        ranking("one", {"a": 1, "b": 2}),
        ranking("two", {"a": 1, "b": 2}),
        ranking("three", {"a": 2, "b": 1}),
        ranking("alone", {"x": 1, "y": 2}, "q"),
    ]
    found = agreement_by_pair(rankings)
    assert set(found) == {("one", "two"), ("one", "three"), ("three", "two")}
    assert found["one", "two"].value.value == 1.0
    assert found["one", "three"].value.value == 0.0
    assert pairwise_agreement(rankings).value.value == pytest.approx(1 / 3)
    assert pair_kappa(rankings, "one", "alone") is None


def test_interval_draws_whole_prompts() -> None:
    # a hundred pairs of one prompt are one piece of evidence: 0.5 ± 0.5·z² / (1 + z²)
    assert share_by_prompt([("p", 1.0), ("p", 0.0)] * 50).low == pytest.approx(0.5 - 0.5 * 0.7935, abs=1e-4)
    wide = share_by_prompt([("p", 1.0)] * 50 + [("q", 0.0)] * 50)
    assert (wide.low, wide.value, wide.high) == (0.0, 0.5, 1.0)
    many = share_by_prompt([(f"p{i}", float(i % 2)) for i in range(400)])
    assert many.low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.01)
    assert many.high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.01)


def test_an_interval_is_never_without_a_width() -> None:
    z2 = 1.959963984540054**2
    found = share_by_prompt([(f"p{n}", 1.0) for n in range(10) for _ in range(3)])
    assert found is not None and (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(10 / (10 + z2)), "ten prompts, however many pairs of each"
    found = share_by_prompt([("p", 1.0), ("p", 1.0), ("p", 0.0)])
    assert found is not None and found.low < 0.15 and found.high > 0.9, "one prompt says next to nothing"
    found = share_by_prompt([("p", 0.0), ("q", 0.0)])
    assert found is not None and found.low == 0.0 and found.high == pytest.approx(z2 / (2 + z2))


def test_alpha_of_rankings() -> None:
    same = [ranking(name, {"a": 1, "b": 2, "c": 3}) for name in ("one", "two")]
    assert ranking_alpha(same) == pytest.approx(1.0)
    assert pair_alpha([*same, ranking("one", {"d": 2, "e": 1}, "q"), ranking("two", {"d": 2, "e": 1}, "q")]) == 1.0
    opposite = [ranking("one", {"a": 1, "b": 2, "c": 3}), ranking("two", {"a": 3, "b": 2, "c": 1})]
    assert ranking_alpha(opposite) < 0
    assert mean_places(ranking("one", {"a": 1, "b": 1, "c": 5})) == {"a": 1.5, "b": 1.5, "c": 3.0}


def test_gold_accuracy_and_self_consistency() -> None:
    known = {"p": {"a": 1, "b": 2, "c": 3}}
    assert gold_accuracy([ranking("one", {"a": 1, "b": 2, "c": 3})], known).value == 1.0
    assert gold_accuracy([ranking("one", {"a": 2, "b": 1, "c": 2})], known).value == pytest.approx((0 + 0.5 + 1) / 3)
    assert gold_accuracy([], known) is None
    first = [ranking("one", {"a": 1, "b": 2}), ranking("two", {"a": 2, "b": 1})]
    assert self_consistency(first, [ranking("one", {"a": 1, "b": 2})]).value == 1.0
    assert self_consistency(first, [ranking("two", {"a": 1, "b": 2})]).value == 0.0
    assert self_consistency(first, [ranking("three", {"a": 1, "b": 2})]) is None


def test_position_and_length_bias() -> None:
    shown = ("c", "a", "b")
    rankings = [ranking("one", {"a": 2, "b": 3, "c": 1}, shown=shown)]
    assert position_bias(rankings).value == 1.0
    assert position_bias([ranking("one", {"a": 1, "b": 1, "c": 2}, shown=shown)]).value == 0.0
    assert position_bias([ranking("one", {"a": 1, "b": 1})]) is None
    assert length_bias(rankings, {"a": 5, "b": 5, "c": 9}).value == 1.0
    assert length_bias(rankings, {"a": 5, "b": 9, "c": 5}).value == 0.0
    assert length_bias(rankings, {"a": 5, "b": 5, "c": 5}) is None
    assert median_seconds(rankings) == 10.0
