"""Each form of docs/data.md, with its example run through the reader; sources of every kind; what is too long."""

import gzip
import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pyarrow
import pytest
from pyarrow import parquet

from triphase.errors import DataError, SettingsError
from triphase.records.forms import FORMS, Form, form_of
from triphase.records.forms_page import with_table
from triphase.records.lines import Row
from triphase.records.reading import read_demonstrations, read_preferences, read_prompts, stream_preferences
from triphase.records.source_rows import files_of, read_rows
from triphase.records.types import Message
from triphase.settings.data import SourceSettings
from triphase.settings.loading import load_settings

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
ROWS = [{"prompt": f"Name tree {n}.", "completion": f"Elm {n}."} for n in range(6)]
EACH = [(form, role) for form in FORMS for role in form.roles]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def source(path: Path, **more: Any) -> SourceSettings:
    return SourceSettings.model_validate({"path": str(path), **more})


def written(folder: Path, *rows: Any, name: str = "a.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# The table


@pytest.mark.parametrize(("form", "role"), EACH, ids=[f"{form.name}-{role}" for form, role in EACH])
def test_the_example_of_each_form_is_read_as_it_says(form: Form, role: str, tmp_path: Path) -> None:
    path = written(tmp_path, form.example, *form.more)
    if role == "preferences":
        located = list(stream_preferences(source(path), tmp_path))
        assert {form_of(role, item) for item in located} == {form.name}
        assert not [name for item in located for name in item.unread]
        better = [item.record for item in located if not item.record.tied]
        assert better and all("lm" in one.chosen and "No." in one.rejected for one in better)
        assert all("Name a tree." in one.prompt.text for one in better)
    elif role == "demonstrations":
        found = read_demonstrations(source(path), tmp_path)
        assert [one.response for one in found] == ["An elm."]
        assert "Name a tree." in found[0].prompt.text or (not found[0].prompt.messages and "plain text" in form.name)
    else:
        (prompt,) = read_prompts(source(path), tmp_path)
        assert "Name a tree." in prompt.text and prompt.messages[-1].role == "user"
    row = Row(form.example, "a", 1)
    named = next(each for each in FORMS if role in each.roles and each.fits(row, set(form.example)))
    assert named is form


def test_the_page_has_the_table() -> None:
    page = PAGE.read_text()
    assert with_table(page) == page


def test_a_ranking_gives_all_pairs_and_its_ties(tmp_path: Path) -> None:
    path = written(tmp_path, {"prompt": "x", "responses": ["c", "a", "b", "n"], "places": [3, 1, 1, None]})
    found = read_preferences(source(path), tmp_path)
    assert [(one.chosen, one.rejected, one.tied) for one in found] == [
        ("a", "b", True), ("a", "c", False), ("b", "c", False)
    ]  # fmt: skip
    assert len({id(one.ranking) for one in found}) == 1


def test_a_tree_is_followed_along_the_best_replies(tmp_path: Path) -> None:
    def reply(text: str, rank: int | None, *replies: Any, role: str = "assistant", **more: Any) -> dict[str, Any]:
        return {"text": text, "role": role, "rank": rank, "replies": list(replies), **more}

    best = reply("best", 0, reply("and then?", None, reply("well", 0), reply("hm", 1), role="prompter"))
    tree = {
        "prompt": reply("why?", None, reply("worse", 1), best, reply("gone", 2, deleted=True), reply("odd", 3,
                        review_result=False), reply("late", None), role="prompter"),
    }  # fmt: skip
    path = written(tmp_path, tree)
    shown = read_demonstrations(source(path), tmp_path)
    assert [(one.prompt.text, one.response) for one in shown] == [("why?", "best"), ("and then?", "well")]
    assert shown[1].prompt.messages[:2] == (Message("user", "why?"), Message("assistant", "best"))
    pairs = read_preferences(source(path), tmp_path)
    assert [(one.chosen, one.rejected) for one in pairs] == [("best", "worse"), ("well", "hm")]


# Kinds of files


def test_every_kind_of_file_holds_the_same_records(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    table = pyarrow.Table.from_pylist(ROWS)
    (tmp_path / "a.jsonl").write_text(LINES)
    (tmp_path / "b.json").write_text(json.dumps(ROWS))
    for name, comma in (("c.csv", ","), ("d.tsv", "\t")):
        lines = [comma.join(row.values()) for row in ROWS]
        (tmp_path / name).write_text("\n".join([comma.join(ROWS[0]), *lines]) + "\n")
    (tmp_path / "e.jsonl.gz").write_bytes(gzip.compress(LINES.encode()))
    with pyarrow.output_stream(str(tmp_path / "f.jsonl.zst"), compression="zstd") as file:
        file.write(LINES.encode())
    parquet.write_table(table, tmp_path / "g.parquet")
    for name, opened in (("h.arrow", pyarrow.ipc.new_stream), ("i.arrow", pyarrow.ipc.new_file)):
        with opened(str(tmp_path / name), table.schema) as writer:
            writer.write_table(table)
    Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"))
    splits = {"train": Dataset.from_list(ROWS), "test": Dataset.from_list(ROWS[:2])}
    DatasetDict(splits).save_to_disk(str(tmp_path / "splits"))
    wanted = read_demonstrations(source(tmp_path / "a.jsonl"), tmp_path)
    assert len(wanted) == len(ROWS)
    for path in sorted(tmp_path.iterdir()):
        assert read_demonstrations(source(path), tmp_path) == wanted, path
    assert read_demonstrations(source(tmp_path / "splits", split="test"), tmp_path) == wanted[:2]
    with pytest.raises(DataError, match="has no split 'dev'; it has train, test"):
        read_demonstrations(source(tmp_path / "splits", split="dev"), tmp_path)
    (tmp_path / "j.jsonl.zst").write_bytes(b"no zst")
    (tmp_path / "k.arrow").write_bytes(b"no arrow")
    for name in ("j.jsonl.zst", "k.arrow"):
        with pytest.raises(DataError, match=rf"{name}: .*(cannot be read|damaged)"):
            read_demonstrations(source(tmp_path / name), tmp_path)


def test_patterns_and_directories_stand_for_their_files(tmp_path: Path) -> None:
    (tmp_path / "data" / "below").mkdir(parents=True)
    for place, (name, rows) in enumerate((("b.jsonl", ROWS[:2]), ("a.jsonl", ROWS[2:3]), ("below/c.jsonl", ROWS[3:]))):
        written(tmp_path / "data", *[{**row, "id": f"{place}{n}"} for n, row in enumerate(rows)], name=name)
    written(tmp_path / "data", {"prompt": "hidden", "completion": "x"}, name="_c.jsonl")
    (tmp_path / "data" / "README.md").write_text("no data")
    for path, count in (("data", 6), ("data/*.jsonl", 4), ("data/**/c.jsonl", 3), ("data/[ab].jsonl", 3)):
        rows = list(read_rows(source(Path(path)), tmp_path))
        assert len([row for row in rows if row.values["prompt"] != "hidden"]) == count - (path == "data/*.jsonl")
    first = next(read_rows(source(Path("data")), tmp_path))
    assert first.where.endswith("data/a.jsonl:1")
    assert [path.name for path in files_of(source(Path("data")), tmp_path)] == ["a.jsonl", "b.jsonl", "c.jsonl"]
    with pytest.raises(DataError, match=r"x\*\.jsonl: matches no data file"):
        list(read_rows(source(Path("x*.jsonl")), tmp_path))
    written(tmp_path / "data", {**ROWS[0], "id": "00"}, name="d.jsonl")
    with pytest.raises(DataError, match=r"d\.jsonl:1: the id '00' is already used by .*b\.jsonl:1"):
        read_demonstrations(source(Path("data")), tmp_path)


def test_hub_data_sets_are_asked_for_by_configuration_and_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    asked: list[Any] = []

    def load(path: str, **options: Any) -> Any:
        asked.append((path, options))
        return datasets.IterableDataset.from_generator(lambda: iter(ROWS))

    monkeypatch.setattr(datasets, "load_dataset", load)
    given = {"config": "english", "revision": "v2", "streaming": True, "split": "test"}
    found = read_demonstrations(source(Path("org/data"), **given, max_records=3), tmp_path)
    assert [one.response for one in found] == ["Elm 0.", "Elm 1.", "Elm 2."]
    assert asked == [("org/data", {"name": "english", "revision": "v2", "streaming": True, "split": "test"})]

    for said, told in (
        (
            "Config name is missing.\nPlease pick one among the available configs: ['main', 'socratic']\nExample of",
            r"ValueError: the configurations are \['main', 'socratic'\]\); set the configuration as config",
        ),
        ("BuilderConfig 'x' not found. Available: ['a']", r"Available: \['a'\]\); set the configuration as config"),
        ("Dataset 'org/data' is a gated dataset on the Hub.", "accept its terms on its page, then sign in"),
        ("Dataset scripts are no longer supported, but found data.py", "set revision: refs/convert/parquet"),
    ):
        monkeypatch.setattr(datasets, "load_dataset", Mock(side_effect=ValueError(said)))
        with pytest.raises(DataError, match=rf"org/data \(train\): .*{told}"):
            read_demonstrations(source(Path("org/data")), tmp_path)
    path = written(tmp_path, *ROWS)
    with pytest.raises(DataError, match="config, revision and streaming apply to hub data sets only"):
        read_demonstrations(source(path, streaming=True), tmp_path)


# Columns of other names, and no more records than were asked for


def test_columns_are_renamed(tmp_path: Path) -> None:
    path = written(tmp_path, *[{"ask": row["prompt"], "reply": row["completion"], "prompt": "no"} for row in ROWS])
    chosen = source(path, columns={"prompt": "ask", "completion": "reply"})
    assert [one.response for one in read_demonstrations(chosen, tmp_path)] == [row["completion"] for row in ROWS]
    assert next(read_rows(chosen, tmp_path)).unread()[-1] == "prompt (ask is used instead)"
    typo = source(path, columns={"prompt": "ask", "completion": "reply", "kind": "sort"})
    with pytest.raises(DataError, match=r"columns\.kind: no record has the column 'sort'; they have ask"):
        read_demonstrations(typo, tmp_path)


def test_a_hash_chooses_the_records_and_keeps_most_of_them(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}", "completion": "x"} for n in range(200)]
    path, more = written(tmp_path, *rows[:150]), written(tmp_path, *rows, name="b.jsonl")

    def drawn(path: Path) -> list[str]:
        return [row.values["prompt"] for row in read_rows(source(path, max_records=40, shuffle=True), tmp_path)]

    first, second = drawn(path), drawn(more)
    assert len(first) == len(second) == 40 and first == sorted(first, key=int) != [str(n) for n in range(40)]
    assert 20 <= len(set(first) & set(second)) < 40
    assert len(list(read_rows(source(path, max_records=7), tmp_path))) == 7


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("shuffle: true", r"my\.yaml:3: data\.prompts\.0: shuffle chooses which max_records are taken"),
        ("columns: {promt: ask}", r"my\.yaml:3: data\.prompts\.0: columns: 'promt' is not a known column"),
        ("path: ' '", r"my\.yaml:3: data\.prompts\.0: path is empty; give a file"),
        ("max_records: 0", r"data\.prompts\.0\.max_records: 0 is not allowed"),
    ],
)
def test_settings_that_do_not_fit_are_one_line(line: str, told: str, tmp_path: Path) -> None:
    path, first = tmp_path / "my.yaml", "" if line.startswith("path") else "path: p.jsonl, "
    path.write_text(f"name: x\nmodel: {{name: 'embedded:tiny'}}\ndata: {{prompts: [{{{first}{line}}}]}}\n")
    with pytest.raises(SettingsError, match=told) as caught:
        load_settings(path)
    assert "\n" not in str(caught.value)
