"""Conversations in one text column, and message trees of which each message is a row."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from triphase.datacheck import survey_parts
from triphase.errors import DataError
from triphase.records.forms import form_of
from triphase.records.lines import Row
from triphase.records.marked_texts import turns_in_text
from triphase.records.reading import (
    read_demonstrations,
    read_preferences,
    read_prompts,
    stream_demonstrations,
    stream_preferences,
)
from triphase.records.source_rows import read_rows
from triphase.records.types import Demonstration, Message
from triphase.settings.data import SourceSettings


def source(folder: Path, *rows: Any, name: str = "a.jsonl") -> SourceSettings:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return SourceSettings(path=str(folder / name))


def read(folder: Path, text: str) -> Demonstration:
    (found,) = read_demonstrations(source(folder, {"text": text}), folder)
    return found


# Text

TEXTS = {
    "HH-RLHF": "\n\nHuman: Name a tree.\n\nAssistant: Elm.\n\nHuman: More?\n\nAssistant: Oak.\nFir.",
    "ChatML": "<|im_start|>user\nName a tree.<|im_end|>\n<|im_start|>assistant\nElm.<|im_end|>\n"
              "<|im_start|>user\nMore?<|im_end|>\n<|im_start|>assistant\nOak.\nFir.<|im_end|>\n",
    "ChatML without its end": "<|im_start|>user\nName a tree.<|im_end|>\n<|im_start|>assistant\nElm.<|im_end|>\n"
              "<|im_start|>user\nMore?<|im_end|>\n<|im_start|>assistant\nOak.\nFir.",
    "Guanaco": "### Human: Name a tree.### Assistant: Elm.### Human: More?### Assistant: Oak.\nFir.",
    "Guanaco in lines": "### Human: Name a tree.\n### Assistant: Elm.\n### Human: More?\n### Assistant: Oak.\nFir.\n",
    "Llama 2": "<s>[INST] Name a tree. [/INST] Elm. </s><s>[INST] More? [/INST] Oak.\nFir. </s>",
}  # fmt: skip


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_turns_are_read_behind_their_marks(tmp_path: Path, text: str) -> None:
    found = read(tmp_path, text)
    assert [(each.role, each.content) for each in found.prompt.messages] == [
        ("user", "Name a tree."), ("assistant", "Elm."), ("user", "More?")
    ]  # fmt: skip
    assert found.response == "Oak.\nFir."
    (prompt,) = read_prompts(source(tmp_path, {"text": text}), tmp_path)
    assert prompt.messages == found.prompt.messages


MORE = {"Gemma": "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nOak.\nFir.<end_of_turn>\n",
        "Zephyr": "<|user|>\nHi</s>\n<|assistant|>\nOak.\nFir.</s>\n"}  # fmt: skip


@pytest.mark.parametrize("text", [*TEXTS.values(), *MORE.values()], ids=[*TEXTS, *MORE])
def test_line_breaks_of_windows_do_not_hide_the_marks(tmp_path: Path, text: str) -> None:
    plain, found = read(tmp_path, text), read(tmp_path, text.replace("\n", "\r\n"))
    assert plain.prompt.messages and found.prompt.messages == plain.prompt.messages
    assert found.response == "Oak.\r\nFir."


def test_systems_and_inputs_are_kept(tmp_path: Path) -> None:
    told = read(tmp_path, "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nName a tree. [/INST] Elm. </s>")
    assert told.prompt.messages == (Message("system", "Be brief."), Message("user", "Name a tree."))
    written = "Below is an instruction.\n\n### Instruction:\nName a tree.\n\n### Input:\nwith E\n\n### Response:\nElm."
    assert read(tmp_path, written).prompt.messages == (Message("user", "Name a tree.\n\nwith E"),)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("### Human: Name a tree.", "must end with an assistant message"),
        ("<|im_start|>parrot\nElm.<|im_end|>", "known are"),
        ("### Human: ### Assistant: Elm.", "the last user message in text is empty"),
    ],
)
def test_what_is_no_answer_to_a_prompt_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(DataError, match=f"a.jsonl:1: .*{problem}"):
        read(tmp_path, text)


def test_text_without_turns_is_learned_whole_and_split_by_itself(tmp_path: Path) -> None:
    rows = [{"text": f"The sky is blue {n}.", "url": "x"} for n in range(60)]
    given = source(tmp_path, *rows)
    items = list(stream_demonstrations(given, tmp_path))
    assert {form_of("demonstrations", item) for item in items} == {
        "plain text, all of it learned (TRL language modeling)"
    }
    found = [item.record for item in items]
    assert [one.response for one in found] == [row["text"] for row in rows]
    assert not any(one.prompt.messages or one.prompt.text for one in found)
    assert len({one.prompt.id for one in found}) == 60 and items[0].unread == ("url",)
    assert 3 < [one.prompt.split for one in found].count("heldout") < 25
    with pytest.raises(DataError, match="rename text to prompt"):
        read_prompts(given, tmp_path)


def test_columns_that_say_more_win_over_text(tmp_path: Path) -> None:
    row = {"instruction": "Name a tree.", "output": "Elm.", "text": "### Human: x ### Assistant: y"}
    (found,) = read_demonstrations(source(tmp_path, row), tmp_path)
    assert (found.prompt.text, found.response) == ("Name a tree.", "Elm.")


CHATML = "<|im_start|>user\nAsk<|im_end|>\n{}<|im_start|>assistant\nTell<|im_end|>\n{}"
LLAMA = "<s>[INST] Ask [/INST] Hm </s>{}<s>[INST] So? [/INST] Tell </s>{}"


@pytest.mark.parametrize("text", [CHATML, LLAMA])
@pytest.mark.parametrize(("between", "after"), [("", "lost"), ("lost", ""), ("", "</s><|endoftext|>\n"), ("\n", "")])
def test_text_that_is_in_no_turn_is_named(tmp_path: Path, text: str, between: str, after: str) -> None:
    (found,) = stream_demonstrations(source(tmp_path, {"text": text.format(between, after)}), tmp_path)
    assert found.record.response == "Tell"
    assert found.unread == (("what follows the end of a turn in text",) if "lost" in between + after else ())


@pytest.mark.parametrize("column", ["completion", "response", "output", "answer"])
def test_a_text_with_an_answer_beside_it_is_not_learned_alone(tmp_path: Path, column: str) -> None:
    with pytest.raises(DataError, match=r"found text, .*; rename text to prompt"):
        read_demonstrations(source(tmp_path, {"text": "Name a tree.", column: "Elm."}), tmp_path)


# Trees


def message(name: str, parent: str | None, role: str, tree: str = "t", **more: Any) -> dict[str, Any]:
    return {"message_id": name, "parent_id": parent, "message_tree_id": tree, "text": f"{name}.", "role": role, **more}


TREE = [
    message("ask", None, "prompter"),
    message("poor", "ask", "assistant", rank=1),
    message("good", "ask", "assistant", rank=0),
    message("gone", "ask", "assistant", rank=2, deleted=True),
    message("further", "good", "prompter"),
    message("last", "further", "assistant"),
]
OTHER = [message("b", None, "prompter", "u"), message("c", "b", "assistant", "u")]


def test_rows_of_messages_are_trees(tmp_path: Path) -> None:
    given = source(tmp_path, *TREE, *OTHER)
    assert [row.number for row in read_rows(given, tmp_path)] == [1, 7]
    found = read_demonstrations(given, tmp_path)
    assert [(one.prompt.text.split()[-1], one.response) for one in found] == [
        ("ask.", "good."), ("further.", "last."), ("b.", "c.")
    ]  # fmt: skip
    (pair,) = read_preferences(given, tmp_path, refused=lambda error: None)  # one tree has no two ranked replies
    assert (pair.chosen, pair.rejected) == ("good.", "poor.")
    assert [one.messages[-1].content for one in read_prompts(given, tmp_path)] == ["ask.", "b."]
    one = given.model_copy(update={"max_records": 1})
    assert len(list(read_rows(one, tmp_path))) == 1  # a tree, not a message


@pytest.mark.parametrize(
    ("more", "lost"),
    [
        ((message("after", "poor", "prompter"),), "what follows replies that are not the best"),
        ((message("x", "ask", "prompter"), message("y", "x", "assistant")),
         "replies of the same role as the message before"),
        ((message("x", "good", "prompter", review_result=False),), "messages that were deleted or rejected"),
        ((message("x", "ask", "assistant"),), "responses without a place or rating"),
    ],
)  # fmt: skip
def test_messages_of_a_tree_that_are_not_used_are_named(tmp_path: Path, more: tuple[Any, ...], lost: str) -> None:
    rows = [row for row in TREE[:5] if row["message_id"] != "gone"]
    (one,) = stream_preferences(source(tmp_path, *rows), tmp_path)
    assert one.unread == ()
    (one,) = stream_preferences(source(tmp_path, *rows, *more), tmp_path)
    assert one.unread == (lost,)


def test_a_table_of_messages_is_read_alike(tmp_path: Path) -> None:
    columns = ["message_id", "parent_id", "message_tree_id", "text", "role", "rank", "deleted"]
    lines = [",".join(columns)]
    for row in TREE:
        rank = "" if row.get("rank") is None else f"{row['rank']}.0"
        lines.append(",".join([*(str(row[key] or "") for key in columns[:5]), rank, str(row.get("deleted", False))]))
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    (pair,) = read_preferences(SourceSettings(path=str(tmp_path / "a.csv")), tmp_path)
    assert (pair.chosen, pair.rejected) == ("good.", "poor.")


def test_exports_of_trees_without_nulls_are_read_alike(tmp_path: Path) -> None:
    rows = [{name: value for name, value in row.items() if value is not None} for row in TREE]
    assert "parent_id" not in rows[0]
    assert read_demonstrations(source(tmp_path, *rows), tmp_path) == read_demonstrations(
        source(tmp_path, *TREE), tmp_path
    )
    replies = [{"text": "An elm.", "role": "assistant", "rank": 0}, {"text": "No.", "role": "assistant", "rank": 1}]
    asked = {"message_tree_id": "1", "prompt": {"text": "Name a tree.", "role": "prompter", "replies": replies}}
    unanswered = {"message_tree_id": "2", "prompt": {"text": "Why?", "role": "prompter"}}
    given = source(tmp_path, unanswered, asked)
    assert [one.text for one in read_prompts(given, tmp_path)] == ["Why?", "Name a tree."]
    with pytest.raises(DataError, match=r"a\.jsonl:1: the tree has no reply of the assistant"):
        read_demonstrations(given, tmp_path)
    with pytest.raises(DataError, match=r"a\.jsonl:1: the tree has no turn with two ranked replies"):
        read_preferences(given, tmp_path)


def test_a_tree_as_text_in_a_cell_is_no_prompt(tmp_path: Path) -> None:
    replies = [{"text": "An elm.", "role": "assistant", "rank": 0}, {"text": "No.", "role": "assistant", "rank": 1}]
    tree = json.dumps({"text": "Name a tree.", "role": "prompter", "replies": replies})
    given = source(tmp_path, {"message_tree_id": "1", "prompt": tree})
    assert [one.text for one in read_prompts(given, tmp_path)] == ["Name a tree."]
    (pair,) = read_preferences(given, tmp_path)
    assert (pair.prompt.text, pair.chosen, pair.rejected) == ("Name a tree.", "An elm.", "No.")


def test_what_is_no_tree_is_refused_by_its_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl:8: the messages of the tree 't' are not on consecutive lines"):
        read_demonstrations(source(tmp_path, *TREE[:5], *OTHER, TREE[5]), tmp_path)
    with pytest.raises(DataError, match=r"a\.jsonl:1: the tree has 0 messages without a parent_id"):
        read_demonstrations(source(tmp_path, *TREE[1:]), tmp_path)
    (row,) = read_rows(source(tmp_path, *TREE, message("lost", "elsewhere", "assistant")), tmp_path)
    lost = "messages that are not reached from the first of their tree"
    assert row.unread() == ("message_tree_id", "prompt", lost)
    circle = (message("x", "y", "prompter"), message("y", "x", "assistant"))
    (row,) = read_rows(source(tmp_path, *TREE, *circle), tmp_path)
    assert lost in row.unread()
    with pytest.raises(DataError, match=r"a\.jsonl:7: the message_id 'good' appears twice in its tree"):
        read_demonstrations(source(tmp_path, *TREE, message("good", "ask", "assistant")), tmp_path)
    for key in ("message_id", "message_tree_id"):
        short = {name: value for name, value in message("z", "ask", "assistant").items() if name != key}
        with pytest.raises(DataError, match=r"a\.jsonl:7: a message needs its message_id and the message_tree_id"):
            read_demonstrations(source(tmp_path, *TREE, short), tmp_path)


@pytest.mark.parametrize("rank", [1e999, -1e999, 10**400, "inf", "nan", True, [1]])
def test_a_rank_that_is_no_number_is_none(tmp_path: Path, rank: Any) -> None:
    path = source(tmp_path, *TREE[:2], message("good", "ask", "assistant", rank=rank))
    (tmp_path / "a.jsonl").write_text((tmp_path / "a.jsonl").read_text().replace("Infinity", "1e999"))
    assert len(read_demonstrations(path, tmp_path)) == 1


def test_a_tree_may_be_deeper_than_the_stack(tmp_path: Path) -> None:
    roles = ("prompter", "assistant")
    chain = [message(f"m{n}", f"m{n - 1}" if n else None, roles[n % 2]) for n in range(2400)]
    found = read_demonstrations(source(tmp_path, *chain), tmp_path)
    assert len(found) == 1200 and found[-1].response == "m2399."


def test_what_stands_before_the_first_turn_is_told(tmp_path: Path) -> None:
    for text in TEXTS.values():
        (row,) = read_rows(source(tmp_path, {"text": text}), tmp_path)
        assert turns_in_text(row) and not row.unread()
        if not text.startswith("\n\nHuman"):
            (row,) = read_rows(source(tmp_path, {"text": f"Be brief.\n{text}"}), tmp_path)
            assert turns_in_text(row) and row.unread() == ("what precedes the first turn in text",)


@pytest.mark.parametrize("mark", ["[INST]", "[INST] <<SYS>>", "<|im_start|>user\n", "### Human: ", "### Response:\n"])
def test_marks_without_their_ends_do_not_hold_a_reader(mark: str) -> None:
    begin = time.monotonic()
    turns_in_text(Row({"text": mark * 20_000}, "f", 1))
    assert time.monotonic() - begin < 10


def test_a_large_file_of_messages_is_not_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey_parts, "LARGE", 1)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    given = source(tmp_path, *TREE)

    def never(*_: Any) -> Any:
        raise AssertionError("divided")

    monkeypatch.setattr(survey_parts, "ProcessPoolExecutor", never)
    assert survey_parts.survey_in_parts(never, given, 0.2, never) is None
