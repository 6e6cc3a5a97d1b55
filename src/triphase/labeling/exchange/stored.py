"""Rows of the format ``store``, checked column by column, so that every database can store them."""

from collections.abc import Callable, Mapping
from typing import Any

from triphase.labeling.exchange.formats import STORED, Records
from triphase.labeling.exchange.ranked import PURPOSES
from triphase.labeling.work.campaign_plan import TASKS
from triphase.labeling.work.campaigns import MOST_OVERLAP, STATES
from triphase.records import cells
from triphase.records.conversations import checked_prompt, messages_of
from triphase.records.lines import Row, kind_of
from triphase.records.types import Message, Prompt, Ranking, Response
from triphase.store.answers import StoredAnswer
from triphase.store.record_rows import as_json

Check = Callable[[Row, str, Any], Any]
_STATUSES = ("active", "withdrawn", "skipped", "superseded", "late")
_DECISIONS = ("ranked", "stands")
_RESOLVED = ("resolution", "resolved_by", "resolved_at")


def read_stored(row: Row) -> Records:
    """One row of ``store``."""
    kind = row.values.get("type")
    if not isinstance(kind, str) or kind not in STORED:
        row.refuse(f"type is {str(kind)[:40]!r}; it is one of {', '.join(STORED)}")
    values = _checked(row, kind)
    match kind:
        case "prompt":
            return Records(prompts=[Prompt(**values)])
        case "response":
            return Records(responses=[Response(**values)])
        case "gold":
            if len(values["places"]) < 2:
                row.refuse("a known answer (gold) needs places for at least two responses")
            return Records(gold=[(values["prompt_id"], values["places"], values["campaign"])])
        case "ranking":
            return Records(answers=[_answer(row, values)])
    return Records(beside=[(kind, values)])


def _checked(row: Row, kind: str) -> dict[str, Any]:
    """The values of a row by column: none unknown, none missing, each of its type and in its range."""
    wanted, optional = _COLUMNS[kind], _OPTIONAL.get(kind, {})
    given = {name: value for name, value in row.values.items() if name != "type"}
    unknown = sorted(map(str, given.keys() - wanted.keys()))
    if unknown:
        row.refuse(f"not a {kind} of the store format: the column {unknown[0][:60]!r} is unknown; export it again")
    missing = sorted(wanted.keys() - given.keys() - optional.keys())
    if missing:
        row.refuse(f"not a {kind} of the store format: the column {missing[0]!r} is missing; export it again")
    values = {name: wanted[name](row, name, given[name]) if name in given else optional[name] for name in wanted}
    _require_together(row, kind, values)
    return values


def _require_together(row: Row, kind: str, values: Mapping[str, Any]) -> None:
    """Refuse a row with one of two columns that require each other."""
    resolved = [values[name] is not None for name in _RESOLVED] if kind == "flag" else []
    if any(resolved) and not all(resolved):
        row.refuse(f"{', '.join(_RESOLVED)} belong together: set all three, or none")
    if kind == "decision" and (values["decision"] == "ranked") != (values["ranking_id"] is not None):
        row.refuse("a decision of kind ranked needs a ranking_id, and one of kind stands must have none")
    if kind == "ranking" and values["status"] == "skipped" and values["skip_reason"] is None:
        row.refuse("a ranking whose status is skipped has a skip_reason; it is null")


def _answer(row: Row, values: dict[str, Any]) -> StoredAnswer:
    if values["status"] == "active" and not values["places"]:
        row.refuse("an active ranking gives at least one response a place; places is empty")
    if len(set(values["order_shown"])) != len(values["order_shown"]):
        row.refuse("order_shown lists a response twice")
    of_ranking = {name: values.pop(name) for name in _OF_A_RANKING}
    return StoredAnswer(Ranking(**of_ranking), **values)


def _word(longest: int) -> Check:
    return lambda row, name, value: cells.word(row, name, value, longest)


def _maybe(check: Check) -> Check:
    return lambda row, name, value: None if value is None else check(row, name, value)


def _or_empty(longest: int) -> Check:
    return lambda row, name, value: "" if value == "" else cells.word(row, name, value, longest)


def _choice(choices: tuple[str, ...]) -> Check:
    return lambda row, name, value: cells.one_of(row, name, value, choices)


def _whole(least: int, most: int) -> Check:
    return lambda row, name, value: cells.whole(row, name, value, least, most)


def _by_response(most: int) -> Check:
    return lambda row, name, value: cells.by_response(row, name, value, most)


def _by_criterion(row: Row, name: str, value: Any) -> dict[str, dict[str, int]]:
    if not isinstance(value, Mapping):
        row.refuse(f"{name} must be an object that maps each criterion to ratings, not {kind_of(value)}")
    return {
        cells.word(row, f"a criterion in {name}", each, 40): cells.by_response(row, f"{name}[{each[:40]!r}]", rated, 7)
        for each, rated in value.items()
    }


def _texts_by_response(row: Row, name: str, value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        row.refuse(f"{name} must be an object that maps response ids to texts, not {kind_of(value)}")
    return {
        cells.word(row, f"an id in {name}", id_, cells.LONGEST_ID): cells.free_text(row, f"{name}[{id_[:40]!r}]", text)
        for id_, text in value.items()
    }


def _models(row: Row, name: str, value: Any) -> str:
    if not isinstance(value, str) or not isinstance(found := cells.parsed(value), list):
        row.refuse(f"{name} must be a JSON list of models, as text")
    return as_json([cells.word(row, f"{name}[{n}]", each, cells.LONGEST_MODEL) for n, each in enumerate(found)])


def _campaign_name(row: Row, name: str, value: Any) -> str:
    found = cells.campaign(row, name, value)
    if not found:
        row.refuse(f"{name} is {value!r}, which is the main task; give the campaign another name")
    return found


def _number(least: float) -> Check:
    return lambda row, name, value: cells.number(row, name, value, least=least)


def _truth(row: Row, name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        row.refuse(f"{name} must be true or false, not {kind_of(value)}")
    return value


def _messages(row: Row, name: str, value: Any) -> tuple[Message, ...]:
    if not isinstance(value, list):
        row.refuse(f"{name} must be a list of messages, not {kind_of(value)}")
    return checked_prompt(row, name, messages_of(row, name, value))


def _ids(row: Row, name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        row.refuse(f"{name} must be a list of response ids, not {kind_of(value)}")
    return tuple(cells.word(row, f"{name}[{n}]", each, cells.LONGEST_ID) for n, each in enumerate(value))


_ID, _PERSON = _word(cells.LONGEST_ID), _word(cells.LONGEST_NAME)
_OF_A_RANKING = ("id", "prompt_id", "labeler", "places", "order_shown", "submitted_at", "seconds", "note")
_COLUMNS: Mapping[str, Mapping[str, Check]] = {
    "prompt": {
        "id": _ID, "messages": _messages, "kind": _or_empty(cells.LONGEST_KIND), "split": _choice(("train", "heldout")),
    },
    "response": {
        "id": _ID, "prompt_id": _ID, "text": cells.free_text, "model": _or_empty(cells.LONGEST_MODEL),
        "finished": _truth, "seed": _maybe(_whole(-cells.MOST_SEED, cells.MOST_SEED)),
    },
    "ranking": {
        "id": _ID, "prompt_id": _ID, "labeler": _PERSON, "places": _by_response(cells.MOST_PLACE), "order_shown": _ids,
        "submitted_at": cells.moment, "seconds": _maybe(_number(0.0)), "note": cells.free_text,
        "purpose": _choice(PURPOSES), "status": _choice(_STATUSES), "guideline_version": _maybe(_whole(1, cells.MOST)),
        "strength": _maybe(_whole(1, 4)), "margin": _maybe(_number(0.0)), "quality": _by_response(7),
        "skip_reason": _maybe(_word(80)),
        "campaign": cells.campaign, "ratings": _by_criterion, "rationale": cells.free_text,
        "rewrites": _texts_by_response,
    },
    "gold": {"prompt_id": _ID, "places": _by_response(cells.MOST_PLACE), "campaign": cells.campaign},
    "guideline": {
        "version": _whole(1, cells.MOST), "text": cells.free_text, "created_by": _PERSON, "created_at": cells.moment,
        "campaign": cells.campaign,
    },
    "score": {"response_id": _ID, "scorer": _word(200), "score": _number(-1e11)},
    "flag": {
        "prompt_id": _ID, "response_id": _maybe(_ID), "labeler": _PERSON, "reason": _word(40), "note": cells.free_text,
        "created_at": cells.moment, "resolution": _maybe(cells.free_text), "resolved_by": _maybe(_PERSON),
        "resolved_at": _maybe(cells.moment),
    },
    "decision": {
        "prompt_id": _ID, "ranking_id": _maybe(_ID), "decided_by": _PERSON, "decided_at": cells.moment,
        "decision": _choice(_DECISIONS), "note": cells.free_text, "campaign": cells.campaign,
    },
    "campaign": {
        "name": _campaign_name, "task": _choice(tuple(TASKS)), "state": _choice(STATES),
        "share": _whole(0, 100), "overlap": _whole(1, MOST_OVERLAP), "models": _models,
        "split": _choice(("", "train", "heldout")), "kind": _or_empty(cells.LONGEST_KIND),
        "most": _whole(0, cells.MOST), "created_by": _PERSON, "created_at": cells.moment,
    },
}  # fmt: skip
_OPTIONAL: Mapping[str, Mapping[str, Any]] = {
    "prompt": {"kind": "", "split": "train"},
    "response": {"finished": True, "seed": None},
    "ranking": {
        "seconds": None, "note": "", "purpose": "label", "status": "active", "guideline_version": None,
        "strength": None, "margin": None, "quality": {}, "skip_reason": None,
        "ratings": {}, "rationale": "", "rewrites": {}, "campaign": "",
    },
    "guideline": {"campaign": ""}, "gold": {"campaign": ""}, "decision": {"campaign": ""},
}  # fmt: skip
"""Optional values, and their defaults."""
