"""The statistics of each labeler in labelling.json, by hand."""

import pytest

from triphase.records.types import Ranking
from triphase.runs import labeling


def ranking(labeler: str, prompt: str, *places: int, seconds: float | None = None) -> Ranking:
    order = tuple(f"{prompt}{number}" for number in range(len(places)))
    return Ranking(f"{labeler}{prompt}", prompt, labeler, dict(zip(order, places, strict=True)), order, 0.0, seconds)


RANKINGS = [
    ranking("ann", "p", 1, 2, 3, seconds=10.0),
    ranking("ann", "q", 1, 1, seconds=30.0),
    ranking("ann", "r", 1, 2),
    ranking("bob", "p", 1, 3, 2),
    ranking("bob", "r", 1, 2),
    ranking("eve", "s", 2, 1),
]


def test_by_hand() -> None:
    ann, bob, eve = labeling._by_labeler(RANKINGS)
    # Five pairs of ann's, one of them tied; with bob she shares three pairs of p, two alike, and one of r, alike.
    assert (ann["labeler"], ann["rankings"], ann["seconds"]) == ("ann", 3, 20.0)
    assert ann["tied"] == pytest.approx(1 / 5) and ann["agreement"] == pytest.approx(3 / 4)
    assert bob["agreement"] == ann["agreement"] and bob["tied"] == 0 and bob["seconds"] is None
    assert (eve["labeler"], eve["agreement"], eve["agreement_low"]) == ("eve", None, None)


def test_one_labeler_alone_and_more_than_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    (ann,) = labeling._by_labeler([each for each in RANKINGS if each.labeler == "ann"])
    assert ann["agreement"] is None and ann["rankings"] == 3
    assert labeling._by_labeler([]) == []
    monkeypatch.setattr(labeling, "MOST_LABELERS", 1)
    assert [each["labeler"] for each in labeling._by_labeler(RANKINGS)] == ["ann"]
