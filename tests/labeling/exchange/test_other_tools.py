"""Rankings as other tools and data sets write them: read, or refused by their columns; never passed over."""

import json
from pathlib import Path

import pytest

from triphase.errors import DataError
from triphase.labeling.exchange.importing import Imported, import_file
from triphase.store import Store, open_store

PROMPT = "name a stone"
TURNS = [{"role": "user", "content": PROMPT}]


def imported(store: Store, folder: Path, *rows: object) -> Imported:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return import_file(store, file)


def places_of(store: Store) -> list[dict[str, int]]:
    texts = {one.id: one.text for one in store.responses()}
    return [{texts[id_]: place for id_, place in one.places.items()} for one in store.rankings()]


def argilla_1(value: object, status: str = "submitted") -> dict:
    fields = {"instruction": PROMPT, "response-1": "river stone", "response-2": "mud"}
    responses = [{"user_id": "u1", "values": {"order": {"value": value}, "why": {"value": "so"}}, "status": status}]
    return {"id": "1", "fields": fields, "responses": responses, "metadata": {}}


FLAT = {"prompt": PROMPT, "response1": "river stone", "response2": "mud", "_server_id": "x", "status": "completed"}
ITEMS = [{"id": "i1", "title": "1", "body": "mud"}, {"id": "i2", "title": "2", "body": "river stone"}]


def label_studio(result: object, data: dict | None = None, **more: object) -> dict:
    annotation = {"completed_by": {"id": 3, "email": "ann@example.org"}, "lead_time": 12.5, "result": [result],
                  "created_at": "2026-01-31T12:00:00.000000Z", "was_cancelled": False, **more}  # fmt: skip
    return {"id": 1, "data": data or {"prompt": PROMPT, "items": ITEMS}, "annotations": [annotation], "predictions": []}


def ranker(order: object) -> dict:
    return {"from_name": "rank", "to_name": "results", "type": "ranker", "value": {"ranker": order}}


TWO = {"river stone": 1, "mud": 2}
KNOWN = {
    "UltraFeedback": (
        {"instruction": PROMPT, "source": "x", "completions": [
            {"model": "m1", "response": "mud", "overall_score": "9", "fine-grained_score": 2.25},
            {"model": "m2", "response": "river stone", "overall_score": "8", "fine-grained_score": 4.5},
            {"model": "m3", "response": "rust", "overall_score": "8", "fine-grained_score": 2.25},
            {"model": "m4", "response": "no idea", "overall_score": "N/A", "fine-grained_score": "N/A"},
        ]},
        {"river stone": 1, "mud": 2, "rust": 2},
    ),
    "overall scores": (
        {"instruction": "name", "input": "a stone", "completions": [
            {"response": "mud", "overall_score": 3.0}, {"response": "river stone", "overall_score": 7.5}]},
        TWO,
    ),
    "Nectar": (
        {"prompt": f"\n\nHuman: {PROMPT}\n\nAssistant: ", "turns": 1, "num_responses": 2, "answers": [
            {"answer": "mud", "model": "m2", "rank": 2.0}, {"answer": "river stone", "model": "m1", "rank": 1.0}]},
        TWO,
    ),
    "objects in responses": (
        {"prompt": PROMPT, "responses": [{"text": "mud", "rating": 1}, {"text": "river stone", "rating": 5}]}, TWO,
    ),
    "lists with ratings": (
        {"instruction": PROMPT, "generations": ["mud", "river stone", "rust"], "ratings": [1.0, 4.0, None]}, TWO,
    ),
    "lists with ranks": ({"prompt": PROMPT, "responses": ["mud", "river stone"], "rank": [2, 1]}, TWO),
    "lists as text": (
        {"prompt": PROMPT, "completions": '["mud", "river stone"]', "scores": "[0.1, 0.9]"}, TWO,
    ),
    "SHP": (
        {"post_id": "p", "domain": "d", "history": PROMPT, "human_ref_A": "mud", "human_ref_B": "river stone",
         "labels": 0, "score_A": 3, "score_B": 30}, TWO,
    ),
    "WebGPT": (
        {"question": {"dataset": "eli5", "id": "q", "full_text": PROMPT}, "answer_0": "mud", "answer_1": "river stone",
         "score_0": -0.5, "score_1": 0.5, "tokens_0": {"prefix": [1, 2]}}, TWO,
    ),
    "WebGPT tie": (
        {"question": PROMPT, "answer_0": "mud", "answer_1": "river stone", "score_0": 0.0, "score_1": 0.0},
        {"river stone": 1, "mud": 1},
    ),
    "HelpSteer2 preference": (
        {"prompt": PROMPT, "response_1": "river stone", "response_2": "mud", "preference_strength": -2,
         "split": "validation"}, TWO,
    ),
    "HelpSteer3": (
        {"context": TURNS, "response1": "mud", "response2": "river stone", "overall_preference": 3, "domain": "d"}, TWO,
    ),
    "PKU-SafeRLHF": (
        {"prompt": PROMPT, "response_0": "mud", "response_1": "river stone", "better_response_id": 1}, TWO,
    ),
    "Argilla 1": (argilla_1([{"rank": 2, "value": "response-2"}, {"rank": 1, "value": "response-1"}]), TWO),
    "Argilla 1, two lists": (argilla_1({"rank": [1, 2], "value": ["response-1", "response-2"]}), TWO),
    "Argilla 2": (
        {"status": "completed", "fields": {"prompt": PROMPT, "response_1": "river stone", "response_2": "mud"},
         "suggestions": {}, "responses": {"ranking": [{"value": ["response_1", "response_2"], "user_id": "u1"}]}}, TWO,
    ),
    "Argilla 2, flat": (
        FLAT | {"ranking.responses": [["response1", "response2"], ["response2", "response1"]],
                "ranking.responses.users": ["u1", "u2"], "ranking.responses.status": ["submitted", "draft"]}, TWO,
    ),
    "Argilla, a data set": (
        FLAT | {"preference": [{"user_id": "u1", "status": "submitted",
                                "value": '[{"rank": 1, "value": "response1"}, {"rank": 2, "value": "response2"}]'}]},
        TWO,
    ),
    "Label Studio": (label_studio(ranker({"rank": ["i2", "i1"]})), TWO),
    "Label Studio pair": (
        label_studio({"type": "pairwise", "to_name": "text1,text2", "value": {"selected": "right"}},
                     {"question": PROMPT, "text1": "mud", "text2": "river stone"}), TWO,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_shape_is_read(tmp_path: Path, name: str) -> None:
    row, expected = KNOWN[name]
    with open_store(tmp_path) as store:
        done = imported(store, tmp_path, row)
        assert (done.prompts, done.rankings) == (1, 1)
        assert imported(store, tmp_path, row).rankings == 0, "importing again adds nothing"
        assert places_of(store) == [expected]
        asked = store.prompts()[0]
        assert asked.text.split() == PROMPT.split()
        if "split" in row:
            assert asked.split == "heldout"


def test_who_and_when_come_along(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        imported(store, tmp_path, label_studio(ranker({"rank": ["i2", "i1"]})))
        (ranking,) = store.rankings()
        assert (ranking.labeler, ranking.seconds, ranking.submitted_at) == ("ann@example.org", 12.5, 1769860800.0)
        imported(store, tmp_path, {"prompt": "a road", "answers": [
            {"answer": "mud", "model": "m2", "rank": 2}, {"answer": "river", "model": "m1", "rank": 1}]})  # fmt: skip
        assert {one.model for one in store.responses()} >= {"m1", "m2"}


def test_single_ratings_become_a_ranking(tmp_path: Path) -> None:
    """HelpSteer: a row for each response; ratings may come in any order, and equal ones tie."""
    rows = [
        {"prompt": prompt, "response": text, "helpfulness": helpful, "correctness": 4, "verbosity": 2}
        for prompt, text, helpful in (
            (PROMPT, "mud", 1), ("name a road", "rust", 2), (PROMPT, "river stone", 4), (PROMPT, "pebble", 4),
        )
    ]  # fmt: skip
    with open_store(tmp_path) as store:
        done = imported(store, tmp_path, *rows)
        assert (done.responses, done.rankings) == (4, 1)
        assert places_of(store) == [{"mud": 2, "river stone": 1, "pebble": 1}]
        assert "1 prompt with one rated response, and no ranking" in done.notes
        assert done.ignored == ("correctness", "verbosity")
        assert imported(store, tmp_path, *rows).rankings == 0


@pytest.mark.parametrize(("column", "good", "bad"), [("rank", 1, 2), ("rating", 5, 1), ("label", True, False)])
def test_other_single_judgments(tmp_path: Path, column: str, good: object, bad: object) -> None:
    rows = [
        {"prompt": PROMPT, "completion": text, column: value} for text, value in (("mud", bad), ("river stone", good))
    ]
    with open_store(tmp_path) as store:
        assert imported(store, tmp_path, *rows).rankings == 1
        assert places_of(store) == [TWO]


def test_what_nobody_submitted_is_counted(tmp_path: Path) -> None:
    order = [{"rank": 1, "value": "response-1"}, {"rank": 2, "value": "response-2"}]
    canceled = label_studio(ranker({"rank": ["i2", "i1"]}), was_cancelled=True)
    with open_store(tmp_path) as store:
        done = imported(store, tmp_path, argilla_1(order, "draft"), canceled, argilla_1(order))
        assert done.rankings == 1 and done.notes == ("2 records without a submitted ranking left out",)


REFUSED = {
    "misspelled": ({"prompt": PROMPT, "respones": ["river stone", "mud"]}, "'respones' would not be read.*'responses'"),
    "an unknown list": ({"prompt": PROMPT, "variants": ["a river stone", "some mud"]}, "'variants' would not be read"),
    "an unknown list as text": ({"prompt": PROMPT, "variants": '["a river stone", "some mud"]'}, "'variants'"),
    "an unknown list of objects": ({"prompt": PROMPT, "x": [{"t": "a"}, {"t": "b"}]}, "'x' would not be read"),
    "a list in an object": ({"prompt": PROMPT, "x": {"t": ["a stone", "some mud"]}}, "'x' would not be read"),
    "flat answers": ({"prompt": PROMPT, "answer_a": "river stone", "answer_b": "mud", "winner": "a"}, "answer_a"),
    "chosen_response": (
        {"instruction": PROMPT, "chosen_response": "a", "rejected_response": "b"}, "would not be read",
    ),
    "a preference": ({"prompt": PROMPT, "preference": "first"}, "'preference' would not be read"),
    "a vote of a response": ({"prompt": PROMPT, "response": "a", "chosn": "b"}, "'chosn'.*did you mean 'chosen'"),
    "answers without an order": (
        {"prompt": PROMPT, "completions": [{"response": "a"}, {"response": "b"}]}, "answers without an order.*rating",
    ),
    "answers without texts": (
        {"prompt": PROMPT, "answers": [{"answer": "a", "rank": 1}, {"reply": "b", "rank": 2}]}, r"answers\[1\] has no",
    ),
    "a rank of a half": (
        {"prompt": PROMPT, "answers": [{"answer": "a", "rank": 1.5}, {"answer": "b", "rank": 2}]},
        r"answers\[0\]\.rank must be a whole number",
    ),
    "ratings of other length": (
        {"prompt": PROMPT, "responses": ["a", "b"], "ratings": [1]}, "ratings must be a list of 2",
    ),
    "no prompt": ({"answers": [{"answer": "a", "rank": 1}, {"answer": "b", "rank": 2}], "x": "1", "y": "2"},
                  "which column is the prompt"),
    "another question": (argilla_1([{"rank": 1, "value": "A"}, {"rank": 2, "value": "B"}]), "the names of the fields"),
    "several buckets": (label_studio(ranker({"good": ["i2"], "bad": ["i1"]})), "a ranker with 2 buckets"),
    "unknown items": (label_studio(ranker({"rank": ["i2", "i9"]})), "no column of data holds the ranked items"),
    "no ranking": (label_studio({"type": "choices", "value": {"choices": ["a"]}}), "has no ranking.*found choices"),
    "JSON-MIN": ({"prompt": PROMPT, "annotation_id": 1, "lead_time": 2.0, "pw": [{"selected": "left"}]}, "as JSON"),
    "a label of SHP": ({"history": PROMPT, "human_ref_A": "a", "human_ref_B": "b", "labels": 2}, "labels must be"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_an_unknown_shape_is_refused_by_its_columns(tmp_path: Path, name: str) -> None:
    row, message = REFUSED[name]
    with open_store(tmp_path) as store:
        with pytest.raises(DataError, match=message) as refused:
            imported(store, tmp_path, {"prompt": "Hi", "responses": ["a", "b"]}, row)
        assert "rows.jsonl:2: " in str(refused.value)
        assert store.prompts() == []


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": PROMPT, "source": "x", "category": "geology", "tags": ["stone", "river"], "num_responses": 3},
        {"prompt": PROMPT, "metadata": {"language": "en", "topics": ["a", "b"]}, "prompt_tokens": 5},
        {"messages": [*TURNS, {"role": "assistant", "content": "mud"}]},
        {"instruction": PROMPT, "input": "of a river"},
    ],
)
def test_bare_prompts_stay_prompts(tmp_path: Path, row: dict) -> None:
    with open_store(tmp_path) as store:
        assert imported(store, tmp_path, row).prompts == 1
        assert set(imported(store, tmp_path, row).ignored) == row.keys() - {
            "prompt",
            "messages",
            "instruction",
            "input",
        }


@pytest.mark.parametrize(("given", "strength"), [(-2, 2), (3, 3), (0, None)])
def test_a_strength_is_no_margin_that_the_loss_would_ask_for(tmp_path: Path, given: int, strength: int | None) -> None:
    row = {"prompt": PROMPT, "response_1": "river stone", "response_2": "mud", "preference_strength": given}
    with open_store(tmp_path) as store:
        imported(store, tmp_path, row)
        (answer,) = store.answers()
        assert (answer.strength, answer.margin) == (strength, None)
