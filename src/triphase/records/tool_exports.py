"""Exports of Argilla and of Label Studio, converted to rows of rankings: one for each person's answer.

    Argilla       records with fields and responses (its JSON, version 1 and 2), or flat ones with columns
                  QUESTION.responses or lists of user_id and value; a ranking names fields, best first, or has rank
                  and value
    Label Studio  tasks with data and annotations (JSON, not JSON-MIN); results of type ranker or pairwise

Drafts, discarded and canceled answers are left out. The prompt's field is recognized by its name, or by being the only
one that is not ranked.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from triphase.records.cells import absent, columns_in, named, parsed
from triphase.records.foreign import derived, prompt_in
from triphase.records.lines import Row

_BESIDE = (".responses", ".responses.users", ".responses.status")
Said = tuple[str, str, Any]
"""Who answered, in what state, and the answer."""


def read_export(row: Row) -> list[tuple[str, Row]] | None:
    """The rankings in a record of Argilla or a task of Label Studio; None if a row is neither."""
    have = columns_in(row)
    data, annotations = parsed(row.values.get("data")), parsed(row.values.get("annotations"))
    if isinstance(data, Mapping) and isinstance(annotations, list):
        return [("rankings", found) for found in _label_studio(row, data, annotations)]
    fields = parsed(row.values.get("fields"))
    if isinstance(fields, Mapping) and "responses" in row.values:
        row.read.add("responses")
        return [("rankings", found) for found in _argilla(row, fields, _questions(row.values["responses"]))]
    questions = _flat_questions(row, have)
    if questions:
        row.read.update(f"{name}{end}" for name in questions for end in ("", *_BESIDE))
        texts = {name: row.values[name] for name in have if isinstance(row.values[name], str)}
        return [("rankings", found) for found in _argilla(row, texts, questions)]
    if {"annotation_id", "lead_time"} <= have:
        row.refuse("this is Label Studio's JSON-MIN, which does not record what was compared; export as JSON")
    return None


def note_unread_parts(row: Row) -> None:
    """Note the fields of a record, or the data of a task, that neither a prompt nor a ranking has used."""
    for column in ("fields", "data"):
        inner = parsed(row.values.get(column))
        for name, value in inner.items() if isinstance(inner, Mapping) else ():
            if not absent(value) and name not in row.read:
                row.ignored.add(f"{column}.{name}")


# --- Argilla ------------------------------------------------------------------------------------------------------


def _questions(responses: Any) -> dict[str, list[Said]]:
    """Answers by question: version 2 has {question: [{value, user_id}]}, version 1 [{user_id, values, status}]."""
    found: dict[str, list[Said]] = {}
    given = parsed(responses)
    if isinstance(given, Mapping):
        for question, answers in given.items():
            found[str(question)] = [_said(each, each.get("value")) for each in _mappings(answers)]
        return found
    for each in _mappings(given):
        values = each.get("values")
        for question, value in values.items() if isinstance(values, Mapping) else ():
            said = value.get("value") if isinstance(value, Mapping) else value
            found.setdefault(str(question), []).append(_said(each, said))
    return found


def _flat_questions(row: Row, have: set[str]) -> dict[str, list[Said]]:
    """Answers by question of a flat record: columns QUESTION.responses, or lists of objects with user_id and value."""
    found: dict[str, list[Said]] = {}
    for name in sorted(have):
        value = parsed(row.values[name])
        if name.endswith(".responses") and isinstance(value, list):
            users = _beside(row, f"{name}.users", len(value))
            states = _beside(row, f"{name}.status", len(value))
            found[name.removesuffix(".responses")] = [
                (str(user or ""), str(state or "submitted"), said)
                for user, state, said in zip(users, states, value, strict=True)
            ]
        elif (
            isinstance(value, list)
            and value
            and all(isinstance(e, Mapping) and {"user_id", "value"} <= e.keys() for e in value)
        ):
            found[name] = [_said(each, each["value"]) for each in value]
    return found


def _beside(row: Row, name: str, count: int) -> list[Any]:
    value = parsed(row.values.get(name))
    if absent(value):
        return [None] * count
    if not isinstance(value, list) or len(value) != count:
        row.refuse(f"{name} must be a list of {count}, one for each response")
    return value


def _mappings(value: Any) -> Sequence[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else ()


def _said(answer: Mapping[str, Any], value: Any) -> Said:
    return str(answer.get("user_id") or ""), str(answer.get("status") or "submitted"), value


def _argilla(row: Row, fields: Mapping[str, Any], questions: Mapping[str, list[Said]]) -> Iterator[Row]:
    known = {_plain(name): name for name in fields}
    ranked = False
    for question, answers in questions.items():
        for user, state, value in answers:
            order = _order(value)
            if order is None or not all(_plain(name) in known for name, _ in order):
                row.ignored.update((f"answers to {question}",) if value is not None else ())
                continue
            ranked = True
            if state not in ("submitted", "completed"):
                row.ignored.add(f"answers that are {state[:40]}")
                continue
            names = [known[_plain(name)] for name, _ in order]
            row.read.update(names)
            yield _ranking(row, fields, names, [place for _, place in order], labeler=user)
    if not ranked and any(answers for answers in questions.values()):
        row.refuse(
            f"no answer to {named(questions)} ranks the fields {named(fields)}; the options of a "
            f"ranking question must have the names of the fields with the responses"
        )


def _order(value: Any) -> list[tuple[str, int]] | None:
    """Names with their places: from a list of names (best first), of objects, or an object of two lists."""
    found = parsed(value)
    if isinstance(found, Mapping) and isinstance(found.get("rank"), list) and isinstance(found.get("value"), list):
        found = [{"rank": rank, "value": name} for rank, name in zip(found["rank"], found["value"], strict=False)]
    if not isinstance(found, list) or len(found) < 2:
        return None
    if all(isinstance(each, str) for each in found):
        return [(name, place) for place, name in enumerate(found, start=1)]
    if all(isinstance(each, Mapping) and isinstance(each.get("value"), str) for each in found):
        return [(each["value"], each.get("rank")) for each in found]
    return None


def _plain(name: str) -> str:
    return re.sub(r"[-_ ]", "", str(name).lower())


# --- Label Studio -------------------------------------------------------------------------------------------------


def _label_studio(row: Row, data: Mapping[str, Any], annotations: Sequence[Any]) -> Iterator[Row]:
    unranked, ranked = list[str](), False
    for n, annotation in enumerate(_mappings(annotations)):
        if annotation.get("was_cancelled"):
            row.ignored.add("annotations that were canceled")
            continue
        by = annotation.get("completed_by")
        values = {
            "labeler": by.get("email") or by.get("id") if isinstance(by, Mapping) else by,
            "seconds": annotation.get("lead_time"), "submitted_at": annotation.get("created_at"),
            "gold": annotation.get("ground_truth") or None,
        }  # fmt: skip
        results = [each for each in _mappings(annotation.get("result")) if isinstance(each.get("value"), Mapping)]
        read = [(each, _result(row, data, each, values)) for each in results]
        found = [one for _, one in read if one is not None]
        row.ignored.update(f"results of type {str(each.get('type'))[:40]}" for each, one in read if one is None)
        if not found:
            types = named(sorted({str(each.get("type")) for each in results}))
            unranked.append(
                f"annotations[{n}] has no ranking: expected a result of type ranker or pairwise, found {types}"
            )
            row.ignored.add("annotations without a ranking")
        ranked = ranked or bool(found)
        yield from found
    if unranked and not ranked:
        row.refuse(unranked[0])


def _result(row: Row, data: Mapping[str, Any], result: Mapping[str, Any], values: Mapping[str, Any]) -> Row | None:
    value = result["value"]
    if isinstance(value.get("ranker"), Mapping):
        return _ranker(row, data, value["ranker"], values)
    if value.get("selected") in ("left", "right"):
        names = _two_sides(row, data, str(result.get("to_name", "")))
        row.read.update(names)
        return _ranking(row, data, names, [1, 2] if value["selected"] == "left" else [2, 1], **values)
    return None


def _ranker(row: Row, data: Mapping[str, Any], ranker: Mapping[str, Any], values: Mapping[str, Any]) -> Row:
    """One list of ids, best first. Several buckets have no defined order."""
    lists = {name: order for name, order in ranker.items() if name != "_" and isinstance(order, list)}
    if len(lists) != 1:
        row.refuse(
            f"a ranker with {len(lists)} buckets ({named(lists, 80)}) has no single order; "
            f"export a ranker with one bucket"
        )
    (order,) = lists.values()
    for name, items in data.items():
        texts = {str(each.get("id")): _body(each) for each in _mappings(parsed(items))}
        if texts and {str(id_) for id_ in order} <= texts.keys():
            row.read.add(name)
            places = {str(id_): place for place, id_ in enumerate(order, start=1)}
            return derived(row, {
                **prompt_in(row, data, (name,)), "responses": list(texts.values()),
                "places": [places.get(id_) for id_ in texts], **values,
            })  # fmt: skip
    row.refuse(f"no column of data holds the ranked items {named(order, 80)} (objects with an id)")


def _body(item: Mapping[str, Any]) -> Any:
    return next((item[name] for name in ("body", "text", "html", "title") if not absent(item.get(name))), None)


def _two_sides(row: Row, data: Mapping[str, Any], to_name: str) -> list[str]:
    """The columns of data that were compared: those that the control names, or the only two besides the prompt."""
    sides = [part.strip() for part in to_name.split(",")]
    if len(sides) == 2 and all(isinstance(data.get(part), str) for part in sides):
        return sides
    texts = [name for name, value in data.items() if isinstance(value, str) and _plain(name) not in _PROMPTS]
    if len(texts) != 2:
        row.refuse(
            f"which columns of data were compared? Found {named(texts)}; give them the names "
            f"that the control uses ({named([to_name], 80)})"
        )
    return texts


_PROMPTS = ("prompt", "instruction", "question", "query", "context", "input", "id")


def _ranking(row: Row, texts: Mapping[str, Any], names: Sequence[str], places: Sequence[Any], **values: Any) -> Row:
    responses = [texts[name] for name in names]
    given = {name: value for name, value in values.items() if not absent(value)}
    asked = prompt_in(row, texts, names)
    return derived(row, {**asked, "responses": responses, "places": list(places), "models": list(names), **given})
