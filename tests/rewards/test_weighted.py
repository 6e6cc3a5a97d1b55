"""A weighted sum: the units of the first rollout are kept for later starts, and a missing opinion counts as 0."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from triphase.errors import RunError, SettingsError
from triphase.monitoring.score_parts import PREFIX, is_score_part
from triphase.records.types import Message, Prompt
from triphase.rewards.registry import examine, needs_reward_model, opened
from triphase.rewards.types import Answer, ScorerContext, Scores
from triphase.rewards.weighted import units_file
from triphase.settings.scorer import ScorerSettings

PROMPT = Prompt("p", (Message("user", "well?"),), is_text=True)
NUMBER = {"name": "number", "function": "tests.rewards.functions:by_text", "weight": 2.0}
SHORT = {"name": "short", "kind": "length", "options": {"most": 2}, "weight": -1.0}


def score(parts: list[dict[str, Any]], *texts: str, run: Path | None = None, begins: bool = True) -> Scores:
    settings = ScorerSettings.model_validate({"of": parts})
    with opened(ScorerContext(settings, directory=run, begins=begins)) as scorer:
        return scorer.score([Answer(PROMPT, text, True) for text in texts])


def test_units_are_those_of_the_first_rollout_and_are_kept(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="come from PPO's first rollout; run PPO first"):
        score([NUMBER, SHORT], "1", run=tmp_path, begins=False)
    found = score([NUMBER, SHORT], "1", "a b 5", run=tmp_path)
    assert found.parts == {"number": (1.0, 5.0), "short": (0.0, -1.0)}
    assert found.total == (2 * -1 - 1, 2 * 1 + 1)  # number: mean 3, deviation 2; short: mean -0.5, deviation 0.5
    assert score([NUMBER, SHORT], "7", run=tmp_path, begins=False).total == (2 * 2 - 1,)
    path = units_file(ScorerSettings.model_validate({"of": [NUMBER, SHORT]}), tmp_path)
    assert json.loads(path.read_text())["number"] == {"center": 3.0, "scale": 2.0}
    whole = json.loads(path.read_text())
    units = [("center", math.nan), ("center", True), ("center", 10**400), ("scale", 0.0), ("scale", "2"), ("scale", -1)]
    wrong = [{**whole, "number": {**whole["number"], name: value}} for name, value in units]
    for text in ("{}", "[" * 100_000, *map(json.dumps, wrong)):
        path.write_text(text)
        with pytest.raises(RunError, match="the units of a sum of scores cannot be read"):
            score([NUMBER, SHORT], "7", run=tmp_path)


def test_a_part_may_count_as_it_is_and_one_without_spread_keeps_its_unit() -> None:
    assert score([{**NUMBER, "calibrate": False}], "1", "5").total == (2.0, 10.0)
    assert score([NUMBER], "4", "4").total == (0.0, 0.0)


def test_what_a_part_gives_beside_its_score_is_kept_under_both_names() -> None:
    several = {"name": "several", "function": "tests.rewards.functions:parts"}
    found = score([several, SHORT], "a b", "c")
    assert found.parts == {
        "several": (4.0, 2.0), "several/words": (2.0, 1.0), "several/one": (1.0, 1.0), "short": (0.0, 0.0),
    }  # fmt: skip
    assert found.total == (1.0, -1.0)  # the score alone is optimized
    assert all(is_score_part(PREFIX + name) for name in found.parts)
    for other in ("a/b/c", "a/", "/a", "A/b", "a" * 41):
        assert not is_score_part(PREFIX + other)
    assert is_score_part(f"{PREFIX}{'a' * 40}/{'b' * 40}")  # neither is cut, so two names cannot become one


def test_names_that_would_meet_stay_apart() -> None:
    several = {"name": "several", "function": "tests.rewards.functions:parts"}
    found = score([several, {**SHORT, "name": "several_words"}], "a b", "c")
    assert found.parts["several/words"] == (2.0, 1.0) and found.parts["several_words"] == (0.0, 0.0)


def test_no_opinion_counts_nothing_and_no_score_is_none() -> None:
    some = {"name": "some", "function": "tests.rewards.functions:some", "calibrate": False}
    counted = {"name": "short", "kind": "length", "options": {"least": 0, "most": 0}, "calibrate": False}
    assert score([some, counted], "bad", "good").total == (-1.0, 0.0)
    alone = score([some], "bad", "good").total
    assert math.isnan(alone[0]) and alone[1] == 1.0


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ([{"function": "m:f"}], "a part needs a name of small letters"),
        ([{**NUMBER, "weight": "much"}], "of.number: weight must be a number, not 'much'"),
        ([NUMBER, NUMBER], "two parts of the sum have the same name"),
        ([{**NUMBER, "functoin": "m:f"}], "of.number.functoin: unknown setting; did you mean function"),
        ([{**NUMBER, "kind": "sum"}], "of.number: function is given, but kind is sum"),
        ([{"name": "a", "kind": "sum"}], "of.a: kind sum needs a list"),
        ([{"name": "a", "of": [NUMBER]}], "of.a: a part must not be a sum itself"),
    ],
)
def test_parts_that_cannot_be(parts: list[dict[str, Any]], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        ScorerSettings.model_validate({"of": parts})


def test_a_kind_that_does_not_exist_is_named_by_its_part() -> None:
    settings = ScorerSettings.model_validate({"of": [SHORT, {"name": "x", "kind": "lenght"}]})
    for found in (examine, needs_reward_model):
        with pytest.raises(
            SettingsError, match=r"^ppo\.scorer\.of\.x\.kind: 'lenght' is not a kind of scorer; did you"
        ):
            found(settings)


def test_each_part_is_looked_at_before_the_first_step() -> None:
    settings = ScorerSettings.model_validate({"of": [SHORT, {"name": "x", "function": "no_such:f"}, {"name": "rm"}]})
    with pytest.raises(
        SettingsError, match=r"^ppo\.scorer\.of\.x\.function: no_such:f: module no_such cannot be found"
    ):
        examine(settings)
    assert needs_reward_model(settings) and settings.by_reward_model
