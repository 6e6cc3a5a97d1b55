"""A Python object of the program as the reward: called and checked as any function is, with the same messages."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.rewards.test_contract import answers

from triphase.errors import SettingsError, TrainingError
from triphase.records.types import Message, Prompt
from triphase.rewards.registry import examine, opened
from triphase.rewards.types import Answer, ScorerContext, Scores
from triphase.settings.scorer import ScorerSettings


def scored(scorer_object: Callable[..., Any] | None, given: list[Answer] | None = None, **settings: Any) -> Scores:
    with opened(ScorerContext(ScorerSettings(kind="object", **settings), scorer_object=scorer_object)) as scorer:
        return scorer.score(answers() if given is None else given)


def test_a_lambda_and_what_it_closes_over() -> None:
    seen: list[int] = []
    found = scored(lambda prompts, responses: [seen.append(len(responses)) or len(text) for text in responses])
    assert found.total == tuple(float(len(answer.response)) for answer in answers()) and seen == [6] * 6


def test_an_instance_a_coroutine_and_parts() -> None:
    class Judge:
        async def __call__(self, prompts: Any, responses: Any, scale: float) -> Any:
            return {"total": [scale] * len(responses), "half": [scale / 2] * len(responses)}

    found = scored(Judge(), options={"scale": 3.0}, batch_size=4)
    assert found.total == (3.0,) * 6 and found.parts == {"half": (1.5,) * 6}


def test_a_function_of_trl_gets_texts_columns_and_whether_it_ended() -> None:
    got: dict[str, Any] = {}

    def reward(prompts: Any, completions: Any, **columns: Any) -> list[float]:
        got.update(prompts=prompts, completions=completions, **columns)
        return [float(answer == completion) for answer, completion in zip(columns["answer"], completions, strict=True)]

    prompt = Prompt("p", (Message("user", "two and two"),), columns={"answer": "4"}, is_text=True)
    found = scored(reward, [Answer(prompt, "4", True), Answer(prompt, "5", False)])
    assert found.total == (1.0, 0.0)
    assert got["prompts"] == ["two and two"] * 2 and got["finished"] == [True, False]


def test_what_it_changes_does_not_reach_the_records() -> None:
    prompt = Prompt("p", (Message("user", "two and two"),), columns={"answers": ["4", "four"]})
    for _ in range(2):
        assert scored(lambda answers, **_: [float(len(answers.pop().pop()))], [Answer(prompt, "4", True)]).total == (4,)


@pytest.mark.parametrize(
    ("scorer_object", "line"),
    [
        (lambda prompts, responses: 1 / 0, "raised ZeroDivisionError: division by zero (response 0: 'oak 1')"),
        (
            lambda prompts, responses: [float("nan")] * len(responses),
            "returns nan as a score; a score must be a finite number",
        ),
        (lambda prompts, responses: [1.0], "returns 1 numbers for a score of 6 responses"),
        (lambda prompts, responses: "good", "returns str for a score; expected a list of numbers"),
        (lambda prompts, responses: time.sleep(5), "did not return within 0.2 s"),
    ],
)
def test_what_it_does_wrong_is_one_line(scorer_object: Callable[..., Any], line: str) -> None:
    with pytest.raises(TrainingError) as caught:
        scored(scorer_object, timeout_seconds=0.2)
    told = str(caught.value)
    assert told.startswith("reward: ") and "<lambda> " in told and line in told and "\n" not in told


def test_it_is_tried_before_the_first_step() -> None:
    settings = ScorerSettings(kind="object")
    examine(settings, scorer_object=lambda prompts, responses: [0.0] * len(responses))
    with pytest.raises(SettingsError, match=r"returns 1 numbers .* \(this was a test call with two responses\)"):
        examine(settings, scorer_object=lambda prompts, responses: [0.0])
    with pytest.raises(SettingsError, match="needs answer, which is neither a column"):
        examine(settings, scorer_object=lambda prompts, responses, answer: [0.0] * len(responses))


def test_where_nobody_lends_it_the_line_says_how_to_go_on() -> None:
    with pytest.raises(SettingsError) as caught:
        scored(None)
    told = str(caught.value)
    assert told.startswith("ppo.scorer.kind: the reward of this run was a Python object") and "\n" not in told
    assert "triphase.train_ppo" in told and "ppo.scorer.function: FILE.py:NAME" in told
