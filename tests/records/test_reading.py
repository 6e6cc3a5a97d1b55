"""Reading: every convention of columns, and for every damage one line with the file and the line."""

import codecs
import gzip
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from triphase.errors import DataError
from triphase.records.identity import prompt_id
from triphase.records.reading import read_demonstrations, read_preferences, read_prompts, stream_demonstrations
from triphase.records.types import Message
from triphase.settings.data import SourceSettings

USER, ASSISTANT = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}
READERS = (read_demonstrations, read_prompts, read_preferences)


def written(path: Path, *records: Any) -> SourceSettings:
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text(lines, encoding="utf-8")
    return SourceSettings(path=path.name)


def demonstrations(here: Path, *records: Any) -> list[tuple[str, str, str]]:
    source = written(here / "d.jsonl", *records)
    return [(d.prompt.text, d.response, d.kind) for d in read_demonstrations(source, here)]


def prompts(here: Path, *records: Any) -> list[tuple[str, str]]:
    return [(p.id, p.text) for p in read_prompts(written(here / "p.jsonl", *records), here)]


def preferences(here: Path, *records: Any) -> list[tuple[tuple[str, ...], str, str]]:
    found = read_preferences(written(here / "c.jsonl", *records), here)
    return [(tuple(m.content for m in c.prompt.messages), c.chosen, c.rejected) for c in found]


def why(here: Path, content: str | bytes, name: str = "d.jsonl", read: Any = read_demonstrations) -> str:
    (here / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError) as caught:
        read(SourceSettings(path=name), here)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- Conventions --------------------------------------------------------------------------------------------------


def test_demonstrations_in_every_convention(here: Path) -> None:
    assert demonstrations(
        here,
        {"prompt": "Why?", "completion": "So."},
        {"prompt": "Why?", "response": "So.", "kind": "safety"},
        {"prompt": [USER], "completion": [ASSISTANT]},
        {"messages": [USER, ASSISTANT]},
        {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]},
        {"instruction": "Why?", "output": "So.", "input": ""},
        {"instruction": "Why", "input": "me?", "output": "So."},
        {"instruction": "Why?", "input": " \n", "context": " ", "output": "So."},
        {"question": "Why?", "context": " ", "answer": "So."},
        {"instruction": "Why?", "instances": [{"input": "", "output": "So."}, {"input": "x", "output": "Two."}]},
    ) == [
        ("Why?", "So.", "instruction"),
        ("Why?", "So.", "safety"),
        ("Why?", "So.", "instruction"),
        ("Why?", "So.", "instruction"),
        ("Why?", "So.", "instruction"),
        ("Why?", "So.", "instruction"),
        ("Why\n\nme?", "So.", "instruction"),
        ("Why?", "So.", "instruction"),
        ("Why?", "So.", "instruction"),
        ("Why?", "So.", "instruction"),
        ("Why?\n\nx", "Two.", "instruction"),
    ]


def test_the_whole_conversation_before_the_answer_is_the_prompt(here: Path) -> None:
    system = {"role": "system", "content": "Be brief."}
    [found] = read_demonstrations(
        written(here / "d.jsonl", {"messages": [system, USER, ASSISTANT, USER, ASSISTANT]}), here
    )
    assert [m.role for m in found.prompt.messages] == ["system", "user", "assistant", "user"]


def test_prompts_and_their_ids(here: Path) -> None:
    hashed = prompt_id((Message("user", "Why?"),))
    assert prompts(
        here,
        {"prompt": "Why?"},
        {"prompt": [USER, ASSISTANT], "id": "given"},
        {"messages": [USER]},
        {"instruction": "Why?", "id": 7},
        {"chosen": [USER, ASSISTANT], "rejected": [USER, ASSISTANT]},
    ) == [(hashed, "Why?"), ("given", "Why?"), ("7", "Why?")]


@pytest.mark.parametrize("column", ["id", "prompt_id", "kind"])
def test_a_whole_number_that_a_table_made_a_fraction_is_a_name(here: Path, column: str) -> None:
    rows = [{"prompt": "Why?", "completion": "So.", column: number} for number in (1.0, None)]
    first, _ = stream_demonstrations(written(here / "d.jsonl", *rows), here)
    assert {"id": first.id, "prompt_id": first.record.prompt.id, "kind": first.record.kind}[column] == "1"
    for number in (1.5, 2.0**60):
        with pytest.raises(DataError, match=rf"{column} is the number .*; write text, or a whole number up to 2\*\*53"):
            read_demonstrations(written(here / "d.jsonl", {**rows[0], column: number}), here)


def test_preferences_in_every_convention(here: Path) -> None:
    expected = (("Why?",), "So.", "No.")
    other = {"role": "assistant", "content": "No."}
    transcript = "\n\nHuman: Why?\n\nAssistant: "
    assert (
        preferences(
            here,
            {"prompt": "Why?", "chosen": "So.", "rejected": "No."},
            {"prompt": [USER], "chosen": [ASSISTANT], "rejected": [other]},
            {"chosen": [USER, ASSISTANT], "rejected": [USER, other]},
            {"prompt": "Why?", "chosen": [USER, ASSISTANT], "rejected": [USER, other]},
            {"chosen": transcript + "So.", "rejected": transcript + "No."},
            {"prompt": transcript, "chosen": "So.", "rejected": "No."},
            {
                "conversations": [{"from": "human", "value": "Why?"}],
                "chosen": {"from": "gpt", "value": "So."},
                "rejected": {"from": "gpt", "value": "No."},
            },
            {"instruction": "Why?", "chosen": "So.", "rejected": "No."},
        )
        == [expected] * 8
    )


def test_a_transcript_of_several_turns(here: Path) -> None:
    start = "\n\nHuman: One?\n\nAssistant: First.\n\nHuman: Two?\n\nAssistant:"
    [(turns, chosen, rejected)] = preferences(here, {"chosen": start + " So.\n\nMore.", "rejected": start + " No."})
    assert (turns, chosen, rejected) == (("One?", "First.", "Two?"), "So.\n\nMore.", "No.")


def test_margin_labeler_and_split(here: Path) -> None:
    row = {"prompt": "Why?", "chosen": "So.", "rejected": "No."}
    found = read_preferences(
        written(
            here / "c.jsonl", {**row, "margin": 0.5, "labeler": "ann", "split": "heldout"}, {**row, "split": "train"}
        ),
        here,
    )
    assert [(c.margin, c.labeler, c.prompt.split) for c in found] == [(0.5, "ann", "heldout"), (None, "", "train")]


def test_the_split_follows_from_the_prompt_alone(here: Path) -> None:
    source = written(here / "p.jsonl", *({"prompt": f"Question {i}?"} for i in range(2000)))
    found = read_prompts(source, here, heldout_share=0.2)
    heldout = {p.id for p in found if p.split == "heldout"}
    assert 340 < len(heldout) < 460
    assert heldout <= {p.id for p in read_prompts(source, here, heldout_share=0.3) if p.split == "heldout"}
    [alone] = read_prompts(written(here / "q.jsonl", {"prompt": "Question 7?", "id": "x"}), here)
    assert alone.split == found[7].split


# --- Formats ------------------------------------------------------------------------------------------------------

ROW = {"prompt": "Wie geht’s? 🙂", "completion": "Gut."}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d.jsonl", json.dumps(ROW) + "\n\n" + json.dumps(ROW)),
        ("d.jsonl", "\ufeff" + json.dumps(ROW, ensure_ascii=False) + "\r\n" + json.dumps(ROW) + "\r\n"),
        ("d.json", json.dumps([ROW, ROW], ensure_ascii=False, indent=1)),
        ("d.json", "\ufeff [" + json.dumps(ROW) + " ,\n" + json.dumps(ROW) + "]\n"),
        ("d.json", json.dumps(ROW) + "\n" + json.dumps(ROW)),
        ("d.csv", 'prompt,completion\n"Wie geht’s? 🙂",Gut.\nWie geht’s? 🙂,Gut.\n'),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_files_of_every_kind(here: Path, name: str, content: str, packed: bool) -> None:
    data = content.encode()
    file = f"{name}.gz" if packed else name
    (here / file).write_bytes(gzip.compress(data) if packed else data)
    found = read_demonstrations(SourceSettings(path=file), here)
    assert [(d.prompt.text, d.response) for d in found] == [("Wie geht’s? 🙂", "Gut.")] * 2


def test_parquet(here: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist([{"messages": [USER, ASSISTANT]}] * 3), here / "d.parquet")
    assert len(read_demonstrations(SourceSettings(path="d.parquet"), here)) == 3
    (here / "bad.parquet").write_bytes(b"PAR1 and nothing more")
    assert "bad.parquet: row 1: damaged Parquet file" in why(here, b"PAR1 and nothing more", "bad.parquet")
    parquet.write_table(pyarrow.Table.from_pylist([{"prompt": "x", "text": "y"}]), here / "c.parquet")
    with pytest.raises(DataError, match=r"c.parquet: row 1: missing column: completion"):
        read_demonstrations(SourceSettings(path="c.parquet"), here)


def test_a_long_json_list_is_read_in_pieces(here: Path) -> None:
    rows = [{"prompt": f"q{i}", "completion": "ü" * (i % 5000 + 1)} for i in range(3000)]
    (here / "d.json").write_text(json.dumps(rows, ensure_ascii=False, indent=0), encoding="utf-8")
    found = list(stream_demonstrations(SourceSettings(path="d.json"), here))
    assert [len(item.record.response) for item in found] == [i % 5000 + 1 for i in range(3000)]
    assert found[100].where == f"d.json:{2 + 4 * 100}"


def test_an_absolute_path_and_one_from_the_base(here: Path) -> None:
    (here / "below").mkdir()
    written(here / "below" / "d.jsonl", ROW)
    assert read_demonstrations(SourceSettings(path="d.jsonl"), here / "below")
    assert read_demonstrations(SourceSettings(path=str(here / "below" / "d.jsonl")), here)


def test_hub_data_sets_go_through_datasets(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_list([ROW, {"prompt": "x", "completion": ""}])
    monkeypatch.setattr(datasets, "load_dataset", lambda path, split: table)
    with pytest.raises(DataError) as caught:
        read_demonstrations(SourceSettings(path="org/name", split="test"), here)
    assert str(caught.value) == "org/name (test): row 2: completion is empty"
    bad: list[DataError] = []
    assert len(read_demonstrations(SourceSettings(path="org/name"), here, refused=bad.append)) == 1
    assert len(bad) == 1


def test_a_hub_that_cannot_be_reached_is_one_line(here: Path) -> None:
    pytest.importorskip("datasets")
    with pytest.raises(DataError) as caught:
        read_demonstrations(SourceSettings(path="nobody/has-this-one"), here)
    message = str(caught.value)
    assert message.startswith("nobody/has-this-one (train): could not be loaded from the hub") and "\n" not in message


# --- Damage -------------------------------------------------------------------------------------------------------

GOOD = json.dumps(ROW) + "\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD + '{"prompt": "x", "completion": }\n', "d.jsonl:2: not valid JSON: Expecting value (column 31)"),
        (GOOD + '{"prompt": NaN}', "d.jsonl:2: not valid JSON: NaN is not a JSON value (write null or a text)"),
        (GOOD + "[1]", "d.jsonl:2: a record must be an object like {…}, not a list"),
        (GOOD + '"text"', "d.jsonl:2: a record must be an object like {…}, not text"),
        ("[" * 100_000, "d.jsonl:1: nested too deeply"),
        (
            '{"prompt": 1' + "0" * 5000 + "}",
            "d.jsonl:1: not valid JSON: Exceeds the limit (4300 digits) for integer "
            "string conversion: value has 5001 digits",
        ),
        (
            GOOD + '{"prompt": "x", "complteion": "y"}',
            "d.jsonl:2: missing column: completion (or response); "
            "found prompt, complteion; rename complteion to completion?",
        ),
        (
            "{}",
            "d.jsonl:1: missing column: prompt and completion (or messages, or instruction and output, "
            "or question and answer); found none",
        ),
        ('{"prompt": "x", "completion": "  "}', "d.jsonl:1: completion is empty"),
        ('{"prompt": "", "completion": "y"}', "d.jsonl:1: prompt is empty"),
        (
            '{"prompt": "x", "completion": null}',
            "d.jsonl:1: missing column: completion (or response); found prompt, completion (null)",
        ),
        ('{"prompt": 3, "completion": "y"}', "d.jsonl:1: prompt must be text or a list of messages, not a number"),
        ('{"prompt": "x", "completion": 3}', "d.jsonl:1: completion must be text, not a number"),
        ('{"prompt": "x", "completion": "a\\u0000"}', "d.jsonl:1: completion contains a NUL character"),
        (
            '{"prompt": "x", "completion": "a\\ud800"}',
            "d.jsonl:1: completion contains half of a surrogate pair (\\ud800 to \\udfff), which is not a valid "
            "character",
        ),
        ('{"prompt": [], "completion": "y"}', "d.jsonl:1: prompt is empty"),
        (
            '{"prompt": ["x"], "completion": "y"}',
            "d.jsonl:1: prompt[0] must be an object with role and content, not text",
        ),
        (
            '{"prompt": [{"role": "user"}], "completion": "y"}',
            "d.jsonl:1: prompt[0] needs the text content; found keys role",
        ),
        (
            '{"prompt": [{"role": "tool", "content": "x"}], "completion": "y"}',
            "d.jsonl:1: prompt[0] is a turn of a tool (tool), which is not supported; leave such records out "
            "(data.on_bad_record: drop)",
        ),
        (
            '{"prompt": [{"role": "user", "content": "x"}, {"role": "gpt", "content": "z"}], "completion": "y"}',
            "d.jsonl:1: the prompt in prompt must end with a user message, not an assistant message",
        ),
        (
            '{"prompt": [{"role": "parrot", "content": "x"}], "completion": "y"}',
            "d.jsonl:1: prompt[0] has the role 'parrot'; known are system, developer, user, human, prompter, "
            "assistant, gpt, chatgpt, model, bot",
        ),
        (
            '{"messages": [{"role": "user", "content": "x"}]}',
            "d.jsonl:1: messages must end with an assistant message, not a user message",
        ),
        (
            '{"messages": [{"role": "assistant", "content": "x"}]}',
            "d.jsonl:1: the prompt in messages must end with a user message, not none",
        ),
        (
            '{"instruction": "x", "instances": []}',
            "d.jsonl:1: instances must be a list of at least one object with input and output",
        ),
        (
            GOOD.replace("}", ', "id": "a"}') * 2,
            "d.jsonl:2: the id 'a' is already used by d.jsonl:1; give each record an id of its own, or none; "
            "if it identifies the prompt, rename the column to prompt_id",
        ),
        (
            '{"prompt": "x", "completion": "y", "split": "third"}',
            "d.jsonl:1: split is 'third'; write train or heldout, or leave it out",
        ),
        ("", "d.jsonl: contains no records"),
        ("\n\n", "d.jsonl: contains no records"),
        (
            GOOD.encode() + b'{"prompt": "\xe4"}',
            "d.jsonl:2: not UTF-8 text (byte 13 of the line is 0xe4); save the file as UTF-8",
        ),
        (codecs.BOM_UTF16_LE + GOOD.encode("utf-16-le"), "d.jsonl: is UTF-16 text; save the file as UTF-8"),
    ],
)
def test_damage_is_one_line_with_its_place(here: Path, content: str | bytes, message: str) -> None:
    assert why(here, content) == message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1}', "c.jsonl:1: missing column: chosen; found a"),
        (
            '{"chosen": "a", "rejected": "b"}',
            "c.jsonl:1: missing column: prompt (chosen and rejected are not conversations "
            "that contain it); found chosen, rejected",
        ),
        ('{"prompt": "x", "chosen": "a", "rejected": "a"}', "c.jsonl:1: chosen and rejected are the same text"),
        ('{"prompt": "x", "chosen": "a", "rejected": ""}', "c.jsonl:1: rejected is empty"),
        (
            '{"prompt": "x", "chosen": "a", "rejected": "b", "margin": "much"}',
            "c.jsonl:1: margin must be a number of at least 0, and below 1e+11, not 'much'",
        ),
        (
            '{"prompt": "x", "chosen": "a", "rejected": "b", "margin": -1}',
            "c.jsonl:1: margin must be a number of at least 0, and below 1e+11, not '-1'",
        ),
        (
            '{"chosen": "\\n\\nHuman: a\\n\\nAssistant: b", "rejected": "\\n\\nHuman: c\\n\\nAssistant: b"}',
            "c.jsonl:1: chosen and rejected diverge at turn 1, before the last answer; they must be the same "
            "conversation up to one final assistant message",
        ),
    ],
)
def test_damaged_preferences(here: Path, content: str, message: str) -> None:
    assert why(here, content, "c.jsonl", read_preferences) == message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "[" + json.dumps(ROW) + ",\n" + json.dumps(ROW),
            "d.json:2: not valid JSON: ']' expected, the end of the file found",
        ),
        ("[" + json.dumps(ROW) + "\n" + json.dumps(ROW) + "]", "d.json:2: not valid JSON: ']' expected, '{' found"),
        ("[" + json.dumps(ROW) + ",\n]", "d.json:2: not valid JSON: there is a comma before the closing ]"),
        ("[1]", "d.json:1: a record must be an object like {…}, not a number"),
        ("[" + json.dumps(ROW) + "]\n]", "d.json:2: not valid JSON: text after the end of the list"),
        ("[]", "d.json: contains no records"),
        ("3", "d.json:1: the file must be a list of records, [{…}, {…}], or one record per line"),
        (b"[" + GOOD.encode() + b",\n\xff", "d.json:3: not UTF-8 text; save the file as UTF-8"),
    ],
)
def test_damaged_json(here: Path, content: str | bytes, message: str) -> None:
    assert why(here, content, "d.json") == message


def test_damaged_csv_and_gzip_and_names(here: Path) -> None:
    (here / "empty").mkdir()
    assert why(here, "prompt,completion\na\n", "d.csv") == (
        "d.csv:2: 1 field, where the first line names 2 columns; quote a cell that contains commas or line breaks"
    )
    assert why(here, 'prompt,completion\n"a,b\n', "d.csv").startswith("d.csv:2: not valid CSV")
    assert why(here, gzip.compress(GOOD.encode())[:-9], "d.jsonl.gz").startswith("d.jsonl.gz: damaged gzip file")
    assert why(here, b"no gzip", "d.jsonl.gz").startswith("d.jsonl.gz: damaged gzip file")
    assert "unknown kind of file" in why(here, "x", "d.txt")
    for path, message in (
        ("gone.jsonl", "there is no such file"),
        ("empty", "is a directory without data files"),
        ("a b/c", "neither a file"),
        ("hf://datasets/a/b/c.parquet", "addresses are not read; download the file, or name a data set of the hub by"),
        ("https://example.org/*.jsonl", "addresses are not read"),
    ):
        with pytest.raises(DataError, match=message):
            read_demonstrations(SourceSettings(path=path), here)


# --- Any bytes ----------------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(["user", "assistant"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "from", "value", "output", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
COLUMNS = ("prompt", "completion", "messages", "chosen", "rejected", "margin", "id", "split", "kind", "instruction",
           "instances", "conversations", "input", "output")  # fmt: skip
QUIET = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)


@QUIET
@given(st.lists(st.dictionaries(st.sampled_from(COLUMNS), VALUES, max_size=5), max_size=4))
def test_any_json_gives_records_or_a_data_error(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    for read in READERS:
        refused: list[DataError] = []
        try:
            records = read(written(tmp_path / "f.jsonl", *rows), tmp_path, refused=refused.append)
        except DataError:
            records = []
        if not any("instances" in row for row in rows):
            assert len(records) + len(refused) == len(rows)


@QUIET
@given(st.binary(max_size=200), st.sampled_from(["f.jsonl", "f.json", "f.csv", "f.jsonl.gz"]))
def test_any_bytes_give_records_or_a_data_error(tmp_path: Path, data: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(data)
    for read in READERS:
        with pytest.raises(DataError):
            read(SourceSettings(path=name), tmp_path)


@QUIET
@given(st.data())
def test_a_mutated_file_gives_records_or_a_data_error(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray((GOOD * 3).encode())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    for name in ("f.jsonl", "f.json"):
        (tmp_path / name).write_bytes(content)
        try:
            read_demonstrations(SourceSettings(path=name), tmp_path)
        except DataError as error:
            assert name in str(error)


def test_rows_that_are_added_change_no_split(tmp_path: Path) -> None:
    def splits(count: int, first: int = 0) -> dict[str, str]:
        rows = [{"prompt": f"Name tree {n}.", "chosen": "elm", "rejected": "oak"} for n in range(first, count)]
        path = tmp_path / "a.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        found = [one.prompt for one in read_preferences(SourceSettings(path=str(path)), tmp_path)]
        return {prompt.text: prompt.split for prompt in found}

    before, after = splits(100), splits(300, first=50)
    shared = before.keys() & after.keys()
    assert len(shared) == 50 and all(before[text] == after[text] for text in shared)
    assert 30 < list(after.values()).count("heldout") < 70  # a fifth of 250


def test_many_columns_take_no_time_in_square(here: Path) -> None:
    """A hundred thousand columns: comparing each with each, or each with each name of ours, would take minutes."""
    names = [f"c{number}" for number in range(100_000)]
    began = time.monotonic()
    assert "100,000 columns; a record may have 10,000" in why(here, ",".join(names) + "\n", "d.csv")
    text = ",".join(f'"{name}":1' for name in names)
    assert "100,000 columns; a record may have 10,000" in why(here, f"{{{text}}}\n")
    assert "the key 'z' appears twice" in why(here, f'{{{text},"z":1,"z":1}}\n')
    few = names[:9_999]
    assert "missing column" in why(here, ",".join(few) + "\n" + ",".join("1" for _ in few) + "\n", "d.csv")
    assert "appears twice" in why(here, ",".join([*few, few[0]]) + "\n", "d.csv")
    assert time.monotonic() - began < 5
