"""What the report says of people's preferences follows from the interval alone."""

import json
from pathlib import Path

import pytest

from triphase.errors import RunError
from triphase.reports.comparison import Labelers
from triphase.reports.intervals import Interval
from triphase.reports.people_wins import DIRECTORY, PeopleWin, people_wins


def win(value: float, low: float | None, high: float | None, agreement: Interval | None = None) -> PeopleWin:
    return PeopleWin("c", "sft", "ppo", Interval(value, low, high, 40), Labelers(3, 60, agreement))


@pytest.mark.parametrize(
    ("rate", "tone", "said"),
    [
        ((0.7, 0.6, 0.8), "good", "People prefer sft to ppo: 70 % (60 to 80 %) of the prompts, ties half."),
        ((0.3, 0.2, 0.4), "good", "People prefer ppo to sft: 70 % (60 to 80 %) of the prompts, ties half."),
        ((0.55, 0.45, 0.65), "open", "People do not clearly prefer one: sft wins against ppo on 55 % (45 to 65 %)"),
        ((0.5, 0.5, 0.5), "open", "People do not clearly prefer one"),
        ((1.0, None, None), "open", "One prompt is too few to say whether people prefer sft or ppo."),
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
    for text in ("{", json.dumps([{"first": "a"}]), "[1]"):
        (tmp_path / DIRECTORY / "c.json").write_text(text)
        with pytest.raises(RunError, match=r"people/c\.json: damaged"):
            people_wins(tmp_path)
