"""Responses over the iterations: which are shown, and that nobody picks them; alarms on a time line."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from triphase.errors import RunError
from triphase.monitoring.alarms import Alarm
from triphase.reports.alarm_line import alarm_line
from triphase.reports.answers_over_time import MOMENTS, PROMPTS, courses_of, pieces_of, prompt_courses


def row(iteration: int, prompt: str, response: str = "r") -> dict[str, Any]:
    return {
        "iteration": iteration, "prompt_id": prompt, "prompt": f"ask {prompt}", "response": response, "finished": True,
        "score": 1.0, "gold": None, "reference_kl": 0.5, "tokens": 3,
    }  # fmt: skip


def test_the_first_and_the_last_iteration_are_among_those_that_are_shown() -> None:
    rows = [row(at, prompt, f"{prompt}{at}") for at in range(0, 40, 2) for prompt in "abcdefgh"] + [row(1, "once")]
    found = prompt_courses([*rows, row(0, "a", "a second one of the same iteration")])
    assert len(found) == PROMPTS and all(len(course.moments) == MOMENTS for course in found)
    for course in found:
        assert [each.iteration for each in course.moments] == [1, 9, 17, 23, 31, 39]  # counted from 1
        letter = course.prompt.removeprefix("ask ")
        assert [each.response for each in course.moments] == [
            f"{letter}{each.iteration - 1}" for each in course.moments
        ]
    assert "ask once" not in {course.prompt for course in found}
    # the choice depends on the ids alone
    other = prompt_courses([{**each, "response": "x", "score": -each["iteration"]} for each in reversed(rows)])
    assert [course.prompt for course in other] == [course.prompt for course in found]


def test_what_is_new_is_marked_and_nothing_is_lost() -> None:
    assert pieces_of("a b", None) == (("a b", False),)
    assert pieces_of("the old  cat sat.", "the cat sat") == (
        ("the ", False), ("old  ", True), ("cat ", False), ("sat.", True),
    )  # fmt: skip
    assert pieces_of("", "a") == (("", False),)
    draw = random.Random(0)
    for _ in range(100):
        texts = ["".join(draw.choices("ab \n\u00a0é", k=draw.randrange(30))) for _ in range(2)]
        assert "".join(text for text, _ in pieces_of(texts[0], texts[1])) == texts[0]
        assert not any(is_new for _, is_new in pieces_of(texts[0], texts[0]))


def test_what_is_damaged_is_told(tmp_path: Path) -> None:
    (tmp_path / "ppo").mkdir()
    assert courses_of(tmp_path) == {}
    path = tmp_path / "ppo" / "samples.jsonl"
    path.write_text("".join(json.dumps(row(at, "a")) + "\n" for at in (0, 1)))
    assert [len(course.moments) for course in courses_of(tmp_path)["ppo"]] == [2]
    path.write_text('{"iteration": 0}\n')
    with pytest.raises(RunError, match=r"samples.jsonl: damaged \(KeyError"):
        courses_of(tmp_path)


def test_alarms_stand_on_one_line_each() -> None:
    def alarm(name: str, at: int, lasting: bool) -> Alarm:
        return Alarm(name, at, lasting, {}, "", "")

    assert alarm_line({"ppo": []}, {"ppo": 9}) is None
    svg = alarm_line({"ppo": [alarm("one", 3, True)], "arm:x": [alarm("two", 5, False)]}, {"ppo": 9, "arm:x": 9})
    assert svg is not None and "one · ppo" in svg and "two · x" in svg
