"""Rules: values by hand, invalid options, and a regular expression that never ends."""

import math
import sys
from typing import Any

import pytest

from triphase.errors import SettingsError, TrainingError
from triphase.records.types import Message, Prompt
from triphase.rewards import rules
from triphase.rewards.registry import examine, opened
from triphase.rewards.types import Answer, ScorerContext
from triphase.settings.scorer import ScorerSettings

PROMPT = Prompt("p", (Message("user", "well?"),))


def score(kind: str, *texts: str, seconds: float = 30.0, **options: Any) -> tuple[float, ...]:
    settings = ScorerSettings(kind=kind, options=options, timeout_seconds=seconds)
    with opened(ScorerContext(settings)) as scorer:
        return scorer.score([Answer(PROMPT, text, True) for text in texts]).total


def test_values_by_hand() -> None:
    assert score("length", "a b", "a b c", "a b c d e", "", least=2, most=3) == (0.0, 0.0, -2.0, -2.0)
    assert rules.length(["abc"], most=2, unit="characters") == [-1.0]
    assert score("repetition", "a b a b a", "a b c", "a", n=2) == (-0.5, 0.0, 0.0)
    assert score("pattern", "x 42", "x", pattern=r"\d+") == (1.0, 0.0)
    assert rules.pattern(["42", "x 42"], r"\d+", whole=True) == [1.0, 0.0]


def test_json_that_fits() -> None:
    schema = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string"}, "ages": {"type": "array", "items": {"type": "integer"}}},
    }
    texts = (
        '{"name": "a", "ages": [1]}',
        '{"name": 1}',
        '{"name": "a", "ages": [true]}',
        "{}",
        "[]",
        "name",
        "[" * 10**5,
    )
    assert rules.valid_json(texts, schema) == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert score("json", "[]", "x") == (1.0, 0.0)
    whole = ("1", "1.0", "1.5", "true")
    assert rules.valid_json(whole, {"type": "integer"}) == [1.0, 1.0, 0.0, 0.0]
    assert rules.valid_json(whole, {"type": ["boolean", "integer"]}) == [1.0, 1.0, 0.0, 1.0]
    assert rules.valid_json(whole, {"enum": [1]}) == [1.0, 1.0, 0.0, 0.0]
    assert rules.valid_json(('{"a": [true]}', '{"a": [1]}'), {"enum": [{"a": [1]}]}) == [0.0, 1.0]


def test_sentiment_by_hand() -> None:
    """Of one word with valence s, VADER's compound is s/√(s² + 15), the share of its side 1 where it stands alone."""
    good, bad = 1.9, -2.5  # the lexicon's
    texts = ("good", "bad", "chair", "", "good chair")
    assert score("sentiment", *texts) == pytest.approx(
        (good / math.sqrt(good**2 + 15), bad / math.sqrt(bad**2 + 15), 0, 0, good / math.sqrt(good**2 + 15)), abs=1e-4
    )
    # A word counts its valence and one more, one without valence counts 1: (1.9 + 1)/(1.9 + 1 + 1).
    assert score("sentiment", *texts, of="balance") == pytest.approx((1, -1, 0, 0, 2.9 / 3.9), abs=1e-3)


def test_a_package_that_is_missing_is_one_line_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vaderSentiment", None)
    settings = ScorerSettings(kind="sentiment")
    with pytest.raises(SettingsError) as told:
        examine(settings)
    assert str(told.value) == (
        "ppo.scorer.kind: sentiment needs the package vaderSentiment; install it with: pip install 'triphase[train]'"
    )


def test_an_expression_that_backtracks_for_ever_ends_at_the_time_out() -> None:
    with pytest.raises(TrainingError, match=r"ppo\.scorer\.kind: pattern did not return within 1 s"):
        score("pattern", "a" * 40 + "!", seconds=1.0, pattern="(a+)+$")


@pytest.mark.parametrize(
    ("kind", "options", "problem"),
    [
        ("length", {"leest": 1}, "length takes no option leest; it takes least, most, unit"),
        (
            "length",
            {"least": 3, "most": 2},
            "raised ValueError: unit must be words or characters, and least at most most",
        ),
        ("pattern", {}, "pattern needs pattern, which is neither a column"),
        ("pattern", {"pattern": "("}, ": missing ), unterminated subpattern"),
        ("pattern", {"pattern": "a", "whole": "no"}, "raised ValueError: whole must be true or false, not 'no'"),
        ("length", {"most": None}, "raised ValueError: most must be a whole number, not None"),
        ("repetition", {"n": True}, "raised ValueError: n must be a whole number, not True"),
        ("json", {"schema": {"oneOf": []}}, "oneOf is not a supported schema keyword"),
        ("json", {"schema": []}, "raised ValueError: schema must be a mapping, not []"),
        ("json", {"schema": {"enum": 5}}, "schema.enum must be a list, not 5"),
        ("json", {"schema": {"properties": {"a": True}}}, "schema.properties.a must be a mapping, not True"),
        ("json", {"schema": {"items": {"required": "ab"}}}, "schema.items.required must be a list of texts, not 'ab'"),
        ("json", {"schema": {"type": ["object", "strin"]}}, "type strin is not a supported schema keyword"),
        ("sentiment", {"of": "joy"}, "raised ValueError: of must be compound or balance, not joy"),
    ],
)
def test_options_that_cannot_be_are_told_before_the_first_step(kind: str, options: Any, problem: str) -> None:
    with pytest.raises(SettingsError) as told:
        examine(ScorerSettings(kind=kind, options=options))
    assert problem in str(told.value)


def test_the_remedy_for_a_rule_is_its_options() -> None:
    for kind, options in (("length", {"least": 5, "most": 4}), ("pattern", {"pattern": "("}), ("repetition", {"n": 0})):
        with pytest.raises(SettingsError, match=rf"{kind} raised .*; correct ppo.scorer.options \("):
            examine(ScorerSettings(kind=kind, options=options))
