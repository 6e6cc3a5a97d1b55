"""A prompt that is too long loses its beginning: the oldest turns, then the beginning of the last message.

The system message stays. The rest begins with a turn of the user, and the answer is never changed.
"""

from collections.abc import Callable
from dataclasses import replace

from triphase.records.identity import prompt_id
from triphase.records.types import Message, Prompt

_NEAR = 40


def shortened(prompt: Prompt, fits: Callable[[Prompt], bool]) -> Prompt | None:
    """The longest suffix of ``prompt`` that fits; None if not even an empty one does.

    It is another prompt with its own id, on the same side of the split as the whole one.
    """
    if not prompt.messages:
        return None
    first = 1 if prompt.messages[0].role == "system" else 0
    system, turns = prompt.messages[:first], prompt.messages[first:]
    for start in range(1, len(turns)):
        if turns[start].role == "user":
            candidate = _made(prompt, (*system, *turns[start:]))
            if fits(candidate):
                return candidate
    return _cut(prompt, system, turns[-1], fits)


def _cut(prompt: Prompt, system: tuple[Message, ...], last: Message, fits: Callable[[Prompt], bool]) -> Prompt | None:
    """The last message without its beginning, from the first word that lets it fit."""
    text = last.content

    def without(count: int) -> Prompt:
        return _made(prompt, (*system, Message(last.role, text[count:].lstrip())))

    low, high = 0, max(0, len(text.rstrip()) - 1)  # one character must stay
    if not fits(without(high)):
        return None
    while low < high:
        middle = (low + high) // 2
        if fits(without(middle)):
            high = middle
        else:
            low = middle + 1
    near = text.find(" ", high, high + _NEAR)
    whole = near if 0 < near < len(text.rstrip()) - 1 else high
    return without(whole) if fits(without(whole)) else without(high)


def _made(prompt: Prompt, messages: tuple[Message, ...]) -> Prompt:
    return replace(prompt, id=prompt_id(messages), messages=messages)
