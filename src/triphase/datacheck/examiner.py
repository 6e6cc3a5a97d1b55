"""Whether the model can process a record: rendered by its chat template, encoded, and within `model.max_length`.

The same examiner for `check` and `run`, so that they agree. Every error names the file and the line.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from triphase.datacheck.shortening import Shortened, shortened
from triphase.errors import DataError, ModelError
from triphase.records.reading import Located
from triphase.records.types import Comparison, Demonstration, Message, Prompt, RankedGroup, Split
from triphase.settings.schema import RunSettings
from triphase.tokens.encoding import TooLong, encode_demonstrations, encode_groups, encode_prompt

if TYPE_CHECKING:
    from triphase.tokens.encoding import Encoded
    from triphase.tokens.template import Template

LEFT_OUT = "left out"
Problem = DataError | Shortened | str | None
"""Why a record cannot be used; if it is too long, `LEFT_OUT`, or what is left of its prompt; None if it is valid."""
_PROBE = "x"
_END_TOKENS = 2


class Examiner:
    """Encodes single records, or says why they cannot be.

    With ``exact`` false (files too large to be encoded in a survey) the template is called once for each sequence of
    roles, and a record is encoded only if its bytes exceed the limit: no token is shorter than a byte. What it then
    refuses, `exact` refuses too; the converse does not hold for a template that depends on the words.
    """

    def __init__(self, template: "Template", settings: RunSettings, *, exact: bool = True) -> None:
        self.template = template
        self.exact = exact
        self._limit, self._too_long = settings.model.max_length, settings.data.too_long
        self._asks_preferences = not settings.data.prompts
        self._rooms: dict[Split, int] = {
            split: max(limit for _, limit in response_limits(settings, split)) for split in ("train", "heldout")
        }
        self._overheads: dict[tuple[Any, ...], int | None] = {}

    def problem(self, role: str, item: Located[Any]) -> Problem:
        """Why a record of ``role`` (demonstrations, prompts, preferences) cannot be used, or what is done with it if it
        is too long; None if it can be used unchanged."""
        if not self.exact and self._passes_by_its_bytes(item.record):
            return None
        try:
            fitting, _ = self.fitted(role, item)
        except DataError as error:
            return error
        if fitting is None or fitting is item:
            return LEFT_OUT if fitting is None else None
        return Shortened.of(item, fitting)

    def as_used(self, role: str, item: Located[Any]) -> Located[Any] | None:
        """A record as a run uses it: shortened if it is too long, or None if it is left out."""
        if not self.exact and self._passes_by_its_bytes(item.record):
            return item
        try:
            return self.fitted(role, item)[0]
        except DataError:
            return None

    def fitted(self, role: str, item: Located[Any]) -> tuple[Located[Any] | None, Any]:
        """A record with its ids, according to `data.too_long`: shortened, or None if it is left out.

        Raises:
            DataError: it cannot be used.
        """
        try:
            return item, getattr(self, role)(item)
        except TooLong:
            if self._too_long == "error":
                raise
            if self._too_long == "drop":
                return None, None
            record = item.record
            whole = record if isinstance(record, Prompt) else record.prompt
            prompt = shortened(whole, lambda one: self._fits(role, item, one))
            if prompt is None:
                raise
            made = _with_prompt(item, prompt)
            return made, getattr(self, role)(made)

    def _fits(self, role: str, item: Located[Any], prompt: Prompt) -> bool:
        try:
            getattr(self, role)(_with_prompt(item, prompt))
        except TooLong:
            return False
        return True

    def demonstrations(self, item: Located[Demonstration]) -> "Encoded":
        """The ids of a demonstration.

        Raises:
            DataError: the template refuses it, it has no tokens, or it is too long.
        """
        try:
            return encode_demonstrations([item.record], self.template, max_length=self._limit)[0]
        except (DataError, ModelError) as error:
            raise _at(item, error) from None

    def prompts(self, item: Located[Prompt]) -> tuple[int, ...]:
        """The ids of a prompt, which must leave room for the longest sampled response.

        Raises:
            DataError: the template refuses it, it has no tokens, or it is too long.
        """
        prompt = item.record
        try:
            return encode_prompt(prompt, self.template, room=self._rooms[prompt.split], max_length=self._limit)
        except (DataError, ModelError) as error:
            raise _at(item, error) from None

    def preferences(self, item: Located[Comparison]) -> None:
        """Check that both answers of a comparison can be encoded, and its prompt if no other prompts are named.

        Raises:
            DataError: the template refuses its prompt, an answer has no tokens, or it is too long.
        """
        record = item.record
        group = RankedGroup(record.prompt, (record.chosen, record.rejected), (True, True), ())
        try:
            encode_groups([group], self.template, max_length=self._limit)
        except (DataError, ModelError) as error:
            raise _at(item, error) from None
        if self._asks_preferences:
            self.prompts(Located(record.prompt, item.where))

    def _passes_by_its_bytes(self, record: Demonstration | Prompt | Comparison) -> bool:
        prompt = record if isinstance(record, Prompt) else record.prompt
        room = self._rooms[prompt.split]
        if isinstance(record, Demonstration):
            room = _size(record.response) + _END_TOKENS
        elif isinstance(record, Comparison):
            answers = max(_size(record.chosen), _size(record.rejected)) + _END_TOKENS
            room = max(answers, room if self._asks_preferences else 0)
        overhead = self._overhead(prompt.messages)
        return (
            overhead is not None
            and overhead + room + sum(_size(message.content) for message in prompt.messages) <= self._limit
        )

    def _overhead(self, messages: Sequence[Message]) -> int | None:
        """Tokens that the template adds to messages of these roles; None if it rejects them."""
        shape = tuple((message.role, not message.content.strip()) for message in messages)
        if shape not in self._overheads:
            probe = [Message(message.role, _PROBE if message.content.strip() else "") for message in messages]
            try:
                self._overheads[shape] = len(self.template.prompt_ids(probe))
            except (DataError, ModelError):
                self._overheads[shape] = None
        return self._overheads[shape]


def response_limits(settings: RunSettings, split: Split) -> list[tuple[str, int]]:
    """(setting, tokens) of the longest responses that are sampled to prompts of a split."""
    limits = [("ppo.max_response_tokens", settings.ppo.max_response_tokens)]
    if split == "train":
        limits += [
            (f"variants.{variant}.max_response_tokens", settings.ppo_of(variant).max_response_tokens)
            for variant in settings.variants
        ]
    if settings.labeling.source != "none":
        limits.append(("sampling.max_response_tokens", settings.sampling.max_response_tokens))
    return limits


def _at(item: Located[Any], error: Exception) -> DataError:
    text = str(error)
    kind = TooLong if isinstance(error, TooLong) else DataError
    return kind(text if text.startswith(f"{item.where}: ") else f"{item.where}: {text}")


def _with_prompt(item: Located[Any], prompt: Prompt) -> Located[Any]:
    record = prompt if isinstance(item.record, Prompt) else replace(item.record, prompt=prompt)
    return replace(item, record=record)


def _size(text: str) -> int:
    # A character has at most four bytes; the exact count is rarely needed.
    return len(text.encode("utf-8", "replace"))
