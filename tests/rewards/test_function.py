"""A function as a scorer: its arguments, its allowed results, and each of its faults in one line."""

import json
import logging
import re
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from triphase.errors import SettingsError, TrainingError
from triphase.records.types import Message, Prompt
from triphase.rewards.function import FunctionScorer
from triphase.rewards.registry import examine
from triphase.rewards.types import Answer, ScorerContext, Scores
from triphase.settings.scorer import ScorerSettings

TEXTS = ("a b", "bad", "c d e", "f")


def answers(texts: tuple[str, ...] = TEXTS) -> list[Answer]:
    messages = (Message("system", "be brief"), Message("user", "who?"))
    return [Answer(Prompt(f"p{index}", messages), text, True) for index, text in enumerate(texts)]


def settings(function: str, **changes: Any) -> ScorerSettings:
    name = function if ":" in function else f"tests.rewards.functions:{function}"
    return ScorerSettings.model_validate({"function": name, **changes})


def score(function: str, texts: tuple[str, ...] = TEXTS, **changes: Any) -> Scores:
    scorer = FunctionScorer(ScorerContext(settings(function, **changes)))
    try:
        return scorer.score(answers(texts))
    finally:
        scorer.close()


def test_it_is_called_with_lists_in_batches_and_its_options(tmp_path: Path) -> None:
    options = {"factor": 2.0, "calls": str(tmp_path / "calls")}
    assert score("lengths", batch_size=3, options=options).total == (6.0, 6.0, 10.0, 2.0)
    asked = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "who?"}]
    assert calls(tmp_path) == [[[asked] * 3, list(TEXTS[:3])], [[asked], list(TEXTS[3:])]]
    assert score("responses_alone").total == (3.0, 3.0, 5.0, 1.0)


def calls(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


@pytest.mark.parametrize("function", ["lengths", "array", "listed", "tensor", "decimals"])
def test_lists_arrays_and_tensors_do(function: str) -> None:
    assert score(function).total == (3.0, 3.0, 5.0, 1.0)


def test_further_names_are_parts() -> None:
    found = score("parts", batch_size=2)
    assert found.total == (4.0, 2.0, 6.0, 2.0)
    assert found.parts == {"words": (2.0, 1.0, 3.0, 1.0), "one": (1.0,) * 4}
    assert found.part_means() == {"words": 1.75, "one": 1.0} and found.parts_of(2) == {"words": 3.0, "one": 1.0}


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        ("raises", "raised ValueError: no such word (response 1: 'bad')"),
        ("raises_on_many", "raised ValueError on a batch of 4 responses, but on none of them alone"),
        ("exits", "raised SystemExit: 3 (response 0: 'a b')"),
        ("short", "returns 3 numbers for a score of 4 responses"),
        ("takes_away", "returns 3 numbers for a score of 4 responses"),
        ("words", "returns 'high' (str) as a score, which is not a number (response 1: 'bad')"),
        ("truths", "returns True (bool) as a score, which is not a number (response 0: 'a b')"),
        ("dies", "terminated its process with status 7"),
        ("some", "returns None (NoneType) as a score, which is not a number; None (no opinion)"),
        ("single", "returns float for a score; expected a list of numbers"),
        ("nothing", "returns NoneType for a score; expected a list"),
        ("no_total", "returns a mapping of words without 'total', the score that is optimized"),
        ("raises_what_cannot_be_shown", "raised _Mute (response 0: 'a b')"),
        ("odd_part", "returns parts that cannot be used: 'ppo/loss' as a name"),
        ("bad_part", "returns None (NoneType) as the part words, which is not a number (response 0: 'a b')"),
        ("one_argument", "raised TypeError: one_argument() takes 1 positional argument but 2 were given (response 0: "),
    ],
)
def test_a_fault_is_one_line_with_function_row_and_remedy(function: str, problem: str) -> None:
    with pytest.raises(TrainingError) as told:
        score(function)
    line = str(told.value)
    assert line.startswith(f"ppo.scorer.function: tests.rewards.functions:{function} {problem}"), line
    assert line.endswith("; fix the function, then run the same command again; finished work is kept")
    assert "\n" not in line


@pytest.mark.parametrize(("text", "shown"), [("a nan", "nan"), ("a -inf", "-inf"), ("a 1e999", "inf")])
def test_what_is_not_finite_is_refused_with_its_row(text: str, shown: str) -> None:
    with pytest.raises(TrainingError, match=rf"returns {shown} as a score; .*finite number \(response 3: '{text}'\)"):
        score("by_text", ("a 1", "a 2", "a 3", text), batch_size=2)
    with pytest.raises(TrainingError, match="returns inf as a score"):
        score("infinite", ("a", "b"))


def test_one_that_does_not_return_is_waited_for_so_long_and_can_be_interrupted() -> None:
    with pytest.raises(TrainingError, match=r"slow did not return within 0\.2 s; fix"):
        score("slow", timeout_seconds=0.2)
    asked: list[float] = []

    def check() -> None:
        if asked and time.monotonic() - asked[0] > 0.5:
            raise KeyboardInterrupt

    scorer = FunctionScorer(ScorerContext(settings("slow"), check=check))
    asked.append(time.monotonic())
    with pytest.raises(KeyboardInterrupt):
        scorer.score(answers())
    assert time.monotonic() - asked[0] < 0.95


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("no_such_package.rewards:score", "module no_such_package cannot be found; install its package, or add"),
        ("tests.rewards.functions:absent", "absent is not in it; choose a function of tests.rewards.functions"),
        ("tests.rewards.functions:number", "number is not a function"),
        ("tests.rewards.broken:score", "importing tests.rewards.broken raised RuntimeError: half written; fix"),
        ("tests.rewards.leaving:score", "importing tests.rewards.leaving raised SystemExit: 3; fix"),
    ],
)
def test_what_cannot_be_imported_is_told(name: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=rf"^ppo\.scorer\.function: {re.escape(name)}: {re.escape(problem)}"):
        examine(settings(name))


def test_options_are_what_a_configuration_file_gives_back() -> None:
    assert settings("lengths", options={"words": ("a", {1: 2})}).options == {"words": ["a", {"1": 2}]}
    for odd in (float("nan"), float("inf"), date(2024, 1, 1), {1, 2}, b"\xff"):
        with pytest.raises(ValueError, match=r"options must be finite numbers, strings"):
            settings("lengths", options={"odd": [odd]})


def test_it_is_tried_on_two_answers_before_the_first_step(tmp_path: Path) -> None:
    examine(settings("lengths", options={"calls": str(tmp_path / "calls")}))
    assert [len(responses) for _, responses in calls(tmp_path)] == [2]
    with pytest.raises(
        SettingsError, match=r"returns 1 numbers for a score of 2 responses.*a test call with two responses"
    ):
        examine(settings("short"))


@pytest.mark.parametrize("name", ["score", "a.b", "a:b:c", "a-b:c", "a:b()", "__import__('os'):x", ":f", "a:", "a b:c"])
def test_a_name_is_a_module_and_a_function_and_nothing_else(name: str) -> None:
    with pytest.raises(ValueError, match="function"):
        ScorerSettings(function=name)


def test_it_has_no_input_and_its_prints_go_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    assert score("reads_input").total == (0.0,) * 4
    with caplog.at_level(logging.INFO, logger="triphase"):
        score("prints")
        end = time.monotonic() + 5
        while len(caplog.messages) < 2 and time.monotonic() < end:
            time.sleep(0.02)
    assert [line.partition(" printed: ")[2] for line in caplog.messages] == ["seen 4", "and so on"]


def test_a_set_has_one_order_in_every_process() -> None:
    first = FunctionScorer(ScorerContext(settings("in_order_of_a_set")))
    before = first.score(answers(("the quick brown fox jumps over it",))).total
    first._process.close()  # as after a stop: another process goes on
    assert first.score(answers(("the quick brown fox jumps over it",))).total == before


def test_after_one_that_hung_the_next_call_is_answered() -> None:
    scorer = FunctionScorer(ScorerContext(settings("slow", timeout_seconds=0.5)))
    with pytest.raises(TrainingError, match="did not return within"):
        scorer.score(answers())
    with pytest.raises(TrainingError, match="did not return within"):
        scorer.score(answers())
    assert score("lengths").total == (3.0, 3.0, 5.0, 1.0)


def test_a_child_that_comes_back_from_a_function_answers_nothing() -> None:
    assert score("forks", batch_size=1).total == (1.0,) * 4
    assert score("lengths").total == (3.0, 3.0, 5.0, 1.0)  # by the same process, not an answer that was left over


def test_one_that_closes_its_pipe_and_stays_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triphase.rewards.process._END_SECONDS", 0.2)
    with pytest.raises(TrainingError, match="closes_its_pipe closed the pipe on which its scores go to the run; fix"):
        score("closes_its_pipe")
    assert score("lengths").total == (3.0, 3.0, 5.0, 1.0)


def test_a_score_beyond_what_ppo_can_count_with_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"returns 1e\+300 as a score, which is too large for PPO"):
        examine(ScorerSettings(function="tests.rewards.functions:huge"))
