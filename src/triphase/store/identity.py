"""Ids derived from content, so that a record has the same id everywhere (of prompts: ``records.identity``)."""

import hashlib
import json

_DIGITS = 20


def _digest(kind: str, content: list[object]) -> str:
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return f"{kind}-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:_DIGITS]}"


def response_id(prompt: str, model: str, index: int, text: str) -> str:
    """The id of response ``index`` (or seed) of ``model`` to the prompt with id ``prompt``."""
    return _digest("r", [prompt, model, index, text])


def ranking_id(prompt: str, labeler: str, round_: int, content: object = None) -> str:
    """The id of the answer that ``labeler`` gives to a prompt in their round ``round_``."""
    return _digest("k", [prompt, labeler, round_, content])
