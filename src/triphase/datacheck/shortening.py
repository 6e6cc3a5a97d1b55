"""A prompt that is too long loses its beginning: the oldest turns, then the beginning of the last message.

The system message stays. The rest begins with a turn of the user, and the answer is never changed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from triphase.datacheck.hashes import hash_of
from triphase.records.identity import prompt_id
from triphase.records.reading import Located
from triphase.records.types import Message, Prompt

_NEAR = 40


@dataclass(frozen=True, slots=True)
class Shortened:
    """What is left of a prompt, and the prompt: hashes, equal for equal messages in this process and its forks."""

    rest: int
    whole: int

    @classmethod
    def of(cls, item: Located[Any], fitting: Located[Any]) -> "Shortened":
        """A record and the same with a shortened prompt."""
        return cls(*(hash_of(conversation(_prompt_of(each.record).messages)) for each in (fitting, item)))


class Rests:
    """What is left of the prompts of a run that are shortened."""

    def __init__(self) -> None:
        self._first: dict[int, int] = {}

    def take(self, prompt: Shortened) -> bool:
        """Whether as much was left of another prompt before, so that two have become one."""
        return self._first.setdefault(prompt.rest, prompt.whole) != prompt.whole


def length_notes(lengths: Mapping[str, int]) -> Iterator[str]:
    """What happened to records that are too long."""
    if lengths.get("left out"):
        yield f"{lengths['left out']} records exceed model.max_length and are left out (data.too_long: drop)"
    if lengths.get("shortened"):
        yield (
            f"{lengths['shortened']} prompts lose their beginning, to fit model.max_length (data.too_long: "
            "truncate-prompt)"
        )
    if lengths.get("alike"):
        yield (
            f"{lengths['alike']} of them are then the same prompt as another, on one side of the split: only what all "
            "of them end with is left; raise model.max_length, or leave them out (data.too_long: drop)"
        )


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


def conversation(messages: Sequence[Message]) -> str:
    """The messages of a prompt as one text."""
    return "\x1e".join([f"{message.role}\x1f{message.content}" for message in messages])


def _prompt_of(record: Any) -> Prompt:
    prompt: Prompt = record if isinstance(record, Prompt) else record.prompt
    return prompt


def _made(prompt: Prompt, messages: tuple[Message, ...]) -> Prompt:
    return replace(prompt, id=prompt_id(messages), messages=messages)
