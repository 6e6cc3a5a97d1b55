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
    if unit not in ("words", "characters") or not 0 <= least <= most:
        raise ValueError(f"unit is words or characters, and least at most most; not {unit}, {least} and {most}")
    counts = [len(text.split() if unit == "words" else text) for text in responses]
    return [-float(max(0, least - count, count - most)) for count in counts]


def repetition(responses: Sequence[str], n: int = 3) -> list[float]:
    """Minus the share of n-grams of words that occurred earlier in the response; 0 if it is shorter than that."""
    if n < 1:
        raise ValueError(f"n is at least 1, not {n}")
    return [_repeated(text.split(), n) for text in responses]


def pattern(responses: Sequence[str], pattern: str, whole: bool = False) -> list[float]:
    """1 if a regular expression is found in the response (or matches the ``whole`` of it), else 0."""
    look = re.compile(pattern).fullmatch if whole else re.compile(pattern).search
    return [float(look(text) is not None) for text in responses]


def valid_json(responses: Sequence[str], schema: Mapping[str, Any] | None = None) -> list[float]:
    """1 if the response is JSON that fits, else 0. Of a schema type, properties, required, items and enum count."""
    _require_known(schema or {})
    return [float(_is_valid(text, schema or {})) for text in responses]


def _repeated(words: Sequence[str], n: int) -> float:
    grams = [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
    return (len(set(grams)) - len(grams)) / len(grams) if grams else 0.0


def _require_known(schema: Mapping[str, Any]) -> None:
    unknown = schema.keys() - {"type", "properties", "required", "items", "enum", "title", "description", "$schema"}
    if unknown or schema.get("type", "object") not in _TYPES:
        odd = sorted(unknown)[0] if unknown else f"type {schema['type']}"
        raise ValueError(f"{odd} of a schema is not known here: type, properties, required, items and enum are")
    for inner in (*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else ())):
        _require_known(inner)


def _is_valid(text: str, schema: Mapping[str, Any]) -> bool:
    try:
        return _fits(json.loads(text), schema)
    except (ValueError, RecursionError):
        return False


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    kind = schema.get("type")
    if kind is not None and not _is_of(value, kind):
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
