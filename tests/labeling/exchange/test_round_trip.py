"""What ``label export`` writes, ``label import`` and ``data.preferences`` take, with everything that was in it."""

import csv
import dataclasses
import io
import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet
import pytest

from triphase.cli import label
from triphase.cli.main import main
from triphase.errors import SettingsError, StoreError
from triphase.labeling.exchange.csv_cells import csv_text
from triphase.labeling.exchange.export_columns import COLUMNS
from triphase.labeling.exchange.exporting import export_file, export_rows
from triphase.labeling.exchange.importing import import_comparisons, import_file
from triphase.labeling.exchange.tool_formats import TOOLS
from triphase.records.identity import prompt_id
from triphase.records.reading import read_preferences, stream_demonstrations
from triphase.records.types import Message, Prompt, Ranking, Response
from triphase.records.visible import visible
from triphase.settings.data import SourceSettings
from triphase.store import Store, open_store
from triphase.store.answers import StoredAnswer


def fill(store: Store) -> None:
    """24 responses, 9 of them finished, some empty and some alike, as a policy writes them; three people rank them."""
    texts = ["a river stone", "mud", "", "mud", "clay and", " \n"]
    for n in range(4):
        store.add_prompts([Prompt(f"p{n}", (Message("user", f"name stone {n}"),), "geology", "train")])
        store.add_responses(
            Response(f"r{n}-{k}", f"p{n}", text, f"model-{k}", (6 * n + k) % 8 < 3, 2**62 + k if k else None)
            for k, text in enumerate(texts)
        )
        shown = tuple(f"r{n}-{k}" for k in (5, 3, 1, 0, 2, 4))
        common = {"prompt_id": f"p{n}", "submitted_at": 1.7e9 + n}
        store.add_answers(
            [
                StoredAnswer(
                    Ranking(
                        f"k{n}a",
                        labeler="ann",
                        places={f"r{n}-{k}": k + 1 for k in range(6)},
                        order_shown=shown,
                        seconds=12.5,
                        note="so",
                        **common,
                    ),
                    strength=3,
                    guideline_version=2,
                    quality={f"r{n}-0": 7},
                    ratings={"helpful": {f"r{n}-0": 7, f"r{n}-4": 1}, "honest": {f"r{n}-3": 2}},
                    rationale="it rolls",
                    rewrites={f"r{n}-1": "a stone\nof the river"},
                ),
                StoredAnswer(
                    Ranking(
                        f"k{n}b",
                        labeler="bob",
                        places={f"r{n}-4": 1, f"r{n}-0": 1, f"r{n}-1": 2},
                        order_shown=(),
                        **common,
                    ),
                    margin=2.0,
                ),
                StoredAnswer(
                    Ranking(f"k{n}c", labeler="lea", places={f"r{n}-0": 1, f"r{n}-1": 2}, order_shown=(), **common),
                    "adjudication",
                ),
                StoredAnswer(Ranking(f"k{n}d", labeler="bob", places={f"r{n}-1": 1}, order_shown=(), **common), "gold"),
            ]
        )


def without_ids(answers: list[StoredAnswer]) -> list[StoredAnswer]:
    plain = [dataclasses.replace(one, ranking=dataclasses.replace(one.ranking, id="")) for one in answers]
    return sorted(plain, key=repr)


def test_there_are_nine_finished_of_24(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        fill(store)
        assert sum(one.finished for one in store.responses()) == 9 and len(store.responses()) == 24


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_rankings_come_back_whole(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "two").mkdir()
    with open_store(tmp_path) as store, open_store(tmp_path / "two") as other:
        fill(store)
        done = export_file(store, tmp_path / f"r.{suffix}", "rankings")
        assert (done.lines, done.left_out) == (16, {})
        for new in (16, 0):
            found = import_file(other, tmp_path / f"r.{suffix}")
            assert (found.rankings, found.ignored) == (new, ())
        assert sorted(other.responses(), key=repr) == sorted(store.responses(), key=repr)
        assert other.prompts() == store.prompts()
        assert without_ids(other.answers(counted=False)) == without_ids(store.answers(counted=False))
        assert [Counter(group.pairs).total() for group in other.ranked_groups("train")] == [
            Counter(group.pairs).total() for group in store.ranked_groups("train")
        ]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_comparisons_keep_how_responses_ended(tmp_path: Path, suffix: str) -> None:
    """In the label store and as preferences of a run; what no reader uses is left out, counted and reported."""
    for name in ("two", "three"):
        (tmp_path / name).mkdir()
    file = tmp_path / f"c.{suffix}"
    with open_store(tmp_path) as store, open_store(tmp_path / "two") as other, open_store(tmp_path / "three") as third:
        fill(store)
        done = export_file(store, file, "comparisons")
        # Ann's 15 pairs: 9 with one of the two empty sides, one of equal texts; of bob's three one is a tie.
        assert done.left_out == {
            "pairs with an empty response": 36,
            "pairs of equal texts": 4,
            "pairs that are ties": 4,
        }
        assert done.lines == 4 * (5 + 2 + 1)
        read = read_preferences(SourceSettings(path=str(file)), Path())
        kept = [one for one in store.comparisons("train") if one.chosen.strip() and one.rejected.strip()]
        assert sorted(read, key=repr) == sorted(kept, key=repr)
        found = import_file(other, file)
        assert found.rankings == done.lines and found.ignored == ("confidence",)
        assert sorted(other.comparisons("train"), key=repr) == sorted(kept, key=repr)
        known = {(one.prompt_id, one.model, one.text): one.finished for one in store.responses()}
        assert all(one.finished == known[one.prompt_id, one.model, one.text] for one in other.responses())
        assert {one.purpose for one in other.answers()} == {"label", "adjudication"}
        assert {one.strength for one in other.answers()} == {3, None}
        import_comparisons(third, read)
        assert sorted(third.comparisons("train"), key=repr) == sorted(kept, key=repr)


def test_what_is_left_out_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_store(tmp_path) as store:
        fill(store)
        store.add_prompts([Prompt("one", (Message("user", "Hi"),))])
        store.add_responses([Response("only", "one", "Hello", "m")])
        store.add_rankings([Ranking("k", "one", "ann", {"only": 1}, ("only",), 0.0)])
    label.export_file(str(tmp_path), tmp_path / "c.jsonl")
    label.export_file(str(tmp_path), tmp_path / "r.jsonl", format="rankings")
    said = capsys.readouterr().out
    assert "left out: 36 pairs with an empty response" in said and "left out: 4 pairs of equal texts" in said
    assert "left out: 1 ranking of a single response" in said


def test_rankings_do_not_change_what_is_known_of_a_response(tmp_path: Path) -> None:
    """A file without the end of a response does not change that in the store, in either order."""
    cut = {"prompt": "stone", "response": "mud", "model": "m", "finished": False, "seed": 4}
    votes = {
        "prompt": "stone",
        "response_a": "mud",
        "response_b": "clay",
        "winner": "b",
        "model_a": "m",
        "model_b": "m",
    }
    ranked = {"prompt": "stone", "responses": ["mud", "clay"], "models": ["m", "m"]}
    file = tmp_path / "rows.jsonl"
    for rows in ([cut], [votes], [ranked], [cut, votes], [ranked, cut]):
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        with open_store(tmp_path) as store:
            import_file(store, file)
            assert {one.text: (one.finished, one.seed) for one in store.responses()}["mud"] == (False, 4)


ASKED = "name stone 0"
BARE = [
    {"prompt": ASKED, "responses": ["mud", "clay"]},
    {"prompt": ASKED, "response_a": "mud", "response_b": "clay", "winner": "b"},
    {"prompt": ASKED, "chosen": "mud", "rejected": "clay"},
    {"prompt": ASKED, "response": "mud"},
    {"prompt": ASKED},
    {"prompt": ASKED, "answers": [{"answer": "mud", "rank": 1}, {"answer": "clay", "rank": 2}]},
]


@pytest.mark.parametrize("row", BARE)
def test_rows_that_name_no_kind_and_no_split_leave_those_of_a_prompt(tmp_path: Path, row: dict) -> None:
    """A run has split its prompts by its own share, which is not in the file that people send back."""
    messages = (Message("user", ASKED),)
    file = tmp_path / "rows.jsonl"
    for number, split in enumerate(("train", "heldout")):
        with open_store(tmp_path / f"{number}.sqlite") as store:
            there = Prompt(prompt_id(messages), messages, "geology", split)
            store.add_prompts([there])
            file.write_text(json.dumps(row) + "\n")
            import_file(store, file)
            assert store.prompts() == [there]
            file.write_text(json.dumps({**row, "kind": "botany"}) + "\n")
            with pytest.raises(StoreError, match=r"rows\.jsonl:1: prompt .* with another kind"):
                import_file(store, file)


def test_gold_and_repeats_do_not_become_comparisons(tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    with open_store(tmp_path) as store, open_store(tmp_path / "two") as other:
        fill(store)
        export_file(store, tmp_path / "r.jsonl", "rankings")
        import_file(other, tmp_path / "r.jsonl")
        assert Counter(one.purpose for one in other.answers(counted=False)) == {
            "label": 8, "adjudication": 4, "gold": 4,
        }  # fmt: skip
        assert len(other.comparisons("train")) == len(store.comparisons("train"))


# In the columns of other tools


def test_trl_and_openrlhf_get_their_columns_and_no_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_store(tmp_path) as store:
        fill(store)
        plain = tmp_path / "plain.jsonl"
        export_file(store, plain, "comparisons")
    for tool, wanted in (("trl", {"prompt", "chosen", "rejected"}), ("openrlhf", {"chosen", "rejected"})):
        path = tmp_path / f"{tool}.jsonl"
        label.export_file(str(tmp_path), path, to=tool)
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert rows and all(row.keys() == wanted for row in rows)
        assert {"left out: 4 pairs that are ties", "left out: 8 margins that not every pair has"} <= {
            line.strip() for line in capsys.readouterr().out.splitlines()
        }
        ours, theirs = (read_preferences(SourceSettings(path=str(each)), tmp_path) for each in (plain, path))
        assert Counter((one.prompt.messages, one.chosen, one.rejected) for one in theirs) <= Counter(
            (one.prompt.messages, one.chosen, one.rejected) for one in ours
        )
    assert rows[0]["chosen"][-1]["role"] == "assistant" and rows[0]["chosen"][0]["role"] == "user"
    with pytest.raises(SettingsError, match="--format rankings: --to trl has a form of its own"):
        label.export_file(str(tmp_path), path, to="trl", format="rankings")


def test_argilla_records_come_back_as_the_rankings_they_were(tmp_path: Path) -> None:
    path = tmp_path / "argilla.jsonl"
    (tmp_path / "two").mkdir()
    with open_store(tmp_path) as store:
        store.add_prompts([Prompt("p", (Message("user", "name stone"),))])
        store.add_responses(Response(f"r{n}", "p", text, "m") for n, text in enumerate(("mud", "clay", "flint")))
        ranking = Ranking("k", "p", "ann", {"r0": 2, "r1": 1, "r2": 2}, ("r2", "r0", "r1"), 0.0)
        again = Ranking("l", "p", "ann", {"r0": 1, "r1": 2}, ("r0", "r1"), 1.0)
        store.add_answers([StoredAnswer(ranking), StoredAnswer(again, "repeat")])
    label.export_file(str(tmp_path), path, to="argilla")
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["p-ann", "p-ann-2"]
    assert len(read_preferences(SourceSettings(path=str(path)), tmp_path)) == 4  # three pairs, and one
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with open_store(tmp_path / "two") as other:
        import_file(other, path)
        texts = {one.id: one.text for one in other.responses()}
        (found,) = other.rankings()
        assert found.labeler == "ann"
        assert {texts[id_]: place for id_, place in found.places.items()} == {"mud": 2, "clay": 1, "flint": 2}


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_rankings_come_back_from_every_form_of_file(tmp_path: Path, suffix: str) -> None:
    with open_store(tmp_path / "a.sqlite") as store, open_store(tmp_path / "b.sqlite") as other:
        fill(store)
        export_file(store, tmp_path / f"rankings{suffix}", "rankings")
        import_file(other, tmp_path / f"rankings{suffix}", now=1.0, by="t")

        def said(of: Store) -> list[object]:
            texts = {response.id: (response.text, response.model) for response in of.responses()}
            return sorted(
                (
                    answer.ranking.labeler,
                    sorted((texts[id_], place) for id_, place in answer.ranking.places.items()),
                    sorted(
                        (name, texts[id_], value)
                        for name, each in answer.ratings.items()
                        for id_, value in each.items()
                    ),
                    answer.rationale,
                    sorted((texts[id_], text) for id_, text in answer.rewrites.items()),
                )
                for answer in of.answers(counted=False)
                if answer.status == "active"
            )

        assert said(other) == said(store) and any(row[3] for row in said(store))


def test_a_spreadsheet_runs_no_text_as_a_formula() -> None:
    rows = [
        {"note": "=HYPERLINK(1)", "margin": -1.5, "responses": ["=1", 'a,"b"'], "shown": True},
        {"note": None, "kind": "x"},
    ]
    lines = csv_text(rows).splitlines()
    assert lines[0] == "note,margin,responses,shown,kind" and lines[2] == ",,,,x"
    assert lines[1].startswith("'=HYPERLINK(1),-1.5,") and lines[1].endswith(",true,")
    (row, _) = csv.DictReader(io.StringIO(csv_text(rows)))
    assert json.loads(row["responses"]) == ["=1", 'a,"b"']


def test_a_rewritten_response_has_its_signs_and_no_marks_of_the_page(tmp_path: Path) -> None:
    original = "soft\u00adware\u200b ⟦U+FEFF⟧\ufeff"
    with open_store(tmp_path / "a.sqlite") as store:
        store.add_prompts([Prompt("p", (Message("user", "name stone"),))])
        store.add_responses([Response("r0", "p", original, "m"), Response("r1", "p", "mud", "m")])
        ranking = Ranking("k", "p", "ann", {"r0": 2, "r1": 1}, ("r0", "r1"), 0.0)
        edited = visible(original).replace("ware", "wares").replace("⟦U+200B⟧", "")
        store.add_answers([StoredAnswer(ranking, rewrites={"r0": edited})])
        (row,) = export_rows(store, "demonstrations")
    # Of the last two, one was written by the model: it stays what the page showed.
    assert row["messages"][-1]["content"] == "soft\u00adwares ⟦U+FEFF⟧⟦U+FEFF⟧"


@pytest.mark.parametrize("text", ["a\rb", "a\nb", "a\r\nb", 'a,"b"', "\n=1", "\uff1d1"])
def test_a_cell_is_one_cell_whatever_breaks_are_in_it(text: str) -> None:
    rows = list(csv.reader(io.StringIO(csv_text([{"note": text, "kind": "x"}]), newline="")))
    runs = text[0] in "\n\uff1d"
    assert rows == [["note", "kind"], [f"'{text}" if runs else text, "x"]]


@pytest.mark.parametrize("name", list(COLUMNS))
def test_a_table_without_rows_has_the_columns_of_one_with_rows(tmp_path: Path, name: str) -> None:
    with open_store(tmp_path / "full.sqlite") as store:
        fill(store)
    given = ("--to", name) if name in TOOLS else ("--format", name)
    open_store(tmp_path / "empty.sqlite").close()
    found = {}
    for kept in ("full", "empty"):
        for suffix in (".csv", ".parquet"):
            path = tmp_path / f"{kept}-{name}{suffix}"
            assert main(["label", "export", str(tmp_path / f"{kept}.sqlite"), str(path), *given]) == 0
            if suffix == ".parquet":
                found[kept, suffix] = pyarrow.parquet.read_schema(path).names
            else:
                found[kept, suffix] = next(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
    assert len({tuple(columns) for columns in found.values()}) == 1 and found["full", ".csv"] == list(COLUMNS[name])


def test_rewritten_responses_are_demonstrations(tmp_path: Path) -> None:
    with open_store(tmp_path / "a.sqlite") as store:
        fill(store)
        export_file(store, tmp_path / "rewritten.jsonl", "demonstrations")
    read = [item.record for item in stream_demonstrations(SourceSettings(path="rewritten.jsonl"), tmp_path, 0.0)]
    assert [one.response for one in read] == ["a stone\nof the river"] * 4
    assert [one.prompt.messages for one in read] == [(Message("user", f"name stone {n}"),) for n in range(4)]
