"""The report's statement on people's preferences follows from the interval alone."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from triphase.errors import RunError
from triphase.reports.comparison import Labelers
from triphase.reports.file_shapes import misfit
from triphase.reports.intervals import Interval
from triphase.reports.people_wins import DIRECTORY, PeopleWin, keep_people_wins, people_wins


def win(value: float, low: float | None, high: float | None, agreement: Interval | None = None) -> PeopleWin:
    return PeopleWin("c", "sft", "ppo", Interval(value, low, high, 40), Labelers(3, 60, agreement))


@pytest.mark.parametrize(
    ("rate", "tone", "said"),
    [
        ((0.7, 0.6, 0.8), "good", "People prefer sft to ppo: 70 % (60 to 80 %) of the prompts, ties half."),
        ((0.3, 0.2, 0.4), "good", "People prefer ppo to sft: 70 % (60 to 80 %) of the prompts, ties half."),
        ((0.55, 0.45, 0.65), "open", "People do not clearly prefer one: sft wins against ppo on 55 % (45 to 65 %)"),
        ((0.5, 0.5, 0.5), "open", "People do not clearly prefer one"),
        ((1.0, None, None), "open", "One prompt is too few to determine whether people prefer sft or ppo."),
    ],
)
def test_words_match_the_interval(rate: tuple[float, float | None, float | None], tone: str, said: str) -> None:
    found = win(*rate)
    assert found.sentence.startswith(said) and found.tone == tone


def test_who_judged_is_told_with_what_is_not_known() -> None:
    assert "60 rankings of 40 prompts by 3 people, blind; no two of them" in win(0.5, 0.4, 0.6).judges
    assert "agree on 80 % (70 to 90 %) of the pairs" in win(0.5, 0.4, 0.6, Interval(0.8, 0.7, 0.9, 9)).judges


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    assert people_wins(tmp_path) == []
    (tmp_path / DIRECTORY).mkdir()
    rate = {"value": 0.5, "low": 0.4, "high": 0.6, "prompts": 4}
    row = {"first": "a", "second": "b", "rate": rate, "labelers": 1, "rankings": 4, "agreement": None}
    wrong = [
        {**row, "labelers": "x"},
        {**row, "rate": {**rate, "value": "x"}},
        {**row, "agreement": {**rate, "low": []}},
    ]
    for text in ("{", json.dumps([{"first": "a"}]), "[1]", "[" * 100_000, *(json.dumps([each]) for each in wrong)):
        (tmp_path / DIRECTORY / "c.json").write_text(text)
        with pytest.raises(RunError, match=r"people/c\.json: damaged"):
            people_wins(tmp_path)


def test_two_comparisons_of_one_name_keep_a_file_each(tmp_path: Path) -> None:
    run, (one, other) = tmp_path / "run", (tmp_path / "a" / "c", tmp_path / "b" / "c")
    for place in (one, other):
        place.mkdir(parents=True)
    sides = [SimpleNamespace(name=name, about=name) for name in ("ppo", "sft")]
    judgment = SimpleNamespace(labelers=Labelers(2, 40, None))

    def keep(place: Path, rate: float) -> None:
        criterion = SimpleNamespace(judgment=judgment, wins={("ppo", "sft"): Interval(rate, 0.1, 0.9, 20)})
        found: Any = SimpleNamespace(sides=sides, criteria=[criterion])
        keep_people_wins([run], place, found)

    keep(one, 0.6)
    keep(other, 0.7)
    keep(one, 0.8)  # counted again
    assert {each.comparison: each.rate.value for each in people_wins(run)} == {"c": 0.8, "c-2": 0.7}
    one.rename(tmp_path / "a" / "moved")
    other.rename(tmp_path / "c")
    keep(tmp_path / "c", 0.9)  # it takes the place of one that is no longer there
    assert {each.comparison: each.rate.value for each in people_wins(run)}["c"] == 0.9


def test_a_figure_beyond_float32_is_damage() -> None:
    row = {"low": 0.1, "high": 3.4e38, "value": 0.2, "prompts": 3}
    assert misfit(Interval, row) is None
    for wrong in (1e39, -1e39, 1e308, float("inf"), float("nan")):
        assert misfit(Interval, {**row, "value": wrong}) is not None
