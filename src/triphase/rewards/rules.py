"""Rules as scorers: the length of a response, its repetition, a regular expression, JSON that fits a schema.

Each is a function like a user's, run in the process for such functions: an expression that backtracks forever ends at
the time-out. Each rule has its own unit: scaling is left to `ppo.score_normalization`, or to a sum.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

_TYPES: Mapping[str, Any] = {
    "object": dict, "array": list, "string": str, "number": (int, float), "integer": int, "boolean": bool,
    "null": type(None),
}  # fmt: skip


def length(responses: Sequence[str], least: int = 1, most: int = 1_000_000, unit: str = "words") -> list[float]:
    """0 from ``least`` to ``most`` words (or characters); outside, minus the words that are missing or too many."""
    _require_type("least", least, int, "a whole number")
    _require_type("most", most, int, "a whole number")
    if unit not in ("words", "characters") or not 0 <= least <= most:
        raise ValueError(f"unit must be words or characters, and least at most most; not {unit}, {least} and {most}")
    counts = [len(text.split() if unit == "words" else text) for text in responses]
    return [-float(max(0, least - count, count - most)) for count in counts]


def repetition(responses: Sequence[str], n: int = 3) -> list[float]:
    """Minus the share of n-grams of words that occurred earlier in the response; 0 if it is shorter than that."""
    _require_type("n", n, int, "a whole number")
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}")
    return [_repeated(text.split(), n) for text in responses]


def pattern(responses: Sequence[str], pattern: str, whole: bool = False) -> list[float]:
    """1 if a regular expression is found in the response (or matches the ``whole`` of it), else 0."""
    _require_type("pattern", pattern, str, "a text")
    _require_type("whole", whole, bool, "true or false")
    look = re.compile(pattern).fullmatch if whole else re.compile(pattern).search
    return [float(look(text) is not None) for text in responses]


def valid_json(responses: Sequence[str], schema: Mapping[str, Any] | None = None) -> list[float]:
    """1 if the response is JSON that fits, else 0. Of a schema type, properties, required, items and enum count."""
    schema = {} if schema is None else schema
    _require_known(schema)
    return [float(_is_valid(text, schema)) for text in responses]


def _require_type(name: str, value: Any, kind: type, words: str) -> None:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{name} must be {words}, not {value!r}")


def _repeated(words: Sequence[str], n: int) -> float:
    grams = [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
    return (len(set(grams)) - len(grams)) / len(grams) if grams else 0.0


def _require_known(schema: Any, place: str = "schema") -> None:
    _require_type(place, schema, dict, "a mapping")
    unknown = schema.keys() - {"type", "properties", "required", "items", "enum", "title", "description", "$schema"}
    odd = sorted(unknown) or [f"type {kind}" for kind in _kinds_in(schema) if kind not in _TYPES]
    if odd:
        raise ValueError(f"{odd[0]} is not a supported schema keyword; type, properties, required, items and enum are")
    for name, kind, words in (
        ("properties", dict, "a mapping"), ("required", list, "a list of texts"), ("enum", list, "a list"),
    ):  # fmt: skip
        _require_type(f"{place}.{name}", schema.get(name, kind()), kind, words)
    for name in schema.get("required", ()):
        _require_type(f"{place}.required", name, str, "a list of texts")
    for name, inner in schema.get("properties", {}).items():
        _require_known(inner, f"{place}.properties.{name}")
    if "items" in schema:
        _require_known(schema["items"], f"{place}.items")


def _kinds_in(schema: Mapping[str, Any]) -> Sequence[Any]:
    """The types of which a value must have one, in texts; empty if any does."""
    kinds = schema.get("type", [])
    return [str(kind) for kind in kinds] if isinstance(kinds, list) else [str(kinds)]


def _is_valid(text: str, schema: Mapping[str, Any]) -> bool:
    try:
        return _fits(json.loads(text), schema)
    except (ValueError, RecursionError):
        return False


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    kinds = _kinds_in(schema)
    if kinds and not any(_is_of(value, kind) for kind in kinds):
        return False
    if "enum" in schema and not any(_is_same(value, allowed) for allowed in schema["enum"]):
        return False
    if isinstance(value, dict):
        inner = schema.get("properties", {})
        return all(name in value for name in schema.get("required", ())) and all(
            _fits(value[name], below) for name, below in inner.items() if name in value
        )
    return not isinstance(value, list) or all(_fits(item, schema.get("items", {})) for item in value)


def _is_of(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES[kind]) or (kind == "integer" and isinstance(value, float) and value.is_integer())


def _is_same(value: Any, other: Any) -> bool:
    """Whether two values are equal in JSON: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, dict) and isinstance(other, dict):
        return value.keys() == other.keys() and all(_is_same(value[name], other[name]) for name in value)
    if isinstance(value, list) and isinstance(other, list):
        return len(value) == len(other) and all(map(_is_same, value, other))
    return isinstance(value, bool) == isinstance(other, bool) and bool(value == other)
