"""Rows of the formats ``rankings``, ``votes`` and ``responses`` to records, one row at a time."""

from typing import Any

from triphase.labeling.exchange.formats import COLUMNS, IMPORTED, Records, answer_column, rating_column
from triphase.records import cells, columns
from triphase.records.cells import absent
from triphase.records.conversations import response_of
from triphase.records.identity import prompt_id, split_of
from triphase.records.lines import Row
from triphase.records.ranked_rows import require_no_order
from triphase.records.splits import split_called
from triphase.records.types import Prompt, Ranking, Response
from triphase.store.answers import Purpose, StoredAnswer
from triphase.store.identity import ranking_id, response_id

PURPOSES: tuple[Purpose, ...] = ("label", "gold", "repeat", "adjudication")


def ranked_list(row: Row, heldout_share: float, seen: dict[object, int]) -> Records:
    """A row of ``rankings``."""
    texts = cells.parsed(row.values["responses"])
    if not isinstance(texts, list) or len(texts) < 2:
        row.refuse("responses must be a list of at least two texts")
    prompt = asked(row, heldout_share)
    made, assumed = _responses(row, prompt, texts)
    given = row.values.get("places")
    if absent(given):
        require_no_order(row, texts, COLUMNS["rankings"])
    places = list(range(1, len(texts) + 1)) if absent(given) else cells.listed(row, "places", given, len(texts))
    records = _ranked(row, prompt, made, places, seen)
    records.assumed = assumed
    return records


def vote(row: Row, heldout_share: float, seen: dict[object, int]) -> Records:
    """A row of ``votes``."""
    prompt = asked(row, heldout_share)
    models = [_word(row, f"model_{side}", IMPORTED, cells.LONGEST_MODEL) for side in "ab"]
    texts = [response_of(row, f"response_{side}", row.values[f"response_{side}"]) for side in "ab"]
    made = [_response(prompt, text, model) for text, model in zip(texts, models, strict=True)]
    records = _ranked(row, prompt, made, list(cells.winner(row, models)), seen)
    records.assumed = {one.id for one in made}
    return records


def answered(row: Row, heldout_share: float, seen: dict[object, int]) -> Records:
    """A row of ``responses``; with the rating, if it has one."""
    prompt = asked(row, heldout_share)
    model = _word(row, "model", IMPORTED, cells.LONGEST_MODEL)
    column = answer_column(row) or "response"
    text = response_of(row, column, row.values.get(column))
    finished, seed = row.values.get("finished"), row.values.get("seed")
    index = occurrence(seen, (prompt.id, model, text))
    response = Response(
        response_id(prompt.id, model, index, text), prompt.id, text, model,
        True if absent(finished) else cells.truth(row, "finished", finished),
        None if absent(seed) else cells.whole(row, "seed", seed, -cells.MOST_SEED, cells.MOST_SEED),
    )  # fmt: skip
    records = Records([prompt], [response], assumed={response.id} if absent(finished) else set())
    judge = rating_column(row)
    if judge is not None:
        value = row.values[judge]
        rating = float(value) if isinstance(value, bool) else cells.number(row, judge, value, least=-1e11)
        labeler = _word(row, "labeler", IMPORTED, cells.LONGEST_NAME)
        records.rated = [(prompt.id, labeler, response.id, -rating if judge == "rank" else rating)]
    return records


def check_names(row: Row) -> None:
    """Refuse names and ids that the store cannot contain, in rows that are read as data files."""
    for column, longest in (
        ("labeler", cells.LONGEST_NAME), ("prompt_id", cells.LONGEST_ID), ("id", cells.LONGEST_ID),
        ("kind", cells.LONGEST_KIND),
    ):  # fmt: skip
        _word(row, column, "", longest)


def asked(row: Row, heldout_share: float) -> Prompt:
    """The prompt of a row."""
    messages = columns.asked(row)
    split = split_called(row, _word(row, "split", split_of(messages, heldout_share), 20))
    name = _word(row, "prompt_id", prompt_id(messages), cells.LONGEST_ID)
    kind = _word(row, "kind", "", cells.LONGEST_KIND)
    return Prompt(name, messages, kind, split)


def occurrence(seen: dict[object, int], key: object) -> int:
    """How often ``key`` occurred before in this file: equal rows stay distinct, and importing a file again adds
    nothing."""
    seen[key] = seen.get(key, -1) + 1
    return seen[key]


def _responses(row: Row, prompt: Prompt, texts: list[Any]) -> tuple[list[Response], set[str]]:
    """The responses of a ranked list, and the ids of those whose ending is not given."""
    count = len(texts)
    given = {
        name: [None] * count if absent(row.values.get(name)) else cells.listed(row, name, row.values[name], count)
        for name in ("models", "response_ids", "finished", "seeds")
    }
    made: list[Response] = []
    assumed: set[str] = set()
    for n, text in enumerate(texts):
        model, id_, finished, seed = (given[name][n] for name in given)
        called = IMPORTED if absent(model) else cells.word(row, f"models[{n}]", model, cells.LONGEST_MODEL)
        if absent(id_):
            said = response_of(row, f"responses[{n}]", text)
            identity = response_id(prompt.id, called, 0, said)
        else:  # our own export: a response may be empty
            said = cells.free_text(row, f"responses[{n}]", text)
            identity = cells.word(row, f"response_ids[{n}]", id_, cells.LONGEST_ID)
        ended = True if absent(finished) else cells.truth(row, f"finished[{n}]", finished)
        number = None if absent(seed) else cells.whole(row, f"seeds[{n}]", seed, -cells.MOST_SEED, cells.MOST_SEED)
        made.append(Response(identity, prompt.id, said, called, ended, number))
        if absent(finished):
            assumed.add(identity)
    return made, assumed


def _ranked(row: Row, prompt: Prompt, made: list[Response], places: list[Any], seen: dict[object, int]) -> Records:
    ranked: dict[str, int] = {}
    shown: list[str] = []
    for n, (response, place) in enumerate(zip(made, places, strict=True)):
        if response.id in shown:
            row.refuse(f"the response {response.text[:40]!r} is listed twice; list each response once")
        shown.append(response.id)
        if not absent(place):
            ranked[response.id] = cells.whole(row, f"places[{n}]", place, 1, cells.MOST_PLACE)
    gold = row.values.get("gold")
    if not absent(gold) and cells.truth(row, "gold", gold):
        if len(ranked) < 2:
            row.refuse("a known answer (gold) needs places for at least two responses")
        campaign = cells.campaign(row, "campaign", row.values.get("campaign"))
        return Records([prompt], made, gold=[(prompt.id, ranked, campaign)])
    if not ranked:
        row.refuse("no response is ranked")
    return Records([prompt], made, [_answer(row, prompt, made, ranked, seen)])


def _answer(
    row: Row, prompt: Prompt, made: list[Response], ranked: dict[str, int], seen: dict[object, int]
) -> StoredAnswer:
    values = row.values
    labeler = _word(row, "labeler", IMPORTED, cells.LONGEST_NAME)
    margin = _number(row, "margin")
    index = occurrence(seen, (prompt.id, labeler, tuple(sorted(ranked.items()))))
    purpose = "label" if absent(values.get("purpose")) else cells.one_of(row, "purpose", values["purpose"], PURPOSES)
    quality = [] if absent(values.get("quality")) else cells.listed(row, "quality", values["quality"], len(made))
    shown = not absent(values.get("shown")) and cells.truth(row, "shown", values["shown"])
    at, note = values.get("submitted_at"), values.get("note")
    ranking = Ranking(
        id=ranking_id(prompt.id, labeler, index, [sorted(ranked.items()), margin]),
        prompt_id=prompt.id,
        labeler=labeler,
        places=ranked,
        order_shown=tuple(one.id for one in made) if shown else (),
        submitted_at=0.0 if absent(at) else cells.moment(row, "submitted_at", at),
        seconds=_number(row, "seconds"),
        note="" if absent(note) else cells.free_text(row, "note", note),
    )
    return StoredAnswer(
        ranking,
        next(known for known in PURPOSES if known == purpose),
        guideline_version=_whole(row, "guideline_version", cells.MOST),
        strength=_whole(row, "strength", 4),
        margin=margin,
        quality=_rated(row, "quality", quality, made),
        ratings={
            cells.word(row, "a criterion in ratings", name, 40): _rated(row, f"ratings[{name[:40]!r}]", rated, made)
            for name, rated in _ratings(row, len(made)).items()
        },
        rationale="" if absent(values.get("rationale")) else cells.free_text(row, "rationale", values["rationale"]),
        rewrites={
            one.id: cells.free_text(row, f"rewrites[{n}]", text)
            for n, (one, text) in enumerate(zip(made, _rewrites(row, len(made)), strict=False)) if not absent(text)
        },
        campaign=cells.campaign(row, "campaign", row.values.get("campaign")),
    )  # fmt: skip


def _rated(row: Row, name: str, given: list[Any], made: list[Response]) -> dict[str, int]:
    return {
        one.id: cells.whole(row, f"{name}[{n}]", value, 1, 7)
        for n, (one, value) in enumerate(zip(made, given, strict=False)) if not absent(value)
    }  # fmt: skip


def _ratings(row: Row, count: int) -> dict[str, list[Any]]:
    given = cells.parsed(row.values.get("ratings"))
    if absent(given):
        return {}
    if not isinstance(given, dict):
        row.refuse("ratings must be an object that maps each criterion to a list of ratings")
    return {name: cells.listed(row, "ratings", each, count) for name, each in given.items() if not absent(each)}


def _rewrites(row: Row, count: int) -> list[Any]:
    given = row.values.get("rewrites")
    return [] if absent(given) else cells.listed(row, "rewrites", given, count)


def _response(prompt: Prompt, text: str, model: str) -> Response:
    return Response(response_id(prompt.id, model, 0, text), prompt.id, text, model)


def _word(row: Row, column: str, default: str, longest: int) -> str:
    value = row.values.get(column)
    return default if absent(value) else cells.word(row, column, value, longest)


def _number(row: Row, column: str) -> float | None:
    value = row.values.get(column)
    return None if absent(value) else cells.number(row, column, value)


def _whole(row: Row, column: str, most: int) -> int | None:
    value = row.values.get(column)
    return None if absent(value) else cells.whole(row, column, value, 1, most)
