"""Files of every import format with one wrong value in one field, and what must still work after one is accepted."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROMPT = {"id": "p0", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "stone?"}],
          "kind": "geology", "split": "train"}  # fmt: skip
EXPORTED = {
    "prompt": [{"role": "user", "content": "name a stone"}], "responses": ["river stone", "mud", ""],
    "places": [1, 2, None], "models": ["m1", "m2", "m3"], "response_ids": ["r1", "r2", "r3"],
    "finished": [True, False, False], "seeds": [1, None, 3], "shown": True, "labeler": "ann", "submitted_at": 1.7e9,
    "seconds": 12.5, "purpose": "label", "guideline_version": 1, "strength": 2, "margin": 1.5, "quality": [7, None, 1],
    "note": "clear", "prompt_id": "p0", "kind": "geology", "split": "train",
}  # fmt: skip
FILES: dict[str, list[dict[str, Any]]] = {
    "prompts": [{"prompt": "name a stone", "id": "p0", "kind": "geology", "split": "train"}],
    "responses": [
        {"prompt": "name a stone", "response": "mud", "model": "m", "finished": False, "seed": 3, "prompt_id": "p0",
         "kind": "geology", "split": "heldout"},
        {"messages": [{"role": "user", "content": "name a road"}], "response": [{"role": "assistant", "content": "x"}]},
    ],
    "rated": [
        {"prompt": "name a stone", "response": text, "helpfulness": rating, "model": "m", "labeler": "ann"}
        for text, rating in (("mud", 1), ("river stone", 4))
    ],
    "rankings": [EXPORTED, {"prompt": "name a road", "responses": ["rust", "river"], "gold": True}],
    "votes": [
        {"prompt": "name a stone", "response_a": "mud", "response_b": "river stone", "winner": "b", "model_a": "m1",
         "model_b": "m2", "labeler": "ann", "submitted_at": "2026-01-31", "seconds": 3, "note": "", "margin": 1},
    ],
    "preferences": [
        {"prompt": [{"role": "user", "content": "name a stone"}], "chosen": [{"role": "assistant", "content": "river"}],
         "rejected": [{"role": "assistant", "content": "mud"}], "margin": 1.0, "labeler": "ann", "confidence": 1.0,
         "strength": 2, "purpose": "label", "submitted_at": 1.7e9, "chosen_model": "m1", "rejected_model": "m2",
         "chosen_finished": True, "rejected_finished": False, "prompt_id": "p0", "kind": "", "split": "train"},
        {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello!", "rejected": "\n\nHuman: Hi\n\nAssistant: Go."},
    ],
    "store": [
        {"type": "prompt", **PROMPT},
        *({"type": "response", "id": f"r{n}", "prompt_id": "p0", "text": f"text {n}", "model": "m", "finished": n > 0,
           "seed": n or None} for n in range(3)),
        {"type": "ranking", "id": "k0", "prompt_id": "p0", "labeler": "ann", "places": {"r0": 1, "r1": 2},
         "order_shown": ["r1", "r0", "r2"], "submitted_at": 1.7e9, "seconds": 12.5, "note": "so", "purpose": "label",
         "status": "active", "guideline_version": 1, "strength": 2, "margin": 1.0, "quality": {"r0": 7, "r2": 1},
         "skip_reason": None, "campaign": "style", "ratings": {"true": {"r0": 7, "r1": 2}},
         "rationale": "as the guideline says", "rewrites": {"r1": "a better text"}},
        {"type": "ranking", "id": "k1", "prompt_id": "p0", "labeler": "bob", "places": {}, "order_shown": ["r1", "r0"],
         "submitted_at": 1.7e9, "seconds": None, "note": "", "purpose": "label", "status": "skipped",
         "guideline_version": None, "strength": None, "margin": None, "quality": {}, "skip_reason": "all alike"},
        {"type": "ranking", "id": "k2", "prompt_id": "p0", "labeler": "lea", "places": {"r0": 2, "r1": 1},
         "order_shown": [], "submitted_at": 1.7e9, "purpose": "adjudication"},
        {"type": "gold", "prompt_id": "p0", "places": {"r0": 1, "r2": 2}},
        {"type": "guideline", "version": 1, "text": "# Be kind", "created_by": "lea", "created_at": 1.7e9,
         "campaign": "style"},
        {"type": "campaign", "name": "style", "task": "rating", "state": "active", "share": 20, "overlap": 2,
         "models": "[\"m\"]", "split": "train", "kind": "k", "most": 5, "created_by": "lea", "created_at": 1.7e9},
        {"type": "score", "response_id": "r0", "scorer": "base", "score": 0.5},
        {"type": "flag", "prompt_id": "p0", "response_id": "r1", "labeler": "ann", "reason": "unsafe", "note": "",
         "created_at": 1.7e9, "resolution": "seen", "resolved_by": "lea", "resolved_at": 1.7e9},
        {"type": "flag", "prompt_id": "p0", "response_id": None, "labeler": "ann", "reason": "other", "note": "n",
         "created_at": 1.7e9, "resolution": None, "resolved_by": None, "resolved_at": None},
        {"type": "decision", "prompt_id": "p0", "ranking_id": "k2", "decided_by": "lea", "decided_at": 1.7e9,
         "decision": "ranked", "note": ""},
    ],
    "objects": [
        {"instruction": "name a stone", "completions": [
            {"model": "m1", "response": "mud", "fine-grained_score": 2.25}, {"text": "x", "fine-grained_score": "N/A"},
            {"model": "m2", "response": "clay", "fine-grained_score": 4}]},
        {"prompt": "name a road", "answers": [{"answer": "rust", "rank": 2.0}, {"answer": "river", "rank": 1}]},
    ],
    "lists": [{"prompt": "name a stone", "generations": ["mud", "river"], "ratings": [1.0, 4.0], "models": ["a", "b"]}],
    "pairs": [
        {"history": "name a stone", "human_ref_A": "mud", "human_ref_B": "river", "labels": 0},
        {"question": {"full_text": "name a road"}, "answer_0": "rust", "answer_1": "x", "score_0": -1, "score_1": 1.0},
        {"prompt": "name a tree", "response_1": "oak", "response_2": "mud", "preference_strength": -2, "split": "test"},
    ],
    "argilla": [
        {"fields": {"prompt": "name a stone", "r1": "river", "r2": "mud"}, "responses": [
            {"user_id": "u", "status": "submitted", "values": {"q": {"value": [{"rank": 1, "value": "r1"},
                                                                               {"rank": 2, "value": "r2"}]}}}]},
        {"prompt": "name a road", "r1": "river", "r2": "mud", "q.responses": [["r1", "r2"]],
         "q.responses.users": ["u"], "q.responses.status": ["submitted"]},
    ],
    "label studio": [
        {"data": {"prompt": "name a stone", "items": [{"id": "a", "body": "mud"}, {"id": "b", "body": "river"}]},
         "annotations": [{"completed_by": 3, "lead_time": 2.5, "created_at": "2026-01-31T12", "was_cancelled": False,
                          "result": [{"type": "ranker", "value": {"ranker": {"rank": ["b", "a"]}}}]}]},
        {"data": {"prompt": "name a road", "t1": "river", "t2": "mud"}, "annotations": [
            {"completed_by": {"email": "a@x.org"}, "result": [
                {"type": "pairwise", "to_name": "t1,t2", "value": {"selected": "left"}}]}]},
    ],
}  # fmt: skip
WRONG: list[Any] = [
    None, True, False, 0, 1, -1, 2, 1.5, 2**31, -(2**31) - 1, 2**63, 2**70, -(2**70), 1e11, 1e300, -1e300,
    "", " ", "x", "p0", "true", "false", "1", "-1", "1e300", "nan", "2026-02-30", "evil", "assistant", "active",
    "[/x]", "<script>", "\x1b[31m", "\u202e", "\u2028", "a\0b", "\ud800", "x" * 401, "9" * 5000, "[1]", "{}", "[[[[",
    "\n\nHuman: Hi\n\nAssistant:", [], [None], [True], [[]], ["a", "b"], ["r0", "r0"], [1, 2], [1e300, 0], {}, {"": 1},
    {"r0": True}, {"r0": 2**70}, {"zz": 1}, {"role": "user", "content": "x"}, [{"role": "evil", "content": "x"}],
]  # fmt: skip
"""JSON values of every type, at the edges of ranges and beyond, and texts that act."""


def paths(value: Any) -> Iterator[tuple[Any, ...]]:
    """Every place in a value, containers and what is in them."""
    yield ()
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from ((key, *rest) for rest in paths(each))


def variations() -> Iterator[tuple[str, int, tuple[Any, ...], Any]]:
    """Every format, row, place in the row and wrong value."""
    for name, rows in FILES.items():
        for number, row in enumerate(rows):
            for path in paths(row):
                if path:
                    yield from ((name, number, path, wrong) for wrong in WRONG)


def write(file: Path, name: str, number: int, path: tuple[Any, ...], wrong: Any) -> None:
    """The file of a format with one value replaced."""
    rows = copy.deepcopy(FILES[name])
    inside: Any = rows[number]
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = wrong
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
