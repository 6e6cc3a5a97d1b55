"""The forms of records recognized by their columns, each with an example: for display, and for docs/data.md.

``columns`` and ``ranked_rows`` decide how a row is read. Here it is only named, and the tests run each
example through the reader.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from triphase.records.cells import columns_in, parsed
from triphase.records.conversations import is_transcript, turns_of
from triphase.records.foreign import LISTS, RATED
from triphase.records.lines import Row
from triphase.records.marked_texts import is_plain_text, turns_in_text
from triphase.records.prompts import CONVERSATIONS, QUESTIONS, is_conversation
from triphase.records.rated_rows import JOINED, is_rated
from triphase.records.reading import Located
from triphase.records.trees import is_tree
from triphase.settings.data import SourceSettings

Fits = Callable[[Row, set[str]], bool]
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Form:
    """One form of records.

    Attributes:
        name: for display.
        roles: the possible roles of files with it.
        fits: whether a row with these nonempty columns has this form.
        example: a row.
        more: the further rows of the example.
        plain: it is our own, so that nothing had to be inferred.
    """

    name: str
    roles: tuple[str, ...]
    fits: Fits
    example: Mapping[str, Any] = field(default_factory=dict)
    more: tuple[Mapping[str, Any], ...] = ()
    plain: bool = False


def _has(*names: str) -> Fits:
    return lambda row, have: set(names) <= have


def _any_of(first: str, *others: str) -> Fits:
    return lambda row, have: first in have and bool(have & set(others))


def _holds_turns(column: str, *keys: str) -> Fits:
    def fits(row: Row, have: set[str]) -> bool:
        turns = turns_of(row, column, row.values.get(column)) if column in have else None
        return (
            isinstance(turns, list)
            and bool(turns)
            and isinstance(turns[0], Mapping)
            and bool(turns[0].keys() & set(keys))
        )

    return fits


def _is_hh(row: Row, have: set[str]) -> bool:
    return is_transcript(row.values.get("chosen"))


def _text_alone(have: set[str]) -> bool:
    return "text" in have and not have & {*CONVERSATIONS, *QUESTIONS, "chosen", "rejected"}


def _marked(row: Row, have: set[str]) -> bool:
    return _text_alone(have) and turns_in_text(row) is not None


def _plain(row: Row, have: set[str]) -> bool:
    return _text_alone(have) and is_plain_text(row)


def _argilla(row: Row, have: set[str]) -> bool:
    return {"fields", "responses"} <= have or any(name.endswith(".responses") for name in have)


def _rated_answers(row: Row, have: set[str]) -> bool:
    return is_rated(row) or {"responses", JOINED} <= have


def _best_first(row: Row, have: set[str]) -> bool:
    return "responses" in have and not have & {"places", *RATED}


def _asked_elsewhere(row: Row, have: set[str]) -> bool:
    return (
        {"chosen", "rejected"} <= have
        and bool(have & {*CONVERSATIONS, *QUESTIONS})
        and not is_conversation(turns_of(row, "chosen", row.values["chosen"]))
    )


def _in_two_lists(row: Row, have: set[str]) -> bool:
    return bool(have & set(LISTS) and have & set(RATED)) and "places" not in have


def _objects(row: Row, have: set[str]) -> bool:
    return any(all(isinstance(item, Mapping) for item in value) for name in have & set(LISTS)
               if isinstance(value := parsed(row.values[name]), list))  # fmt: skip


_PAIRED = ("demonstrations", "prompts")
_ASKED = [{"role": "user", "content": "Name a tree."}]
_TOLD = [*_ASKED, {"role": "assistant", "content": "An elm."}]
_OTHER = [*_ASKED, {"role": "assistant", "content": "No."}]
FORMS: tuple[Form, ...] = (
    # Rankings and votes
    Form(
        "OpenAssistant message tree", ("demonstrations", "prompts", "preferences"), lambda row, have: is_tree(row),
        {"message_tree_id": "1", "prompt": {"text": "Name a tree.", "role": "prompter", "replies": [
            {"text": "An elm.", "role": "assistant", "rank": 0, "replies": []},
            {"text": "No.", "role": "assistant", "rank": 1, "replies": []}]}},
    ),
    Form("Label Studio ranking export", ("preferences",), _has("data", "annotations"),
         {"data": {"prompt": "Name a tree.", "items": [{"id": "x", "body": "An elm."}, {"id": "y", "body": "No."}]},
          "annotations": [{"result": [{"type": "ranker", "value": {"ranker": {"rank": ["x", "y"]}}}]}]}),
    Form("Argilla ranking export", ("preferences",), _argilla,
         {"fields": {"prompt": "Name a tree.", "response-1": "An elm.", "response-2": "No."},
          "responses": {"ranking": [{"value": [{"value": "response-1", "rank": 1}, {"value": "response-2", "rank": 2}],
                                     "user_id": "u1"}]}}),
    Form("Chatbot Arena", ("preferences",), _has("conversation_a", "conversation_b", "winner"),
         {"conversation_a": _TOLD, "conversation_b": _OTHER, "model_a": "m", "model_b": "n", "winner": "model_a"}),
    Form("Chatbot Arena as a table", ("preferences",), _has("prompt", "response_a", "response_b", "winner_model_a"),
         {"prompt": '["Name a tree."]', "response_a": '["An elm."]', "response_b": '["No."]', "winner_model_a": 1,
          "winner_model_b": 0, "winner_tie": 0}),
    Form("SHP", ("preferences",), _has("history", "human_ref_A", "human_ref_B", "labels"),
         {"history": "Name a tree.", "human_ref_A": "An elm.", "human_ref_B": "No.", "labels": 1}),
    Form("WebGPT", ("preferences",), _has("answer_0", "answer_1", "score_0", "score_1"),
         {"question": "Name a tree.", "answer_0": "An elm.", "answer_1": "No.", "score_0": 0.5, "score_1": -0.5}),
    Form("HelpSteer2 preferences", ("preferences",), _has("response_1", "response_2", "preference_strength"),
         {"prompt": "Name a tree.", "response_1": "An elm.", "response_2": "No.", "preference_strength": -2}),
    Form("HelpSteer3", ("preferences",), _has("response1", "response2", "overall_preference"),
         {"context": _ASKED, "response1": "An elm.", "response2": "No.", "overall_preference": -1}),
    Form("PKU-SafeRLHF", ("preferences",), _has("response_0", "response_1", "better_response_id"),
         {"prompt": "Name a tree.", "response_0": "An elm.", "response_1": "No.", "better_response_id": 0}),
    Form("UltraFeedback (ratings become places)", ("preferences",), _holds_turns("completions", "response"),
         {"instruction": "Name a tree.", "completions": [
             {"response": "An elm.", "model": "a", "overall_score": 9.0},
             {"response": "No.", "model": "b", "overall_score": 2.0}]}),
    Form("Nectar (ranked answers)", ("preferences",), _holds_turns("answers", "answer"),
         {"prompt": "Name a tree.", "answers": [{"answer": "An elm.", "model": "a", "rank": 1},
                                                {"answer": "No.", "model": "b", "rank": 2}]}),
    Form("an answer and its rating per row (HelpSteer)", ("preferences",), _rated_answers,
         {"prompt": "Name a tree.", "response": "An elm.", "rating": 4},
         more=({"prompt": "Name a tree.", "response": "No.", "rating": 0},)),
    Form("votes", ("preferences",), _has("response_a", "response_b", "winner"),
         {"prompt": "Name a tree.", "response_a": "An elm.", "response_b": "No.", "winner": "a"}),
    Form("answers and their ranks or ratings, in two lists", ("preferences",), _in_two_lists,
         {"prompt": "Name a tree.", "generations": ["No.", "An elm."], "rating": [2.0, 9.0]}),
    Form("answers with a rank or a rating each", ("preferences",), _objects,
         {"prompt": "Name a tree.", "candidates": [{"text": "An elm.", "score": 9.0}, {"text": "No.", "score": 2.0}]}),
    Form("rankings as lists, the best first", ("preferences",), _best_first,
         {"prompt": "Name a tree.", "responses": ["An elm.", "No."]}),
    Form("rankings", ("preferences",), _has("responses"),
         {"prompt": "Name a tree.", "responses": ["No.", "An elm.", "Elm"], "places": [2, 1, 1]}),
    # Comparisons
    Form("HH-RLHF transcripts", ("preferences", "prompts"), _is_hh,
         {"chosen": "\n\nHuman: Name a tree.\n\nAssistant: An elm.",
          "rejected": "\n\nHuman: Name a tree.\n\nAssistant: No."}),
    Form("TRL preferences, the prompt explicit", ("preferences",), _has("prompt", "chosen", "rejected"),
         {"prompt": "Name a tree.", "chosen": "An elm.", "rejected": "No.", "margin": 1.5}, plain=True),
    Form("LLaMA-Factory preferences", ("preferences",), _has("conversations", "chosen", "rejected"),
         {"conversations": [{"from": "human", "value": "Name a tree."}], "chosen": {"from": "gpt", "value": "An elm."},
          "rejected": {"from": "gpt", "value": "No."}}),
    Form("preferences with a question or an instruction", ("preferences",), _asked_elsewhere,
         {"system": "Be brief.", "question": "Name a tree.", "chosen": "An elm.", "rejected": "No."}),
    Form("TRL preferences, the prompt implicit", ("preferences",), _has("chosen", "rejected"),
         {"chosen": _TOLD, "rejected": _OTHER}),
    # Answers
    Form("messages (TRL, OpenAI)", _PAIRED, _holds_turns("messages", "role", "from"), {"messages": _TOLD}, plain=True),
    Form("ShareGPT conversations", _PAIRED, _holds_turns("conversations", "from"),
         {"system": "Be brief.", "conversations": [{"from": "human", "value": "Name a tree."},
                                                   {"from": "gpt", "value": "An elm."}]}),
    Form("conversations", _PAIRED, _has("conversations"), {"conversations": _TOLD}),
    Form("self-instruct tasks", _PAIRED, _has("instruction", "instances"),
         {"instruction": "Name a tree.", "instances": [{"input": "with E", "output": "An elm."}]}),
    Form("Dolly (instruction, context, response)", _PAIRED, _has("instruction", "response"),
         {"instruction": "Name a tree.", "context": "An elm is a tree.", "response": "An elm.", "category": "qa"}),
    Form("Alpaca (instruction, input, output)", _PAIRED, _has("instruction", "output"),
         {"instruction": "Name a tree.", "input": "with E", "output": "An elm.", "history": [["Hi", "Hello"]]}),
    Form("prompt and completion (TRL)", _PAIRED, _any_of("prompt", "completion", "response", "output", "answer"),
         {"prompt": "Name a tree.", "completion": "An elm."}, plain=True),
    Form("question and answer", _PAIRED, _any_of("question", "answer", "response", "completion", "output"),
         {"question": "Name a tree.", "context": "An elm is a tree.", "answer": "An elm."}),
    Form("query and answer", _PAIRED, _any_of("query", "answer", "response", "completion", "output"),
         {"query": "Name a tree.", "response": "An elm."}),
    Form("text with marked turns (TRL)", _PAIRED, _marked,
         {"text": "### Human: Name a tree.### Assistant: An elm."}),
    Form("plain text, all of it learned (TRL language modeling)", ("demonstrations",), _plain,
         {"text": "An elm."}),
    # Prompts alone
    Form("prompts", ("prompts",), _has("prompt"), {"prompt": "Name a tree.", "split": "heldout"}, plain=True),
    Form("instructions", ("prompts",), _has("instruction"), {"instruction": "Name a tree.", "input": "with E"}),
    Form("questions", ("prompts",), _has("question"), {"question": "Name a tree."}),
    Form("queries", ("prompts",), _has("query"), {"query": "Name a tree."}),
)  # fmt: skip
"""The first that fits a row names it."""


def form_named(row: Row, role: str) -> Form | None:
    """The form of a row; None if it has none."""
    have = columns_in(row)
    return next((form for form in FORMS if role in form.roles and form.fits(row, have)), None)


def form_of(role: str, item: Located[Any]) -> str:
    """How a record was recognized."""
    form = None if item.row is None else form_named(item.row, role)
    return "columns of several forms" if form is None else form.name


def read_as(forms: Mapping[str, int]) -> str:
    """How the records of a source were recognized."""
    ordered = sorted(forms.items(), key=lambda entry: -entry[1])
    if len(ordered) == 1:
        return f"read as {ordered[0][0]}"
    most = ", ".join(f"{name} ({count} records)" for name, count in ordered[:_SHOWN])
    return f"read as {most}{' …' if len(ordered) > _SHOWN else ''}"


def form_notes(forms: Mapping[str, int], source: SourceSettings) -> list[str]:
    """A run's message at its start: empty if files are in our own forms."""
    plain = {form.name for form in FORMS if form.plain}
    if not forms or (len(forms) == 1 and forms.keys() <= plain and not source.columns):
        return []
    return [read_as(forms)]
