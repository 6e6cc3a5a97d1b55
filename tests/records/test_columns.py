"""Which columns are read, that no part of a prompt is lost silently, and what is reported about the others."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from triphase.errors import DataError
from triphase.records.reading import (
    read_demonstrations,
    read_preferences,
    read_prompts,
    stream_demonstrations,
    stream_preferences,
    stream_prompts,
)
from triphase.records.types import Comparison, Demonstration
from triphase.settings.data import SourceSettings


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


ASKED, SAID, OTHER = turn("user", "Why?"), turn("assistant", "So."), turn("assistant", "No.")
PLAIN = [("user", "Why?")]


def written(path: Path, *rows: Any) -> SourceSettings:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return SourceSettings(path=path.name)


def turns(record: Demonstration | Comparison) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in record.prompt.messages]


def shown(here: Path, row: Any) -> tuple[list[tuple[str, str]], str]:
    [found] = read_demonstrations(written(here / "d.jsonl", row), here)
    return turns(found), found.response


def compared(here: Path, row: Any) -> tuple[list[tuple[str, str]], str, str]:
    [found] = read_preferences(written(here / "c.jsonl", row), here)
    return turns(found), found.chosen, found.rejected


def asked(here: Path, row: Any) -> list[tuple[str, str]]:
    [found] = read_prompts(written(here / "p.jsonl", row), here)
    return [(message.role, message.content) for message in found.messages]


def why(here: Path, read: Any, row: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(written(here / "w.jsonl", row), here)
    message = str(caught.value)
    assert message.startswith("w.jsonl:1: ") and "\n" not in message
    return message


# --- Messages beside a prompt -------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["messages", "conversations"])
def test_messages_win_over_a_prompt_beside_them(here: Path, column: str) -> None:
    long = [ASKED, OTHER, turn("user", "And?"), SAID]
    whole = [*PLAIN, ("assistant", "No."), ("user", "And?")]
    assert shown(here, {"prompt": "Why?", "prompt_id": "a", column: long}) == (whole, "So.")
    assert asked(here, {"prompt": "Why?", column: long}) == whole
    assert compared(here, {"prompt": "Why?", "chosen": long, "rejected": [*long[:3], OTHER]}) == (whole, "So.", "No.")
    assert asked(here, {"prompt": "Why?", "chosen": long, "rejected": [*long[:3], OTHER]}) == whole


def test_messages_that_end_with_a_question_are_the_prompt_of_an_answer_beside_them(here: Path) -> None:
    assert shown(here, {"messages": [ASKED], "completion": "So."}) == (PLAIN, "So.")
    assert shown(here, {"messages": [], "prompt": "Why?", "completion": "So."}) == (PLAIN, "So.")
    assert compared(here, {"messages": [ASKED], "chosen": "So.", "rejected": "No."}) == (PLAIN, "So.", "No.")


def test_a_prompt_that_the_messages_hold_is_read_and_another_one_is_told(here: Path) -> None:
    rows = [{"prompt": "Why?", "messages": [ASKED, SAID]}, {"prompt": "Else?", "messages": [ASKED, SAID]}]
    found = stream_demonstrations(written(here / "d.jsonl", *rows), here)
    assert [item.unread for item in found] == [(), ("prompt",)]


def test_answers_that_go_on_from_a_prompt_of_their_own_keep_it(here: Path) -> None:
    chosen, rejected = [SAID, turn("user", "And?"), SAID], [SAID, turn("user", "And?"), OTHER]
    expected = [*PLAIN, ("assistant", "So."), ("user", "And?")]
    row = {"prompt": [ASKED], "chosen": chosen, "rejected": rejected}
    assert compared(here, row) == (expected, "So.", "No.")


# --- System, history, context -------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["system", "system_prompt"])
def test_a_system_column_becomes_the_first_turn(here: Path, column: str) -> None:
    expected = [("system", "Be brief."), *PLAIN]
    for row in (
        {"prompt": "Why?", "completion": "So."},
        {"instruction": "Why?", "output": "So."},
        {"question": "Why?", "response": "So."},
        {"messages": [ASKED, SAID]},
        {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]},
        {"instruction": "Why?", "instances": [{"input": "", "output": "So."}]},
        {"messages": [turn("system", "Be brief."), ASKED, SAID]},
    ):
        assert shown(here, {**row, column: "Be brief."}) == (expected, "So.")
        assert shown(here, {**row, column: ""})[1] == "So."
        if "instances" not in row:
            assert asked(here, {**row, column: "Be brief."}) == expected
    for row in (
        {"prompt": "Why?", "chosen": "So.", "rejected": "No."},
        {"chosen": [ASKED, SAID], "rejected": [ASKED, OTHER]},
        {"question": "Why?", "chosen": "So.", "rejected": "No."},
    ):
        assert compared(here, {**row, column: "Be brief."}) == (expected, "So.", "No.")
    differs = {"messages": [turn("system", "Be long."), ASKED, SAID], column: "Be brief."}
    assert f"{column} and the system message in messages differ" in why(here, read_demonstrations, differs)


@pytest.mark.parametrize("text", [False, True])
def test_history_becomes_turns(here: Path, text: bool) -> None:
    pairs: Any = [["One?", "First."], ["Two?", "Second."]]
    given = json.dumps(pairs) if text else pairs
    before = [("user", "One?"), ("assistant", "First."), ("user", "Two?"), ("assistant", "Second.")]
    row = {"instruction": "Why?", "input": "", "output": "So.", "system": "Be brief.", "history": given}
    assert shown(here, row) == ([("system", "Be brief."), *before, *PLAIN], "So.")
    assert asked(here, {"prompt": "Why?", "history": given}) == [*before, *PLAIN]
    assert compared(here, {"prompt": "Why?", "chosen": "So.", "rejected": "No.", "history": given})[0] == [
        *before,
        *PLAIN,
    ]
    assert shown(here, {**row, "history": [], "system": None})[0] == PLAIN


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ([["One?"]], "history[0] must be a list of two texts"),
        ([["One?", None]], "history[0][1] must be text, not null"),
        (["One?"], "history[0] must be a list of two texts"),
        ({"a": 1}, "history must be a list of [question, answer], not an object"),
        ("[['One?'", "history looks like a list as text, but is neither JSON nor Python notation"),
    ],
)
def test_a_history_of_another_kind_is_refused(here: Path, history: Any, message: str) -> None:
    row = {"instruction": "Why?", "output": "So.", "history": history}
    assert message in why(here, read_demonstrations, row)


def test_what_is_asked_about_stands_beside_the_question(here: Path) -> None:
    assert shown(here, {"instruction": "Why?", "context": "It.", "response": "So."}) == (
        [("user", "Why?\n\nIt.")],
        "So.",
    )
    assert shown(here, {"question": "Why?", "context": "It.", "answer": "So."}) == ([("user", "It.\n\nWhy?")], "So.")
    assert shown(here, {"query": "Why?", "response": "So."}) == (PLAIN, "So.")
    assert asked(here, {"question": "Why?", "answer": "So."}) == PLAIN


def test_columns_that_are_not_read_are_named(here: Path) -> None:
    named = {**SAID, "name": "x", "weight": 1, "thought": ""}
    rows: list[Any] = [
        {"messages": [ASKED, named], "tools": [{"name": "f"}], "source": "s", "empty": "", "none": None, "list": []},
        {"prompt": "Why?", "completion": "So.", "context": "It.", "kind": "a", "id": 1, "split": "train"},
        {"instruction": "Why?", "history": "[]", "instances": [{"input": "", "output": "So.", "constraints": "None."}]},
    ]
    found = list(stream_demonstrations(written(here / "d.jsonl", *rows), here))
    assert [item.unread for item in found] == [
        ("tools", "source", "messages[].name"),
        ("context",),
        ("instances[].constraints",),
    ]
    [prompt] = stream_prompts(written(here / "p.jsonl", {"prompt": "Why?", "completion": "So.", "extra": 1}), here)
    assert prompt.unread == ("extra",)
    row = {"prompt": "Why?", "chosen": "So.", "rejected": "No.", "margin": 1, "labeler": "a", "score": 3}
    [pair] = stream_preferences(written(here / "c.jsonl", row), here)
    assert pair.unread == ("score",)


# --- Messages -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"tool_calls": [{"id": "1"}]}, "messages[1] calls a tool (tool_calls)"),
        ({"function_call": {"name": "f"}}, "messages[1] calls a tool (function_call)"),
        ({"weight": 0}, "the last message of messages has weight 0"),
        ({"train": False}, "the last message of messages has train False"),
        ({"content": None, "tool_calls": [{}]}, "messages[1] calls a tool"),
        ({"content": [{"type": "image_url"}]}, "messages[1] has a part that is not text ('image_url')"),
    ],
)
def test_a_message_that_says_more_than_its_text_is_refused(here: Path, extra: dict[str, Any], message: str) -> None:
    row = {"messages": [ASKED, {**SAID, **extra}]}
    assert message in why(here, read_demonstrations, row)


def test_a_weight_of_nought_concerns_the_last_message_alone(here: Path) -> None:
    long = [ASKED, {**OTHER, "weight": 0}, turn("user", "And?"), {**SAID, "weight": 1}]
    assert shown(here, {"messages": long})[1] == "So."
    assert asked(here, {"messages": [ASKED, {**SAID, "weight": 0}]}) == PLAIN


def test_parts_of_text_and_other_names_of_roles(here: Path) -> None:
    parts = [{"type": "text", "text": "Wh"}, {"type": "text", "text": "y?"}]
    assert shown(here, {"messages": [turn("developer", "Be brief."), {"role": "user", "content": parts}, SAID]}) == (
        [("system", "Be brief."), *PLAIN],
        "So.",
    )


# --- Lists given as text ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("notation", [json.dumps, str])
def test_messages_in_cells_are_read_as_messages(here: Path, notation: Any) -> None:
    with (here / "c.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["prompt", "chosen", "rejected"], ["Why?", notation([ASKED, SAID]), notation([ASKED, OTHER])],
             ["", notation([ASKED, SAID]), notation([ASKED, OTHER])],
             [notation([ASKED]), notation([SAID]), notation(OTHER)]]
        )  # fmt: skip
    found = read_preferences(SourceSettings(path="c.csv"), here)
    assert [(turns(item), item.chosen, item.rejected) for item in found] == [(PLAIN, "So.", "No.")] * 3
    for row in ({"messages": notation([ASKED, SAID])}, {"prompt": notation([ASKED]), "completion": notation([SAID])},
                {"conversations": notation([{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}])},
                {"prompt": notation(ASKED), "response": notation(SAID)}):  # fmt: skip
        assert shown(here, row) == (PLAIN, "So.")
        assert asked(here, row) == PLAIN
    assert asked(here, {"prompt": notation([ASKED, SAID])}) == PLAIN


@pytest.mark.parametrize(
    "cell",
    ["[{'role': 'user', 'content': array(['x'], dtype=object)}]", "[{'role': 'user'\n 'content': 'x'}]",
     '[{"role": "user", "content": "x"', "[{'role': 'user', 'content': 'x'}\n {'role': 'assistant', 'content': 'y'}]"],
)  # fmt: skip
def test_messages_in_cells_that_cannot_be_parsed_are_refused(here: Path, cell: str) -> None:
    for read, row in (
        (read_prompts, {"prompt": cell}),
        (read_demonstrations, {"prompt": "Why?", "completion": cell}),
        (read_preferences, {"prompt": "Why?", "chosen": cell, "rejected": "No."}),
    ):
        assert "neither JSON nor Python notation" in why(here, read, row)
    row = {"instruction": json.dumps([ASKED]), "output": "So."}
    assert "instruction contains a list of messages as text" in why(here, read_demonstrations, row)


@pytest.mark.parametrize(
    "text", ["[1, 2] sorted?", '{"name": "x"} is what?', '[{"a": 1}]', "{'x': [", "[citation]", "{}"]
)
def test_other_texts_with_brackets_stay_text(here: Path, text: str) -> None:
    assert asked(here, {"prompt": text}) == [("user", text)]
    assert shown(here, {"prompt": "Why?", "completion": text})[1] == text


# --- Transcripts --------------------------------------------------------------------------------------------------


def test_an_answer_that_holds_the_name_of_the_assistant_stays_whole(here: Path) -> None:
    start = "\n\nHuman: Why?\n\nAssistant:"
    row = {"chosen": f"{start} So.\n\nAssistant: Indeed.", "rejected": f"{start} No."}
    assert compared(here, row) == (PLAIN, "So.\n\nAssistant: Indeed.", "No.")
    row = {"chosen": f"{start} So.\n\nAssistant: a", "rejected": f"{start} So.\n\nAssistant: b"}
    assert compared(here, row) == (PLAIN, "So.\n\nAssistant: a", "So.\n\nAssistant: b")
    row = {"chosen": f"{start}\n\nAssistant: So.", "rejected": f"{start} No."}
    assert compared(here, row) == (PLAIN, "So.", "No.")
    assert shown(here, {"messages": row["chosen"]}) == (PLAIN, "So.")


def test_a_stripped_transcript_is_one(here: Path) -> None:
    row = {"chosen": "Human: Why?\n\nAssistant: So.", "rejected": "Human: Why?\n\nAssistant: No."}
    assert compared(here, row) == (PLAIN, "So.", "No.")
    mixed = {"prompt": "Why?", "chosen": "\n\nHuman: Why?\n\nAssistant: So.", "rejected": "No."}
    assert "chosen is a whole conversation" in why(here, read_preferences, mixed)


# --- Shapes of other data sets ------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [False, "False", "false"])
def test_answers_that_were_not_wanted_are_no_demonstrations(here: Path, label: Any) -> None:
    row = {"prompt": "Why?", "completion": "No.", "label": label}
    assert "label is false: this answer is undesirable" in why(here, read_demonstrations, row)
    assert shown(here, {**row, "label": True})[1] == "No."


@pytest.mark.parametrize("label", [0, "0", "0.0", 0.0])
def test_a_label_of_zero_may_mean_that_nobody_wants_the_answer(here: Path, label: Any) -> None:
    row = {"prompt": "Why?", "completion": "No.", "label": label}
    assert "if that marks an undesirable answer (KTO), leave such records out" in why(here, read_demonstrations, row)
    source = written(here / "d.jsonl", row, {**row, "label": 1})
    kinds = [each.kind for each in read_demonstrations(source.model_copy(update={"columns": {"kind": "label"}}), here)]
    assert kinds == [label if isinstance(label, str) else "0", "1"]
    [wanted] = stream_demonstrations(source, here, refused=lambda error: None)
    assert wanted.unread == ("label",)  # 1 may be a rating


@pytest.mark.parametrize(
    ("read", "row", "advice"),
    [
        (read_preferences, {"prompt": "a", "completion": "b", "label": True}, "single judged answers (KTO)"),
        (read_preferences, {"instruction": "a", "completions": ["b", "c"]}, "need a rank or a rating"),
        (
            read_preferences,
            {"instruction": "a", "completions": [{"response": "b", "rating": 1}]},
            "completions has 1 answer, and a ranking at least two: leave such records out",
        ),
        (read_preferences, {"instruction": "a", "completions": []}, "completions has no answer, and a ranking"),
        (
            read_preferences,
            {"prompt": "a", "answers": [{"answer": "b", "rank": 1}]},
            "answers has 1 answer, and a ranking",
        ),
        (read_preferences, {"prompt": "a", "response_0": "b", "response_1": "c"}, "better_response_id: 0 or 1"),
        (read_preferences, {"prompt": "a", "completion": "b"}, "data.demonstrations"),
        (read_preferences, {"prompt": "a", "chosen": "b", "rejcted": "c"}, "rename rejcted to rejected?"),
        (read_preferences, {"instruction": "a", "chosen_response": "b", "chosen_model": "m"}, "chosen_response to ch"),
        (read_preferences, {"input": "a", "chosen": "b", "rejected": "c"}, "rename input to prompt?"),
        (read_preferences, {"prompt": "a", "response_a": "b", "response_b": "c"}, "votes need a winner: a, b or tie"),
        (read_demonstrations, {"input": "a", "output": "b"}, "rename input to prompt?"),
        (read_prompts, {"prompt": '["a"]'}, "prompt is a list of texts, written as text"),
        (read_demonstrations, {"prompt": "a", "chosen": "b", "rejected": "c"}, "data.preferences"),
        (read_demonstrations, {"document": "a", "summary": "b"}, "a text and its summary"),
        (read_demonstrations, {"content": "a", "summary": "b", "ID": 3}, "a text and its summary"),
        (read_demonstrations, {"prompt": "a", "label": "b"}, "label holds text: rename it to completion"),
        (read_demonstrations, {"text": "a", "label": 1}, "text and a label are not a demonstration"),
        (read_demonstrations, {"prompt": "a", "responses": ["b", "c"]}, "several answers per row"),
        (
            read_demonstrations,
            {"Prompt": "a", "Completion": "b"},
            "rename Prompt to prompt, Completion to completion, or set columns: {prompt: Prompt, completion: Complet",
        ),
        (
            read_demonstrations,
            {" prompt": "a", "completion": "b"},
            r'rename " prompt" to prompt, or set columns: {prompt: " prompt"}',
        ),
        (
            read_preferences,
            {"prompt": "a", "Chosen": "b", "REJECTED": "c"},
            r"rename Chosen to chosen, REJECTED to rejected, or set columns: {chosen: Chosen, rejected: REJECTED}",
        ),
        (read_demonstrations, {"prompt": "a", "completion": None}, "found prompt, completion (null)"),
        (read_prompts, {"text": "a"}, "rename text to prompt"),
        (read_prompts, {"article": "a"}, "write the request, with the article in it, as prompt"),
    ],
)
def test_a_known_shape_gets_advice_that_fits(here: Path, read: Any, row: Any, advice: str) -> None:
    assert advice in why(here, read, row)
