"""How a conversation becomes token ids: the tokenizer's own chat template, its end-of-turn and its padding token.

Padding is always recognized by position, never by id: the end-of-turn token also closes every turn inside a prompt, and
many tokenizers pad with it. A padding id that differs from the end is still needed, because a plain
``AutoModelForSequenceClassification`` uses it to find the last token of an exported reward model.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from triphase.errors import DataError, ModelError, TriphaseError, is_out_of_memory
from triphase.records.types import Message
from triphase.settings.schema import ModelSettings
from triphase.tokens.controls import ControlTokens
from triphase.tokens.probing import ANSWERED, PROBE, add_generation_prompt, affixes, differences, writes_date
from triphase.tokens.rendering import render

_MOST_IDS = 1 << 31


@contextmanager
def _using(tokenizer: Any) -> Iterator[None]:
    """Translate errors of a tokenizer's library about files that do not fit together."""
    try:
        yield
    except TriphaseError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        text = "" if isinstance(error, RecursionError) else str(error).strip()  # its message depends on where it was
        line = ": ".join(filter(None, (type(error).__name__, *text.splitlines()[:1])))[:200]
        raise ModelError(
            f"model.name: the tokenizer of {str(getattr(tokenizer, 'name_or_path', ''))[:200]!r} cannot be used "
            f"({line}); its files are damaged or do not fit together: copy the model again"
        ) from error


class Template:
    """Renders prompts and responses of one tokenizer.

    A prompt is rendered by the chat template with a generation prompt; a tokenizer without a template (a base model's)
    uses the plain text. A response is its text and, if it is finished, ``end_id``.

    A chat template without a generation prompt gets one, and what the tokenizer appends to every text (usually an end
    token) is not appended to prompts.

    Attributes:
        ends: every token that ends a response, ``end_id`` first; a model may have more (`also_ends`).
        rows: rows of the model's embedding; None if unknown. A text with tokens beyond them is refused.
        date: the date for chat templates.
        appended: ids that the tokenizer appends to every text by itself, and that prompts omit.
        writes_date: whether prompts depend on the date.
        notes: peculiarities of template and tokenizer, for the user.
    """

    rows: int | None = None

    def __init__(
        self,
        tokenizer: Any,
        system_prompt: str | None = None,
        *,
        texts_write_control_tokens: bool = False,
        date: str | None = None,
    ) -> None:
        """See `ModelSettings` for the arguments; `of` takes them from there.

        Raises:
            ModelError: the chat template fails, or there is no end token or padding token.
        """
        self.tokenizer = tokenizer
        self._system = None if system_prompt is None else Message("system", system_prompt)
        self.date = date
        with _using(tokenizer):
            self._examine(tokenizer, texts_write_control_tokens=texts_write_control_tokens)

    def _examine(self, tokenizer: Any, *, texts_write_control_tokens: bool) -> None:
        self._controls = None if texts_write_control_tokens else ControlTokens(tokenizer)
        self.is_chat = bool(getattr(tokenizer, "chat_template", None))
        opening = add_generation_prompt(tokenizer) if self.is_chat else None
        self.appended = () if self.is_chat else affixes(tokenizer)[1]
        self.writes_date = self.is_chat and writes_date(tokenizer)
        self.end_id: int = self._find_end()
        self.ends: tuple[int, ...] = (self.end_id,)
        self.pad_id: int = self._find_padding()
        # Exported tokenizers get it too: the plain class reads a score at the last token that is not padding.
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(self.pad_id)
        self.notes = tuple(self._find_notes(opening))

    @classmethod
    def of(cls, tokenizer: Any, settings: ModelSettings) -> "Template":
        """The template of a model with these settings."""
        return cls(
            tokenizer,
            settings.system_prompt,
            texts_write_control_tokens=settings.texts_write_control_tokens,
            date=settings.template_date,
        )

    def leave_controls_untold(self) -> None:
        """Do not log the first text that contains the name of a control token: the caller counts them all."""
        if self._controls is not None:
            self._controls.told = True

    def also_ends(self, ids: int | Sequence[int] | None) -> None:
        """Let these tokens end a response too: those of the model's generation configuration.

        Raises:
            ModelError: they are not token ids.
        """
        given: list[Any] = [] if ids is None else list(ids) if isinstance(ids, list | tuple) else [ids]
        if not all(isinstance(each, int) and not isinstance(each, bool) and 0 <= each < _MOST_IDS for each in given):
            raise ModelError(
                f"model.name: eos_token_id is {str(ids)[:80]} in generation_config.json (or "
                f"config.json); it must be a token id, or a list of ids; fix it, or copy the model again"
            )
        self.ends = tuple(dict.fromkeys((*self.ends, *given)))

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The ids of a prompt, up to the start of the response; for no messages, what the tokenizer puts before every
        text."""
        if not messages:
            return list(affixes(self.tokenizer)[0])
        conversation = self.conversation(messages)
        marks = self._controls if self._written_in([message["content"] for message in conversation]) else None
        if marks is not None:
            conversation = [{**message, "content": marks.mark(message["content"])} for message in conversation]
        if self.is_chat:
            text = self.render(conversation, open_turn=True)
            return self._embedded(self._ids(text) if marks is None else marks.ids(text))
        text = "\n".join(message["content"] for message in conversation)
        if marks is not None:
            return self._embedded([*affixes(self.tokenizer)[0], *marks.ids(text)])
        ids = list(self.tokenizer(text).input_ids)
        return self._embedded(ids[: len(ids) - len(self.appended)])

    def render(self, conversation: Sequence[dict[str, str]], *, open_turn: bool) -> str:
        """The output of the chat template, with the date of these settings."""
        return render(self.tokenizer, conversation, open_turn=open_turn, date=self.date)

    def conversation(self, messages: Sequence[Message]) -> list[dict[str, str]]:
        """Messages for a chat template; the settings' system prompt comes first if they have none."""
        if self._system is not None and messages[0].role != "system":
            messages = [self._system, *messages]
        return [{"role": message.role, "content": message.content} for message in messages]

    def response_ids(self, text: str, *, finished: bool = True) -> list[int]:
        """The ids of a response; ``end_id`` comes last if it is finished."""
        if self._controls is not None and self._written_in([text]):
            ids = self._controls.ids(self._controls.mark(text))
        else:
            ids = self._ids(text)
        ids = self._embedded(ids)
        return [*ids, self.end_id] if finished else ids

    def text(self, response_ids: Sequence[int]) -> str:
        """The text of response ids, without special tokens, stripped of surrounding white space."""
        return str(self.tokenizer.decode(list(response_ids), skip_special_tokens=True)).strip()

    def rows_without_token(self, rows: int) -> list[int]:
        """Which of the first ``rows`` ids are not tokens: embeddings are often padded to a round number."""
        known = set(self.tokenizer.get_vocab().values())
        return [row for row in range(rows) if row not in known]

    def _embedded(self, ids: list[int]) -> list[int]:
        if self.rows is not None and ids and max(ids) >= self.rows:
            token = max(ids)
            raise DataError(
                f"a text has the token {self.tokenizer.convert_ids_to_tokens(token)!r} with the id {token}, but the "
                f"model has {self.rows} rows for the {len(self.tokenizer)} tokens of its tokenizer; enlarge the model "
                "(model.resize_token_embeddings) or leave that text out"
            )
        return ids

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def _written_in(self, texts: Sequence[str]) -> bool:
        return self._controls is not None and self._controls.in_any(texts)

    def _find_notes(self, opening: str | None) -> Iterator[str]:
        if opening is not None:
            yield f"the chat template has no generation prompt: {opening.strip()!r} is appended to prompts"
        if self.appended:
            tokens = " ".join(self.tokenizer.convert_ids_to_tokens(list(self.appended)))
            yield f"the tokenizer appends {tokens} to every text; it is left out of prompts"
        if self.writes_date:
            yield (
                f"the chat template writes the date: "
                f"{self.date or 'the day on which the run is started'} is used for the whole run (model.template_date)"
            )
        if self.is_chat:
            yield from differences(self)

    def _find_end(self) -> int:
        eos = self.tokenizer.eos_token_id
        if not self.is_chat:
            if eos is None:
                raise ModelError("the tokenizer has no end-of-sequence token; set eos_token in its configuration")
            return int(eos)
        # The token by which the template closes an assistant's turn is the one that the model must learn to write. Some
        # tokenizers define another one as their end of sequence.
        added = self.tokenizer.added_tokens_decoder
        closing = [token for token in self._closing_ids() if token in added and token != self.tokenizer.unk_token_id]
        for token in [token for token in closing if added[token].special] or closing:
            return int(token)
        if eos is None:
            raise ModelError("neither the chat template nor the tokenizer says which token ends a turn; set eos_token")
        return int(eos)

    def _closing_ids(self) -> list[int]:
        """What the template writes after the text of an assistant's turn."""
        return self._ids(self.render(ANSWERED, open_turn=False).rpartition(PROBE)[2])

    def _find_padding(self) -> int:
        candidates = [self.tokenizer.pad_token_id, self.tokenizer.unk_token_id, self.tokenizer.bos_token_id]
        candidates += sorted(self.tokenizer.all_special_ids)
        for candidate in candidates:
            if candidate is not None and candidate != self.end_id:
                return int(candidate)
        raise ModelError(
            f"the tokenizer's only special token is its end ({self.end_id}), so padding could not be distinguished "
            "from it; add a padding token of its own (tokenizer.add_special_tokens({'pad_token': '[PAD]'})) and a row "
            "for it (model.resize_token_embeddings(len(tokenizer))), and save both"
        )
