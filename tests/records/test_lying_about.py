"""Files and directories as people have them: nested, split, saved, compressed; and orders that have no known name."""

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from pyarrow import parquet

from triphase.datacheck.first_look import first_look
from triphase.errors import DataError
from triphase.labeling.exchange.importing import import_file
from triphase.records.paths import is_file_name
from triphase.records.reading import read_demonstrations, read_preferences, stream_preferences
from triphase.records.source_rows import other_files_notes, read_rows
from triphase.settings.data import SourceSettings
from triphase.store import open_store

ROWS = [{"prompt": f"Name tree {n}.", "completion": f"Elm {n}."} for n in range(3)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def read(path: str) -> list[dict[str, Any]]:
    return [dict(row.values) for row in read_rows(SourceSettings(path=path), Path())]


def table(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)


def saved(split: bool) -> None:
    rows = datasets.Dataset.from_list(ROWS)
    (datasets.DatasetDict({"train": rows, "test": rows}) if split else rows).save_to_disk("saved")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("split", [False, True])
def test_a_saved_directory_may_be_named_from_where_one_is(split: bool) -> None:
    saved(split)
    assert read("saved") == ROWS


def test_a_directory_is_read_at_any_depth_and_no_loop_is_followed(here: Path) -> None:
    (here / "data/a/b/.cache").mkdir(parents=True)
    (here / "data/a/b/c.jsonl").write_text(LINES)
    (here / "data/a/b/.cache/d.jsonl").write_text(LINES)
    (here / "data/a/b/loop").symlink_to(here / "data")
    assert read("data") == ROWS


@pytest.mark.parametrize(
    ("names", "example"),
    [
        (("data/test-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"), "snapshot/data/train*"),
        (("data/validation/a.parquet", "data/train/a.parquet"), "snapshot/data/train"),
        (("dev.parquet", "test.parquet"), "snapshot/dev*"),
        (("sft_test.parquet", "sft_train.parquet"), "snapshot/*train*"),
        (("split=test/a.parquet", "split=train/a.parquet"), "snapshot/split=train"),
    ],
)
def test_files_of_several_splits_are_not_read_as_one(names: tuple[str, str], example: str, here: Path) -> None:
    """A snapshot of a hub repository has them in one directory."""
    for name in names:
        table(here / "snapshot" / name)
    with pytest.raises(DataError, match=r"snapshot: holds files of several splits .*, for example ") as refused:
        read("snapshot")
    with pytest.raises(DataError, match="holds files of several splits"):
        read("snapshot/**/*.parquet")
    assert str(refused.value).endswith(f"for example {example}") and read(example) == ROWS


def test_a_folder_with_the_name_of_a_split_is_none(here: Path) -> None:
    for name in ("train.parquet", "more.parquet"):
        table(here / "my-test" / name)
    assert read("my-test") == ROWS * 2


def test_files_that_a_directory_has_besides_are_named(here: Path) -> None:
    (here / "data").mkdir()
    for name in ("a.jsonl", "b.txt", "c.jsonl.bz2", "README.md", ".hidden.txt"):
        (here / "data" / name).write_text(LINES)
    assert other_files_notes(SourceSettings(path="data")) == ["files that are not read: b.txt, c.jsonl.bz2"]
    assert other_files_notes(SourceSettings(path="data/*.jsonl*")) == ["files that are not read: c.jsonl.bz2"]
    for number in range(7):
        (here / "data" / f"z{number}.jsonl").touch()
    assert other_files_notes(SourceSettings(path="data/*.jsonl")) == [
        "files that are empty: z0.jsonl, z1.jsonl, z2.jsonl, z3.jsonl, z4.jsonl and 2 more"
    ]
    assert not other_files_notes(SourceSettings(path="data/a.jsonl")) + other_files_notes(SourceSettings(path="o/r"))


@pytest.mark.parametrize(("name", "content"), [("b.csv", "prompt,response\n"), ("b.json", "[]"), ("b.jsonl", "\n\n")])
def test_files_without_a_record_are_named(name: str, content: str, here: Path) -> None:
    (here / "data").mkdir()
    (here / "data" / "a.jsonl").write_text(LINES)
    (here / "data" / name).write_text(content)
    assert other_files_notes(SourceSettings(path="data")) == [f"files that are empty: {name}"]


def test_a_table_without_a_row_is_named(here: Path) -> None:
    table(here / "data" / "a.parquet")
    parquet.write_table(parquet.read_table(here / "data" / "a.parquet").slice(0, 0), here / "data" / "b.parquet")
    assert other_files_notes(SourceSettings(path="data")) == ["files that are empty: b.parquet"]
    assert read("data") == ROWS


@pytest.mark.parametrize("name", ["a.ndjson", "a.jsonlines", "a.ndjson.gz"])
def test_json_lines_are_read_by_their_other_names(name: str, here: Path) -> None:
    content = LINES.encode()
    (here / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert read(name) == ROWS and is_file_name(name, here / "elsewhere")


@pytest.mark.parametrize("packed", ["a.jsonl.gz", "a.jsonl.zst"])
def test_a_file_next_to_its_compressed_copy_is_refused(packed: str, here: Path) -> None:
    (here / "data").mkdir()
    for name in ("a.jsonl", packed, "b.jsonl"):
        (here / "data" / name).write_text(LINES)
    wanted = rf"^data: holds a\.jsonl and {re.escape(packed)}, which is one file twice; remove or rename one$"
    with pytest.raises(DataError, match=wanted):
        read("data")
    assert read("data/*[ab].jsonl") == ROWS * 2


def test_files_of_one_split_are_read(here: Path) -> None:
    for name in ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "training_notes.parquet"):
        table(here / "snapshot" / name)
    assert read("snapshot") == ROWS * 3


@pytest.mark.parametrize(
    ("pack", "words"),
    [
        (gzip.compress, "add .gz to its name"),
        (lambda text: pyarrow.compress(text, codec="zstd", asbytes=True), "add .zst to its name"),
        (lambda text: b"PK\x03\x04" + text, "unpack it"),
    ],
)
def test_a_compressed_file_without_its_suffix_is_no_text(
    pack: Callable[[bytes], bytes], words: str, here: Path
) -> None:
    for name in ("a.jsonl", "a.json", "a.csv"):
        (here / name).write_bytes(pack(LINES.encode()))
        with pytest.raises(DataError, match=f"{name}.*: is compressed, and its name does not say so; {words}"):
            read(name)


def test_a_split_is_not_passed_over(here: Path) -> None:
    (here / "a.jsonl").write_text(LINES)
    with pytest.raises(
        DataError, match=r"a\.jsonl: split: test applies only to hub data sets and directories of save_to_disk"
    ):
        list(read_rows(SourceSettings(path="a.jsonl", split="test"), Path()))


def test_a_prompt_that_shows_a_picture_is_refused(here: Path) -> None:
    rows = [{"prompt": "<image>What is it?", "completion": "An elm.", "images": ["a.png"]},
            {"prompt": "What does <image> mean?", "completion": "A tag."}]  # fmt: skip
    (here / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused: list[DataError] = []
    (one,) = read_demonstrations(SourceSettings(path="a.jsonl"), Path(), refused=refused.append)
    assert one.response == "A tag."
    assert "a.jsonl:1: the prompt refers to what is in images; text alone is supported" in str(refused[0])


def test_columns_as_pandas_writes_them_by_default(here: Path) -> None:
    columns = {name: {str(n): row[name] for n, row in enumerate(ROWS)} for name in ROWS[0]}
    (here / "a.json").write_text(json.dumps(columns))
    with pytest.raises(DataError, match=r"one object of columns; write one record per line \(pandas: to_json"):
        read("a.json")


# Orders of responses


def compared(here: Path, *rows: dict[str, Any]) -> list[tuple[str, str]]:
    (here / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [(one.chosen, one.rejected) for one in read_preferences(SourceSettings(path="a.jsonl"), Path())]


def test_numbers_next_to_responses_are_never_passed_over(here: Path) -> None:
    row = {"prompt": "x", "responses": ["a", "b"]}
    assert compared(here, row) == [("a", "b")]
    assert compared(here, {**row, "rankings": [2, 1]}) == [("b", "a")]
    assert compared(here, {**row, "rewards": [0.1, 0.7]}) == [("b", "a")]
    for other in ("labels", "preference_probabilities"):
        with pytest.raises(DataError, match=f"{other} is a list of 2 numbers, one for each response; if they are pla"):
            compared(here, {**row, other: [0, 1]})


@pytest.mark.parametrize(("column", "value"), [("best", 1), ("label", 0), ("preferred_response", "b"), ("Choice", "2")])
def test_a_column_that_names_the_best_response_is_not_overlooked(column: str, value: object, here: Path) -> None:
    row = {"prompt": "x", "responses": ["a", "b"]}
    with pytest.raises(DataError, match=f"a.jsonl:1: {column} is {value!r}; if that says which response is the best"):
        compared(here, {**row, column: value})
    assert compared(here, {**row, "labeler": 1, "best": True, "preferred_language": "en"}) == [("a", "b")]
    assert compared(here, {**row, column: value, "places": [2, 1]}) == [("b", "a")]


def helpful(prompt: str, response: str, helpfulness: int) -> dict[str, Any]:
    return {"prompt": prompt, "response": response, "helpfulness": helpfulness, "verbosity": 2}


def test_rated_answers_on_consecutive_rows_are_compared(here: Path) -> None:
    rows = [helpful("x", "a", 1), helpful("x", "b", 4), helpful("y", "c", 3), helpful("y", "d", 3)]
    assert compared(here, *rows) == [("b", "a"), ("c", "d")]
    located = list(stream_preferences(SourceSettings(path="a.jsonl"), Path()))
    assert [(one.where, one.record.tied, one.unread) for one in located] == [
        ("a.jsonl:1", False, ("verbosity",)), ("a.jsonl:3", True, ("verbosity",))
    ]  # fmt: skip
    shown = read_demonstrations(SourceSettings(path="a.jsonl"), Path())
    assert [one.response for one in shown] == ["a", "b", "c", "d"]
    refused: list[DataError] = []
    (here / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (*rows[:2], rows[2])))
    found = read_preferences(SourceSettings(path="a.jsonl"), Path(), refused=refused.append)
    assert len(found) == 1 and "a.jsonl:3: is the only rated answer to its prompt" in str(refused[0])


@pytest.mark.parametrize(("answer", "rating"), [("completion", "rating"), ("answer", "score"), ("output", "rating")])
def test_a_rating_has_several_names(answer: str, rating: str, here: Path) -> None:
    rows = [{"prompt": "x", answer: text, rating: value, "rank": 3} for text, value in (("a", "1"), ("b", 4.5))]
    assert compared(here, *rows) == [("b", "a")]
    (one,) = stream_preferences(SourceSettings(path="a.jsonl"), Path())
    assert one.unread == ("rank",)
    other = {"prompt": "x", answer: "c", ("score", "rating")[rating == "score"]: 3}
    with pytest.raises(DataError, match=f"a.jsonl:3: {rating} is empty or missing, but rates the answers on the row"):
        compared(here, *rows, other)
    with pytest.raises(DataError, match=r"a.jsonl:3: no prompt, answer or rating"):
        compared(here, *rows, {"prompt": "x", answer: "c"})


def test_a_row_without_a_rating_is_refused_alone(here: Path) -> None:
    rows = [helpful("x", "a", 1), {**helpful("x", "b", 4), "helpfulness": None}, helpful("x", "c", 3)]
    rows += [helpful("y", "d", 3), {**helpful("y", "", 3)}, {"prompt": "y", "response": "e", "helpfulness": "much"}]
    (here / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused: list[DataError] = []
    found = read_preferences(SourceSettings(path="a.jsonl"), Path(), refused=refused.append)
    assert [(one.chosen, one.rejected) for one in found] == [("c", "a")]
    assert [str(error).split(":")[1] for error in refused] == ["2", "5", "6", "4"]


@pytest.mark.parametrize("column", ["system", "history", "labeler"])
def test_answers_to_another_system_prompt_or_of_another_labeler_are_not_compared(here: Path, column: str) -> None:
    said = [["hi", "ho"]] if column == "history" else "one"
    rows = [helpful("x", "a", 1), helpful("x", "b", 2), *({**helpful("x", text, 3 - n), column: said}
                                                          for n, text in enumerate("ab"))]  # fmt: skip
    assert compared(here, *rows) == [("b", "a"), ("a", "b")]


def test_a_column_of_any_rated_answer_is_read_or_named(here: Path) -> None:
    rows = [helpful("x", "a", 1), {**helpful("x", "b", 4), "split": "test", "comment": "good", "rating": 3}]
    rows += [{**helpful("y", "c", 1), "kind": "one"}, {**helpful("y", "d", 4), "kind": "two"}]
    (here / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = stream_preferences(SourceSettings(path="a.jsonl"), Path())
    assert first.record.prompt.split == "heldout" and first.unread == ("verbosity", "comment", "rating")
    assert second.record.prompt.kind == "one"
    assert second.unread == ("verbosity", "kind (another one in the first row of the prompt)")


def test_columns_are_renamed_before_rated_answers_are_joined(here: Path) -> None:
    rows = [{"ask": "x", "reply": text, "stars": stars} for text, stars in (("a", 1), ("b", 4), ("c", 2))]
    (here / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, {**rows[0], "ask": "y"}]))
    columns = {"prompt": "ask", "response": "reply", "rating": "stars"}
    found = read_preferences(SourceSettings(path="a.jsonl", columns=columns, max_records=1), Path())
    assert [(one.chosen, one.rejected) for one in found] == [("b", "c"), ("b", "a"), ("c", "a")]


def test_flat_records_of_argilla_have_no_unread_columns(here: Path) -> None:
    row = {
        "prompt": "x", "response-1": "a", "response-2": "b", "ranking.responses": [["response-2", "response-1"]],
        "ranking.responses.users": ["u"], "ranking.responses.status": ["submitted"],
    }  # fmt: skip
    assert compared(here, row) == [("b", "a")]
    (one,) = stream_preferences(SourceSettings(path="a.jsonl"), Path())
    assert one.unread == ()


@pytest.mark.parametrize(
    "text",
    [
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe.<|eot_id|><|start_header_id|>user"
        "<|end_header_id|>\n\nName.<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nElm.<|eot_id|>",
        "<bos><start_of_turn>system\nBe.<end_of_turn>\n<start_of_turn>user\nName.<end_of_turn>\n"
        "<start_of_turn>model\nElm.<end_of_turn>\n",
        "<|system|>\nBe.</s>\n<|user|>\nName.</s>\n<|assistant|>\nElm.</s>",
        "<|system|>\nBe.<|end|>\n<|user|>\nName.<|end|>\n<|assistant|>\nElm.<|end|>\n",
        "<|system|>\nBe.\n<|user|>\nName.\n<|assistant|>\nElm.",
    ],
    ids=["llama-3", "gemma", "zephyr", "phi", "tulu"],
)
def test_text_that_a_template_has_written_is_split_into_turns(text: str, here: Path) -> None:
    (here / "a.jsonl").write_text(json.dumps({"text": text}) + "\n")
    (one,) = read_demonstrations(SourceSettings(path="a.jsonl"), Path())
    turns = [(message.role, message.content) for message in one.prompt.messages]
    assert (turns, one.response) == ([("system", "Be."), ("user", "Name.")], "Elm.")


ORDER = {"result": [{"type": "ranker", "value": {"ranker": {"rank": ["i", "j"]}}}]}
SIDES = {"result": [{"type": "pairwise", "to_name": "left,right", "value": {"selected": "right"}}]}
ITEMS = [{"id": "i", "body": "b"}, {"id": "j", "body": "a"}]


@pytest.mark.parametrize(
    ("row", "unread"),
    [
        ({"fields": {"prompt": "x", "context": "c", "one": "a", "two": "b", "three": "d", "empty": ""},
          "responses": {"order": [{"value": ["two", "one"], "user_id": "u"}]}}, ("fields.context", "fields.three")),
        ({"fields": {"text": "x", "one": "a", "two": "b"}, "responses": {"order": [{"value": ["two", "one"]}]}}, ()),
        ({"data": {"prompt": "x", "items": ITEMS, "topic": "t"}, "annotations": [ORDER]}, ("data.topic",)),
        ({"data": {"prompt": "x", "left": "a", "right": "b", "topic": "t"}, "annotations": [SIDES]}, ("data.topic",)),
        ({"data": {"context": "x", "left": "a", "right": "b"}, "annotations": [SIDES]}, ()),
    ],
)  # fmt: skip
def test_what_no_ranking_of_an_export_uses_is_named(row: dict[str, Any], unread: tuple[str, ...], here: Path) -> None:
    assert compared(here, row) == [("b", "a")]
    (one,) = stream_preferences(SourceSettings(path="a.jsonl"), Path())
    assert one.unread == unread
    with open_store(here) as store:
        assert import_file(store, here / "a.jsonl").ignored == unread


def test_a_rated_answer_to_an_instruction_has_a_remedy(here: Path) -> None:
    with pytest.raises(DataError, match=r"if their prompt is in prompt: rename instruction to prompt$"):
        compared(here, {"instruction": "x", "output": "a", "score": 1})


def test_a_file_of_which_every_line_is_refused_is_not_called_empty(here: Path) -> None:
    (here / "a.jsonl").write_text("nothing\n[1]\n")
    with pytest.raises(DataError, match=r"^a\.jsonl: none of its records can be used$"):
        read_preferences(SourceSettings(path="a.jsonl"), Path(), refused=lambda error: None)


@pytest.mark.parametrize(
    ("more", "unread"),
    [
        ({"responses": ["b", "a"], "places": [1, 2], "scores": [1.0, 9.0]}, "scores"),
        ({"responses": ["b", "a"], "scores": [9.0, 1.0], "generations": ["c", "d"]}, "generations"),
        ({"generations": ["b", "a"], "ranks": [1, 2], "ratings": [1.0, 9.0]}, "ratings"),
    ],
)
def test_a_second_order_or_list_of_answers_is_named(more: dict[str, Any], unread: str, here: Path) -> None:
    assert compared(here, {"prompt": "x", **more}) == [("b", "a")]
    (one,) = stream_preferences(SourceSettings(path="a.jsonl"), Path())
    assert one.unread == (unread,)


def test_an_annotation_without_a_ranking_does_not_take_the_others_with_it(here: Path) -> None:
    undecided = {"result": [{"type": "choices", "value": {"choices": ["unclear"]}}]}
    task = {"data": {"prompt": "x", "left": "a", "right": "b"}, "annotations": [undecided, SIDES, {"result": []}]}
    assert compared(here, task) == [("b", "a")]
    (one,) = stream_preferences(SourceSettings(path="a.jsonl"), Path())
    assert one.unread == ("annotations without a ranking", "results of type choices")


def test_the_first_rated_answer_may_lack_its_rating(here: Path) -> None:
    ratings = (None, 3, 1)
    rows = [{"prompt": "x", "response": f"r{n}", "helpfulness": rating} for n, rating in enumerate(ratings)]
    (here / "a.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    refused: list[DataError] = []
    (one,) = read_preferences(SourceSettings(path="a.jsonl"), Path(), refused=refused.append)
    assert (one.chosen, one.rejected) == ("r1", "r2")
    assert [str(error) for error in refused] == [
        "a.jsonl:1: no prompt, answer or rating (helpfulness, rating, score), where the other rows are rated answers"
    ]
    assert first_look("a.jsonl", {}).role == "preferences"


def test_the_role_is_that_of_most_records_not_of_the_first(here: Path) -> None:
    vote = {"prompt": "x", "response_a": "a", "response_b": "b", "winner": "a"}
    rows = [{**vote, "winner": None}, vote, vote]
    (here / "a.jsonl").write_text("{damaged\n" + "".join(f"{json.dumps(row)}\n" for row in rows))
    look = first_look("a.jsonl", {})
    assert (look.role, look.seen, len(look.refused)) == ("preferences", 2, 2)


def test_a_column_of_turns_is_offered_as_conversations_and_a_single_one_once(here: Path) -> None:
    turns = [{"from": "human", "value": "x"}, {"from": "gpt", "value": "a"}]
    for row, mapping in (({"talk": turns}, "conversations=talk"), ({"joke": "x"}, "prompt=joke")):
        (here / "a.jsonl").write_text(json.dumps(row) + "\n")
        with pytest.raises(DataError, match=f"--columns {mapping}$"):
            first_look("a.jsonl", {})
        assert first_look("a.jsonl", dict([mapping.split("=")])).seen == 1


def test_messages_with_from_and_value_are_recognized(here: Path) -> None:
    turns = [{"from": "human", "value": "x"}, {"from": "gpt", "value": "a"}]
    (here / "a.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    assert first_look("a.jsonl", {}).role == "demonstrations"
