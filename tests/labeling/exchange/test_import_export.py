"""Files in and out: the formats, clear refusals, and that import after export gives the same store."""

import json
from pathlib import Path

import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.labeling.crowd import PLAIN, fill

from triphase.errors import DataError, StoreError
from triphase.labeling.exchange.exporting import export_file, export_rows
from triphase.labeling.exchange.importing import import_comparisons, import_file
from triphase.labeling.work import campaigns, item_plan
from triphase.labeling.work.campaign_plan import missing
from triphase.labeling.work.campaigns import CampaignError
from triphase.records.reading import read_preferences
from triphase.records.types import Comparison, Message, Prompt, Ranking, Response
from triphase.settings.data import SourceSettings
from triphase.store import Store, open_store
from triphase.store.answers import StoredAnswer
from triphase.store.side_tables import insert_side_rows


def written(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def places_of(store: Store) -> list[dict[str, int]]:
    texts = {one.id: one.text for one in store.responses()}
    return [{texts[id_]: place for id_, place in one.places.items()} for one in store.rankings()]


HH = {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello!", "rejected": "\n\nHuman: Hi\n\nAssistant: Go away."}
EXPLICIT = {"prompt": "Hi", "chosen": "Hello!", "rejected": "Go away.", "margin": 2.0}
IMPLICIT = {
    "chosen": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}],
    "rejected": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Go away."}],
}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (HH, {"Hello!": 1, "Go away.": 2}),
        (EXPLICIT, {"Hello!": 1, "Go away.": 2}),
        (IMPLICIT, {"Hello!": 1, "Go away.": 2}),
        (
            {"prompt": "Hi", "responses": ["Hello!", "Hm", "Go away."], "labeler": "ann"},
            {"Hello!": 1, "Hm": 2, "Go away.": 3},
        ),
        ({"prompt": "Hi", "responses": ["a", "b", "c"], "places": [2, 1, None]}, {"a": 2, "b": 1}),
        ({"prompt": "Hi", "responses": ["a", "b"], "places": [1, 1]}, {"a": 1, "b": 1}),
        ({"prompt": "Hi", "response_a": "a", "response_b": "b", "winner": "b"}, {"a": 2, "b": 1}),
        ({"prompt": "Hi", "response_a": "a", "response_b": "b", "winner": "tie"}, {"a": 1, "b": 1}),
    ],
)
def test_formats(tmp_path: Path, row: dict, expected: dict[str, int]) -> None:
    with open_store(tmp_path) as store:
        for new in (1, 0):
            done = import_file(store, written(tmp_path / "file.jsonl", row))
            assert done.rankings == new, "importing again adds nothing"
        assert places_of(store) == [expected]
        assert store.prompts()[0].messages == (Message("user", "Hi"),)


def test_what_a_row_has_besides_its_prompt_is_not_passed_over(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    with open_store(tmp_path) as store:
        rows = [{"messages": turns}, {"messages": turns[:1]}]
        (note,) = import_file(store, written(tmp_path / "c.jsonl", *rows)).notes
        assert note == (
            "1 conversation with an answer at the end, which is not imported; to have it ranked "
            "write prompt and response"
        )
        for row, empty in (
            ({"chosen": "", "rejected": "a"}, "chosen"),
            ({"chosen": "a", "rejected": None}, "rejected"),
        ):
            with pytest.raises(DataError, match=f"d.jsonl:1: {empty} is empty"):
                import_file(store, written(tmp_path / "d.jsonl", {"prompt": "Hi", **row}))


def test_prompts_and_responses(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        assert import_file(store, written(tmp_path / "p.jsonl", {"prompt": "Hi"}, {"prompt": "Ho"})).prompts == 2
        answers = [{"prompt": "Hi", "response": text, "model": "m"} for text in ("a", "b", "a")]
        assert import_file(store, written(tmp_path / "r.jsonl", *answers)).responses == 3
        assert import_file(store, written(tmp_path / "r.jsonl", *answers)).responses == 0
        assert len(store.prompts()) == 2 and [one.text for one in store.responses()] == ["a", "b", "a"]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "chosen": "a", "rejected": "b"},
        {"prompt": "Hi", "responses": ["a", "b"]},
        {"prompt": "Hi", "response_a": "a", "response_b": "b", "winner": "a"},
    ],
)
def test_answers_of_main_are_of_the_main_work_and_imported_campaigns_can_be_named(tmp_path: Path, row: dict) -> None:
    given = [{**row, "prompt": name, "campaign": name} for name in ("main", "style")]
    with open_store(tmp_path) as store:
        import_file(store, written(tmp_path / "a.jsonl", *given))
        assert [one.campaign for one in store.answers()] == ["", "style"]
        with store.reading() as connection:
            assert campaigns.require_known(connection, "main") == "" and missing(connection, ["main", "style"]) == []
            assert campaigns.require_known(connection, "style") == "style"
            with pytest.raises(CampaignError, match=r"no campaign 'typo'; there are: main, style$"):
                campaigns.require_known(connection, "typo")
        lines = list(export_rows(store, "store"))
    said = [{**line, "campaign": "main"} if line["type"] == "ranking" else line for line in lines]
    with open_store(tmp_path / "again.sqlite") as store:
        import_file(store, written(tmp_path / "s.jsonl", *said))
        assert [one.campaign for one in store.answers()] == ["", ""]


def test_gold_rows(tmp_path: Path) -> None:
    row = {"prompt": "Hi", "responses": ["a", "b"], "gold": True}
    with open_store(tmp_path) as store:
        import_file(store, written(tmp_path / "g.jsonl", row))
        import_file(store, written(tmp_path / "g.jsonl", row))
        assert store.rankings() == []
        (gold,) = [line for line in export_rows(store, "store") if line["type"] == "gold"]
        assert sorted(gold["places"].values()) == [1, 2]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"promt": "Hi", "chosn": "x"}, r"2: the columns .* match no known format; did you mean 'chosen' by 'chosn'"),
        ({"prompt": "Hi", "responses": ["a"]}, "bad.jsonl:2: responses must be a list of at least two"),
        ({"prompt": "Hi", "responses": ["a", "a"]}, "bad.jsonl:2: the response 'a' is listed twice"),
        ({"prompt": "Hi", "responses": ["a", "b"], "places": [1]}, "places must be a list of 2"),
        ({"prompt": "Hi", "responses": ["a", "b"], "places": [0, 1]}, r"places\[0\] must be a whole number from 1"),
        ({"prompt": "Hi", "responses": ["a", "b"], "places": [None, None]}, "no response is ranked"),
        ({"prompt": "Hi", "responses": ["a", ""]}, r"responses\[1\] is empty"),
        ({"prompt": "Hi", "responses": ["a", "b"], "models": ["m"]}, "models must be a list of 2"),
        ({"prompt": "Hi", "response_a": "a", "response_b": "b", "winner": "c"}, "winner is 'c'; write a, b or tie"),
        ({"prompt": "Hi", "responses": ["a", "b"], "seconds": -3}, "seconds must be a number"),
        ({"prompt": "Hi", "responses": ["a", "b"], "labels": [0, 1]}, "labels is a list of 2 numbers, one for each"),
        ({"prompt": "Hi", "responses": ["a", "b"], "best": 1}, "best is 1; if that says which response is the best"),
        ({"prompt": "Hi", "responses": ["a", "b"], "split": "third"}, "split is 'third'"),
        ({"prompt": "Hi", "response": "a", "finished": "yes"}, "finished must be true or false"),
        ({"responses": ["a", "b"]}, "missing column: prompt"),
        ({"type": "ranking", "id": "k"}, "not a ranking of the store format"),
        ({"type": "banana"}, "type is 'banana'"),
        ({"type": "campaign", "name": "main", "task": "ab", "state": "active", "share": 1, "overlap": 1, "models": "[]",
          "split": "", "kind": "", "most": 0, "created_by": "lea", "created_at": 0.0}, "name is 'main', which is the"),
        ({"type": "flag", "prompt_id": "p", "response_id": None, "labeler": "ann", "reason": "other", "note": "",
          "created_at": 0.0, "resolution": None, "resolved_by": "lea", "resolved_at": 1.0}, "belong together"),
        ({"type": "decision", "prompt_id": "p", "ranking_id": None, "decided_by": "lea", "decided_at": 1.0,
          "decision": "ranked", "note": ""}, "ranked needs a ranking_id, and one of kind stands"),
        ({"type": "score", "response_id": "zz", "scorer": "base", "score": 1.0}, "'zz', which is not in the store"),
        ({"type": "response", "id": "r", "prompt_id": "zz", "text": "a", "model": "m"}, "which is not in the store"),
        ({"type": "ranking", "id": "k", "prompt_id": "p", "labeler": "ann", "places": {"zz": 1}, "order_shown": [],
          "submitted_at": 0.0}, "the prompt has no responses"),
    ],
)  # fmt: skip
def test_bad_rows_name_line_and_remedy_and_nothing_is_kept(tmp_path: Path, row: dict, message: str) -> None:
    good = {"prompt": "Good", "responses": ["a", "b"]}
    with open_store(tmp_path) as store:
        with pytest.raises((DataError, StoreError), match=message):
            import_file(store, written(tmp_path / "bad.jsonl", good, row))
        assert store.prompts() == []


def test_formats_of_preferences_do_not_mix(tmp_path: Path) -> None:
    with open_store(tmp_path) as store, pytest.raises(DataError, match="several formats"):
        import_file(store, written(tmp_path / "mix.jsonl", EXPLICIT, {"prompt": "Hi", "responses": ["a", "b"]}))


def test_columns_that_are_not_read_are_named(tmp_path: Path) -> None:
    row = {"prompt": "Hi", "responses": ["a", "b"], "color": "red"}
    with open_store(tmp_path) as store:
        assert import_file(store, written(tmp_path / "f.jsonl", row)).ignored == ("color",)


@pytest.mark.parametrize("row", [{"responses": ["a", "b"]}, {"chosen": "a", "rejected": "b"}, {}])
def test_usual_names_of_the_splits_count_as_ours(tmp_path: Path, row: dict) -> None:
    rows = [{"prompt": f"Hi {name}", **row, "split": name} for name in ("train", "test", "heldout")]
    with open_store(tmp_path) as store:
        (note,) = import_file(store, written(tmp_path / "f.jsonl", *rows)).notes
        assert note.startswith("the split 'test' counts as heldout (") and note.endswith("f.jsonl:2)")
        assert sorted(prompt.split for prompt in store.prompts()) == ["heldout", "heldout", "train"]


def test_repeated_votes_stay_apart(tmp_path: Path) -> None:
    comparison = Comparison(Prompt("p", (Message("user", "Hi"),)), "a", "b")
    with open_store(tmp_path) as store:
        assert import_comparisons(store, [comparison, comparison]).rankings == 2
        assert import_comparisons(store, [comparison, comparison]).rankings == 0
        assert store.comparisons("train") == [Comparison(comparison.prompt, "a", "b", None, "imported", True, True)] * 2


def test_exported_comparisons_carry_soft_labels_and_are_read_by_trl_columns(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        fill(store, 1, 2)
        for name, first in (("ann", 1), ("bob", 1), ("cy", 2)):
            places = {"p00000-0": first, "p00000-1": 3 - first}
            store.add_rankings([Ranking(name, "p00000", name, places, (), 0.0)])
        assert export_file(store, tmp_path / "c.jsonl", "comparisons").lines == 3
        assert export_file(store, tmp_path / "c.parquet", "comparisons").lines == 3
        rows = pyarrow.parquet.read_table(tmp_path / "c.parquet").to_pylist()
        assert [(row["labeler"], round(row["confidence"], 3)) for row in rows] == [
            ("ann", 0.667),
            ("bob", 0.667),
            ("cy", 0.333),
        ]
        assert rows[0]["prompt"] == [{"content": "Tell a colleague about thing 0.", "role": "user"}]
        for name in ("c.jsonl", "c.parquet"):
            read = read_preferences(SourceSettings(path=str(tmp_path / name)), Path())
            assert read == store.comparisons("train")


def test_exported_rankings_can_be_imported(tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    with open_store(tmp_path) as store, open_store(tmp_path / "two") as other:
        fill(store, 2, 3)
        for n in range(2):
            places = {f"p0000{n}-0": 2, f"p0000{n}-1": 1}
            store.add_rankings(
                [Ranking(f"k{n}", f"p0000{n}", "ann", places, tuple(f"p0000{n}-{k}" for k in (2, 1, 0)), 9.0, 5.0)]
            )
        texts = {response.id: response.text for response in store.responses()}
        for suffix in ("jsonl", "parquet"):
            export_file(store, tmp_path / f"r.{suffix}", "rankings")
            import_file(other, tmp_path / f"r.{suffix}")
        for row in map(json.loads, (tmp_path / "r.jsonl").read_text(encoding="utf-8").splitlines()):
            assert [texts[id_] for id_ in row["response_ids"]] == row["responses"]
        assert places_of(other) == places_of(store)
        assert other.comparisons("train") == store.comparisons("train")


def test_exports_are_refused_clearly(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        fill(store, 1)
        with pytest.raises(DataError, match=r"the suffix '.xml' is not supported"):
            export_file(store, tmp_path / "c.xml", "comparisons")
        with pytest.raises(DataError, match=r"export it as .jsonl"):
            export_file(store, tmp_path / "c.parquet", "store")
        with pytest.raises(DataError, match="'all' is not an export"):
            export_file(store, tmp_path / "c.jsonl", "all")


TEXT = st.text(min_size=1, max_size=12).filter(lambda text: "\0" not in text and text.strip() != "")
TEXT = TEXT.filter(lambda text: text == text.encode("utf-8", "replace").decode())


@st.composite
def contents(
    draw: st.DrawFn,
) -> tuple[list[Prompt], list[Response], list[StoredAnswer], list[tuple[str, dict[str, int]]]]:
    prompts, responses, answers, gold = [], [], [], []
    for n in range(draw(st.integers(1, 4))):
        messages = tuple(Message(role, draw(TEXT)) for role in draw(st.sampled_from([("user",), ("system", "user")])))
        prompts.append(
            Prompt(
                f"p{n}", messages, draw(st.sampled_from(["", "domain"])), draw(st.sampled_from(["train", "heldout"]))
            )
        )
        count = draw(st.integers(0, 4))
        ids = [f"p{n}r{k}" for k in range(count)]
        responses += [
            Response(
                id_,
                f"p{n}",
                draw(st.text(max_size=9).filter(lambda t: "\0" not in t)),
                "m",
                draw(st.booleans()),
                draw(st.none() | st.integers(0, 9)),
            )
            for id_ in ids
        ]
        for k in range(draw(st.integers(0, 3)) if count else 0):
            places = draw(st.dictionaries(st.sampled_from(ids), st.integers(1, 9), min_size=1))
            ranking = Ranking(
                f"p{n}k{k}", f"p{n}", draw(st.sampled_from(["ann", "bob"])), places, tuple(draw(st.permutations(ids))),
                draw(st.floats(0, 1e9)), draw(st.none() | st.floats(0, 1e4)), draw(st.just("") | TEXT),
            )  # fmt: skip
            answers.append(
                StoredAnswer(
                    ranking, draw(st.sampled_from(["label", "gold", "repeat", "adjudication"])),
                    draw(st.sampled_from(["active", "withdrawn", "superseded", "late"])),
                    None,
                    draw(st.none() | st.integers(1, 3)),
                    draw(st.none() | st.integers(1, 4)), draw(st.none() | st.floats(0, 9)),
                    draw(st.dictionaries(st.sampled_from(ids), st.integers(1, 7))),
                )
            )  # fmt: skip
        if count > 1 and draw(st.booleans()):
            gold.append((f"p{n}", {ids[0]: 1, ids[1]: 2}))
    return prompts, responses, answers, gold


def companions(
    prompts: list[Prompt], responses: list[Response], answers: list[StoredAnswer]
) -> list[tuple[str, dict[str, object]]]:
    """Guidelines, scores, flags and decisions about what is there."""
    rows: list[tuple[str, dict[str, object]]] = [
        ("guideline", {"version": 1, "text": "# Be kind", "created_by": "lea", "created_at": 1.0, "campaign": "style"}),
        (
            "campaign",
            {"name": "style", "task": "ab", "state": "paused", "share": 7, "overlap": 2, "models": "[]", "split": "",
             "kind": "", "most": 0, "created_by": "lea", "created_at": 1.0},
        ),
    ]  # fmt: skip
    rows += [("score", {"response_id": one.id, "scorer": "a", "score": 0.5}) for one in responses]
    unsettled = {"resolution": None, "resolved_by": None, "resolved_at": None}
    rows += [
        ("flag", {"prompt_id": one.id, "response_id": None, "labeler": "cy", "reason": "unsafe", "note": "",
                  "created_at": 2.0, **unsettled}) for one in prompts
    ]  # fmt: skip
    rows += [
        ("decision", {"prompt_id": one.ranking.prompt_id, "ranking_id": one.ranking.id, "decided_by": "lea",
                      "decided_at": float(number), "decision": "ranked", "note": "so", "campaign": one.campaign})
        for number, one in enumerate(answers) if one.purpose == "adjudication"
    ]  # fmt: skip
    return rows


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(contents())
def test_import_after_export_gives_the_same_store(tmp_path_factory: pytest.TempPathFactory, made: tuple) -> None:
    prompts, responses, answers, gold = made
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    with open_store(one) as store, open_store(two) as other:
        store.add_prompts(prompts)
        store.add_responses(responses)
        store.add_answers(answers)
        with store.transaction() as connection:
            for prompt_id, places in gold:
                item_plan.add_gold(connection, prompt_id, places, now=0.0, by="t")
            insert_side_rows(connection, companions(prompts, responses, answers))
        export_file(store, one / "all.jsonl", "store")
        import_file(other, one / "all.jsonl")
        assert other.prompts() == store.prompts() and other.responses() == store.responses()
        assert other.answers(counted=False) == store.answers(counted=False)
        assert other.ranked_groups("train") == store.ranked_groups("train")
        assert other.scores() == store.scores()
        everything = list(export_rows(store, "store"))
        assert list(export_rows(other, "store")) == everything
        import_file(other, one / "all.jsonl")
        assert list(export_rows(other, "store")) == everything, "importing again adds nothing"


def test_a_store_row_that_contradicts_is_refused(tmp_path: Path) -> None:
    rule = {"type": "guideline", "version": 1, "text": "Be kind", "created_by": "lea", "created_at": 0.0}
    with open_store(tmp_path) as store:
        import_file(store, written(tmp_path / "a.jsonl", rule))
        with pytest.raises(
            StoreError, match=r"b\.jsonl:1: the guideline 1 is already in the store with different content"
        ):
            import_file(store, written(tmp_path / "b.jsonl", {**rule, "text": "Be short"}))
        with pytest.raises(DataError, match=r"c\.jsonl:1: not a guideline .* the column 'color' is unknown"):
            import_file(store, written(tmp_path / "c.jsonl", {**rule, "color": "red"}))
        with pytest.raises(DataError, match=r"d\.jsonl:1: not a guideline .* the column 'text' is missing"):
            import_file(store, written(tmp_path / "d.jsonl", {k: v for k, v in rule.items() if k != "text"}))


def test_items_follow_an_import(tmp_path: Path) -> None:
    answers = [{"prompt": "Hi", "response": text, "model": "m"} for text in ("a", "b", "a")]
    with open_store(tmp_path) as store:
        import_file(store, written(tmp_path / "r.jsonl", *answers, {"prompt": "Ho", "response": "only one"}))
        assert item_plan.make_items(store, PLAIN, seed=0, now=0.0) == 1, "two different texts to one prompt"
