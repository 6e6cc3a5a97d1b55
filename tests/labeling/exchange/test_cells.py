"""Cells of CSV files and of other files that hold text: read as what they are, or refused with file and line."""

import datetime
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from triphase.errors import DataError
from triphase.labeling.exchange.exporting import export_file
from triphase.labeling.exchange.importing import import_file
from triphase.records import spreadsheet_formulas
from triphase.records.reading import stream_preferences
from triphase.records.types import Message, Prompt, Ranking, Response
from triphase.settings.data import SourceSettings
from triphase.store import Store, open_store
from triphase.store.answers import StoredAnswer


def csv(folder: Path, *lines: str) -> Path:
    file = folder / "rows.csv"
    file.write_text("\n".join(lines) + "\n")
    return file


def places_of(store: Store) -> list[dict[str, int]]:
    texts = {one.id: one.text for one in store.responses()}
    return [{texts[id_]: place for id_, place in one.places.items()} for one in store.rankings()]


def test_votes(tmp_path: Path) -> None:
    file = csv(
        tmp_path,
        "prompt,response_a,response_b,winner,labeler,seconds,margin,note,submitted_at,strength,split",
        "a stone,river,mud,model_a,ann,12.5,1,clear,2026-01-31T12:00:00Z,3,heldout",
        "a road,rust,river,B,ann,8,2.5,,2026-01-31,,",
        "a tree,tree,wind,tie,7,,,,1769860800.5,,",
    )
    with open_store(tmp_path) as store:
        assert import_file(store, file).rankings == 3
        one, two, three = store.answers()
        assert (one.ranking.seconds, one.margin, one.ranking.note, one.strength) == (12.5, 1.0, "clear", 3)
        assert (one.ranking.submitted_at, two.ranking.submitted_at) == (1769860800.0, 1769817600.0)
        assert (two.margin, two.ranking.note, two.ranking.seconds, two.strength) == (2.5, "", 8.0, None)
        assert (three.ranking.labeler, three.margin, three.ranking.submitted_at) == ("7", None, 1769860800.5)
        assert store.prompts()[0].split == "heldout"


def test_responses(tmp_path: Path) -> None:
    file = csv(tmp_path, "prompt,response,model,finished,seed", "a stone,river,m1,True,1", "a stone,mud,m2,false,",
               "a stone,clay,m3,0,2.0", "a stone,rust,m4,,")  # fmt: skip
    with open_store(tmp_path) as store:
        assert import_file(store, file).responses == 4
        assert [(one.finished, one.seed) for one in store.responses()] == [
            (True, 1), (False, None), (False, 2), (True, None),
        ]  # fmt: skip


def test_an_answer_that_is_a_list_in_text_stays_text(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"prompt": "two stones as JSON", "response": "[\\"mud\\", \\"river stone\\"]"}\n')
    with open_store(tmp_path) as store:
        assert import_file(store, file).responses == 1
        assert store.responses()[0].text == '["mud", "river stone"]'


@pytest.mark.parametrize("places", ["[2, 1]", "[2, '1']", "[2.0, 1.0]", '["2", "1"]'])
def test_lists_are_written_as_json(tmp_path: Path, places: str) -> None:
    quoted = places.replace('"', '""')
    file = csv(tmp_path, "prompt,responses,places,models,gold", f"""a stone,"['mud', ""river""]","{quoted}",,FALSE""")
    with open_store(tmp_path) as store:
        assert import_file(store, file).rankings == 1
        assert places_of(store) == [{"mud": 2, "river": 1}]


@pytest.mark.parametrize(("gold", "known"), [("true", 1), ("True", 1), ("1", 1), ("false", 0), ("0", 0), ("", 0)])
def test_gold_is_what_it_says(tmp_path: Path, gold: str, known: int) -> None:
    file = csv(tmp_path, "prompt,responses,gold", f'a stone,"[""mud"", ""river""]",{gold}')
    with open_store(tmp_path) as store:
        done = import_file(store, file)
        assert (done.gold, done.rankings) == (known, 1 - known)
        assert import_file(store, file).gold == 0, "importing again adds nothing"


@pytest.mark.parametrize(
    ("winner", "places"),
    [("1", (1, 2)), ("2", (2, 1)), ("1.0", (1, 2)), ("a", (1, 2)), ("B", (2, 1)), ("model_b", (2, 1)), ("gpt", (1, 2)),
     ("both_good", (1, 1)), ("tie (bothbad)", (1, 1)), ("draw", (1, 1)), ("0", None), ("3", None), ("", None)],
)  # fmt: skip
def test_one_numbering(tmp_path: Path, winner: str, places: tuple[int, int] | None) -> None:
    """Numbers count from 1, as places do."""
    file = csv(tmp_path, "prompt,response_a,response_b,winner,model_a,model_b", f"stone,mud,river,{winner},gpt,own")
    with open_store(tmp_path) as store:
        if places is None:
            with pytest.raises(DataError, match=r"rows\.csv:2: winner is .*; write a, b or tie, or 1 or 2"):
                import_file(store, file)
        else:
            import_file(store, file)
            assert places_of(store) == [dict(zip(("mud", "river"), places, strict=True))]


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("margin", "-1", "margin must be a number of at least 0"), ("margin", "much", "margin must be a number"),
        ("margin", "inf", "margin must be a number"), ("margin", "1_0", "margin must be a number"),
        ("seconds", "nan", "seconds must be a number"), ("submitted_at", "yesterday", "or a date like 2026-01-31T12"),
        ("submitted_at", "1769860800000", "is it in milliseconds"), ("submitted_at", "1969-01-01", "after 1970"),
        ("strength", "2.5", "strength must be a whole number"), ("strength", "5", "from 1 to 4"),
        ("guideline_version", "0", "guideline_version must be"), ("purpose", "fun", "purpose is 'fun'; write label or"),
        ("labeler", "x" * 81, "labeler has 81 characters; use at most 80"), ("kind", "k" * 81, "kind has 81"),
        ("prompt_id", "p" * 201, "use at most 200"), ("labeler", "a\x07", r"control character U\+0007"),
    ],
)  # fmt: skip
def test_what_a_cell_cannot_be(tmp_path: Path, column: str, value: str, message: str) -> None:
    file = csv(tmp_path, f"prompt,response_a,response_b,winner,{column}", f"stone,mud,river,a,{value}")
    with open_store(tmp_path) as store:
        with pytest.raises(DataError, match=rf"rows\.csv:2: .*{message}"):
            import_file(store, file)
        assert store.prompts() == []


@pytest.mark.parametrize("seed", ["1180591620717411303424", "1.5", "x", "true"])
def test_seeds_that_no_database_keeps(tmp_path: Path, seed: str) -> None:
    with open_store(tmp_path) as store, pytest.raises(DataError, match=r"rows\.csv:2: seed must be a whole number"):
        import_file(store, csv(tmp_path, "prompt,response,seed", f"stone,mud,{seed}"))


def test_parquet_dates(tmp_path: Path) -> None:
    at = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC)
    rows = [
        {"prompt": "stone", "responses": ["mud", "river"], "submitted_at": at, "places": [2.0, 1.0], "labeler": 7.0}
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "r.parquet")
    with open_store(tmp_path) as store:
        import_file(store, tmp_path / "r.parquet")
        assert store.rankings()[0].labeler == "7"  # as pandas writes 7 if another cell is empty
        assert store.rankings()[0].submitted_at == 1769860800.0 and places_of(store) == [{"mud": 2, "river": 1}]


@pytest.mark.parametrize(
    "text", ["=1+1", "+x", "'=1", "''-x", "'quoted'", "'", "\t", "@a", "＝1", "plain", "-", "", "a'=b"]
)
def test_what_stops_a_formula_comes_off_again(text: str) -> None:
    cell = spreadsheet_formulas.protected(text)
    assert spreadsheet_formulas.unprotected(cell) == text
    assert not cell.startswith(("=", "+", "-", "@", "＝", "\t"))


def test_names_and_notes_that_look_like_formulas_come_back_as_they_were(tmp_path: Path) -> None:
    prompt = Prompt("=p", (Message("user", "=a?"),), "+kind")
    answer = StoredAnswer(
        Ranking("r", "=p", "-ann", {"=p-0": 1, "=p-1": 2}, ("=p-0", "=p-1"), 1.0, None, "'=note"),
        rationale="@why", campaign="style",
    )  # fmt: skip
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with open_store(tmp_path / "one") as store, open_store(tmp_path / "two") as other:
        store.add_prompts([prompt])
        store.add_responses(Response(f"=p-{n}", "=p", f"={n}", "=model") for n in range(2))
        store.add_answers([answer])
        export_file(store, tmp_path / "rankings.csv", "rankings")
        import_file(other, tmp_path / "rankings.csv")
        (back,) = other.answers()
        assert other.prompts() == [prompt] and other.responses() == store.responses()
        assert (back.ranking.labeler, back.ranking.note, back.rationale) == ("-ann", "'=note", "@why")
        assert back.campaign == "style"
        export_file(store, tmp_path / "comparisons.csv", "comparisons")
        (compared,) = stream_preferences(SourceSettings(path=str(tmp_path / "comparisons.csv")), tmp_path, 0.0)
        assert (compared.record.labeler, compared.record.prompt.kind) == ("-ann", "+kind")
