"""Rows as the public data sets have them: every part of a row is read, or named."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from triphase.errors import DataError
from triphase.records.reading import Located, stream_demonstrations, stream_preferences
from triphase.records.types import Comparison
from triphase.settings.data import SourceSettings

TOLD = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
OTHER = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "B"}]


def compared(folder: Path, *rows: dict[str, Any]) -> list[Located[Comparison]]:
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(stream_preferences(SourceSettings(path="a.jsonl"), folder))


def shown(item: Located[Comparison]) -> tuple[list[str], str, str]:
    record = item.record
    return [message.content for message in record.prompt.messages], record.chosen, record.rejected


def test_turns_of_helpsteer2(tmp_path: Path) -> None:
    prompt = "Hi\n\n<extra_id_1>Assistant\n\nHello\n\n<extra_id_1>User\n\nQ"
    rows = [{"prompt": prompt, "response": text, "helpfulness": n} for n, text in enumerate("BA")]
    (one,) = compared(tmp_path, *rows)
    assert shown(one) == (["Hi", "Hello", "Q"], "A", "B")
    (two, _) = stream_demonstrations(SourceSettings(path="a.jsonl"), tmp_path)
    assert [message.role for message in two.record.prompt.messages] == ["user", "assistant", "user"]
    for text in ("Hi\n<extra_id_1>User\nQ", " Q\n"):
        (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": text, "response": "A"}) + "\n")
        (three,) = stream_demonstrations(SourceSettings(path="a.jsonl"), tmp_path)
        assert [message.content for message in three.record.prompt.messages] == [text]


def test_ratings_of_ultrafeedback(tmp_path: Path) -> None:
    def answer(text: str, fine: Any, overall: float) -> dict[str, Any]:
        return {"response": text, "model": "m", "fine-grained_score": fine, "overall_score": overall, "critique": "c"}

    row = {"instruction": "Q", "completions": [answer("A", 4.5, 1), answer("B", 2, 9), answer("C", "N/A", 9),
                                               answer("B", 1, 9)]}  # fmt: skip
    (one,) = compared(tmp_path, row)
    assert shown(one) == (["Q"], "A", "B")
    assert one.unread == (
        "completions[].critique", "completions[].overall_score", "repeated responses (the best of their places counts)",
        "responses without a place or rating",
    )  # fmt: skip


def test_messages_of_openassistant(tmp_path: Path) -> None:
    def message(name: str, parent: str | None, role: str, rank: Any) -> dict[str, Any]:
        return {"message_id": name, "parent_id": parent, "message_tree_id": "t", "text": name, "role": role,
                "rank": rank, "lang": "en", "tree_state": "aborted_low_grade", "split": "heldout"}  # fmt: skip

    rows = [
        message("Q", None, "prompter", None),
        message("B", "Q", "assistant", 1.0),
        message("A", "Q", "assistant", 0),
    ]
    (one,) = compared(tmp_path, *rows)
    assert shown(one) == (["Q"], "A", "B") and one.record.prompt.split == "heldout"
    assert one.unread == ("tree_state", "lang")
    replies = [{**row, "replies": []} for row in rows[1:]]
    for ranks in (("1", "0"), (1.0, 0.0)):  # as tables write them
        tree = {**rows[0], "replies": [{**reply, "rank": rank} for reply, rank in zip(replies, ranks, strict=True)]}
        (two,) = compared(tmp_path, {"message_tree_id": "t", "tree_state": "x", "prompt": tree})
        assert shown(two) == (["Q"], "A", "B")
        assert {"tree_state", "lang of the tree's messages"} <= {*two.unread}


def test_answers_that_labeling_tools_leave_out(tmp_path: Path) -> None:
    def said(state: str) -> dict[str, Any]:
        return {"value": ["r-1", "r-2"], "user_id": "u", "status": state}

    responses = {"order": [said("submitted"), said("draft")], "why": [{"value": "short", "user_id": "u"}]}
    row = {"fields": {"prompt": "Q", "r-1": "A", "r-2": "B"}, "responses": responses}
    (one,) = compared(tmp_path, row)
    assert one.unread == ("answers that are draft", "answers to why")
    ranked = {"result": [{"type": "ranker", "value": {"ranker": {"best": ["x", "y"]}}},
                         {"type": "textarea", "value": {"text": ["short"]}}]}  # fmt: skip
    items = [{"id": "x", "body": "A"}, {"id": "y", "body": "B"}, {"id": "z", "body": "C"}]
    task = {"data": {"prompt": "Q", "items": items}, "annotations": [ranked, {**ranked, "was_cancelled": True}]}
    (two,) = compared(tmp_path, task)
    assert two.unread == (
        "annotations that were canceled", "responses without a place or rating", "results of type textarea"
    )  # fmt: skip


def test_votes_of_the_chatbot_arena(tmp_path: Path) -> None:
    row = {"model_a": "m", "model_b": "n", "winner": "model_b", "judge": "u", "conversation_a": OTHER,
           "conversation_b": TOLD}  # fmt: skip
    (one,) = compared(tmp_path, row)
    assert shown(one) == (["Q"], "A", "B") and one.record.labeler == "u" and not one.unread
    table = {"prompt": '["Q"]', "response_a": '["B"]', "response_b": '["A"]', "winner_model_a": 0, "winner_model_b": 1,
             "winner_tie": 0}  # fmt: skip
    (two,) = compared(tmp_path, table)
    assert shown(two) == (["Q"], "A", "B") and not two.unread
    longer = {**row, "conversation_a": [*OTHER, *OTHER], "conversation_b": [*TOLD, *TOLD]}
    with pytest.raises(DataError, match="diverge before the last answer"):
        compared(tmp_path, longer)
    with pytest.raises(DataError, match="has several turns, each with two answers"):
        compared(tmp_path, {**table, "prompt": '["Q", "R"]', "response_a": '["B", "D"]', "response_b": '["A", "C"]'})
    with pytest.raises(DataError, match="must be 1, not 2 of them"):
        compared(tmp_path, {**table, "winner_tie": 1})


def test_other_spellings_of_held_out_and_of_a_margin(tmp_path: Path) -> None:
    row = {"split": "val", "prompt": "Q", "response_1": "A", "response_2": "B", "preference_strength": -2}
    (one,) = compared(tmp_path, row)
    assert one.record.prompt.split == "heldout"
    margin = pyarrow.array(["1.50"]).cast(pyarrow.decimal128(5, 2))
    table = pyarrow.table({"prompt": ["Q"], "chosen": ["A"], "rejected": ["B"], "margin": margin})
    parquet.write_table(table, tmp_path / "a.parquet")
    (two,) = stream_preferences(SourceSettings(path="a.parquet"), tmp_path)
    assert two.record.margin == 1.5
