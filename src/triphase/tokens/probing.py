"""A probe of a tokenizer: whether prompt and response, as trained, equal what its template writes of the dialogue."""

import json
from typing import TYPE_CHECKING, Any

from triphase.tokens.rendering import render, template_of

if TYPE_CHECKING:
    from triphase.tokens.template import Template

PROBE = "triphase probe"
ASKED = ({"role": "user", "content": PROBE},)
ANSWERED = (*ASKED, {"role": "assistant", "content": PROBE})
_SHOWN = 8


def add_generation_prompt(tokenizer: Any) -> str | None:
    """Add a generation prompt to a chat template without one, from what it writes before a response.

    Returns what was added; None if the template has a generation prompt, or writes nothing there.
    """
    opened, closed = render(tokenizer, ASKED, open_turn=True), render(tokenizer, ASKED, open_turn=False)
    whole = render(tokenizer, ANSWERED, open_turn=False)
    header, found, _ = whole[len(opened) :].partition(PROBE)
    if opened != closed or not whole.startswith(opened) or not found or not header.strip():
        return None
    wanted = _ids(tokenizer, whole)
    for opening in (header, header.rstrip(" "), header.rstrip()):
        ids = [*_ids(tokenizer, opened + opening), *_ids(tokenizer, PROBE)]
        if wanted[: len(ids)] == ids:
            header = opening
            break
    written = json.dumps(header, ensure_ascii=False)
    mended = f"{template_of(tokenizer)}{{%- if add_generation_prompt %}}{{{{ {written} }}}}{{% endif %}}"
    if isinstance(tokenizer.chat_template, dict):
        tokenizer.chat_template = {**tokenizer.chat_template, "default": mended}
    else:
        tokenizer.chat_template = mended
    return header


def affixes(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the tokenizer adds before and after a text by itself."""
    found = tokenizer(PROBE, return_special_tokens_mask=True)
    ids, added = list(found.input_ids), list(found.special_tokens_mask)
    count = len(ids) - len(_ids(tokenizer, PROBE))
    before = next((place for place, special in enumerate(added) if not special), len(ids))
    before = min(before, max(0, count))
    return tuple(ids[:before]), tuple(ids[len(ids) - (count - before) :] if count > before else ())


def writes_date(tokenizer: Any) -> bool:
    """Whether a prompt depends on the date."""
    if "strftime_now" not in template_of(tokenizer):
        return False
    one, other = (render(tokenizer, ASKED, open_turn=True, date=date) for date in ("2001-02-03", "2010-11-12"))
    return one != other


def differences(template: "Template") -> list[str]:
    """Notes on where prompt and response differ from what the chat template writes of the whole dialogue."""
    tokenizer = template.tokenizer
    ours = [*_ids(tokenizer, template.render(ASKED, open_turn=True)), *template.response_ids(PROBE)]
    theirs = _ids(tokenizer, template.render(ANSWERED, open_turn=False))
    if theirs[: len(ours)] == ours:
        return []
    end = tokenizer.convert_ids_to_tokens(template.end_id)
    if theirs[: len(ours) - 1] == ours[:-1] and template.end_id not in theirs[len(ours) - 1 :]:
        return [f"the chat template does not end a response: {end} is appended to it, and is trained as its end"]
    same = next(
        (place for place, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs))
    )
    start = max(0, same - 2)
    shown = [" ".join(map(repr, tokenizer.convert_ids_to_tokens(ids[start : same + _SHOWN]))) for ids in (ours, theirs)]
    return [
        f"prompt and response differ from what the chat template renders for the whole dialogue: "
        f"training uses … {shown[0]}, the "
        f"template writes … {shown[1]}"
    ]


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)
