"""A chat template comes with a model and is a program: it runs in the sandbox of transformers, with a time limit.

The sandbox blocks access to Python's internals. A template that could take long, or much memory, runs in a separate
process that is killed at the deadline; one that cannot (`screening`) runs here, without overhead.
"""

from collections.abc import Sequence
from typing import Any

from triphase.errors import ModelError
from triphase.tokens.sandbox import Ended, sandbox
from triphase.tokens.screening import needs_no_guard

SECONDS = 10.0
_LONGEST_TEXT = 50_000_000
_MOST_HERE = 200_000_000
"""Signs that a template may write without a guard: each of its places may write all messages, once for each message."""


def render(
    tokenizer: Any,
    conversation: Sequence[dict[str, str]],
    *,
    open_turn: bool,
    seconds: float = SECONDS,
    date: str | None = None,
) -> str:
    """The text that the tokenizer's chat template renders for a conversation.

    ``date`` (YYYY-MM-DD) is passed to templates that use the current date; None is today.

    Raises:
        ModelError: the template rejects the conversation, is invalid, accesses what the sandbox forbids, or does not
            end within ``seconds`` and a gigabyte of memory.
    """
    template = template_of(tokenizer)
    if _has_code(tokenizer) or (needs_no_guard(template) and _most_of(template, conversation) <= _MOST_HERE):
        answer = _rendered_here(tokenizer, conversation, open_turn)
    else:
        question = {
            "template": template,
            "conversation": list(conversation),
            "open_turn": open_turn,
            "date": date,
            "special_tokens": dict(tokenizer.special_tokens_map),
            "longest": _LONGEST_TEXT,
        }
        try:
            answer = sandbox.ask(question, seconds)
        except Ended:
            answer = {"ended": f"did not end within {seconds:g} s"}
    text = answer.get("text")
    if text is None or len(text) > _LONGEST_TEXT:
        raise ModelError(f"{_whose(tokenizer)} {_problem(answer, conversation)}; {_REMEDY}")
    return text


def _most_of(template: str, conversation: Sequence[dict[str, str]]) -> int:
    size = sum(len(message["role"]) + len(message["content"]) for message in conversation)
    return template.count("{") * (len(conversation) + 1) * size


def template_of(tokenizer: Any) -> str:
    """The chat template for conversations without tools.

    Raises:
        ModelError: there are several, and none of them is the default.
    """
    try:
        return str(tokenizer.get_chat_template())
    except ValueError as error:
        raise ModelError(f"{_whose(tokenizer)} cannot be chosen: {error}") from None


def _has_code(tokenizer: Any) -> bool:
    """Whether the tokenizer renders with its own code, which the user has trusted."""
    from transformers import PreTrainedTokenizerBase

    return type(tokenizer).apply_chat_template is not PreTrainedTokenizerBase.apply_chat_template


def _rendered_here(tokenizer: Any, conversation: Sequence[dict[str, str]], open_turn: bool) -> dict[str, str]:
    from jinja2.exceptions import SecurityError, TemplateError

    try:
        text = tokenizer.apply_chat_template(list(conversation), tokenize=False, add_generation_prompt=open_turn)
    except SecurityError as error:
        return {"forbidden": str(error)}
    except TemplateError as error:
        return {"refused": str(error)}
    except Exception as error:  # a template is third-party code, and may raise anything
        return {"failed": f"{type(error).__name__}: {error}"}
    return {"text": text} if isinstance(text, str) else {}


_REMEDY = "change chat_template in the model's files, or choose another model"


def _whose(tokenizer: Any) -> str:
    return f"the chat template of {tokenizer.name_or_path or 'this tokenizer'}"


def _problem(answer: dict[str, str], conversation: Sequence[dict[str, str]]) -> str:
    if "ended" in answer:
        return answer["ended"]
    if "forbidden" in answer:
        return f"accesses something that a template must not ({_one_line(answer['forbidden'])})"
    if "refused" in answer:
        return f"rejects a conversation of {_roles(conversation)}: {_one_line(answer['refused'])}"
    if "failed" in answer:
        return f"fails ({_one_line(answer['failed'])})"
    return "produces no text of a usable length"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:500]


def _roles(conversation: Sequence[dict[str, str]]) -> str:
    return ", ".join(message["role"] for message in conversation[:6]) + (", …" if len(conversation) > 6 else "")
