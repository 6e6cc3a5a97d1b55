"""Functions written for TRL work unchanged: strings where the prompt was a string, messages where it was messages."""

import datetime
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from triphase.errors import DataError, SettingsError, TrainingError
from triphase.records.lines import Row
from triphase.records.prompt_columns import with_columns
from triphase.records.reading import read_prompts
from triphase.records.types import Message, Prompt
from triphase.rewards.function import FunctionScorer
from triphase.rewards.registry import examine
from triphase.rewards.types import Answer, ScorerContext
from triphase.settings.data import SourceSettings
from triphase.settings.scorer import ScorerSettings


def prompt(**columns: Any) -> Prompt:
    return Prompt("p", (Message("user", "2 + 2?"),), is_text=True, columns=columns)


def score(function: str, *answers: Answer, **changes: Any) -> tuple[float, ...]:
    settings = ScorerSettings.model_validate({"function": f"tests.rewards.functions:{function}", **changes})
    return FunctionScorer(ScorerContext(settings)).score(answers).total


def test_functions_of_its_documentation() -> None:
    four = prompt(ground_truth="4", level=3)
    texts = (r"The answer is \boxed{4}", r"\boxed{5}", "4")
    assert score("reward_func", *(Answer(four, text, True) for text in texts)) == (1.0, 0.0, 0.0)
    asked = Prompt("q", (Message("system", "think"), Message("user", "2 + 2?")))
    texts = ("<think>so</think><answer>4</answer>", "4")
    assert score("format_reward", *(Answer(asked, text, True) for text in texts)) == (1.0, 0.0)
    assert score("later", Answer(four, "four", True)) == (4.0,)


def test_each_prompt_has_the_form_of_its_record(tmp_path: Path) -> None:
    messages = Prompt("m", (Message("system", "be brief"), Message("user", "who?")))
    options = {"calls": str(tmp_path / "calls")}
    given = Answer(prompt(solution="4"), "four", True), Answer(messages, "me", False)
    assert score("seen", *given, options=options) == (1.0, 1.0)
    assert json.loads((tmp_path / "calls").read_text()) == [
        ["2 + 2?", [{"role": "system", "content": "be brief"}, {"role": "user", "content": "who?"}]],
        ["four", [{"role": "assistant", "content": "me"}]],
        [True, False],
        ["4", None],
    ]


def test_open_names_are_given_every_column() -> None:
    assert score("everything", Answer(prompt(a=1, b=[2], odd_name="x"), "four", True)) == (6.0,)


def test_a_column_that_no_record_has_is_told_before_the_first_step() -> None:
    settings = ScorerSettings(function="tests.rewards.functions:reward_func")
    wanted = (
        r"needs ground_truth, which is neither a column of the prompts' records \(the columns answer\) nor an option"
    )
    with pytest.raises(SettingsError, match=wanted):
        examine(settings, [prompt(answer="4")])
    examine(settings, [prompt(answer="4"), prompt(ground_truth="4")])
    ours = ScorerSettings(function="tests.rewards.functions:reads_ids")
    with pytest.raises(SettingsError, match="needs completion_ids, which TRL passes and Triphase does not; leave the"):
        examine(ours, [prompt()])
    with pytest.raises(SettingsError, match="takes no option facter; it takes calls, factor"):
        examine(ScorerSettings(function="tests.rewards.functions:lengths", options={"facter": 2}))


@pytest.mark.parametrize(
    ("function", "options", "columns", "told"),
    [
        ("optional", {}, {"want": "4", "level": 3, "id": "p", "kind": "k"}, "does not read the columns level"),
        ("optional", {}, {"wants": "4", "answer": "5"},
         "does not read the columns wants, answer; the default is used for its parameter want, which is no column"),
        ("optional", {"want": "x"}, {"wants": "4"}, "does not read the columns wants"),
        ("optional", {}, {"want": "4"}, None),
        ("optional", {}, {"chosen": "4", "split": "train"}, None),
        ("lengths", {"calls": ""}, {"answer": "4"},
         "does not read the columns answer; the default is used for its parameter factor, which is no column"),
        ("array", {}, {"a\nb": "4"}, "does not read the columns a\ufffdb"),
        ("takes_all", {}, {"answers": "4"},
         "uses the default of answer, which is no column; is the column answers meant?"),
        ("takes_all", {}, {"level": 3}, None),
        ("takes_all", {"answer": "y"}, {"answers": "4"}, None),
    ],
)  # fmt: skip
def test_columns_that_it_does_not_read_are_told_before_the_first_step(
    function: str, options: dict[str, Any], columns: dict[str, Any], told: str | None
) -> None:
    name = f"tests.rewards.functions:{function}"
    notes = examine(ScorerSettings.model_validate({"function": name, "options": options}), [prompt(**columns)])
    assert notes == ([] if told is None else [f"ppo.scorer.function: {name} {told}"])


def test_records_give_their_columns(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "a?", "answer": "x", "tests": ["t"], "completion": "c", "id": "one"},
        {"prompt": [{"role": "user", "content": "b?"}], "answer": None},
        {"instruction": "c?", "input": "d"},
        {"prompt": "e?", "system": "be brief"},
        {"prompt": '[{"role": "user", "content": "f?"}]'},
    ]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = read_prompts(SourceSettings(path=str(path)), tmp_path)
    found = [with_columns(one, Row(row, "f", 1)) for one, row in zip(read, rows, strict=True)]
    assert [each.is_text for each in found] == [True, False, True, False, False]
    assert found[0].columns == {"answer": "x", "tests": ["t"], "id": "one"} and found == read
    moment, price = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC), Decimal("1.5")  # as in a Parquet file
    of_table = {"prompt": "a?", "when": moment, "days": [moment.date()], "price": price}
    assert with_columns(read[0], Row(of_table, "f", 1)).columns == {
        "when": "2026-01-31T12:00:00+00:00", "days": ["2026-01-31"], "price": 1.5
    }  # fmt: skip
    with pytest.raises(DataError, match=r"f:1: when has a bytes \(b'x'\) that cannot be passed to a scoring function"):
        with_columns(read[0], Row({"prompt": "a?", "when": b"x"}, "f", 1))
    for half in ("\ud800", ["\ud800"], {"\udfff": 1}):  # a server is asked in UTF-8
        with pytest.raises(DataError, match="f:1: half contains half of a surrogate pair"):
            with_columns(read[0], Row({"prompt": "a?", "half": half}, "f", 1))


def test_a_function_stands_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("UNIT = 2.0\n")
    path = tmp_path / "my_rewards.py"
    path.write_text("from beside import UNIT\n\ndef score(completions, **_):\n    return [UNIT] * len(completions)\n")
    settings = ScorerSettings(function=f"{path}:score")
    examine(settings)
    assert FunctionScorer(ScorerContext(settings)).score([Answer(prompt(), "x", True)]).total == (2.0,)
    path.write_text("def score(completions, **_):\n    return [3.5] * len(completions)\n")
    assert FunctionScorer(ScorerContext(settings)).score([Answer(prompt(), "x", True)]).total == (3.5,)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("absent.py:score", None, "the file {place} does not exist; give its path from the directory of the"),
        ("r.py:scroe", "def score(): ...", "scroe is not in it; did you mean score?"),
        ("r.py:score", "import no_such_thing", "module no_such_thing cannot be found; install its package, or put"),
        ("r.py:score", "score = 3", "score is not a function; choose a function of {place}"),
        ("r.py:score", "def score(:", "importing {place} raised SyntaxError"),
        ("r.py:score", "import os; os._exit(3)", "terminated its process with status 3; fix its module"),
    ],
)
def test_what_is_missing_is_named(name: str, content: str | None, problem: str, tmp_path: Path) -> None:
    place = tmp_path / name.partition(":")[0]
    if content is not None:
        place.write_text(content)
    with pytest.raises(SettingsError, match=re.escape(problem.format(place=place))):
        examine(ScorerSettings(function=f"{tmp_path}/{name}"))


def test_true_and_false_are_numbers_to_trl_alone() -> None:
    with pytest.raises(TrainingError, match="returns True"):
        score("truths", Answer(prompt(), "x", True))
