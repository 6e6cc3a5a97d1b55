"""Records to token ids, with the limits checked: what is too long is an error, never cut silently."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from triphase.errors import DataError
from triphase.records.types import Demonstration, Prompt, RankedGroup
from triphase.tokens.template import Template


class TooLong(DataError):
    """A record that exceeds the maximum length."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of a prompt and of one response to it (its end token included if it is finished)."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]

    @property
    def length(self) -> int:
        """Tokens of prompt and response."""
        return len(self.prompt) + len(self.response)


@dataclass(frozen=True, slots=True)
class EncodedGroup:
    """A ranked group: one prompt, several responses."""

    prompt: tuple[int, ...]
    responses: tuple[tuple[int, ...], ...]


def encode_prompt(prompt: Prompt, template: Template, *, room: int, max_length: int) -> tuple[int, ...]:
    """Ids of a prompt that leaves ``room`` tokens for the response within ``max_length``.

    Raises:
        DataError: the prompt is empty or too long (`TooLong`).
    """
    ids = tuple(template.prompt_ids(prompt.messages))
    if not ids:
        raise DataError(f"prompt {prompt.id!r} has no tokens; remove it or give it text")
    if len(ids) + room > max_length:
        raise TooLong(
            f"prompt {prompt.id!r} has {len(ids)} tokens; with {room} for the response it "
            f"exceeds model.max_length = {max_length}; shorten the prompt or raise the limit"
        )
    return ids


def encode_answer(
    prompt: Prompt, response: str, template: Template, *, finished: bool, max_length: int
) -> Encoded | None:
    """Ids of a prompt and of one response, as the input of a reward model; None if the response has no token.

    Raises:
        DataError: the prompt is empty, or is too long with the response.
    """
    ids = tuple(template.response_ids(response, finished=finished))
    if not ids:
        return None
    return Encoded(encode_prompt(prompt, template, room=len(ids), max_length=max_length), ids)


def encode_demonstrations(
    demonstrations: Iterable[Demonstration], template: Template, *, max_length: int
) -> list[Encoded]:
    """Ids of demonstrations, in order. Of text without a prompt all tokens are trained on but the first, which nothing
    predicts.

    Raises:
        DataError: one is empty or too long.
    """
    encoded = []
    for demonstration in demonstrations:
        response = tuple(template.response_ids(demonstration.response))
        if len(response) < 2:
            raise DataError(f"the response to prompt {demonstration.prompt.id!r} has no tokens; remove it")
        if not demonstration.prompt.messages:
            encoded.append(_encode_text(demonstration, template, response, max_length))
            continue
        prompt = encode_prompt(demonstration.prompt, template, room=len(response), max_length=max_length)
        encoded.append(Encoded(prompt, response))
    return encoded


def _encode_text(demonstration: Demonstration, template: Template, ids: tuple[int, ...], max_length: int) -> Encoded:
    whole = (*template.prompt_ids(()), *ids)
    if len(whole) > max_length:
        raise TooLong(
            f"text {demonstration.prompt.id!r} has {len(whole)} tokens and exceeds "
            f"model.max_length = {max_length}; split it or raise the limit"
        )
    return Encoded(whole[:1], whole[1:])


def without_empty(groups: Iterable[RankedGroup], template: Template) -> tuple[list[RankedGroup], int]:
    """Groups without the responses that have no token (cut off before any text, or special tokens and space alone), and
    how many responses were left out. A group that then ranks nothing is left out too."""
    kept, count = [], 0
    for group in groups:
        whole = [
            bool(template.response_ids(text, finished=finished))
            for text, finished in zip(group.responses, group.finished, strict=True)
        ]
        if not all(whole):
            count += whole.count(False)
            place = [sum(whole[:index]) for index in range(len(whole))]
            pairs = tuple(
                replace(pair, first=place[pair.first], second=place[pair.second])
                for pair in group.pairs
                if whole[pair.first] and whole[pair.second]
            )
            responses = tuple(text for text, there in zip(group.responses, whole, strict=True) if there)
            finished_ones = tuple(ends for ends, there in zip(group.finished, whole, strict=True) if there)
            group = replace(group, responses=responses, finished=finished_ones, pairs=pairs)
        if group.pairs:
            kept.append(group)
    return kept, count


def encode_groups(groups: Iterable[RankedGroup], template: Template, *, max_length: int) -> list[EncodedGroup]:
    """Ids of ranked groups, in order.

    Raises:
        DataError: a response is empty or too long.
    """
    encoded = []
    for group in groups:
        responses = tuple(
            tuple(template.response_ids(text, finished=finished))
            for text, finished in zip(group.responses, group.finished, strict=True)
        )
        if not all(responses):
            raise DataError(f"prompt {group.prompt.id!r} has a response without tokens; remove that response")
        longest = max(len(response) for response in responses)
        prompt = encode_prompt(group.prompt, template, room=longest, max_length=max_length)
        encoded.append(EncodedGroup(prompt, responses))
    return encoded
